//! `sql`, `backup` and `doctor` find the store where `serve` would put it, and name what is missing: the store, or the
//! permission to read it.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the message")]

#[allow(dead_code, unused_imports, reason = "each test takes from the support what it needs")]
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::broker::{program, run_to_end};
use support::client::Flag;
use support::{Broker, Client};

/// A user without rights of its own.
const NOBODY: u32 = 65_534;
/// The exit code of each command that could not do its work.
const COMMANDS: [(&str, i32); 3] = [("sql", 1), ("backup", 1), ("doctor", 3)];

/// A data directory with so many queues, and no broker.
fn store(data: &Path, queues: usize) {
    let broker = Broker::start(data);
    let mut client = Client::connect(broker.amqp);
    (0..queues).for_each(|number| drop(client.queue(&format!("q{number}"), &[Flag::Durable], &[])));
    client.close();
    assert!(broker.terminate().0.success());
}

fn command(name: &str, copy: &Path) -> Command {
    let mut command = program();
    command.arg(name);
    match name {
        "sql" => drop(command.args(["--csv", "SELECT count(*) FROM v_queues"])),
        "backup" => drop(command.arg(copy)),
        _ => {}
    }
    command
}

fn text(output: &Output) -> String {
    String::from_utf8([output.stdout.clone(), output.stderr.clone()].concat()).unwrap()
}

/// How many queues the store has that a command has found.
fn queues_found(name: &str, output: &Output, copy: &Path) -> usize {
    assert!(output.status.success(), "{name}: {}", text(output));
    let text = match name {
        "sql" => text(output).lines().nth(1).unwrap().to_owned(),
        "doctor" => text(output).split(' ').next().unwrap().to_owned(),
        _ => {
            let output = run_to_end(command("sql", copy).arg("--data-dir").arg(copy));
            fs::remove_dir_all(copy).unwrap();
            return queues_found("sql", &output, copy);
        }
    };
    text.parse().unwrap()
}

#[test]
fn each_command_finds_the_store_by_flag_then_environment_then_file_then_default() {
    let folder = tempfile::tempdir().unwrap();
    let [flag, variable, file] = ["flag", "variable", "file"].map(|name| folder.path().join(name));
    let default = folder.path().join("prontomq-data");
    for (queues, data) in [&flag, &variable, &file, &default].into_iter().enumerate() {
        store(data, queues + 1);
    }
    let config = folder.path().join("p.toml");
    fs::write(&config, format!("data_dir = {file:?}\nheartbeat = 30\n")).unwrap();
    let copy = folder.path().join("copy");
    for (name, _) in COMMANDS {
        for sources in 0..8 {
            let [by_flag, by_variable, by_file] = [1, 2, 4].map(|bit| sources & bit > 0);
            let mut command = command(name, &copy);
            command.current_dir(folder.path());
            if by_flag {
                command.arg("--data-dir").arg(&flag);
            }
            if by_variable {
                command.env("PRONTOMQ_DATA_DIR", &variable);
            }
            if by_file {
                command.arg("--config").arg(&config);
            }
            let expected = [by_flag, by_variable, by_file, true].iter().position(|is_given| *is_given).unwrap() + 1;
            let found = queues_found(name, &run_to_end(&mut command), &copy);
            assert_eq!(found, expected, "{name}, flag {by_flag}, variable {by_variable}, file {by_file}");
        }
    }
}

#[test]
fn a_configuration_that_serve_refuses_is_refused_with_the_same_reason() {
    let folder = tempfile::tempdir().unwrap();
    let [missing, wrong] = ["missing.toml", "wrong.toml"].map(|name| folder.path().join(name));
    fs::write(&wrong, "heartbeat = \"lots\"\n").unwrap();
    for (config, reason) in [(&missing, "missing.toml: No such file"), (&wrong, "setting heartbeat (file ")] {
        for (name, code) in COMMANDS.into_iter().chain([("serve", 1)]) {
            let mut command = command(name, &folder.path().join("copy"));
            let output = run_to_end(command.arg("--config").arg(config).current_dir(folder.path()));
            assert_eq!(output.status.code(), Some(code), "{name}: {}", text(&output));
            assert!(text(&output).contains(reason), "{name}: {}", text(&output));
        }
    }
}

/// A command as another user runs it, on a copy of the program that this user may run; None unless we are root.
fn as_nobody(name: &str, data: &Path, open: &Path) -> Option<Output> {
    if !rustix::process::geteuid().is_root() {
        support::tell("skipped: only root can run a command as another user");
        return None;
    }
    let program = open.join("prontomq");
    if !program.exists() {
        // By another process: a test beside this one that starts a program then would pass on the open copy, which is busy.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_prontomq")).arg(&program).status().unwrap();
        assert!(copied.success());
    }
    let plain = command(name, &open.join("copy"));
    let mut command = Command::new(program);
    command.args(plain.get_args()).arg("--data-dir").arg(data).env_clear();
    Some(run_to_end(command.current_dir("/").uid(NOBODY).gid(NOBODY)))
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn open_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o777);
    let data = folder.path().join("data");
    (folder, data)
}

#[track_caller]
fn assert_permission(name: &str, code: i32, output: &Output) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(code), "{name}: {text}");
    assert!(text.contains("no permission to ") && text.lines().count() == 1, "{name}: {text}");
    assert!(!text.contains("no store") && text.contains("as the user that the broker runs as"), "{name}: {text}");
}

#[test]
fn a_missing_permission_is_no_missing_store() {
    let (folder, data) = open_folder();
    store(&data, 1);
    // Nothing may be read; only the directory; all, and nothing written.
    for (directory, files) in [(0o700, 0o600), (0o755, 0o600), (0o755, 0o644)] {
        set_mode(&data, directory);
        fs::read_dir(&data).unwrap().for_each(|entry| set_mode(&entry.unwrap().path(), files));
        for (name, code) in COMMANDS {
            let Some(output) = as_nobody(name, &data, folder.path()) else { return };
            assert_permission(name, code, &output);
        }
    }
    let none = folder.path().join("none");
    for (name, code) in COMMANDS {
        let Some(output) = as_nobody(name, &none, folder.path()) else { return };
        assert_eq!(output.status.code(), Some(code), "{name}");
        assert!(text(&output).contains("no store in"), "{name}: {}", text(&output));
    }
}

#[test]
fn a_broker_that_may_not_be_spoken_to_is_no_missing_broker() {
    let (folder, data) = open_folder();
    let _broker = Broker::start(&data);
    for directory in [0o700, 0o755] {
        set_mode(&data, directory);
        let Some(output) = as_nobody("backup", &data, folder.path()) else { return };
        assert_permission("backup", 1, &output);
    }
}
