//! One connection without its socket: bytes and the time go in, bytes come out.
//!
//! Input is parsed, routed and given to the queues in one synchronous pass. The session and the broker meet only here.
//! Sockets and timers belong to `connection`, or to a `Simulation`.
//!
//! - `admission`: login, the vhost, and the limit of connections.
//! - `outlet`: takes the session's publishes and acknowledgements to the queues.
//! - `metrics`: the connection's part in the broker's numbers. `identity`: the connection in log lines.

mod admission;
mod identity;
mod metrics;
mod outlet;

use self::admission::Admission;
use self::identity::ConnectionIdentity;
use self::metrics::ConnectionMetrics;
use self::outlet::LinkOutlet;
use super::backlog::Backlog;
use super::memory::ConnectionMemory;
use super::pace::{Arrived, Pace};
use super::shared::Shared;
use crate::broker::{CommandOutcome, Link};
use crate::model::{AmqpError, ConnectionId, Monotonic, Name, Notice, Now, QueueId};
use crate::session::{Commit, Effect, Ending, Output, RoutedMessage, Session, SessionMetrics, Settlement};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// Rounds of taking notices in one pass.
const ROUNDS_MAX: u32 = 4;
/// Buffers above this size are freed when the connection becomes idle.
const IDLE_BUFFER_BYTES: usize = 1024;
/// A client with at least so many publishes and deliveries outstanding goes on while it waits for answers.
const OUTSTANDING_MIN: usize = 8;
/// With so many outstanding it does not matter how many more there are.
const OUTSTANDING_ENOUGH: usize = 1024;
/// How long a connection without heartbeats keeps its buffers after a write.
const BUFFERS_KEPT: Duration = Duration::from_secs(5);

/// A connection's session, its link to the broker, and its buffers.
pub(super) struct Driver {
    shared: Arc<Shared>,
    admission: Admission,
    session: Session,
    link: Option<Link>,
    /// The beginning of a frame whose rest has not arrived.
    partial: Vec<u8>,
    out: Output,
    notices: Vec<Notice>,
    backlog: Backlog,
    /// When buffers are freed, on a connection without heartbeats: no other deadline would do it.
    release_at: Option<Monotonic>,
    /// Bytes of output that input added while too much output was waiting.
    added_while_backed_up: usize,
    metrics: ConnectionMetrics,
    pace: Pace,
    closing: bool,
    /// The connection's exclusive queues are being deleted: nothing is written until they are gone.
    ending: bool,
    /// The connection has published.
    publishes: bool,
}

impl Driver {
    /// The driver of a connection that was just accepted. `end` must follow.
    pub(super) fn new(shared: Arc<Shared>, client: SocketAddr, seed: u64, now: Now) -> Self {
        Self {
            admission: Admission::new(&shared, client, seed),
            session: Session::new(Arc::clone(&shared.current().session_settings), seed, now),
            link: None,
            partial: Vec::new(),
            out: Output::default(),
            notices: Vec::new(),
            backlog: Backlog::default(),
            release_at: None,
            added_while_backed_up: 0,
            metrics: ConnectionMetrics::default(),
            pace: Pace::default(),
            closing: false,
            ending: false,
            publishes: false,
            shared,
        }
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.admission.id()
    }

    /// When `tick` must be called.
    pub(super) fn deadline(&self) -> Option<Monotonic> {
        self.session.deadline().or(self.release_at)
    }

    /// The client has closed its end. Returns whether input that it sent before is still to be carried out.
    pub(super) fn note_hang_up(&mut self, now: Now) -> bool {
        self.session.hung_up(now)
    }

    /// Whether the connection is closing: nothing more is read, and the socket closes once the output is written.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether no more input may be taken: the session waits for an answer, or the input adds too much to an output
    /// that the client does not read.
    pub(super) fn is_saturated(&self) -> bool {
        self.session.is_saturated() || self.added_while_backed_up > self.session.parked_bytes_max()
    }

    /// Whether the client missed its heartbeats: the rest of the output would not be read.
    pub(super) fn has_lost_client(&self) -> bool {
        matches!(self.session.ending(), Some(Ending::MissedHeartbeats))
    }

    /// Whether the client is blocked by an alarm.
    pub(super) fn is_blocked(&self) -> bool {
        self.session.is_blocked()
    }

    /// Whether so much output waits that notices have to wait too.
    pub(super) fn is_backed_up(&self) -> bool {
        let is_to_close = || self.link.as_ref().is_some_and(|link| link.peer().is_to_close());
        !self.ending && self.out.bytes.len() > self.outbox_bytes_max() && !is_to_close()
    }

    /// Records a sign of life from the client, `ago` before now.
    pub(super) fn note_alive(&mut self, now: Now, ago: Duration) {
        self.session.client_alive(now.monotonic.minus(ago));
    }

    /// Whether the client must wait because it publishes faster than the store writes. The waker is called once it may
    /// go on.
    pub(super) fn waits_for_store(&self, waker: &Waker) -> bool {
        self.publishes && self.shared.broker.flow().must_wait(self.id(), waker)
    }

    /// Whether notices are waiting; if not, the waker is called when one arrives.
    pub(super) fn has_notices(&self, waker: &Waker) -> bool {
        !self.backlog.is_empty() || self.link.as_ref().is_some_and(|link| link.peer().has_notices(waker))
    }

    /// Notes that the connection's task is awake, so that notices need not wake it.
    pub(super) fn note_awake(&self) {
        if let Some(link) = &self.link {
            link.peer().note_awake();
        }
    }

    fn outbox_bytes_max(&self) -> usize {
        self.shared.outbox_bytes_max()
    }

    /// Closes the connection because the broker stops.
    pub(super) fn stop(&mut self, now: Now) {
        let reason = "broker forced connection closure with reason 'shutdown'";
        self.notice(Notice::Close(AmqpError::connection_forced(reason)), now);
        self.carry_out(now);
    }

    /// Handles a deadline that has passed, and frees buffers.
    pub(super) fn tick(&mut self, now: Now) {
        self.session.tick(now, &mut self.out);
        self.carry_out(now);
        self.release_at = None;
        self.release_buffers();
    }

    // ---- input -------------------------------------------------------------------------------------------------

    /// Takes bytes that were read. `end_read` must follow the last call of a pass.
    pub(super) fn receive(&mut self, input: &[u8], now: Now) {
        self.metrics.note_read(input.len());
        self.session.client_alive(now.monotonic);
        self.take_input(input, now);
    }

    /// Informs the session whether output is waiting, and of the alarm if its notice is still waiting.
    fn note_output(&mut self, now: Now) {
        let waits = self.is_backed_up();
        let reason = self.shared.alarms.reason();
        if waits && reason.is_some() != self.session.is_alarmed() {
            // The alarm's notice waits behind the output, but input that is read now must already heed the alarm.
            self.notice(Notice::Alarm(reason.map(str::to_owned)), now);
        }
        let (session, mut outlet, out) = self.parts(now);
        session.set_output_waits(waits, now, &mut outlet, out);
    }

    /// Flushes the batches of this read to their queues, and counts its publishes.
    pub(super) fn end_read(&mut self, now: Now) {
        self.with_link(|link| link.flush(now));
        self.shared.alarms.note_memory(self.shared.memory.in_use(&self.shared.broker).sum());
        self.metrics.fold_publishes(&self.shared);
    }

    /// Notes the pace of the client after a read of `bytes` bytes. Returns how many bytes should be gathered
    /// in its socket before it is read again.
    pub(super) fn note_pace(&mut self, bytes: usize, now: Now) -> Option<usize> {
        let methods = std::mem::take(&mut self.out.methods);
        let asks = std::mem::take(&mut self.out.asks);
        let was_answered = self.pace.take_answered();
        let gathers_max = match (asks, was_answered) {
            (true, _) => 0,
            // It sends whatever the broker does.
            (false, false) => u64::MAX,
            // Once all is answered it sends as many again, if it has a limit.
            (false, true) => match self.session.outstanding(OUTSTANDING_ENOUGH) {
                ..OUTSTANDING_MIN => 0,
                outstanding => outstanding as u64 / 2,
            },
        };
        self.pace.note_read(Arrived { bytes, methods, gathers_max }, self.shared.moderation(), now.monotonic)
    }

    /// Whether so much is outstanding that the client goes on while it waits for answers.
    pub(super) fn goes_on(&self) -> bool {
        self.session.outstanding(OUTSTANDING_MIN) >= OUTSTANDING_MIN
    }

    /// The queue to which the connection published last, or one from which it consumes.
    pub(super) fn queue_in_use(&self) -> Option<QueueId> {
        self.link.as_ref().and_then(Link::queue_in_use)
    }

    fn take_input(&mut self, input: &[u8], now: Now) {
        if self.partial.is_empty() {
            let used = self.feed_session(input, now);
            self.partial.extend_from_slice(&input[used..]);
            return;
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(input);
        let used = self.feed_session(&partial, now);
        partial.drain(..used);
        self.partial = partial;
    }

    /// Gives input to the session and carries out its effects. Returns how many bytes were used.
    fn feed_session(&mut self, input: &[u8], now: Now) -> usize {
        let mut used = 0;
        self.note_output(now);
        let (was_backed_up, before) = (self.is_backed_up(), self.out.bytes.len());
        loop {
            let (session, mut outlet, out) = self.parts(now);
            used += session.receive(&input[used..], now, &mut outlet, out);
            let paused = self.out.pause;
            self.carry_out(now);
            if !paused || self.closing {
                if was_backed_up {
                    self.added_while_backed_up += self.out.bytes.len() - before;
                }
                return used;
            }
            // The answer that the session waits for may have arrived already.
            self.take_notices(now);
        }
    }

    fn notice(&mut self, notice: Notice, now: Now) {
        if matches!(notice, Notice::Ended) {
            return self.finish_end(now);
        }
        let (session, mut outlet, out) = self.parts(now);
        session.notice(notice, now, &mut outlet, out);
    }

    /// The session, its outlet, and its output.
    fn parts(&mut self, now: Now) -> (&mut Session, LinkOutlet<'_>, &mut Output) {
        let Self { admission, session, link, out, metrics, publishes, .. } = self;
        (session, LinkOutlet { connection: admission.id(), now, link: link.as_mut(), metrics, publishes }, out)
    }

    // ---- effects -----------------------------------------------------------------------------------------------

    fn carry_out(&mut self, now: Now) {
        self.out.pause = false;
        while !self.out.effects.is_empty() {
            let mut effects = std::mem::take(&mut self.out.effects);
            for effect in effects.drain(..) {
                self.carry_out_one(effect, now);
            }
            if self.out.effects.is_empty() {
                // Keeps the capacity for the next pass.
                self.out.effects = effects;
                return;
            }
        }
    }

    fn carry_out_one(&mut self, effect: Effect, now: Now) {
        match effect {
            Effect::Commit(commit) => self.commit(commit, now),
            Effect::Written { channel, consumer, queue, count, bytes } => {
                self.with_link(|link| link.note_written(channel, consumer, queue, count, bytes, now));
            }
            Effect::Command { channel, request, command } => {
                let Some(link) = &mut self.link else { return };
                link.flush(now);
                if link.is_crowded(channel) {
                    link.keep_attached(channel, &self.session.queues_in_use(channel));
                }
                match link.command(channel, request, command, now) {
                    CommandOutcome::Accepted => {}
                    CommandOutcome::Undecided => self.session.undecided(channel, request),
                    // The commands that the channel sent after the refused one must not be carried out.
                    CommandOutcome::Refused => self.take_all_notices(now),
                }
            }
            Effect::Bounce { channel, queue, lend, permit } => {
                self.with_link(|link| link.bounce(channel, queue, lend, permit, now));
            }
            Effect::QueueLimited { channel, queue, limit } => {
                self.with_link(|link| link.queue_limited(channel, queue, limit, now));
            }
            Effect::ConnectionEnds => {
                self.ending |= self.link.as_mut().is_some_and(|link| !link.end(now));
                if !self.ending {
                    self.finish_end(now);
                }
            }
            Effect::Authenticate { mechanism, response } => self.log_in(&mechanism, &response, now),
            Effect::OpenVhost { vhost } => self.open_vhost(vhost.as_str(), now),
            Effect::CloseSocket => self.closing = true,
        }
    }

    fn with_link(&mut self, act: impl FnOnce(&mut Link)) {
        if let Some(link) = &mut self.link {
            act(link);
        }
    }

    /// Sends a transaction to its queues.
    fn commit(&mut self, commit: Commit, now: Now) {
        let Some(link) = &mut self.link else { return };
        self.publishes = true;
        let Commit { channel, publishes, settlements } = commit;
        let mut returned = Vec::new();
        let mut transaction = link.commit(channel, now);
        for RoutedMessage { message, mandatory, queues } in publishes {
            let parts = transaction.publish(&message, &queues);
            self.metrics.note_publish(message.body_len(), mandatory, parts);
            if parts == 0 && mandatory {
                returned.push(message);
            }
        }
        for Settlement { queue, lend, outcome, counted, .. } in settlements {
            transaction.settle(queue, lend, outcome, counted);
        }
        let promises = transaction.seal(now);
        let (session, mut outlet, out) = self.parts(now);
        session.committed(channel, &returned, promises, now, &mut outlet, out);
    }

    fn log_in(&mut self, mechanism: &str, response: &[u8], now: Now) {
        let login = self.admission.log_in(&self.shared, mechanism, response);
        self.session.authenticated(login, now, &mut self.out);
    }

    fn open_vhost(&mut self, name: &str, now: Now) {
        let user = self.session.user().cloned().expect("a vhost is opened after the login");
        let opened =
            self.admission.open_vhost(&self.shared, &user, name, self.session.client_name(), now).map(|link| {
                self.link = Some(link);
                self.identity().log_opened(name);
            });
        self.session.vhost_opened(opened, now, &mut self.out);
    }

    // ---- output ------------------------------------------------------------------------------------------------

    /// The bytes to write.
    pub(super) fn output(&self) -> &[u8] {
        if self.ending { &[] } else { &self.out.bytes }
    }

    /// Counts a write of `bytes` bytes of the output.
    pub(super) fn note_write(&mut self, bytes: usize) {
        self.pace.note_written();
        self.metrics.note_write(bytes);
    }

    /// Called when all of the output was written: makes room for frames that waited, and reports written deliveries.
    pub(super) fn note_all_written(&mut self, now: Now) {
        self.out.bytes.clear();
        if self.out.bytes.capacity() > IDLE_BUFFER_BYTES && self.session.deadline().is_none() {
            self.release_at.get_or_insert(now.monotonic.plus(BUFFERS_KEPT));
        }
        self.added_while_backed_up = 0;
        self.session.flushed(&mut self.out);
        self.note_output(now);
        self.carry_out(now);
        self.with_link(|link| link.flush(now));
        self.session.flush_confirms(&mut self.out);
    }

    /// Gives the waiting notices of the broker and its queues to the session.
    pub(super) fn take_notices(&mut self, now: Now) {
        let held_input = self.session.holds_input();
        for _ in 0..ROUNDS_MAX {
            if self.is_backed_up() || !self.take_some_notices(now) {
                break;
            }
            self.carry_out(now);
            self.with_link(|link| link.flush(now));
        }
        self.bound_unfinished(now);
        self.session.flush_confirms(&mut self.out);
        if held_input && !self.session.holds_input() {
            // The session goes on with input that was read before.
            self.take_input(&[], now);
            self.end_read(now);
            self.bound_unfinished(now);
            self.session.flush_confirms(&mut self.out);
        }
    }

    /// Gives notices to the session until none is left or too much output waits. Returns whether there were any.
    fn take_some_notices(&mut self, now: Now) -> bool {
        let Some(link) = &self.link else { return false };
        if !self.backlog.is_empty() {
            while !self.is_backed_up()
                && let Some(notice) = self.backlog.pop()
            {
                self.notice(notice, now);
            }
            return true;
        }
        link.peer().take(&mut self.notices);
        let mut notices = std::mem::take(&mut self.notices);
        let had_notices = !notices.is_empty();
        let mut left = notices.drain(..);
        for notice in left.by_ref() {
            self.notice(notice, now);
            if self.is_backed_up() {
                break;
            }
        }
        self.backlog.extend(left);
        self.notices = notices;
        had_notices
    }

    /// Gives all waiting notices to the session, however much output waits.
    fn take_all_notices(&mut self, now: Now) {
        if let Some(link) = &self.link {
            link.peer().take(&mut self.notices);
            self.backlog.extend(self.notices.drain(..));
        }
        while let Some(notice) = self.backlog.pop() {
            self.notice(notice, now);
        }
    }

    /// Enforces the limits of contents and transactions that are not complete.
    fn bound_unfinished(&mut self, now: Now) {
        let own = u64::try_from(self.metrics.memory().unfinished).unwrap_or(0);
        let others = self.shared.memory.unfinished_bytes().saturating_sub(own);
        let (session, mut outlet, out) = self.parts(now);
        session.bound_unfinished(others, now, &mut outlet, out);
        self.carry_out(now);
    }

    pub(super) fn release_buffers(&mut self) {
        if self.out.bytes.is_empty() && self.out.bytes.capacity() > IDLE_BUFFER_BYTES {
            self.out.bytes = Vec::new();
        }
        if self.partial.is_empty() && self.partial.capacity() > IDLE_BUFFER_BYTES {
            self.partial = Vec::new();
        }
        self.out.effects.shrink_to(0);
        self.notices.shrink_to(0);
        self.backlog.shrink();
    }

    // ---- the end -----------------------------------------------------------------------------------------------

    /// Adds everything since the last call to the broker's numbers, and logs new failures. Called after each pass.
    pub(super) fn fold_counts(&mut self) {
        let session = self.metrics.fold(&self.shared, self.link.as_ref(), &mut self.session, &mut self.out);
        let memory = self.memory(session);
        self.metrics.fold_memory(&self.shared, memory);
        if !self.out.failures.is_empty() {
            let failures = std::mem::take(&mut self.out.failures);
            let identity = self.identity();
            for failure in &failures {
                self.shared.errors.count(failure.error.scope, failure.error.code);
                identity.log_failure(failure);
            }
        }
    }

    /// The connection as log lines name it.
    fn identity(&self) -> ConnectionIdentity<'_> {
        let admission = &self.admission;
        ConnectionIdentity {
            connection: admission.id().0,
            client: admission.client(),
            name: self.session.client_name(),
            user: self.session.user().map_or(admission.refused_user(), Name::as_str),
            vhost: self.session.vhost().map_or(admission.refused_vhost(), Name::as_str),
        }
    }

    /// Called once the connection's exclusive queues are deleted.
    fn finish_end(&mut self, now: Now) {
        self.ending = false;
        self.link = None;
        self.backlog.clear();
        self.session.ended(now, &mut self.out);
    }

    /// The memory that the connection uses.
    fn memory(&self, session: SessionMetrics) -> ConnectionMemory {
        let bytes = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        let (partial, out, backlog) = (self.partial.capacity(), self.out.bytes.capacity(), self.backlog.held_bytes());
        let buffers = partial + out + self.session.parked_bytes() + backlog;
        let link = self.link.as_ref().map_or(0, Link::held_bytes);
        ConnectionMemory {
            unfinished: session.unfinished_bytes,
            buffers: bytes(buffers),
            channels: session.kept_bytes + bytes(link),
        }
    }

    /// Requeues the unacknowledged deliveries of the connection, and deletes its exclusive queues.
    pub(super) fn end_link(&mut self, now: Now) {
        if let Some(mut link) = self.link.take() {
            link.end(now);
        }
    }

    /// Ends the connection: releases everything that it holds, and logs its end. Called once.
    pub(super) fn end(&mut self, now: Now) {
        self.end_link(now);
        self.session.forget_channels();
        self.partial = Vec::new();
        self.fold_counts();
        self.metrics.fold_memory(&self.shared, ConnectionMemory::default());
        self.admission.end(&self.shared);
        self.identity().log_closed(self.session.ending(), self.session.user().is_some());
    }
}
