//! Code that the examples share: connect, report an error, close.

#![allow(dead_code, reason = "each example uses a part of it")]

use lapin::message::Delivery;
use lapin::{Connection, ConnectionProperties, ErrorKind};
use std::error::Error;
use std::process::ExitCode;

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

/// The exit code of an example. An error becomes a sentence on stderr, which names the broker without its login.
#[allow(clippy::print_stderr, reason = "an example prints its errors")]
pub(crate) fn exit_code<E: Into<Box<dyn Error>>>(ended: Result<(), E>) -> ExitCode {
    let Err(error) = ended else { return ExitCode::SUCCESS };
    let (error, url) = (error.into(), url());
    match error.downcast_ref::<lapin::Error>().map(lapin::Error::kind) {
        None => eprintln!("{error}"),
        Some(kind) => {
            let place = url.rsplit_once('@').map_or(url.as_str(), |(_, place)| place);
            let is_missing = matches!(kind, ErrorKind::IOError(_));
            let advice = if is_missing { " Start one with `prontomq serve`, or give the URL of another." } else { "" };
            eprintln!("The broker at {place} cannot be used: {error}.{advice}");
        }
    }
    ExitCode::FAILURE
}

/// Closes the connection. A channel that was dropped just before may still be closing; lapin reports that as an error.
pub(crate) async fn close(connection: &Connection) -> lapin::Result<()> {
    match connection.close(200, "bye".into()).await {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidChannelState(..)) => Ok(()),
        closed => closed,
    }
}

/// A message's body as text.
pub(crate) fn text(message: &Delivery) -> String {
    String::from_utf8_lossy(&message.data).into_owned()
}
