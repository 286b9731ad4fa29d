//! Opens the addresses that the broker listens on.

use super::start_error::StartError;
use crate::config::Settings;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// The error when a build without the metrics page is given an address for it.
const NO_METRICS: &str = "this program was built without the feature `metrics` of the crate prontomq";

/// Open sockets, before the first client is accepted.
pub(super) struct Listeners {
    /// Has at least one entry.
    pub(super) amqp: Vec<Listening>,
    pub(super) metrics: Option<TcpListener>,
}

/// An open socket for AMQP.
pub(super) struct Listening {
    pub(super) listener: TcpListener,
    /// The address, with the port that was picked if the settings have port 0.
    pub(super) address: SocketAddr,
    /// Seed of the random numbers of its connections.
    pub(super) seed: u64,
}

/// Listens on all addresses of the settings.
///
/// # Errors
/// An address that cannot be listened on, no address at all, or no randomness.
pub(super) async fn listen(settings: &Settings) -> Result<Listeners, StartError> {
    let mut amqp = Vec::new();
    for address in &settings.amqp {
        let bound = TcpListener::bind(address).await;
        match bound.and_then(|listener| listener.local_addr().map(|address| (listener, address))) {
            Ok((listener, address)) => amqp.push(Listening { listener, address, seed: random()? }),
            Err(error) if is_missing_ipv6(address, &error) && settings.amqp.len() > 1 => {
                tracing::warn!(%address, "this machine has no IPv6; not listening there");
            }
            Err(error) => return Err(StartError::Listen { setting: "amqp", address: *address, error }),
        }
    }
    if amqp.is_empty() {
        return Err(StartError::Entry { entry: "amqp".into(), problem: "there is no address to listen on".into() });
    }
    let metrics = match settings.metrics.address {
        Some(address) => {
            let listener = if cfg!(feature = "metrics") {
                TcpListener::bind(address).await
            } else {
                Err(io::Error::new(io::ErrorKind::Unsupported, NO_METRICS))
            };
            Some(listener.map_err(|error| StartError::Listen { setting: "metrics", address, error })?)
        }
        None => None,
    };
    Ok(Listeners { amqp, metrics })
}

/// Whether the error means that the machine has no IPv6. The default settings name the IPv6 loopback address on every
/// machine.
fn is_missing_ipv6(address: &SocketAddr, error: &io::Error) -> bool {
    address.is_ipv6()
        && address.ip().is_loopback()
        && matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}

fn random() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::Random(error.to_string()))
}
