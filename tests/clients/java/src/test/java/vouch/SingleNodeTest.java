package vouch;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static vouch.Clients.assertNothingArrives;
import static vouch.Clients.bodies;
import static vouch.Clients.message;
import static vouch.Clients.receive;
import static vouch.Clients.receiveAndAck;
import static vouch.Clients.unique;

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.PushConsumer;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.SendReceipt;
import org.apache.rocketmq.client.apis.producer.Transaction;
import org.apache.rocketmq.client.apis.producer.TransactionResolution;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.api.parallel.Execution;
import org.junit.jupiter.api.parallel.ExecutionMode;

/** The unmodified Java client and one node. */
@Execution(ExecutionMode.CONCURRENT)
@Timeout(60)
class SingleNodeTest {
    private static final Duration SHORT_LEASE = Duration.ofSeconds(2);
    private static final Duration A_WHILE = Duration.ofSeconds(3);

    @TempDir
    static Path folder;
    private static Broker broker;

    @RegisterExtension
    static final LogOnFailure LOG = new LogOnFailure(() -> broker.log());

    @BeforeAll
    static void start() {
        broker = new Broker(folder).start();
    }

    @AfterAll
    static void stop() {
        broker.stop();
    }

    private static byte[] allBytes() {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        IntStream.range(0, 256).forEach(all::write);
        all.writeBytes("Grüße, 订单, 🚚".getBytes(StandardCharsets.UTF_8));
        return all.toByteArray();
    }

    private static String topic(String stem) {
        String topic = unique(stem);
        broker.createTopic(topic, "normal", 8);
        return topic;
    }

    private static SimpleConsumer consumer(String topic) throws ClientException {
        return Clients.simpleConsumer(broker.grpc, topic, topic);
    }

    @Test
    void aMessageArrivesAsItWasSentAndUnderTheIdOfItsReceipt() throws Exception {
        String topic = topic("exact");
        try (Producer producer = Clients.producer(broker.grpc, topic); SimpleConsumer consumer = consumer(topic)) {
            Message sent = Clients.builder(topic, allBytes()).setTag("paid").setKeys("order-1", "müller")
                .addProperty("region", "eu-west").addProperty("größe", "süß 订单 🚚").build();
            SendReceipt receipt = producer.send(sent);
            MessageView received = receiveAndAck(consumer, 1).get(0);
            assertEquals(receipt.getMessageId(), received.getMessageId());
            assertEquals(topic, received.getTopic());
            assertArrayEquals(allBytes(), Clients.bytes(received));
            assertEquals(Optional.of("paid"), received.getTag());
            assertEquals(List.of("order-1", "müller"), new ArrayList<>(received.getKeys()));
            assertEquals(Map.of("region", "eu-west", "größe", "süß 订单 🚚"), received.getProperties());
            assertEquals(1, received.getDeliveryAttempt());
            assertNothingArrives(consumer, A_WHILE);
        }
    }

    @Test
    void theSamePortTakesAClientWithoutTls() throws Exception {
        String topic = topic("plaintext");
        ClientConfiguration plaintext = Clients.configuration(broker.grpc, false);
        try (Producer producer = Clients.PROVIDER.newProducerBuilder().setClientConfiguration(plaintext).setTopics(topic).build();
                SimpleConsumer consumer = Clients.simpleConsumer(plaintext, topic, topic)) {
            SendReceipt receipt = producer.send(message(topic, "plain"));
            assertEquals(receipt.getMessageId(), receiveAndAck(consumer, 1).get(0).getMessageId());
        }
    }

    @Test
    void manySendsUnderWayArriveOnceEachFromAllQueues() throws Exception {
        String topic = topic("many");
        try (Producer producer = Clients.producer(broker.grpc, topic); SimpleConsumer consumer = consumer(topic)) {
            Collection<CompletableFuture<SendReceipt>> sending = new ArrayList<>();
            for (int i = 0; i < 200; i++) {
                sending.add(producer.sendAsync(message(topic, "m" + i)));
            }
            List<String> sent = new ArrayList<>();
            for (CompletableFuture<SendReceipt> each : sending) {
                sent.add(each.get().getMessageId().toString());
            }
            List<String> received = receiveAndAck(consumer, 200).stream().map(each -> each.getMessageId().toString()).toList();
            assertEquals(sent.stream().sorted().toList(), received.stream().sorted().toList());
            assertNothingArrives(consumer, A_WHILE);
        }
    }

    /** Until ordered topics are there: routes say that no queue takes it, so it is refused before anything is stored. */
    @Test
    void anOrderedMessageIsRefusedByTheClientItself() throws Exception {
        String topic = topic("ordered");
        try (Producer producer = Clients.producer(broker.grpc, topic); SimpleConsumer consumer = consumer(topic)) {
            Message ordered = Clients.builder(topic, allBytes()).setMessageGroup("customer-1").build();
            Exception refusal = assertThrows(Exception.class, () -> producer.send(ordered));
            assertTrue(refusal.toString().contains("message type not match"), refusal.toString());
            assertNothingArrives(consumer, A_WHILE);
        }
    }

    @Test
    void aCommittedMessageArrivesAndARolledBackOneNeverDoes() throws Exception {
        String topic = unique("ends");
        broker.createTransactionTopic(topic);
        Clients.Checker checker = new Clients.Checker();
        try (Producer producer = Clients.transactional(broker.grpc, checker, topic); SimpleConsumer consumer = consumer(topic)) {
            Transaction kept = producer.beginTransaction();
            SendReceipt receipt = producer.send(message(topic, "kept"), kept);
            Transaction dropped = producer.beginTransaction();
            producer.send(message(topic, "dropped"), dropped);
            dropped.rollback();
            assertNothingArrives(consumer, A_WHILE);
            kept.commit();
            MessageView received = receiveAndAck(consumer, 1).get(0);
            assertEquals(receipt.getMessageId(), received.getMessageId());
            assertEquals("kept", Clients.body(received));
            assertNothingArrives(consumer, A_WHILE);
            assertEquals(0, broker.openTransactions(topic));
        }
    }

    @Test
    void aProducerThatSaysNothingIsAskedUntilItKnows() throws Exception {
        String topic = unique("asked");
        broker.createTransactionTopic(topic);
        Clients.Checker checker = new Clients.Checker();
        checker.answers.put("late", List.of(TransactionResolution.UNKNOWN, TransactionResolution.UNKNOWN,
            TransactionResolution.COMMIT));
        checker.answers.put("never", List.of(TransactionResolution.ROLLBACK));
        try (Producer producer = Clients.transactional(broker.grpc, checker, topic); SimpleConsumer consumer = consumer(topic)) {
            for (String key : List.of("late", "never", "undecided")) {
                producer.send(message(topic, key), producer.beginTransaction());
            }
            assertEquals(List.of("late"), bodies(receiveAndAck(consumer, 1)));
            assertTrue(checker.times("late") >= 3);
            // This client says nothing where it does not know: it is asked again when it was heard of, every 10 s at least.
            Wait.until("it is asked again and again while it does not know", Duration.ofSeconds(40),
                () -> checker.times("undecided") >= 4);
            assertTrue(checker.times("never") >= 1);
            assertEquals(1, broker.openTransactions(topic), "unknown leaves it open, and nothing else is");
            assertNothingArrives(consumer, A_WHILE);
        }
    }

    @Test
    void whatIsNotAcknowledgedComesBackAndAStaleHandleIsRefused() throws Exception {
        String topic = topic("again");
        try (Producer producer = Clients.producer(broker.grpc, topic); SimpleConsumer consumer = consumer(topic)) {
            SendReceipt receipt = producer.send(message(topic, "again"));
            MessageView first = receive(consumer, 1, SHORT_LEASE).get(0);
            MessageView second = receive(consumer, 1, Clients.LONG_LEASE).get(0);
            assertEquals(List.of(1, 2), List.of(first.getDeliveryAttempt(), second.getDeliveryAttempt()));
            assertEquals(receipt.getMessageId(), second.getMessageId());
            ClientException refusal = assertThrows(ClientException.class, () -> consumer.ack(first));
            assertEquals("40013", Clients.told(refusal));
            consumer.ack(second);
            assertNothingArrives(consumer, A_WHILE);
        }
    }

    @Test
    void aChangedInvisibleDurationRules() throws Exception {
        String topic = topic("change");
        try (Producer producer = Clients.producer(broker.grpc, topic); SimpleConsumer consumer = consumer(topic)) {
            producer.send(message(topic, "held"));
            MessageView held = receive(consumer, 1, SHORT_LEASE).get(0);
            consumer.changeInvisibleDuration(held, Duration.ofSeconds(30));
            assertNothingArrives(consumer, SHORT_LEASE.plus(A_WHILE));
            consumer.changeInvisibleDuration(held, Duration.ofSeconds(1));
            MessageView again = receive(consumer, 1, Clients.LONG_LEASE).get(0);
            assertEquals(2, again.getDeliveryAttempt());
            consumer.ack(again);
            assertNothingArrives(consumer, A_WHILE);
        }
    }

    @Test
    void whatAListenerFailsOnComesAgainAndIsPutAsideInTheEnd() throws Exception {
        String topic = topic("push");
        broker.createGroup(topic, "{\"max_attempts\":3,\"backoff\":[\"1s\"]}");
        Collection<String> deliveries = new ConcurrentLinkedQueue<>();
        PushConsumer consumer = Clients.pushConsumer(broker.grpc, topic, message -> {
            String body = Clients.body(message);
            deliveries.add(body + " " + message.getDeliveryAttempt());
            boolean fails = body.equals("poison") || body.equals("once") && message.getDeliveryAttempt() == 1;
            return fails ? ConsumeResult.FAILURE : ConsumeResult.SUCCESS;
        }, topic);
        try (Producer producer = Clients.producer(broker.grpc, topic)) {
            for (String body : List.of("fine", "once", "poison")) {
                producer.send(message(topic, body));
            }
            List<String> wanted = List.of("fine 1", "once 1", "once 2", "poison 1", "poison 2", "poison 3");
            Wait.until("all deliveries", Duration.ofSeconds(30), () -> deliveries.size() >= wanted.size());
            String dead = "%DLQ%" + topic;
            Wait.until("the dead letter topic is there", Duration.ofSeconds(20), () -> broker.hasTopic(dead));
            try (SimpleConsumer undertaker = Clients.simpleConsumer(broker.grpc, topic + "-undertaker", dead)) {
                assertEquals(List.of("poison"), bodies(receiveAndAck(undertaker, 1)));
            }
            assertEquals(wanted, deliveries.stream().sorted().toList());
        } finally {
            Clients.leave(consumer);
        }
    }
}
