//! Runs the golden dialogues against a broker.
//!
//! `conformance --url amqp://guest:guest@127.0.0.1:5672/%2f --target prontomq [--only PATTERN]
//! [--list] [--jobs N] [--record FILE] [--dialogues FOLDER]`

use conformance::conversation::{Login, Outcome, run};
use conformance::dialogue::{Dialogue, Target};
use conformance::transport::Tcp;
use conformance::{record, suite};
use std::collections::VecDeque;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

const USAGE: &str = "conformance --target rabbitmq-3.10|prontomq [--url amqp://guest:guest@127.0.0.1:5672/%2f] \
    [--only PATTERN] [--list] [--jobs N] [--record FILE] [--dialogues FOLDER]";

struct Options {
    url: String,
    target_name: String,
    target: Target,
    only: String,
    list: bool,
    jobs: usize,
    record: Option<PathBuf>,
    dialogues: PathBuf,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        url: "amqp://guest:guest@127.0.0.1:5672/%2f".into(),
        target_name: String::new(),
        target: Target::Prontomq,
        only: String::new(),
        list: false,
        jobs: 32,
        record: None,
        dialogues: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/dialogues")),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--list" {
            options.list = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{argument} wants a value\n{USAGE}"))?;
        match argument.as_str() {
            "--url" => options.url = value,
            "--target" => options.target_name = value,
            "--only" => options.only = value,
            "--jobs" => options.jobs = value.parse().map_err(|_| "--jobs wants a number")?,
            "--record" => options.record = Some(value.into()),
            "--dialogues" => options.dialogues = value.into(),
            other => return Err(format!("no option {other}\n{USAGE}")),
        }
    }
    options.target = Target::from_name(&options.target_name).ok_or(USAGE)?;
    Ok(options)
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits: Vec<u8> = rest.by_ref().take(2).collect();
        let digits = String::from_utf8_lossy(&digits);
        let byte = u8::from_str_radix(&digits, 16).map_err(|_| format!("%{digits} in the URL"))?;
        bytes.push(byte);
    }
    String::from_utf8(bytes).map_err(|_| "the URL is not UTF-8".into())
}

/// Address and login of `amqp://user:password@host:port/vhost`.
fn parse_url(url: &str) -> Result<(String, Login), String> {
    let wrong = || format!("{url} is not amqp://user:password@host:port/vhost");
    let rest = url.strip_prefix("amqp://").ok_or_else(wrong)?;
    let (credentials, rest) = rest.split_once('@').ok_or_else(wrong)?;
    let (user, password) = credentials.split_once(':').ok_or_else(wrong)?;
    let (address, vhost) = rest.split_once('/').unwrap_or((rest, "%2f"));
    let login =
        Login { user: percent_decoded(user)?, password: percent_decoded(password)?, vhost: percent_decoded(vhost)? };
    let port = if address.contains(':') { "" } else { ":5672" };
    Ok((format!("{address}{port}"), login))
}

fn print(line: &str) {
    // A reader that has gone away is no reason to stop the run.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Names of this run start with this: brokers keep what a killed run left behind.
fn run_suffix() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("-{:x}", since.as_micros() & 0xff_ffff_ffff)
}

/// Carries all out, several at once, and prints each as it ends.
fn run_all(dialogues: &[Dialogue], options: &Options) -> Result<Vec<Outcome>, String> {
    let (address, login) = parse_url(&options.url)?;
    let dialer = Tcp::new(address);
    let suffix = run_suffix();
    let mut order: Vec<usize> = (0..dialogues.len()).collect();
    order.sort_by_key(|index| !dialogues[*index].slow);
    let waiting = Mutex::new(VecDeque::from(order));
    let outcomes: Mutex<Vec<Option<Outcome>>> = Mutex::new(dialogues.iter().map(|_| None).collect());
    let lock_holds = "no dialogue runs while the lock is held";
    let work = || {
        loop {
            let Some(index) = waiting.lock().expect(lock_holds).pop_front() else {
                return;
            };
            let dialogue = &dialogues[index];
            let outcome = run(&dialer, &login, dialogue, &format!("{suffix}-{index}"));
            print(&match &outcome.failure {
                None => format!("ok {}", dialogue.name),
                Some(failure) => format!("not ok {} -- {failure}", dialogue.name),
            });
            outcomes.lock().expect(lock_holds)[index] = Some(outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, dialogues.len().max(1)) {
            scope.spawn(work);
        }
    });
    let outcomes = outcomes.into_inner().expect(lock_holds);
    Ok(outcomes.into_iter().map(|outcome| outcome.expect("every index was taken once")).collect())
}

fn run_suite() -> Result<bool, String> {
    let options = options()?;
    let mut dialogues = suite::read(&options.dialogues, options.target)?;
    dialogues.retain(|dialogue| dialogue.name.contains(&options.only));
    if options.list {
        for dialogue in &dialogues {
            print(&dialogue.name);
        }
        return Ok(true);
    }
    let outcomes = run_all(&dialogues, &options)?;
    if let Some(path) = &options.record {
        let names = dialogues.iter().map(|dialogue| dialogue.name.as_str());
        let text = record::write(&options.target_name, names.zip(&outcomes));
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    print(&format!("{} passed, {failed} failed", outcomes.len() - failed));
    Ok(failed == 0)
}

fn main() -> ExitCode {
    match run_suite() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(wrong) => {
            let _ = writeln!(std::io::stderr(), "{wrong}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_address_user_password_and_vhost() {
        let (address, login) = parse_url("amqp://me:p%40ss@broker:5673/a%2fb").unwrap();
        assert_eq!(address, "broker:5673");
        assert_eq!((login.user.as_str(), login.password.as_str()), ("me", "p@ss"));
        assert_eq!(login.vhost, "a/b");
    }

    #[test]
    fn port_and_vhost_have_their_usual_values() {
        let (address, login) = parse_url("amqp://guest:guest@127.0.0.1").unwrap();
        assert_eq!((address.as_str(), login.vhost.as_str()), ("127.0.0.1:5672", "/"));
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in ["http://a:b@c", "amqp://c", "amqp://a@c", "amqp://a:b@c/%zz"] {
            assert!(parse_url(url).is_err(), "{url}");
        }
    }
}
