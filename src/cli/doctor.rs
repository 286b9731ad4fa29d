//! `prontomq doctor`: checks a store, and repairs it if asked to.

use super::store_options::StoreOptions;
use crate::store::sqlite::{Diagnosis, RepairReport, diagnose, repair};
use crate::store::{OpenError, chain};
use clap::Args;
use std::io::Write;
use std::process::ExitCode;

/// Number of findings that are printed; further ones are only counted.
const FINDINGS_MAX: usize = 100;

const FAULTY: u8 = 1;
const NOT_CHECKED: u8 = 3;

/// Check the store of a broker that does not run.
///
/// Reads every page and row: SQLite's own check; the counters of lanes against their rows; rows that are not messages;
/// bodies and bindings without an owner. Changes nothing without --repair. Exit code 0: nothing is wrong, or everything
/// was repaired; 1: something is wrong; 3: the store could not be checked or repaired, because a broker runs on it,
/// there is no store, permission is missing, the configuration is wrong, the disk is full, or the beginning of the file
/// is destroyed.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    store: StoreOptions,
    /// Repair the store, after a copy of the file is made: count again, remove rows without an owner, and copy all
    /// readable rows of a damaged file into a new one.
    #[arg(long)]
    repair: bool,
}

impl Doctor {
    #[expect(clippy::print_stderr, reason = "the command line's own words")]
    pub(super) fn run(&self) -> ExitCode {
        let directory = match self.store.directory() {
            Ok(directory) => directory,
            Err(why) => {
                eprintln!("prontomq doctor: {why}");
                return ExitCode::from(NOT_CHECKED);
            }
        };
        let done = if self.repair {
            repair(&directory).map(|repaired| repair_text(&repaired))
        } else {
            diagnose(&directory).map(|found| diagnosis_text(&found))
        };
        match done {
            Ok((text, is_sound)) => {
                // If stdout is closed, the result cannot be reported.
                let _ = std::io::stdout().write_all(text.as_bytes());
                if is_sound { ExitCode::SUCCESS } else { ExitCode::from(FAULTY) }
            }
            Err(error) => {
                let why = match error {
                    OpenError::Locked { pid: Some(pid) } => format!("process {pid} runs on it; stop the process first"),
                    other => chain(&other).to_string(),
                };
                let place = directory.display().to_string();
                let place = if why.contains(&place) { String::new() } else { format!("{place}: ") };
                eprintln!("prontomq doctor: {place}{why}");
                ExitCode::from(NOT_CHECKED)
            }
        }
    }
}

fn diagnosis_text(found: &Diagnosis) -> (String, bool) {
    let mut text = list(found);
    if !found.is_sound() {
        text += "prontomq doctor --repair keeps a copy of the file, and then would\n";
        text.extend(found.remedies.iter().map(|remedy| format!("- {remedy}\n")));
    }
    (text, found.is_sound())
}

fn repair_text(repaired: &RepairReport) -> (String, bool) {
    let mut text = list(&repaired.before);
    if let Some(kept) = &repaired.kept {
        text += &format!("the file as it was is kept as {}\n", kept.display());
        text.extend(repaired.before.remedies.iter().map(|remedy| format!("done: {remedy}\n")));
        text += "after the repair: ";
        text += &list(&repaired.after);
    }
    (text, repaired.after.is_sound())
}

fn list(found: &Diagnosis) -> String {
    let mut text = format!("{} queues, {} messages that can be read; ", found.queues, found.rows);
    text += &match found.findings.len() {
        0 => "nothing is wrong\n".to_owned(),
        1 => "1 thing is wrong\n".to_owned(),
        count => format!("{count} things are wrong\n"),
    };
    text.extend(found.findings.iter().take(FINDINGS_MAX).map(|finding| format!("- {finding}\n")));
    if let Some(more) = found.findings.len().checked_sub(FINDINGS_MAX).filter(|more| *more > 0) {
        text += &format!("- and {more} more\n");
    }
    text
}
