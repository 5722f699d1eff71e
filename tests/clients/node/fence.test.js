// The lines that a service adds for the fence, as plugins/README.md shows them for Node, on a real database: what they promise
// when the service dies, comes too late, or never hears what became of its COMMIT.
'use strict';

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const Module = require('node:module');
const path = require('node:path');
const readline = require('node:readline');
const { after, before, describe, test } = require('node:test');
const { Broker, binary, pluginDist, waitUntil } = require('./broker');
const { Checker, assertNothingArrives, problems, receiveAndAck, unique, withProducer, withSimpleConsumer } = require('./clients');

const DOCUMENT = path.resolve(__dirname, '../../../plugins/README.md');
const BLOCK = /<!-- fence: node -->\n```js\n(.*?)```/gs;
const DATABASES = [ 'shop', 'shop_without_trigger' ];

/** The block of the document, as it stands there, in a module beside what an application has already. */
function documented() {
  const blocks = [ ...fs.readFileSync(DOCUMENT, 'utf8').matchAll(BLOCK) ];
  assert.equal(blocks.length, 1, 'plugins/README.md shows the lines for Node once');
  const service = new Module(DOCUMENT, module);
  service.paths = module.paths;
  const own = "const { Pool } = require('pg');\n"
    + "const orderMessage = order => ({ topic: order.topic, body: Buffer.from(JSON.stringify(order)), keys: [ order.id ] });\n";
  service._compile(`${own}${blocks[0][1]}\nmodule.exports = { TooLate, openPool, placeOrder };`, DOCUMENT);
  return service.exports;
}

/** Runs as long as its standard input is open: however this process dies, it goes with it. */
async function startServer() {
  const server = spawn(path.resolve(__dirname, '../python/postgres.sh'), [ binary() ], { stdio: [ 'pipe', 'pipe', 'inherit' ] });
  const ended = new Promise(resolve => server.once('exit', resolve));
  const lines = readline.createInterface(server.stdout)[Symbol.asyncIterator]();
  const said = (await lines.next()).value ?? '';
  if (!said.startsWith('ready ')) {
    assert.equal(await ended, 77, said);
    return { leftOut: `LEFT OUT: the fence in Node. ${said}` };
  }
  const [ , port, password, socket ] = said.split(' ');
  const stop = () => {
    server.stdin.end();
    return ended;
  };
  return { port: Number(port), password, socket, stop };
}

/** A database with tables of a shop and of the fence. */
class Shop {
  constructor(server, name) {
    this.url = `postgres://postgres@localhost/${name}?socket=${server.socket}`;
    this.pool = service.openPool({
      host: '127.0.0.1', port: server.port, user: 'postgres', password: server.password, database: name,
    });
  }

  async ask(statement, ...values) {
    return (await this.pool.query({ text: statement, values, rowMode: 'array' })).rows.flat();
  }

  amounts(order) {
    return this.ask('select amount from orders where id = $1', order.id);
  }

  fence(receipt) {
    return this.ask('select outcome from vouch_fence where fence_key = $1', receipt.messageId);
  }

  async hasNoOpenTransaction() {
    const open = await this.ask(`select query from pg_stat_activity
      where datname = current_database() and state like 'idle in transaction%'`);
    return open.length === 0;
  }

  async endsTheSessionThatWaitsInCommit() {
    const ended = await this.ask(`select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and wait_event = 'SyncRep'`);
    return ended.length > 0;
  }
}

/** A producer whose service is held up: when its half message is stored, or before it ends the transaction. */
class Halting {
  constructor(producer, { halfStored = async () => {}, beforeTheEnd = async () => {} } = {}) {
    Object.assign(this, { producer, halfStored, beforeTheEnd });
  }

  beginTransaction() {
    const transaction = this.producer.beginTransaction();
    const commit = transaction.commit.bind(transaction);
    transaction.commit = () => this.beforeTheEnd().then(commit);
    return transaction;
  }

  async send(half, transaction) {
    this.receipt = await this.producer.send(half, transaction);
    await this.halfStored(this.receipt);
    return this.receipt;
  }
}

const broker = new Broker();
const shops = {};
let service;
let server;
let failed = false;

before(async () => {
  service = documented();
  server = await startServer();
  if (server.leftOut) return;
  for (const name of DATABASES) shops[name] = new Shop(server, name);
  await broker.start();
  const component = fs.readFileSync(path.join(pluginDist(), 'sql-checkback.wasm'));
  await broker.call('PUT', '/v1/plugins/sql-checkback/tags/node', component, 'application/wasm');
});
after(async () => {
  if (!broker.isRunning()) return;
  if (failed) console.error(`--- end of the broker's log\n${broker.log()}`, problems.slice(-10));
  assert.equal(await broker.stop(), 0, 'SIGTERM ends the broker with status 0');
  assert.doesNotMatch(broker.log(), /panicked at/);
  for (const shop of Object.values(shops)) await shop.pool.end();
  await server.stop();
});

/** A test with a topic that is asked about each second; the fence is closed for what is very old only. */
const placing = (name, run, database = DATABASES[0]) => test(name, { timeout: 60_000 }, async context => {
  if (server.leftOut) return context.skip(server.leftOut);
  const topic = unique('node-fence');
  const shop = shops[database];
  try {
    await broker.createTransactionTopic(topic, { max_checks: 1000 });
    await closeTheFenceAfter('60s', topic, shop);
    await run(topic, shop, { id: unique('order'), amount: 20, topic });
  } catch (failure) {
    failed = true;
    throw failure;
  }
});

const closeTheFenceAfter = (age, topic, shop) => broker.call('PUT', `/v1/bindings/${topic}`, {
  plugin: 'sql-checkback:node', topics: [ topic ], config: { database: 'shop', 'fence-after': age },
  grants: { sql: { shop: { url: shop.url, fence: 'vouch_fence', write: true } } },
});

const ends = (receipt, state) => waitUntil(
  async () => (await broker.transaction(receipt.transactionId)).state === state, `the transaction is ${state}`);

/** How it ended, and whether a check did that. */
async function ended(receipt) {
  const transaction = await broker.transaction(receipt.transactionId);
  return [ transaction.state, transaction.last_answer.by.startsWith('component ') ];
}

const arrivesOnce = (topic, receipt, order) => withSimpleConsumer(broker, topic, topic, async consumer => {
  const [ received ] = await receiveAndAck(consumer, 1);
  assert.equal(received.messageId, receipt.messageId);
  assert.deepEqual(JSON.parse(received.body), order);
  await assertNothingArrives(consumer, 2_000);
});

describe('a service with the fence', { concurrency: 4 }, () => {
  placing('an order that is placed has its row of the fence and arrives once', async (topic, shop, order) => {
    await broker.createTransactionTopic(topic, { immunity: '1h' });
    const client = await withProducer(broker, [ topic ], new Checker(), async producer => {
      const client = new Halting(producer);
      await service.placeOrder(client, shop.pool, order);
      return client;
    });
    assert.deepEqual(await ended(client.receipt), [ 'committed', false ]);
    assert.deepEqual(await shop.amounts(order), [ 20 ]);
    assert.deepEqual(await shop.fence(client.receipt), [ 'committed' ]);
    await arrivesOnce(topic, client.receipt, order);
  });

  placing('an order whose service died behind COMMIT is committed by its row', async (topic, shop, order) => {
    const client = await withProducer(broker, [ topic ], new Checker(), async producer => {
      const client = new Halting(producer, { beforeTheEnd: async () => { throw new Error('died'); } });
      await service.placeOrder(client, shop.pool, order);
      return client;
    });
    assert.deepEqual(await shop.amounts(order), [ 20 ]);
    await arrivesOnce(topic, client.receipt, order);
    assert.deepEqual(await ended(client.receipt), [ 'committed', true ]);
  });

  // With the trigger it is that which refuses the row, without it the primary key.
  for (const database of DATABASES) {
    const name = `an order that comes after the check is undone and a new try is placed, in ${database}`;
    placing(name, async (topic, shop, order) => {
      await closeTheFenceAfter('1s', topic, shop);
      await withProducer(broker, [ topic ], new Checker(), async producer => {
        const late = new Halting(producer, { halfStored: receipt => ends(receipt, 'rolled_back') });
        await assert.rejects(service.placeOrder(late, shop.pool, order), service.TooLate);
        assert.deepEqual(await ended(late.receipt), [ 'rolled_back', true ]);
        assert.deepEqual(await shop.amounts(order), []);
        assert.deepEqual(await shop.fence(late.receipt), [ 'rolled_back' ]);
        await waitUntil(() => shop.hasNoOpenTransaction(), 'no transaction is left open');
        await broker.createTransactionTopic(topic, { immunity: '1h' });
        const again = new Halting(producer);
        await service.placeOrder(again, shop.pool, order);
        assert.deepEqual(await shop.amounts(order), [ 20 ]);
        await arrivesOnce(topic, again.receipt, order);
      });
    }, database);
  }

  placing('a COMMIT whose answer is lost is no rollback', async (topic, shop, order) => {
    order.id = `unanswered-${order.id}`;
    await withProducer(broker, [ topic ], new Checker(), async producer => {
      const client = new Halting(producer);
      const refused = assert.rejects(service.placeOrder(client, shop.pool, order), /terminat/);
      await waitUntil(() => shop.endsTheSessionThatWaitsInCommit(), 'COMMIT waits');
      await refused;
      await arrivesOnce(topic, client.receipt, order);
      assert.deepEqual(await shop.amounts(order), [ 20 ]);
      assert.deepEqual(await ended(client.receipt), [ 'committed', true ]);
    });
  });

  placing('a COMMIT that never happened is found out by the check', async (topic, shop, order) => {
    order.id = `lost-${order.id}`;
    await withProducer(broker, [ topic ], new Checker(), async producer => {
      const client = new Halting(producer);
      await assert.rejects(service.placeOrder(client, shop.pool, order), /terminat/);
      await closeTheFenceAfter('1s', topic, shop);
      await ends(client.receipt, 'rolled_back');
      assert.deepEqual(await shop.amounts(order), []);
      assert.deepEqual(await ended(client.receipt), [ 'rolled_back', true ]);
      await withSimpleConsumer(broker, topic, topic, consumer => assertNothingArrives(consumer, 2_000));
    });
  });
});
