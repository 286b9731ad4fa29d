//! One batch on its way to its outcome, as a pure machine: committed, tried again, looked up, or given up for good.
//!
//! A refused batch takes in what was submitted since. Then its removals are committed ahead of the rest, under the batch's
//! number: removals need little space, and give some back.

use super::intake::BatchContents;
use crate::model::Monotonic;
use crate::store::error::behind;
use crate::store::{Batch, BatchNo, Cause, CommitOutcome, StoreError, chain};
use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// The first pause before a batch is tried again; doubled each time.
const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(10);

/// The longest pause.
pub(super) const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What to do next with a batch.
pub(super) enum Step<'b> {
    /// Commit this batch, then call [`BatchRun::committed`].
    Commit(&'b Batch),
    /// Reopen the store to learn whether it has this batch, then call [`BatchRun::looked_up`].
    LookUp {
        batch_no: BatchNo,
        /// Why the outcome is unknown.
        cause: &'b Cause,
        /// How long it has been unknown.
        unknown_for: Duration,
    },
    /// Wait until this moment, then call [`BatchRun::waited`].
    Wait(Monotonic),
    /// Let the batch take in what was submitted since, then call [`BatchRun::amended`].
    Amend,
    /// The batch has its outcome.
    Over,
}

/// What a step has to report.
#[derive(Debug)]
pub(super) enum Report {
    Nothing,
    /// The whole batch is durable.
    Durable {
        /// An earlier try of it has failed.
        after_failure: bool,
    },
    /// The batch is tried again.
    Retrying {
        failure: CommitFailure,
        /// This is the first failure of the batch.
        is_first: bool,
    },
    /// The store is given up for good.
    Failed(CommitFailure),
}

/// Why a batch is not durable yet, or never will be.
#[derive(Clone, Debug)]
pub(super) enum CommitFailure {
    /// The store's own error.
    Store(Cause),
    /// The outcome is unknown, and the store cannot be reopened to look it up.
    NotReopened {
        /// Why the outcome is unknown.
        cause: Cause,
        reopening: StoreError,
    },
    /// The outcome has been unknown for too long.
    GivenUp { after: Duration, last: Box<Self> },
    /// The writer was stopped before the next try.
    Stopped(Box<Self>),
    /// Another node owns the store now.
    Fenced,
}

impl Display for CommitFailure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(cause) => write!(f, "{cause}"),
            Self::NotReopened { cause, .. } => write!(f, "{}; reopening", chain(cause.as_source())),
            Self::GivenUp { after, .. } => write!(f, "given up after {:.1} s", after.as_secs_f64()),
            Self::Stopped(_) => f.write_str("stopped while a commit kept failing"),
            Self::Fenced => f.write_str("another home owns the store"),
        }
    }
}

impl Error for CommitFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(cause) => behind(cause.as_source()),
            Self::NotReopened { reopening, .. } => Some(reopening),
            Self::GivenUp { last, .. } | Self::Stopped(last) => Some(&**last),
            Self::Fenced => None,
        }
    }
}

/// What to do after a pause.
#[derive(Debug)]
enum Retry {
    /// Commit the same batch again.
    Same,
    /// The store has stored nothing of the batch: it takes in what was submitted since.
    Amended,
    /// The store may have the batch and could not be reopened: look it up again. Until then the batch must not change. With
    /// the reason why its outcome is unknown.
    LookUp(Cause),
}

#[derive(Debug)]
enum Phase {
    Try,
    /// The outcome is unknown for this reason.
    LookUp(Cause),
    Pause {
        until: Monotonic,
        then: Retry,
        failure: CommitFailure,
    },
    Amend,
    Over {
        is_durable: bool,
    },
}

/// Removals that are committed ahead of their batch.
struct EarlyRemovals {
    removals: Batch,
    /// The batch with its removals, for a store that refuses even these.
    whole: Batch,
}

/// A batch and its progress.
pub(super) struct BatchRun<S, C> {
    contents: BatchContents<S, C>,
    give_up_after: Duration,
    phase: Phase,
    pause: Duration,
    /// Since when the outcome is unknown.
    unknown_since: Option<Monotonic>,
    has_failed: bool,
    ahead: Option<EarlyRemovals>,
}

impl<S, C> BatchRun<S, C> {
    pub(super) fn new(contents: BatchContents<S, C>, give_up_after: Duration) -> Self {
        let phase = if contents.batch.is_some() { Phase::Try } else { Phase::Over { is_durable: true } };
        let pause = RETRY_PAUSE_FIRST;
        Self { contents, give_up_after, phase, pause, unknown_since: None, has_failed: false, ahead: None }
    }

    pub(super) fn contents(&self) -> &BatchContents<S, C> {
        &self.contents
    }

    pub(super) fn contents_mut(&mut self) -> &mut BatchContents<S, C> {
        &mut self.contents
    }

    /// The number of the batch. It is the next one if removals were committed ahead.
    pub(super) fn batch_no(&self) -> Option<BatchNo> {
        self.contents.batch.as_ref().map(|batch| batch.batch_no)
    }

    /// The contents, and whether they are durable. Call it once the run is over.
    pub(super) fn into_outcome(self) -> (BatchContents<S, C>, bool) {
        let is_durable = matches!(self.phase, Phase::Over { is_durable: true });
        (self.contents, is_durable)
    }

    /// What to do now.
    pub(super) fn step(&self, now: Monotonic) -> Step<'_> {
        match &self.phase {
            Phase::Try => Step::Commit(self.batch()),
            Phase::LookUp(cause) => {
                Step::LookUp { batch_no: self.batch().batch_no, cause, unknown_for: self.unknown_for(now) }
            }
            Phase::Pause { until, .. } => Step::Wait(*until),
            Phase::Amend => Step::Amend,
            Phase::Over { .. } => Step::Over,
        }
    }

    fn unknown_for(&self, now: Monotonic) -> Duration {
        self.unknown_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// The batch to commit next: removals ahead of their batch, or the batch.
    fn batch(&self) -> &Batch {
        let batch = self.ahead.as_ref().map(|ahead| &ahead.removals).or(self.contents.batch.as_ref());
        batch.expect("barriers alone are over at once")
    }

    /// The store was asked to commit at `began`.
    pub(super) fn committed(&mut self, outcome: CommitOutcome, began: Monotonic, now: Monotonic) -> Report {
        match outcome {
            CommitOutcome::Committed => self.durable(),
            CommitOutcome::NotCommitted(cause) => {
                if let Some(EarlyRemovals { whole, .. }) = self.ahead.take() {
                    // Even the removals are refused: the batch is tried as a whole.
                    self.contents.batch = Some(whole);
                    self.phase = Phase::Try;
                    return Report::Nothing;
                }
                self.try_again(CommitFailure::Store(cause), Retry::Amended, now)
            }
            CommitOutcome::Unknown(cause) => {
                self.unknown_since.get_or_insert(began);
                self.phase = Phase::LookUp(cause);
                Report::Nothing
            }
            CommitOutcome::Fenced => self.end(CommitFailure::Fenced),
            CommitOutcome::Fatal(cause) => self.fail(cause),
        }
    }

    /// The store was reopened; `found` is its last batch.
    pub(super) fn looked_up(&mut self, found: Result<BatchNo, StoreError>, now: Monotonic) -> Report {
        let Phase::LookUp(cause) = std::mem::replace(&mut self.phase, Phase::Try) else {
            unreachable!("only an unknown outcome is looked up")
        };
        let (failure, then) = match found {
            Ok(last) if last >= self.batch().batch_no => return self.durable(),
            Ok(_) => (CommitFailure::Store(cause), Retry::Same),
            Err(reopening) => (CommitFailure::NotReopened { cause: cause.clone(), reopening }, Retry::LookUp(cause)),
        };
        let after = self.unknown_for(now);
        if after >= self.give_up_after {
            return self.end(CommitFailure::GivenUp { after, last: Box::new(failure) });
        }
        self.try_again(failure, then, now)
    }

    fn durable(&mut self) -> Report {
        if self.ahead.take().is_some() {
            // The rest of the batch has the next number.
            (self.phase, self.unknown_since) = (Phase::Try, None);
            return Report::Nothing;
        }
        self.phase = Phase::Over { is_durable: true };
        Report::Durable { after_failure: self.has_failed }
    }

    fn try_again(&mut self, failure: CommitFailure, then: Retry, now: Monotonic) -> Report {
        let is_first = !std::mem::replace(&mut self.has_failed, true);
        self.phase = Phase::Pause { until: now.plus(self.pause), then, failure: failure.clone() };
        self.pause = (self.pause * 2).min(RETRY_PAUSE_MAX);
        Report::Retrying { failure, is_first }
    }

    /// The pause is over.
    pub(super) fn waited(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Try) {
            Phase::Pause { then: Retry::Amended, .. } => Phase::Amend,
            Phase::Pause { then: Retry::LookUp(cause), .. } => Phase::LookUp(cause),
            _ => Phase::Try,
        };
    }

    /// The batch has taken in what was submitted since.
    pub(super) fn amended(&mut self) {
        self.phase = Phase::Try;
        let BatchContents { batch: Some(batch), bound, .. } = &mut self.contents else { return };
        let whole = batch.clone();
        self.ahead = batch.split_removals(bound).map(|removals| EarlyRemovals { removals, whole });
    }

    /// The writer stops: a batch that waits for its next try has failed.
    pub(super) fn stop(&mut self) -> Report {
        match &self.phase {
            Phase::Pause { failure, .. } => self.end(CommitFailure::Stopped(Box::new(failure.clone()))),
            _ => Report::Nothing,
        }
    }

    /// The store cannot go on.
    pub(super) fn fail(&mut self, cause: Cause) -> Report {
        self.end(CommitFailure::Store(cause))
    }

    fn end(&mut self, failure: CommitFailure) -> Report {
        self.phase = Phase::Over { is_durable: false };
        Report::Failed(failure)
    }
}
