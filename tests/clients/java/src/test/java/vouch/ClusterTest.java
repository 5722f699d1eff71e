package vouch;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static vouch.Clients.assertNothingArrives;
import static vouch.Clients.bodies;
import static vouch.Clients.message;
import static vouch.Clients.receive;
import static vouch.Clients.receiveAndAck;
import static vouch.Clients.unique;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.PushConsumer;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.SendReceipt;
import org.apache.rocketmq.client.apis.producer.Transaction;
import org.apache.rocketmq.client.apis.producer.TransactionResolution;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.api.parallel.Execution;
import org.junit.jupiter.api.parallel.ExecutionMode;

/** The unmodified Java client and three nodes that are one broker. VOUCH_LEADER_LOSSES (2), VOUCH_SEED. */
@Execution(ExecutionMode.CONCURRENT)
@Timeout(3600)
class ClusterTest {
    private static final int LEADER_LOSSES = Integer.parseInt(System.getenv().getOrDefault("VOUCH_LEADER_LOSSES", "2"));
    private static final long SEED = Long.parseLong(
        System.getenv().getOrDefault("VOUCH_SEED", String.valueOf(new Random().nextInt(Integer.MAX_VALUE))));
    private static final Duration A_WHILE = Duration.ofSeconds(2);

    @TempDir
    Path folder;
    private Cluster cluster;

    @RegisterExtension
    final LogOnFailure log = new LogOnFailure(() -> cluster == null ? "" : cluster.log());

    @AfterEach
    void stop() {
        if (cluster != null) {
            cluster.close();
        }
    }

    private void start(boolean mapped) {
        cluster = new Cluster(folder, mapped);
        cluster.start();
    }

    @Test
    void leadersAreKilledUnderLoadAndWhatAnybodyWasToldIsTrue() throws Exception {
        start(false);
        underLoad(LEADER_LOSSES);
    }

    @Test
    void clientsBehindAPortMappingGoOnWhenTheLeaderIsKilled() throws Exception {
        start(true);
        underLoad(1);
        for (Cluster.Node node : cluster.nodes) {
            assertTrue(node.mapping.carried() > 0, "clients came to " + node + " over its mapped port");
        }
    }

    private void underLoad(int losses) throws Exception {
        Load load = new Load(cluster, unique("load"), SEED);
        Ledger ledger = load.ledger;
        StringBuilder told = new StringBuilder("VOUCH_SEED=" + SEED);
        try {
            load.start();
            for (int loss = 0; loss < losses; loss++) {
                load.goesOn(60);
                Cluster.Node lost = cluster.leader();
                lost.kill();
                cluster.leaderBut(lost);
                load.goesOn(60);
                lost.start();
                cluster.caughtUp();
                told.append(", ").append(lost).append(" killed");
            }
            load.goesOn(60);
            assertNobodyGoesPastTheMapping();
            load.stopSending();
            // The producers that were there all the time are asked: this client opens its streams again.
            Wait.until("all transactions ended; " + told, Duration.ofSeconds(60),
                () -> cluster.leader().openTransactions(load.transactional) == 0);
            // What a lost node had and did not tell its push consumer stays with that for a lease of a minute.
            Wait.within(Duration.ofSeconds(75), () -> load.groups.stream().allMatch(group -> ledger.missing(group).isEmpty()));
            // What would come again, would come here.
            Wait.pause(Load.LEASE.plus(Clients.POLL).toMillis());
        } finally {
            load.stop();
        }
        told.append("; ").append(ledger.summary(load.groups));
        System.out.println(told);
        assertEquals(List.of(), ledger.faults(load.groups), told.toString());
        Set<Ledger.Plan> done = ledger.sends.values().stream().filter(each -> each.acknowledged && each.plan != null)
            .map(each -> each.plan).collect(Collectors.toSet());
        assertEquals(Set.of(Ledger.Plan.values()), done, "each plan was had");
    }

    private void assertNobodyGoesPastTheMapping() {
        for (Cluster.Node node : cluster.nodes) {
            if (node.mapping != null) {
                assertEquals(List.of(), node.mapping.past(), "nobody is led to the own port of " + node);
            }
        }
    }

    @Test
    void clientsOfFollowersDoAllThatThoseOfTheLeaderDo() throws Exception {
        start(false);
        Cluster.Node one = cluster.followers().get(0);
        Cluster.Node other = cluster.followers().get(1);
        sendsReceivesAndChangesLeases(one, other);
        endsTransactionsAndIsAsked(one, other);
        hasItsFailuresRetried(one, other);
    }

    private void sendsReceivesAndChangesLeases(Cluster.Node one, Cluster.Node other) throws Exception {
        String topic = unique("follower");
        one.createTopic(topic, "normal", 2);
        try (Producer producer = Clients.producer(one.access, topic);
                SimpleConsumer consumer = Clients.simpleConsumer(one.access, topic, topic);
                SimpleConsumer member = Clients.simpleConsumer(other.access, topic, topic)) {
            SendReceipt receipt = producer.send(message(topic, "held"));
            MessageView held = receive(consumer, 1, Clients.LONG_LEASE).get(0);
            assertEquals(receipt.getMessageId(), held.getMessageId());
            consumer.changeInvisibleDuration(held, Duration.ofSeconds(1));
            MessageView again = receive(member, 1, Clients.LONG_LEASE).get(0);
            assertEquals(List.of(1, 2), List.of(held.getDeliveryAttempt(), again.getDeliveryAttempt()));
            ClientException stale = assertThrows(ClientException.class, () -> consumer.ack(held));
            assertEquals("40013", Clients.told(stale));
            member.ack(again);
            assertNothingArrives(consumer, A_WHILE);
        }
    }

    private void endsTransactionsAndIsAsked(Cluster.Node one, Cluster.Node other) throws Exception {
        String topic = unique("follower-tx");
        one.createTransactionTopic(topic);
        Clients.Checker checker = new Clients.Checker();
        checker.answers.put("silent", List.of(TransactionResolution.UNKNOWN, TransactionResolution.COMMIT));
        try (Producer producer = Clients.transactional(one.access, checker, topic);
                SimpleConsumer consumer = Clients.simpleConsumer(other.access, topic, topic)) {
            for (String body : List.of("kept", "dropped", "silent")) {
                Transaction transaction = producer.beginTransaction();
                producer.send(message(topic, body), transaction);
                if (body.equals("kept")) {
                    transaction.commit();
                } else if (body.equals("dropped")) {
                    transaction.rollback();
                }
            }
            assertEquals(List.of("kept", "silent"), bodies(receiveAndAck(consumer, 2)));
            assertTrue(checker.times("silent") >= 2);
            assertNothingArrives(consumer, A_WHILE);
        }
    }

    private void hasItsFailuresRetried(Cluster.Node one, Cluster.Node other) throws Exception {
        String topic = unique("follower-push");
        one.createTopic(topic, "normal", 2);
        one.createGroup(topic, "{\"max_attempts\":3,\"backoff\":[\"1s\"]}");
        Collection<Integer> attempts = new ConcurrentLinkedQueue<>();
        PushConsumer consumer = Clients.pushConsumer(other.access, topic, message -> {
            attempts.add(message.getDeliveryAttempt());
            return message.getDeliveryAttempt() == 1 ? ConsumeResult.FAILURE : ConsumeResult.SUCCESS;
        }, topic);
        try (Producer producer = Clients.producer(one.access, topic)) {
            producer.send(message(topic, "once"));
            Wait.until("it comes again", Duration.ofSeconds(20), () -> attempts.size() >= 2);
            assertEquals(List.of(1, 2), List.copyOf(attempts));
        } finally {
            Clients.leave(consumer);
        }
    }

    /** The Java client takes several addresses in one access point; whichever node dies, it goes on with another one. */
    @Test
    void aClientThatWasGivenAllAddressesGoesOnWithoutAnyOfTheNodes() throws Exception {
        start(false);
        String all = cluster.nodes.stream().map(node -> node.access).collect(Collectors.joining(";"));
        String topic = unique("all");
        String half = unique("all-tx");
        cluster.leader().createTopic(topic, "normal", 2);
        cluster.leader().createTransactionTopic(half);
        Clients.Checker checker = new Clients.Checker();
        try (Producer producer = Clients.transactional(all, checker, topic, half);
                SimpleConsumer consumer = Clients.simpleConsumer(all, topic, topic, half)) {
            for (Cluster.Node node : cluster.nodes) {
                String silent = "silent-" + node.id;
                producer.send(message(half, silent), producer.beginTransaction());
                node.kill();
                cluster.leaderBut(node);
                checker.answers.put(silent, List.of(TransactionResolution.COMMIT));
                Wait.until("it sends without " + node, Duration.ofSeconds(30), () -> sends(producer, topic, "without-" + node.id));
                Set<String> came = ConcurrentHashMap.newKeySet();
                Wait.until("it receives without " + node + ", and is asked", Duration.ofSeconds(60), () -> {
                    receiveInto(came, consumer);
                    return came.containsAll(Set.of("without-" + node.id, silent));
                });
                node.start();
                cluster.caughtUp();
            }
        }
    }

    private static boolean sends(Producer producer, String topic, String body) {
        try {
            producer.send(message(topic, body));
            return true;
        } catch (ClientException notYet) {
            return false;
        }
    }

    private static void receiveInto(Set<String> came, SimpleConsumer consumer) {
        try {
            for (MessageView each : consumer.receive(16, Load.LEASE)) {
                consumer.ack(each);
                came.add(Clients.body(each));
            }
        } catch (ClientException notYet) {
            // it tries again
        }
    }
}
