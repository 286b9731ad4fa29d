//! The twenty scenarios in lapin: command line, deadline and report.

mod bench;
mod scenarios;

use std::env::args;
use std::panic::set_hook;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bench::{Bench, Outcome};
use tokio::task::JoinError;
use tokio::time::timeout;

const SCENARIO_TIME: Duration = Duration::from_secs(20);
const CLEAN_UP_TIME: Duration = Duration::from_secs(5);

/// What a panicking assertion said, and where.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

struct Options {
    url: String,
    only: String,
    worker: Option<String>,
}

fn options() -> Result<Options, String> {
    let mut options =
        Options { url: "amqp://guest:guest@127.0.0.1:5672/%2f".into(), only: String::new(), worker: None };
    let mut arguments = args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--url" => options.url = value,
            "--only" => options.only = value,
            "--worker" => options.worker = Some(value),
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    Ok(options)
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(2);
        }
    };
    if let Some(queue) = options.worker {
        scenarios::worker(&options.url, &queue).await.expect("the worker is killed, it does not end");
        return ExitCode::SUCCESS;
    }
    set_hook(Box::new(|panic| *LAST_PANIC.lock().expect("no panic while held") = panic.to_string()));

    let (mut passed, mut failed) = (0, 0);
    for scenario in scenarios::all().into_iter().filter(|scenario| scenario.name.contains(&options.only)) {
        match run(&scenario, &options.url).await {
            Ok(()) => {
                println!("ok {}", scenario.name);
                passed += 1;
            }
            Err(reason) => {
                let one_line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
                println!("not ok {} -- {one_line}", scenario.name);
                failed += 1;
            }
        }
    }
    if passed + failed == 0 {
        eprintln!("no scenario's name contains '{}'", options.only);
        return ExitCode::from(2);
    }
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// Runs one scenario in a task of its own, then deletes its names, whatever happened.
async fn run(scenario: &scenarios::Scenario, url: &str) -> Result<(), String> {
    let bench = Arc::new(Bench::open(url).await.map_err(|error| error.to_string())?);
    let mut task = tokio::spawn((scenario.run)(bench.clone()));
    let ended = timeout(SCENARIO_TIME, &mut task).await;
    task.abort();
    let cleaned = timeout(CLEAN_UP_TIME, bench.delete()).await;
    match ended {
        Ok(ended) => reason(ended)?,
        Err(_) => return Err(format!("not done within {SCENARIO_TIME:?}")),
    }
    match cleaned {
        Ok(cleaned) => cleaned.map_err(|error| format!("cleaning up: {error}")),
        Err(_) => Err(format!("not cleaned up within {CLEAN_UP_TIME:?}")),
    }
}

fn reason(ended: Result<Outcome, JoinError>) -> Result<(), String> {
    match ended {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(LAST_PANIC.lock().expect("no panic while held").clone()),
    }
}
