//! What a program that embeds the broker has to build: neither the commands nor what only they and the metrics page need.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::collections::BTreeSet;
use std::process::Command;

/// For the command line, the load generator, the log and the metrics page.
const OF_COMMANDS: [&str; 5] = ["clap", "hdrhistogram", "indicatif", "plotters", "tracing-subscriber"];
const OF_METRICS: [&str; 3] = ["axum", "hyper", "hyper-util"];

/// The crates that a build with these features takes in.
fn crates(features: &[&str]) -> BTreeSet<String> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--package", "prontomq", "--manifest-path", manifest])
        .args(features)
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn an_embedded_broker_builds_neither_the_commands_nor_the_metrics_page() {
    let crates = crates(&["--no-default-features"]);
    for unwanted in OF_COMMANDS.iter().chain(&OF_METRICS) {
        assert!(!crates.contains(*unwanted), "{unwanted}");
    }
    assert!(crates.contains("tokio") && crates.contains("rusqlite"), "{crates:?}");
}

#[test]
fn the_metrics_page_comes_without_the_commands() {
    let crates = crates(&["--no-default-features", "--features", "metrics"]);
    assert!(OF_METRICS.iter().all(|wanted| crates.contains(*wanted)), "{crates:?}");
    assert!(!OF_COMMANDS.iter().any(|unwanted| crates.contains(*unwanted)), "{crates:?}");
}

#[test]
fn the_program_has_all_of_it() {
    let crates = crates(&[]);
    assert!(OF_COMMANDS.iter().chain(&OF_METRICS).all(|wanted| crates.contains(*wanted)), "{crates:?}");
}
