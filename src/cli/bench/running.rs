//! The threads of a run, and how they end.

use super::client::write_close;
use super::meter::Meter;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often to check whether a thread has ended.
const END_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// Threads that end when the run is over. Threads of a connection end once its socket is shut.
#[derive(Debug)]
pub(super) struct RunningThreads {
    pub(super) stream: Option<TcpStream>,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) ending: Ending,
}

/// How a connection ends when the run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The socket is shut down.
    Cut,
    /// The client sends connection.close after all output of its first thread. If the socket were shut down, the broker
    /// would still have input to read, which would add to the next run's load.
    Close,
}

/// Ends connections and their threads; at `until`, by the meter's clock, even if the broker has not answered.
pub(super) fn end(all: impl IntoIterator<Item = RunningThreads>, meter: &Meter, until: Duration) {
    let (mut closing, cut): (Vec<_>, Vec<_>) = all.into_iter().partition(|each| each.ending == Ending::Close);
    cut.into_iter().for_each(RunningThreads::cut);
    // All closes are sent before waiting for the first answer.
    closing.iter_mut().for_each(|each| each.close(meter, until));
    for each in closing {
        each.threads.iter().for_each(|thread| {
            wait_for(thread, meter, until);
        });
        each.cut();
    }
}

impl RunningThreads {
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
        let rest = until.saturating_sub(meter.clock.elapsed()).max(END_CHECK_INTERVAL);
        let is_sent = wait_for(writer, meter, until)
            && stream.set_write_timeout(Some(rest)).is_ok()
            && stream.write_all(&frame).is_ok();
        if !is_sent {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Waits for a thread until `until`. Returns whether it has ended.
fn wait_for(thread: &JoinHandle<()>, meter: &Meter, until: Duration) -> bool {
    while !thread.is_finished() && meter.clock.elapsed() < until {
        thread::sleep(END_CHECK_INTERVAL);
    }
    thread.is_finished()
}

/// Starts a thread of a run. An error that ends the thread before the run is over fails the run, with `who` as the
/// subject.
pub(super) fn start_thread(
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
