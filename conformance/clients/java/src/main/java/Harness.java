import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Command line, deadline and report. No AMQP lives here. */
final class Harness {
    static final int SCENARIO_SECONDS = 20;

    private Harness() {}

    interface Scenario {
        void run(String url) throws Exception;
    }

    interface Worker {
        void run(String url, String queue) throws Exception;
    }

    /** A queue or exchange name that no other run uses. */
    static String unique(String name) {
        return "conformance-" + name + "-" + UUID.randomUUID().toString().substring(24);
    }

    static void same(Object actual, Object expected) {
        if (!Objects.equals(actual, expected)) {
            throw new AssertionError("got " + actual + ", expected " + expected);
        }
    }

    /** The error of this class that the call raises; fails when it raises none. */
    static <E extends Exception> E raises(Class<E> kind, Callable<?> call) throws Exception {
        try {
            call.call();
        } catch (Exception error) {
            if (kind.isInstance(error)) return kind.cast(error);
            throw error;
        }
        throw new AssertionError("no " + kind.getSimpleName() + " was raised");
    }

    /** This program again, as {@code --worker QUEUE}; closing kills it with SIGKILL, while it holds messages. */
    static final class Victim implements AutoCloseable {
        private final Process process;
        private final BufferedReader lines;

        Victim(String url, String queue) throws IOException {
            String java = ProcessHandle.current().info().command().orElse("java");
            process = new ProcessBuilder(
                    java, "-XX:TieredStopAtLevel=1", "-cp", System.getProperty("java.class.path"),
                    "Scenarios", "--url", url, "--worker", queue)
                    .redirectError(ProcessBuilder.Redirect.INHERIT).start();
            lines = new BufferedReader(new InputStreamReader(process.getInputStream()));
        }

        List<String> take(int count) throws IOException {
            List<String> taken = new ArrayList<>();
            for (int n = 0; n < count; n++) taken.add(lines.readLine());
            return taken;
        }

        @Override
        public void close() throws InterruptedException {
            process.destroyForcibly().waitFor();
        }
    }

    /** Runs the scenarios, or one worker. */
    static void main(String[] arguments, Map<String, Scenario> scenarios, Worker worker) throws Exception {
        String url = "amqp://guest:guest@127.0.0.1:5672/%2f";
        String only = "";
        String queue = null;
        for (int n = 0; n < arguments.length; n += 2) {
            if (n + 1 == arguments.length) throw new IllegalArgumentException(arguments[n] + " needs a value");
            switch (arguments[n]) {
                case "--url" -> url = arguments[n + 1];
                case "--only" -> only = arguments[n + 1];
                case "--worker" -> queue = arguments[n + 1];
                default -> throw new IllegalArgumentException("unknown argument " + arguments[n]);
            }
        }
        if (queue != null) {
            worker.run(url, queue);
            return;
        }
        int passed = 0;
        int failed = 0;
        for (var scenario : scenarios.entrySet()) {
            if (!scenario.getKey().contains(only)) continue;
            if (passes(scenario.getKey(), scenario.getValue(), url)) passed++;
            else failed++;
        }
        if (passed + failed == 0) throw new IllegalArgumentException("no scenario's name contains '" + only + "'");
        System.out.printf("%d passed, %d failed%n", passed, failed);
        System.exit(failed == 0 ? 0 : 1);
    }

    private static boolean passes(String name, Scenario scenario, String url) throws InterruptedException {
        ExecutorService thread = Executors.newSingleThreadExecutor();
        try {
            thread.submit(() -> {
                scenario.run(url);
                return null;
            }).get(SCENARIO_SECONDS, TimeUnit.SECONDS);
            System.out.println("ok " + name);
            return true;
        } catch (ExecutionException failure) {
            Throwable error = failure.getCause();
            int line = Arrays.stream(error.getStackTrace())
                    .filter(frame -> frame.getClassName().startsWith("Scenarios"))
                    .mapToInt(StackTraceElement::getLineNumber).findFirst().orElse(0);
            String cause = error.getCause() == null ? "" : " because of " + error.getCause();
            String reason = (error + cause).replaceAll("\\s+", " ");
            System.out.println("not ok " + name + " -- line " + line + ": " + reason);
            return false;
        } catch (TimeoutException late) {
            System.out.println("not ok " + name + " -- not done within " + SCENARIO_SECONDS + " s");
            return false;
        } finally {
            thread.shutdownNow();
        }
    }
}
