//! The rules of the sources that a reader may rely on: a folder names only folders below it, and the pure folders are pure.
//! Both read the text of `src`; comments do not count. A third rule reads the comments alone: some words are banned there.

use std::fs;
use std::path::{Path, PathBuf};

/// The folders of `src` from the lowest level up. A folder names folders of lower levels, never one of its own.
const LEVELS: [&[&str]; 8] = [
    &["wire", "config"],
    &["model"],
    &["session", "routing", "queue"],
    &["store", "auth"],
    &["broker"],
    &["exposition"],
    &["server"],
    &["cli"],
];

/// No I/O, no async, no lock, no clock, no randomness that was not passed in.
const PURE: [&str; 6] = ["wire", "config", "model", "session", "routing", "queue"];

/// What a pure folder does not name. Words stand for themselves, a `*` at the end for any word that begins so.
const IMPURE: [&str; 24] = [
    "net",
    "fs",
    "io",
    "env",
    "process",
    "thread",
    "thread_local",
    "Instant",
    "SystemTime",
    "tokio*",
    "tracing*",
    "log",
    "Mutex",
    "RwLock",
    "Condvar",
    "OnceLock",
    "LazyLock",
    "Atomic*",
    "mpsc",
    "rand",
    "getrandom",
    "async",
    "await",
    "println",
];

/// The folders whose comments are plain English.
const PLAIN_ENGLISH: [&str; 4] = ["server", "broker", "exposition", "cli"];

/// Words of hearsay and riddles, which a comment replaces by the thing's name or the field's word (*notify*, *report*).
const BANNED: [&str; 6] = ["told", "whoever", "see to", "heard", "said", "what there is"];

/// Addresses are plain data, and some settings are addresses.
const ADDRESSES: [&str; 4] = ["SocketAddr", "IpAddr", "Ipv4Addr", "Ipv6Addr"];

/// Where tasks and threads are begun: the shell's one place, and whoever has a reason.
const SPAWNS: [(&str, &str); 8] = [
    ("server/tasks.rs", "the tasks of a running broker"),
    ("server/log_writer.rs", "a stream may block for ever, and no task may wait for it"),
    ("server/reactor/loops.rs", "the threads that serve connections"),
    ("server/reactor/relief.rs", "a thread that stands in for one of those"),
    ("store/commit/threaded.rs", "the writer is a thread: commits block, and it outlives no store"),
    ("store/commit/reading.rs", "loads block, and must not wait behind commits"),
    ("store/sqlite/runtime.rs", "a runtime's thread may not run the runtime that sqlx needs"),
    ("cli/bench/running.rs", "a client of its own, without a broker's runtime"),
];

/// Where clocks are read.
const CLOCKS: [(&str, &str); 4] = [
    ("store/clock.rs", "the system's clocks, for all who are given a clock"),
    ("server/clock.rs", "the same, for tokio's timers"),
    ("cli/bench/clock.rs", "a client of its own, which measures"),
    ("cli/sql/mod.rs", "a statement that takes too long is given up"),
];

/// A file of `src`.
struct Source {
    /// Below `src`, with slashes.
    path: String,
    /// Its lines without comments.
    lines: Vec<String>,
    /// The comment of each line; empty where there is none.
    comments: Vec<String>,
    /// The first line of its tests, which may do what they like.
    tests_from: usize,
}

impl Source {
    fn read(root: &Path, file: &Path) -> Self {
        let path = file.strip_prefix(root).expect("it lies below").to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(file).expect("sources are text");
        let lines: Vec<String> =
            text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned()).collect();
        let comments = text.lines().map(comment_of).map(str::to_owned).collect();
        let begin_tests = |pair: &[String]| pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod tests {");
        let tests_from = match path.rsplit('/').next() {
            Some("tests.rs" | "contract.rs") => 0,
            _ if path.contains("/tests/") || path.contains("/contract/") => 0,
            _ => lines.windows(2).position(begin_tests).unwrap_or(lines.len()),
        };
        Self { path, lines, comments, tests_from }
    }

    /// The folder of `src`, unless the file lies in `src` itself.
    fn folder(&self) -> Option<&str> {
        Some(self.path.split_once('/')?.0)
    }

    /// The program's own lines, with their numbers.
    fn own_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.lines[..self.tests_from].iter().map(String::as_str))
    }

    /// How many modules lie between the crate and what this file holds.
    fn depth(&self) -> usize {
        let depth = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { depth - 1 } else { depth }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files.iter().map(|file| Source::read(&root, file)).collect()
}

fn level_of(folder: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&folder))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// The folders that a text names: `crate::folder`, and each of `crate::{folder, folder::thing}`.
fn named_folders(text: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for (at, mark) in text.match_indices("crate::") {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + mark.len()..];
        match rest.strip_prefix('{') {
            None => named.extend(words(rest).next()),
            Some(list) => {
                let mut depth = 0;
                let mut begins = true;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => begins = true,
                        c if begins && c.is_alphanumeric() => {
                            named.extend(words(&list[at..]).next());
                            begins = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    named
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn a_folder_names_only_folders_below_it() {
    let mut faults = Vec::new();
    let mut arrows = 0;
    for source in sources() {
        let Some(folder) = source.folder() else { continue };
        let Some(level) = level_of(folder) else {
            faults.push(format!("{}: the folder {folder} has no level; give it one", source.path));
            continue;
        };
        for named in named_folders(&source.lines.join("\n")) {
            arrows += usize::from(named != folder);
            if named != folder && level_of(named).is_none_or(|below| below >= level) {
                faults.push(format!("{}: {folder} (level {level}) names {named}", source.path));
            }
        }
    }
    assert_none(&faults);
    assert!(arrows > 100, "only {arrows} paths were found");
}

#[test]
fn no_path_climbs_out_of_its_folder_by_super() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.folder().is_some()) {
        let to_the_crate = "super::".repeat(source.depth());
        for (number, line) in source.own_lines() {
            if line.contains(&to_the_crate) {
                faults.push(format!("{}:{number}: {line}", source.path));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn pure_folders_know_no_io_no_task_no_lock_no_clock_and_no_randomness_of_their_own() {
    let is_impure = |word: &str| {
        IMPURE.iter().any(|impure| match impure.strip_suffix('*') {
            Some(beginning) => word.starts_with(beginning),
            None => word == *impure,
        })
    };
    let mut faults = Vec::new();
    let mut lines = 0;
    for source in sources() {
        if !source.folder().is_some_and(|folder| PURE.contains(&folder)) {
            continue;
        }
        for (number, line) in source.own_lines() {
            lines += 1;
            let of_addresses = source.folder() == Some("config")
                && line.strip_prefix("use std::net::").is_some_and(|rest| words(rest).all(|w| ADDRESSES.contains(&w)));
            let code = without_strings(line);
            if let Some(word) = words(&code).find(|word| is_impure(word))
                && !of_addresses
            {
                faults.push(format!("{}:{number}: names {word}: {line}", source.path));
            }
        }
    }
    assert_none(&faults);
    assert!(lines > 5_000, "only {lines} lines were read");
}

/// A line without what stands between quotation marks.
fn without_strings(line: &str) -> String {
    line.replace("\\\"", "").split('"').step_by(2).collect::<Vec<_>>().join(" ")
}

/// Checks that `is_meant` is true of lines in the listed files and nowhere else.
fn only_in(listed: &[(&str, &str)], what: &str, is_meant: impl Fn(&str) -> bool) {
    let sources = sources();
    let uses = |source: &Source| source.own_lines().find(|(_, line)| is_meant(line)).map(|(number, _)| number);
    let mut faults = Vec::new();
    for source in &sources {
        if let Some(number) = uses(source)
            && !listed.iter().any(|(path, _)| *path == source.path)
        {
            faults.push(format!("{}:{number}: {what}", source.path));
        }
    }
    for (path, reason) in listed {
        let source = sources.iter().find(|source| source.path == *path);
        if source.and_then(uses).is_none() {
            faults.push(format!("{path} is listed ({reason}), yet there is nothing that {what}"));
        }
    }
    assert_none(&faults);
}

/// The comment of a line, without its slashes. Slashes within a word, as in a URL, begin no comment.
fn comment_of(line: &str) -> &str {
    let begins = |at: usize| line[..at].chars().next_back().is_none_or(char::is_whitespace);
    let comment = line.match_indices("//").find(|(at, _)| begins(*at));
    comment.map_or("", |(at, _)| line[at..].trim_start_matches(['/', '!']).trim())
}

/// The banned words and phrases of a text, which may lie across its lines.
fn banned_in(text: &str) -> Vec<&'static str> {
    let text = format!(" {} ", words(text).collect::<Vec<_>>().join(" ").to_lowercase());
    BANNED.into_iter().filter(|banned| text.contains(&format!(" {banned} "))).collect()
}

#[test]
fn comments_of_the_listed_folders_are_plain_english() {
    let mut faults = Vec::new();
    let mut read = 0;
    for source in sources().iter().filter(|source| source.folder().is_some_and(|f| PLAIN_ENGLISH.contains(&f))) {
        // A phrase may go on in the next line.
        for (number, pair) in (1..).zip(source.comments.windows(2)) {
            read += usize::from(!pair[0].is_empty());
            let next = banned_in(&pair[1]);
            for word in banned_in(&pair.join(" ")).into_iter().filter(|word| !next.contains(word)) {
                faults.push(format!("{}:{number}: \"{word}\" in the comment: {}", source.path, pair[0]));
            }
        }
    }
    assert_none(&faults);
    assert!(read > 2_000, "only {read} lines of comments were read");
}

#[test]
fn tasks_and_threads_begin_where_they_are_listed() {
    let calls = [".spawn(", "::spawn(", "spawn_blocking(", "spawn_local(", "spawn_scoped("];
    only_in(&SPAWNS, "begins a task or a thread", |line| calls.iter().any(|call| line.contains(call)));
}

#[test]
fn clocks_are_read_where_they_are_listed() {
    let clocks = ["Instant", "SystemTime", "UNIX_EPOCH"];
    only_in(&CLOCKS, "reads a clock", |line| words(line).any(|word| clocks.contains(&word)));
}

#[test]
fn the_rules_see_what_they_are_to_see() {
    let text = "use crate::{wire::frame::{self, Frame}, model, queue};\nlet x = crate::store::A; use mycrate::b;";
    assert_eq!(named_folders(text), ["wire", "model", "queue", "store"]);
    assert_eq!(without_strings(r#"a("std::fs \" b", c)"#), "a( , c)");
    assert_eq!(comment_of(r#"let url = "amqp://told"; // Whoever asks."#), "Whoever asks.");
    assert_eq!(banned_in("Whoever asks is told what\nthere is."), ["told", "whoever", "what there is"]);
    assert_eq!(banned_in("The aforesaid."), [""; 0]);
    let sources = sources();
    let with_tests = sources.iter().filter(|source| (1..source.lines.len()).contains(&source.tests_from)).count();
    assert!(with_tests > 20, "the tests of only {with_tests} files were found");
}
