//! Local parameters of a replica: how many threads run handlers, and how many handlers run ahead of the scheduler.
//!
//! Each replica has its own; they can be changed at any time and never change a result.

use serde::{Deserialize, Serialize};

/// More threads than a large machine has cores help nobody.
const WORKERS_MAX: usize = 1_024;

/// Each handler that runs ahead holds what it has computed until it is primary.
const START_AHEAD_MAX: usize = 1 << 16;

/// Local parameters to be set; what is `None` stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Threads that run handlers; 0: the event loop runs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// How many handlers may compute before they are primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ahead: Option<usize>,
}

/// Why local parameters cannot be had. Says what can.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TuningError {
    /// Not NAME=NUMBER of a known name.
    #[error("{0:?} names no local parameter: write workers=NUMBER or start-ahead=NUMBER")]
    Word(String),
    /// The same again.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// Too many threads.
    #[error("workers: at most {WORKERS_MAX} threads")]
    Workers,
    /// Too many running ahead.
    #[error("start-ahead: at most {START_AHEAD_MAX} handlers")]
    StartAhead,
}

impl Tuning {
    /// What the words set.
    ///
    /// # Errors
    /// [`TuningError`], which says what may be written.
    pub fn of_words<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Result<Self, TuningError> {
        let mut tuning = Self::default();
        for word in words {
            let word = word.as_ref();
            let unknown = || TuningError::Word(word.into());
            let (name, value) = word.split_once('=').ok_or_else(unknown)?;
            let (place, name) = match name {
                "workers" => (&mut tuning.workers, "workers"),
                "start-ahead" => (&mut tuning.start_ahead, "start-ahead"),
                _ => return Err(unknown()),
            };
            if place.replace(value.parse().map_err(|_| unknown())?).is_some() {
                return Err(TuningError::Twice(name));
            }
        }
        tuning.check()
    }

    /// Itself, if within bounds.
    ///
    /// # Errors
    /// [`TuningError::Workers`], [`TuningError::StartAhead`].
    pub fn check(self) -> Result<Self, TuningError> {
        if self.workers.is_some_and(|workers| workers > WORKERS_MAX) {
            return Err(TuningError::Workers);
        }
        if self.start_ahead.is_some_and(|start_ahead| start_ahead > START_AHEAD_MAX) {
            return Err(TuningError::StartAhead);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_set_what_they_name() {
        let expected = Tuning { workers: Some(2), start_ahead: Some(128) };
        assert_eq!(Tuning::of_words(["workers=2", "start-ahead=128"]), Ok(expected));
        assert_eq!(Tuning::of_words(["start-ahead=0"]), Ok(Tuning { start_ahead: Some(0), ..Tuning::default() }));
    }

    #[test]
    fn words_that_set_nothing_or_too_much_are_refused() {
        for word in ["workers", "workers=", "workers=-1", "threads=2", "=2"] {
            let error = Tuning::of_words([word]).unwrap_err();
            assert!(error.to_string().contains("workers=NUMBER"), "{word}: {error}");
        }
        assert_eq!(Tuning::of_words(["workers=1", "workers=1"]), Err(TuningError::Twice("workers")));
        assert_eq!(Tuning::of_words(["workers=1025"]), Err(TuningError::Workers));
        assert_eq!(Tuning::of_words(["start-ahead=65537"]), Err(TuningError::StartAhead));
    }
}
