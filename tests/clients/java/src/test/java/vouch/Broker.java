package vouch;

import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonSyntaxException;
import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** One `vouch serve` in a folder of its own, and its HTTP API. */
class Broker {
    private static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private static final Duration STARTS_WITHIN = Duration.ofSeconds(30);
    private static final long STOPS_WITHIN_S = 15;

    final Path folder;
    private final Path output;
    private final List<String> arguments;
    private Process process;
    /** The system's choice on the first start, unless chosen before, and kept over restarts. */
    String grpc = "127.0.0.1:0";
    String http = "127.0.0.1:0";

    Broker(Path folder, String... arguments) {
        this.folder = folder;
        this.output = folder.resolve("vouch.log");
        this.arguments = Arrays.asList(arguments);
    }

    /** The broker under test: VOUCH_BIN, else the release build of this checkout. */
    static String binary() {
        String chosen = System.getenv("VOUCH_BIN");
        if (chosen != null) {
            return chosen;
        }
        String target = System.getenv("CARGO_TARGET_DIR");
        Path path = target == null ? Path.of("../../../target") : Path.of(target);
        return path.resolve("release/vouch").toAbsolutePath().normalize().toString();
    }

    Broker start(String... more) {
        launch(more);
        Wait.until("the broker is ready", STARTS_WITHIN, this::ready);
        return this;
    }

    /** Starts the process and waits until it has its ports. */
    void launch(String... more) {
        // Leases of seconds, so that tests need not wait for one of ten. And small, so that many fit on a disk: by itself a
        // node takes 64 MiB ahead of its log, and 256 MiB for snapshots.
        List<String> command = new ArrayList<>(List.of(binary(), "serve", "--data-dir", data().toString(),
            "--grpc-addr", grpc, "--http-addr", http, "--receive-invisible-min", "1s", "--zero-ahead", "1MiB",
            "--snapshot-every", "16MiB"));
        command.addAll(arguments);
        command.addAll(Arrays.asList(more));
        try {
            Files.createDirectories(folder);
            process = new ProcessBuilder(command).redirectErrorStream(true)
                .redirectOutput(ProcessBuilder.Redirect.appendTo(output.toFile())).start();
        } catch (IOException problem) {
            throw new AssertionError(command + ": " + problem, problem);
        }
        Wait.until("the broker wrote endpoints.json", STARTS_WITHIN, this::tellsEndpoints);
    }

    private boolean tellsEndpoints() {
        if (!process.isAlive()) {
            throw new AssertionError("vouch serve ended with status " + process.exitValue() + ":\n" + log());
        }
        try {
            JsonObject told = JsonParser.parseString(Files.readString(data().resolve("endpoints.json"))).getAsJsonObject();
            // A file that a killed process left behind names that process, not this one.
            if (told.get("pid").getAsLong() != process.pid()) {
                return false;
            }
            grpc = told.get("grpc").getAsString();
            http = told.get("http").getAsString();
            return true;
        } catch (IOException | JsonSyntaxException | IllegalStateException notYet) {
            return false;
        }
    }

    private Path data() {
        return folder.resolve("data");
    }

    boolean ready() {
        try {
            call("GET", "/readyz", null);
            return true;
        } catch (HttpProblem | IOException notYet) {
            return false;
        }
    }

    boolean isRunning() {
        return process != null && process.isAlive();
    }

    /** kill -9: nothing is flushed, nobody is told. */
    void kill() {
        process.destroyForcibly();
        waitFor();
    }

    /** SIGTERM, which has to end it with status 0; and it may not have panicked. */
    void stop() {
        if (isRunning()) {
            process.destroy();
            boolean ended = waitFor();
            if (!ended) {
                process.destroyForcibly();
            }
            if (!ended || process.exitValue() != 0) {
                throw new AssertionError("SIGTERM must end the broker with status 0 within " + STOPS_WITHIN_S + " s, and "
                    + (ended ? "the status is " + process.exitValue() : "it runs on") + ":\n" + log());
            }
        }
        if (read().contains("panicked at")) {
            throw new AssertionError("the broker panicked:\n" + log());
        }
    }

    private boolean waitFor() {
        try {
            return process.waitFor(STOPS_WITHIN_S, TimeUnit.SECONDS);
        } catch (InterruptedException interrupted) {
            throw new AssertionError(interrupted);
        }
    }

    private String read() {
        try {
            return Files.readString(output);
        } catch (IOException problem) {
            return problem.toString();
        }
    }

    /** The end of what it wrote. */
    String log() {
        String all = read();
        return "----- " + folder + " -----\n" + all.substring(Math.max(0, all.length() - 10_000));
    }

    // ---- the HTTP API ----

    static class HttpProblem extends RuntimeException {
        final int status;

        HttpProblem(String what, int status, String body) {
            super(what + ": " + status + " " + body);
            this.status = status;
        }
    }

    JsonElement call(String method, String path, String body) throws IOException {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create("http://" + http + path)).timeout(Duration.ofSeconds(10));
        if (method.equals("GET")) {
            request.GET();
        } else {
            request.header("content-type", "application/json")
                .method(method, HttpRequest.BodyPublishers.ofString(body == null ? "{}" : body));
        }
        return answer(method, path, request.build());
    }

    private static JsonElement answer(String method, String path, HttpRequest request) throws IOException {
        HttpResponse<String> answer;
        try {
            answer = CLIENT.send(request, HttpResponse.BodyHandlers.ofString());
        } catch (InterruptedException interrupted) {
            throw new IOException(interrupted);
        }
        if (answer.statusCode() / 100 != 2) {
            throw new HttpProblem(method + " " + path, answer.statusCode(), answer.body());
        }
        try {
            return answer.body().isEmpty() ? JsonNull.INSTANCE : JsonParser.parseString(answer.body());
        } catch (JsonSyntaxException text) {
            return JsonNull.INSTANCE;
        }
    }

    private JsonElement must(String method, String path, String body) {
        try {
            return call(method, path, body);
        } catch (IOException problem) {
            throw new AssertionError(method + " " + path + ": " + problem, problem);
        }
    }

    void createTopic(String name, String type, int queues) {
        must("PUT", "/v1/topics/" + name, "{\"type\":\"" + type + "\",\"queues\":" + queues + "}");
    }

    /** Its transactions are asked about after a second, and every second. */
    void createTransactionTopic(String name) {
        must("PUT", "/v1/topics/" + name, "{\"type\":\"transaction\",\"queues\":2,"
            + "\"transaction\":{\"immunity\":\"1s\",\"interval\":\"1s\",\"max_checks\":1000}}");
    }

    /** From now on its transactions are left to their producers. */
    void neverAsks(String transactionTopic) {
        must("PUT", "/v1/topics/" + transactionTopic,
            "{\"type\":\"transaction\",\"queues\":2,\"transaction\":{\"immunity\":\"1h\"}}");
    }

    void createGroup(String name, String settings) {
        must("PUT", "/v1/groups/" + name, settings);
    }

    /** Uploads one of the components that the repository carries, or that VOUCH_PLUGIN_DIST names. */
    void push(String plugin, String tag) throws IOException {
        String chosen = System.getenv("VOUCH_PLUGIN_DIST");
        Path file = Path.of(chosen == null ? "../../../plugins/dist" : chosen).resolve(plugin + ".wasm");
        String path = "/v1/plugins/" + plugin + "/tags/" + tag;
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://" + http + path)).timeout(Duration.ofSeconds(10))
            .header("content-type", "application/wasm").PUT(HttpRequest.BodyPublishers.ofFile(file)).build();
        answer("PUT", path, request);
    }

    void bind(String name, String binding) {
        must("PUT", "/v1/bindings/" + name, binding);
    }

    /** The state of a transaction, and whether a check ended it. */
    String ended(String transaction) {
        JsonObject told = must("GET", "/v1/transactions/" + transaction, null).getAsJsonObject();
        JsonElement answer = told.get("last_answer");
        boolean byACheck = answer.isJsonObject() && answer.getAsJsonObject().get("by").getAsString().startsWith("component ");
        return told.get("state").getAsString() + (byACheck ? " by a check" : "");
    }

    boolean hasTopic(String name) {
        try {
            call("GET", "/v1/topics/" + URLEncoder.encode(name, StandardCharsets.UTF_8), null);
            return true;
        } catch (HttpProblem | IOException problem) {
            return false;
        }
    }

    /** How many transactions of a topic have not ended. */
    int openTransactions(String topic) {
        int open = 0;
        for (String state : List.of("open", "waiting_for_checker", "parked")) {
            open += must("GET", "/v1/transactions?state=" + state + "&topic=" + topic, null).getAsJsonObject()
                .getAsJsonArray("items").size();
        }
        return open;
    }
}
