// Clients that live through a broker's death.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const {
  COMMIT, UNKNOWN, Checker, assertNothingArrives, receiveAndAck, sendHalf, unique, withProducer, withSimpleConsumer,
} = require('./clients');
const { Broker, waitUntil } = require('./broker');

test('a running producer is asked again after kill -9 and a restart, and its half message is intact', { timeout: 90_000 }, async t => {
  const broker = await new Broker().start();
  const topic = unique('node-restart');
  const body = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  await broker.createTransactionTopic(topic, { immunity: '2s' });
  const checker = new Checker({ order: UNKNOWN });
  try {
    await withProducer(broker, [ topic ], checker, async producer => {
      const { receipt } = await sendHalf(producer, topic, 'order', body);
      await broker.kill();
      checker.answers.order = COMMIT;
      await broker.start();
      // This client opens its stream again after a second and sends its Settings: it can be asked again.
      await withSimpleConsumer(broker, topic, topic, async consumer => {
        const [ received ] = await receiveAndAck(consumer, 1);
        assert.equal(received.messageId, receipt.messageId);
        assert.deepEqual(received.body, body);
        await assertNothingArrives(consumer);
      });
      await waitUntil(async () => (await broker.transaction(receipt.transactionId)).state === 'committed', 'committed');
    });
    assert.equal(await broker.stop(), 0);
  } catch (failure) {
    t.diagnostic(broker.log());
    await broker.kill();
    throw failure;
  }
});
