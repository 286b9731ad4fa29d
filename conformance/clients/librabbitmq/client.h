/* What the scenarios say often, in terms of librabbitmq: each call succeeds or ends the scenario with a reason. */
#ifndef CLIENT_H
#define CLIENT_H

#include <amqp.h>
#include <amqp_framing.h>
#include <stdbool.h>

typedef amqp_connection_state_t connection_t;

/* The broker's answer to login, on a connection to the host of `broker_url`; `password` NULL is the URL's. */
amqp_rpc_reply_t login(connection_t connection, const char *password);
connection_t connect_to_broker(void);
void disconnect(connection_t connection);
void open_channel(connection_t connection, amqp_channel_t channel);
void close_channel(connection_t connection, amqp_channel_t channel);

/* Ends the scenario unless the last call on this connection succeeded. */
void check(connection_t connection, const char *what);

/* The code with which the broker refused the last call; answers the close, so that the channel may be opened again. */
int refusal(connection_t connection, amqp_channel_t channel);

/* Queues and exchanges of this run: the same number is the same name, which `delete_names` deletes. */
enum { NAMES_MAX = 4 };
amqp_bytes_t queue_name(int number);
amqp_bytes_t exchange_name(int number);
void delete_names(void);

amqp_bytes_t declare_queue(connection_t connection, amqp_channel_t channel, int number, amqp_table_t arguments);
amqp_bytes_t declare_exchange(connection_t connection, amqp_channel_t channel, int number, const char *type);
/* An exclusive queue with a name by the broker; to be freed with amqp_bytes_free. */
amqp_bytes_t declare_exclusive_queue(connection_t connection, amqp_channel_t channel);
void bind_queue(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue, amqp_bytes_t exchange,
                const char *key, amqp_table_t arguments);
/* Asks for the queue until the broker answers 404. */
void wait_until_gone(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue);

amqp_table_entry_t text_entry(const char *key, amqp_bytes_t text);
amqp_table_entry_t number_entry(const char *key, int number);
/* The value of a key, or the end of the scenario. */
const amqp_field_value_t *field(const amqp_table_t *table, const char *key);

void publish(connection_t connection, amqp_channel_t channel, amqp_bytes_t exchange, amqp_bytes_t key,
             const amqp_basic_properties_t *properties, amqp_bytes_t body);
void send_text(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue, const char *body);
void send_numbers(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue, int from, int to);

void set_prefetch(connection_t connection, amqp_channel_t channel, int count);
/* Starts a consumer with this tag. */
void consume(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue, const char *tag, bool no_ack);
void cancel(connection_t connection, amqp_channel_t channel, const char *tag);
/* The next delivery of any channel; to be freed with amqp_destroy_envelope. */
amqp_envelope_t receive(connection_t connection);
void acknowledge(connection_t connection, amqp_channel_t channel, uint64_t delivery_tag);
/* The next method frame of any channel. */
amqp_method_t next_method(connection_t connection);

typedef struct {
  uint64_t delivery_tag;
  bool redelivered;
  unsigned left;
  char body[64];
} pulled_t;

/* One message by basic.get; false when the queue is empty. */
bool pull(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue, bool no_ack, pulled_t *pulled);
/* The bodies that the queue still has, with spaces between, taken out by basic.get (which comes after all this
 * channel did before). The text holds until the next call. */
const char *rest(connection_t connection, amqp_channel_t channel, amqp_bytes_t queue);

bool is_text(amqp_bytes_t bytes, const char *text);
bool is_same(amqp_bytes_t left, amqp_bytes_t right);

#endif
