package vouch;

import static org.junit.jupiter.api.Assumptions.abort;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import javax.sql.DataSource;
import org.postgresql.ds.PGSimpleDataSource;

/** A real server with databases of a shop and of the fence. It runs as long as its input is open, so it goes with this process. */
final class Postgres {
    private static final int NOT_INSTALLED = 77;

    private final Process process;
    private final String[] said;

    private Postgres(Process process, String[] said) {
        this.process = process;
        this.said = said;
    }

    /** Leaves the tests out aloud where it is not installed. */
    static Postgres start(String what) throws IOException {
        Process process = new ProcessBuilder("../python/postgres.sh", Broker.binary())
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        String said = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8)).readLine();
        if (said != null && said.startsWith("ready ")) {
            return new Postgres(process, said.split(" "));
        }
        if (ended(process) == NOT_INSTALLED) {
            System.out.println("LEFT OUT: " + what + ". " + said);
            abort(said);
        }
        throw new AssertionError(said);
    }

    private static int ended(Process process) {
        try {
            return process.waitFor();
        } catch (InterruptedException interrupted) {
            throw new AssertionError(interrupted);
        }
    }

    void stop() {
        try {
            process.getOutputStream().close();
        } catch (IOException gone) {
            // it has ended
        }
        ended(process);
    }

    DataSource database(String name) {
        PGSimpleDataSource database = new PGSimpleDataSource();
        database.setServerNames(new String[] {"127.0.0.1"});
        database.setPortNumbers(new int[] {Integer.parseInt(said[1])});
        database.setUser("postgres");
        database.setPassword(said[2]);
        database.setDatabaseName(name);
        return database;
    }

    /** As a grant of a binding has it, over a socket that asks for no password. */
    String url(String name) {
        return "postgres://postgres@localhost/" + name + "?socket=" + said[3];
    }
}
