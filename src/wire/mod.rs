//! AMQP 0-9-1 as bytes: frames, methods, properties and field tables, read in place and written by appending.
//!
//! The meaning and the order of methods are the session's concern. Every reader borrows from its input, refuses malformed
//! input and never recurses deeper than [`table::DEPTH_MAX`].

pub mod content_header;
pub(crate) mod erlang;
pub mod expiration;
pub mod frame;
pub mod method;
pub mod properties;
pub mod protocol_header;
pub mod reader;
pub mod table;
pub mod writer;
