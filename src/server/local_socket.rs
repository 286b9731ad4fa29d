//! The local socket: how commands on the same machine talk to a running broker.
//!
//! The socket lies in the data directory and accepts only the broker's own user and root. A client sends requests as
//! JSON objects, one per line. The answers are JSON objects too, one per line: any number of `{"progress": ...}`, and
//! at the end of each request one `{"done": ...}` or one `{"error": "why"}`. When a client hangs up, its request is
//! cancelled.
//!
//! | request | progress | done |
//! |---|---|---|
//! | `{"command": "backup", "target": "/absolute/path"}` | `{"pages_copied": 5, "pages": 90}` | `{"bytes": 123}` |
//! | `{"command": "status"}` | | totals, such as `{"queues": 3, "ready": 7, ...}` |
//! | `{"command": "list", "what": "queues"}`; also `exchanges`, `connections` | | `{"count": 3}` |
//!
//! The items of a list precede its `done`, one `{"item": {...}}` per line.

use super::listings::{Listing, status};
use super::shared::Shared;
use super::tasks::{run_blocking, spawn};
use crate::store::commit::CopyEvent;
use crate::store::sqlite::BackupTarget;
use crate::store::{CopyError, CopyProgress, chain};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

const SOCKET_FILE: &str = "prontomq.sock";

/// The longest line that a client may send.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// The shortest time between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How long accepting pauses after an error such as "too many open files".
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// The longest path of a socket, including the final zero byte (`sun_path`).
const PATH_BYTES_MAX: usize = 108;

/// The path by which the socket of a data directory is reached.
///
/// If the path is too long for a socket's address, the directory is opened, and the socket is reached through the open
/// directory, whose path below `/proc` is short. The path is valid while this value lives.
#[derive(Debug)]
pub(crate) struct SocketPath {
    path: PathBuf,
    /// Keeps the path valid.
    _directory: Option<File>,
}

impl SocketPath {
    /// The socket of a broker on this data directory.
    ///
    /// # Errors
    /// When the path is too long and the directory cannot be opened.
    pub(crate) fn of(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(SOCKET_FILE);
        if path.as_os_str().len() < PATH_BYTES_MAX {
            return Ok(Self { path, _directory: None });
        }
        let directory = File::open(data_dir)?;
        let path = format!("/proc/self/fd/{}/{SOCKET_FILE}", directory.as_raw_fd());
        Ok(Self { path: path.into(), _directory: Some(directory) })
    }

    /// The path to bind or to connect to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The socket in the data directory of this process. Dropping it deletes the socket's file, unless another process has
/// replaced the file.
pub(super) struct LocalSocket {
    listener: UnixListener,
    path: SocketPath,
    /// Inode of the socket's file.
    inode: u64,
}

impl LocalSocket {
    /// Binds the socket. Replaces the file of an earlier process that was killed.
    pub(super) fn bind(data_dir: &Path) -> io::Result<Self> {
        let path = SocketPath::of(data_dir)?;
        match std::fs::remove_file(path.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path.path())?;
        let inode = std::fs::symlink_metadata(path.path())?.ino();
        let socket = Self { listener, path, inode };
        std::fs::set_permissions(socket.path.path(), PermissionsExt::from_mode(0o600))?;
        Ok(socket)
    }

    /// Serves clients until the server stops.
    pub(super) async fn accept(self, shared: Arc<Shared>, connections: TaskTracker) {
        let mut stopping = shared.stopping.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            match accepted {
                Ok((stream, _)) if is_allowed(&stream) => {
                    let task = serve(Arc::clone(&shared), stream);
                    drop(spawn(&Handle::current(), connections.track_future(task)));
                }
                Ok(_) => tracing::warn!("another user was refused on the local socket"),
                Err(error) => {
                    tracing::warn!(%error, "accepting on the local socket failed");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        let path = self.path.path();
        let is_ours = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.ino() == self.inode);
        if is_ours && let Err(error) = std::fs::remove_file(path) {
            tracing::debug!(%error, "the local socket's file could not be deleted");
        }
    }
}

/// Whether the client belongs to the broker's user or root. The file's mode enforces the same, but not yet between bind
/// and chmod.
fn is_allowed(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == ours || peer.uid() == 0)
}

#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Backup { target: PathBuf },
    Status {},
    List { what: Listing },
}

/// The next line of a client.
enum Line {
    Request(Vec<u8>),
    TooLong,
    /// Nothing more follows.
    End,
}

/// A connected client.
struct Client {
    shared: Arc<Shared>,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// Becomes true when the broker stops.
    stopping: watch::Receiver<bool>,
}

/// Why a request was not completed.
enum RequestError {
    /// The reason is sent to the client.
    Failed(String),
    /// The client is gone.
    HungUp,
}

impl From<CopyError> for RequestError {
    fn from(error: CopyError) -> Self {
        Self::Failed(chain(&error).to_string())
    }
}

impl From<io::Error> for RequestError {
    fn from(_: io::Error) -> Self {
        Self::HungUp
    }
}

async fn serve(shared: Arc<Shared>, stream: UnixStream) {
    let (reader, writer) = stream.into_split();
    let stopping = shared.stopping.subscribe();
    let mut client = Client { shared, reader: BufReader::new(reader), writer, stopping };
    loop {
        let answer = match client.read_line().await {
            Ok(Line::Request(line)) => client.answer(&line).await,
            Ok(Line::TooLong) => Err(RequestError::Failed(format!("a request is longer than {LINE_BYTES_MAX} bytes"))),
            Ok(Line::End) | Err(_) => return,
        };
        let sent = match answer {
            Ok(done) => client.send(&json!({ "done": done })).await,
            Err(RequestError::Failed(why)) => client.send(&json!({ "error": why })).await,
            Err(RequestError::HungUp) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Whether more of the line follows.
fn is_cut(part: &[u8]) -> bool {
    part.len() as u64 == LINE_BYTES_MAX && !part.ends_with(b"\n")
}

/// The error text for a line that is not a request.
fn not_a_request(error: &serde_json::Error) -> String {
    if !error.is_data() {
        return "not a valid request: the line is not a JSON object".to_owned();
    }
    let text = error.to_string();
    // The place in the line follows.
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("not a valid request: {what}")
}

impl Client {
    async fn answer(&mut self, line: &[u8]) -> Result<Value, RequestError> {
        match serde_json::from_slice(line) {
            Ok(Request::Backup { target }) => self.backup(&target).await,
            Ok(Request::Status {}) => self.status().await,
            Ok(Request::List { what }) => self.list(what).await,
            Err(error) => Err(RequestError::Failed(not_a_request(&error))),
        }
    }

    /// Reads the next line. The last one may lack its line end. Of a line that is too long the rest is skipped.
    ///
    /// # Errors
    /// `HungUp` if the socket fails, and when the broker stops.
    async fn read_line(&mut self) -> Result<Line, RequestError> {
        let mut line = self.read_part().await?;
        if line.is_empty() {
            return Ok(Line::End);
        }
        let is_too_long = is_cut(&line);
        while is_cut(&line) {
            line = self.read_part().await?;
        }
        Ok(if is_too_long { Line::TooLong } else { Line::Request(line) })
    }

    /// Reads to the end of the line, or as much of it as a line may have. Empty at the end of the input.
    async fn read_part(&mut self) -> Result<Vec<u8>, RequestError> {
        let mut part = Vec::new();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX);
        tokio::select! {
            read = limited.read_until(b'\n', &mut part) => { read?; }
            _ = self.stopping.wait_for(|stopping| *stopping) => return Err(RequestError::HungUp),
        }
        Ok(part)
    }

    /// Sends a line. A stop does not wait for a client that does not read.
    async fn send(&mut self, line: &Value) -> io::Result<()> {
        let line = format!("{line}\n");
        tokio::select! {
            // What the socket takes at once is sent during a stop too.
            biased;
            sent = self.writer.write_all(line.as_bytes()) => sent,
            _ = self.stopping.wait_for(|stopping| *stopping) => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    /// Waits until the client has hung up. Requests that it sends meanwhile stay in the buffer.
    async fn wait_for_hang_up(reader: &mut BufReader<OwnedReadHalf>) {
        if let Ok([_, ..]) = reader.fill_buf().await {
            std::future::pending::<()>().await;
        }
    }

    /// The totals of the broker.
    async fn status(&self) -> Result<Value, RequestError> {
        let broker = Arc::clone(&self.shared.broker);
        // Summing up many queues takes long; it must not delay connections.
        Ok(run_blocking(move || status(&broker)).await)
    }

    /// Sends the items of a listing, one per line.
    async fn list(&mut self, what: Listing) -> Result<Value, RequestError> {
        let broker = Arc::clone(&self.shared.broker);
        let items = run_blocking(move || what.items(&broker)).await;
        for item in &items {
            self.send(&json!({ "item": item })).await?;
        }
        Ok(json!({ "count": items.len() }))
    }

    /// Copies the store while the broker continues to work.
    async fn backup(&mut self, target: &Path) -> Result<Value, RequestError> {
        if !target.is_absolute() {
            return Err(RequestError::Failed("the target of a backup is an absolute path".into()));
        }
        let target_path = target.to_owned();
        // On every early return, dropping it deletes the partial copy.
        let target = run_blocking(move || BackupTarget::make(&target_path)).await?;
        let (sender, mut events) = watch::channel(CopyEvent::Progress(CopyProgress::default()));
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let cancelled = Arc::clone(&is_cancelled);
        // Sending fails once this task has ended.
        let report = Box::new(move |event| sender.send(event).is_ok() && !cancelled.load(Ordering::Relaxed));
        self.shared.broker.writer().copy(target.file(), report)?;
        tracing::info!(target = %target.file().display(), "backup started");
        if let Err(error) = self.follow(&mut events).await {
            tracing::info!(target = %target.file().display(), "backup cancelled");
            is_cancelled.store(true, Ordering::Relaxed);
            // Waits until the writer has released the copy, so that the next backup can start at once.
            while events.changed().await.is_ok() {}
            return Err(error);
        }
        let bytes = run_blocking(move || target.finish()).await?;
        tracing::info!(bytes, "backup finished");
        Ok(json!({ "bytes": bytes }))
    }

    /// Reports the progress of the copy to the client until the copy is complete.
    async fn follow(&mut self, events: &mut watch::Receiver<CopyEvent>) -> Result<(), RequestError> {
        loop {
            tokio::select! {
                changed = events.changed() => if changed.is_err() {
                    return Err(RequestError::Failed("the writer's thread died".into()));
                },
                () = Self::wait_for_hang_up(&mut self.reader) => return Err(RequestError::HungUp),
                _ = self.stopping.wait_for(|stopping| *stopping) => {
                    return Err(RequestError::Failed("the broker stops".into()));
                }
            }
            let event = events.borrow_and_update().clone();
            match event {
                CopyEvent::Failed(error) => return Err(error.into()),
                CopyEvent::Progress(CopyProgress { pages_copied, pages, is_done }) => {
                    self.send(&json!({ "progress": { "pages_copied": pages_copied, "pages": pages } })).await?;
                    if is_done {
                        return Ok(());
                    }
                    tokio::time::sleep(PROGRESS_INTERVAL).await;
                }
            }
        }
    }
}
