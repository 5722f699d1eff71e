// The unmodified Node client and three nodes that are one broker. VOUCH_LEADER_LOSSES (2), VOUCH_SEED.
'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const { describe, test } = require('node:test');
const {
  COMMIT, ROLLBACK, UNKNOWN, LONG_LEASE_MS, Checker, assertNothingArrives, options, problems, receive, receiveAndAck, sendHalf,
  unique, withProducer, withSimpleConsumer,
} = require('./clients');
const { ConsumeResult, Producer, PushConsumer, SimpleConsumer } = require('rocketmq-client-nodejs');
const { sleep, waitUntil } = require('./broker');
const { Cluster } = require('./cluster');
const { Ledger, PLANS, commits, told } = require('./ledger');

const LEADER_LOSSES = Number(process.env.VOUCH_LEADER_LOSSES ?? 2);
const SEED = Number(process.env.VOUCH_SEED ?? crypto.randomInt(2 ** 31));
const LEASE_MS = 4_000;
const POLL_MS = 1_000;

/** A cluster for one test, whose log is told when that fails. */
const withCluster = (name, mapped, run) => test(name, { timeout: 3_600_000 }, async t => {
  const cluster = await Cluster.start(mapped);
  try {
    await run(cluster, t);
  } catch (failure) {
    t.diagnostic(`${cluster.log()}\n${problems.slice(-5).map(each => each.join(' ')).join('\n')}`);
    await cluster.stop();
    throw failure;
  }
  assert.deepEqual(await cluster.stop(), []);
});

/** Numbers from 0 to 1, the same ones for the same seed. */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Producers and consumers at all nodes. */
class Load {
  constructor(cluster, name) {
    this.cluster = cluster;
    this.ledger = new Ledger();
    this.plain = `${name}-plain`;
    this.transactional = `${name}-tx`;
    this.groups = [ `${name}-simple`, `${name}-push` ];
    this.checker = new Checker();
    this.clients = [];
    this.producing = [];
    this.consuming = [];
    this.sending = this.receiving = true;
  }

  async start() {
    const leader = await this.cluster.leader();
    await leader.createTopic(this.plain, 'normal', { queues: 2 });
    await leader.createTransactionTopic(this.transactional, { max_checks: 1000 });
    this.pushed = this.push();
    await Promise.all([ ...this.cluster.nodes.map((node, index) => this.at(node, random(SEED + index))),
      ...this.pushed.map(each => each.startup()) ]);
    return this;
  }

  async at(node, rng) {
    const once = await this.kept(new Producer(options(node.access, { topics: [ this.plain ], maxAttempts: 1 })));
    const again = await this.kept(new Producer(options(node.access, { topics: [ this.plain ] })));
    const asked = await this.kept(new Producer(options(node.access, { topics: [ this.transactional ], checker: this.checker })));
    this.producing.push(this.sendPlain(`once-${node.id}`, once, true), this.sendPlain(`again-${node.id}`, again, false),
      this.sendHalves(`half-${node.id}`, asked, rng));
    // One for each topic: this client waits at one topic while the other one has messages.
    for (const topic of [ this.plain, this.transactional ]) {
      const consumer = await this.kept(new SimpleConsumer(options(node.access, {
        consumerGroup: this.groups[0], awaitDuration: POLL_MS, subscriptions: new Map([[ topic, '*' ]]),
      })));
      this.consuming.push(this.receive(consumer, rng));
    }
  }

  async kept(client) {
    await client.startup();
    this.clients.push(client);
    return client;
  }

  async sendPlain(name, producer, once) {
    for (let number = 0; this.sending; number++) {
      const send = this.ledger.send(`${name}-${number}`, undefined, once);
      try {
        const receipt = await producer.send({ topic: this.plain, body: Buffer.from(send.body) });
        this.ledger.sent(send, receipt.messageId);
        await sleep(40);
      } catch (error) {
        this.ledger.failed(send, error);
        await sleep(200);
      }
    }
  }

  async sendHalves(name, producer, rng) {
    for (let number = 0; this.sending; number++) {
      const plan = PLANS[Math.floor(rng() * PLANS.length)];
      const send = this.ledger.send(`${name}-${number}`, plan, true); // this client sends half messages once
      const end = commits(plan) ? COMMIT : ROLLBACK;
      this.checker.answers[send.body] = plan === 'silent-late' ? [ UNKNOWN, end ] : end;
      try {
        const { transaction, receipt } = await sendHalf(producer, this.transactional, send.body);
        this.ledger.sent(send, receipt.messageId);
        await this.end(plan, transaction);
        await sleep(60);
      } catch (error) {
        this.ledger.failed(send, error);
        await sleep(200);
      }
    }
  }

  /** As planned. Where the answer gets lost, the checker says the same. */
  async end(plan, transaction) {
    try {
      if (plan === 'commit') await transaction.commit();
      else if (plan === 'rollback') await transaction.rollback();
    } catch (error) {
      this.ledger.error('end', error);
    }
  }

  async receive(consumer, rng) {
    while (this.receiving) {
      try {
        for (const message of await consumer.receive(16, LEASE_MS)) {
          const delivery = this.ledger.delivered(this.groups[0], message);
          // Some leases run out, and then the message comes again.
          if (rng() >= 0.03 || delivery.attempt > 1) await this.acknowledge(consumer, message, delivery);
        }
      } catch (error) {
        this.ledger.error('receive', error);
        await sleep(200);
      }
    }
  }

  async acknowledge(consumer, message, delivery) {
    try {
      await consumer.ack(message);
      delivery.acknowledged = true;
    } catch (error) {
      if (told(error) !== '40013') this.ledger.error('ack', error); // its lease ran out meanwhile: no news
    }
  }

  /** Push consumers at two of the nodes. */
  push() {
    const consume = async message => {
      this.ledger.delivered(this.groups[1], message);
      return ConsumeResult.SUCCESS;
    };
    return this.cluster.nodes.slice(1).map(node => new PushConsumer(options(node.access, {
      consumerGroup: this.groups[1],
      subscriptions: new Map([[ this.plain, '*' ], [ this.transactional, '*' ]]),
      messageListener: { consume },
    })));
  }

  /** Waits until this many more sends were acknowledged. */
  goesOn(sends) {
    const before = this.ledger.acknowledged;
    return waitUntil(() => this.ledger.acknowledged >= before + sends, `${sends} more sends are acknowledged`, 60_000);
  }

  async stopSending() {
    this.sending = false;
    await Promise.all(this.producing);
  }

  async stop() {
    await this.stopSending();
    this.receiving = false;
    await Promise.all(this.consuming);
    // Push consumers wait for their last long poll, up to 20 seconds: nobody waits for that.
    for (const each of this.pushed ?? []) each.shutdown().catch(() => {});
    await Promise.allSettled(this.clients.map(client => client.shutdown()));
  }
}

async function openTransactions(node, topic) {
  let open = 0;
  for (const state of [ 'open', 'waiting_for_checker', 'parked' ]) {
    open += (await node.call('GET', `/v1/transactions?state=${state}&topic=${topic}`)).items.length;
  }
  return open;
}

async function underLoad(cluster, t, losses) {
  const load = new Load(cluster, unique('node-load'));
  const { ledger, groups } = load;
  const lostOnes = [];
  try {
    await load.start();
    for (let loss = 0; loss < losses; loss++) {
      await load.goesOn(60);
      const lost = await cluster.leader();
      await lost.kill();
      await cluster.leader(lost);
      await load.goesOn(60);
      await lost.start();
      await cluster.caughtUp();
      lostOnes.push(`${lost}`);
    }
    await load.goesOn(60);
    for (const node of cluster.nodes.filter(each => each.mapping)) {
      assert.deepEqual(node.mapping.past(), [], `nobody is led to the own port of ${node}`);
      assert.ok(node.mapping.carried > 0, `clients came to ${node} over its mapped port`);
    }
    await load.stopSending();
    // The producers that were there all the time are asked: this client opens its streams again.
    await waitUntil(async () => await openTransactions(await cluster.leader(), load.transactional) === 0,
      `all transactions ended; VOUCH_SEED=${SEED}`, 60_000);
    // What a lost node had and did not tell its push consumer stays with that for a lease of a minute.
    await waitUntil(() => groups.every(group => ledger.missing(group).length === 0), 'all came', 75_000).catch(() => {});
    await sleep(LEASE_MS + POLL_MS); // what would come again, would come here
  } finally {
    await load.stop();
  }
  const summary = `VOUCH_SEED=${SEED}, killed: ${lostOnes.join(', ')}; ${ledger.summary(groups)}`;
  t.diagnostic(summary);
  assert.deepEqual(ledger.faults(groups), [], summary);
  const done = [ ...ledger.sends.values() ].filter(each => each.acknowledged && each.plan).map(each => each.plan);
  assert.deepEqual([ ...new Set(done) ].sort(), [ ...PLANS ].sort(), 'each plan was had');
}

describe('the Node client and three nodes', { concurrency: 3 }, () => {
  withCluster('leaders are killed under load, and what anybody was told is true', false,
    (cluster, t) => underLoad(cluster, t, LEADER_LOSSES));
  withCluster('clients behind a port mapping go on when the leader is killed', true, (cluster, t) => underLoad(cluster, t, 1));
  withCluster('clients of followers do all that those of the leader do', false, onFollowers);
  withCluster('several addresses in one access point are none to this client', false, severalAddresses);
});

async function onFollowers(cluster) {
  const [ one, other ] = await cluster.followers();
  const [ topic, half ] = [ unique('node-follower'), unique('node-follower-tx') ];
  await one.createTopic(topic);
  await one.createTransactionTopic(half);
  const checker = new Checker({ silent: [ UNKNOWN, COMMIT ] });
  await withProducer(one, [ topic, half ], checker, async producer => {
    await withSimpleConsumer(one, topic, topic, consumer => withSimpleConsumer(other, topic, topic, async member => {
      const receipt = await producer.send({ topic, body: Buffer.from('held') });
      const [ held ] = await receive(consumer, 1);
      assert.equal(held.messageId, receipt.messageId);
      await consumer.changeInvisibleDuration(held, 1_000);
      const [ again ] = await receive(member, 1, LONG_LEASE_MS);
      assert.deepEqual([ held.deliveryAttempt, again.deliveryAttempt ], [ 1, 2 ]);
      await assert.rejects(consumer.ack(held), error => told(error) === '40013');
      await member.ack(again);
      await assertNothingArrives(consumer, 2_000);
    }));
    await withSimpleConsumer(other, half, half, async consumer => {
      await (await sendHalf(producer, half, 'kept')).transaction.commit();
      await (await sendHalf(producer, half, 'dropped')).transaction.rollback();
      await sendHalf(producer, half, 'silent');
      const received = await receiveAndAck(consumer, 2);
      assert.deepEqual(received.map(each => each.body.toString()).sort(), [ 'kept', 'silent' ]);
      assert.ok(checker.asked.filter(each => each.keys[0] === 'silent').length >= 2);
      await assertNothingArrives(consumer, 2_000);
    });
  });
}

/** It makes one name for gRPC of them, which is none. When that changes, host/docs/replication.md has to say so. */
async function severalAddresses(cluster) {
  const topic = unique('node-all');
  await (await cluster.leader()).createTopic(topic);
  const all = { grpc: cluster.nodes.map(node => node.access).join(';') };
  await assert.rejects(withProducer(all, [ topic ], undefined, () => {}), /Failed to fetch topic routes|Startup/);
}
