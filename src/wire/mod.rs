//! AMQP 0-9-1 as bytes: frames, methods, properties and field tables, read in place and written by appending.
//!
//! Nothing here knows what a method means or which one may come next; that is the session's. Every reader borrows from
//! its input, refuses what is malformed and never recurses deeper than [`table::DEPTH_MAX`].

pub mod content_header;
pub(crate) mod erlang;
pub mod frame;
pub mod method;
pub mod properties;
pub mod protocol_header;
pub mod reader;
pub mod table;
pub mod writer;
