//! Whole histories of a broker in virtual time, each from a seed: several clients, faults of the store, lost connections, missed
//! heartbeats, alarms, changes of topology and two crashes. A ledger checks what clients were promised: nothing confirmed is lost,
//! nothing is with two at once, transactions are whole, what was delivered before is marked so, prefetch limits hold, answered
//! changes of topology last, and nobody waits for what could be done. `docs/simulation.md` says how it is run and what it finds.
//!
//! `SIMULATION_SEEDS` is the number of histories, `SIMULATION_SEED` the first of them.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "../crash/content.rs"]
#[allow(dead_code, reason = "each test takes from the disk what it needs")]
mod content;
mod coverage;
#[path = "../crash/disk.rs"]
#[allow(dead_code, reason = "each test takes from the disk what it needs")]
mod disk;
mod history;
mod ledger;
mod power;
mod store;
#[path = "../crash/vfs.rs"]
#[allow(dead_code, reason = "each test takes from the disk what it needs")]
mod vfs;
mod wire;

use coverage::{COUNTERS, Coverage};
use history::History;
use power::PowerDisk;
use prontomq::internals::store::memory::MemoryDisk;
use std::panic::catch_unwind;
use std::process::Command;
use std::time::{Duration, Instant};
use store::Disk;

/// Histories of a run that names no number.
const SEEDS: u64 = 60;
/// One of so many seeds is for the SQLite store.
const POWER_DISK_EVERY: u64 = 20;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Whether the messages of a history are in SQLite, on a disk that loses its power at each crash.
fn has_power_disk(seed: u64) -> bool {
    seed.is_multiple_of(POWER_DISK_EVERY)
}

fn run(seed: u64) -> history::Outcome {
    let disk: Box<dyn Disk> =
        if has_power_disk(seed) { Box::new(PowerDisk::new()) } else { Box::new(MemoryDisk::default()) };
    History::new(seed, disk).run()
}

#[test]
fn every_promise_is_kept_in_every_history() {
    let (first, count) = (number("SIMULATION_SEED", 1), number("SIMULATION_SEEDS", SEEDS));
    let mut all: Vec<Coverage> = Vec::new();
    let (began, mut power_disks, mut power_disks_took) = (Instant::now(), 0, Duration::ZERO);
    for seed in first..first + count {
        let began = Instant::now();
        match catch_unwind(|| run(seed)) {
            Ok(outcome) => {
                all.push(outcome.coverage);
                if has_power_disk(seed) {
                    power_disks += 1;
                    power_disks_took += began.elapsed();
                }
            }
            Err(_) => panic!("SIMULATION_SEED={seed} SIMULATION_SEEDS=1 shows it again"),
        }
    }
    let sum = |of: fn(&Coverage) -> u64| all.iter().map(of).sum::<u64>();
    let fewest_frames = all.iter().map(|it| it.frames).min().unwrap_or_default();
    println!("histories {}, each of at least {fewest_frames} frames, in {:.1?}", all.len(), began.elapsed());
    println!(
        "{power_disks} of them, those of every {POWER_DISK_EVERY}th seed, with SQLite on a disk that loses its power, in {power_disks_took:.1?}"
    );
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
    // Some of them in memory, some on a disk.
    for seed in [1, 9, 31, 20, 100] {
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
