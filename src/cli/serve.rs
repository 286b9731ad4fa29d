//! `prontomq serve`: a broker until it is told to stop.

use crate::config::sources::{File, Flag};
use crate::config::{Settings, Sources};
use crate::server::Server;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

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
}

impl Serve {
    pub(super) fn run(self) -> ExitCode {
        let settings = match self.settings() {
            Ok(settings) => settings,
            Err(problem) => return fail(&problem),
        };
        share_arenas();
        super::log::begin(settings.log_format, settings.log_level);
        raise_file_limit();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = match builder.enable_all().event_interval(EVENT_INTERVAL).build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(&format!("no runtime: {error}")),
        };
        let code = runtime.block_on(serve(settings));
        runtime.shutdown_timeout(RUNTIME_PATIENCE);
        code
    }

    fn settings(&self) -> Result<Settings, String> {
        let path = self.config.as_ref().map(|path| path.display().to_string());
        let text = match &self.config {
            Some(file) => {
                std::fs::read_to_string(file).map_err(|error| format!("config: {}: {error}", file.display()))?
            }
            None => String::new(),
        };
        let file = path.as_ref().map(|path| File { path, text: &text });
        let flag = |flag, setting, value: &Option<String>| {
            value.as_ref().map(|value| Flag { flag, setting, value: value.clone() })
        };
        let amqp = (!self.amqp.is_empty()).then(|| self.amqp.join(","));
        let flags = [
            flag("--data-dir", "data_dir", &self.data_dir),
            flag("--amqp", "amqp", &amqp),
            flag("--metrics", "metrics", &self.metrics),
            flag("--log-format", "log_format", &self.log_format),
        ];
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let sources = Sources { file, environment, flags: flags.into_iter().flatten().collect() };
        sources.settings().map_err(|error| error.to_string())
    }
}

#[expect(clippy::print_stderr, reason = "the command line's own words")]
fn fail(problem: &str) -> ExitCode {
    eprintln!("prontomq: {problem}");
    ExitCode::FAILURE
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

async fn serve(settings: Settings) -> ExitCode {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return fail("no signal handlers");
    };
    let data_dir = settings.data_dir.display().to_string();
    let server = match Server::start(settings).await {
        Ok(server) => server,
        Err(error) => return fail(&error.to_string()),
    };
    welcome(&server, &data_dir);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    let stopping = tokio::time::timeout(STOP_PATIENCE, server.stop());
    tokio::select! {
        stopped = stopping => match stopped {
            Ok(Ok(())) => {
                tracing::info!("stopped");
                ExitCode::SUCCESS
            }
            Ok(Err(error)) => fail(&format!("the store could not be closed: {error:?}")),
            Err(_) => fail("stopping took too long"),
        },
        // A second signal ends the process at once.
        _ = terminate.recv() => std::process::exit(1),
        _ = interrupt.recv() => std::process::exit(1),
    }
}

/// Says on stdout that clients can connect, where, how to stop and what to try. Testcontainers wait for the first words.
/// A URL without a path means the vhost `/` to every client; with a lone slash some take it for the vhost without a name.
fn welcome(server: &Server, data_dir: &str) {
    let mut text = String::from("Server startup complete; 0 plugins started.\n");
    for address in server.amqp_addresses() {
        text += &format!("  AMQP 0-9-1 on amqp://guest:guest@{address}\n");
    }
    if let Some(address) = server.metrics_address() {
        text += &format!("  metrics on http://{address}/metrics\n");
    }
    text +=
        &format!("  data in {data_dir}\n  stop with Ctrl-C; try `cargo run --example hello` from another terminal\n");
    let mut stdout = std::io::stdout().lock();
    // A closed stdout is no reason to stop.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
