//! Users and vhosts of the configuration file, at the start and at SIGHUP, and the other settings that SIGHUP reloads.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use support::Client;
use support::client::{Failure, Flag, Login};
use support::folder::{Folder, login, may, offered_heartbeat, refusal, wait_until};

// ---- vhosts and users --------------------------------------------------------------------------------------------

#[test]
fn vhosts_and_users_of_the_file_exist_after_every_start() {
    const SHOP: &str =
        "[[vhosts]]\nname = \"shop\"\n[[users]]\nname = \"till\"\npassword = \"first\"\nvhosts = [\"shop\"]\n";
    let folder = Folder::new();
    let broker = folder.start_with(SHOP);
    assert_eq!(may(&broker, login("till", "first", "shop")), Ok(()));
    assert_eq!(refusal(may(&broker, login("till", "first", "/"))), 530, "not its vhost");
    assert_eq!(refusal(may(&broker, login("till", "wrong", "shop"))), 403);
    let mut client = Client::open(broker.amqp, login("till", "first", "shop")).expect("till may connect");
    client.channel(1);
    client.queue("receipts", &[Flag::Durable], &[]);
    drop(client);
    assert!(broker.terminate().0.success());

    // The same file again changes nothing.
    let broker = folder.start_with(SHOP);
    let mut client = Client::open(broker.amqp, login("till", "first", "shop")).expect("till may connect");
    client.channel(1);
    client.queue("receipts", &[Flag::Passive], &[]);
    drop(client);
    broker.kill();

    // A new password counts.
    let broker = folder.start_with(&SHOP.replace("first", "second"));
    assert_eq!(refusal(may(&broker, login("till", "first", "shop"))), 403);
    assert_eq!(may(&broker, login("till", "second", "shop")), Ok(()));
    assert!(broker.terminate().0.success());
}

#[test]
fn guest_is_made_on_an_empty_store_when_no_user_is_configured_and_never_later() {
    const TILL: &str = "[[users]]\nname = \"till\"\npassword = \"secret\"\n";
    let folder = Folder::new();
    let broker = folder.start_with(TILL);
    assert_eq!(refusal(may(&broker, Login::default())), 403, "a user is configured");
    assert_eq!(may(&broker, login("till", "secret", "/")), Ok(()));
    assert!(broker.terminate().0.success());
    // The only user is gone from the file: nobody can log in, and guest does not come instead.
    let broker = folder.start_with("");
    assert_eq!(refusal(may(&broker, login("till", "secret", "/"))), 403);
    assert_eq!(refusal(may(&broker, Login::default())), 403, "the store is not empty");
    assert!(broker.log().contains("nobody can log in"), "{}", broker.log());
    assert!(broker.terminate().0.success());

    // Made before users were configured, guest stays: that user did not come from the file.
    let folder = Folder::new();
    assert_eq!(may(&folder.start_with(""), Login::default()), Ok(()));
    let broker = folder.start_with(TILL);
    assert_eq!(may(&broker, Login::default()), Ok(()));
    // Named by the file and then no longer, guest is like any other.
    drop(broker);
    let guest = "[[users]]\nname = \"guest\"\npassword = \"guest\"\n";
    assert_eq!(may(&folder.start_with(guest), Login::default()), Ok(()));
    assert_eq!(refusal(may(&folder.start_with(TILL), Login::default())), 403);
}

const SHOP_AND_OFFICE: &str = "[[vhosts]]\nname = \"shop\"\n[[vhosts]]\nname = \"office\"\n\
    [[users]]\nname = \"till\"\npassword = \"t\"\nvhosts = [\"shop\", \"office\"]\n\
    [[users]]\nname = \"clerk\"\npassword = \"c\"\nvhosts = [\"shop\"]\n";
/// The vhost `office` and the user `clerk` are gone.
const SHOP_ALONE: &str =
    "[[vhosts]]\nname = \"shop\"\n[[users]]\nname = \"till\"\npassword = \"t\"\nvhosts = [\"shop\"]\n";

#[test]
fn a_user_and_a_vhost_that_the_file_names_no_more_lose_their_login_at_the_next_start() {
    let folder = Folder::new();
    let broker = folder.start_with(SHOP_AND_OFFICE);
    let mut client = Client::open(broker.amqp, login("till", "t", "office")).expect("till may connect");
    client.channel(1);
    client.queue("letters", &[Flag::Durable], &[]);
    drop(client);
    assert_eq!(may(&broker, login("clerk", "c", "shop")), Ok(()));
    assert!(broker.terminate().0.success());

    let broker = folder.start_with(SHOP_ALONE);
    assert_eq!(refusal(may(&broker, login("clerk", "c", "shop"))), 403);
    assert_eq!(refusal(may(&broker, login("till", "t", "office"))), 530);
    assert_eq!(may(&broker, login("till", "t", "shop")), Ok(()));
    drop(broker);

    // The vhost has kept what was in it.
    let broker = folder.start_with(SHOP_AND_OFFICE);
    let mut client = Client::open(broker.amqp, login("till", "t", "office")).expect("till may connect");
    client.channel(1);
    client.queue("letters", &[Flag::Passive], &[]);
}

// ---- reloading ---------------------------------------------------------------------------------------------------

#[test]
fn at_sighup_users_and_vhosts_come_and_go_and_their_open_connections_are_closed() {
    let folder = Folder::new();
    let broker = folder.start_with(SHOP_AND_OFFICE);
    let open = |name, password, vhost| Client::open(broker.amqp, login(name, password, vhost)).expect("it may connect");
    let (mut clerk, mut office, mut shop) =
        (open("clerk", "c", "shop"), open("till", "t", "office"), open("till", "t", "shop"));
    folder.reload(&broker, SHOP_ALONE);
    let forced = |text: &str| Err(Failure::Connection(320, format!("CONNECTION_FORCED - {text}")));
    assert_eq!(clerk.next(), forced("user 'clerk' is deleted"));
    assert_eq!(office.next(), forced("vhost 'office' is not configured any more; its queues are kept"));
    assert_eq!(refusal(may(&broker, login("clerk", "c", "shop"))), 403);
    assert_eq!(refusal(may(&broker, login("till", "t", "office"))), 530);
    shop.channel(1);
    shop.queue("still-served", &[], &[]);

    folder.reload(&broker, &SHOP_AND_OFFICE.replace("\"c\"", "\"other\""));
    assert_eq!(refusal(may(&broker, login("clerk", "c", "shop"))), 403, "the password is another one");
    assert_eq!(may(&broker, login("clerk", "other", "shop")), Ok(()));
    assert_eq!(may(&broker, login("till", "t", "office")), Ok(()));
    shop.queue("still-served", &[], &[]);
    assert!(broker.terminate().0.success());
}

#[test]
fn at_sighup_limits_and_log_level_are_taken_over_and_what_is_not_is_logged() {
    let folder = Folder::new();
    let broker = folder.start_with("connections_max = 1\nheartbeat = \"17 s\"\n[store]\nhold_max = \"3 ms\"");
    let _first = Client::connect(broker.amqp);
    assert_eq!(refusal(may(&broker, Login::default())), 530);
    let log = folder.reload(
        &broker,
        "connections_max = 2\nheartbeat = \"23 s\"\nlog_level = \"debug\"\n[limits]\nmemory_bytes = \"10 MiB\"\n\
         resident_bytes = \"900 MiB\"\n\
         disk_free_bytes = \"1 GiB\"\n[store]\nhold_max = \"2 ms\"",
    );
    assert!(log.contains("heartbeat, log_level"), "{log}");
    wait_until("what needs a restart is logged", || {
        let log = broker.log();
        log.lines().any(|line| line.contains("take effect at the next start") && line.contains("\"store.hold_max\""))
    });
    assert_eq!(may(&broker, Login::default()), Ok(()));
    assert_eq!(offered_heartbeat(&broker), 23);
    assert_eq!(broker.metric("prontomq_memory_limit_bytes"), 10.0 * 1024.0 * 1024.0, "what clients take");
    assert_eq!(
        broker.metric("rabbitmq_resident_memory_limit_bytes"),
        900.0 * 1024.0 * 1024.0,
        "what the process takes"
    );
    assert_eq!(broker.metric("rabbitmq_disk_space_available_limit_bytes"), 1024.0 * 1024.0 * 1024.0);
    // Connected and left: worth a line of the level debug.
    drop(std::net::TcpStream::connect(broker.amqp).expect("the broker accepts"));
    wait_until("lines of the new level are written", || broker.log().contains("\"level\":\"DEBUG\""));
    assert!(broker.terminate().0.success());
}

#[test]
fn a_bad_file_changes_nothing_at_sighup_and_the_log_says_why() {
    let folder = Folder::new();
    let broker = folder.start_with(SHOP_AND_OFFICE);
    let mut clerk = Client::open(broker.amqp, login("clerk", "c", "shop")).expect("clerk may connect");
    let wrong_user = format!("heartbeat = \"23 s\"\n{SHOP_ALONE}[[users]]\nname = \"till\"\npassword = \"x\"\n");
    for (text, why) in [
        ("heartbeat = \"23 s\"\nchannels_max = 0\n", "channels_max"),
        ("heartbeat = ", "line 1"),
        (wrong_user.as_str(), "there is another user"),
    ] {
        let log = folder.reload(&broker, text);
        assert!(log.contains("were not reloaded") && log.contains(why), "{log}");
        clerk.channel(1);
        clerk.close_channel(1);
    }
    assert_eq!(may(&broker, login("till", "t", "office")), Ok(()));
    assert!(broker.terminate().0.success());
}
