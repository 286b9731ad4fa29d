//! One task per connection: it polls readable, writable, its inlet and its deadline, and never awaits a queue.
//!
//! What it reads it gives to its `Driver`; what comes of that is written in the same pass where the socket takes it.

use super::driver::Driver;
use super::shared::Shared;
use crate::model::{Monotonic, Now};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Sleep;

/// The read buffer, one per thread of the runtime.
const READ_BYTES: usize = 64 * 1024;
/// Reads in one pass, before other connections have their turn.
const READS_MAX: u32 = 2;
/// Passes without a rest, before other connections have their turn. More than one, because the pass that finds a socket
/// empty is one.
const PASSES_MAX: u32 = 2;
/// How long a connection that is to be closed may take to write what is left.
const LAST_WRITE_PATIENCE: Duration = Duration::from_secs(2);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// One connection.
struct Connection {
    shared: Arc<Shared>,
    stream: TcpStream,
    driver: Driver,
    /// How much of the output was written.
    written: usize,
    /// The socket is of no use any more.
    gone: bool,
}

/// Why a connection woke.
#[derive(Clone, Copy, Debug, Default)]
struct Woken {
    readable: bool,
    writable: bool,
    inlet: bool,
    deadline: bool,
    stopping: bool,
}

/// Serves a connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, client: SocketAddr, seed: u64) {
    let stopping = shared.stopping.subscribe();
    let driver = Driver::new(Arc::clone(&shared), client, seed, shared.clock.now());
    let mut connection = Connection { shared, stream, driver, written: 0, gone: false };
    connection.run(stopping).await;
}

/// However a connection ends, by a panic or with the runtime too, what it held goes back.
impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.end(self.shared.clock.now());
    }
}

impl Connection {
    async fn run(&mut self, mut stopping: watch::Receiver<bool>) {
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        let mut armed: Option<Monotonic> = None;
        let mut stopping = pin!(async move {
            // An error means that the server is gone, which is a stop as well.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        });
        let mut told_to_stop = false;
        let mut passes = 0;
        loop {
            // The runtime lets a task go on that never has to wait; a flood, or an inlet that fills as fast as it is emptied,
            // would keep a thread, and what waits behind it, for seconds.
            if passes == PASSES_MAX {
                passes = 0;
                tokio::task::yield_now().await;
            }
            passes += 1;
            let deadline = self.driver.deadline();
            if deadline != armed {
                armed = deadline;
                if let Some(deadline) = deadline {
                    sleep.as_mut().reset(self.shared.clock.instant(deadline));
                }
            }
            let woken = poll_fn(|cx| {
                let stop: Option<Pin<&mut _>> = if told_to_stop { None } else { Some(stopping.as_mut()) };
                let woken = self.poll_wake(cx, armed.map(|_| sleep.as_mut()), stop);
                if woken.is_pending() {
                    passes = 0;
                }
                woken
            })
            .await;
            self.driver.rouse();
            let now = self.shared.clock.now();
            if woken.stopping {
                told_to_stop = true;
                self.driver.stop(now);
            }
            if woken.deadline {
                armed = None;
                self.driver.tick(now);
            }
            if woken.readable {
                self.read(now);
            }
            self.driver.take_notices(now);
            self.write(now);
            self.driver.fold_counts();
            if self.gone {
                return;
            }
            if self.driver.is_closing() {
                // What the client held goes to others now, however slowly it takes its last bytes.
                self.driver.end_link(now);
                return self.write_last().await;
            }
        }
    }

    fn poll_wake(
        &self,
        cx: &mut Context<'_>,
        sleep: Option<Pin<&mut Sleep>>,
        stopping: Option<Pin<&mut impl Future<Output = ()>>>,
    ) -> Poll<Woken> {
        let backed_up = self.driver.is_backed_up();
        let reads = !self.driver.is_saturated() && !backed_up && !self.driver.waits_for_store(cx.waker());
        let woken = Woken {
            readable: reads && self.stream.poll_read_ready(cx).is_ready(),
            writable: self.written < self.driver.output().len() && self.stream.poll_write_ready(cx).is_ready(),
            inlet: !backed_up && self.driver.has_notices(cx.waker()),
            deadline: sleep.is_some_and(|sleep| sleep.poll(cx).is_ready()),
            stopping: stopping.is_some_and(|stopping| stopping.poll(cx).is_ready()),
        };
        let Woken { readable, writable, inlet, deadline, stopping } = woken;
        if readable || writable || inlet || deadline || stopping { Poll::Ready(woken) } else { Poll::Pending }
    }

    fn read(&mut self, now: Now) {
        READ_BUFFER.with_borrow_mut(|buffer| {
            for _ in 0..READS_MAX {
                if self.gone || self.driver.is_closing() || self.driver.is_saturated() {
                    break;
                }
                match try_read(&self.stream, buffer) {
                    Ok(0) => {
                        self.gone("the client closed the socket");
                        break;
                    }
                    Ok(len) => {
                        self.shared.gauges.reads.fetch_add(1, Ordering::Relaxed);
                        self.driver.receive(&buffer[..len], now);
                        if len < buffer.len() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        self.gone(&error.to_string());
                        break;
                    }
                }
            }
        });
        self.driver.end_read(now);
    }

    fn write(&mut self, now: Now) {
        while !self.gone && self.written < self.driver.output().len() {
            match self.stream.try_write(&self.driver.output()[self.written..]) {
                Ok(len) => {
                    self.written += len;
                    self.shared.gauges.writes.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.gone(&error.to_string()),
            }
        }
        if self.written > 0 {
            self.written = 0;
            self.driver.written(now);
        }
    }

    async fn write_last(&mut self) {
        let deadline = tokio::time::sleep(LAST_WRITE_PATIENCE);
        let mut deadline = pin!(deadline);
        while self.written < self.driver.output().len() {
            let ready = poll_fn(|cx| {
                if deadline.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(false);
                }
                self.stream.poll_write_ready(cx).map(|ready| ready.is_ok())
            });
            if !ready.await {
                return;
            }
            match self.stream.try_write(&self.driver.output()[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    fn gone(&mut self, why: &str) {
        tracing::debug!(connection = self.driver.id().0, why, "socket gone");
        self.gone = true;
    }
}

/// Reads what there is. A short read has emptied the socket: noting that spares the read that would only find it empty.
fn try_read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    let read = stream.try_io(Interest::READABLE, || {
        len = rustix::io::retry_on_intr(|| rustix::io::read(stream, &mut *buffer))?;
        if len > 0 && len < buffer.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match read {
        Err(error) if len == 0 => Err(error),
        _ => Ok(len),
    }
}
