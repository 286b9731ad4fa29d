//! Whole histories of a broker in virtual time, each from a seed: several clients, faults of the store, lost connections, missed
//! heartbeats, alarms, changes of topology and two crashes. A ledger checks what clients were promised: nothing confirmed is lost,
//! nothing is with two at once, transactions are whole, what was delivered before is marked so.
//!
//! `SIMULATION_SEEDS` says how many, `SIMULATION_SEED` which is the first.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod coverage;
mod history;
mod ledger;
mod store;
mod wire;

use coverage::{COUNTERS, Coverage};
use history::History;
use prontomq::internals::store::memory::MemoryDisk;
use std::panic::catch_unwind;
use std::process::Command;

/// Histories without further word.
const SEEDS: u64 = 60;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run(seed: u64) -> history::Outcome {
    History::new(seed, Box::new(MemoryDisk::default())).run()
}

#[test]
fn every_promise_is_kept_in_every_history() {
    let (first, count) = (number("SIMULATION_SEED", 1), number("SIMULATION_SEEDS", SEEDS));
    let mut all: Vec<Coverage> = Vec::new();
    for seed in first..first + count {
        match catch_unwind(|| run(seed)) {
            Ok(outcome) => all.push(outcome.coverage),
            Err(_) => panic!("SIMULATION_SEED={seed} SIMULATION_SEEDS=1 shows it again"),
        }
    }
    let sum = |of: fn(&Coverage) -> u64| all.iter().map(of).sum::<u64>();
    let fewest_frames = all.iter().map(|it| it.frames).min().unwrap_or_default();
    println!("histories {}, each of at least {fewest_frames} frames", all.len());
    for (name, of) in COUNTERS {
        println!("{:>12}  {name}", sum(of));
        assert!(sum(of) > 0 || count < SEEDS || name == "refusals", "no history has any {name}");
    }
    assert!(all.iter().all(|it| it.crashes == 2 && it.connections >= 3 && it.frames >= 2_000));
}

/// For the next test, which runs it in processes of its own.
#[test]
#[ignore = "only prints"]
fn prints_a_trace() {
    println!("trace {:016x}", run(number("SIMULATION_SEED", 1)).trace);
}

#[test]
fn one_seed_gives_one_history_in_every_process() {
    for seed in [1, 2, 3] {
        let trace = || {
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "--nocapture", "prints_a_trace"])
                .env("SIMULATION_SEED", seed.to_string())
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let trace = text.lines().find_map(|line| Some(line.split_once("trace ")?.1.to_owned()));
            trace.unwrap_or_else(|| panic!("{text}"))
        };
        let here = format!("{:016x}", run(seed).trace);
        assert_eq!([trace(), trace()], [here.clone(), here], "seed {seed}");
    }
}
