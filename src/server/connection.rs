//! One task per connection: it polls readable, writable, its inlet and its deadline, and never awaits a queue.
//!
//! The task gives the bytes that it reads to its `Driver`, and writes the output in the same pass, as far as the socket
//! takes it. When a thread of the store has a notice for the connection while the runtime sleeps, that thread makes
//! such a pass in place of the task.

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

/// Size of the read buffer; each thread of the runtime has one.
const READ_BYTES: usize = 64 * 1024;
/// How long a closing connection may take to write the rest of its output.
const LAST_WRITE_PATIENCE: Duration = Duration::from_secs(2);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// One connection, shared by its task and other threads that serve it.
struct ConnectionHandle {
    shared: Arc<Shared>,
    runner: Arc<TokioRunner>,
    connection: Mutex<Connection>,
    /// Wakes the connection's task.
    task: OnceLock<Waker>,
}

/// The connection's state; locked for one pass at a time.
struct Connection {
    shared: Arc<Shared>,
    transport: Transport,
    driver: Driver,
    /// Given to the inlet, which wakes it when a notice arrives.
    inlet_waker: Waker,
    /// Bytes of the output that were written.
    written: usize,
    /// The deadline for which the task's timer is set.
    armed: Option<Monotonic>,
    /// While the socket is not read: when to check the state of the client's TCP.
    peer_check_at: Option<Monotonic>,
    /// The socket is closed or broken.
    is_gone: bool,
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
                peer_check_at: None,
                is_gone: false,
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
        // The lock is taken while the task makes a pass itself.
        let is_done = self.connection.try_lock().is_ok_and(|mut connection| {
            catch_unwind(AssertUnwindSafe(|| connection.pass_for_notices(now))).unwrap_or_else(|_| {
                connection.mark_gone("the connection panicked");
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

/// A guard: however a connection's task ends, be it by a panic or with the runtime, the connection's deliveries are
/// requeued and its resources released.
struct ConnectionGuard(Arc<ConnectionHandle>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let now = self.0.shared.clock.now();
        let mut connection = self.0.connection();
        connection.is_gone = true;
        connection.driver.end(now);
    }
}

/// Why a connection woke.
#[derive(Clone, Copy, Debug, Default)]
struct WakeReasons {
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

/// Waits until the server's stop has reached a step.
async fn reached(mut step: watch::Receiver<bool>) {
    // An error means that the server was dropped, which is a stop as well.
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
            let reasons = poll_fn(|cx| {
                handle.task.get_or_init(|| cx.waker().clone());
                let reasons = handle.connection().poll_wake(cx, sleep.as_mut(), stop.as_mut());
                had_to_wait |= reasons.is_pending();
                reasons
            })
            .await;
            let now = handle.shared.clock.now();
            if reasons.stopping {
                if std::mem::replace(&mut is_stopping, true) {
                    return;
                }
                stop.set(reached(handle.shared.cut_off.subscribe()));
            }
            let writer = handle.shared.broker.writer();
            let (next, has_committed) = handle.runner.pass(writer, || handle.connection().run_pass(reasons, now));
            if has_committed {
                // The outcome is in the inlet.
                handle.connection().pass_for_notices(handle.shared.clock.now());
            }
            match next {
                // The runtime does not interrupt a task that is always ready. A flood, or an inlet that fills as fast
                // as it is emptied, would occupy a thread for seconds, and consumers would fall behind.
                Next::Continue if !had_to_wait => tokio::task::yield_now().await,
                Next::Continue => {}
                Next::Close => return handle.write_last().await,
                Next::Gone => return,
            }
        }
    }
}

/// What the task does after a pass.
enum Next {
    Continue,
    /// Write the rest of the output, then close the socket.
    Close,
    /// The socket is closed or broken.
    Gone,
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
    /// Makes a pass for the connection's task.
    fn run_pass(&mut self, reasons: WakeReasons, now: Now) -> Next {
        if !self.is_gone {
            self.pass(reasons, now);
        }
        if self.is_gone {
            return Next::Gone;
        }
        if !self.driver.is_closing() {
            return Next::Continue;
        }
        // The client's unacknowledged deliveries are requeued now, however slowly the client reads its last bytes.
        self.driver.end_link(now);
        if self.driver.has_lost_client() { Next::Gone } else { Next::Close }
    }

    fn pass(&mut self, reasons: WakeReasons, now: Now) {
        self.driver.note_awake();
        if reasons.stopping {
            self.driver.stop(now);
        }
        if reasons.deadline {
            self.armed = None;
            self.check_peer(now);
            self.driver.tick(now);
        }
        if reasons.readable && self.may_read() {
            self.read(now);
        }
        self.driver.take_notices(now);
        self.write(now);
        self.driver.fold_counts();
    }

    /// Makes a pass that serves the notices of the inlet. Returns whether the task may go on sleeping; if not, it has
    /// more to do.
    fn pass_for_notices(&mut self, now: Now) -> bool {
        if !self.may_read() || self.written < self.driver.output().len() {
            return false;
        }
        self.pass(WakeReasons::default(), now);
        let is_armed = self.driver.deadline().is_none_or(|at| self.armed.is_some_and(|armed| armed <= at));
        let is_written = self.driver.output().is_empty();
        is_armed && is_written && self.may_read() && !self.driver.has_notices(&self.inlet_waker)
    }

    /// Whether the socket may be read. Waiting output does not matter: the commands of a client that reads slowly are
    /// carried out.
    fn may_read(&self) -> bool {
        !self.is_gone && !self.driver.is_closing() && !self.driver.is_saturated()
    }

    /// Checks the state of the client's TCP: a connection that is not read gives no other sign of life.
    fn check_peer(&mut self, now: Now) {
        // Deadlines of heartbeats bring the task here too: the check must precede the decision whether the client is
        // lost.
        if self.peer_check_at.is_none() {
            return;
        }
        self.peer_check_at = Some(now.monotonic.plus(socket::PEER_CHECK_INTERVAL));
        let peer = self.transport.peer();
        if peer.has_hung_up && self.driver.is_blocked() {
            // A blocked connection would otherwise stay until the alarm ends.
            self.mark_gone("the client hung up while it was blocked");
        } else {
            self.driver.note_alive(now, peer.silence);
        }
    }

    fn poll_wake(
        &mut self,
        cx: &mut Context<'_>,
        mut sleep: Pin<&mut Sleep>,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<WakeReasons> {
        if self.is_gone || self.driver.is_closing() {
            return Poll::Ready(WakeReasons::default());
        }
        let backed_up = self.driver.is_backed_up();
        let reads = !self.driver.is_saturated() && !self.driver.waits_for_store(cx.waker());
        if reads || self.driver.is_closing() {
            self.peer_check_at = None;
        } else if self.peer_check_at.is_none() {
            self.peer_check_at = Some(self.shared.clock.now().monotonic.plus(socket::PEER_CHECK_INTERVAL));
        }
        let deadline = [self.driver.deadline(), self.peer_check_at].into_iter().flatten().min();
        if deadline != self.armed {
            self.armed = deadline;
            if let Some(deadline) = deadline {
                sleep.as_mut().reset(self.shared.clock.instant(deadline));
            }
        }
        let reasons = WakeReasons {
            readable: reads && self.transport.poll_read_ready(cx).is_ready(),
            writable: self.written < self.driver.output().len() && self.transport.poll_write_ready(cx).is_ready(),
            // Evaluated even when backed up, since it registers the waker: a close must wake the task.
            inlet: self.driver.has_notices(&self.inlet_waker) && !backed_up,
            deadline: deadline.is_some() && sleep.poll(cx).is_ready(),
            stopping: stop.poll(cx).is_ready(),
        };
        let WakeReasons { readable, writable, inlet, deadline, stopping } = reasons;
        if readable || writable || inlet || deadline || stopping { Poll::Ready(reasons) } else { Poll::Pending }
    }

    fn read(&mut self, now: Now) {
        READ_BUFFER.with_borrow_mut(|buffer| match self.transport.try_read(buffer) {
            Ok(0) => {
                if !self.driver.note_hang_up(now) {
                    self.mark_gone("the client closed the socket");
                }
            }
            Ok(len) => self.driver.receive(&buffer[..len], now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.mark_gone(&error.to_string()),
        });
        self.driver.end_read(now);
    }

    /// Writes the output until it is empty or the socket takes no more. Each complete write makes room for frames that
    /// waited in the session.
    fn write(&mut self, now: Now) {
        while !self.is_gone && !self.driver.output().is_empty() {
            match self.transport.try_write(&self.driver.output()[self.written..]) {
                Ok(len) => {
                    self.written += len;
                    self.driver.note_write(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.mark_gone(&error.to_string()),
            }
            if self.written == self.driver.output().len() {
                self.written = 0;
                self.driver.note_all_written(now);
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

    fn mark_gone(&mut self, why: &str) {
        tracing::debug!(connection = self.driver.id().0, why, "socket gone");
        self.is_gone = true;
    }
}
