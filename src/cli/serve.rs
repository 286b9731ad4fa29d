//! `prontomq serve`: runs a broker until a signal stops it.

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

/// How long a stop may take before the process ends anyway.
const STOP_PATIENCE: Duration = Duration::from_millis(4500);
/// How long the runtime's last tasks may take after the stop.
const RUNTIME_PATIENCE: Duration = Duration::from_millis(200);

/// Threads of the runtime, which accepts clients, answers commands and runs timers. Connections have threads of their
/// own.
const RUNTIME_THREADS: usize = 2;

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
    /// Format of log lines: auto, human or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Write log lines of this level and of all more severe ones: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Print the settings that result from flags, environment and file, without users and vhosts; do not start a
    /// broker.
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
            Err(SettingsProblem { problem, log_format }) => {
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
        limit_arenas();
        disable_memory_statistics();
        raise_file_limit();
        let code = self.run_with(settings, &log).unwrap_or_else(|problem| {
            log.fail(&problem);
            ExitCode::FAILURE
        });
        log.flush();
        code
    }

    /// Runs the broker until it stops.
    fn run_with(&self, settings: Settings, log: &Log) -> Result<ExitCode, String> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().worker_threads(RUNTIME_THREADS).build();
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
        while signals.next().await == SignalRequest::Reload {
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

    /// Reads the settings again, and applies those that can change while the broker runs.
    async fn reload(&self, server: &Server, log: &Log) {
        let reloaded = match self.read() {
            Ok(settings) => server.reload(&settings).await.map_err(|error| error.to_string()),
            Err(SettingsProblem { problem, .. }) => Err(problem),
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

    fn read(&self) -> Result<Settings, SettingsProblem> {
        let path = self.config.as_ref().map(|path| path.display().to_string());
        let text = match &self.config {
            Some(file) => std::fs::read_to_string(file).map_err(|error| format!("config: {}: {error}", file.display())),
            None => Ok(String::new()),
        };
        let file = path.as_ref().zip(text.as_ref().ok()).map(|(path, text)| File { path, text });
        let sources = Sources { file, environment: environment(), flags: self.flags() };
        let refused = |problem| SettingsProblem { problem, log_format: sources.log_format() };
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

/// Why the settings cannot be used, and the format in which to log it.
struct SettingsProblem {
    problem: String,
    log_format: LogFormat,
}

fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The request that a signal makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignalRequest {
    Stop,
    Reload,
}

/// The signals that the broker handles.
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

    async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            _ = self.terminate.recv() => SignalRequest::Stop,
            _ = self.interrupt.recv() => SignalRequest::Stop,
            _ = self.hangup.recv() => SignalRequest::Reload,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != SignalRequest::Stop {}
    }
}

/// Ignores signals that must not end the process, not even before the broker handles SIGHUP.
#[expect(unsafe_code, reason = "the standard library changes no signal's disposition")]
fn ignore_signals() {
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: no handler is installed, and no other thread runs yet.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Limits the arenas of the C library's allocator to one per thread that serves connections and one for the store. By
/// default there are up to eight per processor, and memory that is freed in one stays there. The broker mostly frees
/// memory that another thread has allocated, so fewer arenas take less memory when a thousand queues drain, without
/// costing time. With even fewer, threads would wait for each other.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the allocator has no safe interface for this")]
fn limit_arenas() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let arenas = i32::try_from(processors + 1).unwrap_or(i32::MAX);
    // SAFETY: it sets a number, and no other thread runs yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn limit_arenas() {}

/// Switches SQLite's memory statistics off, which count every allocation under one lock and are not used. The switch
/// concerns the whole process, so a program that embeds the broker decides for itself.
#[expect(unsafe_code, reason = "rusqlite has no such switch")]
fn disable_memory_statistics() {
    // SAFETY: SQLite has not been used yet, and no other thread runs that could.
    let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0) };
    if code != ffi::SQLITE_OK {
        tracing::debug!(code, "SQLite's memory statistics stay on");
    }
}

/// Raises the soft limit of open files to the hard one, since every connection is a file.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
}
