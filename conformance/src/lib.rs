//! The conformance suite: golden dialogues between AMQP 0-9-1 clients and a broker, and the engine
//! that carries them out against any broker one can connect to.
//!
//! From the bottom up: [`spec`] is the table of methods, [`value`] and [`frame`] the codec made from
//! it, [`transport`] the world, [`link`] one connection, [`expression`] and [`dialogue`] the language
//! of the dialogue files, [`matching`] and [`confirms`] what an arrival is worth, [`handshake`] what
//! `connect` says, [`conversation`] the engine, [`suite`] the folder of files, [`record`] what a broker
//! answered. The language is described in `dialogues/README.md`.

pub mod confirms;
pub mod conversation;
pub mod dialogue;
pub mod expression;
pub mod frame;
pub mod handshake;
pub mod link;
pub mod matching;
pub mod record;
pub mod spec;
pub mod suite;
pub mod transport;
pub mod value;
