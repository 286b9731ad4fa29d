//! The public interface is small, and stays so: what `src/lib.rs` re-exports by name, and nothing else.
//!
//! Counted are the types and the functions that a page of the documentation shows: every name after `pub use` in `src/lib.rs`,
//! and every `pub fn` of those types. Fields and variants are not counted, nor what is `#[doc(hidden)]`.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::fs;
use std::path::{Path, PathBuf};

const ITEMS_MAX: usize = 60;

fn sources(under: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(under).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The part of `src/lib.rs` before the hidden module.
fn front() -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap();
    text.split_once("#[doc(hidden)]").unwrap().0.to_owned()
}

/// The types that `pub use` names.
fn types(front: &str) -> Vec<String> {
    let uses = front.split("\npub use ").skip(1).filter_map(|rest| rest.split(';').next());
    let names = uses.flat_map(|list| list.split(|c: char| !c.is_alphanumeric() && c != '_'));
    names.filter(|name| name.starts_with(char::is_uppercase)).map(str::to_owned).collect()
}

/// The public functions of a type: those in blocks `impl Type`, up to the brace that ends the block.
fn functions(of: &str, sources: &[String]) -> Vec<String> {
    let heads = [format!("impl {of} {{"), format!("impl {of}<'_> {{")];
    let mut found = Vec::new();
    for source in sources {
        let (mut is_inside, mut is_hidden) = (false, false);
        for line in source.lines() {
            if heads.iter().any(|head| line == head) {
                is_inside = true;
            } else if line == "}" {
                is_inside = false;
            }
            let code = line.trim_start().replace("async fn", "fn").replace("const fn", "fn");
            if let Some(rest) = code.strip_prefix("pub fn ").filter(|_| is_inside) {
                let name = rest.split(['(', '<']).next().unwrap();
                if !is_hidden {
                    found.push(format!("{of}::{name}"));
                }
                is_hidden = false;
            }
            is_hidden |= is_inside && code == "#[doc(hidden)]";
        }
    }
    found
}

#[test]
fn the_public_interface_fits_on_a_page() {
    let sources: Vec<_> = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let types = types(&front());
    let functions: Vec<_> = types.iter().flat_map(|name| functions(name, &sources)).collect();
    assert!(types.iter().any(|name| name == "Settings"), "{types:?}");
    assert!(functions.iter().any(|name| name == "Server::start"), "{functions:?}");
    let count = types.len() + functions.len();
    assert!(count <= ITEMS_MAX, "{count} public items: {types:?} {functions:?}");
}

#[test]
fn no_module_of_the_library_is_public() {
    let front = front();
    let public: Vec<_> = front.lines().filter(|line| line.starts_with("pub mod ")).collect();
    assert!(public.is_empty(), "{public:?}");
}
