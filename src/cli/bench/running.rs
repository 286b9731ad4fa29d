//! The threads of a run, and how they end.

use super::client::write_close;
use super::meter::Meter;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often a thread that is about to end is looked at.
const END_LOOK: Duration = Duration::from_millis(1);

/// Threads that end when the run is over; those of a connection, once its socket is shut.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) stream: Option<TcpStream>,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) ending: Ending,
}

/// How a connection ends when the run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its socket is shut.
    Cut,
    /// By connection.close, behind what its first thread has written. A socket that is shut leaves the broker with what it has
    /// yet to read, which would be part of the next run's load.
    Close,
}

/// Ends connections and their threads, by the meter's clock before `until` where the broker does not answer.
pub(super) fn end(all: impl IntoIterator<Item = Running>, meter: &Meter, until: Duration) {
    let (mut closing, cut): (Vec<_>, Vec<_>) = all.into_iter().partition(|each| each.ending == Ending::Close);
    cut.into_iter().for_each(Running::cut);
    // All closes are sent before the first answer is waited for.
    closing.iter_mut().for_each(|each| each.close(meter, until));
    for each in closing {
        each.threads.iter().for_each(|thread| {
            wait_for(thread, meter, until);
        });
        each.cut();
    }
}

impl Running {
    fn cut(self) {
        // An error means that the socket is closed already.
        let _ = self.stream.map(|stream| stream.shutdown(Shutdown::Both));
        for thread in self.threads {
            let _ = thread.join();
        }
    }

    fn close(&mut self, meter: &Meter, until: Duration) {
        let (Some(stream), Some(writer)) = (&mut self.stream, self.threads.first()) else { return };
        let mut frame = Vec::new();
        write_close(&mut frame);
        let rest = until.saturating_sub(meter.clock.elapsed()).max(END_LOOK);
        let is_sent = wait_for(writer, meter, until)
            && stream.set_write_timeout(Some(rest)).is_ok()
            && stream.write_all(&frame).is_ok();
        if !is_sent {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Whether the thread has ended by then.
fn wait_for(thread: &JoinHandle<()>, meter: &Meter, until: Duration) -> bool {
    while !thread.is_finished() && meter.clock.elapsed() < until {
        thread::sleep(END_LOOK);
    }
    thread.is_finished()
}

/// Begins a thread of a run. What ends it before the run is over fails the run, in the name of `who`.
pub(super) fn begin(
    who: &'static str,
    meter: &Arc<Meter>,
    work: impl FnOnce(&Meter) -> io::Result<()> + Send + 'static,
) -> JoinHandle<()> {
    let meter = Arc::clone(meter);
    thread::spawn(move || {
        if let Err(error) = work(&meter) {
            meter.fail(format!("{who}: {error}"));
        }
    })
}
