package vouch;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/** What stands between clients and a node whose own port they do not reach: a port of the system's choice that leads there. */
final class PortMapping implements AutoCloseable {
    private static final String ESTABLISHED = "01";

    private final ServerSocket door;
    private final int behind;
    private final Set<Integer> own = ConcurrentHashMap.newKeySet();
    private final AtomicInteger carried = new AtomicInteger();

    PortMapping(String target) {
        behind = Integer.parseInt(target.substring(target.lastIndexOf(':') + 1));
        try {
            door = new ServerSocket(0, 100, InetAddress.getLoopbackAddress());
        } catch (IOException problem) {
            throw new AssertionError(problem);
        }
        thread(this::accept);
    }

    String address() {
        return "127.0.0.1:" + door.getLocalPort();
    }

    /** How many connections of clients it has carried. */
    int carried() {
        return carried.get();
    }

    /** Ports of clients that found the way to the node's own port, past this. */
    List<Integer> past() {
        List<Integer> past = new ArrayList<>();
        for (String table : List.of("/proc/net/tcp", "/proc/net/tcp6")) {
            try {
                for (String line : Files.readAllLines(Path.of(table))) {
                    String[] columns = line.trim().split("\\s+");
                    if (columns.length > 3 && columns[3].equals(ESTABLISHED) && port(columns[2]) == behind
                        && !own.contains(port(columns[1]))) {
                        past.add(port(columns[1]));
                    }
                }
            } catch (IOException none) {
                // a machine without this table
            }
        }
        return past;
    }

    private static int port(String address) {
        return Integer.parseInt(address.substring(address.lastIndexOf(':') + 1), 16);
    }

    private void accept() {
        while (!door.isClosed()) {
            try {
                Socket client = door.accept();
                try {
                    Socket node = new Socket();
                    node.bind(null);
                    own.add(node.getLocalPort());
                    node.connect(new java.net.InetSocketAddress(InetAddress.getLoopbackAddress(), behind));
                    carried.incrementAndGet();
                    thread(() -> pump(client, node));
                    thread(() -> pump(node, client));
                } catch (IOException nobodyThere) {
                    client.close();
                }
            } catch (IOException closed) {
                // the next turn sees it
            }
        }
    }

    private static void pump(Socket from, Socket to) {
        try (from; to) {
            InputStream in = from.getInputStream();
            OutputStream out = to.getOutputStream();
            in.transferTo(out);
        } catch (IOException ended) {
            // as a connection ends
        }
    }

    private static void thread(Runnable run) {
        Thread thread = new Thread(run, "port mapping");
        thread.setDaemon(true);
        thread.start();
    }

    @Override
    public void close() {
        try {
            door.close();
        } catch (IOException ignored) {
            // it is of no use any more either way
        }
    }
}
