/* The twenty scenarios in librabbitmq. */

#include <stdlib.h>

#include "client.h"
#include "harness.h"

static void hello(void) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  amqp_bytes_t queue = declare_queue(connection, 1, 0, amqp_empty_table);
  amqp_table_entry_t headers[] = {number_entry("answer", 42)};
  amqp_basic_properties_t sent = {
      ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_HEADERS_FLAG,
      .content_type = amqp_cstring_bytes("text/plain"),
      .headers = {1, headers},
  };
  publish(connection, 1, amqp_empty_bytes, queue, &sent, amqp_cstring_bytes("Hello, world!"));
  consume(connection, 1, queue, "hello", false);
  amqp_envelope_t got = receive(connection);
  acknowledge(connection, 1, got.delivery_tag);
  expect(is_text(got.message.body, "Hello, world!"));
  expect(is_text(got.message.properties.content_type, "text/plain"));
  expect_number(got.message.properties._flags, sent._flags);
  expect_number(field(&got.message.properties.headers, "answer")->value.i32, 42);
  expect(is_text(got.exchange, "") && is_same(got.routing_key, queue) && !got.redelivered);
  amqp_destroy_envelope(&got);
  disconnect(connection);
}

/* With one message at a time each, the slow worker keeps its first and the quick one does all others. */
static void work_queue(void) {
  enum { CHANNEL = 1, SLOW, QUICK };
  connection_t connection = connect_to_broker();
  for (int channel = CHANNEL; channel <= QUICK; channel++) open_channel(connection, channel);
  amqp_bytes_t queue = declare_queue(connection, CHANNEL, 0, amqp_empty_table);
  send_numbers(connection, CHANNEL, queue, 0, 10);

  set_prefetch(connection, SLOW, 1);
  consume(connection, SLOW, queue, "slow", false);
  amqp_envelope_t first = receive(connection);
  expect(first.channel == SLOW && is_text(first.message.body, "0"));
  set_prefetch(connection, QUICK, 1);
  consume(connection, QUICK, queue, "quick", false);
  for (int number = 1; number < 10; number++) {
    amqp_envelope_t next = receive(connection);
    expect(next.channel == QUICK && *(char *)next.message.body.bytes == '0' + number);
    acknowledge(connection, QUICK, next.delivery_tag);
    amqp_destroy_envelope(&next);
  }
  acknowledge(connection, SLOW, first.delivery_tag);
  amqp_destroy_envelope(&first);
  close_channel(connection, SLOW);
  expect_text(rest(connection, CHANNEL, queue), "");
  disconnect(connection);
}

static void priorities(void) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  amqp_table_entry_t levels = number_entry("x-max-priority", 10);
  amqp_bytes_t queue = declare_queue(connection, 1, 0, (amqp_table_t){1, &levels});
  for (int number = 0; number < 110; number++) {
    amqp_basic_properties_t sent = {._flags = AMQP_BASIC_PRIORITY_FLAG, .priority = number * 7 % 11};
    publish(connection, 1, amqp_empty_bytes, queue, &sent, (amqp_bytes_t){sizeof number, &number});
  }
  consume(connection, 1, queue, "worker", false);
  for (int level = 10, count = 0, last = -1; count < 110; count++) {
    amqp_envelope_t got = receive(connection);
    acknowledge(connection, 1, got.delivery_tag);
    int number;
    expect_number(got.message.body.len, sizeof number);
    memcpy(&number, got.message.body.bytes, sizeof number);
    expect_number(got.message.properties.priority, level);
    expect_number(number * 7 % 11, level);
    expect(number > last);
    bool is_last_of_level = count % 10 == 9; /* each of the eleven levels has ten messages */
    last = is_last_of_level ? -1 : number;
    level -= is_last_of_level;
    amqp_destroy_envelope(&got);
  }
  disconnect(connection);
}

static void pubsub(void) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  amqp_bytes_t fanout = declare_exchange(connection, 1, 0, "fanout");
  amqp_bytes_t queues[3];
  for (int n = 0; n < 3; n++) {
    queues[n] = declare_exclusive_queue(connection, 1);
    bind_queue(connection, 1, queues[n], fanout, "", amqp_empty_table);
  }
  publish(connection, 1, fanout, amqp_cstring_bytes("ignored"), NULL, amqp_cstring_bytes("first"));
  publish(connection, 1, fanout, amqp_cstring_bytes("ignored"), NULL, amqp_cstring_bytes("second"));
  for (int n = 0; n < 3; n++) {
    consume(connection, 1, queues[n], "subscriber", true);
    for (int body = 0; body < 2; body++) {
      amqp_envelope_t got = receive(connection);
      expect(is_text(got.message.body, body ? "second" : "first"));
      amqp_destroy_envelope(&got);
    }
    cancel(connection, 1, "subscriber");
    expect_text(rest(connection, 1, queues[n]), "");
    expect(!amqp_frames_enqueued(connection));
    amqp_bytes_free(queues[n]);
  }
  disconnect(connection);
}

/* Publishes to each routing key; two queues, each with its binding keys (NULL ends a list), must hold what is expected. */
static void route(const char *type, const char *bindings[2][3], const char **keys, const char *expected[2]) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  amqp_bytes_t exchange = declare_exchange(connection, 1, 0, type);
  for (int n = 0; n < 2; n++) {
    amqp_bytes_t queue = declare_queue(connection, 1, n, amqp_empty_table);
    for (const char **key = bindings[n]; *key; key++)
      bind_queue(connection, 1, queue, exchange, *key, amqp_empty_table);
  }
  for (; *keys; keys++) publish(connection, 1, exchange, amqp_cstring_bytes(*keys), NULL, amqp_cstring_bytes(*keys));
  for (int n = 0; n < 2; n++) expect_text(rest(connection, 1, queue_name(n)), expected[n]);
  disconnect(connection);
}

static void routing(void) {
  const char *bindings[2][3] = {{"error"}, {"info", "error"}};
  const char *keys[] = {"info", "error", "debug", "error", NULL};
  const char *expected[] = {"error error", "info error error"};
  route("direct", bindings, keys, expected);
}

static void topics(void) {
  const char *bindings[2][3] = {{"*.orange.*"}, {"*.*.rabbit", "lazy.#"}};
  const char *keys[] = {"quick.orange.rabbit", "lazy.orange.elephant", "quick.brown.fox", "lazy",
                        "lazy.a.b.rabbit",     "orange",               NULL};
  const char *expected[] = {"quick.orange.rabbit lazy.orange.elephant",
                            "quick.orange.rabbit lazy.orange.elephant lazy lazy.a.b.rabbit"};
  route("topic", bindings, keys, expected);
}

static void headers(void) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  amqp_bytes_t exchange = declare_exchange(connection, 1, 0, "headers");
  amqp_table_entry_t pdf = text_entry("format", amqp_cstring_bytes("pdf"));
  amqp_table_entry_t report = text_entry("type", amqp_cstring_bytes("report"));
  const char *matches[] = {"all", "any"};
  for (int n = 0; n < 2; n++) {
    amqp_table_entry_t wanted[] = {text_entry("x-match", amqp_cstring_bytes(matches[n])), pdf, report};
    amqp_bytes_t queue = declare_queue(connection, 1, n, amqp_empty_table);
    bind_queue(connection, 1, queue, exchange, "", (amqp_table_t){3, wanted});
  }
  struct {
    const char *body;
    amqp_table_entry_t headers[2];
    int count;
  } messages[] = {
      {"pdf-report", {pdf, report}, 2},
      {"pdf", {pdf}, 1},
      {"zip-log", {text_entry("format", amqp_cstring_bytes("zip")), text_entry("type", amqp_cstring_bytes("log"))}, 2},
      {"long-report", {report, number_entry("pages", 3)}, 2},
  };
  for (int n = 0; n < 4; n++) {
    amqp_basic_properties_t sent = {._flags = AMQP_BASIC_HEADERS_FLAG,
                                    .headers = {messages[n].count, messages[n].headers}};
    publish(connection, 1, exchange, amqp_empty_bytes, &sent, amqp_cstring_bytes(messages[n].body));
  }
  expect_text(rest(connection, 1, queue_name(0)), "pdf-report");
  expect_text(rest(connection, 1, queue_name(1)), "pdf-report pdf long-report");
  disconnect(connection);
}

static void rpc(void) {
  enum { SERVER = 1, CLIENT };
  connection_t connection = connect_to_broker();
  open_channel(connection, SERVER);
  open_channel(connection, CLIENT);
  amqp_bytes_t requests = declare_queue(connection, SERVER, 0, amqp_empty_table);
  amqp_bytes_t replies = declare_exclusive_queue(connection, CLIENT);
  consume(connection, SERVER, requests, "server", false);
  consume(connection, CLIENT, replies, "client", true);
  for (char n = '0'; n <= '9'; n++) {
    amqp_basic_properties_t call = {._flags = AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG,
                                    .reply_to = replies,
                                    .correlation_id = {1, &n}};
    publish(connection, CLIENT, amqp_empty_bytes, requests, &call, (amqp_bytes_t){1, &n});
  }
  bool answered[10] = {0};
  for (int answers = 0; answers < 10;) {
    amqp_envelope_t got = receive(connection);
    amqp_basic_properties_t *asked = &got.message.properties;
    char text[16];
    if (got.channel == SERVER) {
      int n = *(char *)got.message.body.bytes - '0';
      snprintf(text, sizeof text, "%d", n * n);
      amqp_basic_properties_t answer = {._flags = AMQP_BASIC_CORRELATION_ID_FLAG,
                                        .correlation_id = asked->correlation_id};
      publish(connection, SERVER, amqp_empty_bytes, asked->reply_to, &answer, amqp_cstring_bytes(text));
      acknowledge(connection, SERVER, got.delivery_tag);
    } else {
      int n = *(char *)asked->correlation_id.bytes - '0';
      snprintf(text, sizeof text, "%d", n * n);
      expect(n >= 0 && n < 10 && !answered[n] && is_text(got.message.body, text));
      answered[n] = true;
      answers++;
    }
    amqp_destroy_envelope(&got);
  }
  amqp_bytes_free(replies);
  disconnect(connection);
}

/* What a confirming channel has published, and the answers to it. */
typedef struct {
  amqp_channel_t channel;
  int published, unconfirmed;
  bool confirmed[128];
} confirms_t;

static confirms_t select_confirms(connection_t connection, amqp_channel_t channel) {
  open_channel(connection, channel);
  amqp_confirm_select(connection, channel);
  check(connection, "confirm.select");
  return (confirms_t){.channel = channel};
}

static void publish_next(connection_t connection, confirms_t *confirms, amqp_bytes_t queue) {
  send_numbers(connection, confirms->channel, queue, confirms->published, confirms->published + 1);
  confirms->published++;
  confirms->unconfirmed++;
}

/* Reads one answer; false when none came in time (NULL waits). */
static bool read_confirm(connection_t connection, confirms_t *confirms, const struct timeval *timeout) {
  amqp_frame_t frame;
  amqp_maybe_release_buffers(connection);
  int status = amqp_simple_wait_frame_noblock(connection, &frame, timeout);
  if (status == AMQP_STATUS_TIMEOUT) return false;
  expect_number(status, AMQP_STATUS_OK);
  expect_number(frame.channel, confirms->channel);
  expect_number(frame.payload.method.id, AMQP_BASIC_ACK_METHOD);
  amqp_basic_ack_t *ack = frame.payload.method.decoded;
  int last = ack->delivery_tag, before = confirms->unconfirmed;
  expect(last >= 1 && last <= confirms->published);
  for (int tag = ack->multiple ? 1 : last; tag <= last; tag++) {
    confirms->unconfirmed -= !confirms->confirmed[tag];
    confirms->confirmed[tag] = true;
  }
  expect(confirms->unconfirmed < before);
  return true;
}

static void publish_in_batches(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue, int count, int batch) {
  confirms_t confirms = select_confirms(connection, channel);
  while (confirms.published < count) {
    for (int n = 0; n < batch; n++) publish_next(connection, &confirms, queue);
    while (confirms.unconfirmed) read_confirm(connection, &confirms, NULL);
  }
}

static void publish_and_read_as_they_come(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue, int count) {
  const struct timeval now = {0, 0};
  confirms_t confirms = select_confirms(connection, channel);
  while (confirms.published < count) {
    publish_next(connection, &confirms, queue);
    while (read_confirm(connection, &confirms, &now)) continue;
  }
  while (confirms.unconfirmed) read_confirm(connection, &confirms, NULL);
}

static void confirms(void) {
  char expected[1024] = "0";
  for (int n = 1; n < 100; n++) sprintf(expected + strlen(expected), " %d", n);
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  amqp_bytes_t queue = declare_queue(connection, 1, 0, amqp_empty_table);
  publish_in_batches(connection, 2, queue, 20, 1);
  expect_text(rest(connection, 1, queue), "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19");
  publish_in_batches(connection, 3, queue, 100, 20);
  expect_text(rest(connection, 1, queue), expected);
  publish_and_read_as_they_come(connection, 4, queue, 100);
  expect_text(rest(connection, 1, queue), expected);
  disconnect(connection);
}

static void returns(void) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  amqp_bytes_t queue = declare_queue(connection, 1, 0, amqp_empty_table), nowhere = queue_name(1);
  amqp_bytes_t none = amqp_empty_bytes;
  amqp_basic_publish(connection, 1, none, nowhere, true, false, NULL, amqp_cstring_bytes("lost"));
  amqp_basic_publish(connection, 1, none, queue, true, false, NULL, amqp_cstring_bytes("found"));

  amqp_method_t method = next_method(connection);
  expect_number(method.id, AMQP_BASIC_RETURN_METHOD);
  amqp_basic_return_t *returned = method.decoded;
  expect_number(returned->reply_code, AMQP_NO_ROUTE);
  expect(is_text(returned->reply_text, "NO_ROUTE"));
  expect(is_text(returned->exchange, "") && is_same(returned->routing_key, nowhere));
  amqp_message_t message;
  expect_number(amqp_read_message(connection, 1, &message, 0).reply_type, AMQP_RESPONSE_NORMAL);
  expect(is_text(message.body, "lost"));
  amqp_destroy_message(&message);
  expect_text(rest(connection, 1, queue), "found");
  expect(!amqp_frames_enqueued(connection));
  disconnect(connection);
}

static void get(void) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  amqp_bytes_t queue = declare_queue(connection, 1, 0, amqp_empty_table);
  const char *bodies[] = {"a", "b", "c"};
  pulled_t pulled;
  expect(!pull(connection, 1, queue, false, &pulled));
  for (int n = 0; n < 3; n++) send_text(connection, 1, queue, bodies[n]);
  for (int n = 0; n < 3; n++) {
    expect(pull(connection, 1, queue, false, &pulled));
    expect_text(pulled.body, bodies[n]);
    expect_number(pulled.left, 2 - n);
    expect(!pulled.redelivered);
    acknowledge(connection, 1, pulled.delivery_tag);
  }
  expect(!pull(connection, 1, queue, false, &pulled));
  disconnect(connection);
}

static void nack_requeue(void) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  amqp_bytes_t queue = declare_queue(connection, 1, 0, amqp_empty_table);
  const char *bodies[] = {"a", "b", "c"};
  for (int n = 0; n < 3; n++) send_text(connection, 1, queue, bodies[n]);
  for (int round = 0; round < 2; round++) {
    pulled_t pulled;
    for (int n = 0; n < 3; n++) {
      expect(pull(connection, 1, queue, false, &pulled));
      expect_text(pulled.body, bodies[n]);
      expect_number(pulled.redelivered, round == 1);
    }
    expect_number(amqp_basic_nack(connection, 1, pulled.delivery_tag, true, true), AMQP_STATUS_OK);
  }
  expect_text(rest(connection, 1, queue), "a b c");
  disconnect(connection);
}

static void reject(void) {
  enum { GRAVEYARD, FORGETFUL, REMEMBERING };
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  amqp_bytes_t dead_letters = declare_exchange(connection, 1, 0, "fanout");
  bind_queue(connection, 1, declare_queue(connection, 1, GRAVEYARD, amqp_empty_table), dead_letters, "", amqp_empty_table);
  amqp_table_entry_t to_dead_letters = text_entry("x-dead-letter-exchange", dead_letters);
  declare_queue(connection, 1, FORGETFUL, amqp_empty_table);
  declare_queue(connection, 1, REMEMBERING, (amqp_table_t){1, &to_dead_letters});
  for (int number = FORGETFUL; number <= REMEMBERING; number++) {
    pulled_t pulled;
    send_text(connection, 1, queue_name(number), "unwanted");
    expect(pull(connection, 1, queue_name(number), false, &pulled));
    expect_number(amqp_basic_reject(connection, 1, pulled.delivery_tag, false), AMQP_STATUS_OK);
    expect_text(rest(connection, 1, queue_name(number)), "");
  }

  consume(connection, 1, queue_name(GRAVEYARD), "undertaker", true);
  amqp_envelope_t got = receive(connection);
  cancel(connection, 1, "undertaker");
  expect(is_same(got.exchange, dead_letters) && is_text(got.message.body, "unwanted"));
  expect(is_same(got.routing_key, queue_name(REMEMBERING)));
  const amqp_array_t *deaths = &field(&got.message.properties.headers, "x-death")->value.array;
  expect_number(deaths->num_entries, 1);
  const amqp_table_t *death = &deaths->entries[0].value.table;
  expect(is_text(field(death, "reason")->value.bytes, "rejected"));
  expect(is_same(field(death, "queue")->value.bytes, queue_name(REMEMBERING)));
  expect(is_text(field(death, "exchange")->value.bytes, ""));
  expect_number(field(death, "count")->value.i64, 1);
  const amqp_array_t *keys = &field(death, "routing-keys")->value.array;
  expect(keys->num_entries == 1 && is_same(keys->entries[0].value.bytes, queue_name(REMEMBERING)));
  amqp_destroy_envelope(&got);
  expect_text(rest(connection, 1, queue_name(GRAVEYARD)), "");
  disconnect(connection);
}

/* The next deliveries must be the numbers from `from` up to `to`; acknowledges them if asked. */
static void expect_numbers(connection_t connection, int from, int to, bool redelivered, bool ack) {
  for (int number = from; number < to; number++) {
    amqp_envelope_t got = receive(connection);
    char expected[16];
    snprintf(expected, sizeof expected, "%d", number);
    if (!is_text(got.message.body, expected) || got.redelivered != redelivered)
      fail("got %.*s, redelivered %d, expected %d, redelivered %d", (int)got.message.body.len,
           (char *)got.message.body.bytes, got.redelivered, number, redelivered);
    if (ack) acknowledge(connection, got.channel, got.delivery_tag);
    amqp_destroy_envelope(&got);
  }
}

static void recover(void) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  amqp_bytes_t queue = declare_queue(connection, 1, 0, amqp_empty_table);
  send_numbers(connection, 1, queue, 0, 3);
  consume(connection, 1, queue, "worker", false);
  expect_numbers(connection, 0, 1, false, true);
  expect_numbers(connection, 1, 3, false, false);
  amqp_basic_recover(connection, 1, true);
  check(connection, "basic.recover");
  expect_numbers(connection, 1, 3, true, true);
  disconnect(connection);
}

static void tx(void) {
  enum { CHANNEL = 1, WORKER };
  connection_t connection = connect_to_broker();
  open_channel(connection, CHANNEL);
  amqp_bytes_t queue = declare_queue(connection, CHANNEL, 0, amqp_empty_table);
  amqp_tx_select(connection, CHANNEL);
  check(connection, "tx.select");
  send_text(connection, CHANNEL, queue, "undone");
  amqp_tx_rollback(connection, CHANNEL);
  check(connection, "tx.rollback");
  send_text(connection, CHANNEL, queue, "done");
  expect_text(rest(connection, CHANNEL, queue), "");
  amqp_tx_commit(connection, CHANNEL);
  check(connection, "tx.commit");
  for (int commit = 0; commit < 2; commit++) {
    pulled_t pulled;
    open_channel(connection, WORKER);
    amqp_tx_select(connection, WORKER);
    expect(pull(connection, WORKER, queue, false, &pulled));
    expect_text(pulled.body, "done");
    expect_number(pulled.redelivered, commit);
    acknowledge(connection, WORKER, pulled.delivery_tag);
    if (commit) amqp_tx_commit(connection, WORKER);
    else amqp_tx_rollback(connection, WORKER);
    check(connection, "ending a transaction");
    close_channel(connection, WORKER);
  }
  expect_text(rest(connection, CHANNEL, queue), "");
  disconnect(connection);
}

static void exclusive_autodelete(void) {
  connection_t connection = connect_to_broker(), owner = connect_to_broker();
  open_channel(connection, 1);
  open_channel(owner, 1);
  amqp_bytes_t owned = declare_exclusive_queue(owner, 1);
  amqp_queue_declare(connection, 1, owned, true, false, false, false, amqp_empty_table);
  expect_number(refusal(connection, 1), AMQP_RESOURCE_LOCKED);
  open_channel(connection, 1);
  disconnect(owner);
  wait_until_gone(connection, 1, owned);
  amqp_bytes_free(owned);

  amqp_bytes_t queue = queue_name(0);
  amqp_queue_declare(connection, 1, queue, false, false, false, true, amqp_empty_table);
  check(connection, "queue.declare");
  consume(connection, 1, queue, "first", false);
  consume(connection, 1, queue, "second", false);
  cancel(connection, 1, "first");
  amqp_queue_declare(connection, 1, queue, true, false, false, true, amqp_empty_table);
  check(connection, "queue.declare, passive");
  cancel(connection, 1, "second");
  wait_until_gone(connection, 1, queue);
  disconnect(connection);
}

static void big_message(void) {
  amqp_bytes_t body = amqp_bytes_malloc(10 * 1024 * 1024);
  unsigned state = 1;
  for (size_t at = 0; at < body.len; at++) ((unsigned char *)body.bytes)[at] = (state = state * 1103515245 + 12345) >> 16;
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  amqp_bytes_t queue = declare_queue(connection, 1, 0, amqp_empty_table);
  publish(connection, 1, amqp_empty_bytes, queue, NULL, body);
  consume(connection, 1, queue, "reader", false);
  amqp_envelope_t got = receive(connection);
  acknowledge(connection, 1, got.delivery_tag);
  expect_number(got.message.body.len, body.len);
  expect(is_same(got.message.body, body));
  amqp_destroy_envelope(&got);
  amqp_bytes_free(body);
  disconnect(connection);
}

static void consumer_cancel(void) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  open_channel(connection, 2);
  amqp_bytes_t queue = declare_queue(connection, 1, 0, amqp_empty_table);
  consume(connection, 1, queue, "first", true);
  send_numbers(connection, 1, queue, 0, 1);
  expect_numbers(connection, 0, 1, false, false);
  cancel(connection, 1, "first");
  send_text(connection, 1, queue, "after");
  expect_text(rest(connection, 1, queue), "after");
  expect(!amqp_frames_enqueued(connection));

  consume(connection, 1, queue, "second", true);
  send_numbers(connection, 1, queue, 1, 2);
  expect_numbers(connection, 1, 2, false, false);
  amqp_queue_delete(connection, 2, queue, false, false);
  check(connection, "queue.delete");
  amqp_method_t method = next_method(connection);
  expect_number(method.id, AMQP_BASIC_CANCEL_METHOD);
  expect(is_text(((amqp_basic_cancel_t *)method.decoded)->consumer_tag, "second"));
  disconnect(connection);
}

static void bad_credentials(void) {
  connection_t connection = amqp_new_connection();
  amqp_rpc_reply_t reply = login(connection, "wrong");
  expect_number(reply.reply_type, AMQP_RESPONSE_SERVER_EXCEPTION);
  expect_number(reply.reply.id, AMQP_CONNECTION_CLOSE_METHOD);
  expect_number(((amqp_connection_close_t *)reply.reply.decoded)->reply_code, AMQP_ACCESS_REFUSED);
  amqp_destroy_connection(connection);
  disconnect(connect_to_broker());
}

/* Holds up to six messages, acknowledges only the first two, says what it has. */
static void be_the_victim(const void *queue) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  set_prefetch(connection, 1, 6);
  consume(connection, 1, *(const amqp_bytes_t *)queue, "victim", false);
  for (;;) {
    amqp_envelope_t got = receive(connection);
    if (got.delivery_tag <= 2) acknowledge(connection, 1, got.delivery_tag);
    printf("%.*s\n", (int)got.message.body.len, (char *)got.message.body.bytes);
    fflush(stdout);
    amqp_destroy_envelope(&got);
  }
}

static void worker_killed(void) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  open_channel(connection, 2);
  amqp_bytes_t queue = declare_queue(connection, 1, 0, amqp_empty_table);
  send_numbers(connection, 1, queue, 0, 12);
  victim_t victim = start_victim(be_the_victim, &queue);
  for (int number = 0, said; number < 8; number++) {
    expect_number(fscanf(victim.lines, "%d", &said), 1);
    expect_number(said, number);
  }
  consume(connection, 2, queue, "survivor", false);
  expect_numbers(connection, 8, 12, false, true);
  kill_victim(&victim);
  expect_numbers(connection, 2, 8, true, true);
  close_channel(connection, 2);
  expect_text(rest(connection, 1, queue), "");
  disconnect(connection);
}

int main(int argc, char **argv) {
  const scenario_t scenarios[] = {
      {"hello", hello},
      {"work_queue", work_queue},
      {"priorities", priorities},
      {"pubsub", pubsub},
      {"routing", routing},
      {"topics", topics},
      {"headers", headers},
      {"rpc", rpc},
      {"confirms", confirms},
      {"returns", returns},
      {"get", get},
      {"nack_requeue", nack_requeue},
      {"reject", reject},
      {"recover", recover},
      {"tx", tx},
      {"exclusive_autodelete", exclusive_autodelete},
      {"big_message", big_message},
      {"consumer_cancel", consumer_cancel},
      {"bad_credentials", bad_credentials},
      {"worker_killed", worker_killed},
  };
  return harness_main(argc, argv, scenarios, sizeof scenarios / sizeof *scenarios, delete_names);
}
