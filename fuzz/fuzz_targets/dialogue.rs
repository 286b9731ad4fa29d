//! `cargo +nightly fuzz run dialogue`
#![no_main]

#[path = "../bodies/dialogue.rs"]
mod dialogue;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    dialogue::dialogue(input);
});
