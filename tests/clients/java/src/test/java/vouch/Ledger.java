package vouch;

import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.apis.message.MessageView;

/** What producers were told, and what came to consumers: the one has to fit the other. */
final class Ledger {
    /** Of this answer is certain that nothing was stored. */
    static final String REFUSED = "50002";
    /** What a call may be told while leaders change: refused, nobody knows, or nothing since the node was killed. */
    private static final Set<String> EXPECTED =
        Set.of(REFUSED, "50400", "50401", "50402", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", Clients.CHANNEL_CLOSED);

    /** What a producer does about a half message, and its checker answers in the end. */
    enum Plan {
        COMMIT(true, false), ROLLBACK(false, false), SILENT_COMMIT(true, true), SILENT_ROLLBACK(false, true),
        SILENT_LATE(true, true);

        final boolean commits;
        final boolean silent;

        Plan(boolean commits, boolean silent) {
            this.commits = commits;
            this.silent = silent;
        }
    }

    static final class Send {
        final String body;
        /** Null: a plain message. */
        final Plan plan;
        /** Whether its client tried it once: what the only answer says is about all of it. */
        final boolean once;
        volatile boolean acknowledged;
        volatile String failure;
        volatile String messageId;

        Send(String body, Plan plan, boolean once) {
            this.body = body;
            this.plan = plan;
            this.once = once;
        }

        boolean mustCome() {
            return acknowledged && (plan == null || plan.commits);
        }

        boolean mayNotCome() {
            return plan != null && !plan.commits || once && REFUSED.equals(failure);
        }

        @Override
        public String toString() {
            return body + " (" + (plan == null ? "plain" : plan) + ", " + (acknowledged ? "acknowledged" : failure) + ")";
        }
    }

    static final class Delivery {
        final String group;
        final String body;
        final String messageId;
        final int attempt;
        /** By a consumer that was told so. */
        volatile boolean acknowledged;

        Delivery(String group, String body, String messageId, int attempt) {
            this.group = group;
            this.body = body;
            this.messageId = messageId;
            this.attempt = attempt;
        }
    }

    final Map<String, Send> sends = new ConcurrentHashMap<>();
    final Collection<Delivery> deliveries = new ConcurrentLinkedQueue<>();
    final Map<String, Integer> errors = new ConcurrentHashMap<>();
    final AtomicInteger acknowledged = new AtomicInteger();

    Send sends(String body, Plan plan, boolean once) {
        Send send = new Send(body, plan, once);
        sends.put(body, send);
        return send;
    }

    void acknowledged(Send send, String messageId) {
        send.messageId = messageId;
        send.acknowledged = true;
        acknowledged.incrementAndGet();
    }

    void failed(Send send, Throwable problem) {
        send.failure = Clients.told(problem);
        error("send", problem);
    }

    void error(String what, Throwable problem) {
        errors.merge(what + ": " + Clients.told(problem), 1, Integer::sum);
    }

    Delivery delivered(String group, MessageView message) {
        Delivery delivery = new Delivery(group, Clients.body(message), message.getMessageId().toString(),
            message.getDeliveryAttempt());
        deliveries.add(delivery);
        return delivery;
    }

    Set<String> missing(String group) {
        Set<String> missing = sends.values().stream().filter(Send::mustCome).map(each -> each.body).collect(Collectors.toSet());
        deliveries.stream().filter(each -> each.group.equals(group)).forEach(each -> missing.remove(each.body));
        return missing;
    }

    /** Everything that should not be, in sentences. */
    List<String> faults(List<String> groups) {
        List<String> faults = new ArrayList<>();
        for (String group : groups) {
            missing(group).forEach(body -> faults.add(group + " never got " + sends.get(body)));
            Map<String, List<Delivery>> byBody = new TreeMap<>();
            deliveries.stream().filter(each -> each.group.equals(group))
                .forEach(each -> byBody.computeIfAbsent(each.body, none -> new ArrayList<>()).add(each));
            byBody.forEach((body, all) -> {
                Send send = sends.get(body);
                if (send == null) {
                    faults.add(group + " got " + body + ", which nobody sent");
                    return;
                }
                if (send.mayNotCome()) {
                    faults.add(group + " got " + send + ", which nobody may get");
                }
                Set<String> ids = all.stream().map(each -> each.messageId).collect(Collectors.toCollection(HashSet::new));
                if (send.messageId != null) {
                    ids.add(send.messageId);
                }
                if (ids.size() > 1) {
                    faults.add(group + " got " + send + " under several ids: " + ids);
                }
                List<Integer> attempts = all.stream().map(each -> each.attempt).sorted().toList();
                if (attempts.stream().distinct().count() != attempts.size()) {
                    faults.add(group + " got " + send + " more than once in one attempt: " + attempts);
                }
                int last = attempts.get(attempts.size() - 1);
                all.stream().filter(each -> each.acknowledged && each.attempt < last).forEach(each -> faults.add(
                    group + " got " + send + " in attempt " + last + " though attempt " + each.attempt + " was acknowledged"));
            });
        }
        errors.forEach((what, times) -> {
            if (!EXPECTED.contains(what.substring(what.indexOf(": ") + 2))) {
                faults.add("an unexpected answer, " + times + " times: " + what);
            }
        });
        return faults;
    }

    String summary(List<String> groups) {
        Map<String, Integer> told = new TreeMap<>();
        for (Send send : sends.values()) {
            String plan = send.plan == null ? send.once ? "plain once" : "plain" : send.plan.name();
            told.merge(plan + " " + (send.acknowledged ? "acknowledged" : send.failure), 1, Integer::sum);
        }
        Map<String, String> came = new LinkedHashMap<>();
        for (String group : groups) {
            List<Delivery> mine = deliveries.stream().filter(each -> each.group.equals(group)).toList();
            came.put(group, mine.stream().map(each -> each.body).distinct().count() + ", again "
                + mine.stream().filter(each -> each.attempt > 1).count());
        }
        return "sends " + told + ", came " + came + ", errors " + new HashMap<>(errors);
    }
}
