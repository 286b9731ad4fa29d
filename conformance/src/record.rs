//! What a broker answered, as a TOML file to keep beside the dialogues.

use crate::conversation::Outcome;
use std::fmt::Write as _;

/// The record of a run: each dialogue with its result, and the words of the answers that differ
/// between brokers.
pub fn write<'a>(target: &str, outcomes: impl Iterator<Item = (&'a str, &'a Outcome)>) -> String {
    let mut text = format!("# What {target} answered. Written by `conformance --record`.\n");
    for (name, outcome) in outcomes {
        let result = match &outcome.failure {
            None => "ok".to_string(),
            Some(failure) => format!("not ok: {failure}"),
        };
        write!(text, "\n[[dialogue]]\nname = {}\nresult = {}\n", toml(name), toml(&result))
            .expect("a String takes all");
        if outcome.said.is_empty() {
            continue;
        }
        text.push_str("said = [\n");
        for words in &outcome.said {
            writeln!(text, "  {},", toml(words)).expect("a String takes all");
        }
        text.push_str("]\n");
    }
    text
}

/// A TOML basic string.
fn toml(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            '\n' => quoted.push_str("\\n"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Failure;

    #[test]
    fn a_record_shows_results_and_differing_answers() {
        let fine = Outcome { failure: None, said: vec!["1 basic.get-empty \"\"".into()] };
        let failure = Failure { line: 7, expected: "a".into(), got: "b".into() };
        let failed = Outcome { failure: Some(failure), said: Vec::new() };
        let text = write("a broker", [("one", &fine), ("two", &failed)].into_iter());
        assert_eq!(
            text,
            "# What a broker answered. Written by `conformance --record`.\n\
             \n[[dialogue]]\nname = \"one\"\nresult = \"ok\"\nsaid = [\n  \"1 basic.get-empty \\\"\\\"\",\n]\n\
             \n[[dialogue]]\nname = \"two\"\nresult = \"not ok: line 7: expected `a`, got `b`\"\n"
        );
    }
}
