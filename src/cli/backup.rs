//! `prontomq backup`: asks a running broker for a copy of its store, or copies that of one that does not run.

use super::place::StorePlace;
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

/// Copy the store of a broker, running or not, to a new data directory.
///
/// What was confirmed before the backup began is in it, whole. To restore it, start a broker with your usual settings on it:
/// `prontomq serve --config FILE.toml --data-dir TARGET`; users and vhosts of a file are only there while the file names them. A
/// running broker goes on meanwhile; when this command is interrupted, it removes what there is of the copy.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The directory to be made.
    target: PathBuf,
    #[command(flatten)]
    place: StorePlace,
}

/// What a broker says on its local socket.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Progress { pages_copied: u64, pages: u64 },
    Done { bytes: u64 },
    Error(String),
}

impl Backup {
    #[expect(clippy::print_stderr, reason = "the command line's own words")]
    pub(super) fn run(&self) -> ExitCode {
        match self.back_up() {
            Ok(bytes) => {
                // A closed stdout has nobody to be told.
                let _ = writeln!(io::stdout(), "{bytes} bytes in {}", self.target.display());
                ExitCode::SUCCESS
            }
            Err(why) => {
                eprintln!("prontomq backup: {why}");
                ExitCode::FAILURE
            }
        }
    }

    /// The bytes of the copy.
    fn back_up(&self) -> Result<u64, String> {
        let directory = self.place.directory()?;
        let target = std::path::absolute(&self.target).map_err(|error| error.to_string())?;
        let bar = progress_bar();
        let connected = SocketPath::of(&directory).and_then(|socket| UnixStream::connect(socket.path()));
        let copied = match connected {
            Ok(stream) => ask_for(&target, stream, &bar),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // It may be the directory that is closed to this user.
                existing_database(&directory).map_err(|error| chain(&error).to_string()).and_then(|_| {
                    let why = "run this as the user that the broker runs as";
                    let at = directory.display();
                    Err(format!("no permission to speak to the broker of {at}: {why}"))
                })
            }
            Err(_) => copy_itself(&directory, &target, &bar),
        };
        bar.finish_and_clear();
        copied
    }
}

/// Drawn on stderr, and only where that is a terminal.
fn progress_bar() -> ProgressBar {
    let style = "{wide_bar} {percent}% of {len} pages, {eta} to go";
    ProgressBar::new(0).with_style(ProgressStyle::with_template(style).expect("the template is a constant"))
}

fn ask_for(target: &Path, mut stream: UnixStream, bar: &ProgressBar) -> Result<u64, String> {
    let lost = |error: io::Error| format!("the broker does not answer: {error}");
    let target = target.to_str().ok_or("the target's name is no text")?;
    let request = json!({ "command": "backup", "target": target });
    stream.write_all(format!("{request}\n").as_bytes()).map_err(lost)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(lost)?;
        match serde_json::from_str(&line).map_err(|error| format!("the broker says {line:?}: {error}"))? {
            Said::Progress { pages_copied, pages } => show(bar, pages_copied, pages),
            Said::Done { bytes } => return Ok(bytes),
            Said::Error(why) => return Err(why),
        }
    }
    Err("the broker has gone; there is no backup".into())
}

fn copy_itself(directory: &Path, target: &Path, bar: &ProgressBar) -> Result<u64, String> {
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
