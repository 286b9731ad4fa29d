//! The real program as a child process: its own data directory, ports that the system picks.

use super::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// A running `prontomq serve`; killed when dropped.
pub(crate) struct Broker {
    child: Child,
    /// Where it speaks AMQP.
    pub(crate) amqp: SocketAddr,
    /// Where it serves metrics.
    pub(crate) metrics: Option<SocketAddr>,
    /// What it said on stdout.
    pub(crate) welcome: String,
    /// From the start of the process until it said that clients can connect.
    pub(crate) startup: Duration,
    log: PathBuf,
}

/// `prontomq serve` on these data, before it is started. No setting of the surrounding environment reaches it.
pub(crate) fn serve(data: &Path) -> Command {
    let mut command = program();
    command.arg("serve").arg("--data-dir").arg(data).args(["--amqp", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    command
}

/// The program itself, without arguments.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prontomq"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PRONTOMQ_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command that is to end by itself.
pub(crate) fn run_to_end(command: &mut Command) -> Output {
    command.output().expect("the program can be started")
}

impl Broker {
    /// A broker on `data`, ready for clients.
    pub(crate) fn start(data: &Path) -> Self {
        Self::run(serve(data), data)
    }

    /// Runs `command` until it is ready for clients; its log goes beside `data`.
    pub(crate) fn run(mut command: Command, data: &Path) -> Self {
        let log = data.with_extension("log");
        let file = File::options().create(true).append(true).open(&log).expect("the log can be written");
        let began = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().expect("the program can be started");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut welcome = String::new();
        let mut startup = None;
        // With `log_format = json` it is one line.
        while !welcome.contains("stop with") && !welcome.starts_with('{') {
            let read = stdout.read_line(&mut welcome).expect("stdout can be read");
            if read == 0 {
                let _ = child.wait();
                panic!("the broker did not start: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            startup.get_or_insert_with(|| began.elapsed());
        }
        let after = |mark: &str, end: &str| {
            let (_, rest) = welcome.split_once(mark)?;
            rest.split_once(end)?.0.parse().ok()
        };
        let amqp = amqp_address(&welcome).expect("the address is printed");
        let metrics = after("http://", "/metrics");
        Self { child, amqp, metrics, startup: startup.expect("a line was read"), welcome, log }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged, by this and earlier processes on the same data.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        signal_process(&self.child, signal);
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// SIGTERM; the way the process ended, and how long that took.
    pub(crate) fn terminate(self) -> (ExitStatus, Duration) {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return (status, began.elapsed());
            }
            assert!(began.elapsed() < PATIENCE, "the broker does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Status line and body of `GET path` on the metrics listener.
    pub(crate) fn http_get(&self, path: &str) -> (String, String) {
        let address = self.metrics.expect("there is a metrics listener");
        let mut stream = std::net::TcpStream::connect(address).expect("the metrics listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("the request can be sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the answer is text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("the answer has a head");
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }

    /// A metric with one label of this value.
    pub(crate) fn labelled(&self, name: &str, value: &str) -> u64 {
        let (_, page) = self.http_get("/metrics");
        let label = format!("\"{value}\"");
        let line = page.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(&label));
        let line = line.unwrap_or_else(|| panic!("no {name} of {value} in\n{page}"));
        line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number ends the line") as u64
    }

    /// The value of a metric without labels of its own.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, page) = self.http_get("/metrics");
        let line = page.lines().find(|line| line.split([' ', '{']).next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no metric {name} in\n{page}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a metric's line ends with its value")
    }
}

impl Broker {
    /// Asks for a metric until it is as it should be.
    pub(crate) fn wait_for_metric(&self, name: &str, is_right: impl Fn(f64) -> bool) {
        let began = Instant::now();
        loop {
            let value = self.metric(name);
            if is_right(value) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{name} stays at {value}");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address of the first URL in what a broker prints.
pub(crate) fn amqp_address(welcome: &str) -> Option<SocketAddr> {
    let (_, url) = welcome.split_once("amqp://")?;
    let authority = url.split(['/', ' ', '\n', '"', '`']).next()?;
    authority.rsplit('@').next()?.parse().ok()
}

/// Sends a signal to a child process.
pub(crate) fn signal_process(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).expect("the process is there");
}
