//! The prose of `docs/ARCHITECTURE.md` names code, and that code is there. So is whatever a page links to.

use super::ROOT;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Words in backticks that are prose, or names of AMQP.
const NOT_CODE: [&str; 6] = ["session", "broker", "basic.ack", "basic.nack", "cli", "metrics"];

/// A paragraph, a list item or a row of a table, with the files that it names.
struct Passage {
    text: String,
    names: Vec<String>,
}

fn passages() -> Vec<Passage> {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/ARCHITECTURE.md")).unwrap();
    let mut texts: Vec<String> = Vec::new();
    for line in page.lines() {
        let begins = line.starts_with(|first: char| first.is_ascii_digit() || "|-#".contains(first));
        match texts.last_mut() {
            Some(text) if !begins && !line.is_empty() && !text.is_empty() => *text += &format!(" {}", line.trim()),
            _ => texts.push(line.to_owned()),
        }
    }
    texts
        .into_iter()
        .map(|text| {
            let names = text.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            Passage { text, names }
        })
        .collect()
}

fn is_path(name: &str) -> bool {
    name.contains('/')
}

fn sources(under: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(under).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// Everything that a piece of source defines: functions, types, variants, modules.
fn defined(source: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for line in source.lines() {
        let code = line.trim_start();
        // `pub(in crate::folder)`
        let code = code.strip_prefix("pub(").and_then(|rest| rest.split_once(')')).map_or(code, |(_, rest)| rest);
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            if ["fn", "struct", "enum", "trait", "type", "mod"].contains(&word) {
                names.extend(words.next());
                break;
            }
            if word.starts_with(char::is_uppercase) {
                // A variant stands first on its line.
                names.insert(word);
                break;
            }
            if !["pub", "async", "const", "unsafe"].contains(&word) {
                break;
            }
        }
    }
    names
}

#[test]
fn every_path_that_the_page_names_exists() {
    let paths: Vec<_> = passages().into_iter().flat_map(|passage| passage.names).filter(|name| is_path(name)).collect();
    assert!(paths.len() > 40, "the page names files: {}", paths.len());
    let missing: Vec<_> = paths.iter().filter(|path| !Path::new(ROOT).join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_name_is_defined_in_the_sources_and_in_a_file_named_beside_it() {
    let all: String = sources(&Path::new(ROOT).join("src"))
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let all = defined(&all);
    let (mut checked, mut wrong) = (0, Vec::new());
    for Passage { text, names } in passages() {
        let files = names.iter().filter(|name| name.ends_with(".rs"));
        let beside: String =
            files.map(|path| fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_default()).collect();
        let beside = defined(&beside);
        for name in names.iter().filter(|name| !is_path(name) && !NOT_CODE.contains(&name.as_str())) {
            for part in name.split("::") {
                checked += 1;
                if !all.contains(part) {
                    wrong.push(format!("no source defines `{part}`: {text}"));
                }
            }
            let is_function = !name.contains("::") && name.starts_with(char::is_lowercase);
            if is_function && !beside.is_empty() && !beside.contains(name.as_str()) {
                wrong.push(format!("none of the files named beside it defines `{name}`: {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 60, "the page names code: {checked}");
}

#[test]
fn the_page_names_every_folder_of_the_sources() {
    let passages = passages();
    for entry in fs::read_dir(Path::new(ROOT).join("src")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let folder = format!("src/{}/", path.file_name().unwrap().to_str().unwrap());
            assert!(passages.iter().any(|passage| passage.names.contains(&folder)), "{folder}");
        }
    }
}

#[test]
fn every_link_of_the_pages_leads_somewhere() {
    let root = Path::new(ROOT);
    let mut pages: Vec<_> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "conformance/README.md"].map(|page| root.join(page)).into();
    pages.extend(sources(&root.join("docs")).into_iter().filter(|path| path.extension().is_some_and(|it| it == "md")));
    let mut followed = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !link.is_empty() && !link.contains("://") {
                followed += 1;
                assert!(page.with_file_name(link).exists(), "{}: {link}", page.display());
            }
        }
    }
    assert!(followed > 10, "the pages link to one another: {followed}");
}
