//! Where there is no timer such as `timer` needs.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::Duration;
use tokio::runtime::Handle;

pub(super) struct CommitTimer(Infallible);
pub(super) struct Timed<'a>(Infallible, PhantomData<&'a ()>);

impl CommitTimer {
    pub(super) fn start(_: Handle) -> Option<Self> {
        None
    }

    pub(super) fn begin(&self, _: Duration) -> Timed<'_> {
        match self.0 {}
    }
}
