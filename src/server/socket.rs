//! The kernel's view of a client whose socket the broker does not read at the moment.
//!
//! While a socket is not read, received bytes cannot show that the client is alive. But the client's TCP still
//! acknowledges everything that the broker sends, including heartbeats. If the cable was pulled, sent bytes stay
//! unacknowledged.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// How often the client's TCP is checked while its connection is not read, in addition to each heartbeat.
pub(super) const PEER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the client's TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerState {
    /// Whether the client has closed its end or reset the connection.
    pub(super) has_hung_up: bool,
    /// How long the client's TCP has not shown a sign of life.
    pub(super) silence: Duration,
}

/// From now on the socket counts as readable once so many bytes have come, or its end.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the crate for system calls does not have this option")]
pub(super) fn gather(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the socket is open, and the kernel reads `len` bytes.
    let status = unsafe {
        let from = (&raw const bytes).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, from, len)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the kernel fills a structure of plain numbers")]
pub(super) fn peer(stream: &TcpStream) -> PeerState {
    use std::mem::offset_of;

    /// A TCP state of RFC 9293, as Linux numbers it.
    const ESTABLISHED: u8 = 1;

    // SAFETY: every bit pattern of this structure of numbers is a value, zeros too.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the socket is open, and the kernel writes at most `len` bytes.
    let status = unsafe {
        let to = (&raw mut info).cast();
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut len)
    };
    if status != 0 {
        return PeerState { has_hung_up: true, silence: Duration::MAX };
    }
    // While the client's receive window is closed, the kernel probes it, at growing intervals: between two probes the
    // client owes no acknowledgement. If nothing waits to be sent, heartbeats are acknowledged. Linux reports unsent
    // bytes since 4.6.
    let counts_unsent = len as usize > offset_of!(libc::tcp_info, tcpi_notsent_bytes);
    let is_probed = info.tcpi_notsent_bytes > 0 || !counts_unsent;
    let owes_nothing = is_probed && info.tcpi_unacked == 0 && info.tcpi_probes == 0;
    let since_ack = Duration::from_millis(info.tcpi_last_ack_recv.into());
    PeerState {
        has_hung_up: info.tcpi_state != ESTABLISHED,
        silence: if owes_nothing { Duration::ZERO } else { since_ack },
    }
}

/// On other systems a client counts as alive until writing to its socket fails.
#[cfg(not(target_os = "linux"))]
pub(super) fn peer(_: &TcpStream) -> PeerState {
    PeerState { has_hung_up: false, silence: Duration::ZERO }
}
