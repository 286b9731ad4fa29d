//! `prontomq doctor` as operators meet it, and what `prontomq serve` says of a damaged file.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use support::broker::{program, run_to_end, serve};
use support::client::{Flag, Login, persistent};
use support::{Broker, Client};

const PAGE_BYTES: usize = 16_384;

struct Place(tempfile::TempDir);

impl Place {
    /// With 300 messages in one queue, cleanly stopped.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("there is room"));
        let broker = Broker::start(&place.data());
        let mut client = Client::connect(broker.amqp);
        client.confirm_select();
        client.queue("q", &[Flag::Durable], &[]);
        for number in 0..300_u64 {
            let mut body = number.to_be_bytes().to_vec();
            body.resize(500, b'.');
            client.publish("", "q", &persistent(), &body);
        }
        client.wait_for_confirms(1, 300);
        client.close();
        assert!(broker.terminate().0.success());
        place
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn file(&self) -> PathBuf {
        self.data().join("prontomq.sqlite3")
    }

    /// Exit code, and what it says on either stream.
    fn doctor(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = run_to_end(program().arg("doctor").arg("--data-dir").arg(self.data()).args(arguments));
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("it says text"))
    }

    fn number(&self, statement: &str) -> i64 {
        let connection = rusqlite::Connection::open(self.file()).expect("it can be opened");
        connection.query_row(statement, [], |row| row.get(0)).expect("it can be read")
    }

    fn zero_page(&self, page: i64) {
        let file = OpenOptions::new().write(true).open(self.file()).expect("it can be written");
        let at = u64::try_from(page - 1).expect("pages count from 1") * PAGE_BYTES as u64;
        file.write_all_at(&[0; PAGE_BYTES], at).expect("it can be written");
    }

    /// `prontomq serve` ends with a sentence that names the doctor, and with nothing worse.
    fn assert_serve_names_the_doctor(&self) {
        let output = run_to_end(&mut serve(&self.data()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("data_dir: the file is damaged: ") && said.contains("`prontomq doctor`"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

fn numbers(data: &Path) -> Vec<u64> {
    let broker = Broker::start(data);
    let mut client = Client::connect(broker.amqp);
    let count = client.message_count("q");
    client.consume_no_ack("q", "c");
    (0..count).map(|_| client.delivery().number()).collect()
}

#[test]
fn a_sound_store_costs_exit_code_0_and_a_running_broker_3() {
    let place = Place::new();
    assert_eq!(place.doctor(&[]), (Some(0), "1 queues, 300 messages that can be read; nothing is wrong\n".to_owned()));
    let broker = Broker::start(&place.data());
    let (code, said) = place.doctor(&[]);
    assert_eq!(code, Some(3));
    assert!(said.contains(&format!("process {} runs on it", broker.pid())), "{said}");
    drop(broker);
    fs::remove_dir_all(place.data()).expect("it can be removed");
    let (code, said) = place.doctor(&["--repair"]);
    assert_eq!(code, Some(3));
    let data = place.data().display().to_string();
    assert_eq!(said.trim_end(), format!("prontomq doctor: no store in {data}; give its directory with --data-dir"));
    assert!(!place.data().exists(), "nothing is made");
}

#[test]
fn a_damaged_page_is_told_and_all_others_are_saved() {
    let place = Place::new();
    let page = place.number("SELECT max(pageno) FROM dbstat WHERE name = 'message' AND pagetype = 'leaf'");
    let lost = place.number(&format!("SELECT ncell FROM dbstat WHERE pageno = {page}"));
    place.zero_page(page);
    let (code, said) = place.doctor(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("queue \"q\" of vhost \"/\", level 0, positions: ") && said.contains("--repair"), "{said}");
    let (code, said) = place.doctor(&["--repair"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the file as it was is kept as ") && said.contains("after the repair: "), "{said}");
    let left = numbers(&place.data());
    assert_eq!(left.len() as i64, 300 - lost);
    assert!(left.is_sorted(), "in their order");
    assert_eq!(place.doctor(&[]).0, Some(0));
}

#[test]
fn serve_refuses_a_file_whose_topology_is_damaged_until_the_doctor_was_there() {
    for table in ["queue", "lane", "exchange", "state", "user", "_sqlx_migrations"] {
        let place = Place::new();
        let root = place.number(&format!("SELECT rootpage FROM sqlite_schema WHERE name = '{table}'"));
        place.zero_page(root);
        place.assert_serve_names_the_doctor();
        assert_eq!(place.doctor(&[]).0, Some(1), "{table}");
        let (code, said) = place.doctor(&["--repair"]);
        assert_eq!(code, Some(0), "{table}: {said}");
        // The store has messages: where its users are lost, guest is not made anew, and others are to be configured.
        let folder = tempfile::tempdir().expect("there is room");
        let config = folder.path().join("prontomq.toml");
        fs::write(&config, "[[users]]\nname = \"till\"\npassword = \"secret\"\n").expect("there is room");
        let mut command = serve(&place.data());
        command.arg("--config").arg(config);
        let broker = Broker::run(command, &place.data());
        assert_eq!(place.number("SELECT sum(messages) FROM v_queues"), 300, "{table}");
        let till = Login { user: "till", password: "secret", ..Login::default() };
        Client::open(broker.amqp, till).unwrap_or_else(|error| panic!("{table}: {error:?}")).close();
    }
}

#[test]
fn a_file_without_its_beginning_is_refused_by_both() {
    let place = Place::new();
    place.zero_page(1);
    place.assert_serve_names_the_doctor();
    for arguments in [&[][..], &["--repair"]] {
        let (code, said) = place.doctor(arguments);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("what is left is a backup"), "{said}");
    }
}
