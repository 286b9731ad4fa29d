//! What the kernel knows of the other end of a socket that the broker does not read from at the moment.
//!
//! While a connection is not read, no byte of its client can show that it lives. Its TCP still acknowledges what the broker
//! sends, heartbeats among it, so a cable that was pulled does not look alive: what is sent stays unacknowledged.

use std::time::Duration;
use tokio::net::TcpStream;

/// How often a connection that is not read is looked at.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The other end, as far as its TCP shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// The client has closed its end, or reset the connection.
    pub(super) has_hung_up: bool,
    /// All that was sent is acknowledged, or an acknowledgement came within the last look.
    pub(super) acknowledges: bool,
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the kernel fills a structure of plain numbers")]
pub(super) fn peer(stream: &TcpStream) -> Peer {
    use std::os::fd::AsRawFd;

    /// States of RFC 9293, as Linux numbers them.
    const ESTABLISHED: u8 = 1;
    /// Window probes in a row that nobody answered.
    const PROBES_MAX: u8 = 3;

    // SAFETY: every bit pattern of this structure of numbers is a value, zeros too.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the socket is open, and the kernel writes at most `len` bytes.
    let status = unsafe {
        let to = (&raw mut info).cast();
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut len)
    };
    if status != 0 {
        return Peer { has_hung_up: true, acknowledges: false };
    }
    let is_recent = u128::from(info.tcpi_last_ack_recv) <= LOOK_INTERVAL.as_millis();
    let is_clear = info.tcpi_unacked == 0 && info.tcpi_probes < PROBES_MAX;
    Peer { has_hung_up: info.tcpi_state != ESTABLISHED, acknowledges: is_clear || is_recent }
}

/// Other systems are not asked: a peer counts as alive until writing to it fails.
#[cfg(not(target_os = "linux"))]
pub(super) fn peer(_: &TcpStream) -> Peer {
    Peer { has_hung_up: false, acknowledges: true }
}
