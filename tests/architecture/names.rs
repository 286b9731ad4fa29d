//! Thread-locals, each with what it is for: none but the offer to commit changes what a call does.

use super::source::Source;

const THREAD_LOCALS: [(&str, &str); 3] = [
    ("broker/turns.rs", "room that every turn of the thread uses again"),
    ("server/connection.rs", "the read buffer of the thread"),
    ("server/reactor/commits.rs", "whether the thread commits what it hands over"),
];

#[test]
fn only_the_offer_to_commit_is_a_thread_local_that_changes_what_a_call_does() {
    let uses = |source: &Source| !source.is_test() && source.code().contains("thread_local!");
    let found: Vec<String> = Source::all().into_iter().filter(uses).map(|source| source.path).collect();
    let listed: Vec<&str> = THREAD_LOCALS.iter().map(|(path, _)| *path).collect();
    assert_eq!(found, listed, "each thread-local is listed here with its reason");
}
