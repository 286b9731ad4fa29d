//! Replaces `poller` on systems without epoll: the same with `poll`, whose time grows with the number of sockets.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::{Errno, ioctl_fionbio};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::readiness::{ERROR_PAUSE, Readiness};
pub(super) use crate::server::transport::Interest;

#[derive(Debug)]
struct Watched {
    /// A descriptor of its own, so that it is open while it is watched.
    socket: OwnedFd,
    token: u64,
    interest: Interest,
}

/// Watches sockets, as long as they are ready.
#[derive(Debug)]
pub(super) struct Poller {
    /// By the descriptor of the caller.
    watched: Mutex<BTreeMap<RawFd, Watched>>,
    notified: OwnedFd,
    notifies: OwnedFd,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let (notified, notifies) = rustix::pipe::pipe()?;
        ioctl_fionbio(&notified, true)?;
        ioctl_fionbio(&notifies, true)?;
        Ok(Self { watched: Mutex::default(), notified, notifies })
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<RawFd, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, socket: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let watched = Watched { socket: rustix::io::dup(socket)?, token, interest };
        self.watched().insert(socket.as_raw_fd(), watched);
        Ok(())
    }

    pub(super) fn change(&self, socket: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        match self.watched().get_mut(&socket.as_raw_fd()) {
            Some(watched) => {
                (watched.token, watched.interest) = (token, interest);
                Ok(())
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Stops watching.
    pub(super) fn remove(&self, socket: BorrowedFd<'_>) {
        self.watched().remove(&socket.as_raw_fd());
    }

    /// Whether sockets can gather input.
    pub(super) const CAN_GATHER: bool = false;

    #[expect(clippy::unused_self, reason = "as the other poller")]
    pub(super) fn gather(&self, _: BorrowedFd<'_>, _: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[expect(clippy::unused_self, reason = "as the other poller")]
    pub(super) fn start_ticks(&self) {}

    #[expect(clippy::unused_self, reason = "as the other poller")]
    pub(super) fn stop_ticks(&self) {}

    /// Waits until a socket is ready, until `notify`, or for the time; adds the ready sockets to `ready`. Only the
    /// thread that adds and removes sockets may wait. Returns false: there are no ticks.
    pub(super) fn wait(&self, timeout: Option<Duration>, ready: &mut Vec<Readiness>) -> bool {
        let watched = self.watched();
        let all: Vec<&Watched> = watched.values().filter(|watched| watched.interest != Interest::default()).collect();
        let mut sockets = vec![PollFd::new(&self.notified, PollFlags::IN)];
        for Watched { socket, interest, .. } in &all {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, interest.read);
            flags.set(PollFlags::OUT, interest.write);
            sockets.push(PollFd::new(socket, flags));
        }
        let timeout =
            timeout.map(|time| Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() });
        match poll(&mut sockets, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "waiting for sockets failed");
                std::thread::sleep(ERROR_PAUSE);
            }
        }
        let mut buffer = [0; 64];
        if !sockets[0].revents().is_empty() {
            while rustix::io::read(&self.notified, &mut buffer).is_ok_and(|len| len == buffer.len()) {}
        }
        for (socket, watched) in sockets[1..].iter().zip(all) {
            let events = socket.revents();
            if !events.is_empty() {
                let is_broken = events.intersects(PollFlags::ERR | PollFlags::HUP);
                let readable = is_broken || events.contains(PollFlags::IN);
                ready.push(Readiness { token: watched.token, readable, is_broken });
            }
        }
        false
    }

    /// Ends the wait of another thread, or the next one.
    pub(super) fn notify(&self) {
        let _ = rustix::io::write(&self.notifies, &[1]);
    }
}
