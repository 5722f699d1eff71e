package vouch;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static vouch.Clients.assertNothingArrives;
import static vouch.Clients.receiveAndAck;
import static vouch.Clients.unique;

import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.function.Consumer;
import javax.sql.DataSource;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.SendReceipt;
import org.apache.rocketmq.client.apis.producer.Transaction;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.api.parallel.Execution;
import org.junit.jupiter.api.parallel.ExecutionMode;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * The lines that a service adds for the fence, as plugins/README.md shows them for Java, on a real database: what they promise when
 * the service dies, comes too late, or never hears what became of its COMMIT.
 */
@Execution(ExecutionMode.CONCURRENT)
@Timeout(60)
class FenceTest {
    static final System.Logger LOG = System.getLogger("orders");
    private static final Duration A_WHILE = Duration.ofSeconds(2);
    private static final Duration SOON = Duration.ofSeconds(25);

    @TempDir
    static Path folder;
    private static Broker broker;
    private static Postgres server;

    @RegisterExtension
    static final LogOnFailure LOG_ON_FAILURE = new LogOnFailure(() -> broker.log());

    @BeforeAll
    static void start() throws IOException {
        server = Postgres.start("the fence in Java");
        broker = new Broker(folder).start();
        broker.push("sql-checkback", "java");
    }

    @AfterAll
    static void stop() {
        if (server != null) {
            server.stop();
            broker.stop();
        }
    }

    /** What an application has already. */
    static Message orderMessage(Order order) {
        return Clients.message(order.topic(), order.id());
    }

    /** A producer whose service is held up: when its half message is stored, or before it ends the transaction. */
    private static final class Halting {
        private final Producer producer;
        private Consumer<SendReceipt> halfStored = receipt -> { };
        private boolean diesBeforeTheEnd;
        private SendReceipt receipt;

        Halting(Producer producer) {
            this.producer = producer;
        }

        Producer service() {
            Transaction[] begun = new Transaction[1];
            Transaction ending = (Transaction) Proxy.newProxyInstance(getClass().getClassLoader(), new Class<?>[] {Transaction.class},
                (proxy, method, arguments) -> {
                    if (diesBeforeTheEnd) {
                        throw new ClientException("died");
                    }
                    return call(() -> method.invoke(begun[0], arguments));
                });
            return (Producer) Proxy.newProxyInstance(getClass().getClassLoader(), new Class<?>[] {Producer.class},
                (proxy, method, arguments) -> {
                    if (method.getName().equals("beginTransaction")) {
                        begun[0] = producer.beginTransaction();
                        return ending;
                    }
                    receipt = producer.send((Message) arguments[0], begun[0]);
                    halfStored.accept(receipt);
                    return receipt;
                });
        }

        private interface Call {
            Object call() throws IllegalAccessException, InvocationTargetException;
        }

        private static Object call(Call call) throws Throwable {
            try {
                return call.call();
            } catch (InvocationTargetException thrown) {
                throw thrown.getCause();
            }
        }
    }

    /** A database of a shop and the fence, and a topic that is asked about each second. */
    private record Shop(String name, DataSource database, String topic) {
        static Shop open(String name) {
            Shop shop = new Shop(name, server.database(name), unique("fence"));
            broker.createTransactionTopic(shop.topic);
            // Of what is very old only.
            shop.closeTheFenceAfter("60s");
            return shop;
        }

        void closeTheFenceAfter(String age) {
            broker.bind(topic, "{\"plugin\":\"sql-checkback:java\",\"topics\":[\"" + topic + "\"],"
                + "\"config\":{\"database\":\"shop\",\"fence-after\":\"" + age + "\"},"
                + "\"grants\":{\"sql\":{\"shop\":{\"url\":\"" + server.url(name) + "\",\"fence\":\"vouch_fence\",\"write\":true}}}}");
        }

        Producer producer() throws ClientException {
            return Clients.transactional(broker.grpc, new Clients.Checker(), topic);
        }

        Order order(String fate) {
            return new Order(topic, fate + unique("order"), 20);
        }

        List<String> ask(String statement, String... values) {
            List<String> answers = new ArrayList<>();
            try (Connection connection = database.getConnection();
                    PreparedStatement asked = connection.prepareStatement(statement)) {
                for (int i = 0; i < values.length; i++) {
                    asked.setString(i + 1, values[i]);
                }
                for (ResultSet rows = asked.executeQuery(); rows.next();) {
                    answers.add(rows.getString(1));
                }
                return answers;
            } catch (SQLException problem) {
                throw new AssertionError(statement, problem);
            }
        }

        boolean hasNoOpenTransaction() {
            return ask("select query from pg_stat_activity"
                + " where datname = current_database() and state like 'idle in transaction%'").isEmpty();
        }

        boolean endsTheSessionThatWaitsInCommit() {
            return !ask("select pg_terminate_backend(pid) from pg_stat_activity"
                + " where datname = current_database() and wait_event = 'SyncRep'").isEmpty();
        }

        /** What is left: of the order, of its row of the fence, and how its transaction ended. */
        void leaves(Order order, SendReceipt receipt, List<String> amounts, String outcome, String ended) {
            assertEquals(amounts, ask("select amount from orders where id = ?", order.id()));
            assertEquals(List.of(outcome), ask("select outcome from vouch_fence where fence_key = ?", receipt.getMessageId().toString()));
            assertEquals(ended, broker.ended(Clients.transactionId(receipt)));
        }

        void ends(SendReceipt receipt, String how) {
            Wait.until("the transaction is " + how, SOON, () -> broker.ended(Clients.transactionId(receipt)).equals(how));
        }

        void arrivesOnce(Order order, SendReceipt receipt) throws Exception {
            try (SimpleConsumer consumer = Clients.simpleConsumer(broker.grpc, topic, topic)) {
                MessageView received = receiveAndAck(consumer, 1).get(0);
                assertEquals(receipt.getMessageId(), received.getMessageId());
                assertEquals(order.id(), Clients.body(received));
                assertNothingArrives(consumer, A_WHILE);
            }
        }
    }

    @Test
    void whatTheDocumentShowsIsWhatIsCompiled() throws IOException {
        String document = Files.readString(Path.of("../../../plugins/README.md"));
        String begin = "<!-- fence: java -->\n```java\n";
        assertEquals(2, document.split(begin, -1).length, "plugins/README.md shows the lines for Java once");
        String shown = document.split(begin, -1)[1].split("```", 2)[0];
        String compiled = Files.readString(Path.of("src/test/java/vouch/Orders.java"), StandardCharsets.UTF_8);
        assertEquals(shown, compiled.split("shown from here to the end.\n\n", 2)[1]);
    }

    @Test
    void anOrderThatIsPlacedHasItsRowOfTheFenceAndArrivesOnce() throws Exception {
        Shop shop = Shop.open("shop");
        Order order = shop.order("");
        broker.neverAsks(shop.topic);
        try (Producer producer = shop.producer()) {
            Halting halting = new Halting(producer);
            Orders.place(halting.service(), shop.database, order);
            shop.leaves(order, halting.receipt, List.of("20"), "committed", "committed");
            shop.arrivesOnce(order, halting.receipt);
        }
    }

    @Test
    void anOrderWhoseServiceDiedBehindCommitIsCommittedByItsRow() throws Exception {
        Shop shop = Shop.open("shop");
        Order order = shop.order("");
        Halting halting;
        try (Producer producer = shop.producer()) {
            halting = new Halting(producer);
            halting.diesBeforeTheEnd = true;
            Orders.place(halting.service(), shop.database, order);
        }
        shop.arrivesOnce(order, halting.receipt);
        shop.leaves(order, halting.receipt, List.of("20"), "committed", "committed by a check");
    }

    /** With the trigger it is that which refuses the row, without it the primary key. */
    @ParameterizedTest
    @ValueSource(strings = {"shop", "shop_without_trigger"})
    void anOrderThatComesAfterTheCheckIsUndoneAndANewTryIsPlaced(String name) throws Exception {
        Shop shop = Shop.open(name);
        Order order = shop.order("");
        shop.closeTheFenceAfter("1s");
        try (Producer producer = shop.producer()) {
            Halting late = new Halting(producer);
            late.halfStored = receipt -> shop.ends(receipt, "rolled_back by a check");
            assertThrows(TooLate.class, () -> Orders.place(late.service(), shop.database, order));
            shop.leaves(order, late.receipt, List.of(), "rolled_back", "rolled_back by a check");
            Wait.until("no transaction is left open", SOON, shop::hasNoOpenTransaction);
            broker.neverAsks(shop.topic);
            Halting again = new Halting(producer);
            Orders.place(again.service(), shop.database, order);
            shop.leaves(order, again.receipt, List.of("20"), "committed", "committed");
            shop.arrivesOnce(order, again.receipt);
        }
    }

    @Test
    void aCommitWhoseAnswerIsLostIsNoRollback() throws Exception {
        Shop shop = Shop.open("shop");
        Order order = shop.order("unanswered-");
        try (Producer producer = shop.producer()) {
            Halting halting = new Halting(producer);
            CompletableFuture<Void> placing = CompletableFuture.runAsync(() -> {
                try {
                    Orders.place(halting.service(), shop.database, order);
                } catch (ClientException | SQLException | TooLate told) {
                    throw new IllegalStateException(told);
                }
            });
            Wait.until("COMMIT waits", SOON, shop::endsTheSessionThatWaitsInCommit);
            ExecutionException told = assertThrows(ExecutionException.class, placing::get);
            assertEquals(SQLException.class, told.getCause().getCause().getClass().getSuperclass());
            shop.arrivesOnce(order, halting.receipt);
            shop.leaves(order, halting.receipt, List.of("20"), "committed", "committed by a check");
        }
    }

    @Test
    void aCommitThatNeverHappenedIsFoundOutByTheCheck() throws Exception {
        Shop shop = Shop.open("shop");
        Order order = shop.order("lost-");
        try (Producer producer = shop.producer();
                SimpleConsumer consumer = Clients.simpleConsumer(broker.grpc, shop.topic, shop.topic)) {
            Halting halting = new Halting(producer);
            assertThrows(SQLException.class, () -> Orders.place(halting.service(), shop.database, order));
            shop.closeTheFenceAfter("1s");
            shop.ends(halting.receipt, "rolled_back by a check");
            shop.leaves(order, halting.receipt, List.of(), "rolled_back", "rolled_back by a check");
            assertNothingArrives(consumer, A_WHILE);
        }
    }
}
