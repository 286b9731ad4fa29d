//! Runs the golden dialogues against a broker.
fn main() {}
