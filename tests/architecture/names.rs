//! Thread-locals, each with what it is for: none but the lone connection's changes what a call does.

use super::source::Source;

const THREAD_LOCALS: [(&str, &str); 5] = [
    ("broker/turns.rs", "room that every turn of the thread uses again"),
    ("server/connection.rs", "the read buffer of the thread"),
    ("server/lone/deferred.rs", "connections that the thread serves when its work is done"),
    ("server/lone/offer.rs", "whether the thread commits what it hands over"),
    ("server/lone/runner.rs", "whether the thread commits"),
];

#[test]
fn only_the_lone_connection_has_thread_locals_that_change_what_a_call_does() {
    let uses = |source: &Source| !source.is_test() && source.code().contains("thread_local!");
    let found: Vec<String> = Source::all().into_iter().filter(uses).map(|source| source.path).collect();
    let listed: Vec<&str> = THREAD_LOCALS.iter().map(|(path, _)| *path).collect();
    assert_eq!(found, listed, "each thread-local is listed here with its reason");
}
