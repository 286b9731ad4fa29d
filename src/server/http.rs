//! Serves a router over HTTP. The number of clients and the time of each are limited, so a client that sends nothing or
//! does not read its answer occupies one socket for a limited time.
//!
//! A connection serves one request, so that one timeout limits all of it.

use super::shared::Shared;
use super::tasks::spawn;
use crate::model::NamedLimit;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

/// How long accepting pauses after an error such as "too many open files".
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The number of clients of the metrics listener.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) open: AtomicU64,
}

/// A guard: counts one client while it lives.
struct ClientSlot(Arc<Shared>);

impl ClientSlot {
    /// Takes a slot; `None` if `metrics_connections_max` is reached.
    fn acquire(shared: &Arc<Shared>) -> Option<Self> {
        let clients = &shared.http_clients;
        let most = u64::from(shared.current().settings.metrics.connections_max);
        if clients.open.fetch_add(1, Ordering::Relaxed) < most {
            return Some(Self(Arc::clone(shared)));
        }
        clients.open.fetch_sub(1, Ordering::Relaxed);
        shared.broker.refusals().note(NamedLimit::MetricsConnectionsMax);
        None
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.0.http_clients.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts clients until the task is aborted.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, router: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Some(slot) = ClientSlot::acquire(&shared) {
                    let timeout = shared.current().settings.metrics.timeout;
                    let router = router.clone();
                    drop(spawn(&Handle::current(), async move {
                        serve_one(stream, router, timeout).await;
                        drop(slot);
                    }));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "accepting on the metrics listener failed");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Answers one request. The connection is closed on an error or when the timeout passes.
async fn serve_one(stream: TcpStream, router: Router, timeout: Duration) {
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(HEAD_BYTES_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Ok(Err(error)) = tokio::time::timeout(timeout, connection).await {
        tracing::debug!(%error, "a client of the metrics listener");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Larger than the buffers of two sockets.
    const ANSWER_BYTES: usize = 64 << 20;

    /// Serves one client that sends `request` and then reads nothing. Returns the client's socket once the broker has
    /// closed its own end.
    async fn served(request: &[u8], timeout: Duration) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client.write_all(request).await.unwrap();
        let router = Router::new()
            .route("/large", get(async || vec![b'x'; ANSWER_BYTES]))
            .route("/small", get(async || "whole"));
        serve_one(stream, router, timeout).await;
        client
    }

    #[tokio::test]
    async fn a_client_that_sends_half_a_request_or_does_not_read_its_answer_is_disconnected() {
        for request in ["", "GET", "GET /small HTTP/1.1\r\nHost: x\r\n", "GET /large HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let mut client = served(request.as_bytes(), Duration::from_millis(100)).await;
            let mut answer = Vec::new();
            // A reset ends the connection as well.
            let _ = client.read_to_end(&mut answer).await;
            assert!(answer.len() < ANSWER_BYTES, "{request:?}");
        }
    }

    #[tokio::test]
    async fn a_request_is_answered_completely_and_a_connection_serves_only_one() {
        let request = "GET /small HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
        let mut client = served(request.as_bytes(), Duration::from_secs(10)).await;
        let mut answer = String::new();
        // The second request may reset the connection after the answer.
        let _ = client.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("whole"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    }
}
