//! One task per connection: it polls readable, writable, its inlet and its deadline, and never awaits a queue.
//!
//! What it reads is parsed, routed and handed to the queues in one synchronous pass; what comes back is written in the same
//! pass where the socket takes it.

use super::shared::{Shared, SizesOfRead};
use crate::auth::{LoginFailure, Mechanism, authenticate};
use crate::broker::{Counters, Link};
use crate::model::{AmqpError, ChannelKey, ConnectionId, Monotonic, Notice, Now, Promise, PromiseOwner};
use crate::queue::Outcome;
use crate::session::{Effect, Ending, Login, LoginRefusal, Output, Publish, Session, Settle, SettleOutcome, Tally};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
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
/// Rounds of notices in one pass.
const ROUNDS_MAX: u32 = 4;
/// Buffers above this size are given back when the connection falls idle.
const IDLE_BUFFER_BYTES: usize = 1024;
/// How long a connection that is to be closed may take to write what is left.
const LAST_WRITE_PATIENCE: Duration = Duration::from_secs(2);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// One connection.
struct Connection {
    shared: Arc<Shared>,
    id: ConnectionId,
    peer_address: SocketAddr,
    stream: TcpStream,
    session: Session,
    link: Option<Link>,
    /// Counts among the open connections.
    admitted: bool,
    /// The beginning of a frame whose rest has not come.
    partial: Vec<u8>,
    out: Output,
    /// How much of the output was written.
    written: usize,
    notices: Vec<Notice>,
    /// Channels that failed while effects are carried out, some of which they gave out before.
    failed: Vec<ChannelKey>,
    sizes: SizesOfRead,
    /// What of the session's counts was folded into the gauges.
    channels_told: i64,
    channels_opened_told: u64,
    tally_told: Tally,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// Nothing more is read; what is left is written, then the socket closes.
    Closing,
    /// The socket is of no use any more.
    Gone,
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
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, peer_address: SocketAddr, seed: u64) {
    let id = shared.broker.next_connection_id();
    let now = shared.clock.now();
    let session = Session::new(Arc::clone(&shared.session_settings), seed, now);
    let stopping = shared.stopping.subscribe();
    let mut connection = Connection {
        id,
        peer_address,
        stream,
        session,
        link: None,
        admitted: false,
        partial: Vec::new(),
        out: Output::default(),
        written: 0,
        notices: Vec::new(),
        failed: Vec::new(),
        sizes: SizesOfRead::default(),
        channels_told: 0,
        channels_opened_told: 0,
        tally_told: Tally::default(),
        stage: Stage::Open,
        shared,
    };
    let counters = connection.shared.broker.counters();
    Counters::add(&counters.connections_opened, 1);
    connection.shared.gauges.connections.fetch_add(1, Ordering::Relaxed);
    connection.run(stopping, seed).await;
}

/// However a connection ends, by a panic or with the runtime too, what it held goes back.
impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

impl Connection {
    async fn run(&mut self, mut stopping: watch::Receiver<bool>, seed: u64) {
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
            let deadline = self.session.deadline();
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
            let now = self.shared.clock.now();
            if woken.stopping {
                told_to_stop = true;
                let reason = "broker forced connection closure with reason 'shutdown'";
                self.session.notice(Notice::Close(AmqpError::connection_forced(reason)), now, &mut self.out);
                self.carry_out(now, seed);
            }
            if woken.deadline {
                armed = None;
                self.session.tick(now, &mut self.out);
                self.carry_out(now, seed);
                self.release_buffers();
            }
            if woken.readable {
                self.read(now, seed);
            }
            self.take_notices(now, seed);
            self.write(now, seed);
            self.fold_counts();
            match self.stage {
                Stage::Open => {}
                Stage::Closing => {
                    // What the client held goes to others now, however slowly it takes its last bytes.
                    self.end_link();
                    return self.write_last().await;
                }
                Stage::Gone => return,
            }
        }
    }

    fn poll_wake(
        &self,
        cx: &mut Context<'_>,
        sleep: Option<Pin<&mut Sleep>>,
        stopping: Option<Pin<&mut impl Future<Output = ()>>>,
    ) -> Poll<Woken> {
        let reads = !self.session.is_saturated() && self.out.bytes.len() <= self.outbox_bytes_max();
        let woken = Woken {
            readable: reads && self.stream.poll_read_ready(cx).is_ready(),
            writable: self.written < self.out.bytes.len() && self.stream.poll_write_ready(cx).is_ready(),
            inlet: self.out.bytes.len() <= self.outbox_bytes_max()
                && self.link.as_ref().is_some_and(|link| link.peer().is_ready(cx.waker())),
            deadline: sleep.is_some_and(|sleep| sleep.poll(cx).is_ready()),
            stopping: stopping.is_some_and(|stopping| stopping.poll(cx).is_ready()),
        };
        let Woken { readable, writable, inlet, deadline, stopping } = woken;
        if readable || writable || inlet || deadline || stopping { Poll::Ready(woken) } else { Poll::Pending }
    }

    fn outbox_bytes_max(&self) -> usize {
        usize::try_from(self.shared.settings.limits.outbox_bytes_max).unwrap_or(usize::MAX)
    }

    // ---- input -------------------------------------------------------------------------------------------------

    fn read(&mut self, now: Now, seed: u64) {
        READ_BUFFER.with_borrow_mut(|buffer| {
            for _ in 0..READS_MAX {
                if self.stage != Stage::Open || self.session.is_saturated() {
                    break;
                }
                match self.stream.try_read(buffer) {
                    Ok(0) => {
                        self.gone("the client closed the socket");
                        break;
                    }
                    Ok(len) => {
                        self.shared.gauges.reads.fetch_add(1, Ordering::Relaxed);
                        Counters::add(&self.shared.broker.counters().bytes_in, len as u64);
                        self.session.heard(now);
                        self.take_input(&buffer[..len], now, seed);
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
        if let Some(link) = &mut self.link {
            link.flush(now);
        }
        self.shared.sizes.fold(&mut self.sizes);
    }

    fn take_input(&mut self, input: &[u8], now: Now, seed: u64) {
        if self.partial.is_empty() {
            let used = self.process(input, now, seed);
            self.partial.extend_from_slice(&input[used..]);
            return;
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(input);
        let used = self.process(&partial, now, seed);
        partial.drain(..used);
        self.partial = partial;
    }

    /// Gives input to the session and carries out what it asks for; returns how much was used.
    fn process(&mut self, input: &[u8], now: Now, seed: u64) -> usize {
        let mut used = 0;
        loop {
            used += self.session.receive(&input[used..], now, &mut self.out);
            let paused = self.out.pause;
            self.carry_out(now, seed);
            if !paused || self.stage != Stage::Open {
                return used;
            }
            // The answer may be at hand already.
            self.take_notices(now, seed);
        }
    }

    // ---- effects -----------------------------------------------------------------------------------------------

    fn carry_out(&mut self, now: Now, seed: u64) {
        self.out.pause = false;
        while !self.out.effects.is_empty() {
            let mut effects = std::mem::take(&mut self.out.effects);
            for effect in effects.drain(..) {
                self.carry_out_one(effect, now, seed);
            }
            self.failed.clear();
            if self.out.effects.is_empty() {
                // Keeps the room for the next pass.
                self.out.effects = effects;
                return;
            }
        }
    }

    fn carry_out_one(&mut self, effect: Effect, now: Now, seed: u64) {
        match effect {
            Effect::Publish(publish) => self.publish(publish, now),
            Effect::CheckPublish(publish) => self.check_publish(publish, now),
            Effect::Settle(settle) => self.settle(settle, now),
            Effect::Written { channel, consumer, queue, count, bytes } => {
                self.with_link(|link| link.written(channel, consumer, queue, count, bytes, now));
            }
            Effect::Command { channel, request, command } => {
                if !self.failed.contains(&channel) {
                    self.with_link(|link| {
                        link.flush(now);
                        link.command(channel, request, command, now);
                    });
                }
            }
            Effect::Bounce { channel, queue, lend, counted } => {
                self.with_link(|link| link.bounce(channel, queue, lend, counted, now));
            }
            Effect::ChannelLimit { channel, limit, outstanding } => {
                self.with_link(|link| link.limit_channel(channel, limit, outstanding, now));
            }
            Effect::ChannelEnded { channel } => self.with_link(|link| {
                link.flush(now);
                link.end_channel(channel, now);
            }),
            Effect::ConnectionEnds => {
                if let Some(mut link) = self.link.take() {
                    link.end(now);
                }
                self.session.ended(now, &mut self.out);
            }
            Effect::Authenticate { mechanism, response } => self.authenticate(&mechanism, &response, now),
            Effect::OpenVhost { vhost } => {
                let opened = self.open_vhost(vhost.as_str(), seed);
                self.session.vhost_opened(opened, now, &mut self.out);
            }
            Effect::CloseSocket => self.stage = Stage::Closing,
        }
    }

    fn with_link(&mut self, act: impl FnOnce(&mut Link)) {
        if let Some(link) = &mut self.link {
            act(link);
        }
    }

    fn publish(&mut self, publish: Publish, now: Now) {
        let Publish { channel, message, mandatory, sequence, fault } = publish;
        let Some(link) = &mut self.link else { return };
        if self.failed.contains(&channel) {
            return;
        }
        let counters = self.shared.broker.counters();
        Counters::add(&counters.received, 1);
        Counters::add(&counters.received_confirm, u64::from(sequence.is_some()));
        self.sizes.record(message.body_len());
        if let Some(fault) = fault {
            let error = link.check_publish(&message).err().unwrap_or(*fault);
            return self.publish_failed(channel, &error, now);
        }
        let promise = sequence.map(|sequence| {
            let holder = crate::model::Holder { connection: self.id, channel };
            Promise { owner: PromiseOwner::Channel(holder), sequence }
        });
        let returnable = mandatory.then(|| message.clone());
        match link.publish(message, promise) {
            Ok(routed) => {
                if routed.parts > 0 {
                    Counters::add(&counters.routed, u64::from(routed.parts));
                } else if let Some(message) = returnable {
                    Counters::add(&counters.unroutable_returned, 1);
                    self.session.returned(channel, &message, &mut self.out);
                } else {
                    Counters::add(&counters.unroutable_dropped, 1);
                }
                self.session.published(channel, sequence, routed.parts, now, &mut self.out);
            }
            Err(error) => self.publish_failed(channel, &error, now),
        }
    }

    /// The channel closes; what it sent behind the failed publish is not carried out.
    fn publish_failed(&mut self, channel: ChannelKey, error: &AmqpError, now: Now) {
        self.failed.push(channel);
        self.session.publish_failed(channel, error, now, &mut self.out);
    }

    fn check_publish(&mut self, publish: Publish, now: Now) {
        let Some(link) = &mut self.link else { return };
        if self.failed.contains(&publish.channel) {
            return;
        }
        if let Some(error) = link.check_publish(&publish.message).err().or(publish.fault.map(|fault| *fault)) {
            self.publish_failed(publish.channel, &error, now);
        }
    }

    fn settle(&mut self, settle: Settle, now: Now) {
        let Settle { channel, queue, outcome, lends, counted } = settle;
        let outcome = match outcome {
            SettleOutcome::Acknowledged => Outcome::Acknowledged,
            SettleOutcome::Requeued => Outcome::Requeued,
            SettleOutcome::Rejected => Outcome::Rejected,
        };
        self.with_link(|link| link.settle(channel, queue, lends, outcome, counted, now));
    }

    fn authenticate(&mut self, mechanism: &str, response: &[u8], now: Now) {
        let counters = self.shared.broker.counters();
        Counters::add(&counters.auth_attempts, 1);
        let loopback = self.peer_address.ip().to_canonical().is_loopback();
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
                        tracing::warn!(connection = self.id.0, client = %self.peer_address, mechanism, "malformed login");
                        Err(LoginRefusal::Malformed)
                    }
                    LoginFailure::Credentials { user, reason } => {
                        tracing::warn!(connection = self.id.0, client = %self.peer_address, mechanism, user, reason, "login refused");
                        Err(LoginRefusal::Refused)
                    }
                }
            }
        };
        self.session.authenticated(login, now, &mut self.out);
    }

    /// Takes a place among the open connections.
    fn admit(&mut self) -> Result<(), AmqpError> {
        let limit = self.shared.settings.connections_max;
        let admitted = &self.shared.gauges.admitted;
        if admitted.fetch_add(1, Ordering::Relaxed) >= i64::from(limit) {
            admitted.fetch_sub(1, Ordering::Relaxed);
            let reason = format!("connection refused: node connection limit ({limit}) is reached");
            return Err(AmqpError::not_allowed(reason));
        }
        self.admitted = true;
        Ok(())
    }

    fn open_vhost(&mut self, name: &str, seed: u64) -> Result<(), AmqpError> {
        self.admit()?;
        let user = self.session.user().cloned().expect("a vhost is opened after the login");
        let vhost = self
            .shared
            .broker
            .vhost(name.as_bytes())
            .ok_or_else(|| AmqpError::not_allowed(format!("vhost {name} not found")))?;
        let allowed = {
            let users = self.shared.users.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            users.get(user.as_str()).is_some_and(|record| record.vhosts.iter().any(|vhost| vhost.as_str() == name))
        };
        if !allowed {
            return Err(AmqpError::not_allowed(format!("access to vhost '{name}' refused for user '{user}'")));
        }
        self.link = Some(Link::open(&self.shared.broker, vhost, self.id, user.clone(), seed));
        tracing::info!(
            connection = self.id.0,
            client = %self.peer_address,
            name = self.session.client_name(),
            %user,
            vhost = name,
            "connection opened"
        );
        Ok(())
    }

    // ---- output ------------------------------------------------------------------------------------------------

    fn take_notices(&mut self, now: Now, seed: u64) {
        for _ in 0..ROUNDS_MAX {
            let Some(link) = &self.link else { break };
            if self.out.bytes.len() > self.outbox_bytes_max() {
                break;
            }
            link.peer().take(&mut self.notices);
            if self.notices.is_empty() {
                break;
            }
            let mut notices = std::mem::take(&mut self.notices);
            for notice in notices.drain(..) {
                self.session.notice(notice, now, &mut self.out);
            }
            self.notices = notices;
            self.carry_out(now, seed);
            self.with_link(|link| link.flush(now));
        }
        self.session.flush_confirms(&mut self.out);
    }

    fn write(&mut self, now: Now, seed: u64) {
        while self.stage != Stage::Gone && self.written < self.out.bytes.len() {
            match self.stream.try_write(&self.out.bytes[self.written..]) {
                Ok(len) => {
                    self.written += len;
                    self.shared.gauges.writes.fetch_add(1, Ordering::Relaxed);
                    Counters::add(&self.shared.broker.counters().bytes_out, len as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.gone(&error.to_string()),
            }
        }
        if self.written > 0 {
            self.written = 0;
            self.out.bytes.clear();
            self.session.flushed(&mut self.out);
            self.carry_out(now, seed);
        }
    }

    async fn write_last(&mut self) {
        let deadline = tokio::time::sleep(LAST_WRITE_PATIENCE);
        let mut deadline = pin!(deadline);
        while self.written < self.out.bytes.len() {
            let ready = poll_fn(|cx| {
                if deadline.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(false);
                }
                self.stream.poll_write_ready(cx).map(|ready| ready.is_ok())
            });
            if !ready.await {
                return;
            }
            match self.stream.try_write(&self.out.bytes[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    fn release_buffers(&mut self) {
        if self.out.bytes.is_empty() && self.out.bytes.capacity() > IDLE_BUFFER_BYTES {
            self.out.bytes = Vec::new();
        }
        if self.partial.is_empty() && self.partial.capacity() > IDLE_BUFFER_BYTES {
            self.partial = Vec::new();
        }
        self.out.effects.shrink_to(0);
        self.notices.shrink_to(0);
    }

    // ---- the end -----------------------------------------------------------------------------------------------

    fn gone(&mut self, why: &str) {
        tracing::debug!(connection = self.id.0, why, "socket gone");
        self.stage = Stage::Gone;
    }

    fn fold_counts(&mut self) {
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
    }

    fn end_link(&mut self) {
        if let Some(mut link) = self.link.take() {
            link.end(self.shared.clock.now());
        }
    }

    fn end(&mut self) {
        self.end_link();
        self.session.forget_channels();
        self.fold_counts();
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
        let (user, vhost) = (self.session.user(), self.session.vhost());
        if user.is_none() && self.session.ending().is_none() {
            // A health check: connected and left.
            tracing::debug!(connection = self.id.0, client = %self.peer_address, reason, "connection closed");
            return;
        }
        tracing::info!(
            connection = self.id.0,
            client = %self.peer_address,
            name = self.session.client_name(),
            user = user.map_or("", |user| user.as_str()),
            vhost = vhost.map_or("", |vhost| vhost.as_str()),
            reason,
            "connection closed"
        );
    }
}
