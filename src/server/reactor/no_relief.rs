//! Replaces `relief` on systems without timerfd: it never starts, so no loop commits.

use std::convert::Infallible;
use std::marker::PhantomData;

#[derive(Debug)]
pub(super) struct Relief(Infallible);
pub(super) struct Timed<'a>(Infallible, PhantomData<&'a ()>);

impl Relief {
    pub(super) fn start(_: impl Fn() -> bool + Send + 'static) -> Option<Self> {
        None
    }

    pub(super) fn begin(&self) -> Timed<'_> {
        match self.0 {}
    }

    pub(super) fn end(&self) {
        match self.0 {}
    }
}
