//! `prontomq doctor`: looks a store over, and mends it when told to.

use super::place::StorePlace;
use crate::store::sqlite::{Diagnosis, RepairReport, diagnose, repair};
use crate::store::{OpenError, chain};
use clap::Args;
use std::io::Write;
use std::process::ExitCode;

/// Findings that are printed; the others are counted.
const FINDINGS_MAX: usize = 100;

const WRONG: u8 = 1;
const NOT_LOOKED_OVER: u8 = 3;

/// Check the store of a broker that does not run.
///
/// Looks at every page and row: SQLite's own check; lanes' counters against their rows; rows that are no messages; bodies
/// and bindings that belong to nobody. Changes nothing without --repair. Exit code 0: nothing is wrong, or is any more; 1:
/// something is wrong; 3: it could not be looked over or repaired, because a broker runs, there is no store, permission
/// is missing, the configuration is wrong, the disk is full, or the file's beginning is destroyed.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    place: StorePlace,
    /// Mend what is wrong, once a copy of the file is made: count anew, remove what belongs to nobody, and copy what can
    /// be read of a damaged file into a new one.
    #[arg(long)]
    repair: bool,
}

impl Doctor {
    #[expect(clippy::print_stderr, reason = "the command line's own words")]
    pub(super) fn run(&self) -> ExitCode {
        let directory = match self.place.directory() {
            Ok(directory) => directory,
            Err(why) => {
                eprintln!("prontomq doctor: {why}");
                return ExitCode::from(NOT_LOOKED_OVER);
            }
        };
        let done = if self.repair {
            repair(&directory).map(|repaired| told(&repaired))
        } else {
            diagnose(&directory).map(|found| found_text(&found))
        };
        match done {
            Ok((text, is_sound)) => {
                // A closed stdout has nobody to be told.
                let _ = std::io::stdout().write_all(text.as_bytes());
                if is_sound { ExitCode::SUCCESS } else { ExitCode::from(WRONG) }
            }
            Err(error) => {
                let why = match error {
                    OpenError::Locked { pid: Some(pid) } => format!("process {pid} runs on it; stop that first"),
                    other => chain(&other).to_string(),
                };
                let place = directory.display().to_string();
                let place = if why.contains(&place) { String::new() } else { format!("{place}: ") };
                eprintln!("prontomq doctor: {place}{why}");
                ExitCode::from(NOT_LOOKED_OVER)
            }
        }
    }
}

fn found_text(found: &Diagnosis) -> (String, bool) {
    let mut text = list(found);
    if !found.is_sound() {
        text += "prontomq doctor --repair keeps a copy of the file, and then would\n";
        text.extend(found.remedies.iter().map(|remedy| format!("- {remedy}\n")));
    }
    (text, found.is_sound())
}

fn told(repaired: &RepairReport) -> (String, bool) {
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
