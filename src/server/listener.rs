//! Accepts AMQP connections, up to the limit.

use super::reactor::Reactor;
use super::shared::Shared;
use super::transport::Transport;
use crate::model::NamedLimit;
use crate::model::random::Random;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// How long accepting pauses after an error such as "too many open files".
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Sockets allowed beyond `connections_max`: for clients that are in the handshake, or that are being refused because
/// of the limit.
const UNOPENED_MAX: i64 = 1024;

/// Accepts until the server stops.
pub(super) async fn accept(
    shared: Arc<Shared>,
    reactor: Arc<Reactor>,
    listener: TcpListener,
    connections: TaskTracker,
    seed: u64,
) {
    let mut stopping = shared.stopping.subscribe();
    let mut random = Random::new(seed);
    let limit = i64::from(shared.settings.connections_max) + UNOPENED_MAX;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok((stream, peer_address)) => {
                if shared.broker.gauges().connections.load(Ordering::Relaxed) >= limit {
                    shared.broker.refusals().note(NamedLimit::ConnectionsMax);
                    tracing::warn!(client = %peer_address, limit, "socket closed: too many beyond connections_max");
                    continue;
                }
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(client = %peer_address, %error, "no TCP_NODELAY");
                }
                let Ok(stream) = stream.into_std() else { continue };
                let transport = Transport::Plain(stream);
                reactor.serve(Arc::clone(&shared), transport, peer_address, random.next_u64(), connections.token());
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}
