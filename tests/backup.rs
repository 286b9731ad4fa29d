//! `prontomq backup`, with and without a running broker: what was confirmed before is in the copy, whole, and a broker
//! starts on it; what does not come to its end leaves nothing behind.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;
use support::broker::{program, run_to_end};
use support::client::{Flag, Incoming, persistent};
use support::{Broker, Client, PATIENCE};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room"))
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn copy(&self) -> PathBuf {
        self.0.path().join("copy")
    }

    fn partial(&self) -> PathBuf {
        self.0.path().join("copy.partial")
    }

    fn backup(&self) -> Output {
        run_to_end(program().arg("backup").arg(self.copy()).arg("--data-dir").arg(self.data()))
    }

    #[track_caller]
    fn back_up(&self) {
        let output = self.backup();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[track_caller]
    fn refused(&self, why: &str) {
        let output = self.backup();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("prontomq backup: ") && said.contains(why), "{said:?} lacks {why:?}");
    }

    fn socket(&self) -> PathBuf {
        self.data().join("prontomq.sock")
    }

    /// Speaks on the local socket as the command does.
    fn ask(&self, line: &str) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(self.socket()).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.write_all(line.as_bytes()).expect("the broker reads");
        BufReader::new(stream)
    }

    fn ask_for_backup(&self) -> BufReader<UnixStream> {
        self.ask(&format!("{{\"command\":\"backup\",\"target\":{:?}}}\n", self.copy()))
    }
}

#[test]
fn a_path_too_long_for_a_socket_keeps_no_backup_from_a_running_broker() {
    let place = Place::new();
    // 108 bytes are the most that a socket's address takes.
    let data = place.0.path().join("d".repeat(70)).join("e".repeat(70));
    std::fs::create_dir_all(&data).expect("there is room");
    let broker = Broker::start(&data);
    let mut client = Client::connect(broker.amqp);
    client.queue("q", &[Flag::Durable], &[]);
    assert!(!broker.log().contains("no local socket"), "{}", broker.log());
    let mut command = program();
    command.arg("backup").arg(place.copy()).arg("--data-dir").arg(&data);
    let output = run_to_end(&mut command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(data.join("prontomq.sock").exists(), "it lies where it always does");
    let restored = Broker::start(&place.copy());
    Client::connect(restored.amqp).queue("q", &[Flag::Passive], &[]);
    assert!(broker.terminate().0.success());
    assert!(!data.join("prontomq.sock").exists(), "it goes with the broker");
}

fn answer(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("the broker answers");
    line
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
    }
}

/// Publishes so many messages of that size, and waits for their confirms.
fn fill(broker: &Broker, queue: &str, messages: u64, bytes: usize) {
    let mut client = Client::connect(broker.amqp);
    client.confirm_select();
    client.queue(queue, &[Flag::Durable], &[]);
    for number in 0..messages {
        let mut body = number.to_be_bytes().to_vec();
        body.resize(bytes, b'.');
        client.publish("", queue, &persistent(), &body);
    }
    client.wait_for_confirms(1, messages);
    client.close();
}

/// All messages of a queue, by their numbers.
fn drain(broker: &Broker, queue: &str) -> Vec<u64> {
    let mut client = Client::connect(broker.amqp);
    let count = client.message_count(queue);
    client.consume_no_ack(queue, "c");
    (0..count).map(|_| client.delivery().number()).collect()
}

/// The doctor finds nothing wrong.
#[track_caller]
fn assert_sound(data: &Path) {
    let output = run_to_end(program().arg("doctor").arg("--data-dir").arg(data));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_backup_under_load_holds_all_that_was_confirmed_before_and_nothing_in_part() {
    let place = Place::new();
    let broker = Broker::start(&place.data());
    fill(&broker, "standing", 3_000, 8_000);
    Client::connect(broker.amqp).queue("flow", &[Flag::Durable], &[]);
    let (confirmed, consumed, ends) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let (before, after) = thread::scope(|scope| {
        scope.spawn(|| publish_until(&broker, &ends, &confirmed));
        scope.spawn(|| consume_until(&broker, &ends, &consumed));
        wait_until("messages are confirmed", || confirmed.load(Ordering::SeqCst) > 500);
        let before = confirmed.load(Ordering::SeqCst);
        place.back_up();
        let after = consumed.load(Ordering::SeqCst);
        ends.store(true, Ordering::SeqCst);
        (before, after)
    });
    drop(broker);
    assert!(!place.partial().exists());

    assert_sound(&place.copy());
    let broker = Broker::start(&place.copy());
    assert_eq!(drain(&broker, "standing"), (0..3_000).collect::<Vec<_>>());
    let found: BTreeSet<u64> = drain(&broker, "flow").into_iter().collect();
    let lost: Vec<_> = (after..before).filter(|number| !found.contains(number)).collect();
    assert!(lost.is_empty(), "confirmed before the backup began, not consumed before its end, and not there: {lost:?}");
    let (first, last) = (found.first().copied().unwrap_or(0), found.last().copied().unwrap_or(0));
    assert!(
        found.is_empty() || found.len() as u64 == last - first + 1,
        "one moment: no holes between {first} and {last}"
    );
}

/// Numbers from 0, at most 200 unconfirmed.
fn publish_until(broker: &Broker, ends: &AtomicBool, confirmed: &AtomicU64) {
    let mut client = Client::connect(broker.amqp);
    client.confirm_select();
    let mut next = 0_u64;
    while !ends.load(Ordering::SeqCst) {
        let first = next;
        for _ in 0..200 {
            client.publish("", "flow", &persistent(), &next.to_be_bytes());
            next += 1;
        }
        client.wait_for_confirms(first + 1, next);
        confirmed.store(next, Ordering::SeqCst);
    }
}

/// Acknowledges in order, all but the last 100; tells below which number all are acknowledged.
fn consume_until(broker: &Broker, ends: &AtomicBool, consumed: &AtomicU64) {
    let mut client = Client::connect(broker.amqp);
    client.qos(300);
    client.consume("flow", "c");
    while !ends.load(Ordering::SeqCst) {
        match client.next_within(std::time::Duration::from_millis(50)) {
            Some(Ok(Incoming::Delivery(delivery))) if delivery.delivery_tag > 100 => {
                client.ack(delivery.delivery_tag - 100, true);
                consumed.store(delivery.number() - 99, Ordering::SeqCst);
            }
            Some(Err(failure)) => panic!("{failure:?}"),
            _ => {}
        }
    }
}

#[test]
fn without_a_broker_the_command_copies_the_file_itself() {
    let place = Place::new();
    let broker = Broker::start(&place.data());
    fill(&broker, "q", 500, 1_000);
    // What still lies in the write-ahead log counts.
    broker.kill();
    place.back_up();
    assert_sound(&place.copy());
    let broker = Broker::start(&place.copy());
    assert_eq!(drain(&broker, "q"), (0..500).collect::<Vec<_>>());
    let mode = |path: PathBuf| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(place.copy()), 0o700, "for its owner alone");
}

#[test]
fn what_is_there_is_never_overwritten() {
    let place = Place::new();
    place.refused("no store in");
    let broker = Broker::start(&place.data());
    for live in [true, false] {
        if !live {
            broker.signal(rustix::process::Signal::KILL);
            wait_until("the broker is gone", || UnixStream::connect(place.socket()).is_err());
        }
        std::fs::create_dir(place.copy()).expect("there is room");
        place.refused("exists already");
        std::fs::remove_dir(place.copy()).expect("it is empty still");
        std::fs::create_dir(place.partial()).expect("there is room");
        place.refused("in that case remove it");
        std::fs::remove_dir(place.partial()).expect("it is empty still");
    }
    drop(broker);
    place.back_up();
}

#[test]
fn a_client_that_hangs_up_leaves_nothing_behind_and_the_next_backup_works() {
    let place = Place::new();
    let broker = Broker::start(&place.data());
    fill(&broker, "q", 8_000, 16_000);
    let mut asked = place.ask_for_backup();
    assert!(answer(&mut asked).starts_with("{\"progress\":"));
    let busy = place.ask("{\"command\":\"backup\",\"target\":\"/nowhere/copy\"}\n");
    drop((asked, busy));
    wait_until("the copy is removed", || !place.partial().exists());
    let broker_goes_on = Client::connect(broker.amqp).message_count("q");
    assert_eq!(broker_goes_on, 8_000);
    wait_until("the next one works", || place.backup().status.success());
    assert_sound(&place.copy());
}

#[test]
fn an_interrupted_command_and_a_stopping_broker_leave_nothing_behind() {
    let place = Place::new();
    let broker = Broker::start(&place.data());
    fill(&broker, "q", 8_000, 16_000);
    let mut command = program();
    command.arg("backup").arg(place.copy()).arg("--data-dir").arg(place.data());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the program can be started");
    wait_until("the copy begins", || place.partial().join("prontomq.sqlite3").exists());
    child.kill().expect("it can be killed");
    child.wait().expect("it can be waited for");
    wait_until("the copy is removed", || !place.partial().exists());

    // On a busy machine the copy may be done before the signal comes; then once more.
    let mut running = Some(broker);
    let was_cut_short = (0..5).any(|_| {
        let broker = running.take().unwrap_or_else(|| Broker::start(&place.data()));
        let mut asked = place.ask_for_backup();
        assert!(answer(&mut asked).starts_with("{\"progress\":"));
        broker.signal(rustix::process::Signal::TERM);
        let mut rest = String::new();
        asked.read_to_string(&mut rest).expect("the broker ends it");
        assert!(broker.wait().0.success());
        assert!(!place.partial().exists() && !place.socket().exists());
        if rest.contains("done") {
            assert_sound(&place.copy());
            std::fs::remove_dir_all(place.copy()).expect("it can be removed");
            return false;
        }
        assert!(!place.copy().exists());
        true
    });
    assert!(was_cut_short, "five backups were faster than a signal");
}

#[test]
fn the_socket_is_private_answers_nonsense_and_stays_usable() {
    let place = Place::new();
    let broker = Broker::start(&place.data());
    let mode = place.socket().metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut asked = place.ask("nonsense\n");
    assert!(answer(&mut asked).starts_with("{\"error\":\"not a valid request"));
    asked.get_mut().write_all(b"{\"command\":\"backup\",\"target\":\"relative\"}\n").expect("the broker reads");
    assert_eq!(answer(&mut asked), "{\"error\":\"the target of a backup is an absolute path\"}\n");
    let request = format!("{{\"command\":\"backup\",\"target\":{:?}}}\n", place.0.path().join("missing/copy"));
    asked.get_mut().write_all(request.as_bytes()).expect("the broker reads");
    let done = std::iter::repeat_with(|| answer(&mut asked)).find(|line| !line.contains("progress"));
    assert!(done.is_some_and(|line| line.starts_with("{\"done\":")), "folders on the way are made");
    broker.kill();
    assert!(place.socket().exists(), "as a killed broker leaves it");
    let _broker = Broker::start(&place.data());
    place.back_up();
}

#[test]
fn a_full_disk_at_the_target_is_the_clients_business_alone() {
    let Some(small) = SmallDisk::mount() else {
        support::tell("skipped: no tmpfs can be mounted");
        return;
    };
    let place = Place::new();
    let broker = Broker::start(&place.data());
    fill(&broker, "q", 1_000, 8_000);
    let target = small.0.path().join("copy");
    let output = run_to_end(program().arg("backup").arg(&target).arg("--data-dir").arg(place.data()));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("full"), "{said}");
    let left = std::fs::read_dir(small.0.path()).expect("it can be read").count();
    assert_eq!(left, 0, "what there was of it is removed");
    fill(&broker, "other", 100, 1_000);
    assert_eq!(broker.http_get("/healthz").1, "ok\n");
    place.back_up();
}

/// 1 MiB of disk; needs the right to mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("there is room");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}
