//! The files of `src`, as text.

use super::ROOT;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of `src`.
pub(super) struct Source {
    /// Below `src`, with slashes.
    pub(super) path: String,
    /// All of its lines.
    pub(super) lines: Vec<String>,
}

impl Source {
    /// All files, by path.
    pub(super) fn all() -> Vec<Self> {
        let root = Path::new(ROOT).join("src");
        let mut paths = below(&root);
        paths.sort();
        let read = |path: &PathBuf| Self {
            path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
            lines: fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect(),
        };
        paths.iter().filter(|path| path.extension().is_some_and(|it| it == "rs")).map(read).collect()
    }

    /// Whether all of it is for tests.
    pub(super) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs") || self.path.contains("contract")
    }

    /// The code without comments and without the tests at its end.
    pub(super) fn code(&self) -> String {
        let begins_tests = |pair: &[String]| pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod tests {");
        let end = self.lines.windows(2).position(begins_tests).unwrap_or(self.lines.len());
        let lines = self.lines[..end].iter().map(|line| line.split("//").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The path of the module: `broker/topology/mod.rs` is `["broker", "topology"]`.
    pub(super) fn module(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        path.split('/').filter(|part| !["lib", "main"].contains(part)).map(str::to_owned).collect()
    }
}

/// All files below a folder.
pub(super) fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}
