//! `prontomq backup`: requests a copy of the store from a running broker, or copies the store of a stopped one.

use super::store_options::StoreOptions;
use crate::server::SocketPath;
use crate::store::sqlite::{back_up, existing_database};
use crate::store::{CopyError, CopyProgress, OpenError, chain};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Copy the store of a broker to a new data directory; the broker may be running.
///
/// The backup contains everything that was confirmed before it began. To restore it, start a broker on it with your
/// usual settings: `prontomq serve --config FILE.toml --data-dir TARGET`. Users and vhosts of a configuration file
/// exist only while the file lists them. A running broker continues to work during the backup. If this command is
/// interrupted, the broker deletes the incomplete copy.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The directory to create.
    target: PathBuf,
    #[command(flatten)]
    store: StoreOptions,
}

/// A message of the broker on its local socket.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BrokerMessage {
    Progress { pages_copied: u64, pages: u64 },
    Done { bytes: u64 },
    Error(String),
}

impl Backup {
    #[expect(clippy::print_stderr, reason = "the command line's own words")]
    pub(super) fn run(&self) -> ExitCode {
        match self.back_up() {
            Ok(bytes) => {
                // If stdout is closed, the result cannot be reported.
                let _ = writeln!(io::stdout(), "{bytes} bytes in {}", self.target.display());
                ExitCode::SUCCESS
            }
            Err(why) => {
                eprintln!("prontomq backup: {why}");
                ExitCode::FAILURE
            }
        }
    }

    /// Makes the backup. Returns the number of bytes of the copy.
    fn back_up(&self) -> Result<u64, String> {
        let directory = self.store.directory()?;
        let target = std::path::absolute(&self.target).map_err(|error| error.to_string())?;
        let bar = progress_bar();
        let connected = SocketPath::of(&directory).and_then(|socket| UnixStream::connect(socket.path()));
        let copied = match connected {
            Ok(stream) => request_backup(&target, stream, &bar),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // If this user may not even read the directory, that is the better error.
                existing_database(&directory).map_err(|error| chain(&error).to_string()).and_then(|_| {
                    let why = "run this as the user that the broker runs as";
                    let at = directory.display();
                    Err(format!("no permission to connect to the broker of {at}: {why}"))
                })
            }
            Err(_) => copy_directly(&directory, &target, &bar),
        };
        bar.finish_and_clear();
        copied
    }
}

/// A progress bar on stderr, drawn only on a terminal.
fn progress_bar() -> ProgressBar {
    let style = "{wide_bar} {percent}% of {len} pages, {eta} to go";
    ProgressBar::new(0).with_style(ProgressStyle::with_template(style).expect("the template is a constant"))
}

fn request_backup(target: &Path, mut stream: UnixStream, bar: &ProgressBar) -> Result<u64, String> {
    let lost = |error: io::Error| format!("the broker does not answer: {error}");
    let target = target.to_str().ok_or("the target's name is not valid UTF-8")?;
    let request = json!({ "command": "backup", "target": target });
    stream.write_all(format!("{request}\n").as_bytes()).map_err(lost)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(lost)?;
        match serde_json::from_str(&line)
            .map_err(|error| format!("unexpected answer from the broker: {line:?}: {error}"))?
        {
            BrokerMessage::Progress { pages_copied, pages } => show(bar, pages_copied, pages),
            BrokerMessage::Done { bytes } => return Ok(bytes),
            BrokerMessage::Error(why) => return Err(why),
        }
    }
    Err("the broker closed the connection; no backup was made".into())
}

fn copy_directly(directory: &Path, target: &Path, bar: &ProgressBar) -> Result<u64, String> {
    let show = |progress: CopyProgress| show(bar, progress.pages_copied, progress.pages);
    back_up(directory, target, show).map_err(|error| match error {
        CopyError::Open(OpenError::Locked { pid: Some(pid) }) => {
            format!("process {pid} holds {} and does not listen on its local socket", directory.display())
        }
        other => chain(&other).to_string(),
    })
}

fn show(bar: &ProgressBar, pages_copied: u64, pages: u64) {
    bar.set_length(pages);
    bar.set_position(pages_copied);
}
