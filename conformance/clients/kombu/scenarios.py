"""The twenty scenarios in kombu, and two with a real Celery worker."""

import hashlib
import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager

from amqp.exceptions import AccessRefused, NotFound, ResourceLocked
from kombu import Connection, Consumer, Exchange, Producer, Queue

from celery_tasks import make_app
from harness import Victim, main, raises, same, unique


class Bench:
    """One connection, and the names that a scenario makes on it."""

    def __init__(self, url, **how):
        self.connection = Connection(url, **how)
        self.connection.connect()  # now, and without kombu's retries
        self.queues, self.exchanges = [], []

    def channel(self):
        return self.connection.channel()

    def queue(self, channel, *bindings, **how):
        """Declares a queue of a new name."""
        queue = Queue(unique("queue"), channel=channel, bindings=bindings, **how)
        self.queues.append(queue.name)
        queue.declare()
        return queue

    def exchange(self, channel, kind):
        """Declares an exchange of a new name."""
        exchange = Exchange(unique(kind), kind, channel=channel)
        self.exchanges.append(exchange.name)
        exchange.declare()
        return exchange

    def until(self, condition):
        """Lets callbacks run until the condition holds; the scenario's deadline ends a vain wait."""
        while not condition():
            self.connection.drain_events()


@contextmanager
def bench(url, **how):
    """A bench whose connection is closed and whose names are deleted at the end, whatever happened."""
    it = Bench(url, **how)
    try:
        yield it
    finally:
        it.connection.release()
        with Connection(url) as connection, connection.channel() as channel:
            for queue in it.queues:
                channel.queue_delete(queue)
            for exchange in it.exchanges:
                channel.exchange_delete(exchange)


def send(queue, *bodies):
    producer = Producer(queue.channel)
    for body in bodies:
        producer.publish(body, routing_key=queue.name)


def consume(queue, on_message, **how):
    consumer = Consumer(queue.channel, [queue], on_message=on_message, auto_declare=False, **how)
    consumer.consume()
    return consumer


def take(it, queue, count):
    """The next messages of a queue, acknowledged."""
    messages = []
    consumer = Consumer(queue.channel, [queue], on_message=messages.append, auto_declare=False)
    consumer.qos(prefetch_count=count)
    with consumer:
        it.until(lambda: len(messages) == count)
        messages[-1].ack(multiple=True)
    return messages


def payloads(messages):
    return [message.payload for message in messages]


def rest(queue):
    """What the queue still has, taken out by basic.get (which comes after all this channel did before)."""
    return payloads(iter(lambda: queue.get(no_ack=True), None))


def wait_until_gone(connection, name):
    """Asks for the queue until the broker answers 404."""
    while True:
        try:
            with connection.channel() as channel:
                channel.queue_declare(name, passive=True)
        except NotFound:
            return
        time.sleep(0.005)


def hello(url):
    with bench(url) as it:
        queue = it.queue(it.channel())
        sent_headers = {"answer": 42, "nested": {"yes": True}}
        Producer(queue.channel).publish({"hello": "world"}, routing_key=queue.name, headers=sent_headers)
        [got] = take(it, queue, 1)
        same((got.payload, got.content_type, got.headers), ({"hello": "world"}, "application/json", sent_headers))
        info = got.delivery_info
        same((info["exchange"], info["routing_key"], info["redelivered"]), ("", queue.name, False))


def work_queue(url):
    """With one message at a time each, the slow worker keeps its first and the quick one does all others."""
    with bench(url) as it:
        queue = it.queue(it.channel())
        send(queue, *range(10))
        slow, quick = [], []

        def start_worker(on_message):
            worker = Consumer(it.channel(), [queue], on_message=on_message)
            worker.qos(prefetch_count=1)
            worker.consume()

        def work_quickly(message):
            quick.append(message.payload)
            message.ack()

        start_worker(slow.append)
        it.until(lambda: slow)
        start_worker(work_quickly)
        it.until(lambda: len(quick) == 9)
        same((payloads(slow), quick), ([0], list(range(1, 10))))
        slow[0].ack()
        slow[0].channel.close()
        same(rest(queue), [])


def priorities(url):
    with bench(url) as it:
        queue = it.queue(it.channel(), max_priority=10)
        sent = [(n % 11, n) for n in range(110)]
        random.Random(7).shuffle(sent)
        producer = Producer(queue.channel)
        for priority, body in sent:
            producer.publish(body, routing_key=queue.name, priority=priority)
        got = [(message.properties["priority"], message.payload) for message in take(it, queue, len(sent))]
        same(got, sorted(sent, key=lambda message: -message[0]))


def pubsub(url):
    with bench(url) as it:
        channel = it.channel()
        fanout = it.exchange(channel, "fanout")
        queues = [Queue(exchange=fanout, exclusive=True, channel=channel) for _ in range(3)]
        for queue in queues:
            queue.declare()
        for body in ("first", "second"):
            Producer(channel, fanout).publish(body, routing_key="ignored")
        for queue in queues:
            same(rest(queue), ["first", "second"])


def _routed(it, kind, bindings, keys):
    """What arrives in one queue per list of binding keys, when a message is published to each routing key."""
    channel = it.channel()
    exchange = it.exchange(channel, kind)
    queues = [it.queue(channel, *map(exchange.binding, binding_keys)) for binding_keys in bindings]
    for key in keys:
        Producer(channel, exchange).publish(key, routing_key=key)
    return [rest(queue) for queue in queues]


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
        all_of_it, any_of_it = (
            it.queue(channel, exchange.binding(arguments={"x-match": match, **pdf_report})) for match in ("all", "any")
        )
        for message in messages:
            Producer(channel, exchange).publish(message, headers=message)
        same(rest(all_of_it), [pdf_report])
        same(rest(any_of_it), [messages[0], messages[1], messages[3]])


def rpc(url):
    with bench(url) as it:
        requests = it.queue(it.channel())

        def square(call):
            answer = {"routing_key": call.properties["reply_to"], "correlation_id": call.properties["correlation_id"]}
            Producer(call.channel).publish(call.payload**2, **answer)
            call.ack()

        consume(requests, square)
        replies = Queue(exclusive=True, channel=it.channel())
        replies.declare()
        answers = {}
        consume(replies, lambda reply: answers.update({reply.properties["correlation_id"]: reply.payload}), no_ack=True)
        for n in range(10):
            asking = {"reply_to": replies.name, "correlation_id": f"call-{n}"}
            Producer(replies.channel).publish(n, routing_key=requests.name, **asking)
        it.until(lambda: len(answers) == 10)
        same(answers, {f"call-{n}": n**2 for n in range(10)})


def confirms(url):
    with bench(url, transport_options={"confirm_publish": True}) as it:
        queue = it.queue(it.channel())
        send(queue, *range(20))  # each returns when confirmed
        same(rest(queue), list(range(20)))
    for batch in (100, 20):  # as they come, batch by batch
        with bench(url) as it:
            channel = it.channel()
            queue = it.queue(channel)
            unconfirmed = set()

            def on_ack(last, multiple):
                answered = {tag for tag in unconfirmed if tag == last or multiple and tag < last}
                assert answered, f"{last} answers nothing that was open"
                unconfirmed.difference_update(answered)

            channel.confirm_select()
            channel.events["basic_ack"].add(on_ack)
            for start in range(0, 100, batch):
                unconfirmed.update(range(start + 1, start + batch + 1))
                send(queue, *range(start, start + batch))
                it.until(lambda: not unconfirmed)
            same(rest(queue), list(range(100)))


def returns(url):
    with bench(url, transport_options={"confirm_publish": True}) as it:
        queue = it.queue(it.channel())
        nowhere = unique("nowhere")
        returned = []
        producer = Producer(queue.channel, on_return=lambda *what: returned.append(what))
        producer.publish("lost", routing_key=nowhere, mandatory=True)
        producer.publish("found", routing_key=queue.name, mandatory=True)
        [(error, exchange, routing_key, message)] = returned
        same((error.reply_code, error.reply_text), (312, "NO_ROUTE"))
        same((exchange, routing_key, message.body), ("", nowhere, "lost"))
        same(rest(queue), ["found"])


def get(url):
    with bench(url) as it:
        queue = it.queue(it.channel())
        same(queue.get(), None)
        send(queue, "a", "b", "c")
        for expected in [("a", 2, False), ("b", 1, False), ("c", 0, False)]:
            message = queue.get()
            info = message.delivery_info
            same((message.payload, info["message_count"], info["redelivered"]), expected)
            message.ack()
        same(queue.get(), None)


def nack_requeue(url):
    """Requeues with basic.reject, one by one: neither kombu nor py-amqp sends basic.nack."""
    with bench(url) as it:
        queue = it.queue(it.channel())
        send(queue, "a", "b", "c")
        for redelivered in (False, True):
            messages = [queue.get() for _ in range(3)]
            same(payloads(messages), ["a", "b", "c"])
            same([message.delivery_info["redelivered"] for message in messages], [redelivered] * 3)
            for message in messages:
                message.requeue()
        same(rest(queue), ["a", "b", "c"])


def reject(url):
    with bench(url) as it:
        channel = it.channel()
        dead_letters = it.exchange(channel, "fanout")
        graveyard = it.queue(channel, dead_letters.binding())
        for arguments in ({}, {"x-dead-letter-exchange": dead_letters.name}):
            queue = it.queue(channel, queue_arguments=arguments)
            send(queue, "unwanted")
            queue.get().reject()
            same(rest(queue), [])
        [got] = take(it, graveyard, 1)
        info = got.delivery_info
        same((info["exchange"], info["routing_key"], got.payload), (dead_letters.name, queue.name, "unwanted"))
        [death] = got.headers["x-death"]
        same((death["reason"], death["queue"], death["count"]), ("rejected", queue.name, 1))
        same((death["exchange"], death["routing-keys"]), ("", [queue.name]))
        same(rest(graveyard), [])


def recover(url):
    with bench(url) as it:
        queue = it.queue(it.channel())
        send(queue, "a", "b", "c")
        got = []
        consumer = consume(queue, got.append)
        it.until(lambda: len(got) == 3)
        got[0].ack()
        consumer.recover(requeue=True)
        it.until(lambda: len(got) == 5)
        again = [(message.payload, message.delivery_info["redelivered"]) for message in got[3:]]
        same(again, [("b", True), ("c", True)])


def tx(url):
    with bench(url) as it:
        channel = it.channel()
        queue = it.queue(channel)
        channel.tx_select()
        send(queue, "undone")
        channel.tx_rollback()
        send(queue, "done")
        same(rest(queue), [])
        channel.tx_commit()
        for finish in ("tx_rollback", "tx_commit"):
            with it.channel() as worker:
                worker.tx_select()
                message = queue(worker).get()
                same((message.payload, message.delivery_info["redelivered"]), ("done", finish == "tx_commit"))
                message.ack()
                getattr(worker, finish)()
        same(rest(queue), [])


def exclusive_autodelete(url):
    with bench(url) as it:
        with Connection(url) as owner:
            owned = Queue(exclusive=True, channel=owner.channel())
            owned.declare()
            raises(ResourceLocked, lambda: it.channel().queue_declare(owned.name, passive=True))
        wait_until_gone(it.connection, owned.name)

        queue = it.queue(it.channel(), auto_delete=True)
        for tag in ("first", "second"):
            queue.consume(tag, callback=print)
        queue.cancel("first")
        queue.queue_declare(passive=True)
        queue.cancel("second")
        wait_until_gone(it.connection, queue.name)


def big_message(url):
    body = random.Random(1).randbytes(10 * 1024 * 1024)
    with bench(url) as it:
        queue = it.queue(it.channel())
        raw = {"content_type": "application/octet-stream", "content_encoding": "binary"}
        Producer(queue.channel).publish(body, routing_key=queue.name, **raw)
        [got] = take(it, queue, 1)
        same((len(got.body), hashlib.sha256(got.body).digest()), (len(body), hashlib.sha256(body).digest()))


def consumer_cancel(url):
    with bench(url) as it:
        queue = it.queue(it.channel())
        got, cancelled = [], []
        consumer = consume(queue, got.append, no_ack=True)
        send(queue, "before")
        it.until(lambda: got)
        consumer.cancel()
        send(queue, "after")
        same((rest(queue), payloads(got)), (["after"], ["before"]))

        queue.consume("told", callback=got.append, on_cancel=cancelled.append, no_ack=True)
        send(queue, "again")
        it.until(lambda: len(got) == 2)
        queue(it.channel()).delete()
        it.until(lambda: cancelled)
        same((got[1].body, cancelled), ("again", ["told"]))


def bad_credentials(url):
    wrong = Connection(url).clone(password="wrong")
    error = raises(AccessRefused, wrong.connect)
    same(error.code, 403)
    wrong.release()
    with Connection(url) as right:
        right.connect()


def worker_killed(url):
    with bench(url) as it:
        queue = it.queue(it.channel())
        send(queue, *range(12))
        got = []

        def work(message):
            got.append((message.payload, message.delivery_info["redelivered"]))
            message.ack()

        with Victim(url, queue.name) as victim:
            same(victim.bodies(8), [str(n) for n in range(8)])
            consume(queue, work)
            it.until(lambda: len(got) == 4)
        it.until(lambda: len(got) == 10)
        queue.channel.close()
        same(got, [(n, False) for n in range(8, 12)] + [(n, True) for n in range(2, 8)])
        same(rest(queue(it.channel())), [])


def worker(url, name):
    """The victim of `worker_killed`: holds up to six messages, acknowledges only the first two, says what it has."""

    def hold(message):
        if message.delivery_tag <= 2:
            message.ack()
        print(message.payload, flush=True)

    with Connection(url) as connection:
        consumer = Consumer(connection.channel(), [Queue(name)], on_message=hold, auto_declare=False)
        consumer.qos(prefetch_count=6)
        consumer.consume()
        while True:
            connection.drain_events()


@contextmanager
def celery_worker(url):
    """A Celery app whose worker, a process of its own, has answered a ping; its names are deleted at the end."""
    name = unique("celery")
    app = make_app(url, name)
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "--concurrency=1", "--loglevel=ERROR"],
        cwd=os.path.dirname(__file__),
        env=os.environ | {"SCENARIO_URL": url, "SCENARIO_NAME": name, "PYTHONWARNINGS": "ignore"},  # of being root
        stdout=subprocess.DEVNULL,
    )
    try:
        while not app.control.ping(timeout=0.2):
            same(worker.poll(), None)
        yield app
        worker.terminate()
        same(worker.wait(), 0)
    finally:
        worker.kill()
        worker.wait()
        app.close()
        with Connection(url) as connection, connection.channel() as channel:
            for queue in (name, app.thread_oid):
                channel.queue_delete(queue)
            for exchange in (name, app.conf.event_exchange, f"{name}.pidbox", f"reply.{name}.pidbox"):
                channel.exchange_delete(exchange)


def celery_retry(url):
    with celery_worker(url) as app:
        result = app.tasks["succeed_on_third_try"].delay("work")
        same(result.get(), ["work", 2])


def celery_countdown(url):
    """A worker that takes one message at a time takes more when those it has must wait (it changes its basic.qos)."""
    with celery_worker(url) as app:
        now = app.tasks["now"]
        sent = time.time()
        late = [now.apply_async(countdown=2) for _ in range(3)]
        at_once = now.delay().get()
        assert at_once < sent + 2, f"the task without countdown ran {at_once - sent:.1f} s after it was sent"
        for result in late:
            assert sent + 2 <= result.get() < sent + 10


SCENARIOS = [
    hello, work_queue, priorities, pubsub, routing, topics, headers, rpc, confirms, returns, get, nack_requeue,
    reject, recover, tx, exclusive_autodelete, big_message, consumer_cancel, bad_credentials, worker_killed,
    celery_retry, celery_countdown,
]  # fmt: skip

if __name__ == "__main__":
    main(SCENARIOS, worker)
