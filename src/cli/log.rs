//! The destination and the format of log lines and of the command's own output.
//!
//! A thread of its own (`LogWriter`) writes each standard stream. If a stream is closed, full or unread, lines are
//! lost, and nothing else happens.

use crate::config::{LogFormat, LogLevel, Settings};
use crate::server::LogWriter;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write, stderr, stdout};
use std::panic::PanicHookInfo;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// How long the end of the process waits for the last lines to be written.
const FLUSH_PATIENCE: Duration = Duration::from_millis(200);

/// The log of this process.
pub(super) struct Log {
    errors: LogWriter,
    output: LogWriter,
    level: reload::Handle<LevelFilter, Registry>,
    /// The command's own output is written as JSON log lines too.
    is_all_json: bool,
}

impl Log {
    /// Starts the log on stderr: readable text on a terminal, one JSON object per line otherwise, or as the setting
    /// demands. Panics are logged too. Call this once in a process.
    pub(super) fn begin(format: LogFormat, settings: &Settings) -> Self {
        let bytes_max = queue_bytes(settings);
        let errors = LogWriter::start("stderr", stderr(), bytes_max);
        let output = LogWriter::start("stdout", stdout(), bytes_max);
        let is_terminal = stderr().is_terminal();
        let (level, handle) = reload::Layer::new(level_filter(settings.logging.level));
        let is_json = format == LogFormat::Json || (format == LogFormat::Auto && !is_terminal);
        let lines = lines(&errors, is_json, is_terminal);
        tracing_subscriber::registry().with(level).with(lines).init();
        std::panic::set_hook(Box::new(log_panic));
        Self { errors, output, level: handle, is_all_json: format == LogFormat::Json }
    }

    /// The writers of both streams.
    pub(super) fn writers(&self) -> Vec<LogWriter> {
        vec![self.errors.clone(), self.output.clone()]
    }

    /// Applies the settings that can change while the process runs.
    pub(super) fn reload(&self, settings: &Settings) {
        for writer in [&self.errors, &self.output] {
            writer.set_bytes_max(queue_bytes(settings));
        }
        // This fails only if the subscriber is gone, but it lives as long as the process.
        let _ = self.level.reload(level_filter(settings.logging.level));
    }

    /// Reports on stderr why the command fails.
    pub(super) fn fail(&self, problem: &str) {
        if self.is_all_json {
            tracing::error!("{problem}");
        } else {
            self.errors.write(format!("prontomq: {problem}\n").as_bytes());
        }
    }

    /// Writes `text` to stdout, after the log lines so far. If all output is JSON, `as_line` logs it instead.
    pub(super) fn print(&self, text: &str, as_line: impl FnOnce()) {
        self.errors.flush(FLUSH_PATIENCE);
        if self.is_all_json {
            let line = tracing_subscriber::registry().with(lines(&self.output, true, false));
            tracing::subscriber::with_default(line, as_line);
        } else {
            self.output.write(text.as_bytes());
        }
    }

    /// Waits a moment for the queued lines to be written.
    pub(super) fn flush(&self) {
        self.errors.flush(FLUSH_PATIENCE);
        self.output.flush(FLUSH_PATIENCE);
    }
}

fn queue_bytes(settings: &Settings) -> usize {
    usize::try_from(settings.logging.queue_bytes_max).unwrap_or(usize::MAX)
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Formats log lines and gives them to `writer`.
fn lines<S>(writer: &LogWriter, is_json: bool, is_terminal: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let writer = writer.clone();
    let layer = fmt::layer()
        .with_writer(move || Line(writer.clone()))
        .with_target(false)
        .with_ansi(is_terminal)
        // These errors would be written to stderr directly, and could block.
        .log_internal_errors(false);
    if is_json { layer.json().flatten_event(true).boxed() } else { layer.boxed() }
}

/// Writes one formatted line, which arrives in one call.
struct Line(LogWriter);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Logs a panic. It replaces the standard hook, which writes to stderr directly and could block for ever.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let reason = panic.payload_as_str().unwrap_or("no text");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(thread, location, reason, %backtrace, "a thread panicked");
    } else {
        tracing::error!(thread, location, reason, "a thread panicked");
    }
}
