package vouch;

import java.util.function.Supplier;
import org.junit.jupiter.api.extension.AfterTestExecutionCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/** What the broker said is told with a failed test. */
final class LogOnFailure implements AfterTestExecutionCallback {
    private final Supplier<String> log;

    LogOnFailure(Supplier<String> log) {
        this.log = log;
    }

    @Override
    public void afterTestExecution(ExtensionContext context) {
        context.getExecutionException().ifPresent(failure ->
            System.out.println("--- " + context.getDisplayName() + " failed; the broker's last words:\n" + log.get()));
    }
}
