//! The shape of the sources, counted: what `docs/ARCHITECTURE.md` says of them, how large their parts are, and which files
//! depend on each other.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod circles;
mod names;
mod page;
mod sizes;
mod source;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
