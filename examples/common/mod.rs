//! What the examples share: where the broker is, and a few words that they all say.

#![allow(dead_code, reason = "each example uses some of it")]

use lapin::message::Delivery;
use lapin::{Connection, ConnectionProperties};

/// The broker's address: the first argument, or else `AMQP_URL`, or else the default of `prontomq serve`.
pub(crate) fn url() -> String {
    std::env::args()
        .nth(1)
        .or_else(|| std::env::var("AMQP_URL").ok())
        .unwrap_or_else(|| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())
}

/// Connects to the broker at [`url`].
pub(crate) async fn connect() -> lapin::Result<Connection> {
    Connection::connect(&url(), ConnectionProperties::default()).await
}

/// A message's body as text.
pub(crate) fn text(message: &Delivery) -> String {
    String::from_utf8_lossy(&message.data).into_owned()
}
