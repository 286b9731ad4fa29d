//! `prontomq serve`: a broker until a signal stops it.

use super::banner;
use super::log::Log;
use crate::config::catalogue;
use crate::config::sources::{File, Flag};
use crate::config::{LogFormat, Reloaded, Settings, Sources};
use crate::server::Server;
use crate::store::chain;
use clap::Args;
use rusqlite::ffi;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long a stop may take in all before the process ends regardless.
const STOP_PATIENCE: Duration = Duration::from_millis(4500);
/// Handing the last log lines over takes no longer.
const RUNTIME_PATIENCE: Duration = Duration::from_millis(200);

/// Tasks that a worker runs before it looks for sockets that have become ready. A busy connection's task takes
/// milliseconds at a time, so that tokio's 61 would leave a quiet client waiting for a second.
const EVENT_INTERVAL: u32 = 2;

/// Run a broker.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Read settings from this file.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Keep everything in this directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Speak AMQP on this address; may be given more than once. Port 0 picks a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    amqp: Vec<String>,
    /// Serve /metrics, /healthz and /readyz on this address; `off` serves none.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<String>,
    /// How log lines look: auto, human or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Write log lines of this level and of those before it: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Print the settings that flags, environment and file make together, without users and vhosts, and start nothing.
    #[arg(long)]
    print_settings: bool,
}

impl Serve {
    pub(super) fn run(self) -> ExitCode {
        ignore_signals();
        let (settings, log) = match self.read() {
            Ok(settings) => {
                let log = Log::begin(settings.logging.format, &settings);
                (settings, log)
            }
            Err(Refused { problem, log_format }) => {
                let log = Log::begin(log_format, &Settings::default());
                log.fail(&problem);
                log.flush();
                return ExitCode::FAILURE;
            }
        };
        if self.print_settings {
            let text = catalogue::as_file(&settings);
            log.print(&text, || tracing::info!(settings = text, "settings"));
            log.flush();
            return ExitCode::SUCCESS;
        }
        share_arenas();
        count_no_memory();
        raise_file_limit();
        let code = self.run_with(settings, &log).unwrap_or_else(|problem| {
            log.fail(&problem);
            ExitCode::FAILURE
        });
        log.flush();
        code
    }

    /// Runs the broker to its end.
    fn run_with(&self, settings: Settings, log: &Log) -> Result<ExitCode, String> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().event_interval(EVENT_INTERVAL).build();
        let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
        let code = runtime.block_on(self.serve(settings, log));
        runtime.shutdown_timeout(RUNTIME_PATIENCE);
        code
    }

    async fn serve(&self, settings: Settings, log: &Log) -> Result<ExitCode, String> {
        let mut signals = Signals::listen().map_err(|error| format!("no signal handlers: {error}"))?;
        let started = Server::start_logged(settings.clone(), log.writers()).await;
        let server = started.map_err(|error| error.to_string())?;
        let program = std::env::args().next().unwrap_or_else(|| "prontomq".to_owned());
        banner::print(log, &server, &settings, &program);
        while signals.next().await == Wish::Reload {
            self.reload(&server, log).await;
        }
        tracing::info!("stopping");
        let stopping = tokio::time::timeout(STOP_PATIENCE, server.stop());
        tokio::select! {
            stopped = stopping => match stopped {
                Ok(Ok(())) => {
                    tracing::info!("stopped");
                    Ok(ExitCode::SUCCESS)
                }
                Ok(Err(error)) => Err(format!("the store could not be closed: {}", chain(&error))),
                Err(_) => Err("stopping took too long".to_owned()),
            },
            // A second signal ends the process at once.
            () = signals.stop() => std::process::exit(1),
        }
    }

    /// Reads the settings again, and takes over what can be changed while the broker runs.
    async fn reload(&self, server: &Server, log: &Log) {
        let reloaded = match self.read() {
            Ok(settings) => server.reload(&settings).await.map_err(|error| error.to_string()),
            Err(Refused { problem, .. }) => Err(problem),
        };
        match reloaded {
            Ok(Reloaded { settings, changed, needs_restart }) => {
                log.reload(&settings);
                tracing::info!(changed = changed.join(", "), "settings reloaded");
                if !needs_restart.is_empty() {
                    let settings = needs_restart.join(", ");
                    tracing::warn!(settings, "changed settings take effect at the next start");
                }
            }
            Err(problem) => tracing::error!(problem, "the settings were not reloaded; the former ones stay in force"),
        }
    }

    fn read(&self) -> Result<Settings, Refused> {
        let path = self.config.as_ref().map(|path| path.display().to_string());
        let text = match &self.config {
            Some(file) => std::fs::read_to_string(file).map_err(|error| format!("config: {}: {error}", file.display())),
            None => Ok(String::new()),
        };
        let file = path.as_ref().zip(text.as_ref().ok()).map(|(path, text)| File { path, text });
        let sources = Sources { file, environment: environment(), flags: self.flags() };
        let refused = |problem| Refused { problem, log_format: sources.log_format() };
        if let Err(problem) = &text {
            return Err(refused(problem.clone()));
        }
        sources.settings().map_err(|error| refused(error.to_string()))
    }

    fn flags(&self) -> Vec<Flag> {
        let flag = |flag, setting, value: &Option<String>| {
            value.as_ref().map(|value| Flag { flag, setting, value: value.clone() })
        };
        let amqp = (!self.amqp.is_empty()).then(|| self.amqp.join(","));
        let flags = [
            flag("--data-dir", "data_dir", &self.data_dir),
            flag("--amqp", "amqp", &amqp),
            flag("--metrics", "metrics", &self.metrics),
            flag("--log-format", "log_format", &self.log_format),
            flag("--log-level", "log_level", &self.log_level),
        ];
        flags.into_iter().flatten().collect()
    }
}

/// Why the settings cannot be used, and how to log that.
struct Refused {
    problem: String,
    log_format: LogFormat,
}

fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Stop,
    Reload,
}

/// The signals that the broker takes note of.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Wish::Stop {}
    }
}

/// None of these is to end the process, not even before the broker takes note of SIGHUP.
#[expect(unsafe_code, reason = "the standard library changes no signal's disposition")]
fn ignore_signals() {
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: no handler is installed, and no other thread runs yet.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// The C library's allocator gives each thread an arena of its own, up to eight per processor, and what is freed in one stays
/// there. Most of what the broker frees another thread has allocated: one arena per thread of the runtime and one for the store
/// take less memory when a thousand queues drain, and no time. With fewer, the threads wait for each other.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "there is no other way to tell the allocator")]
fn share_arenas() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let arenas = i32::try_from(processors + 1).unwrap_or(i32::MAX);
    // SAFETY: it sets a number, and no other thread runs yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn share_arenas() {}

/// SQLite counts every allocation under one lock, for statistics that nobody asks for. A program that embeds the broker decides for
/// itself: the switch is one of the whole process.
#[expect(unsafe_code, reason = "rusqlite has no such switch")]
fn count_no_memory() {
    // SAFETY: SQLite has not been used yet, and no other thread runs that could.
    let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0) };
    if code != ffi::SQLITE_OK {
        tracing::debug!(code, "SQLite goes on counting its memory");
    }
}

/// Every connection is a file: the soft limit is raised to the hard one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
}
