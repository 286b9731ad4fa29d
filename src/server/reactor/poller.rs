//! The kernel's side of an event loop: which sockets are ready. Other threads can end a wait.

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// Most sockets that one wait reports.
const EVENTS_MAX: usize = 256;

/// The token of the notification.
const NOTIFICATION: u64 = u64::MAX;

/// The token of the ticks.
const TICK: u64 = u64::MAX - 1;

/// How often what was gathered in sockets is looked at. A wait with a timeout of some microseconds would be more exact,
/// but setting a timer is costly on virtual machines: up to 20 us of processor time for each.
const TICK_INTERVAL: Duration = Duration::from_millis(1);

use super::readiness::{ERROR_PAUSE, Readiness};
use crate::server::socket::gather;
pub(super) use crate::server::transport::Interest;

fn flags_of(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, interest.read);
    flags.set(EventFlags::OUT, interest.write);
    flags
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() }
}

/// Watches sockets, as long as they are ready.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
    notification: OwnedFd,
    ticks: OwnedFd,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let notification = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered: each write is reported once, so nobody needs to read it.
        epoll::add(&epoll, &notification, EventData::new_u64(NOTIFICATION), EventFlags::IN | EventFlags::ET)?;
        let ticks = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &ticks, EventData::new_u64(TICK), EventFlags::IN | EventFlags::ET)?;
        Ok(Self { epoll, notification, ticks })
    }

    pub(super) fn add(&self, socket: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), flags_of(interest))?)
    }

    pub(super) fn change(&self, socket: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token), flags_of(interest))?)
    }

    /// Stops watching. An error means that the socket is not watched.
    pub(super) fn remove(&self, socket: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, socket);
    }

    /// Whether sockets can gather input.
    pub(super) const CAN_GATHER: bool = true;

    /// From now on a socket counts as readable once so many bytes have come.
    pub(super) fn gather(&self, socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
        gather(socket, bytes)
    }

    /// From now on waits end with a tick each millisecond.
    pub(super) fn start_ticks(&self) {
        self.set_ticks(TICK_INTERVAL);
    }

    pub(super) fn stop_ticks(&self) {
        self.set_ticks(Duration::ZERO);
    }

    fn set_ticks(&self, interval: Duration) {
        let times = Itimerspec { it_interval: timespec(interval), it_value: timespec(interval) };
        if let Err(error) = timerfd_settime(&self.ticks, TimerfdTimerFlags::empty(), &times) {
            tracing::error!(%error, "a timer cannot be set");
        }
    }

    /// Waits until a socket is ready, until `notify`, a tick, or for the time; adds the ready sockets to `ready`. Returns
    /// whether a tick has come.
    pub(super) fn wait(&self, timeout: Option<Duration>, ready: &mut Vec<Readiness>) -> bool {
        let mut events = [MaybeUninit::<Event>::uninit(); EVENTS_MAX];
        let events = match epoll::wait(&self.epoll, &mut events, timeout.map(timespec).as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return false,
            Err(error) => {
                tracing::error!(%error, "waiting for sockets failed");
                std::thread::sleep(ERROR_PAUSE);
                return false;
            }
        };
        let mut ticked = false;
        for event in events.iter() {
            let (flags, token) = (event.flags, event.data.u64());
            if token == TICK {
                ticked = true;
                self.take_tick();
            }
            if token < TICK {
                let is_broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                let readable = is_broken || flags.contains(EventFlags::IN);
                ready.push(Readiness { token, readable, is_broken });
            }
        }
        ticked
    }

    /// The kernel sets the timer for its next tick only when this one is read.
    fn take_tick(&self) {
        let _ = rustix::io::read(&self.ticks, &mut [0; 8]);
    }

    /// Ends the wait of another thread, or the next one.
    pub(super) fn notify(&self) {
        let _ = rustix::io::write(&self.notification, &1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::portable_poller;
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Instant;

    macro_rules! tests_of {
        ($name:ident, $poller:ty) => {
            #[test]
            fn $name() {
                let taken = |ready: &mut Vec<Readiness>| -> Vec<(u64, bool, bool)> {
                    ready.drain(..).map(|it| (it.token, it.readable, it.is_broken)).collect()
                };
                let poller = <$poller>::new().unwrap();
                let (mut here, mut there) = UnixStream::pair().unwrap();
                let mut ready = Vec::new();
                let read = Interest { read: true, write: false };
                poller.add(there.as_fd(), 7, read).unwrap();
                let began = Instant::now();
                poller.wait(Some(Duration::from_millis(2)), &mut ready);
                assert!(ready.is_empty() && began.elapsed() >= Duration::from_millis(2));
                here.write_all(b"x").unwrap();
                for _ in 0..2 {
                    // As long as it is not read, it is reported.
                    poller.wait(None, &mut ready);
                    assert_eq!(taken(&mut ready), [(7, true, false)]);
                }
                poller.change(there.as_fd(), 7, Interest::default()).unwrap();
                poller.wait(Some(Duration::from_millis(1)), &mut ready);
                assert!(ready.is_empty(), "nobody is interested");
                poller.change(there.as_fd(), 7, Interest { read: false, write: true }).unwrap();
                poller.wait(None, &mut ready);
                assert_eq!(taken(&mut ready), [(7, false, false)]);
                there.read_exact(&mut [0]).unwrap();
                poller.change(there.as_fd(), 7, read).unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        thread::sleep(Duration::from_millis(5));
                        poller.notify();
                    });
                    poller.wait(None, &mut ready);
                });
                assert!(ready.is_empty(), "it was notified");
                drop(here);
                poller.wait(None, &mut ready);
                assert!(ready.drain(..).all(|it| it.token == 7 && it.readable && it.is_broken), "the end is readable");
                poller.change(there.as_fd(), 7, Interest::default()).unwrap();
                poller.wait(Some(Duration::from_millis(1)), &mut ready);
                assert!(ready.drain(..).all(|it| it.is_broken), "a broken socket is reported always");
                poller.remove(there.as_fd());
                poller.wait(Some(Duration::from_millis(1)), &mut ready);
                assert!(ready.is_empty(), "it is not watched");
            }
        };
    }

    #[test]
    fn ticks_come_until_they_are_stopped() {
        let poller = Poller::new().unwrap();
        let mut ready = Vec::new();
        for _ in 0..2 {
            let began = Instant::now();
            poller.start_ticks();
            let patience = Some(Duration::from_secs(5));
            assert!((0..5).all(|_| poller.wait(patience, &mut ready)), "nothing else ends a wait");
            assert!(began.elapsed() >= TICK_INTERVAL * 4);
            poller.stop_ticks();
            assert!(!poller.wait(Some(TICK_INTERVAL * 3), &mut ready));
        }
        assert!(ready.is_empty());
    }

    tests_of!(sockets_are_watched, Poller);
    tests_of!(sockets_are_watched_by_the_portable_poller, portable_poller::Poller);
}
