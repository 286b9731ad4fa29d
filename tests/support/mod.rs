//! What the integration tests share: the broker as a process of its own, and a client that leaves nothing to chance.

pub(crate) mod broker;
pub(crate) mod client;
pub(crate) mod folder;

pub(crate) use broker::Broker;
pub(crate) use client::Client;

use std::time::Duration;

/// How long anything that must happen may take before a test calls it missing. Far above what it takes: a machine may
/// be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A count that can be raised for a long run by hand: the environment variable `name`, or `default`.
pub(crate) fn count_from_environment(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => default,
    }
}

/// Tells a measured figure to whoever runs the tests with `--nocapture`.
#[expect(clippy::print_stdout, reason = "figures are for people who run a test by hand")]
pub(crate) fn tell(figure: &str) {
    println!("{figure}");
}
