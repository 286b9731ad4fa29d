//! The bytes of one client: the one place that reads from a socket and writes to one.

use super::socket::{self, Peer};
use std::io;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// How a client's bytes travel.
#[derive(Debug)]
pub(super) enum Transport {
    /// As they are, over TCP.
    Plain(TcpStream),
}

impl Transport {
    /// Whether there may be something to read; otherwise the task is woken when there is.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Whether something may be written; otherwise the task is woken when it may.
    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Reads what has arrived, as far as the buffer takes it; 0 if the client has closed its end.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has arrived; otherwise the connection is of no use any more.
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => try_read_tcp(stream, buffer),
        }
    }

    /// Writes as much as the socket takes; returns how much that was.
    ///
    /// # Errors
    /// `WouldBlock` if the socket takes nothing; otherwise the connection is of no use any more.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
        }
    }

    /// What the kernel knows of the client's end.
    pub(super) fn peer(&self) -> Peer {
        match self {
            Self::Plain(stream) => socket::peer(stream),
        }
    }
}

/// A read that does not fill the buffer has emptied the socket: noting that spares the read that would only find it empty.
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
