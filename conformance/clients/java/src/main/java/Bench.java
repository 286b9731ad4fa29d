import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** One connection, and the names that a scenario makes on it; closing deletes them, whatever happened. */
final class Bench implements AutoCloseable {
    final Connection connection;
    private final String url;
    private final List<String> queues = new ArrayList<>();
    private final List<String> exchanges = new ArrayList<>();

    Bench(String url) throws Exception {
        this.url = url;
        connection = factory(url).newConnection();
    }

    static ConnectionFactory factory(String url) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(url);
        factory.setAutomaticRecoveryEnabled(false);
        return factory;
    }

    Channel channel() throws IOException {
        return connection.createChannel();
    }

    /** Declares a queue of a new name. */
    String queue(Channel channel, Map<String, Object> arguments) throws IOException {
        String name = Harness.unique("queue");
        channel.queueDeclare(name, false, false, false, arguments);
        deleteLater(name);
        return name;
    }

    void deleteLater(String queue) {
        queues.add(queue);
    }

    String queue(Channel channel) throws IOException {
        return queue(channel, Map.of());
    }

    /** Declares an exchange of a new name. */
    String exchange(Channel channel, String type) throws IOException {
        String name = Harness.unique(type);
        channel.exchangeDeclare(name, type);
        exchanges.add(name);
        return name;
    }

    /** Asks for the queue until the broker answers 404. */
    void waitUntilGone(String queue) throws Exception {
        while (true) {
            try (Channel channel = channel()) {
                channel.queueDeclarePassive(queue);
                Thread.sleep(5);
            } catch (IOException refused) {
                Harness.same(code(refused), AMQP.NOT_FOUND);
                return;
            }
        }
    }

    /** The reply code with which the broker closed the channel. */
    static int code(IOException refused) {
        var reason = ((ShutdownSignalException) refused.getCause()).getReason();
        return ((AMQP.Channel.Close) reason).getReplyCode();
    }

    @Override
    public void close() throws Exception {
        if (connection.isOpen()) connection.close();
        try (Connection again = factory(url).newConnection()) {
            Channel channel = again.createChannel();
            for (String queue : queues) channel.queueDelete(queue);
            for (String exchange : exchanges) channel.exchangeDelete(exchange);
        }
    }

    static void publish(Channel channel, String queue, List<String> bodies) throws IOException {
        for (String body : bodies) channel.basicPublish("", queue, null, bytes(body));
    }

    /** Starts a consumer whose deliveries are to be taken from the answer. */
    static BlockingQueue<Delivery> consume(Channel channel, String queue, boolean autoAck) throws IOException {
        BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, autoAck, (tag, message) -> inbox.add(message), tag -> {});
        return inbox;
    }

    /** The next messages of a queue, acknowledged; prefetch and a late ack leave all others in the queue. */
    static List<Delivery> take(Channel channel, String queue, int count) throws Exception {
        BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
        channel.basicQos(count);
        String tag = channel.basicConsume(queue, false, (consumer, message) -> inbox.add(message), consumer -> {});
        List<Delivery> messages = new ArrayList<>();
        while (messages.size() < count) messages.add(inbox.take());
        channel.basicCancel(tag);
        channel.basicAck(messages.get(count - 1).getEnvelope().getDeliveryTag(), true);
        return messages;
    }

    /** What the queue still has, taken out by basic.get (which comes after all this channel did before). */
    static List<String> rest(Channel channel, String queue) throws IOException {
        List<String> bodies = new ArrayList<>();
        for (GetResponse message; (message = channel.basicGet(queue, true)) != null; ) {
            bodies.add(text(message.getBody()));
        }
        return bodies;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] body) {
        return new String(body, StandardCharsets.UTF_8);
    }

    static String text(Delivery message) {
        return text(message.getBody());
    }

    static List<String> texts(List<Delivery> messages) {
        return messages.stream().map(Bench::text).toList();
    }
}
