//! The folder of chapters, and the table of answers that differ between brokers.

use crate::dialogue::{Dialogue, Target, parse_chapter};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// All dialogues in `folder` that `target` takes part in, by chapter and place.
pub fn read(folder: &Path, target: Target) -> Result<Vec<Dialogue>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let mut chapters: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect();
    chapters.sort();
    let mut dialogues = Vec::new();
    for path in chapters {
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let chapter = path.file_stem().unwrap_or_default().to_string_lossy();
        dialogues.extend(parse_chapter(&chapter, &text, target)?);
    }
    Ok(dialogues)
}

/// The reasons in `versions.toml`: dialogue name to why its answers differ. Only the part of TOML
/// that the file uses: comments and `"name" = "reason"`.
pub fn differences(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut reasons = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = line.strip_prefix('"').and_then(|line| line.strip_suffix('"'));
        let (name, reason) = entry
            .and_then(|entry| entry.split_once("\" = \""))
            .ok_or_else(|| format!("`\"name\" = \"reason\"` wanted, not `{line}`"))?;
        if reasons.insert(name.to_string(), reason.to_string()).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    Ok(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn folder() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dialogues"))
    }

    fn both() -> Vec<Dialogue> {
        let targets = [Target::Rabbitmq310, Target::Prontomq];
        targets.iter().flat_map(|target| read(folder(), *target).unwrap()).collect()
    }

    #[test]
    fn every_dialogue_has_a_name_of_its_own() {
        for target in [Target::Rabbitmq310, Target::Prontomq] {
            let mut names = BTreeSet::new();
            for dialogue in read(folder(), target).unwrap() {
                assert!(names.insert(dialogue.name.clone()), "{} is there twice", dialogue.name);
            }
        }
    }

    #[test]
    fn every_difference_between_brokers_has_its_reason_and_no_reason_is_left_over() {
        let text = fs::read_to_string(folder().join("../versions.toml")).unwrap();
        let reasons: BTreeSet<String> = differences(&text).unwrap().into_keys().collect();
        let differing = both().into_iter().filter(|dialogue| dialogue.differs);
        let differing: BTreeSet<String> = differing.map(|dialogue| dialogue.name).collect();
        assert_eq!(reasons, differing);
    }

    #[test]
    fn a_table_with_a_name_twice_is_refused() {
        assert!(differences("\"a\" = \"x\"\n\"a\" = \"y\"").is_err());
    }
}
