package vouch;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/** Three real processes that are one broker, made as an operator does it. */
final class Cluster implements AutoCloseable {
    private static final Duration SETTLES_WITHIN = Duration.ofSeconds(30);
    private static final Set<Integer> GIVEN = new HashSet<>();

    final List<Node> nodes = new ArrayList<>();

    static final class Node extends Broker {
        final int id;
        final String peer;
        /** Where clients reach it: itself, unless there is a port mapping. */
        final String access;
        final PortMapping mapping;

        private Node(int id, Path folder, String grpc, String peer, PortMapping mapping) {
            super(folder, "--peer-addr", peer, "--peer-insecure", "--grpc-advertise", mapping == null ? grpc : mapping.address(),
                // Small, so that many clusters fit on a disk, however full that is.
                "--segment-size", "4MiB", "--disk-high-water", "99");
            this.id = id;
            this.grpc = grpc;
            this.peer = peer;
            this.mapping = mapping;
            this.access = mapping == null ? grpc : mapping.address();
        }

        /** `/v1/cluster` as this node tells it; null where it does not answer. */
        JsonObject status() {
            try {
                return isRunning() ? call("GET", "/v1/cluster", null).getAsJsonObject() : null;
            } catch (HttpProblem | IOException problem) {
                return null;
            }
        }

        @Override
        public String toString() {
            return "node " + id;
        }
    }

    /** Nodes 1 to 3; with `mapped`, clients reach each of them only through another port than its own. */
    Cluster(Path folder, boolean mapped) {
        for (int id = 1; id <= 3; id++) {
            String grpc = freeAddress();
            PortMapping mapping = mapped ? new PortMapping(grpc) : null;
            nodes.add(new Node(id, folder.resolve("node-" + id), grpc, freeAddress(), mapping));
        }
    }

    Cluster start() {
        nodes.get(0).start();
        for (Node node : nodes.subList(1, 3)) {
            Path token = node.folder.resolveSibling("node-" + node.id + ".token");
            run("cluster", "add", "--token-file", token.toString(), "--http", nodes.get(0).http);
            node.launch("--join", nodes.get(0).peer, "--token-file", token.toString());
        }
        Wait.until("all vote", SETTLES_WITHIN, () -> nodes.stream().allMatch(node -> {
            JsonObject status = node.status();
            return status != null && status.getAsJsonArray("voters").size() == 3 && node.ready();
        }));
        return this;
    }

    /** The node that says of itself that it leads, of the latest term that anybody knows; or null. */
    Node leads() {
        Node leader = null;
        long latest = -1;
        for (Node node : nodes) {
            JsonObject status = node.status();
            if (status != null && status.get("term").getAsLong() >= latest) {
                JsonElement led = status.get("leader");
                boolean itself = led != null && !led.isJsonNull() && led.getAsInt() == node.id;
                if (itself || status.get("term").getAsLong() > latest) {
                    leader = itself ? node : null;
                }
                latest = status.get("term").getAsLong();
            }
        }
        return leader;
    }

    Node leader() {
        return leaderBut(null);
    }

    /** Whoever leads and is not `other`; waits for it. */
    Node leaderBut(Node other) {
        Node[] found = new Node[1];
        Wait.until("a node leads" + (other == null ? "" : " that is not " + other), SETTLES_WITHIN, () -> {
            found[0] = leads();
            return found[0] != null && found[0] != other;
        });
        return found[0];
    }

    List<Node> followers() {
        Node leader = leader();
        return nodes.stream().filter(node -> node != leader).toList();
    }

    /** Waits until all nodes follow the one that leads, closely. */
    void caughtUp() {
        Wait.until("all nodes follow", SETTLES_WITHIN, () -> {
            Node leader = leads();
            JsonObject status = leader == null ? null : leader.status();
            if (status == null) {
                return false;
            }
            for (JsonElement each : status.getAsJsonArray("nodes")) {
                JsonObject node = each.getAsJsonObject();
                if (node.get("id").getAsInt() != leader.id && (!node.has("heard") || node.get("heard").isJsonNull()
                    || !node.has("lag_bytes") || node.get("lag_bytes").getAsLong() >= 1 << 20)) {
                    return false;
                }
            }
            return true;
        });
    }

    String log() {
        return String.join("\n", nodes.stream().map(Node::log).toList());
    }

    /** Stops all; each must stop by itself, and none may have panicked. Whoever leads goes first, and hands over. */
    @Override
    public void close() {
        List<Node> order = new ArrayList<>(nodes);
        Node leader = leads();
        order.sort((one, other) -> Boolean.compare(other == leader, one == leader));
        AssertionError fault = null;
        for (Node node : order) {
            try {
                node.stop();
            } catch (AssertionError problem) {
                fault = problem;
            }
            if (node.mapping != null) {
                node.mapping.close();
            }
        }
        if (fault != null) {
            throw fault;
        }
    }

    private static void run(String... arguments) {
        List<String> command = new ArrayList<>(List.of(Broker.binary()));
        command.addAll(List.of(arguments));
        try {
            Path output = Files.createTempFile("vouch-admin", ".log");
            try {
                Process process = new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(output.toFile()).start();
                if (!process.waitFor(60, TimeUnit.SECONDS) || process.exitValue() != 0) {
                    process.destroyForcibly();
                    throw new AssertionError(command + ": " + Files.readString(output));
                }
            } finally {
                Files.delete(output);
            }
        } catch (IOException | InterruptedException problem) {
            throw new AssertionError(command + ": " + problem, problem);
        }
    }

    /** Below those ports that the system gives to whoever asks for any: nobody gets the port of a node that is down. */
    private static synchronized String freeAddress() {
        while (true) {
            int port = ThreadLocalRandom.current().nextInt(15_000, 32_000);
            try (ServerSocket free = new ServerSocket()) {
                free.setReuseAddress(true);
                free.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
            } catch (IOException taken) {
                continue;
            }
            if (GIVEN.add(port)) {
                return "127.0.0.1:" + port;
            }
        }
    }
}
