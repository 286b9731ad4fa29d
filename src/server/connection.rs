//! One task per connection: it polls readable, writable, its inlet and its deadline, and never awaits a queue.
//!
//! What it reads it gives to its `Driver`; what comes of that is written in the same pass where the socket takes it. A thread
//! of the store that has news for it while the runtime sleeps makes such a pass in the task's stead.

use super::driver::Driver;
use super::lone::{self, ConnectionWork, TokioRunner};
use super::shared::Shared;
use super::socket;
use super::transport::Transport;
use crate::model::{Monotonic, Now};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Sleep;

/// The read buffer, one per thread of the runtime.
const READ_BYTES: usize = 64 * 1024;
/// How long a connection that is to be closed may take to write what is left.
const LAST_WRITE_PATIENCE: Duration = Duration::from_secs(2);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// One connection, for its task and for other threads that serve it.
struct ConnectionHandle {
    shared: Arc<Shared>,
    runner: Arc<TokioRunner>,
    connection: Mutex<Connection>,
    /// Of its task.
    task: OnceLock<Waker>,
}

/// The connection's state; locked for one pass at a time.
struct Connection {
    shared: Arc<Shared>,
    transport: Transport,
    driver: Driver,
    /// For the inlet.
    inlet_waker: Waker,
    /// How much of the output was written.
    written: usize,
    /// When the task wakes by itself.
    armed: Option<Monotonic>,
    /// While the socket is not read: when the peer's TCP is looked at.
    look_at: Option<Monotonic>,
    /// The socket is of no use any more.
    gone: bool,
}

/// Wakes the task of a connection, or defers it to the thread that runs the broker's work.
struct InletWaker(Weak<ConnectionHandle>);

impl Wake for InletWaker {
    fn wake(self: Arc<Self>) {
        if let Some(handle) = self.0.upgrade()
            && let Err(handle) = lone::defer(handle)
        {
            handle.wake_task();
        }
    }
}

impl ConnectionHandle {
    fn new(shared: Arc<Shared>, runner: Arc<TokioRunner>, transport: Transport, driver: Driver) -> Arc<Self> {
        Arc::new_cyclic(|handle| {
            let inlet_waker = Waker::from(Arc::new(InletWaker(Weak::clone(handle))));
            let connection = Connection {
                shared: Arc::clone(&shared),
                transport,
                driver,
                inlet_waker,
                written: 0,
                armed: None,
                look_at: None,
                gone: false,
            };
            Self { shared, runner, connection: Mutex::new(connection), task: OnceLock::new() }
        })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_task(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }
}

impl ConnectionWork for ConnectionHandle {
    fn run_here(&self, now: Now) {
        // Unless the task is at it.
        let is_done = self.connection.try_lock().is_ok_and(|mut connection| {
            catch_unwind(AssertUnwindSafe(|| connection.pass_on(now))).unwrap_or_else(|_| {
                connection.gone("it panicked");
                false
            })
        });
        if !is_done {
            self.wake_task();
        }
    }

    fn wake(&self) {
        self.wake_task();
    }
}

/// However a connection's task ends, by a panic or with the runtime too, what the connection held goes back.
struct ConnectionGuard(Arc<ConnectionHandle>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let now = self.0.shared.clock.now();
        let mut connection = self.0.connection();
        connection.gone = true;
        connection.driver.end(now);
    }
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
pub(super) async fn serve(
    shared: Arc<Shared>,
    runner: Arc<TokioRunner>,
    transport: Transport,
    client: SocketAddr,
    seed: u64,
) {
    let stopping = shared.stopping.subscribe();
    let driver = Driver::new(Arc::clone(&shared), client, seed, shared.clock.now());
    ConnectionGuard(ConnectionHandle::new(shared, runner, transport, driver)).run(stopping).await;
}

/// Waits until a step of the server's stop is reached.
async fn reached(mut step: watch::Receiver<bool>) {
    // An error means that the server is gone, which is a stop as well.
    let _ = step.wait_for(|is_reached| *is_reached).await;
}

impl ConnectionGuard {
    async fn run(&self, stopping: watch::Receiver<bool>) {
        let Self(handle) = self;
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        let mut stop = pin!(reached(stopping));
        let mut is_stopping = false;
        loop {
            let mut had_to_wait = false;
            let woken = poll_fn(|cx| {
                handle.task.get_or_init(|| cx.waker().clone());
                let woken = handle.connection().poll_wake(cx, sleep.as_mut(), stop.as_mut());
                had_to_wait |= woken.is_pending();
                woken
            })
            .await;
            let now = handle.shared.clock.now();
            if woken.stopping {
                if std::mem::replace(&mut is_stopping, true) {
                    return;
                }
                stop.set(reached(handle.shared.cut_off.subscribe()));
            }
            let writer = handle.shared.broker.writer();
            let (next, has_committed) = handle.runner.pass(writer, || handle.connection().work(woken, now));
            if has_committed {
                // The outcome has come through the inlet.
                handle.connection().pass_on(handle.shared.clock.now());
            }
            match next {
                // The runtime lets a task go on that never has to wait. A flood, or an inlet that fills as fast as it is
                // emptied, would keep a thread for seconds, and the consumers of what is published would fall behind.
                Next::Goes if !had_to_wait => tokio::task::yield_now().await,
                Next::Goes => {}
                Next::Closes => return handle.write_last().await,
                Next::IsGone => return,
            }
        }
    }
}

/// What becomes of a connection after a pass.
enum Next {
    Goes,
    /// Once its output is written.
    Closes,
    IsGone,
}

impl ConnectionHandle {
    async fn write_last(&self) {
        let deadline = tokio::time::sleep(LAST_WRITE_PATIENCE);
        let mut deadline = pin!(deadline);
        let mut cut_off = pin!(reached(self.shared.cut_off.subscribe()));
        poll_fn(|cx| {
            if deadline.as_mut().poll(cx).is_ready() || cut_off.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            self.connection().poll_write_last(cx)
        })
        .await;
    }
}

impl Connection {
    /// A pass of the task.
    fn work(&mut self, woken: Woken, now: Now) -> Next {
        if !self.gone {
            self.pass(woken, now);
        }
        if self.gone {
            return Next::IsGone;
        }
        if !self.driver.is_closing() {
            return Next::Goes;
        }
        // What the client held goes to others now, however slowly it takes its last bytes.
        self.driver.end_link(now);
        if self.driver.has_lost_client() { Next::IsGone } else { Next::Closes }
    }

    fn pass(&mut self, woken: Woken, now: Now) {
        self.driver.rouse();
        if woken.stopping {
            self.driver.stop(now);
        }
        if woken.deadline {
            self.armed = None;
            self.look(now);
            self.driver.tick(now);
        }
        if woken.readable && self.may_read() {
            self.read(now);
        }
        self.driver.take_notices(now);
        self.write(now);
        self.driver.fold_counts();
    }

    /// Passes on what has come through the inlet. Whether the task may sleep on; what else there is to do is its business.
    fn pass_on(&mut self, now: Now) -> bool {
        if !self.may_read() || self.written < self.driver.output().len() {
            return false;
        }
        self.pass(Woken::default(), now);
        let is_armed = self.driver.deadline().is_none_or(|at| self.armed.is_some_and(|armed| armed <= at));
        let is_written = self.driver.output().is_empty();
        is_armed && is_written && self.may_read() && !self.driver.has_notices(&self.inlet_waker)
    }

    /// Whether more is to be read. Output that waits does not matter: what a slow reader sends is carried out.
    fn may_read(&self) -> bool {
        !self.gone && !self.driver.is_closing() && !self.driver.is_saturated()
    }

    /// Looks at the peer's TCP, for a connection that is not read gives no other sign of life.
    fn look(&mut self, now: Now) {
        // At heartbeats too: whether the client is silent for too long is decided by what is known then.
        if self.look_at.is_none() {
            return;
        }
        self.look_at = Some(now.monotonic.plus(socket::LOOK_INTERVAL));
        let peer = self.transport.peer();
        if peer.has_hung_up && self.driver.is_blocked() {
            // It would wait for the end of the alarm, which may be far.
            self.gone("the client hung up while it was blocked");
        } else {
            self.driver.heard(now, peer.silence);
        }
    }

    fn poll_wake(
        &mut self,
        cx: &mut Context<'_>,
        mut sleep: Pin<&mut Sleep>,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Woken> {
        if self.gone || self.driver.is_closing() {
            return Poll::Ready(Woken::default());
        }
        let backed_up = self.driver.is_backed_up();
        let reads = !self.driver.is_saturated() && !self.driver.waits_for_store(cx.waker());
        if reads || self.driver.is_closing() {
            self.look_at = None;
        } else if self.look_at.is_none() {
            self.look_at = Some(self.shared.clock.now().monotonic.plus(socket::LOOK_INTERVAL));
        }
        let deadline = [self.driver.deadline(), self.look_at].into_iter().flatten().min();
        if deadline != self.armed {
            self.armed = deadline;
            if let Some(deadline) = deadline {
                sleep.as_mut().reset(self.shared.clock.instant(deadline));
            }
        }
        let woken = Woken {
            readable: reads && self.transport.poll_read_ready(cx).is_ready(),
            writable: self.written < self.driver.output().len() && self.transport.poll_write_ready(cx).is_ready(),
            // Asked in any case: a close is to wake the task.
            inlet: self.driver.has_notices(&self.inlet_waker) && !backed_up,
            deadline: deadline.is_some() && sleep.poll(cx).is_ready(),
            stopping: stop.poll(cx).is_ready(),
        };
        let Woken { readable, writable, inlet, deadline, stopping } = woken;
        if readable || writable || inlet || deadline || stopping { Poll::Ready(woken) } else { Poll::Pending }
    }

    fn read(&mut self, now: Now) {
        READ_BUFFER.with_borrow_mut(|buffer| match self.transport.try_read(buffer) {
            Ok(0) => {
                if !self.driver.hung_up(now) {
                    self.gone("the client closed the socket");
                }
            }
            Ok(len) => self.driver.receive(&buffer[..len], now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.gone(&error.to_string()),
        });
        self.driver.end_read(now);
    }

    /// Writes the output to the socket until it is empty or the socket takes no more. Each write makes room, into which the
    /// session puts the frames that waited for it.
    fn write(&mut self, now: Now) {
        while !self.gone && !self.driver.output().is_empty() {
            match self.transport.try_write(&self.driver.output()[self.written..]) {
                Ok(len) => {
                    self.written += len;
                    self.driver.note_write(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.gone(&error.to_string()),
            }
            if self.written == self.driver.output().len() {
                self.written = 0;
                self.driver.written(now);
            }
        }
    }

    fn poll_write_last(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.written < self.driver.output().len() {
            if !matches!(self.transport.poll_write_ready(cx), Poll::Ready(Ok(()))) {
                return Poll::Pending;
            }
            match self.transport.try_write(&self.driver.output()[self.written..]) {
                Ok(len) => {
                    self.written += len;
                    self.driver.note_write(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Ready(())
    }

    fn gone(&mut self, why: &str) {
        tracing::debug!(connection = self.driver.id().0, why, "socket gone");
        self.gone = true;
    }
}
