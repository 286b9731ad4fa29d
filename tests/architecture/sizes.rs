//! How large files, functions and structs may be, tests included.

use super::source::Source;

const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 70;
const FIELDS_MAX: usize = 15;

/// Something that begins on one line and ends on another, by its indentation: the code is formatted.
struct Item<'a> {
    name: &'a str,
    lines: &'a [String],
    indent: usize,
}

/// Items whose first line has this word: `fn` or `struct`. The name follows it.
fn items<'a>(source: &'a Source, keyword: &str) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    for (at, line) in source.lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let mut words = code.split([' ', '<', '(', '{', ';']).filter(|word| !word.is_empty());
        let modifiers = ["pub", "const", "async", "unsafe", "extern", "crate)", "super)", "in", "\"C\""];
        let is_modifier = |word: &&str| modifiers.contains(word) || word.contains("::");
        let Some(first) = words.by_ref().find(|word| !is_modifier(word)) else { continue };
        if first != keyword {
            continue;
        }
        let Some(name) = words.next() else { continue };
        let end = format!("{}}}", " ".repeat(indent));
        // A body, or only a signature.
        let open = source.lines[at..].iter().position(|line| line.ends_with(['{', ';', '}']));
        let Some(open) = open.filter(|open| source.lines[at + open].ends_with('{')) else { continue };
        let Some(len) = source.lines[at + open..].iter().position(|line| *line == end) else { continue };
        items.push(Item { name, lines: &source.lines[at..=at + open + len], indent });
    }
    items
}

fn is_field(line: &str, indent: usize) -> bool {
    let code = line.trim_start();
    let name = code.rsplit_once("pub").map_or(code, |(_, rest)| rest.rsplit_once(") ").map_or(rest, |(_, name)| name));
    let name = name.trim_start().split(':').next().unwrap_or_default();
    line.len() - code.len() == indent + 4
        && line.contains(':')
        && !name.is_empty()
        && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '#')
}

#[test]
fn no_file_is_longer_than_700_lines() {
    let long = |source: &Source| format!("{}: {}", source.path, source.lines.len());
    let all = Source::all();
    let faults: Vec<_> = all.iter().filter(|source| source.lines.len() >= FILE_LINES_MAX).map(long).collect();
    assert!(all.len() > 200, "files are found: {}", all.len());
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_function_is_longer_than_70_lines() {
    let (mut found, mut faults) = (0, Vec::new());
    for source in Source::all() {
        for function in items(&source, "fn") {
            found += 1;
            if function.lines.len() > FUNCTION_LINES_MAX {
                faults.push(format!("{}: {} has {} lines", source.path, function.name, function.lines.len()));
            }
        }
    }
    assert!(found > 2_000, "functions are found: {found}");
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_struct_has_more_than_15_fields() {
    let (mut found, mut most, mut faults) = (0, 0, Vec::new());
    for source in Source::all() {
        for item in items(&source, "struct") {
            let fields = item.lines.iter().filter(|line| is_field(line, item.indent)).count();
            found += usize::from(fields > 0);
            most = most.max(fields);
            if fields > FIELDS_MAX {
                faults.push(format!("{}: {} has {fields} fields", source.path, item.name));
            }
        }
    }
    assert!(found > 200 && most > 10, "structs and their fields are found: {found}, {most}");
    assert!(faults.is_empty(), "{faults:#?}");
}
