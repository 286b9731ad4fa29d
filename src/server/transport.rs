//! The bytes of one client. No other file reads from a client's socket or writes to it.

use super::socket::{self, PeerState};
use std::io;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// How a client's bytes travel.
#[derive(Debug)]
pub(super) enum Transport {
    /// Unencrypted, over TCP.
    Plain(TcpStream),
}

impl Transport {
    /// Whether the socket may be readable; if not, the task is woken once it is.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Whether the socket may be writable; if not, the task is woken once it is.
    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Reads into the buffer. Returns the number of bytes; 0 if the client has closed its end.
    ///
    /// # Errors
    /// `WouldBlock` if no bytes have arrived. Any other error means that the connection is broken.
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => try_read_tcp(stream, buffer),
        }
    }

    /// Writes as much as the socket takes. Returns the number of bytes.
    ///
    /// # Errors
    /// `WouldBlock` if the socket takes nothing. Any other error means that the connection is broken.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
        }
    }

    /// The state of the client's TCP, as the kernel knows it.
    pub(super) fn peer(&self) -> PeerState {
        match self {
            Self::Plain(stream) => socket::peer(stream),
        }
    }
}

/// Reads from TCP. A read that does not fill the buffer has emptied the socket: reporting `WouldBlock` to tokio then
/// saves the next read, which would find no bytes.
fn try_read_tcp(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    let read = stream.try_io(Interest::READABLE, || {
        len = rustix::io::retry_on_intr(|| rustix::io::read(stream, &mut *buffer))?;
        if len > 0 && len < buffer.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match read {
        Err(error) if len == 0 => Err(error),
        _ => Ok(len),
    }
}
