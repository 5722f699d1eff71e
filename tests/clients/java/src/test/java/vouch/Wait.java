package vouch;

import java.time.Duration;
import java.util.function.BooleanSupplier;

/** Waiting for what has to become so, with a bound. */
final class Wait {
    private static final long POLL_MS = 50;

    private Wait() {}

    static void until(String what, Duration atMost, BooleanSupplier condition) {
        if (!within(atMost, condition)) {
            throw new AssertionError("after " + atMost.toMillis() + " ms still not so: " + what);
        }
    }

    /** Whether it became so. */
    static boolean within(Duration atMost, BooleanSupplier condition) {
        long end = System.nanoTime() + atMost.toNanos();
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > end) {
                return false;
            }
            pause(POLL_MS);
        }
        return true;
    }

    /** Between two tries of a load: how fast it goes, and nothing that a test relies on. */
    static void pause(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
