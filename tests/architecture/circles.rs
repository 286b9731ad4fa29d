//! Circles of files: files of one folder of `src` that depend on each other in a loop.
//!
//! The rule. A file depends on another if its code, tests left out, names something that the other defines: by a `use`, or by a
//! path within the code. A name that a `mod.rs` re-exports counts for the file that defines it; a `mod.rs` that only declares
//! its files and re-exports their names depends on none of them. Methods do not count: the file of an `impl` names the type,
//! the type does not name the file. Files that reach each other form a circle, which may have three of them at most.

use super::source::Source;
use std::collections::{BTreeMap, BTreeSet};

const CIRCLE_FILES_MAX: usize = 3;

type Path = Vec<String>;

/// A name that a `use` brings into a file.
struct Import {
    path: Path,
    alias: String,
    is_public: bool,
}

/// A file, with the paths in its code.
struct Module {
    path: Path,
    imports: Vec<Import>,
    /// `a::b` outside of a `use`, as it is written.
    paths: Vec<Path>,
}

fn segments(path: &str) -> Path {
    path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The names of a `use`, with braces unfolded: each path, and what it is called here.
fn unfold(tree: &str, prefix: &[String], found: &mut Vec<(Path, String)>) {
    let Some((before, rest)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path: Path = prefix.iter().cloned().chain(segments(path)).collect();
        let Some(last) = path.last() else { return };
        let alias = if alias.is_empty() { last.clone() } else { alias.trim().to_owned() };
        found.push((path, alias));
        return;
    };
    let prefix: Path = prefix.iter().cloned().chain(segments(before)).collect();
    let list = rest.rsplit_once('}').map_or(rest, |(list, _)| list);
    let (mut depth, mut begin) = (0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                unfold(&list[begin..at], &prefix, found);
                begin = at + 1;
            }
            _ => {}
        }
    }
    unfold(&list[begin..], &prefix, found);
}

impl Module {
    fn of(source: &Source) -> Self {
        let path = source.module();
        let (mut imports, mut code) = (Vec::new(), String::new());
        let mut rest = source.code();
        while let Some(line_end) = rest.find('\n').map(|at| at + 1).or((!rest.is_empty()).then_some(rest.len())) {
            let line = rest[..line_end].trim_start();
            let (visibility, is_public) = match line.strip_prefix("pub") {
                Some(after) if after.starts_with('(') => (after.split_once(") ").map_or("", |(_, after)| after), true),
                Some(after) => (after.trim_start(), true),
                None => (line, false),
            };
            if visibility.starts_with("use ") {
                let end = rest.find(';').unwrap_or(rest.len() - 1) + 1;
                let tree = rest[..end].split_once("use ").map_or("", |(_, tree)| tree).trim_end_matches(';');
                let mut names = Vec::new();
                unfold(&tree.split_whitespace().collect::<Vec<_>>().join(" "), &[], &mut names);
                imports.extend(names.into_iter().map(|(path, alias)| Import { path, alias, is_public }));
                rest = rest[end..].to_owned();
            } else {
                code += &rest[..line_end];
                rest = rest[line_end..].to_owned();
            }
        }
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let words = code.split(|c| !is_path(c)).filter(|word| word.contains("::"));
        Self { path, imports, paths: words.map(segments).collect() }
    }

    /// A path of this file, from the crate on.
    fn absolute(&self, path: &[String], modules: &BTreeMap<Path, Self>) -> Option<Path> {
        let mut base = self.path.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => return Some(rest[1..].to_vec()),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                let child: Path = base.iter().cloned().chain([first.to_owned()]).collect();
                if !modules.contains_key(&child) {
                    return None;
                }
            }
        }
        Some(base.into_iter().chain(rest.iter().cloned()).collect())
    }

    /// The paths that this file depends on.
    fn targets(&self, modules: &BTreeMap<Path, Self>) -> Vec<Path> {
        let mut targets = Vec::new();
        for import in self.imports.iter().filter(|import| !import.is_public) {
            targets.extend(self.absolute(&import.path, modules));
        }
        for path in &self.paths {
            targets.extend(self.absolute(path, modules));
            for import in self.imports.iter().filter(|import| import.alias == path[0]) {
                let named = import.path.iter().chain(&path[1..]).cloned().collect::<Path>();
                targets.extend(self.absolute(&named, modules));
            }
        }
        targets
    }
}

/// The file that defines what a path names.
fn defining(path: &[String], modules: &BTreeMap<Path, Module>, steps: u32) -> Option<Path> {
    let module = (0..=path.len()).rev().map(|len| &path[..len]).find_map(|prefix| modules.get(prefix))?;
    let rest = &path[module.path.len()..];
    let re_export = module.imports.iter().find(|import| import.is_public && rest.first() == Some(&import.alias));
    match re_export.and_then(|import| module.absolute(&import.path, modules)) {
        Some(from) if steps > 0 => {
            let named: Path = from.into_iter().chain(rest[1..].iter().cloned()).collect();
            defining(&named, modules, steps - 1)
        }
        // A module as a whole is no item.
        _ => (!rest.is_empty()).then(|| module.path.clone()),
    }
}

/// What can be reached from each file, in its folder of `src`.
fn reachable(edges: &BTreeMap<Path, BTreeSet<Path>>, from: &Path) -> BTreeSet<Path> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for next in edges.get(file).into_iter().flatten().filter(|next| next[0] == from[0]) {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    seen
}

#[test]
fn no_circle_has_more_than_three_files() {
    let sources: Vec<Source> = Source::all().into_iter().filter(|source| !source.is_test()).collect();
    let modules: BTreeMap<Path, Module> =
        sources.iter().map(Module::of).map(|module| (module.path.clone(), module)).collect();
    let mut edges: BTreeMap<Path, BTreeSet<Path>> = BTreeMap::new();
    for module in modules.values().filter(|module| !module.path.is_empty()) {
        let targets = module.targets(&modules).into_iter().filter_map(|path| defining(&path, &modules, 8));
        let others = targets.filter(|target| !target.is_empty() && *target != module.path);
        edges.entry(module.path.clone()).or_default().extend(others);
    }
    assert!(edges.values().map(BTreeSet::len).sum::<usize>() > 800, "files depend on each other");
    let reached: BTreeMap<&Path, BTreeSet<Path>> = edges.keys().map(|file| (file, reachable(&edges, file))).collect();
    let mut circles = BTreeSet::new();
    for (file, others) in &reached {
        let circle: BTreeSet<&Path> =
            others.iter().filter(|other| reached.get(other).is_some_and(|back| back.contains(*file))).collect();
        circles.insert(circle.into_iter().map(|path| path.join("/")).collect::<Vec<_>>());
    }
    let large: Vec<_> = circles.into_iter().filter(|circle| circle.len() > CIRCLE_FILES_MAX).collect();
    assert!(large.is_empty(), "{large:#?}");
}
