"""The twenty scenarios in pika: mostly its BlockingConnection, and its SelectConnection for asynchronous confirms."""

import hashlib
import random
from contextlib import contextmanager

import pika
from pika.exceptions import ChannelClosedByBroker, ProbableAuthenticationError, UnroutableError

from harness import Victim, main, raises, same, unique


class Bench:
    """One connection, and the names that a scenario makes on it."""

    def __init__(self, url):
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.queues, self.exchanges = [], []

    def channel(self):
        return self.connection.channel()

    def queue(self, channel, **how):
        """Declares a queue of a new name."""
        self.queues.append(unique("queue"))
        return channel.queue_declare(self.queues[-1], **how).method.queue

    def exchange(self, channel, kind):
        """Declares an exchange of a new name."""
        self.exchanges.append(unique(kind))
        channel.exchange_declare(self.exchanges[-1], kind)
        return self.exchanges[-1]

    def until(self, condition):
        """Lets callbacks run until the condition holds; the scenario's deadline ends a vain wait."""
        while not condition():
            self.connection.process_data_events(time_limit=1)



@contextmanager
def bench(url):
    """A bench whose connection is closed and whose names are deleted at the end, whatever happened."""
    it = Bench(url)
    try:
        yield it
    finally:
        if it.connection.is_open:
            it.connection.close()
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            for queue in it.queues:
                channel.queue_delete(queue)
            for exchange in it.exchanges:
                channel.exchange_delete(exchange)


def publish(channel, queue, *bodies):
    for body in bodies:
        channel.basic_publish("", queue, body)


def take(channel, queue, count):
    """The next messages of a queue, acknowledged, as (method, properties, body)."""
    messages = []
    for message in channel.consume(queue):
        channel.basic_ack(message[0].delivery_tag)
        messages.append(message)
        if len(messages) == count:
            channel.cancel()
            return messages


def bodies(messages):
    return [body for _, _, body in messages]


def rest(channel, queue):
    """What the queue still has, taken out by basic.get (which comes after all this channel did before)."""
    left = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return left
        left.append(body)


def wait_until_gone(connection, queue):
    """Asks for the queue until the broker answers 404."""
    while True:
        channel = connection.channel()
        try:
            channel.queue_declare(queue, passive=True)
        except ChannelClosedByBroker as closed:
            return same(closed.reply_code, 404)
        channel.close()
        connection.sleep(0.005)


def hello(url):
    with bench(url) as it:
        channel = it.channel()
        queue = it.queue(channel)
        sent = pika.BasicProperties(content_type="text/plain", headers={"answer": 42, "nested": {"yes": True}})
        channel.basic_publish("", queue, b"Hello, world!", sent)
        [(method, properties, body)] = take(channel, queue, 1)
        same((method.exchange, method.routing_key, method.redelivered), ("", queue, False))
        same((properties, body), (sent, b"Hello, world!"))


def work_queue(url):
    """With one message at a time each, the slow worker keeps its first and the quick one does all others."""
    with bench(url) as it:
        channel = it.channel()
        queue = it.queue(channel)
        publish(channel, queue, *[b"%d" % n for n in range(10)])
        slow, quick = [], []

        def work_quickly(worker, method, _properties, body):
            quick.append(body)
            worker.basic_ack(method.delivery_tag)

        def work_slowly(_worker, method, _properties, body):
            slow.append((method.delivery_tag, body))

        def start_worker(work):
            worker = it.channel()
            worker.basic_qos(prefetch_count=1)
            worker.basic_consume(queue, work)
            return worker

        slow_worker = start_worker(work_slowly)
        it.until(lambda: slow)
        start_worker(work_quickly)
        it.until(lambda: len(quick) == 9)
        same(slow, [(1, b"0")])
        same(quick, [b"%d" % n for n in range(1, 10)])
        slow_worker.basic_ack(1)
        slow_worker.close()
        same(rest(channel, queue), [])


def priorities(url):
    with bench(url) as it:
        channel = it.channel()
        queue = it.queue(channel, arguments={"x-max-priority": 10})
        sent = [(n % 11, b"%d" % n) for n in range(110)]
        random.Random(7).shuffle(sent)
        for priority, body in sent:
            channel.basic_publish("", queue, body, pika.BasicProperties(priority=priority))
        got = [(properties.priority, body) for _, properties, body in take(channel, queue, 110)]
        same(got, sorted(sent, key=lambda message: -message[0]))


def pubsub(url):
    with bench(url) as it:
        channel = it.channel()
        fanout = it.exchange(channel, "fanout")
        queues = [channel.queue_declare("", exclusive=True).method.queue for _ in range(3)]
        for queue in queues:
            channel.queue_bind(queue, fanout)
        for body in (b"first", b"second"):
            channel.basic_publish(fanout, "ignored", body)
        for queue in queues:
            same(bodies(take(channel, queue, 2)), [b"first", b"second"])
            same(rest(channel, queue), [])


def _routed(it, kind, bindings, keys):
    """What arrives in one queue per list of binding keys, when a message is published to each routing key."""
    channel = it.channel()
    exchange = it.exchange(channel, kind)
    queues = [it.queue(channel) for _ in bindings]
    for queue, binding_keys in zip(queues, bindings):
        for key in binding_keys:
            channel.queue_bind(queue, exchange, key)
    for key in keys:
        channel.basic_publish(exchange, key, key)
    return [[body.decode() for body in rest(channel, queue)] for queue in queues]


def routing(url):
    with bench(url) as it:
        got = _routed(it, "direct", [["error"], ["info", "error"]], ["info", "error", "debug", "error"])
        same(got, [["error", "error"], ["info", "error", "error"]])


def topics(url):
    keys = ["quick.orange.rabbit", "lazy.orange.elephant", "quick.brown.fox", "lazy", "lazy.a.b.rabbit", "orange"]
    with bench(url) as it:
        got = _routed(it, "topic", [["*.orange.*"], ["*.*.rabbit", "lazy.#"]], keys)
        same(got, [keys[:2], [keys[0], keys[1], keys[3], keys[4]]])


def headers(url):
    pdf_report = {"format": "pdf", "type": "report"}
    messages = [pdf_report, {"format": "pdf"}, {"format": "zip", "type": "log"}, {"type": "report", "pages": 3}]
    with bench(url) as it:
        channel = it.channel()
        exchange = it.exchange(channel, "headers")
        expected = {"all": [pdf_report], "any": [messages[0], messages[1], messages[3]]}
        queues = {match: it.queue(channel) for match in expected}
        for match, queue in queues.items():
            channel.queue_bind(queue, exchange, arguments={"x-match": match, **pdf_report})
        for message in messages:
            channel.basic_publish(exchange, "", b"", pika.BasicProperties(headers=message))
        for match, queue in queues.items():
            got = take(channel, queue, len(expected[match]))
            same([properties.headers for _, properties, _ in got], expected[match])
            same(rest(channel, queue), [])


def rpc(url):
    with bench(url) as it:
        server, client = it.channel(), it.channel()
        requests = it.queue(server)

        def square(_channel, method, asked, body):
            answer = pika.BasicProperties(correlation_id=asked.correlation_id)
            server.basic_publish("", asked.reply_to, b"%d" % int(body) ** 2, answer)
            server.basic_ack(method.delivery_tag)

        server.basic_consume(requests, square)
        replies = client.queue_declare("", exclusive=True).method.queue
        answers = {}
        client.basic_consume(
            replies, lambda _c, _m, properties, body: answers.update({properties.correlation_id: body}), auto_ack=True
        )
        for n in range(10):
            asking = pika.BasicProperties(reply_to=replies, correlation_id=f"call-{n}")
            client.basic_publish("", requests, b"%d" % n, asking)
        it.until(lambda: len(answers) == 10)
        same(answers, {f"call-{n}": b"%d" % n**2 for n in range(10)})


class ConfirmedPublisher:
    """Publishes in batches on a SelectConnection; the next batch starts when every message of the last is confirmed."""

    def __init__(self, url, queue, total, batch):
        self.queue, self.batch, self.left = queue, batch, total
        self.published, self.unconfirmed, self.refused = 0, set(), 0
        self.connection = pika.SelectConnection(pika.URLParameters(url), on_open_callback=self.on_connection_open)

    def run(self):
        self.connection.ioloop.start()
        return self

    def on_connection_open(self, connection):
        connection.channel(on_open_callback=self.on_channel_open)

    def on_channel_open(self, channel):
        self.channel = channel
        channel.confirm_delivery(self.on_answer, callback=lambda _ok: self.publish_batch())

    def publish_batch(self):
        for _ in range(min(self.batch, self.left)):
            self.published += 1
            self.left -= 1
            self.unconfirmed.add(self.published)
            self.channel.basic_publish("", self.queue, b"%d" % self.published)

    def on_answer(self, frame):
        answer = frame.method
        self.refused += isinstance(answer, pika.spec.Basic.Nack)
        last = answer.delivery_tag
        answered = {tag for tag in self.unconfirmed if tag == last or answer.multiple and tag < last}
        assert answered, f"{answer} answers nothing that was open"
        self.unconfirmed -= answered
        if not self.unconfirmed and self.left:
            self.publish_batch()
        elif not self.unconfirmed:
            self.connection.add_on_close_callback(lambda connection, _why: connection.ioloop.stop())
            self.connection.close()


def confirms(url):
    with bench(url) as it:
        channel = it.channel()
        queue = it.queue(channel)
        channel.confirm_delivery()
        publish(channel, queue, *[b"%d" % n for n in range(1, 21)])  # returns when confirmed
        for batch in (100, 20):  # one by one as they come, batch by batch
            publisher = ConfirmedPublisher(url, queue, total=100, batch=batch).run()
            same((publisher.published, publisher.refused), (100, 0))
        got = bodies(take(channel, queue, 220))
        same(got, [b"%d" % n for total in (20, 100, 100) for n in range(1, total + 1)])


def returns(url):
    with bench(url) as it:
        channel = it.channel()
        queue = it.queue(channel)
        nowhere = unique("nowhere")
        channel.confirm_delivery()
        error = raises(UnroutableError, lambda: channel.basic_publish("", nowhere, b"lost", mandatory=True))
        [returned] = error.messages
        same((returned.method.reply_code, returned.method.reply_text), (312, "NO_ROUTE"))
        same((returned.method.exchange, returned.method.routing_key, returned.body), ("", nowhere, b"lost"))
        channel.basic_publish("", queue, b"found", mandatory=True)
        same(bodies(take(channel, queue, 1)), [b"found"])


def get(url):
    with bench(url) as it:
        channel = it.channel()
        queue = it.queue(channel)
        same(channel.basic_get(queue), (None, None, None))
        publish(channel, queue, b"a", b"b", b"c")
        for body, left in [(b"a", 2), (b"b", 1), (b"c", 0)]:
            method, _, got = channel.basic_get(queue)
            same((got, method.message_count, method.redelivered), (body, left, False))
            channel.basic_ack(method.delivery_tag)
        same(channel.basic_get(queue), (None, None, None))


def nack_requeue(url):
    with bench(url) as it:
        channel = it.channel()
        queue = it.queue(channel)
        publish(channel, queue, b"a", b"b", b"c")
        for redelivered in (False, True):
            methods, _, got = zip(*[channel.basic_get(queue) for _ in range(3)])
            same(got, (b"a", b"b", b"c"))
            same([method.redelivered for method in methods], [redelivered] * 3)
            channel.basic_nack(methods[-1].delivery_tag, multiple=True, requeue=True)
        same(rest(channel, queue), [b"a", b"b", b"c"])


def reject(url):
    with bench(url) as it:
        channel = it.channel()
        dead_letters, graveyard = it.exchange(channel, "fanout"), it.queue(channel)
        channel.queue_bind(graveyard, dead_letters)
        for arguments in ({}, {"x-dead-letter-exchange": dead_letters}):
            queue = it.queue(channel, arguments=arguments)
            publish(channel, queue, b"unwanted")
            method, _, _ = channel.basic_get(queue)
            channel.basic_reject(method.delivery_tag, requeue=False)
            same(rest(channel, queue), [])
        [(method, properties, body)] = take(channel, graveyard, 1)
        same((method.exchange, method.routing_key, body), (dead_letters, queue, b"unwanted"))
        [death] = properties.headers["x-death"]
        same((death["reason"], death["queue"], death["count"]), ("rejected", queue, 1))
        same((death["exchange"], death["routing-keys"]), ("", [queue]))
        same(rest(channel, graveyard), [])


def recover(url):
    with bench(url) as it:
        channel = it.channel()
        queue = it.queue(channel)
        publish(channel, queue, b"a", b"b", b"c")
        got = []
        channel.basic_consume(queue, lambda _c, method, _p, body: got.append((method, body)))
        it.until(lambda: len(got) == 3)
        channel.basic_ack(got[0][0].delivery_tag)
        channel.basic_recover(requeue=True)
        it.until(lambda: len(got) == 5)
        same([(body, method.redelivered) for method, body in got[3:]], [(b"b", True), (b"c", True)])


def tx(url):
    with bench(url) as it:
        channel = it.channel()
        queue = it.queue(channel)
        channel.tx_select()
        publish(channel, queue, b"undone")
        channel.tx_rollback()
        publish(channel, queue, b"done")
        same(rest(channel, queue), [])
        channel.tx_commit()
        for finish in ("tx_rollback", "tx_commit"):
            worker = it.channel()
            worker.tx_select()
            method, _, body = worker.basic_get(queue)
            same((body, method.redelivered), (b"done", finish == "tx_commit"))
            worker.basic_ack(method.delivery_tag)
            getattr(worker, finish)()
            worker.close()
        same(rest(channel, queue), [])


def exclusive_autodelete(url):
    with bench(url) as it:
        owner = pika.BlockingConnection(pika.URLParameters(url))
        queue = owner.channel().queue_declare("", exclusive=True).method.queue
        error = raises(ChannelClosedByBroker, lambda: it.channel().queue_declare(queue, passive=True))
        same(error.reply_code, 405)
        owner.close()
        wait_until_gone(it.connection, queue)

        channel = it.channel()
        queue = it.queue(channel, auto_delete=True)
        first, second = [channel.basic_consume(queue, print) for _ in range(2)]
        channel.basic_cancel(first)
        channel.queue_declare(queue, passive=True)
        channel.basic_cancel(second)
        wait_until_gone(it.connection, queue)


def big_message(url):
    body = random.Random(1).randbytes(10 * 1024 * 1024)
    with bench(url) as it:
        channel = it.channel()
        queue = it.queue(channel)
        publish(channel, queue, body)
        [got] = bodies(take(channel, queue, 1))
        same((len(got), hashlib.sha256(got).digest()), (len(body), hashlib.sha256(body).digest()))


def consumer_cancel(url):
    with bench(url) as it:
        channel, other = it.channel(), it.channel()
        queue = it.queue(channel)
        got, cancelled = [], []
        channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))

        def consume():
            return channel.basic_consume(queue, lambda _c, _m, _p, body: got.append(body), auto_ack=True)

        tag = consume()
        publish(channel, queue, b"before")
        it.until(lambda: got)
        channel.basic_cancel(tag)
        publish(channel, queue, b"after")
        same((rest(channel, queue), got), ([b"after"], [b"before"]))

        tag = consume()
        publish(channel, queue, b"again")
        it.until(lambda: len(got) == 2)
        other.queue_delete(queue)
        it.until(lambda: cancelled)
        same((got, cancelled), ([b"before", b"again"], [tag]))


def bad_credentials(url):
    parameters = pika.URLParameters(url)
    right, wrong = parameters.credentials, pika.PlainCredentials("guest", "wrong")
    parameters.credentials = wrong
    error = raises(ProbableAuthenticationError, lambda: pika.BlockingConnection(parameters))
    assert "ACCESS_REFUSED" in str(error), error
    parameters.credentials = right
    pika.BlockingConnection(parameters).close()


def worker_killed(url):
    with bench(url) as it:
        channel = it.channel()
        queue = it.queue(channel)
        publish(channel, queue, *[b"%d" % n for n in range(12)])
        got = []

        def work(_channel, method, _properties, body):
            got.append((int(body), method.redelivered))
            channel.basic_ack(method.delivery_tag)

        with Victim(url, queue) as victim:
            same(victim.bodies(8), [str(n) for n in range(8)])
            channel.basic_consume(queue, work)
            it.until(lambda: len(got) == 4)
        it.until(lambda: len(got) == 10)
        channel.close()
        same(got, [(n, False) for n in range(8, 12)] + [(n, True) for n in range(2, 8)])
        same(rest(it.channel(), queue), [])


def worker(url, queue):
    """The victim of `worker_killed`: holds up to six messages, acknowledges only the first two, says what it has."""
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.basic_qos(prefetch_count=6)
    for method, _, body in channel.consume(queue):
        if method.delivery_tag <= 2:
            channel.basic_ack(method.delivery_tag)
        print(body.decode(), flush=True)


SCENARIOS = [
    hello, work_queue, priorities, pubsub, routing, topics, headers, rpc, confirms, returns, get, nack_requeue,
    reject, recover, tx, exclusive_autodelete, big_message, consumer_cancel, bad_credentials, worker_killed,
]  # fmt: skip

if __name__ == "__main__":
    main(SCENARIOS, worker)
