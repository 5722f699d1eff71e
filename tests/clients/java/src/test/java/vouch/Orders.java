package vouch;

import static java.lang.System.Logger.Level.WARNING;
import static vouch.FenceTest.LOG;
import static vouch.FenceTest.orderMessage;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import javax.sql.DataSource;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.SendReceipt;
import org.apache.rocketmq.client.apis.producer.Transaction;

/** What a customer wants, and the topic that is told of it. */
record Order(String topic, String id, int amount) {}

// What plugins/README.md shows for Java, to the letter; shown from here to the end.

/** The broker was told that this order was not placed, and now it cannot be. */
class TooLate extends Exception {
    TooLate(Order order, SQLException settled) {
        super(order.id(), settled);
    }
}

class Orders {
    static void place(Producer producer, DataSource database, Order order) throws ClientException, SQLException, TooLate {
        Transaction transaction = producer.beginTransaction();
        SendReceipt receipt = producer.send(orderMessage(order), transaction);
        try (Connection shop = database.getConnection()) {
            shop.setAutoCommit(false);
            try {
                insertFence(shop, receipt, order);
                insertOrder(shop, order);
            } catch (SQLException | TooLate | RuntimeException undone) {
                shop.rollback(); // what closing does to an open transaction is up to the pool
                throw undone;
            }
            shop.commit();
        }
        try {
            transaction.commit();
        } catch (ClientException | RuntimeException error) {
            LOG.log(WARNING, "order {0} is placed, and a check will end its transaction: {1}", order.id(), error);
        }
    }

    private static void insertFence(Connection shop, SendReceipt receipt, Order order) throws SQLException, TooLate {
        String insert = "insert into vouch_fence (fence_key, outcome) values (?, 'committed')";
        try (PreparedStatement fence = shop.prepareStatement(insert)) {
            fence.setString(1, receipt.getMessageId().toString());
            fence.executeUpdate();
        } catch (SQLException refused) {
            if ("23505".equals(refused.getSQLState())) {
                throw new TooLate(order, refused);
            }
            throw refused;
        }
    }

    private static void insertOrder(Connection shop, Order order) throws SQLException {
        try (PreparedStatement row = shop.prepareStatement("insert into orders (id, amount) values (?, ?)")) {
            row.setString(1, order.id());
            row.setInt(2, order.amount());
            row.executeUpdate();
        }
    }
}
