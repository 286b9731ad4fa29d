//! The local socket: how commands on the same machine speak to a running broker.
//!
//! It lies in the data directory and is for the broker's own user (and root) alone. A client sends one JSON object a line
//! and gets JSON objects, one a line: any number of `{"progress": ...}`, and at the end of each request one `{"done": ...}`
//! or one `{"error": "why"}`. A client that hangs up ends what it has asked for.
//!
//! | request | progress | done |
//! |---|---|---|
//! | `{"command": "backup", "target": "/absolute/path"}` | `{"pages_copied": 5, "pages": 90}` | `{"bytes": 123}` |
//! | `{"command": "status"}` | | totals, such as `{"queues": 3, "ready": 7, ...}` |
//! | `{"command": "list", "what": "queues"}`; also `exchanges`, `connections` | | `{"count": 3}` |
//!
//! A list comes before its `done`, one `{"item": {...}}` a line.

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

/// How often a client hears of progress, at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How long accepting pauses after an error such as "too many open files".
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// The longest path of a socket, with the zero behind it (`sun_path`).
const PATH_BYTES_MAX: usize = 108;

/// How the socket of a data directory is reached.
///
/// A path may be longer than the address of a socket can be. Then the directory is opened, and the socket is reached through the
/// open directory, whose path below `/proc` is short. The path is valid for as long as this lives.
#[derive(Debug)]
pub(crate) struct SocketPath {
    path: PathBuf,
    /// Keeps the path valid.
    _directory: Option<File>,
}

impl SocketPath {
    /// Where a broker on this data directory listens.
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

/// The socket in a data directory that this process holds; gone again when dropped, unless a successor has put its own there.
pub(super) struct LocalSocket {
    listener: UnixListener,
    path: SocketPath,
    /// Of the socket's file.
    inode: u64,
}

impl LocalSocket {
    /// Listens in place of a predecessor that was killed.
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
                Ok((stream, _)) if is_welcome(&stream) => {
                    let task = serve(Arc::clone(&shared), stream);
                    drop(spawn(&Handle::current(), connections.track_future(task)));
                }
                Ok(_) => tracing::warn!("another user was turned away from the local socket"),
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
        let is_ours = std::fs::symlink_metadata(path).is_ok_and(|found| found.ino() == self.inode);
        if is_ours && let Err(error) = std::fs::remove_file(path) {
            tracing::debug!(%error, "the local socket's file stays");
        }
    }
}

/// The file's mode says the same; between bind and chmod it does not.
fn is_welcome(stream: &UnixStream) -> bool {
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

/// A client, and the word that the broker stops.
struct Client {
    shared: Arc<Shared>,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    stopping: watch::Receiver<bool>,
}

/// Why a request has no answer.
enum Ended {
    /// Tell the client.
    Failed(String),
    /// There is nobody to tell.
    HungUp,
}

impl From<CopyError> for Ended {
    fn from(error: CopyError) -> Self {
        Self::Failed(chain(&error).to_string())
    }
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::HungUp
    }
}

async fn serve(shared: Arc<Shared>, stream: UnixStream) {
    let (reader, writer) = stream.into_split();
    let stopping = shared.stopping.subscribe();
    let mut client = Client { shared, reader: BufReader::new(reader), writer, stopping };
    while let Ok(line) = client.line().await {
        let answer = match serde_json::from_slice(&line) {
            Ok(Request::Backup { target }) => client.backup(&target).await,
            Ok(Request::Status {}) => client.status().await,
            Ok(Request::List { what }) => client.list(what).await,
            Err(error) => Err(Ended::Failed(format!("no such request: {error}"))),
        };
        let told = match answer {
            Ok(done) => client.say(&json!({ "done": done })).await,
            Err(Ended::Failed(why)) => client.say(&json!({ "error": why })).await,
            Err(Ended::HungUp) => return,
        };
        if told.is_err() {
            return;
        }
    }
}

impl Client {
    /// The next line; an error at its end, when the broker stops, and for a line that is too long.
    async fn line(&mut self) -> Result<Vec<u8>, Ended> {
        let mut line = Vec::new();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX);
        tokio::select! {
            read = limited.read_until(b'\n', &mut line) => { read?; }
            _ = self.stopping.wait_for(|stopping| *stopping) => return Err(Ended::HungUp),
        }
        if line.ends_with(b"\n") { Ok(line) } else { Err(Ended::HungUp) }
    }

    async fn say(&mut self, line: &Value) -> io::Result<()> {
        self.writer.write_all(format!("{line}\n").as_bytes()).await
    }

    /// Returns when the client has hung up. What it says before its time is kept.
    async fn hung_up(reader: &mut BufReader<OwnedReadHalf>) {
        if let Ok([_, ..]) = reader.fill_buf().await {
            std::future::pending::<()>().await;
        }
    }

    /// The totals of the broker.
    async fn status(&self) -> Result<Value, Ended> {
        let broker = Arc::clone(&self.shared.broker);
        // Many queues take their time, which no connection is to wait for.
        Ok(run_blocking(move || status(&broker)).await)
    }

    /// Sends the items of a listing.
    async fn list(&mut self, what: Listing) -> Result<Value, Ended> {
        let broker = Arc::clone(&self.shared.broker);
        let items = run_blocking(move || what.items(&broker)).await;
        for item in &items {
            self.say(&json!({ "item": item })).await?;
        }
        Ok(json!({ "count": items.len() }))
    }

    /// Copies the store while the broker goes on.
    async fn backup(&mut self, target: &Path) -> Result<Value, Ended> {
        if !target.is_absolute() {
            return Err(Ended::Failed("the target of a backup is an absolute path".into()));
        }
        let making = target.to_owned();
        // Dropped on every way out of here, it takes with it what there is of the copy.
        let target = run_blocking(move || BackupTarget::make(&making)).await?;
        let (heard, mut events) = watch::channel(CopyEvent::Progress(CopyProgress::default()));
        let given_up = Arc::new(AtomicBool::new(false));
        let gives_up = Arc::clone(&given_up);
        // Nobody listens any more once this task is gone.
        let hears = Box::new(move |event| heard.send(event).is_ok() && !gives_up.load(Ordering::Relaxed));
        self.shared.broker.writer().copy(target.file(), hears)?;
        tracing::info!(target = %target.file().display(), "a backup begins");
        if let Err(ended) = self.follow(&mut events).await {
            tracing::info!(target = %target.file().display(), "a backup is given up");
            given_up.store(true, Ordering::Relaxed);
            // Until the writer has let go of it, so that the next one need not wait.
            while events.changed().await.is_ok() {}
            return Err(ended);
        }
        let bytes = run_blocking(move || target.finish()).await?;
        tracing::info!(bytes, "a backup is done");
        Ok(json!({ "bytes": bytes }))
    }

    /// Tells the client how far the copy has come, until all of it is there.
    async fn follow(&mut self, events: &mut watch::Receiver<CopyEvent>) -> Result<(), Ended> {
        loop {
            tokio::select! {
                changed = events.changed() => if changed.is_err() {
                    return Err(Ended::Failed("the writer's thread died".into()));
                },
                () = Self::hung_up(&mut self.reader) => return Err(Ended::HungUp),
                _ = self.stopping.wait_for(|stopping| *stopping) => {
                    return Err(Ended::Failed("the broker stops".into()));
                }
            }
            let event = events.borrow_and_update().clone();
            match event {
                CopyEvent::Failed(error) => return Err(error.into()),
                CopyEvent::Progress(CopyProgress { pages_copied, pages, is_done }) => {
                    self.say(&json!({ "progress": { "pages_copied": pages_copied, "pages": pages } })).await?;
                    if is_done {
                        return Ok(());
                    }
                    tokio::time::sleep(PROGRESS_INTERVAL).await;
                }
            }
        }
    }
}
