// The same core as the Python suite, with the unmodified Node client: another set of quirks (protocol 6.3).
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { after, before, describe, test } = require('node:test');
const {
  COMMIT, ROLLBACK, UNKNOWN, LONG_LEASE_MS, SHORT_LEASE_MS, Checker, assertNothingArrives, problems, receive,
  receiveAndAck, sendHalf, unique, withProducer, withPushConsumer, withSimpleConsumer,
} = require('./clients');
const { ConsumeResult } = require('rocketmq-client-nodejs');
const { Broker, pluginDist, sleep, waitUntil } = require('./broker');

const ALL_BYTES = Buffer.concat([ Buffer.from(Array.from({ length: 256 }, (_, i) => i)), Buffer.from('Grüße, 订单, 🚚') ]);
const NEVER_ASKED = { immunity: '1h', interval: '1h' };

const broker = new Broker();
let failed = false;

before(() => broker.start());
after(async () => {
  if (failed) console.error(`--- end of the broker's log\n${broker.log()}`, problems.slice(-10));
  assert.equal(await broker.stop(), 0, 'SIGTERM ends the broker with status 0');
  assert.doesNotMatch(broker.log(), /panicked at/);
});

/** A test that may not hang: this client waits for Settings without a limit of its own. */
const timed = (name, run, timeout = 60_000) => test(name, { timeout }, async () => {
  try {
    await run();
  } catch (failure) {
    failed = true;
    throw failure;
  }
});

const becomes = (receipt, state) => waitUntil(async () => {
  const transaction = await broker.transaction(receipt.transactionId);
  return transaction.state === state && transaction;
}, `the transaction is ${state}`);

describe('the Node client', { concurrency: 4 }, () => {
  timed('a message arrives exactly as it was sent', async () => {
    const topic = unique('node-exact');
    await broker.createTopic(topic);
    const properties = new Map([[ 'region', 'eu-west' ], [ 'größe', 'süß 订单 🚚' ]]);
    await withProducer(broker, [ topic ], undefined, producer => withSimpleConsumer(broker, topic, topic, async consumer => {
      const receipt = await producer.send({ topic, body: ALL_BYTES, tag: 'paid', keys: [ 'order-1', 'müller' ], properties });
      const [ received ] = await receiveAndAck(consumer, 1);
      assert.equal(received.messageId, receipt.messageId);
      assert.equal(received.topic, topic);
      assert.deepEqual(received.body, ALL_BYTES);
      assert.equal(received.tag, 'paid');
      assert.deepEqual(received.keys, [ 'order-1', 'müller' ]);
      assert.deepEqual(received.properties, properties);
      assert.equal(received.deliveryAttempt, 1);
      assert.ok(!received.corrupted);
      await assertNothingArrives(consumer);
    }));
  });

  timed('producers and consumers of several topics start in under 5 s', async () => {
    const topics = [ unique('node-start-a'), unique('node-start-b'), unique('node-start-c') ];
    for (const topic of topics) await broker.createTopic(topic);
    const began = Date.now();
    await withProducer(broker, topics, undefined, async producer => {
      assert.ok(Date.now() - began < 5_000, `a producer of three topics took ${Date.now() - began} ms`);
      for (const topic of topics) await producer.send({ topic, body: Buffer.from(topic) });
      const consumerBegan = Date.now();
      await withSimpleConsumer(broker, unique('node-start'), topics, async consumer => {
        assert.ok(Date.now() - consumerBegan < 5_000, `a consumer of three topics took ${Date.now() - consumerBegan} ms`);
        const received = await receiveAndAck(consumer, 3);
        assert.deepEqual(received.map(m => m.body.toString()).sort(), [ ...topics ].sort());
      });
    });
  });

  timed('every message of eight queues arrives although this client names queue 0 only', async () => {
    const topic = unique('node-queues');
    await broker.createTopic(topic);
    await withProducer(broker, [ topic ], undefined, producer => withSimpleConsumer(broker, topic, topic, async consumer => {
      const sent = [];
      for (let i = 0; i < 100; i++) sent.push((await producer.send({ topic, body: Buffer.from(`${i}`) })).messageId);
      const received = await receiveAndAck(consumer, 100);
      assert.deepEqual(received.map(m => m.messageId).sort(), sent.sort());
      await assertNothingArrives(consumer);
    }));
  });

  timed('tag filters select', async () => {
    const topic = unique('node-tags');
    await broker.createTopic(topic);
    await withProducer(broker, [ topic ], undefined, async producer => {
      for (const tag of [ 'A', 'B', 'C', undefined ]) await producer.send({ topic, tag, body: Buffer.from(`tag ${tag}`) });
    });
    await withSimpleConsumer(broker, topic, topic, async consumer => {
      const received = await receiveAndAck(consumer, 2);
      assert.deepEqual(received.map(m => m.tag).sort(), [ 'A', 'B' ]);
      await assertNothingArrives(consumer);
    }, 'A || B');
  });

  timed('what is not acknowledged comes back as the second attempt, and a stale handle is refused', async () => {
    const topic = unique('node-again');
    await broker.createTopic(topic);
    await withProducer(broker, [ topic ], undefined, producer => withSimpleConsumer(broker, topic, topic, async consumer => {
      await producer.send({ topic, body: ALL_BYTES });
      const [ first ] = await receive(consumer, 1, SHORT_LEASE_MS);
      const [ second ] = await receive(consumer, 1);
      assert.deepEqual([ first.deliveryAttempt, second.deliveryAttempt ], [ 1, 2 ]);
      assert.equal(first.messageId, second.messageId);
      await assert.rejects(consumer.ack(first), error => error.code === 40013 || /40013|handle/i.test(String(error)));
      await consumer.ack(second);
      await assertNothingArrives(consumer);
    }));
  });

  timed('a changed invisible duration rules', async () => {
    const topic = unique('node-change');
    await broker.createTopic(topic);
    await withProducer(broker, [ topic ], undefined, producer => withSimpleConsumer(broker, topic, topic, async consumer => {
      await producer.send({ topic, body: ALL_BYTES });
      const [ received ] = await receive(consumer, 1, SHORT_LEASE_MS);
      await consumer.changeInvisibleDuration(received, 30_000);
      await assertNothingArrives(consumer, SHORT_LEASE_MS + 3_000);
      await consumer.changeInvisibleDuration(received, 0); // this client sends 0 for "now"
      const [ again ] = await receive(consumer, 1);
      assert.equal(again.deliveryAttempt, 2);
      await consumer.ack(again);
    }));
  });

  timed('the last attempt leads to the dead letter topic', async () => {
    const topic = unique('node-dead');
    await broker.createTopic(topic);
    await broker.createGroup(topic, { max_attempts: 2 });
    await withProducer(broker, [ topic ], undefined, producer => withSimpleConsumer(broker, topic, topic, async consumer => {
      const receipt = await producer.send({ topic, body: ALL_BYTES, tag: 't' });
      for (const attempt of [ 1, 2 ]) {
        const [ received ] = await receive(consumer, 1, SHORT_LEASE_MS);
        assert.equal(received.deliveryAttempt, attempt);
      }
      await assertNothingArrives(consumer, SHORT_LEASE_MS + 3_000);
      await withSimpleConsumer(broker, unique('node-undertaker'), `%DLQ%${topic}`, async undertaker => {
        const [ dead ] = await receiveAndAck(undertaker, 1);
        assert.equal(dead.messageId, receipt.messageId);
        assert.deepEqual(dead.body, ALL_BYTES);
        assert.equal(dead.tag, 't');
      });
    }));
  });

  timed('a committed transaction is visible, a rolled back one never', async () => {
    const topic = unique('node-transaction');
    await broker.createTransactionTopic(topic, NEVER_ASKED);
    await withProducer(broker, [ topic ], new Checker(), producer => withSimpleConsumer(broker, topic, topic, async consumer => {
      const kept = await sendHalf(producer, topic, 'kept', ALL_BYTES);
      const dropped = await sendHalf(producer, topic, 'dropped');
      await assertNothingArrives(consumer);
      await dropped.transaction.rollback();
      await kept.transaction.commit();
      await kept.transaction.commit(); // a repeat adds nothing
      const [ received ] = await receiveAndAck(consumer, 1);
      assert.equal(received.messageId, kept.receipt.messageId);
      assert.deepEqual(received.body, ALL_BYTES);
      await assertNothingArrives(consumer);
      await assert.rejects(dropped.transaction.commit(), /rolled/i);
      await assert.rejects(kept.transaction.rollback(), /committed/i);
      assert.equal((await broker.transaction(kept.receipt.transactionId)).state, 'committed');
      assert.equal((await broker.transaction(dropped.receipt.transactionId)).state, 'rolled_back');
    }));
  });

  timed('orphans are settled by the checker', async () => {
    const topic = unique('node-orphan');
    await broker.createTransactionTopic(topic);
    const checker = new Checker({ kept: COMMIT, dropped: ROLLBACK });
    await withProducer(broker, [ topic ], checker, producer => withSimpleConsumer(broker, topic, topic, async consumer => {
      const kept = await sendHalf(producer, topic, 'kept', ALL_BYTES);
      const dropped = await sendHalf(producer, topic, 'dropped');
      const [ received ] = await receiveAndAck(consumer, 1);
      assert.equal(received.messageId, kept.receipt.messageId);
      await becomes(dropped.receipt, 'rolled_back');
      await assertNothingArrives(consumer);
      assert.deepEqual(checker.asked.map(m => m.keys[0]).sort(), [ 'dropped', 'kept' ]);
      assert.ok(checker.asked.every(m => !m.corrupted));
    }));
  });

  timed('an undecided checker is silent, and its silence is counted once the client was heard again', async () => {
    const topic = unique('node-silent');
    await broker.createTransactionTopic(topic);
    const checker = new Checker({ order: [ UNKNOWN, COMMIT ] });
    await withProducer(broker, [ topic ], checker, producer => withSimpleConsumer(broker, topic, topic, async consumer => {
      const { receipt } = await sendHalf(producer, topic, 'order');
      const [ received ] = await receiveAndAck(consumer, 1); // after a heartbeat, within 10 s
      assert.equal(received.messageId, receipt.messageId);
      await becomes(receipt, 'committed');
      assert.equal(checker.asked.length, 2);
    }));
  });

  timed('an orphan of a dead producer is settled by the component', async () => {
    const topic = unique('node-component');
    await broker.createTransactionTopic(topic);
    const service = http.createServer((request, response) => {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ status: request.url === '/orders/order-1' ? 'paid' : 'cancelled' }));
    });
    await new Promise(resolve => service.listen(0, '127.0.0.1', resolve));
    try {
      const origin = `http://127.0.0.1:${service.address().port}`;
      const component = fs.readFileSync(path.join(pluginDist(), 'http-checkback.wasm'));
      await broker.call('PUT', '/v1/plugins/http-checkback/tags/node', component, 'application/wasm');
      await broker.call('PUT', `/v1/bindings/${topic}`, {
        plugin: 'http-checkback:node', topics: [ topic ], grants: { http: [ origin ] },
        config: { url: `${origin}/orders/{key}`, field: '/status', commit: 'paid', rollback: 'cancelled' },
      });
      const { kept, dropped } = await withProducer(broker, [ topic ], new Checker(), async producer => ({
        kept: await sendHalf(producer, topic, 'order-1'), dropped: await sendHalf(producer, topic, 'order-2'),
      }));
      await withSimpleConsumer(broker, topic, topic, async consumer => {
        const [ received ] = await receiveAndAck(consumer, 1);
        assert.equal(received.messageId, kept.receipt.messageId);
        await becomes(dropped.receipt, 'rolled_back');
        await assertNothingArrives(consumer);
      });
    } finally {
      service.closeAllConnections();
      service.close();
    }
  });

  timed('a push consumer processes each message once and retries a failed one after about a second', async () => {
    const topic = unique('node-push');
    await broker.createTopic(topic);
    const deliveries = [];
    const listener = {
      async consume(message) {
        deliveries.push({ id: message.messageId, attempt: message.deliveryAttempt, at: Date.now() });
        return message.tag === 'poison' && message.deliveryAttempt === 1 ? ConsumeResult.FAILURE : ConsumeResult.SUCCESS;
      },
    };
    await withProducer(broker, [ topic ], undefined, producer => withPushConsumer(broker, topic, topic, listener, async () => {
      const sent = [];
      for (let i = 0; i < 50; i++) sent.push((await producer.send({ topic, body: Buffer.from(`${i}`) })).messageId);
      const poison = (await producer.send({ topic, body: ALL_BYTES, tag: 'poison' })).messageId;
      await waitUntil(() => deliveries.length >= 52, '52 deliveries', 30_000);
      await sleep(2_000);
      assert.deepEqual(deliveries.map(d => d.id).sort(), [ ...sent, poison, poison ].sort());
      const [ first, second ] = deliveries.filter(d => d.id === poison);
      assert.deepEqual([ first.attempt, second.attempt ], [ 1, 2 ]);
      // With the rule meant for this client (protocol 6.3); without it the retry is immediate.
      assert.ok(second.at - first.at >= 900, `retried after ${second.at - first.at} ms`);
      assert.ok(second.at - first.at <= 5_000, `retried after ${second.at - first.at} ms`);
    }));
  }, 90_000);

  timed('an unknown topic is an error that says what to do', async () => {
    const topic = unique('node-unknown');
    await withProducer(broker, [], undefined, async producer => {
      await assert.rejects(producer.send({ topic, body: ALL_BYTES }), new RegExp(`vouch topic create ${topic}`));
    });
  });
});
