//! ProntoMQ: a message broker that speaks AMQP 0-9-1.
