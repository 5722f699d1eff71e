package vouch;

import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientConfigurationBuilder;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.FilterExpressionType;
import org.apache.rocketmq.client.apis.consumer.MessageListener;
import org.apache.rocketmq.client.apis.consumer.PushConsumer;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageBuilder;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.ProducerBuilder;
import org.apache.rocketmq.client.apis.producer.TransactionChecker;
import org.apache.rocketmq.client.apis.producer.TransactionResolution;
import org.apache.rocketmq.client.java.impl.producer.SendReceiptImpl;
import org.apache.rocketmq.client.apis.producer.SendReceipt;
import org.apache.rocketmq.shaded.io.grpc.Status;
import org.apache.rocketmq.shaded.io.grpc.StatusRuntimeException;

/** The official Java client, as an application uses it. In its default configuration it speaks TLS and trusts any certificate. */
final class Clients {
    static final ClientServiceProvider PROVIDER = ClientServiceProvider.loadService();
    static final Duration LONG_LEASE = Duration.ofSeconds(60);
    static final Duration POLL = Duration.ofSeconds(1);
    static final String CHANNEL_CLOSED = "channel closed";
    /** How this client tells a code of the broker: it keeps it for its text. */
    private static final Pattern CODE = Pattern.compile("response-code=(\\d+)");

    private Clients() {}

    /** A name for a topic or group: of this test and of no other. */
    static String unique(String stem) {
        return "java-" + stem + "-" + UUID.randomUUID().toString().substring(0, 8);
    }

    static ClientConfiguration configuration(String endpoints, boolean tls) {
        ClientConfigurationBuilder builder = ClientConfiguration.newBuilder().setEndpoints(endpoints);
        return (tls ? builder : builder.enableSsl(false)).build();
    }

    static Producer producer(String endpoints, String... topics) throws ClientException {
        return builder(endpoints, topics).build();
    }

    static ProducerBuilder builder(String endpoints, String... topics) {
        return PROVIDER.newProducerBuilder().setClientConfiguration(configuration(endpoints, true)).setTopics(topics);
    }

    static Producer transactional(String endpoints, TransactionChecker checker, String... topics) throws ClientException {
        return builder(endpoints, topics).setTransactionChecker(checker).build();
    }

    static SimpleConsumer simpleConsumer(String endpoints, String group, String... topics) throws ClientException {
        return simpleConsumer(configuration(endpoints, true), group, topics);
    }

    static SimpleConsumer simpleConsumer(ClientConfiguration configuration, String group, String... topics)
            throws ClientException {
        return PROVIDER.newSimpleConsumerBuilder().setClientConfiguration(configuration).setConsumerGroup(group)
            .setAwaitDuration(POLL).setSubscriptionExpressions(all(topics)).build();
    }

    static PushConsumer pushConsumer(String endpoints, String group, MessageListener listener, String... topics)
            throws ClientException {
        return PROVIDER.newPushConsumerBuilder().setClientConfiguration(configuration(endpoints, true)).setConsumerGroup(group)
            .setMessageListener(listener).setSubscriptionExpressions(all(topics)).build();
    }

    private static Map<String, FilterExpression> all(String... topics) {
        Map<String, FilterExpression> all = new HashMap<>();
        for (String topic : topics) {
            all.put(topic, new FilterExpression("*", FilterExpressionType.TAG));
        }
        return all;
    }

    /** A message whose key is its body, by which a checker knows it. */
    static Message message(String topic, String body) {
        return builder(topic, body.getBytes(StandardCharsets.UTF_8)).setKeys(body).build();
    }

    static MessageBuilder builder(String topic, byte[] body) {
        return PROVIDER.newMessageBuilder().setTopic(topic).setBody(body);
    }

    static String transactionId(SendReceipt receipt) {
        return ((SendReceiptImpl) receipt).getTransactionId();
    }

    static byte[] bytes(MessageView message) {
        ByteBuffer body = message.getBody();
        byte[] bytes = new byte[body.remaining()];
        body.get(bytes);
        return bytes;
    }

    static String body(MessageView message) {
        return new String(bytes(message), StandardCharsets.UTF_8);
    }

    static List<String> bodies(List<MessageView> messages) {
        return messages.stream().map(Clients::body).sorted().toList();
    }

    /** What the broker answered, as its code; or how the call failed on its way. */
    static String told(Throwable problem) {
        for (Throwable each = problem; each != null; each = each.getCause()) {
            Matcher code = CODE.matcher(String.valueOf(each.getMessage()));
            if (code.find()) {
                return code.group(1);
            }
            if (each instanceof StatusRuntimeException transport) {
                // gRPC's own word for a connection that went away under a call, beside UNAVAILABLE; a node's answer has no cause.
                if (transport.getCause() instanceof ClosedChannelException) {
                    return CHANNEL_CLOSED;
                }
                Status status = transport.getStatus();
                return status.getCode() == Status.Code.UNKNOWN ? status.toString() : status.getCode().name();
            }
        }
        return problem.toString();
    }

    /** Receives until so many came. Does not acknowledge. */
    static List<MessageView> receive(SimpleConsumer consumer, int wanted, Duration lease) {
        List<MessageView> received = new ArrayList<>();
        Wait.until(wanted + " messages arrive", Duration.ofSeconds(30), () -> {
            try {
                received.addAll(consumer.receive(32, lease));
            } catch (ClientException problem) {
                throw new AssertionError(problem);
            }
            return received.size() >= wanted;
        });
        if (received.size() > wanted) {
            throw new AssertionError("more than " + wanted + " messages: " + bodies(received));
        }
        return received;
    }

    static List<MessageView> receiveAndAck(SimpleConsumer consumer, int wanted) throws ClientException {
        List<MessageView> received = receive(consumer, wanted, LONG_LEASE);
        for (MessageView each : received) {
            consumer.ack(each);
        }
        return received;
    }

    /** Polls the whole time: a message that would come, had to come to somebody who asks. */
    static void assertNothingArrives(SimpleConsumer consumer, Duration during) throws ClientException {
        for (long end = System.nanoTime() + during.toNanos(); System.nanoTime() < end;) {
            List<MessageView> received = consumer.receive(32, LONG_LEASE);
            if (!received.isEmpty()) {
                throw new AssertionError("arrived: " + bodies(received));
            }
        }
    }

    static void close(Closeable client) {
        try {
            client.close();
        } catch (IOException | RuntimeException ignored) {
            // its node may be gone
        }
    }

    /** Without waiting for its last long poll to end, as this client does when it closes: up to 20 seconds. */
    static void leave(PushConsumer consumer) {
        Thread thread = new Thread(() -> close(consumer), "a push consumer closes");
        thread.setDaemon(true);
        thread.start();
    }

    /** Answers what is said for a message's key, a resolution at each ask, of which the last repeats. */
    static final class Checker implements TransactionChecker {
        final Map<String, List<TransactionResolution>> answers = new ConcurrentHashMap<>();
        private final Map<String, Integer> asked = new ConcurrentHashMap<>();

        int times(String key) {
            return asked.getOrDefault(key, 0);
        }

        @Override
        public TransactionResolution check(MessageView message) {
            String key = message.getKeys().iterator().next();
            int times = asked.merge(key, 1, Integer::sum);
            List<TransactionResolution> answer = answers.getOrDefault(key, List.of(TransactionResolution.UNKNOWN));
            return answer.get(Math.min(times, answer.size()) - 1);
        }
    }
}
