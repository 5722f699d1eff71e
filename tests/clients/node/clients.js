// The official Node client, as an application uses it, with clean-up and deadlines.
'use strict';

const crypto = require('node:crypto');
const { temporaryFolder } = require('./broker');

// Parts of the client log below the home folder whatever logger they are given: keep a developer's home clean.
process.env.HOME = temporaryFolder('vouch-node-home-');

const assert = require('node:assert/strict');
const { Producer, PushConsumer, SimpleConsumer } = require('rocketmq-client-nodejs');
const { TransactionResolution } = require('rocketmq-client-nodejs/proto/apache/rocketmq/v2/definition_pb');

const COMMIT = TransactionResolution.COMMIT;
const ROLLBACK = TransactionResolution.ROLLBACK;
const UNKNOWN = TransactionResolution.TRANSACTION_RESOLUTION_UNSPECIFIED;

const LONG_LEASE_MS = 60_000;
const SHORT_LEASE_MS = 2_000;
const POLL_MS = 2_000;

const problems = [];
const logger = {
  debug() {}, info() {},
  warn: (...line) => problems.push(line),
  error: (...line) => problems.push(line),
};

/** A name for a topic or group: of this test and of no other. */
const unique = stem => `${stem}-${crypto.randomBytes(4).toString('hex')}`;

async function withClient(client, use) {
  await client.startup();
  try {
    return await use(client);
  } finally {
    await client.shutdown();
  }
}

/** What every client of these tests is made with. */
const options = (endpoints, more) => ({ endpoints, namespace: '', logger, ...more });

function withProducer(broker, topics, checker, use) {
  return withClient(new Producer(options(broker.grpc, { topics, checker })), use);
}

function withSimpleConsumer(broker, consumerGroup, topic, use, filter = '*', awaitDuration = POLL_MS) {
  return withClient(new SimpleConsumer(options(broker.grpc, {
    consumerGroup, awaitDuration, subscriptions: new Map([].concat(topic).map(each => [ each, filter ])),
  })), use);
}

function withPushConsumer(broker, consumerGroup, topic, messageListener, use) {
  return withClient(new PushConsumer(options(broker.grpc, {
    consumerGroup, messageListener, subscriptions: new Map([[ topic, '*' ]]),
  })), use);
}

/** Answers what `answers` says for a message's first key: a resolution or a list of them (the last repeats). */
class Checker {
  constructor(answers = {}) {
    this.answers = answers;
    this.asked = [];
  }

  async check(message) {
    this.asked.push(message);
    const key = message.keys[0];
    const answer = this.answers[key] ?? UNKNOWN;
    if (!Array.isArray(answer)) return answer;
    const times = this.asked.filter(each => each.keys[0] === key).length;
    return answer[Math.min(times, answer.length) - 1];
  }
}

/** Receives until `wanted` messages came. Does not acknowledge. */
async function receive(consumer, wanted, leaseMs = LONG_LEASE_MS, deadlineMs = 30_000) {
  const received = [];
  const end = Date.now() + deadlineMs;
  while (received.length < wanted) {
    assert.ok(Date.now() < end, `got ${received.length} of ${wanted} messages in ${deadlineMs} ms`);
    received.push(...await consumer.receive(32, leaseMs));
  }
  assert.equal(received.length, wanted);
  return received;
}

async function receiveAndAck(consumer, wanted) {
  const received = await receive(consumer, wanted);
  for (const each of received) await consumer.ack(each);
  return received;
}

/** Polls the whole time: a message that would come, had to come to somebody who asks. */
async function assertNothingArrives(consumer, forMs = 3_000) {
  const end = Date.now() + forMs;
  while (Date.now() < end) {
    const received = await consumer.receive(32, LONG_LEASE_MS);
    assert.deepEqual(received.map(m => m.messageId), []);
  }
}

/** Sends a half message and leaves its transaction open. */
async function sendHalf(producer, topic, key, body = Buffer.from(key), more = {}) {
  const transaction = producer.beginTransaction();
  const receipt = await producer.send({ topic, body, keys: [ key ], ...more }, transaction);
  assert.ok(receipt.transactionId);
  return { transaction, receipt };
}

module.exports = {
  COMMIT, ROLLBACK, UNKNOWN, LONG_LEASE_MS, SHORT_LEASE_MS, Checker, assertNothingArrives, problems, receive,
  receiveAndAck, options, sendHalf, unique, withProducer, withPushConsumer, withSimpleConsumer,
};
