//! `docs/configuration.md` is made of the catalogue of settings.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use prontomq::internals::config::manual;
use std::{env, fs};

#[test]
fn the_page_of_all_settings_is_up_to_date() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    if env::var_os("UPDATE").is_some() {
        fs::write(page, manual()).unwrap();
    }
    let is_so = fs::read_to_string(page).unwrap() == manual();
    assert!(is_so, "docs/configuration.md is out of date: UPDATE=1 cargo test --test configuration");
}
