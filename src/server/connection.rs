//! One connection and its socket.
//!
//! An event loop serves it in passes: a pass reads once, gives the bytes to the connection's `Driver`, takes the notices
//! of the broker and its queues, and writes the output as far as the socket takes it. It never waits.

use super::driver::Driver;
use super::shared::Shared;
use super::socket;
use super::transport::{Interest, Transport};
use crate::model::{Monotonic, Now, QueueId};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Size of the read buffer; each thread of the runtime has one.
const READ_BYTES: usize = 64 * 1024;
/// How long a closing connection may take to write the rest of its output.
const LAST_WRITE_PATIENCE: Duration = Duration::from_secs(2);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The loops that serve connections.
pub(super) trait Home: Send + Sync {
    /// Serves the connection soon, on its loop. It must be marked as woken.
    fn wake(&self, handle: Arc<ConnectionHandle>);
}

/// One connection, as its loop and the threads that have notices for it see it.
pub(super) struct ConnectionHandle {
    connection: Mutex<Connection>,
    home: Weak<dyn Home>,
    place: Place,
    /// It is in the inbox of its loop.
    is_woken: AtomicBool,
}

/// Where a connection is served.
#[derive(Debug)]
pub(super) struct Place {
    home: AtomicUsize,
    slot: AtomicUsize,
}

impl Place {
    /// The loop's number.
    pub(super) fn home(&self) -> usize {
        self.home.load(Ordering::Acquire)
    }

    /// Sets the loop's number. Only the loop that has it so far may call this.
    pub(super) fn set_home(&self, home: usize) {
        self.home.store(home, Ordering::Release);
    }

    /// Its slot in the loop, if it has one. Only its loop may call this.
    pub(super) fn slot(&self) -> Option<usize> {
        Some(self.slot.load(Ordering::Relaxed)).filter(|slot| *slot != NO_SLOT)
    }

    /// Sets its slot. Only its loop may call this.
    pub(super) fn set_slot(&self, slot: usize) {
        self.slot.store(slot, Ordering::Relaxed);
    }

    /// It is not served at present.
    pub(super) fn clear_slot(&self) {
        self.set_slot(NO_SLOT);
    }
}

const NO_SLOT: usize = usize::MAX;

/// The connection's state; locked for one pass at a time.
struct Connection {
    shared: Arc<Shared>,
    transport: Transport,
    driver: Driver,
    /// Given to the inlet, which wakes it when a notice arrives.
    waker: Waker,
    /// Bytes of the output that were written.
    written: usize,
    /// While the socket is not read: when to check the state of the client's TCP.
    peer_check_at: Option<Monotonic>,
    /// Once the connection is closing: how long the rest of its output may take.
    last_write_until: Option<Monotonic>,
    /// So many bytes should be gathered in the socket before it is read.
    gather: Option<usize>,
    /// The server's stop has reached the connection.
    is_stopping: bool,
    /// The socket is closed or broken.
    is_gone: bool,
    /// Its resources are released. The token is held until then.
    token: Option<TaskTrackerToken>,
}

/// Wakes a connection.
struct HandleWaker(Weak<ConnectionHandle>);

impl Wake for HandleWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(handle) = self.0.upgrade()
            && handle.note_woken()
            && let Some(home) = handle.home.upgrade()
        {
            home.wake(handle);
        }
    }
}

impl ConnectionHandle {
    /// A connection that was just accepted. `token` is dropped at its end.
    pub(super) fn new(
        shared: Arc<Shared>,
        home: Weak<dyn Home>,
        transport: Transport,
        client: SocketAddr,
        seed: u64,
        token: TaskTrackerToken,
    ) -> Arc<Self> {
        let driver = Driver::new(Arc::clone(&shared), client, seed, shared.clock.now());
        Arc::new_cyclic(|handle| {
            let connection = Connection {
                shared,
                transport,
                driver,
                waker: Waker::from(Arc::new(HandleWaker(Weak::clone(handle)))),
                written: 0,
                peer_check_at: None,
                last_write_until: None,
                gather: None,
                is_stopping: false,
                is_gone: false,
                token: Some(token),
            };
            let place = Place { home: AtomicUsize::new(0), slot: AtomicUsize::new(NO_SLOT) };
            Self { connection: Mutex::new(connection), home, place, is_woken: AtomicBool::new(false) }
        })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Marks it as woken. Returns whether it was not woken yet.
    pub(super) fn note_woken(&self) -> bool {
        !self.is_woken.swap(true, Ordering::AcqRel)
    }

    /// Its loop begins to serve it.
    pub(super) fn note_taken(&self) {
        self.is_woken.store(false, Ordering::Release);
    }

    /// Calls `watch` with its socket.
    pub(super) fn watch<T>(&self, watch: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        watch(self.connection().transport.socket())
    }

    /// Makes a pass.
    pub(super) fn serve(&self, reasons: WakeReasons) -> Served {
        self.connection().serve(reasons)
    }

    /// The queue for which the connection works, if there is one: connections with the same queue had better be served
    /// by the same thread.
    pub(super) fn kin(&self) -> Option<QueueId> {
        self.connection().driver.queue_in_use()
    }

    /// Whether so much is outstanding that the client goes on while it waits for answers.
    pub(super) fn goes_on(&self) -> bool {
        self.connection().driver.goes_on()
    }

    /// Ends the connection: requeues its deliveries, releases what it holds.
    pub(super) fn end(&self) {
        self.connection().end();
    }
}

/// However a connection ends, be it by a panic or with its loop, its deliveries are requeued.
impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

/// Why a connection is served, beside notices.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WakeReasons {
    /// The socket is readable.
    pub(super) readable: bool,
    /// A deadline may have passed.
    pub(super) deadline: bool,
}

/// What a connection waits for after a pass.
pub(super) enum Served {
    /// It is served again in any of these cases.
    Waits {
        /// Its socket is ready for this.
        interest: Interest,
        /// A deadline passes.
        deadline: Option<Monotonic>,
        /// So many bytes should be gathered in the socket before it is read.
        gather: Option<usize>,
        /// It has notices already.
        has_more: bool,
    },
    /// It has ended.
    Gone,
}

impl Connection {
    fn end(&mut self) {
        if let Some(token) = self.token.take() {
            self.is_gone = true;
            self.driver.end(self.shared.clock.now());
            drop(token);
        }
    }

    fn serve(&mut self, reasons: WakeReasons) -> Served {
        let now = self.shared.clock.now();
        if let Some(until) = self.last_write_until {
            return self.serve_last(until, now);
        }
        let stops = !self.is_stopping && !reasons.readable && self.shared.is_stopping();
        self.is_stopping |= stops;
        if self.is_stopping && self.shared.is_cut_off() {
            return Served::Gone;
        }
        self.pass(reasons, stops, now);
        if self.is_gone {
            return Served::Gone;
        }
        if self.driver.is_closing() {
            // The client's unacknowledged deliveries are requeued now, however slowly the client reads its last bytes.
            self.driver.end_link(now);
            if self.driver.has_lost_client() {
                return Served::Gone;
            }
            let until = now.monotonic.plus(LAST_WRITE_PATIENCE);
            self.last_write_until = Some(until);
            return self.serve_last(until, now);
        }
        self.waits(now)
    }

    /// Writes the last output.
    fn serve_last(&mut self, until: Monotonic, now: Now) -> Served {
        if until <= now.monotonic || self.shared.is_cut_off() || self.write_last() {
            return Served::Gone;
        }
        let interest = Interest { read: false, write: true };
        Served::Waits { interest, deadline: Some(until), gather: None, has_more: false }
    }

    /// What the connection waits for.
    fn waits(&mut self, now: Now) -> Served {
        let is_backed_up = self.driver.is_backed_up();
        let reads = !self.driver.is_saturated() && !self.driver.waits_for_store(&self.waker);
        if reads {
            self.peer_check_at = None;
        } else if self.peer_check_at.is_none() {
            self.peer_check_at = Some(now.monotonic.plus(socket::PEER_CHECK_INTERVAL));
        }
        Served::Waits {
            interest: Interest { read: reads, write: self.written < self.driver.output().len() },
            deadline: [self.driver.deadline(), self.peer_check_at].into_iter().flatten().min(),
            gather: self.gather.filter(|_| reads),
            // Evaluated even when backed up, since it registers the waker: a close must wake the connection.
            has_more: self.driver.has_notices(&self.waker) && !is_backed_up,
        }
    }

    fn pass(&mut self, reasons: WakeReasons, stops: bool, now: Now) {
        self.driver.note_awake();
        if stops {
            self.driver.stop(now);
        }
        if reasons.deadline {
            self.handle_deadlines(now);
        }
        if reasons.readable && self.may_read() {
            self.read(now);
        }
        self.driver.take_notices(now);
        self.write(now);
        self.driver.fold_counts();
    }

    /// Whether the socket may be read. Waiting output does not matter: the commands of a client that reads slowly are
    /// carried out.
    fn may_read(&self) -> bool {
        !self.is_gone && !self.driver.is_closing() && !self.driver.is_saturated()
    }

    fn handle_deadlines(&mut self, now: Now) {
        let is_due = |at: Option<Monotonic>| at.is_some_and(|at| at <= now.monotonic);
        let ticks = is_due(self.driver.deadline());
        if ticks || is_due(self.peer_check_at) {
            self.check_peer(now);
        }
        if ticks {
            self.driver.tick(now);
        }
    }

    /// Checks the state of the client's TCP, while the connection is not read: then nothing else shows a sign of life. Must
    /// precede the decision whether the client is lost.
    fn check_peer(&mut self, now: Now) {
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

    fn read(&mut self, now: Now) {
        let mut read = 0;
        READ_BUFFER.with_borrow_mut(|buffer| match self.transport.try_read(buffer) {
            Ok(0) => {
                if !self.driver.note_hang_up(now) {
                    self.mark_gone("the client closed the socket");
                }
            }
            Ok(len) => {
                read = len;
                self.driver.receive(&buffer[..len], now);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.mark_gone(&error.to_string()),
        });
        self.driver.end_read(now);
        self.gather = self.driver.note_pace(read, now);
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

    /// Writes the last output. Returns whether nothing is left to write.
    fn write_last(&mut self) -> bool {
        while self.written < self.driver.output().len() {
            match self.transport.try_write(&self.driver.output()[self.written..]) {
                Ok(len) => {
                    self.written += len;
                    self.driver.note_write(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
        }
        true
    }

    fn mark_gone(&mut self, why: &str) {
        tracing::debug!(connection = self.driver.id().0, why, "socket gone");
        self.is_gone = true;
    }
}
