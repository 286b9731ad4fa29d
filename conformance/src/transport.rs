//! What a conversation needs of the world: a way to connect, to send, to hear, and a clock.
//!
//! [`Tcp`] is the real one. A test that drives a protocol machine in memory brings its own and
//! answers `receive` by moving its clock.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// What was heard within the time allowed.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Some bytes, at least one.
    Bytes(Vec<u8>),
    /// Nothing.
    Nothing,
    /// The other side has closed; it stays closed.
    Closed,
}

/// One connection.
pub trait Transport {
    /// Sends all of `bytes`. A peer that has gone is not an error here: [`Transport::receive`]
    /// says so.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Waits for bytes, at most for `limit`.
    fn receive(&mut self, limit: Duration) -> io::Result<Heard>;
    /// Gives the connection up without a word.
    fn drop_now(&mut self);
}

/// A broker that one can connect to.
pub trait Dialer {
    /// Its connections.
    type Link: Transport;
    /// A new connection on which nothing has been said.
    fn dial(&self) -> io::Result<Self::Link>;
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    /// Lets time go by.
    fn pause(&self, time: Duration);
}

/// Connects over TCP.
#[derive(Debug)]
pub struct Tcp {
    address: String,
    started: Instant,
}

impl Tcp {
    /// `address` is `host:port`.
    pub fn new(address: String) -> Self {
        Self { address, started: Instant::now() }
    }
}

impl Dialer for Tcp {
    type Link = TcpStream;

    fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(stream)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

fn peer_has_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

impl Transport for TcpStream {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.write_all(bytes) {
            Err(error) if !peer_has_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn receive(&mut self, limit: Duration) -> io::Result<Heard> {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        // A read timeout of zero means none to the operating system.
        self.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        let mut bytes = vec![0; 64 * 1024];
        match self.read(&mut bytes) {
            Ok(0) => Ok(Heard::Closed),
            Ok(count) => {
                bytes.truncate(count);
                Ok(Heard::Bytes(bytes))
            }
            Err(error) if peer_has_gone(&error) => Ok(Heard::Closed),
            Err(error) if matches!(error.kind(), Interrupted | TimedOut | WouldBlock) => Ok(Heard::Nothing),
            Err(error) => Err(error),
        }
    }

    fn drop_now(&mut self) {
        // A socket that is closed already cannot be closed further.
        let _ = self.shutdown(Shutdown::Both);
    }
}
