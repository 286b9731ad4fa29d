import static java.util.Map.entry;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.AuthenticationFailureException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DeliverCallback;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.Return;
import java.io.IOException;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** The twenty scenarios in the Java client. */
final class Scenarios {
    private Scenarios() {}

    public static void main(String[] arguments) throws Exception {
        Map<String, Harness.Scenario> scenarios = new LinkedHashMap<>();
        scenarios.put("hello", Scenarios::hello);
        scenarios.put("work_queue", Scenarios::workQueue);
        scenarios.put("priorities", Scenarios::priorities);
        scenarios.put("pubsub", Scenarios::pubsub);
        scenarios.put("routing", Scenarios::routing);
        scenarios.put("topics", Scenarios::topics);
        scenarios.put("headers", Scenarios::headers);
        scenarios.put("rpc", Scenarios::rpc);
        scenarios.put("confirms", Scenarios::confirms);
        scenarios.put("returns", Scenarios::returns);
        scenarios.put("get", Scenarios::get);
        scenarios.put("nack_requeue", Scenarios::nackRequeue);
        scenarios.put("reject", Scenarios::reject);
        scenarios.put("recover", Scenarios::recover);
        scenarios.put("tx", Scenarios::tx);
        scenarios.put("exclusive_autodelete", Scenarios::exclusiveAutodelete);
        scenarios.put("big_message", Scenarios::bigMessage);
        scenarios.put("consumer_cancel", Scenarios::consumerCancel);
        scenarios.put("bad_credentials", Scenarios::badCredentials);
        scenarios.put("worker_killed", Scenarios::workerKilled);
        Harness.main(arguments, scenarios, Scenarios::worker);
    }

    static void hello(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String queue = bench.queue(channel);
            var properties = new BasicProperties.Builder()
                    .contentType("text/plain").headers(Map.of("answer", 42, "nested", Map.of("yes", true))).build();
            channel.basicPublish("", queue, properties, Bench.bytes("Hello, world!"));
            Delivery message = Bench.take(channel, queue, 1).get(0);
            Harness.same(Bench.text(message), "Hello, world!");
            Harness.same(message.getProperties().getContentType(), "text/plain");
            Harness.same(message.getProperties().getHeaders(), properties.getHeaders());
            var envelope = message.getEnvelope();
            Harness.same(envelope.getExchange() + "/" + envelope.getRoutingKey(), "/" + queue);
            Harness.same(envelope.isRedeliver(), false);
        }
    }

    /** With one message at a time each, the slow worker keeps its first and the quick one does all others. */
    static void workQueue(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            Channel slow = bench.channel();
            Channel quick = bench.channel();
            String queue = bench.queue(channel);
            Bench.publish(channel, queue, numbers(0, 10));

            slow.basicQos(1);
            BlockingQueue<Delivery> slowWork = Bench.consume(slow, queue, false);
            Delivery first = slowWork.take();
            quick.basicQos(1);
            BlockingQueue<Delivery> quickWork = Bench.consume(quick, queue, false);
            for (String expected : numbers(1, 10)) {
                Delivery message = quickWork.take();
                quick.basicAck(message.getEnvelope().getDeliveryTag(), false);
                Harness.same(Bench.text(message), expected);
            }
            slow.basicAck(first.getEnvelope().getDeliveryTag(), false);
            slow.close();
            Harness.same(Bench.text(first), "0");
            Harness.same(slowWork.size(), 0);
            Harness.same(Bench.rest(channel, queue), List.of());
        }
    }

    static void priorities(String url) throws Exception {
        record Prioritized(int priority, String body) {}
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String queue = bench.queue(channel, Map.of("x-max-priority", 10));
            List<Prioritized> sent = IntStream.range(0, 110).mapToObj(n -> new Prioritized(n * 7 % 11, "" + n)).toList();
            for (var message : sent) {
                var properties = new BasicProperties.Builder().priority(message.priority).build();
                channel.basicPublish("", queue, properties, Bench.bytes(message.body));
            }
            var got = Bench.take(channel, queue, 110).stream()
                    .map(message -> new Prioritized(message.getProperties().getPriority(), Bench.text(message)));
            var urgentFirst = Comparator.comparingInt(Prioritized::priority).reversed();
            Harness.same(got.toList(), sent.stream().sorted(urgentFirst).toList());
        }
    }

    static void pubsub(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String fanout = bench.exchange(channel, "fanout");
            List<String> queues = new ArrayList<>();
            for (int n = 0; n < 3; n++) {
                String queue = channel.queueDeclare("", false, true, false, null).getQueue();
                channel.queueBind(queue, fanout, "");
                queues.add(queue);
            }
            for (String body : List.of("first", "second")) channel.basicPublish(fanout, "ignored", null, Bench.bytes(body));
            for (String queue : queues) {
                Harness.same(Bench.texts(Bench.take(channel, queue, 2)), List.of("first", "second"));
                Harness.same(Bench.rest(channel, queue), List.of());
            }
        }
    }

    /** What arrives in one queue per list of binding keys, when a message is published to each routing key. */
    static List<List<String>> routed(String url, String type, List<List<String>> bindings, List<String> keys)
            throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String exchange = bench.exchange(channel, type);
            List<String> queues = new ArrayList<>();
            for (var bindingKeys : bindings) {
                String queue = bench.queue(channel);
                for (String key : bindingKeys) channel.queueBind(queue, exchange, key);
                queues.add(queue);
            }
            for (String key : keys) channel.basicPublish(exchange, key, null, Bench.bytes(key));
            List<List<String>> arrived = new ArrayList<>();
            for (String queue : queues) arrived.add(Bench.rest(channel, queue));
            return arrived;
        }
    }

    static void routing(String url) throws Exception {
        var got = routed(url, "direct",
                List.of(List.of("error"), List.of("info", "error")), List.of("info", "error", "debug", "error"));
        Harness.same(got, List.of(List.of("error", "error"), List.of("info", "error", "error")));
    }

    static void topics(String url) throws Exception {
        var got = routed(url, "topic",
                List.of(List.of("*.orange.*"), List.of("*.*.rabbit", "lazy.#")),
                List.of("quick.orange.rabbit", "lazy.orange.elephant", "quick.brown.fox", "lazy", "lazy.a.b.rabbit", "orange"));
        Harness.same(got, List.of(
                List.of("quick.orange.rabbit", "lazy.orange.elephant"),
                List.of("quick.orange.rabbit", "lazy.orange.elephant", "lazy", "lazy.a.b.rabbit")));
    }

    static void headers(String url) throws Exception {
        Map<String, Object> pdfReport = Map.of("format", "pdf", "type", "report");
        Map<String, Object> pdf = Map.of("format", "pdf");
        Map<String, Object> zipLog = Map.of("format", "zip", "type", "log");
        Map<String, Object> longReport = Map.of("type", "report", "pages", 3);
        var expected = Map.of("all", List.of(pdfReport), "any", List.of(pdfReport, pdf, longReport));
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String exchange = bench.exchange(channel, "headers");
            Map<String, String> queues = Map.of("all", bench.queue(channel), "any", bench.queue(channel));
            for (var queue : queues.entrySet()) {
                Map<String, Object> wanted = Map.ofEntries(
                        entry("x-match", queue.getKey()), entry("format", "pdf"), entry("type", "report"));
                channel.queueBind(queue.getValue(), exchange, "", wanted);
            }
            for (var headers : List.of(pdfReport, pdf, zipLog, longReport)) {
                channel.basicPublish(exchange, "", new BasicProperties.Builder().headers(headers).build(), new byte[0]);
            }
            for (var queue : queues.entrySet()) {
                var wanted = expected.get(queue.getKey());
                var got = Bench.take(channel, queue.getValue(), wanted.size()).stream()
                        .map(message -> texts(message.getProperties().getHeaders()));
                Harness.same(got.toList(), wanted.stream().map(Scenarios::texts).toList());
                Harness.same(Bench.rest(channel, queue.getValue()), List.of());
            }
        }
    }

    static void rpc(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel server = bench.channel();
            Channel client = bench.channel();
            String requests = bench.queue(server);
            DeliverCallback square = (tag, call) -> {
                int n = Integer.parseInt(Bench.text(call));
                var properties = new BasicProperties.Builder()
                        .correlationId(call.getProperties().getCorrelationId()).build();
                server.basicPublish("", call.getProperties().getReplyTo(), properties, Bench.bytes("" + n * n));
                server.basicAck(call.getEnvelope().getDeliveryTag(), false);
            };
            server.basicConsume(requests, false, square, tag -> {});

            String replyTo = client.queueDeclare().getQueue();
            BlockingQueue<Delivery> replies = Bench.consume(client, replyTo, true);
            Map<String, String> expected = new LinkedHashMap<>();
            for (int n = 0; n < 10; n++) {
                var properties = new BasicProperties.Builder().replyTo(replyTo).correlationId("call-" + n).build();
                client.basicPublish("", requests, properties, Bench.bytes("" + n));
                expected.put("call-" + n, "" + n * n);
            }
            Map<String, String> answers = new LinkedHashMap<>();
            while (answers.size() < 10) {
                Delivery reply = replies.take();
                answers.put(reply.getProperties().getCorrelationId(), Bench.text(reply));
            }
            Harness.same(answers, expected);
        }
    }

    static void confirms(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String queue = bench.queue(channel);
            channel.confirmSelect();
            List<String> all = numbers(0, 100);
            for (String body : all.subList(0, 20)) { // one by one
                Bench.publish(channel, queue, List.of(body));
                channel.waitForConfirmsOrDie(5_000);
            }
            confirmAsTheyCome(bench.channel(), queue, all);
            for (int start = 0; start < 100; start += 20) { // batch by batch
                Bench.publish(channel, queue, all.subList(start, start + 20));
                channel.waitForConfirmsOrDie(5_000);
            }
            var expected = Stream.of(all.subList(0, 20), all, all).flatMap(List::stream).toList();
            Harness.same(Bench.rest(channel, queue), expected);
        }
    }

    private static void confirmAsTheyCome(Channel channel, String queue, List<String> bodies) throws Exception {
        channel.confirmSelect();
        var unconfirmed = new ConcurrentSkipListMap<Long, String>();
        var left = new CountDownLatch(bodies.size());
        channel.addConfirmListener((tag, multiple) -> {
            var answered = multiple ? unconfirmed.headMap(tag, true) : unconfirmed.subMap(tag, true, tag, true);
            while (answered.pollFirstEntry() != null) left.countDown();
        }, (tag, multiple) -> {
            throw new IOException("the broker refused " + tag);
        });
        for (String body : bodies) {
            unconfirmed.put(channel.getNextPublishSeqNo(), body);
            Bench.publish(channel, queue, List.of(body));
        }
        left.await();
        channel.close();
    }

    static void returns(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String queue = bench.queue(channel);
            String nowhere = Harness.unique("nowhere");
            List<Return> returned = new ArrayList<>();
            channel.addReturnListener(message -> returned.add(message));
            channel.confirmSelect();
            channel.basicPublish("", nowhere, true, null, Bench.bytes("lost"));
            channel.basicPublish("", queue, true, null, Bench.bytes("found"));
            channel.waitForConfirmsOrDie(5_000); // a return comes before its confirm
            Harness.same(returned.size(), 1);
            Return lost = returned.get(0);
            Harness.same(lost.getReplyCode() + " " + lost.getReplyText(), AMQP.NO_ROUTE + " NO_ROUTE");
            Harness.same(lost.getExchange() + "/" + lost.getRoutingKey(), "/" + nowhere);
            Harness.same(Bench.text(lost.getBody()), "lost");
            Harness.same(Bench.rest(channel, queue), List.of("found"));
        }
    }

    static void get(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String queue = bench.queue(channel);
            Harness.same(channel.basicGet(queue, false), null);
            Bench.publish(channel, queue, List.of("a", "b", "c"));
            for (String expected : List.of("a 2 false", "b 1 false", "c 0 false")) {
                GetResponse message = channel.basicGet(queue, false);
                var envelope = message.getEnvelope();
                Harness.same(Bench.text(message.getBody()) + " " + message.getMessageCount() + " " + envelope.isRedeliver(), expected);
                channel.basicAck(envelope.getDeliveryTag(), false);
            }
            Harness.same(channel.basicGet(queue, false), null);
        }
    }

    static void nackRequeue(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String queue = bench.queue(channel);
            Bench.publish(channel, queue, List.of("a", "b", "c"));
            for (boolean redelivered : List.of(false, true)) {
                long last = 0;
                for (String body : List.of("a", "b", "c")) {
                    GetResponse message = channel.basicGet(queue, false);
                    Harness.same(Bench.text(message.getBody()), body);
                    Harness.same(message.getEnvelope().isRedeliver(), redelivered);
                    last = message.getEnvelope().getDeliveryTag();
                }
                channel.basicNack(last, true, true);
            }
            Harness.same(Bench.rest(channel, queue), List.of("a", "b", "c"));
        }
    }

    static void reject(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String deadLetters = bench.exchange(channel, "fanout");
            String graveyard = bench.queue(channel);
            channel.queueBind(graveyard, deadLetters, "");
            String forgetful = bench.queue(channel);
            String queue = bench.queue(channel, Map.of("x-dead-letter-exchange", deadLetters));
            for (String rejecting : List.of(forgetful, queue)) {
                Bench.publish(channel, rejecting, List.of("unwanted"));
                channel.basicReject(channel.basicGet(rejecting, false).getEnvelope().getDeliveryTag(), false);
                Harness.same(Bench.rest(channel, rejecting), List.of());
            }
            Delivery message = Bench.take(channel, graveyard, 1).get(0);
            Harness.same(message.getEnvelope().getExchange(), deadLetters);
            Harness.same(message.getEnvelope().getRoutingKey(), queue);
            Harness.same(Bench.text(message), "unwanted");
            var deaths = (List<?>) message.getProperties().getHeaders().get("x-death");
            Harness.same(deaths.size(), 1);
            Map<String, String> death = texts((Map<?, ?>) deaths.get(0));
            death.remove("time");
            Harness.same(death, Map.of(
                    "reason", "rejected", "queue", queue, "count", "1", "exchange", "", "routing-keys", "[" + queue + "]"));
            Harness.same(Bench.rest(channel, graveyard), List.of());
        }
    }

    static void recover(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String queue = bench.queue(channel);
            Bench.publish(channel, queue, List.of("a", "b", "c"));
            BlockingQueue<Delivery> inbox = Bench.consume(channel, queue, false);
            channel.basicAck(inbox.take().getEnvelope().getDeliveryTag(), false);
            Harness.same(Bench.texts(List.of(inbox.take(), inbox.take())), List.of("b", "c"));
            channel.basicRecover(true);
            for (String body : List.of("b", "c")) {
                Delivery message = inbox.take();
                Harness.same(Bench.text(message), body);
                Harness.same(message.getEnvelope().isRedeliver(), true);
            }
        }
    }

    static void tx(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String queue = bench.queue(channel);
            channel.txSelect();
            Bench.publish(channel, queue, List.of("undone"));
            channel.txRollback();
            Bench.publish(channel, queue, List.of("done"));
            Harness.same(Bench.rest(channel, queue), List.of());
            channel.txCommit();
            for (boolean commit : List.of(false, true)) {
                try (Channel worker = bench.channel()) {
                    worker.txSelect();
                    GetResponse message = worker.basicGet(queue, false);
                    Harness.same(Bench.text(message.getBody()), "done");
                    Harness.same(message.getEnvelope().isRedeliver(), commit);
                    worker.basicAck(message.getEnvelope().getDeliveryTag(), false);
                    if (commit) worker.txCommit();
                    else worker.txRollback();
                }
            }
            Harness.same(Bench.rest(channel, queue), List.of());
        }
    }

    static void exclusiveAutodelete(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Connection owner = Bench.factory(url).newConnection();
            String owned = owner.createChannel().queueDeclare().getQueue();
            var refused = Harness.raises(IOException.class, () -> bench.channel().queueDeclarePassive(owned));
            Harness.same(Bench.code(refused), AMQP.RESOURCE_LOCKED);
            owner.close();
            bench.waitUntilGone(owned);

            Channel channel = bench.channel();
            String queue = Harness.unique("queue");
            channel.queueDeclare(queue, false, false, true, null);
            bench.deleteLater(queue);
            DeliverCallback ignore = (tag, message) -> {};
            String first = channel.basicConsume(queue, ignore, tag -> {});
            String second = channel.basicConsume(queue, ignore, tag -> {});
            channel.basicCancel(first);
            channel.queueDeclarePassive(queue);
            channel.basicCancel(second);
            bench.waitUntilGone(queue);
        }
    }

    static void bigMessage(String url) throws Exception {
        byte[] body = new byte[10 * 1024 * 1024];
        new Random(1).nextBytes(body);
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String queue = bench.queue(channel);
            channel.basicPublish("", queue, null, body);
            byte[] got = Bench.take(channel, queue, 1).get(0).getBody();
            Harness.same(got.length, body.length);
            Harness.same(digest(got), digest(body));
        }
    }

    static void consumerCancel(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String queue = bench.queue(channel);
            BlockingQueue<String> inbox = new LinkedBlockingQueue<>();
            BlockingQueue<String> cancelled = new LinkedBlockingQueue<>();
            DeliverCallback receive = (tag, message) -> inbox.add(Bench.text(message));

            String tag = channel.basicConsume(queue, true, receive, cancelled::add);
            Bench.publish(channel, queue, List.of("before"));
            Harness.same(inbox.take(), "before");
            channel.basicCancel(tag);
            Bench.publish(channel, queue, List.of("after"));
            Harness.same(Bench.rest(channel, queue), List.of("after"));
            Harness.same(inbox.size(), 0);

            tag = channel.basicConsume(queue, true, receive, cancelled::add);
            Bench.publish(channel, queue, List.of("again"));
            Harness.same(inbox.take(), "again");
            bench.channel().queueDelete(queue);
            Harness.same(cancelled.take(), tag);
        }
    }

    static void badCredentials(String url) throws Exception {
        ConnectionFactory factory = Bench.factory(url);
        String right = factory.getPassword();
        factory.setPassword("wrong");
        var error = Harness.raises(AuthenticationFailureException.class, factory::newConnection);
        Harness.same(error.getMessage().startsWith("ACCESS_REFUSED"), true);
        factory.setPassword(right);
        factory.newConnection().close();
    }

    static void workerKilled(String url) throws Exception {
        try (Bench bench = new Bench(url)) {
            Channel channel = bench.channel();
            String queue = bench.queue(channel);
            Bench.publish(channel, queue, numbers(0, 12));
            BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
            DeliverCallback work = (tag, message) -> {
                channel.basicAck(message.getEnvelope().getDeliveryTag(), false);
                inbox.add(message);
            };
            try (Harness.Victim victim = new Harness.Victim(url, queue)) {
                Harness.same(victim.take(8), numbers(0, 8));
                channel.basicConsume(queue, work, tag -> {});
                expect(inbox, numbers(8, 12), false);
            }
            expect(inbox, numbers(2, 8), true);
            channel.close();
            Harness.same(inbox.size(), 0);
            Harness.same(Bench.rest(bench.channel(), queue), List.of());
        }
    }

    private static void expect(BlockingQueue<Delivery> inbox, List<String> bodies, boolean redelivered) throws Exception {
        for (String body : bodies) {
            Delivery message = inbox.take();
            Harness.same(Bench.text(message), body);
            Harness.same(message.getEnvelope().isRedeliver(), redelivered);
        }
    }

    /** The victim of workerKilled: holds up to six messages, acknowledges only the first two, says what it has. */
    static void worker(String url, String queue) throws Exception {
        Channel channel = Bench.factory(url).newConnection().createChannel();
        channel.basicQos(6);
        channel.basicConsume(queue, (tag, message) -> {
            long deliveryTag = message.getEnvelope().getDeliveryTag();
            if (deliveryTag <= 2) channel.basicAck(deliveryTag, false);
            System.out.println(Bench.text(message));
        }, tag -> {});
    }

    private static List<String> numbers(int from, int to) {
        return IntStream.range(from, to).mapToObj(Integer::toString).toList();
    }

    /** Headers with the library's LongString and numbers as text. */
    private static Map<String, String> texts(Map<?, ?> headers) {
        Map<String, String> texts = new LinkedHashMap<>();
        headers.forEach((name, value) -> texts.put(name.toString(), value.toString()));
        return texts;
    }

    private static String digest(byte[] body) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(body));
    }
}
