//! Tests of the broker as a whole, without sessions: links on threads, over a store in memory.

mod ending;
mod histories;
mod mortal_store;
