//! Peers that read slowly, that do not read, that hang up while nobody reads them, and that are cut off: output that waits
//! does not silence a client, and only bytes that come in are a sign of life.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use std::fs;
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};
use support::client::{Flag, Incoming, Login, persistent};
use support::{Broker, Client, PATIENCE, tell};
use tempfile::TempDir;

const HEARTBEAT: Duration = Duration::from_secs(1);
/// More than the kernel keeps for a socket whose owner does not read.
const BIG: usize = 24 << 20;
const OPEN_CONNECTIONS: &str = "rabbitmq_connections";

fn beating() -> Login<'static> {
    Login { heartbeat_seconds: 1, ..Login::default() }
}

fn start() -> (Broker, TempDir) {
    let data = tempfile::tempdir().unwrap();
    (Broker::start(&data.path().join("data")), data)
}

/// One whose disk alarm never ends.
fn start_with_alarm() -> (Broker, TempDir) {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("data");
    let mut command = support::broker::serve(&path);
    command.env("PRONTOMQ_LIMITS_DISK_FREE_BYTES", "1000 GiB");
    (Broker::run(command, &path), data)
}

/// A client with a message of its own to acknowledge, to which the broker is writing a message that it does not read.
fn backed_up(broker: &Broker, control: &mut Client) -> Client {
    for queue in ["work", "big", "inbox"] {
        control.queue(queue, &[Flag::Durable], &[]);
    }
    control.confirm_select();
    control.publish("", "work", &persistent(), b"work");
    control.publish("", "big", &persistent(), &vec![b'x'; BIG]);
    control.wait_for_confirms(1, 2);
    let mut slow = Client::open(broker.amqp, beating()).unwrap();
    slow.channel(1);
    slow.consume("work", "w");
    assert_eq!(slow.delivery().body, b"work");
    slow.consume_no_ack("big", "b");
    slow.flush().unwrap();
    slow
}

#[test]
fn what_a_slow_reader_sends_is_carried_out_and_it_lives() {
    let (broker, _data) = start();
    let mut control = Client::connect(broker.amqp);
    let mut slow = backed_up(&broker, &mut control);
    let mut byte = [0];
    slow.stream().peek(&mut byte).unwrap();
    slow.ack(1, false);
    slow.publish("", "inbox", &persistent(), b"result");
    slow.flush().unwrap();
    control.consume_no_ack("inbox", "i");
    assert_eq!(control.delivery().body, b"result", "while a delivery waits to be read");

    // It reads for several times as long as a silent client lives.
    let began = Instant::now();
    let pieces = 48;
    let mut piece = vec![0; BIG / pieces];
    // The beginning may have been read with the answer to basic.consume.
    for _ in 1..pieces {
        slow.stream().read_exact(&mut piece).expect("it is not dropped");
        slow.heartbeat();
        slow.flush().unwrap();
        std::thread::sleep(HEARTBEAT / 10);
    }
    assert!(began.elapsed() > HEARTBEAT * 4);
    slow.drop_socket();
    broker.wait_for_metric(OPEN_CONNECTIONS, |connections| connections == 1.0);
    assert_eq!(control.message_count("work"), 0, "the acknowledgement was carried out");
}

#[test]
fn a_confirm_that_had_to_wait_for_room_comes_when_there_is_some() {
    let (broker, _data) = start();
    let mut control = Client::connect(broker.amqp);
    control.queue("big", &[Flag::Durable], &[]);
    control.confirm_select();
    control.publish("", "big", &persistent(), &vec![b'x'; BIG]);
    control.wait_for_confirms(1, 1);
    // Without heartbeats nothing else wakes the connection.
    let mut client = Client::connect(broker.amqp);
    client.confirm_select();
    client.consume_no_ack("big", "b");
    client.flush().unwrap();
    client.stream().peek(&mut [0]).unwrap();
    client.publish("", "nowhere", &persistent(), b"m");
    client.flush().unwrap();
    // The broker has read it while output waits.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(client.delivery().body.len(), BIG);
    let confirm = client.next_within(PATIENCE).expect("it comes by itself").unwrap();
    assert_eq!(confirm, Incoming::Confirm { delivery_tag: 1, multiple: false, kept: true });
}

/// Resident size in bytes.
fn resident(broker: &Broker) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn answers_that_nobody_reads_are_bounded_and_come_when_somebody_does() {
    const COUNT: u16 = 200;
    const BODY: usize = 1 << 20;
    let (broker, _data) = start();
    let mut control = Client::connect(broker.amqp);
    control.queue("q", &[Flag::Durable], &[]);
    control.confirm_select();
    for number in 1..=u64::from(COUNT) {
        control.publish("", "q", &persistent(), &vec![b'x'; BODY]);
        control.wait_for_confirms(number, number);
    }
    let mut client = Client::open(broker.amqp, Login::default()).unwrap();
    (1..=COUNT).for_each(|channel| client.channel(channel));
    let before = resident(&broker);
    for channel in 1..=COUNT {
        // basic.get without acknowledgement.
        client.write(channel, (60, 70), |fields| fields.extend_from_slice(b"\0\0\x01q\x01"));
    }
    client.flush().unwrap();
    client.stream().peek(&mut [0]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        let grown = resident(&broker).saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} bytes for answers that nobody reads");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut left = usize::from(COUNT) * BODY;
    let mut piece = vec![0; 1 << 16];
    while left > 0 {
        let len = client.stream().read(&mut piece).unwrap();
        assert!(len > 0, "all answers come");
        left = left.saturating_sub(len);
    }
}

#[test]
fn a_blocked_client_that_hangs_up_is_gone_before_the_alarm_ends() {
    let (broker, _data) = start_with_alarm();
    let mut client = Client::connect(broker.amqp);
    client.publish("", "nowhere", &persistent(), b"m");
    client.flush().unwrap();
    broker.wait_for_metric(OPEN_CONNECTIONS, |connections| connections == 1.0);
    client.drop_socket();
    let began = Instant::now();
    broker.wait_for_metric(OPEN_CONNECTIONS, |connections| connections == 0.0);
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Whether the test runs on a network of its own; if not, it is run again there, and this is its outcome.
fn on_own_network(test: &str) -> bool {
    const INSIDE: &str = "ON_A_NETWORK_OF_ITS_OWN";
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.unwrap().success());
        return true;
    }
    let tools = [("unshare", "-V"), ("ip", "-V"), ("nft", "-v")];
    if let Some((tool, _)) = tools.iter().find(|(tool, flag)| Command::new(tool).arg(flag).output().is_err()) {
        assert!(std::env::var_os("CI").is_none(), "{tool} is missing");
        tell(&format!("not tested: {tool} is missing"));
        return false;
    }
    if !Command::new("unshare").args(["-n", "true"]).status().unwrap().success() {
        tell("not tested: a network of its own is refused");
        return false;
    }
    let exe = std::env::current_exe().unwrap();
    let mut again = Command::new("unshare");
    again.arg("-n").arg(exe).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    assert!(again.status().unwrap().success());
    false
}

/// Nothing passes between this client and the broker any more, in either direction.
fn pull_the_cable(client: &Client) {
    let [port, broker] = [client.stream().local_addr(), client.stream().peer_addr()].map(|end| end.unwrap().port());
    let rules = format!(
        "add table inet cut\n\
         add chain inet cut input {{ type filter hook input priority 0; }}\n\
         add rule inet cut input tcp sport {port} tcp dport {broker} drop\n\
         add rule inet cut input tcp sport {broker} tcp dport {port} drop\n"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), rules).unwrap();
    assert!(Command::new("nft").arg("-f").arg(file.path()).status().unwrap().success());
}

/// How long the broker keeps a connection whose cable was pulled.
fn kept(broker: &Broker, client: &Client, others: f64, mut meanwhile: impl FnMut()) -> Duration {
    broker.wait_for_metric(OPEN_CONNECTIONS, |connections| connections == others + 1.0);
    pull_the_cable(client);
    let began = Instant::now();
    while broker.metric(OPEN_CONNECTIONS) > others {
        assert!(began.elapsed() < PATIENCE, "it is never gone");
        meanwhile();
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// Deliveries that trickle into the socket's buffer are no sign of life.
#[test]
fn a_client_that_is_cut_off_is_gone_after_two_and_a_half_heartbeats() {
    if !on_own_network("a_client_that_is_cut_off_is_gone_after_two_and_a_half_heartbeats") {
        return;
    }
    let (broker, _data) = start();
    let mut control = Client::connect(broker.amqp);
    control.queue("trickle", &[], &[]);
    let mut client = Client::open(broker.amqp, beating()).unwrap();
    client.channel(1);
    client.consume("trickle", "t");
    client.heartbeat();
    client.flush().unwrap();
    let took = kept(&broker, &client, 1.0, || {
        control.publish("", "trickle", &persistent(), b"drop");
        control.flush().unwrap();
    });
    tell(&format!("cut off while deliveries trickle: gone after {took:?}"));
    assert!(took <= HEARTBEAT * 5 / 2 + Duration::from_millis(700));
}

#[test]
fn a_client_that_is_cut_off_while_output_waits_is_gone_after_two_and_a_half_heartbeats() {
    if !on_own_network("a_client_that_is_cut_off_while_output_waits_is_gone_after_two_and_a_half_heartbeats") {
        return;
    }
    let (broker, _data) = start();
    let mut control = Client::connect(broker.amqp);
    let client = backed_up(&broker, &mut control);
    client.stream().peek(&mut [0]).unwrap();
    let took = kept(&broker, &client, 1.0, || {});
    tell(&format!("cut off while output waits: gone after {took:?}"));
    assert!(took <= HEARTBEAT * 5 / 2 + Duration::from_millis(700));
    assert_eq!(control.get("work").expect("what it held is back").body, b"work");
}

/// The broker answers gets until nobody takes the answers, and then reads no more: its TCP is asked instead.
#[test]
fn a_client_that_is_cut_off_while_its_gets_are_parked_is_gone_after_two_and_a_half_heartbeats() {
    if !on_own_network("a_client_that_is_cut_off_while_its_gets_are_parked_is_gone_after_two_and_a_half_heartbeats") {
        return;
    }
    const MESSAGES: u64 = 1000;
    let (broker, _data) = start();
    let mut control = Client::connect(broker.amqp);
    control.confirm_select();
    for queue in ["p", "q"] {
        control.queue(queue, &[Flag::Durable], &[]);
        (0..MESSAGES).for_each(|_| control.publish("", queue, &persistent(), &[b'x'; 20_000]));
    }
    control.wait_for_confirms(1, 2 * MESSAGES);
    let getting = |queue: u8| {
        let mut client = Client::open(broker.amqp, beating()).unwrap();
        client.channel(1);
        (0..4_000).for_each(|_| client.write(1, (60, 70), |fields| fields.extend_from_slice(&[0, 0, 1, queue, 0])));
        client.flush().unwrap();
        client.stream().peek(&mut [0]).unwrap();
        client
    };
    let alive = getting(b'p');
    // Looks come once a second, so the moment of the cut is varied.
    for delay in [0, 250, 500, 750] {
        let client = getting(b'q');
        std::thread::sleep(Duration::from_millis(300 + delay));
        let took = kept(&broker, &client, 2.0, || {});
        tell(&format!("cut off while gets are parked: gone after {took:?}"));
        assert!(took <= HEARTBEAT * 5 / 2 + Duration::from_millis(700), "{took:?}");
        assert_eq!(u64::from(control.message_count("q")), MESSAGES, "what it held is back");
    }
    // Its TCP has answered for all that time.
    drop(alive);
}

/// A blocked client is not read: its TCP is asked instead.
#[test]
fn a_blocked_client_that_is_cut_off_is_gone_soon_and_one_that_is_not_lives() {
    if !on_own_network("a_blocked_client_that_is_cut_off_is_gone_soon_and_one_that_is_not_lives") {
        return;
    }
    let (broker, _data) = start_with_alarm();
    let mut blocked = [(); 2].map(|()| {
        let mut client = Client::open(broker.amqp, beating()).unwrap();
        client.channel(1);
        client.publish("", "nowhere", &persistent(), b"m");
        client.flush().unwrap();
        client
    });
    // Longer than a silent client lives: its heartbeats are not read, and it acknowledges ours.
    std::thread::sleep(HEARTBEAT * 4);
    let [cut, alive] = &mut blocked;
    let took = kept(&broker, cut, 1.0, || {
        alive.heartbeat();
        alive.flush().unwrap();
    });
    tell(&format!("cut off while it is blocked: gone after {took:?}"));
    assert!(took <= HEARTBEAT * 5 / 2 + Duration::from_millis(700), "{took:?}");
    alive.heartbeat();
    alive.flush().unwrap();
    assert_eq!(broker.metric(OPEN_CONNECTIONS), 1.0);
}
