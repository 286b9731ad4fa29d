//! The bytes of one client. No other file reads from a client's socket or writes to it.

use super::socket::{self, PeerState};
use std::io;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

/// For what a socket is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) read: bool,
    pub(super) write: bool,
}

/// How a client's bytes travel.
#[derive(Debug)]
pub(super) enum Transport {
    /// Unencrypted, over TCP.
    Plain(TcpStream),
}

impl Transport {
    /// The socket, to be watched.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(stream) => stream.as_fd(),
        }
    }

    /// Reads into the buffer. Returns the number of bytes; 0 if the client has closed its end.
    ///
    /// # Errors
    /// `WouldBlock` if no bytes have arrived. Any other error means that the connection is broken.
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
        }
    }

    /// Writes as much as the socket takes. Returns the number of bytes.
    ///
    /// # Errors
    /// `WouldBlock` if the socket takes nothing. Any other error means that the connection is broken.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
        }
    }

    /// The state of the client's TCP, as the kernel knows it.
    pub(super) fn peer(&self) -> PeerState {
        match self {
            Self::Plain(stream) => socket::peer(stream),
        }
    }
}
