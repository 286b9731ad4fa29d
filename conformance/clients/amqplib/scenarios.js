// The twenty scenarios in amqplib, with its promises.

import { deepStrictEqual as same, match, rejects } from "node:assert";
import { createHash, randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { connect } from "amqplib";
import { Absent, Inbox, main, startVictim, unique } from "./harness.js";

/** One connection, and the names that a scenario makes on it. */
class Bench {
  queues = [];
  exchanges = [];

  static async open(url) {
    const connection = await connect(url);
    connection.on("error", () => {}); // it rejects the calls that wait, too
    return Object.assign(new Bench(), { url, connection });
  }

  /** A new channel; its errors reject the call that caused them, so the event needs no answer. */
  async channel() {
    const channel = await this.connection.createChannel();
    return channel.on("error", () => {});
  }

  /** Declares a queue of a new name. */
  async queue(channel, options) {
    const { queue } = await channel.assertQueue(unique("queue"), options);
    this.queues.push(queue);
    return queue;
  }

  /** Declares an exchange of a new name. */
  async exchange(channel, type) {
    const { exchange } = await channel.assertExchange(unique(type), type);
    this.exchanges.push(exchange);
    return exchange;
  }

  /** Closes the connection and deletes the names. */
  async delete() {
    await this.connection.close();
    const connection = await connect(this.url);
    const channel = await connection.createChannel();
    for (const queue of this.queues) await channel.deleteQueue(queue);
    for (const exchange of this.exchanges) await channel.deleteExchange(exchange);
    await connection.close();
  }
}

const text = (message) => message.content.toString();
const numbers = (from, to) => Array.from({ length: to - from }, (_, n) => String(from + n));

function publish(channel, queue, ...bodies) {
  for (const body of bodies) channel.sendToQueue(queue, Buffer.from(body));
}

/** The next messages of a queue, acknowledged; prefetch and a late ack leave all others in the queue. */
async function take(channel, queue, count) {
  const inbox = new Inbox();
  await channel.prefetch(count);
  const { consumerTag } = await channel.consume(queue, inbox.push);
  const messages = await inbox.take(count);
  await channel.cancel(consumerTag);
  channel.ack(messages.at(-1), true);
  return messages;
}

/** What is still in the queue, taken out by basic.get (which comes after all this channel did before). */
async function rest(channel, queue) {
  const bodies = [];
  for (let message; (message = await channel.get(queue, { noAck: true })); ) bodies.push(text(message));
  return bodies;
}

/** Asks for the queue until the broker answers 404. */
async function waitUntilGone(bench, queue) {
  for (;;) {
    try {
      const channel = await bench.channel();
      await channel.checkQueue(queue);
      await channel.close();
      await pause(5);
    } catch (error) {
      return same(error.code, 404);
    }
  }
}

async function hello(bench) {
  const channel = await bench.channel();
  const queue = await bench.queue(channel);
  const headers = { answer: 42, nested: { yes: true } };
  channel.sendToQueue(queue, Buffer.from("Hello, world!"), { contentType: "text/plain", headers });
  const [message] = await take(channel, queue, 1);
  same(text(message), "Hello, world!");
  same([message.properties.contentType, message.properties.headers], ["text/plain", headers]);
  const { exchange, routingKey, redelivered } = message.fields;
  same([exchange, routingKey, redelivered], ["", queue, false]);
}

/** With one message at a time each, the slow worker keeps its first and the quick one does all others. */
async function work_queue(bench) {
  const [channel, slow, quick] = [await bench.channel(), await bench.channel(), await bench.channel()];
  const queue = await bench.queue(channel);
  publish(channel, queue, ...numbers(0, 10));
  const [held, done] = [new Inbox(), new Inbox()];
  await slow.prefetch(1);
  await slow.consume(queue, held.push);
  const first = await held.next();
  await quick.prefetch(1);
  await quick.consume(queue, (message) => {
    quick.ack(message);
    done.push(text(message));
  });
  same(text(first), "0");
  same(await done.take(9), numbers(1, 10));
  same(held.items, []);
  slow.ack(first);
  await slow.close();
  same(await rest(channel, queue), []);
}

async function priorities(bench) {
  const channel = await bench.channel();
  const queue = await bench.queue(channel, { maxPriority: 10 });
  const sent = numbers(0, 110).map((body) => [(body * 7) % 11, body]);
  for (const [priority, body] of sent) channel.sendToQueue(queue, Buffer.from(body), { priority });
  const messages = await take(channel, queue, 110);
  const urgentFirst = [...sent].sort((a, b) => b[0] - a[0]);
  same(messages.map((message) => [message.properties.priority, text(message)]), urgentFirst);
}

async function pubsub(bench) {
  const channel = await bench.channel();
  const fanout = await bench.exchange(channel, "fanout");
  const queues = [];
  for (let n = 0; n < 3; n += 1) {
    const { queue } = await channel.assertQueue("", { exclusive: true });
    await channel.bindQueue(queue, fanout, "");
    queues.push(queue);
  }
  for (const body of ["first", "second"]) channel.publish(fanout, "ignored", Buffer.from(body));
  for (const queue of queues) {
    same((await take(channel, queue, 2)).map(text), ["first", "second"]);
    same(await rest(channel, queue), []);
  }
}

/** What arrives in one queue per list of binding keys, when a message is published to each routing key. */
async function routed(bench, type, bindings, keys) {
  const channel = await bench.channel();
  const exchange = await bench.exchange(channel, type);
  const queues = [];
  for (const bindingKeys of bindings) {
    const queue = await bench.queue(channel);
    for (const key of bindingKeys) await channel.bindQueue(queue, exchange, key);
    queues.push(queue);
  }
  for (const key of keys) channel.publish(exchange, key, Buffer.from(key));
  const arrived = [];
  for (const queue of queues) arrived.push(await rest(channel, queue));
  return arrived;
}

async function routing(bench) {
  const got = await routed(bench, "direct", [["error"], ["info", "error"]], ["info", "error", "debug", "error"]);
  same(got, [["error", "error"], ["info", "error", "error"]]);
}

async function topics(bench) {
  const keys = ["quick.orange.rabbit", "lazy.orange.elephant", "quick.brown.fox", "lazy", "lazy.a.b.rabbit", "orange"];
  const got = await routed(bench, "topic", [["*.orange.*"], ["*.*.rabbit", "lazy.#"]], keys);
  same(got, [keys.slice(0, 2), [keys[0], keys[1], keys[3], keys[4]]]);
}

async function headers(bench) {
  const pdfReport = { format: "pdf", type: "report" };
  const messages = [pdfReport, { format: "pdf" }, { format: "zip", type: "log" }, { type: "report", pages: 3 }];
  const channel = await bench.channel();
  const exchange = await bench.exchange(channel, "headers");
  const [all, any] = [await bench.queue(channel), await bench.queue(channel)];
  await channel.bindQueue(all, exchange, "", { "x-match": "all", ...pdfReport });
  await channel.bindQueue(any, exchange, "", { "x-match": "any", ...pdfReport });
  for (const headers of messages) channel.publish(exchange, "", Buffer.alloc(0), { headers });
  for (const [queue, expected] of [[all, [pdfReport]], [any, [messages[0], messages[1], messages[3]]]]) {
    const got = await take(channel, queue, expected.length);
    same(got.map((message) => message.properties.headers), expected);
    same(await rest(channel, queue), []);
  }
}

async function rpc(bench) {
  const [server, client] = [await bench.channel(), await bench.channel()];
  const requests = await bench.queue(server);
  await server.consume(requests, (request) => {
    const { replyTo, correlationId } = request.properties;
    server.sendToQueue(replyTo, Buffer.from(String(text(request) ** 2)), { correlationId });
    server.ack(request);
  });
  const { queue: replyTo } = await client.assertQueue("", { exclusive: true });
  const replies = new Inbox();
  await client.consume(replyTo, replies.push, { noAck: true });
  for (const n of numbers(0, 10)) {
    client.sendToQueue(requests, Buffer.from(n), { replyTo, correlationId: `call-${n}` });
  }
  const answers = (await replies.take(10)).map((reply) => [reply.properties.correlationId, text(reply)]);
  same(Object.fromEntries(answers), Object.fromEntries(numbers(0, 10).map((n) => [`call-${n}`, String(n ** 2)])));
}

async function confirms(bench) {
  const channel = await bench.connection.createConfirmChannel();
  const queue = await bench.queue(channel);
  const confirmed = (body) =>
    new Promise((resolve, reject) => {
      channel.sendToQueue(queue, Buffer.from(body), {}, (error) => (error ? reject(error) : resolve(body)));
    });
  const bodies = numbers(0, 100);

  for (const body of bodies.slice(0, 20)) same(await confirmed(body), body); // one by one
  same(await Promise.all(bodies.map(confirmed)), bodies); // as they come
  for (let start = 0; start < 100; start += 20) { // batch by batch
    publish(channel, queue, ...bodies.slice(start, start + 20));
    await channel.waitForConfirms();
  }
  same(await rest(channel, queue), [...bodies.slice(0, 20), ...bodies, ...bodies]);
}

async function returns(bench) {
  const channel = await bench.connection.createConfirmChannel();
  const queue = await bench.queue(channel);
  const nowhere = unique("nowhere");
  const returned = new Inbox();
  channel.on("return", returned.push);
  publish(channel, queue, "before");
  channel.sendToQueue(nowhere, Buffer.from("lost"), { mandatory: true });
  channel.sendToQueue(queue, Buffer.from("found"), { mandatory: true });
  await channel.waitForConfirms();
  same(returned.items.length, 1); // a return comes before its confirm
  const message = await returned.next();
  const { replyCode, replyText, exchange, routingKey } = message.fields;
  same([replyCode, replyText, exchange, routingKey, text(message)], [312, "NO_ROUTE", "", nowhere, "lost"]);
  same(await rest(channel, queue), ["before", "found"]);
}

async function get(bench) {
  const channel = await bench.channel();
  const queue = await bench.queue(channel);
  same(await channel.get(queue), false);
  publish(channel, queue, "a", "b", "c");
  for (const expected of [["a", 2, false], ["b", 1, false], ["c", 0, false]]) {
    const message = await channel.get(queue);
    same([text(message), message.fields.messageCount, message.fields.redelivered], expected);
    channel.ack(message);
  }
  same(await channel.get(queue), false);
}

async function nack_requeue(bench) {
  const channel = await bench.channel();
  const queue = await bench.queue(channel);
  publish(channel, queue, "a", "b", "c");
  for (const redelivered of [false, true]) {
    for (const body of ["a", "b", "c"]) {
      const message = await channel.get(queue);
      same([text(message), message.fields.redelivered], [body, redelivered]);
      if (body === "c") channel.nack(message, true, true);
    }
  }
  same(await rest(channel, queue), ["a", "b", "c"]);
}

async function reject(bench) {
  const channel = await bench.channel();
  const deadLetterExchange = await bench.exchange(channel, "fanout");
  const graveyard = await bench.queue(channel);
  await channel.bindQueue(graveyard, deadLetterExchange, "");
  let queue;
  for (const options of [{}, { deadLetterExchange }]) {
    queue = await bench.queue(channel, options);
    publish(channel, queue, "unwanted");
    channel.reject(await channel.get(queue), false);
    same(await rest(channel, queue), []);
  }
  const [message] = await take(channel, graveyard, 1);
  same([message.fields.exchange, message.fields.routingKey, text(message)], [deadLetterExchange, queue, "unwanted"]);
  const [death, ...more] = message.properties.headers["x-death"];
  same([death.reason, death.queue, death.count, more], ["rejected", queue, 1, []]);
  same([death.exchange, death["routing-keys"]], ["", [queue]]);
  same(await rest(channel, graveyard), []);
}

async function recover(bench) {
  const channel = await bench.channel();
  const queue = await bench.queue(channel);
  publish(channel, queue, "a", "b", "c");
  const inbox = new Inbox();
  await channel.consume(queue, inbox.push);
  channel.ack((await inbox.take(3))[0]);
  await channel.recover();
  const again = await inbox.take(2);
  same(again.map((message) => [text(message), message.fields.redelivered]), [["b", true], ["c", true]]);
}

async function tx() {
  throw new Absent("tx.select");
}

async function exclusive_autodelete(bench) {
  const owner = await connect(bench.url);
  const { queue: owned } = await (await owner.createChannel()).assertQueue("", { exclusive: true });
  await rejects((await bench.channel()).checkQueue(owned), { code: 405 });
  await owner.close();
  await waitUntilGone(bench, owned);

  const channel = await bench.channel();
  const queue = await bench.queue(channel, { autoDelete: true });
  const [first, second] = [await channel.consume(queue, () => {}), await channel.consume(queue, () => {})];
  await channel.cancel(first.consumerTag);
  await channel.checkQueue(queue);
  await channel.cancel(second.consumerTag);
  await waitUntilGone(bench, queue);
}

async function big_message(bench) {
  const digest = (content) => createHash("sha256").update(content).digest("hex");
  const body = randomBytes(10 * 1024 * 1024);
  const channel = await bench.channel();
  const queue = await bench.queue(channel);
  publish(channel, queue, body);
  const [{ content }] = await take(channel, queue, 1);
  same([content.length, digest(content)], [body.length, digest(body)]);
}

async function consumer_cancel(bench) {
  const [channel, other] = [await bench.channel(), await bench.channel()];
  const queue = await bench.queue(channel);
  const inbox = new Inbox();
  const { consumerTag } = await channel.consume(queue, inbox.push, { noAck: true });
  publish(channel, queue, "before");
  same(text(await inbox.next()), "before");
  await channel.cancel(consumerTag);
  publish(channel, queue, "after");
  same([await rest(channel, queue), inbox.items], [["after"], []]);

  await channel.consume(queue, inbox.push, { noAck: true });
  publish(channel, queue, "again");
  same(text(await inbox.next()), "again");
  await other.deleteQueue(queue);
  same(await inbox.next(), null); // how amqplib tells that the broker has cancelled the consumer
}

async function bad_credentials(bench) {
  const wrong = new URL(bench.url);
  wrong.password = "wrong";
  await rejects(connect(wrong.href), (error) => {
    match(error.message, /403.*ACCESS.REFUSED/);
    return true;
  });
  await (await connect(bench.url)).close();
}

async function worker_killed(bench) {
  const channel = await bench.channel();
  const queue = await bench.queue(channel);
  publish(channel, queue, ...numbers(0, 12));
  const victim = startVictim(bench.url, queue);
  const inbox = new Inbox();
  try {
    same(await victim.lines.take(8), numbers(0, 8));
    await channel.consume(queue, (message) => {
      channel.ack(message);
      inbox.push([text(message), message.fields.redelivered]);
    });
    same(await inbox.take(4), numbers(8, 12).map((body) => [body, false]));
  } finally {
    await victim.kill();
  }
  same(await inbox.take(6), numbers(2, 8).map((body) => [body, true]));
  await channel.close();
  same([await rest(await bench.channel(), queue), inbox.items], [[], []]);
}

/** The victim of `worker_killed`: holds up to six messages, acknowledges only the first two, says what it has. */
async function worker(url, queue) {
  const channel = await (await connect(url)).createChannel();
  await channel.prefetch(6);
  await channel.consume(queue, (message) => {
    if (message.fields.deliveryTag <= 2) channel.ack(message);
    console.log(text(message));
  });
}

await main(
  [
    hello, work_queue, priorities, pubsub, routing, topics, headers, rpc, confirms, returns, get, nack_requeue,
    reject, recover, tx, exclusive_autodelete, big_message, consumer_cancel, bad_credentials, worker_killed,
  ],
  Bench.open,
  worker,
);
