#include "client.h"

#include <amqp_tcp_socket.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness.h"

amqp_rpc_reply_t login(connection_t connection, const char *password) {
  char *url = strdup(broker_url); /* parsing writes into it */
  struct amqp_connection_info broker;
  if (amqp_parse_url(url, &broker)) fail("%s is no AMQP URL", broker_url);
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  int status = amqp_socket_open(socket, broker.host, broker.port);
  if (status) fail("connecting to %s: %s", broker_url, amqp_error_string2(status));
  /* The library does not say by itself that it can be told of a cancelled consumer. */
  amqp_table_entry_t told = {amqp_cstring_bytes("consumer_cancel_notify"), {AMQP_FIELD_KIND_BOOLEAN, {.boolean = true}}};
  amqp_table_entry_t can = {amqp_cstring_bytes("capabilities"), {AMQP_FIELD_KIND_TABLE, {.table = {1, &told}}}};
  amqp_table_t properties = {1, &can};
  amqp_rpc_reply_t reply = amqp_login_with_properties(
      connection, broker.vhost, AMQP_DEFAULT_MAX_CHANNELS, AMQP_DEFAULT_FRAME_SIZE, 0, &properties,
      AMQP_SASL_METHOD_PLAIN, broker.user, password ? password : broker.password);
  free(url);
  return reply;
}

static void check_reply(amqp_rpc_reply_t reply, const char *what) {
  if (reply.reply_type == AMQP_RESPONSE_NORMAL) return;
  if (reply.reply_type != AMQP_RESPONSE_SERVER_EXCEPTION) fail("%s: %s", what, amqp_error_string2(reply.library_error));
  if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
    amqp_channel_close_t *closed = reply.reply.decoded;
    fail("%s: %.*s", what, (int)closed->reply_text.len, (char *)closed->reply_text.bytes);
  }
  amqp_connection_close_t *closed = reply.reply.decoded;
  fail("%s: %.*s", what, (int)closed->reply_text.len, (char *)closed->reply_text.bytes);
}

void check(connection_t connection, const char *what) { check_reply(amqp_get_rpc_reply(connection), what); }

static void check_status(int status, const char *what) {
  if (status) fail("%s: %s", what, amqp_error_string2(status));
}

connection_t connect_to_broker(void) {
  connection_t connection = amqp_new_connection();
  check_reply(login(connection, NULL), "login");
  return connection;
}

void disconnect(connection_t connection) {
  check_reply(amqp_connection_close(connection, AMQP_REPLY_SUCCESS), "connection.close");
  check_status(amqp_destroy_connection(connection), "closing the socket");
}

void open_channel(connection_t connection, amqp_channel_t channel) {
  amqp_channel_open(connection, channel);
  check(connection, "channel.open");
}

void close_channel(connection_t connection, amqp_channel_t channel) {
  check_reply(amqp_channel_close(connection, channel, AMQP_REPLY_SUCCESS), "channel.close");
}

int refusal(connection_t connection, amqp_channel_t channel) {
  amqp_rpc_reply_t reply = amqp_get_rpc_reply(connection);
  expect(reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION && reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD);
  int code = ((amqp_channel_close_t *)reply.reply.decoded)->reply_code;
  amqp_channel_close_ok_t answer = {0};
  check_status(amqp_send_method(connection, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &answer), "channel.close-ok");
  return code;
}

static amqp_bytes_t name(const char *kind, int number) {
  static char names[2][NAMES_MAX][64];
  expect(number < NAMES_MAX);
  char *text = names[*kind == 'q'][number];
  snprintf(text, sizeof names[0][0], "conformance-%s-%s-%d", kind, run_token, number);
  return amqp_cstring_bytes(text);
}

amqp_bytes_t queue_name(int number) { return name("queue", number); }

amqp_bytes_t exchange_name(int number) { return name("exchange", number); }

void delete_names(void) {
  connection_t connection = connect_to_broker();
  open_channel(connection, 1);
  for (int number = 0; number < NAMES_MAX; number++) {
    amqp_queue_delete(connection, 1, queue_name(number), false, false);
    check(connection, "queue.delete");
    amqp_exchange_delete(connection, 1, exchange_name(number), false);
    check(connection, "exchange.delete");
  }
  disconnect(connection);
}

amqp_bytes_t declare_queue(connection_t connection, amqp_channel_t channel, int number, amqp_table_t arguments) {
  amqp_queue_declare(connection, channel, queue_name(number), false, false, false, false, arguments);
  check(connection, "queue.declare");
  return queue_name(number);
}

amqp_bytes_t declare_exclusive_queue(connection_t connection, amqp_channel_t channel) {
  amqp_queue_declare_ok_t *declared =
      amqp_queue_declare(connection, channel, amqp_empty_bytes, false, false, true, false, amqp_empty_table);
  check(connection, "queue.declare");
  return amqp_bytes_malloc_dup(declared->queue);
}

amqp_bytes_t declare_exchange(connection_t connection, amqp_channel_t channel, int number, const char *type) {
  amqp_exchange_declare(connection, channel, exchange_name(number), amqp_cstring_bytes(type), false, false, false,
                        false, amqp_empty_table);
  check(connection, "exchange.declare");
  return exchange_name(number);
}

void bind_queue(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue, amqp_bytes_t exchange,
                const char *key, amqp_table_t arguments) {
  amqp_queue_bind(connection, channel, queue, exchange, amqp_cstring_bytes(key), arguments);
  check(connection, "queue.bind");
}

void wait_until_gone(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue) {
  while (amqp_queue_declare(connection, channel, queue, true, false, false, false, amqp_empty_table)) usleep(5000);
  expect_number(refusal(connection, channel), 404);
  open_channel(connection, channel);
}

amqp_table_entry_t text_entry(const char *key, amqp_bytes_t text) {
  return (amqp_table_entry_t){amqp_cstring_bytes(key), {AMQP_FIELD_KIND_UTF8, {.bytes = text}}};
}

amqp_table_entry_t number_entry(const char *key, int number) {
  return (amqp_table_entry_t){amqp_cstring_bytes(key), {AMQP_FIELD_KIND_I32, {.i32 = number}}};
}

const amqp_field_value_t *field(const amqp_table_t *table, const char *key) {
  for (int n = 0; n < table->num_entries; n++)
    if (is_text(table->entries[n].key, key)) return &table->entries[n].value;
  fail("the table has no %s", key);
}

void publish(connection_t connection, amqp_channel_t channel, amqp_bytes_t exchange, amqp_bytes_t key,
             const amqp_basic_properties_t *properties, amqp_bytes_t body) {
  check_status(amqp_basic_publish(connection, channel, exchange, key, false, false, properties, body), "basic.publish");
}

void send_text(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue, const char *body) {
  publish(connection, channel, amqp_empty_bytes, queue, NULL, amqp_cstring_bytes(body));
}

void send_numbers(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue, int from, int to) {
  for (int number = from; number < to; number++) {
    char body[16];
    snprintf(body, sizeof body, "%d", number);
    send_text(connection, channel, queue, body);
  }
}

void set_prefetch(connection_t connection, amqp_channel_t channel, int count) {
  amqp_basic_qos(connection, channel, 0, count, false);
  check(connection, "basic.qos");
}

void consume(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue, const char *tag, bool no_ack) {
  amqp_basic_consume(connection, channel, queue, amqp_cstring_bytes(tag), false, no_ack, false, amqp_empty_table);
  check(connection, "basic.consume");
}

void cancel(connection_t connection, amqp_channel_t channel, const char *tag) {
  amqp_basic_cancel(connection, channel, amqp_cstring_bytes(tag));
  check(connection, "basic.cancel");
}

amqp_envelope_t receive(connection_t connection) {
  amqp_envelope_t envelope;
  amqp_maybe_release_buffers(connection);
  check_reply(amqp_consume_message(connection, &envelope, NULL, 0), "waiting for a delivery");
  return envelope;
}

void acknowledge(connection_t connection, amqp_channel_t channel, uint64_t delivery_tag) {
  check_status(amqp_basic_ack(connection, channel, delivery_tag, false), "basic.ack");
}

amqp_method_t next_method(connection_t connection) {
  amqp_frame_t frame;
  check_status(amqp_simple_wait_frame(connection, &frame), "waiting for a method");
  expect_number(frame.frame_type, AMQP_FRAME_METHOD);
  return frame.payload.method;
}

bool pull(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue, bool no_ack, pulled_t *pulled) {
  amqp_rpc_reply_t reply = amqp_basic_get(connection, channel, queue, no_ack);
  check_reply(reply, "basic.get");
  if (reply.reply.id == AMQP_BASIC_GET_EMPTY_METHOD) return false;
  amqp_basic_get_ok_t *got = reply.reply.decoded;
  *pulled = (pulled_t){.delivery_tag = got->delivery_tag, .redelivered = got->redelivered, .left = got->message_count};
  amqp_message_t message;
  check_reply(amqp_read_message(connection, channel, &message, 0), "reading a message");
  expect(message.body.len < sizeof pulled->body);
  memcpy(pulled->body, message.body.bytes, message.body.len);
  amqp_destroy_message(&message);
  amqp_maybe_release_buffers(connection);
  return true;
}

const char *rest(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue) {
  static char bodies[4096];
  size_t length = 0;
  bodies[0] = 0;
  for (pulled_t pulled; pull(connection, channel, queue, true, &pulled);) {
    length += snprintf(bodies + length, sizeof bodies - length, length ? " %s" : "%s", pulled.body);
    expect(length < sizeof bodies);
  }
  return bodies;
}

bool is_text(amqp_bytes_t bytes, const char *text) { return is_same(bytes, amqp_cstring_bytes(text)); }

bool is_same(amqp_bytes_t left, amqp_bytes_t right) {
  return left.len == right.len && !memcmp(left.bytes, right.bytes, left.len);
}
