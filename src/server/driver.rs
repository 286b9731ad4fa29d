//! One connection without its socket: bytes and the time go in, bytes come out.
//!
//! What comes in is parsed, routed and handed to the queues in one synchronous pass; what the session and the broker have to
//! say to each other passes through here. Sockets and timers are `connection`'s, or a `Simulation`'s.

use super::backlog::Backlog;
use super::errors::{self, Culprit};
use super::memory::Held;
use super::shared::{Shared, SizesOfRead};
use crate::auth::{LoginFailure, Mechanism, authenticate};
use crate::broker::{Carried, Counters, Link, Publishes};
use crate::model::{
    AmqpError, ChannelKey, ConnectionId, Holder, LimitChange, Message, Monotonic, Name, NamedLimit, Notice, Now,
    Promise, PromiseOwner, SettleOutcome,
};
use crate::session::{
    Commit, Effect, Ending, Login, LoginRefusal, Outlet, Output, Publish, RoutedMessage, Session, Settlement, Tally,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Waker;
use std::time::Duration;

/// Rounds of notices in one pass.
const ROUNDS_MAX: u32 = 4;
/// Buffers above this size are given back when the connection falls idle.
const IDLE_BUFFER_BYTES: usize = 1024;

/// A connection's session, its link to the broker, and its buffers.
pub(super) struct Driver {
    shared: Arc<Shared>,
    id: ConnectionId,
    client: SocketAddr,
    seed: u64,
    session: Session,
    link: Option<Link>,
    /// Counts among the open connections.
    admitted: bool,
    /// The beginning of a frame whose rest has not come.
    partial: Vec<u8>,
    out: Output,
    notices: Vec<Notice>,
    backlog: Backlog,
    /// Output that input added while too much waited already.
    added_while_backed_up: usize,
    sizes: SizesOfRead,
    published: Publishes,
    /// What of the session's counts was folded into the gauges.
    channels_told: i64,
    channels_opened_told: u64,
    tally_told: Tally,
    held_reported: Held,
    closing: bool,
    /// What ends with the connection is being deleted: nothing is written until that is over.
    ending: bool,
    /// It has published.
    publishes: bool,
    /// What the client asked for and was refused.
    refused: Refused,
}

/// A login or a vhost that was refused, for the log; empty where none was.
#[derive(Debug, Default)]
struct Refused {
    user: Box<str>,
    vhost: Box<str>,
}

impl Driver {
    /// A connection was accepted; `end` must follow.
    pub(super) fn new(shared: Arc<Shared>, client: SocketAddr, seed: u64, now: Now) -> Self {
        let counters = shared.broker.counters();
        Counters::add(&counters.connections_opened, 1);
        shared.gauges.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            id: shared.broker.next_connection_id(),
            client,
            seed,
            session: Session::new(Arc::clone(&shared.current().session_settings), seed, now),
            link: None,
            admitted: false,
            partial: Vec::new(),
            out: Output::default(),
            notices: Vec::new(),
            backlog: Backlog::default(),
            added_while_backed_up: 0,
            sizes: SizesOfRead::default(),
            published: Publishes::default(),
            channels_told: 0,
            channels_opened_told: 0,
            tally_told: Tally::default(),
            held_reported: Held::default(),
            closing: false,
            ending: false,
            publishes: false,
            refused: Refused::default(),
            shared,
        }
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    /// When `tick` is wanted.
    pub(super) fn deadline(&self) -> Option<Monotonic> {
        self.session.deadline()
    }

    /// The client has closed its end. Whether there is still something to do of what it sent before.
    pub(super) fn hung_up(&mut self, now: Now) -> bool {
        self.session.hung_up(now)
    }

    /// Whether nothing more is to be read: once the output is written, the socket closes.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether no more input is to be taken: the session waits for others, or what comes in adds too much to an output that
    /// is not read.
    pub(super) fn is_saturated(&self) -> bool {
        self.session.is_saturated() || self.added_while_backed_up > self.session.parked_bytes_max()
    }

    /// Whether the client was silent for too long: nobody would read what is left of the output.
    pub(super) fn has_lost_client(&self) -> bool {
        matches!(self.session.ending(), Some(Ending::MissedHeartbeats))
    }

    /// Whether the client is blocked until an alarm ends.
    pub(super) fn is_blocked(&self) -> bool {
        self.session.is_blocked()
    }

    /// Whether so much waits to be written that notices wait.
    pub(super) fn is_backed_up(&self) -> bool {
        let is_to_close = || self.link.as_ref().is_some_and(|link| link.peer().is_to_close());
        !self.ending && self.out.bytes.len() > self.outbox_bytes_max() && !is_to_close()
    }

    /// The client has shown that it lives, so long ago.
    pub(super) fn heard(&mut self, now: Now, ago: Duration) {
        self.session.heard(now.monotonic.minus(ago));
    }

    /// Whether the client publishes faster than the store writes; the waker is called once it may go on.
    pub(super) fn waits_for_store(&self, waker: &Waker) -> bool {
        self.publishes && self.shared.broker.flow().must_wait(self.id, waker)
    }

    /// Whether notices have come; otherwise the waker is called when one does.
    pub(super) fn has_notices(&self, waker: &Waker) -> bool {
        !self.backlog.is_empty() || self.link.as_ref().is_some_and(|link| link.peer().is_ready(waker))
    }

    /// The connection's task is awake.
    pub(super) fn rouse(&self) {
        if let Some(link) = &self.link {
            link.peer().rouse();
        }
    }

    fn outbox_bytes_max(&self) -> usize {
        self.shared.outbox_bytes_max()
    }

    /// The broker stops.
    pub(super) fn stop(&mut self, now: Now) {
        let reason = "broker forced connection closure with reason 'shutdown'";
        self.notice(Notice::Close(AmqpError::connection_forced(reason)), now);
        self.carry_out(now);
    }

    /// A deadline passed.
    pub(super) fn tick(&mut self, now: Now) {
        self.session.tick(now, &mut self.out);
        self.carry_out(now);
        self.release_buffers();
    }

    // ---- input -------------------------------------------------------------------------------------------------

    /// Bytes came in. `end_read` follows the last of a pass.
    pub(super) fn receive(&mut self, input: &[u8], now: Now) {
        Counters::add(&self.shared.broker.counters().bytes_in, input.len() as u64);
        self.session.heard(now.monotonic);
        self.take_input(input, now);
    }

    /// Has the session take output's state into account.
    fn note_output(&mut self, now: Now) {
        let waits = self.is_backed_up();
        let reason = self.shared.alarms.reason();
        if waits && reason.is_some() != self.session.is_alarmed() {
            // The notice of it waits, and what is read now must not go on as if there were no alarm.
            self.notice(Notice::Alarm(reason.map(str::to_owned)), now);
        }
        let (session, mut outlet, out) = self.parts(now);
        session.set_output_waits(waits, now, &mut outlet, out);
    }

    /// What was gathered goes to the queues.
    pub(super) fn end_read(&mut self, now: Now) {
        self.with_link(|link| link.flush(now));
        self.shared.alarms.note_memory(self.shared.memory.in_use(&self.shared.broker).sum());
        self.shared.sizes.fold(&mut self.sizes);
        self.shared.broker.counters().fold_publishes(&mut self.published);
    }

    fn take_input(&mut self, input: &[u8], now: Now) {
        if self.partial.is_empty() {
            let used = self.process(input, now);
            self.partial.extend_from_slice(&input[used..]);
            return;
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(input);
        let used = self.process(&partial, now);
        partial.drain(..used);
        self.partial = partial;
    }

    /// Gives input to the session and carries out what it asks for; returns how much was used.
    fn process(&mut self, input: &[u8], now: Now) -> usize {
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
            // The answer may be at hand already.
            self.take_notices(now);
        }
    }

    fn notice(&mut self, notice: Notice, now: Now) {
        if matches!(notice, Notice::Ended) {
            return self.ended(now);
        }
        let (session, mut outlet, out) = self.parts(now);
        session.notice(notice, now, &mut outlet, out);
    }

    /// The session, where it publishes to, and where it writes to.
    fn parts(&mut self, now: Now) -> (&mut Session, LinkOutlet<'_>, &mut Output) {
        let Self { id, session, link, out, published, sizes, publishes, .. } = self;
        (session, LinkOutlet { connection: *id, now, link: link.as_mut(), published, sizes, publishes }, out)
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
                // Keeps the room for the next pass.
                self.out.effects = effects;
                return;
            }
        }
    }

    fn carry_out_one(&mut self, effect: Effect, now: Now) {
        match effect {
            Effect::Commit(commit) => self.commit(commit, now),
            Effect::Written { channel, consumer, queue, count, bytes } => {
                self.with_link(|link| link.written(channel, consumer, queue, count, bytes, now));
            }
            Effect::Command { channel, request, command } => {
                let Some(link) = &mut self.link else { return };
                link.flush(now);
                if link.is_crowded(channel) {
                    link.keep_attached(channel, &self.session.queues_in_use(channel));
                }
                match link.command(channel, request, command, now) {
                    Carried::Out => {}
                    Carried::ToQueue => self.session.undecided(channel, request),
                    // What the channel sent behind it is not to be carried out.
                    Carried::Back => self.take_all_notices(now),
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
                    self.ended(now);
                }
            }
            Effect::Authenticate { mechanism, response } => self.authenticate(&mechanism, &response, now),
            Effect::OpenVhost { vhost } => {
                let opened =
                    self.open_vhost(vhost.as_str()).inspect_err(|_| self.refused.vhost = vhost.as_str().into());
                self.session.vhost_opened(opened, now, &mut self.out);
            }
            Effect::CloseSocket => self.closing = true,
        }
    }

    fn with_link(&mut self, act: impl FnOnce(&mut Link)) {
        if let Some(link) = &mut self.link {
            act(link);
        }
    }

    /// A transaction goes to its queues.
    fn commit(&mut self, commit: Commit, now: Now) {
        let Some(link) = &mut self.link else { return };
        self.publishes = true;
        let Commit { channel, publishes, settlements } = commit;
        let mut returned = Vec::new();
        let mut transaction = link.commit(channel, now);
        for RoutedMessage { message, mandatory, queues } in publishes {
            let parts = transaction.publish(&message, &queues);
            self.sizes.record(message.body_len());
            self.published.note(mandatory, parts);
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

    fn authenticate(&mut self, mechanism: &str, response: &[u8], now: Now) {
        let counters = self.shared.broker.counters();
        Counters::add(&counters.auth_attempts, 1);
        let loopback = self.client.ip().to_canonical().is_loopback();
        let login = match Mechanism::from_name(mechanism.as_bytes()) {
            Some(mechanism) => {
                let users = self.shared.users.read().unwrap_or_else(std::sync::PoisonError::into_inner);
                authenticate(&users, mechanism, response, loopback)
            }
            None => Err(LoginFailure::Malformed),
        };
        let login = match login {
            Ok(user) => Ok(Login { may_impersonate: user.is_impersonator(), user: user.name }),
            Err(failure) => {
                Counters::add(&counters.auth_failures, 1);
                match failure {
                    LoginFailure::Malformed => {
                        tracing::warn!(connection = self.id.0, client = %self.client, mechanism, "malformed login");
                        Err(LoginRefusal::Malformed)
                    }
                    LoginFailure::Credentials { user, reason } => {
                        tracing::warn!(connection = self.id.0, client = %self.client, mechanism, user, reason, "login refused");
                        self.refused.user = user.into();
                        Err(LoginRefusal::Refused)
                    }
                }
            }
        };
        self.session.authenticated(login, now, &mut self.out);
    }

    /// Takes a place among the open connections.
    fn admit(&mut self) -> Result<(), AmqpError> {
        let limit = self.shared.current().settings.connections_max;
        let admitted = &self.shared.gauges.admitted;
        if admitted.fetch_add(1, Ordering::Relaxed) >= i64::from(limit) {
            admitted.fetch_sub(1, Ordering::Relaxed);
            self.shared.broker.refusals().note(NamedLimit::ConnectionsMax);
            let reason = format!("connection refused: node connection limit ({limit}) is reached");
            return Err(AmqpError::not_allowed(reason));
        }
        self.admitted = true;
        Ok(())
    }

    fn open_vhost(&mut self, name: &str) -> Result<(), AmqpError> {
        self.admit()?;
        let user = self.session.user().cloned().expect("a vhost is opened after the login");
        let link = {
            // Until the link is open, so that a user or a vhost that goes meanwhile finds the connection to be closed.
            let users = self.shared.users.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            let vhost = self.shared.broker.vhost(name.as_bytes()).filter(|_| !users.withholds(name));
            let vhost = vhost.ok_or_else(|| AmqpError::not_allowed(format!("vhost {name} not found")))?;
            if !users.may_open_vhost(user.as_str(), name) {
                return Err(AmqpError::not_allowed(format!("access to vhost '{name}' refused for user '{user}'")));
            }
            Link::open(&self.shared.broker, vhost, self.id, user.clone(), self.seed)
        };
        let tell = |reason: Option<&str>| link.peer().tell_one(Notice::Alarm(reason.map(str::to_owned)));
        if let Some(reason) = self.shared.alarms.reason() {
            tell(Some(reason));
            if self.shared.alarms.reason().is_none() {
                // It ended meanwhile, and that may be in front of its beginning.
                tell(None);
            }
        }
        self.link = Some(link);
        tracing::info!(
            connection = self.id.0,
            client = %self.client,
            name = self.session.client_name(),
            user = user.as_str(),
            vhost = name,
            "connection opened"
        );
        Ok(())
    }

    // ---- output ------------------------------------------------------------------------------------------------

    /// What is to be written.
    pub(super) fn output(&self) -> &[u8] {
        if self.ending { &[] } else { &self.out.bytes }
    }

    /// All of the output was written.
    pub(super) fn written(&mut self, now: Now) {
        Counters::add(&self.shared.broker.counters().bytes_out, self.out.bytes.len() as u64);
        self.out.bytes.clear();
        self.added_while_backed_up = 0;
        self.session.flushed(&mut self.out);
        self.note_output(now);
        self.carry_out(now);
        self.with_link(|link| link.flush(now));
        self.session.flush_confirms(&mut self.out);
    }

    /// What the broker and its queues have to say goes to the session.
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
            // What was read before.
            self.take_input(&[], now);
            self.end_read(now);
            self.bound_unfinished(now);
            self.session.flush_confirms(&mut self.out);
        }
    }

    /// Gives notices to the session until there are none, or too much output waits. Whether there were any.
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
        let has_come = !notices.is_empty();
        let mut left = notices.drain(..);
        for notice in left.by_ref() {
            self.notice(notice, now);
            if self.is_backed_up() {
                break;
            }
        }
        self.backlog.extend(left);
        self.notices = notices;
        has_come
    }

    /// Gives all notices that have come to the session, however much output waits.
    fn take_all_notices(&mut self, now: Now) {
        if let Some(link) = &self.link {
            link.peer().take(&mut self.notices);
            self.backlog.extend(self.notices.drain(..));
        }
        while let Some(notice) = self.backlog.pop() {
            self.notice(notice, now);
        }
    }

    /// Contents and transactions that are not complete keep to their limits.
    fn bound_unfinished(&mut self, now: Now) {
        let own = u64::try_from(self.held_reported.unfinished).unwrap_or(0);
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

    pub(super) fn fold_counts(&mut self) {
        let counters = self.shared.broker.counters();
        let open = self.session.channel_count();
        let opened = self.session.channels_opened();
        if opened != self.channels_opened_told || open as i64 != self.channels_told {
            let closed_before = self.channels_opened_told as i64 - self.channels_told;
            let closed = opened as i64 - open as i64;
            Counters::add(&counters.channels_opened, opened - self.channels_opened_told);
            Counters::add(&counters.channels_closed, u64::try_from(closed - closed_before).unwrap_or(0));
            self.channels_opened_told = opened;
        }
        let gauges = &self.shared.gauges;
        let add = |gauge: &AtomicI64, change: i64| {
            if change != 0 {
                gauge.fetch_add(change, Ordering::Relaxed);
            }
        };
        add(&gauges.channels, open as i64 - self.channels_told);
        self.channels_told = open as i64;
        let tally = self.session.tally();
        let change = tally - self.tally_told;
        self.tally_told = tally;
        add(&gauges.publishers, change.publishers);
        add(&gauges.unconfirmed, change.unconfirmed);
        add(&gauges.uncommitted, change.uncommitted);
        add(&gauges.acks_uncommitted, change.acks_uncommitted);
        Counters::add(&counters.confirmed, std::mem::take(&mut self.out.confirmed));
        self.shared.broker.refusals().fold(&mut self.out.refusals);
        let held = self.held(tally);
        self.shared.memory.fold(&mut self.held_reported, held);
        if !self.out.failures.is_empty() {
            self.report_failures();
        }
    }

    /// Who logged in, or tried to, and the vhost that is open, or was asked for.
    fn user_and_vhost(&self) -> (&str, &str) {
        let user = self.session.user().map_or(&*self.refused.user, Name::as_str);
        let vhost = self.session.vhost().map_or(&*self.refused.vhost, Name::as_str);
        (user, vhost)
    }

    /// Counts and logs the errors of this pass.
    fn report_failures(&mut self) {
        let failures = std::mem::take(&mut self.out.failures);
        let (user, vhost) = self.user_and_vhost();
        let name = self.session.client_name();
        let culprit = Culprit { connection: self.id.0, client: self.client, name, user, vhost };
        for failure in failures {
            self.shared.errors.count(failure.error.scope, failure.error.code);
            errors::log(&failure, &culprit);
        }
    }

    /// What ends with the connection is gone.
    fn ended(&mut self, now: Now) {
        self.ending = false;
        self.link = None;
        self.backlog.clear();
        self.session.ended(now, &mut self.out);
    }

    /// What the connection holds of memory; nothing once it has ended.
    fn held(&self, tally: Tally) -> Held {
        let bytes = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        let (partial, out, backlog) = (self.partial.capacity(), self.out.bytes.capacity(), self.backlog.held_bytes());
        let buffers = partial + out + self.session.parked_bytes() + backlog;
        let link = self.link.as_ref().map_or(0, Link::held_bytes);
        Held { unfinished: tally.unfinished_bytes, buffers: bytes(buffers), channels: tally.kept_bytes + bytes(link) }
    }

    /// What the connection held goes back.
    pub(super) fn end_link(&mut self, now: Now) {
        if let Some(mut link) = self.link.take() {
            link.end(now);
        }
    }

    /// The end, when nothing more comes of the connection; told once.
    pub(super) fn end(&mut self, now: Now) {
        self.end_link(now);
        self.session.forget_channels();
        self.partial = Vec::new();
        self.fold_counts();
        self.shared.memory.fold(&mut self.held_reported, Held::default());
        let counters = self.shared.broker.counters();
        Counters::add(&counters.connections_closed, 1);
        self.shared.gauges.connections.fetch_sub(1, Ordering::Relaxed);
        if self.admitted {
            self.shared.gauges.admitted.fetch_sub(1, Ordering::Relaxed);
        }
        let reason = match self.session.ending() {
            Some(Ending::ByClient(code, text)) => format!("closed by the client: {code} {text}"),
            Some(Ending::ByBroker(text)) => format!("closed by the broker: {text}"),
            Some(Ending::MissedHeartbeats) => "missed heartbeats from the client".to_owned(),
            Some(Ending::Handshake(why)) => format!("handshake failed: {why}"),
            None => "the client closed the socket without a close".to_owned(),
        };
        if self.session.user().is_none() && self.session.ending().is_none() {
            // A health check: connected and left.
            tracing::debug!(connection = self.id.0, client = %self.client, reason, "connection closed");
            return;
        }
        let (connection, client, name) = (self.id.0, self.client, self.session.client_name());
        let (user, vhost) = self.user_and_vhost();
        if matches!(self.session.ending(), None | Some(Ending::MissedHeartbeats)) {
            // Its program or its network may be at fault.
            tracing::warn!(connection, %client, name, user, vhost, reason, "connection closed");
        } else {
            tracing::info!(connection, %client, name, user, vhost, reason, "connection closed");
        }
    }
}

/// Where a session's publishes go: through the connection's link, and into its counts.
struct LinkOutlet<'a> {
    connection: ConnectionId,
    now: Now,
    link: Option<&'a mut Link>,
    published: &'a mut Publishes,
    sizes: &'a mut SizesOfRead,
    publishes: &'a mut bool,
}

impl Outlet for LinkOutlet<'_> {
    fn publish(&mut self, publish: Publish) -> Result<u32, AmqpError> {
        let Publish { channel, message, mandatory, sequence } = publish;
        let Some(link) = &mut self.link else { return Ok(0) };
        *self.publishes = true;
        let promise = sequence.map(|sequence| {
            let holder = Holder { connection: self.connection, channel };
            Promise { owner: PromiseOwner::Channel(holder), sequence }
        });
        let size = message.body_len();
        let parts = link.publish(message, promise)?;
        self.published.received_confirm += u64::from(sequence.is_some());
        self.sizes.record(size);
        self.published.note(mandatory, parts);
        Ok(parts)
    }

    fn route(&mut self, message: &Message) -> Result<Vec<Name>, AmqpError> {
        self.link.as_mut().map_or_else(|| Ok(Vec::new()), |link| link.route(message))
    }

    fn settle(&mut self, channel: ChannelKey, settlement: Settlement) {
        let Settlement { queue, lend, outcome, counted, continues } = settlement;
        if let Some(link) = &mut self.link {
            // What another method requeues may be on its way again before this comes back.
            let joins = continues || outcome != SettleOutcome::Requeued;
            link.settle(channel, queue, lend, outcome, counted, joins);
        }
    }

    fn change_limit(&mut self, channel: ChannelKey, change: LimitChange) {
        if let Some(link) = &mut self.link {
            link.flush(self.now);
            link.change_limit(channel, change, self.now);
        }
    }

    fn count_delivery(&mut self, channel: ChannelKey) {
        if let Some(link) = &self.link {
            link.count_delivery(channel, self.now);
        }
    }

    fn end_channel(&mut self, channel: ChannelKey) {
        if let Some(link) = &mut self.link {
            link.flush(self.now);
            link.end_channel(channel, self.now);
        }
    }
}
