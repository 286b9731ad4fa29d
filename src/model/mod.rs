//! The nouns that the machines and drivers exchange: immutable, cheap to clone, without behaviour of their own.

pub mod message;
