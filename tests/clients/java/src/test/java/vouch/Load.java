package vouch;

import java.io.Closeable;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.PushConsumer;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.SendReceipt;
import org.apache.rocketmq.client.apis.producer.Transaction;
import org.apache.rocketmq.client.apis.producer.TransactionResolution;

/** Producers and consumers at all nodes of a cluster, and the ledger of what they were told. */
final class Load {
    static final Duration LEASE = Duration.ofSeconds(4);
    private static final Duration STOPS_WITHIN = Duration.ofSeconds(40);

    final Ledger ledger = new Ledger();
    final List<String> groups;
    private final String plain;
    final String transactional;
    private final Cluster cluster;
    private final long seed;
    private final Clients.Checker checker = new Clients.Checker();
    private final Collection<Thread> producing = new ConcurrentLinkedQueue<>();
    private final Collection<Thread> consuming = new ConcurrentLinkedQueue<>();
    private final Collection<Closeable> clients = new ConcurrentLinkedQueue<>();
    private final Collection<PushConsumer> pushed = new ConcurrentLinkedQueue<>();
    private volatile boolean sending = true;
    private volatile boolean receiving = true;

    Load(Cluster cluster, String name, long seed) {
        this.cluster = cluster;
        this.seed = seed;
        plain = name + "-plain";
        transactional = name + "-tx";
        groups = List.of(name + "-simple", name + "-push");
    }

    Load start() {
        cluster.leader().createTopic(plain, "normal", 2);
        cluster.leader().createTransactionTopic(transactional);
        cluster.nodes.parallelStream().forEach(this::start);
        return this;
    }

    private void start(Cluster.Node node) {
        try {
            Producer once = kept(Clients.builder(node.access, plain).setMaxAttempts(1).build());
            Producer again = kept(Clients.producer(node.access, plain));
            Producer asked = kept(Clients.transactional(node.access, checker, transactional));
            SimpleConsumer consumer = kept(Clients.simpleConsumer(node.access, groups.get(0), plain, transactional));
            run(producing, "once-" + node.id, (rng, name) -> sendPlain(name, once, true));
            run(producing, "again-" + node.id, (rng, name) -> sendPlain(name, again, false));
            run(producing, "half-" + node.id, (rng, name) -> sendHalves(rng, name, asked));
            run(consuming, "consumer-" + node.id, (rng, name) -> receive(rng, consumer));
            if (node.id > 1) { // so its producers are also at a node without a member of the group
                pushed.add(Clients.pushConsumer(node.access, groups.get(1), message -> {
                    ledger.delivered(groups.get(1), message);
                    return ConsumeResult.SUCCESS;
                }, plain, transactional));
            }
        } catch (ClientException problem) {
            throw new AssertionError(node + ": " + problem, problem);
        }
    }

    private <T extends Closeable> T kept(T client) {
        clients.add(client);
        return client;
    }

    private interface Work {
        void run(Random rng, String name);
    }

    private void run(Collection<Thread> threads, String name, Work work) {
        Random rng = new Random(seed * 31 + name.hashCode());
        Thread thread = new Thread(() -> work.run(rng, name), name);
        thread.setDaemon(true);
        threads.add(thread);
        thread.start();
    }

    private void sendPlain(String name, Producer producer, boolean once) {
        for (int number = 0; sending; number++) {
            Ledger.Send send = ledger.sends(name + "-" + number, null, once);
            try {
                ledger.acknowledged(send, producer.send(Clients.message(plain, send.body)).getMessageId().toString());
                Wait.pause(40);
            } catch (ClientException | RuntimeException problem) {
                ledger.failed(send, problem);
                Wait.pause(200);
            }
        }
    }

    private void sendHalves(Random rng, String name, Producer producer) {
        for (int number = 0; sending; number++) {
            Ledger.Plan plan = Ledger.Plan.values()[rng.nextInt(Ledger.Plan.values().length)];
            Ledger.Send send = ledger.sends(name + "-" + number, plan, false);
            TransactionResolution end = plan.commits ? TransactionResolution.COMMIT : TransactionResolution.ROLLBACK;
            checker.answers.put(send.body,
                plan == Ledger.Plan.SILENT_LATE ? List.of(TransactionResolution.UNKNOWN, end) : List.of(end));
            try {
                Transaction transaction = producer.beginTransaction();
                SendReceipt receipt = producer.send(Clients.message(transactional, send.body), transaction);
                ledger.acknowledged(send, receipt.getMessageId().toString());
                end(plan, transaction);
                Wait.pause(60);
            } catch (ClientException | RuntimeException problem) {
                ledger.failed(send, problem);
                Wait.pause(200);
            }
        }
    }

    /** As planned. Where the answer gets lost, the checker says the same. */
    private void end(Ledger.Plan plan, Transaction transaction) {
        try {
            if (plan == Ledger.Plan.COMMIT) {
                transaction.commit();
            } else if (plan == Ledger.Plan.ROLLBACK) {
                transaction.rollback();
            }
        } catch (ClientException | RuntimeException problem) {
            ledger.error("end", problem);
        }
    }

    private void receive(Random rng, SimpleConsumer consumer) {
        while (receiving) {
            try {
                for (MessageView each : consumer.receive(16, LEASE)) {
                    Ledger.Delivery delivery = ledger.delivered(groups.get(0), each);
                    if (rng.nextInt(100) < 3 && delivery.attempt == 1) {
                        continue; // its lease runs out, and then it comes again
                    }
                    acknowledge(consumer, each, delivery);
                }
            } catch (ClientException | RuntimeException problem) {
                ledger.error("receive", problem);
                Wait.pause(200);
            }
        }
    }

    private void acknowledge(SimpleConsumer consumer, MessageView message, Ledger.Delivery delivery) {
        try {
            consumer.ack(message);
            delivery.acknowledged = true;
        } catch (ClientException | RuntimeException problem) {
            if (!Clients.told(problem).equals("40013")) { // its lease ran out meanwhile: no news
                ledger.error("ack", problem);
            }
        }
    }

    /** Waits until this many more sends were acknowledged. */
    void goesOn(int sends) {
        int before = ledger.acknowledged.get();
        Wait.until(sends + " more sends are acknowledged; " + ledger.errors, Duration.ofSeconds(60),
            () -> ledger.acknowledged.get() >= before + sends);
    }

    void stopSending() {
        sending = false;
        join(producing);
    }

    void stop() {
        sending = false;
        receiving = false;
        join(producing);
        join(consuming);
        pushed.forEach(Clients::leave);
        clients.parallelStream().forEach(Clients::close);
    }

    private void join(Collection<Thread> threads) {
        Wait.until("threads end: " + threads, STOPS_WITHIN, () -> threads.stream().noneMatch(Thread::isAlive));
    }
}
