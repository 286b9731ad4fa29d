//! A folder with a data directory, a configuration file and a log, and what tests of `prontomq serve` ask of its broker.

use super::broker::serve;
use super::client::{Failure, Login};
use super::{Broker, Client, PATIENCE};
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A folder of a test's own, with a data directory and a configuration file in it.
pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room"))
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Writes a configuration file; its path.
    pub(crate) fn config(&self, text: &str) -> PathBuf {
        let path = self.0.path().join("prontomq.toml");
        std::fs::write(&path, text).expect("there is room");
        path
    }

    /// `prontomq serve --config` on this folder, with a file of this text.
    pub(crate) fn serve_with(&self, text: &str) -> Command {
        let mut command = serve(&self.data());
        command.arg("--config").arg(self.config(text));
        command
    }

    pub(crate) fn start_with(&self, text: &str) -> Broker {
        Broker::run(self.serve_with(text), &self.data())
    }

    /// Writes the file anew and has the broker read it; returns what is logged until that is done.
    pub(crate) fn reload(&self, broker: &Broker, text: &str) -> String {
        let before = broker.log().len();
        self.config(text);
        broker.signal(Signal::HUP);
        wait_until("the settings are reloaded, or not", || {
            let log = broker.log();
            log[before..].contains("settings reloaded") || log[before..].contains("were not reloaded")
        });
        broker.log()[before..].to_owned()
    }

    pub(crate) fn log_file(&self) -> std::fs::File {
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data().with_extension("log"))
            .expect("there is room")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data().with_extension("log")).unwrap_or_default()
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the broker offers in connection.tune.
pub(crate) fn offered_heartbeat(broker: &Broker) -> u16 {
    let (_, tune) = Client::begin(broker.amqp, Login::default()).expect("guest may log in");
    tune.heartbeat_seconds
}

pub(crate) fn login<'a>(user: &'a str, password: &'a str, vhost: &'a str) -> Login<'a> {
    Login { user, password, vhost, ..Login::default() }
}

pub(crate) fn may(broker: &Broker, login: Login<'_>) -> Result<(), Failure> {
    Client::open(broker.amqp, login).map(Client::close)
}

pub(crate) fn refusal(result: Result<(), Failure>) -> u16 {
    match result {
        Err(Failure::Connection(code, _)) => code,
        other => panic!("{other:?} instead of a refusal"),
    }
}

pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
