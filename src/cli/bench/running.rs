//! The threads of a run, and how they end.

use super::meter::Meter;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;

/// Threads that end when the run is over; those of a connection, once its socket is shut.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) stream: Option<TcpStream>,
    pub(super) threads: Vec<thread::JoinHandle<()>>,
}

impl Running {
    pub(super) fn join(self) {
        // An error means that the socket is closed already.
        let _ = self.stream.map(|stream| stream.shutdown(Shutdown::Both));
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Begins a thread of a run. What ends it before the run is over fails the run, in the name of `who`.
pub(super) fn begin(
    who: &'static str,
    meter: &Arc<Meter>,
    work: impl FnOnce(&Meter) -> io::Result<()> + Send + 'static,
) -> thread::JoinHandle<()> {
    let meter = Arc::clone(meter);
    thread::spawn(move || {
        if let Err(error) = work(&meter) {
            meter.fail(format!("{who}: {error}"));
        }
    })
}
