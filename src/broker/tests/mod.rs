//! Tests of the whole broker without sessions: links on several threads, and a store in memory.

mod ending;
mod histories;
mod mortal_store;
