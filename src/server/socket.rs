//! What the kernel knows of the other end of a socket that the broker does not read from at the moment.
//!
//! While a connection is not read, no byte of its client can show that it lives. Its TCP still acknowledges what the broker
//! sends, heartbeats among it, so a cable that was pulled does not look alive: what is sent stays unacknowledged.

use std::time::Duration;
use tokio::net::TcpStream;

/// How often a connection that is not read is looked at, beside its heartbeats.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The other end, as far as its TCP shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// The client has closed its end, or reset the connection.
    pub(super) has_hung_up: bool,
    /// For how long its TCP has not shown that it is there.
    pub(super) silence: Duration,
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the kernel fills a structure of plain numbers")]
pub(super) fn peer(stream: &TcpStream) -> Peer {
    use std::mem::offset_of;
    use std::os::fd::AsRawFd;

    /// States of RFC 9293, as Linux numbers them.
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
        return Peer { has_hung_up: true, silence: Duration::MAX };
    }
    // While the client's window is closed the kernel probes it, and less and less often: until it does, nothing is owed. Where
    // nothing waits to be sent, heartbeats are acknowledged. Linux counts what waits since 4.6.
    let counts_unsent = len as usize > offset_of!(libc::tcp_info, tcpi_notsent_bytes);
    let is_probed = info.tcpi_notsent_bytes > 0 || !counts_unsent;
    let owes_nothing = is_probed && info.tcpi_unacked == 0 && info.tcpi_probes == 0;
    let since_ack = Duration::from_millis(info.tcpi_last_ack_recv.into());
    Peer { has_hung_up: info.tcpi_state != ESTABLISHED, silence: if owes_nothing { Duration::ZERO } else { since_ack } }
}

/// Other systems are not asked: a peer counts as alive until writing to it fails.
#[cfg(not(target_os = "linux"))]
pub(super) fn peer(_: &TcpStream) -> Peer {
    Peer { has_hung_up: false, silence: Duration::ZERO }
}
