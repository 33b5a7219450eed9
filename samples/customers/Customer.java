import java.io.IOException;
import java.net.ConnectException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpConnectTimeoutException;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.channels.UnresolvedAddressException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;

/**
 * Asks a URL again and again with the JDK's own client, which keeps its connections, remembers names for 30 seconds and
 * offers HTTP/2 by "Upgrade: h2c", until standard input ends.
 *
 * Usage: java Customer.java URL PAUSE_MS. Prints one line of JSON at the end.
 */
public class Customer {
    static volatile boolean ended;

    public static void main(String[] args) throws Exception {
        long pause = Long.parseLong(args[1]);
        Thread waits = new Thread(() -> {
            try {
                while (System.in.read() >= 0) { }
            } catch (IOException e) {
                // it has ended, too
            }
            ended = true;
        });
        waits.setDaemon(true);
        waits.start();
        HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
        HttpRequest request = HttpRequest.newBuilder(URI.create(args[0])).timeout(Duration.ofSeconds(5)).build();
        long requests = 0, failures = 0, slowest = 0;
        Instant slowestAt = Instant.now();
        List<String> failed = new ArrayList<>();
        while (!ended) {
            String error = "", phase = "answer";
            Instant began = Instant.now();
            requests++;
            try {
                HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
                if (answer.statusCode() >= 400) {
                    error = answer.statusCode() + " " + answer.body().substring(0, Math.min(120, answer.body().length()));
                }
            } catch (IOException e) {
                error = e.toString();
                if (e instanceof ConnectException || e instanceof HttpConnectTimeoutException) {
                    phase = "connect";
                }
                for (Throwable cause = e; cause != null; cause = cause.getCause()) {
                    if (cause instanceof UnresolvedAddressException) {
                        phase = "resolve";
                    }
                }
            }
            long took = Duration.between(began, Instant.now()).toNanos();
            if (took > slowest) {
                slowest = took;
                slowestAt = began;
            }
            if (!error.isEmpty() && failures++ < 1000) {
                failed.add("{\"time\": \"" + began + "\", \"took\": " + took + ", \"phase\": \"" + phase + "\", \"error\": \""
                    + error.replace("\\", "\\\\").replace("\"", "\\\"").replaceAll("\\p{Cntrl}", " ") + "\"}");
            }
            Thread.sleep(pause);
        }
        System.out.println("{\"requests\": " + requests + ", \"failures\": " + failures + ", \"slowest\": " + slowest
            + ", \"slowestAt\": \"" + slowestAt + "\", \"failed\": " + failed + "}");
    }
}
