"""The twenty scenarios in aio-pika."""

import asyncio
import functools
import hashlib
import random

import aio_pika
from aio_pika import Message
from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity, ProbableAuthenticationError, PublishError
from yarl import URL

from harness import Victim, main, same, unique


class Bench:
    """One connection, and the names that a scenario makes on it."""

    def __init__(self, url, connection):
        self.url, self.connection = url, connection
        self.queues, self.exchanges = [], []

    async def channel(self, **how):
        return await self.connection.channel(**how)

    async def queue(self, channel, **how):
        """Declares a queue of a new name."""
        self.queues.append(unique("queue"))
        return await channel.declare_queue(self.queues[-1], **how)

    async def exchange(self, channel, kind):
        """Declares an exchange of a new name."""
        self.exchanges.append(unique(kind))
        return await channel.declare_exchange(self.exchanges[-1], kind)

    async def delete(self):
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            for queue in self.queues:
                await channel.queue_delete(queue)
            for exchange in self.exchanges:
                await channel.exchange_delete(exchange)


def scenario(body):
    """Makes a coroutine function of a bench a function of a URL, which deletes the bench's names, whatever happened."""

    async def with_bench(url):
        bench = Bench(url, await aio_pika.connect(url))
        try:
            async with bench.connection:
                await body(bench)
        finally:
            await bench.delete()

    @functools.wraps(body)
    def run(url):
        asyncio.run(with_bench(url))

    return run


async def raises(error, awaitable):
    """The error of this class with which the awaitable ends; fails when it ends well."""
    try:
        await awaitable
    except error as caught:
        return caught
    raise AssertionError(f"no {error.__name__} was raised")


async def send(queue, *bodies):
    for body in bodies:
        await queue.channel.default_exchange.publish(Message(body), queue.name)


async def take(queue, count):
    """The next messages of a queue, acknowledged."""
    messages = []
    async with queue.iterator() as incoming:
        async for message in incoming:
            await message.ack()
            messages.append(message)
            if len(messages) == count:
                return messages


async def rest(queue):
    """What the queue still has, taken out by basic.get (which comes after all this channel did before)."""
    bodies = []
    while message := await queue.get(no_ack=True, fail=False):
        bodies.append(message.body)
    return bodies


async def wait_until_gone(bench, name):
    """Asks for the queue until the broker answers 404."""
    while True:
        try:
            async with await bench.channel() as channel:
                await channel.declare_queue(name, passive=True)
        except ChannelNotFoundEntity:
            return
        await asyncio.sleep(0.005)


def numbers(*limits):
    return [b"%d" % n for n in range(*limits)]


@scenario
async def hello(bench):
    channel = await bench.channel()
    queue = await bench.queue(channel)
    headers = {"answer": 42, "nested": {"yes": True}}
    sent = Message(b"Hello, world!", content_type="text/plain", headers=headers)
    await channel.default_exchange.publish(sent, queue.name)
    [got] = await take(queue, 1)
    same((got.body, got.content_type, got.headers), (b"Hello, world!", "text/plain", headers))
    same((got.exchange, got.routing_key, got.redelivered), ("", queue.name, False))


@scenario
async def work_queue(bench):
    """With one message at a time each, the slow worker keeps its first and the quick one does all others."""
    queue = await bench.queue(await bench.channel())
    await send(queue, *numbers(10))

    async def start_worker():
        channel = await bench.channel()
        await channel.set_qos(prefetch_count=1)
        inbox = asyncio.Queue()
        await (await channel.get_queue(queue.name)).consume(inbox.put)
        return inbox

    slow = await start_worker()
    first = await slow.get()
    quick = await start_worker()
    for expected in numbers(1, 10):
        message = await quick.get()
        same(message.body, expected)
        await message.ack()
    same((first.body, slow.qsize()), (b"0", 0))
    await first.ack()
    await first.channel.close()
    same(await rest(queue), [])


@scenario
async def priorities(bench):
    channel = await bench.channel()
    queue = await bench.queue(channel, arguments={"x-max-priority": 10})
    sent = [(n % 11, b"%d" % n) for n in range(110)]
    random.Random(7).shuffle(sent)
    for priority, body in sent:
        await channel.default_exchange.publish(Message(body, priority=priority), queue.name)
    got = [(message.priority, message.body) for message in await take(queue, len(sent))]
    same(got, sorted(sent, key=lambda message: -message[0]))


@scenario
async def pubsub(bench):
    channel = await bench.channel()
    fanout = await bench.exchange(channel, "fanout")
    queues = [await channel.declare_queue(exclusive=True) for _ in range(3)]
    for queue in queues:
        await queue.bind(fanout)
    for body in (b"first", b"second"):
        await fanout.publish(Message(body), "ignored")
    for queue in queues:
        same([message.body for message in await take(queue, 2)], [b"first", b"second"])
        same(await rest(queue), [])


async def _routed(bench, kind, bindings, keys):
    """What arrives in one queue per list of binding keys, when a message is published to each routing key."""
    channel = await bench.channel()
    exchange = await bench.exchange(channel, kind)
    queues = [await bench.queue(channel) for _ in bindings]
    for queue, binding_keys in zip(queues, bindings):
        for key in binding_keys:
            await queue.bind(exchange, key)
    for key in keys:
        await exchange.publish(Message(key.encode()), key, mandatory=False)
    return [[body.decode() for body in await rest(queue)] for queue in queues]


@scenario
async def routing(bench):
    got = await _routed(bench, "direct", [["error"], ["info", "error"]], ["info", "error", "debug", "error"])
    same(got, [["error", "error"], ["info", "error", "error"]])


@scenario
async def topics(bench):
    keys = ["quick.orange.rabbit", "lazy.orange.elephant", "quick.brown.fox", "lazy", "lazy.a.b.rabbit", "orange"]
    got = await _routed(bench, "topic", [["*.orange.*"], ["*.*.rabbit", "lazy.#"]], keys)
    same(got, [keys[:2], [keys[0], keys[1], keys[3], keys[4]]])


@scenario
async def headers(bench):
    pdf_report = {"format": "pdf", "type": "report"}
    messages = [pdf_report, {"format": "pdf"}, {"format": "zip", "type": "log"}, {"type": "report", "pages": 3}]
    expected = {"all": [pdf_report], "any": [messages[0], messages[1], messages[3]]}
    channel = await bench.channel()
    exchange = await bench.exchange(channel, "headers")
    queues = {match: await bench.queue(channel) for match in expected}
    for match, queue in queues.items():
        await queue.bind(exchange, arguments={"x-match": match, **pdf_report})
    for message in messages:
        await exchange.publish(Message(b"", headers=message), "", mandatory=False)
    for match, queue in queues.items():
        same([message.headers for message in await take(queue, len(expected[match]))], expected[match])
        same(await rest(queue), [])


@scenario
async def rpc(bench):
    server, client = await bench.channel(), await bench.channel()
    requests = await bench.queue(server)

    async def square(call):
        async with call.process():
            answer = Message(b"%d" % int(call.body) ** 2, correlation_id=call.correlation_id)
            await server.default_exchange.publish(answer, call.reply_to)

    await requests.consume(square)
    replies = await client.declare_queue(exclusive=True)
    calls = {f"call-{n}": asyncio.get_running_loop().create_future() for n in range(10)}

    async def answer(reply):
        calls[reply.correlation_id].set_result(reply.body)

    await replies.consume(answer, no_ack=True)
    for n, call in enumerate(calls):
        asking = Message(b"%d" % n, correlation_id=call, reply_to=replies.name)
        await client.default_exchange.publish(asking, requests.name)
    same(await asyncio.gather(*calls.values()), [b"%d" % n**2 for n in range(10)])


@scenario
async def confirms(bench):
    channel = await bench.channel()  # publisher_confirms=True is the default
    queue = await bench.queue(channel)

    async def is_confirmed(body):
        answer = await channel.default_exchange.publish(Message(body), queue.name)
        return answer.name == "Basic.Ack"

    for body in numbers(20):  # one by one
        assert await is_confirmed(body)
    assert all(await asyncio.gather(*map(is_confirmed, numbers(100))))  # as they come
    for start in range(0, 100, 20):  # batch by batch
        assert all(await asyncio.gather(*map(is_confirmed, numbers(start, start + 20))))
    same(await rest(queue), numbers(20) + numbers(100) + numbers(100))


@scenario
async def returns(bench):
    channel = await bench.channel(on_return_raises=True)
    queue = await bench.queue(channel)
    nowhere = unique("nowhere")
    error = await raises(PublishError, channel.default_exchange.publish(Message(b"lost"), nowhere, mandatory=True))
    returned = error.message
    same((returned.delivery.reply_code, returned.delivery.reply_text), (312, "NO_ROUTE"))
    same((returned.exchange, returned.routing_key, returned.body), ("", nowhere, b"lost"))
    await channel.default_exchange.publish(Message(b"found"), queue.name, mandatory=True)
    same(await rest(queue), [b"found"])


@scenario
async def get(bench):
    queue = await bench.queue(await bench.channel())
    same(await queue.get(fail=False), None)
    await send(queue, b"a", b"b", b"c")
    for expected in [(b"a", 2, False), (b"b", 1, False), (b"c", 0, False)]:
        message = await queue.get()
        same((message.body, message.message_count, message.redelivered), expected)
        await message.ack()
    same(await queue.get(fail=False), None)


@scenario
async def nack_requeue(bench):
    queue = await bench.queue(await bench.channel())
    await send(queue, b"a", b"b", b"c")
    for redelivered in (False, True):
        messages = [await queue.get() for _ in range(3)]
        same([message.body for message in messages], [b"a", b"b", b"c"])
        same([message.redelivered for message in messages], [redelivered] * 3)
        await messages[-1].nack(multiple=True, requeue=True)
    same(await rest(queue), [b"a", b"b", b"c"])


@scenario
async def reject(bench):
    channel = await bench.channel()
    dead_letters, graveyard = await bench.exchange(channel, "fanout"), await bench.queue(channel)
    await graveyard.bind(dead_letters)
    for arguments in ({}, {"x-dead-letter-exchange": dead_letters.name}):
        queue = await bench.queue(channel, arguments=arguments)
        await send(queue, b"unwanted")
        await (await queue.get()).reject(requeue=False)
        same(await rest(queue), [])
    [got] = await take(graveyard, 1)
    same((got.exchange, got.routing_key, got.body), (dead_letters.name, queue.name, b"unwanted"))
    [death] = got.headers["x-death"]
    same((death["reason"], death["queue"], death["count"]), ("rejected", queue.name, 1))
    same((death["exchange"], death["routing-keys"]), ("", [queue.name]))
    same(await rest(graveyard), [])


@scenario
async def recover(bench):
    channel = await bench.channel()
    queue = await bench.queue(channel)
    await send(queue, b"a", b"b", b"c")
    inbox = asyncio.Queue()
    await queue.consume(inbox.put)
    first, _, _ = [await inbox.get() for _ in range(3)]
    await first.ack()
    await (await channel.get_underlay_channel()).basic_recover(requeue=True)
    again = [await inbox.get() for _ in range(2)]
    same([(message.body, message.redelivered) for message in again], [(b"b", True), (b"c", True)])


class Undo(Exception):
    """Leaves a transaction, which is then rolled back."""


@scenario
async def tx(bench):
    channel = await bench.channel(publisher_confirms=False)
    queue = await bench.queue(channel)

    async def publish_undone():
        async with channel.transaction():
            await send(queue, b"undone")
            raise Undo

    await raises(Undo, publish_undone())
    async with channel.transaction():
        await send(queue, b"done")
        same(await rest(queue), [])

    async def acknowledge(redelivered, undo):
        async with await bench.channel(publisher_confirms=False) as worker, worker.transaction():
            message = await (await worker.get_queue(queue.name)).get()
            same((message.body, message.redelivered), (b"done", redelivered))
            await message.ack()
            if undo:
                raise Undo

    await raises(Undo, acknowledge(redelivered=False, undo=True))
    await acknowledge(redelivered=True, undo=False)
    same(await rest(queue), [])


@scenario
async def exclusive_autodelete(bench):
    owner = await aio_pika.connect(bench.url)
    owned = await (await owner.channel()).declare_queue(exclusive=True)
    await raises(ChannelLockedResource, (await bench.channel()).declare_queue(owned.name, passive=True))
    await owner.close()
    await wait_until_gone(bench, owned.name)

    channel = await bench.channel()
    queue = await bench.queue(channel, auto_delete=True)
    first, second = [await queue.consume(print) for _ in range(2)]
    await queue.cancel(first)
    await channel.declare_queue(queue.name, passive=True)
    await queue.cancel(second)
    await wait_until_gone(bench, queue.name)


@scenario
async def big_message(bench):
    body = random.Random(1).randbytes(10 * 1024 * 1024)
    queue = await bench.queue(await bench.channel())
    await send(queue, body)
    [got] = await take(queue, 1)
    same((len(got.body), hashlib.sha256(got.body).digest()), (len(body), hashlib.sha256(body).digest()))


@scenario
async def consumer_cancel(bench):
    channel, other = await bench.channel(), await bench.channel()
    queue = await bench.queue(channel)
    inbox, cancelled = asyncio.Queue(), asyncio.Queue()
    (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(cancelled.put_nowait)

    tag = await queue.consume(inbox.put, no_ack=True)
    await send(queue, b"before")
    same((await inbox.get()).body, b"before")
    await queue.cancel(tag)
    await send(queue, b"after")
    same((await rest(queue), inbox.qsize()), ([b"after"], 0))

    tag = await queue.consume(inbox.put, no_ack=True)
    await send(queue, b"again")
    same((await inbox.get()).body, b"again")
    await other.queue_delete(queue.name)
    same((await cancelled.get()).consumer_tag, tag)


@scenario
async def bad_credentials(bench):
    wrong = URL(bench.url, encoded=True).with_password("wrong")
    error = await raises(ProbableAuthenticationError, aio_pika.connect(wrong))
    assert "ACCESS_REFUSED" in str(error), repr(error)
    await (await aio_pika.connect(bench.url)).close()


@scenario
async def worker_killed(bench):
    channel = await bench.channel()
    queue = await bench.queue(channel)
    await send(queue, *numbers(12))
    inbox = asyncio.Queue()

    async def work(message):
        await message.ack()
        await inbox.put((int(message.body), message.redelivered))

    with Victim(bench.url, queue.name) as victim:
        same(victim.bodies(8), [str(n) for n in range(8)])
        await queue.consume(work)
        same([await inbox.get() for _ in range(4)], [(n, False) for n in range(8, 12)])
    same([await inbox.get() for _ in range(6)], [(n, True) for n in range(2, 8)])
    await channel.close()
    same(inbox.qsize(), 0)
    same(await rest(await (await bench.channel()).get_queue(queue.name)), [])


async def work_until_killed(url, name):
    """Holds up to six messages, acknowledges only the first two, says what it has."""
    channel = await (await aio_pika.connect(url)).channel()
    await channel.set_qos(prefetch_count=6)
    async for message in await channel.get_queue(name):
        if message.delivery_tag <= 2:
            await message.ack()
        print(message.body.decode(), flush=True)


SCENARIOS = [
    hello, work_queue, priorities, pubsub, routing, topics, headers, rpc, confirms, returns, get, nack_requeue,
    reject, recover, tx, exclusive_autodelete, big_message, consumer_cancel, bad_credentials, worker_killed,
]  # fmt: skip

if __name__ == "__main__":
    main(SCENARIOS, lambda url, queue: asyncio.run(work_until_killed(url, queue)))
