//! Where log lines go and how they look.

use crate::config::{LogFormat, LogLevel};
use std::io::{IsTerminal, stderr};
use tracing::level_filters::LevelFilter;

/// Sends log lines to stderr: for people on a terminal, one JSON object a line otherwise, or as the setting says.
pub(super) fn begin(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let terminal = stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_max_level(level).with_writer(stderr).with_target(false);
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    if json { lines.json().flatten_event(true).init() } else { lines.with_ansi(terminal).init() }
}
