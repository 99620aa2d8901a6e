//! A change of the schedule's global parameters, as ordered data.
//!
//! Its bounds are part of what is valid: a change beyond them is refused wherever it comes from, so no ordered entry can
//! make a round cost more than the constants here say.

use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};

/// Turns in an explicit order: a round costs as many steps as it is long.
const EXPLICIT_MAX: usize = 4_096;

/// Rules by class: each selection of a thread looks through them.
const CLASSES_MAX: usize = 256;

/// Short rounds per Flush: beyond it, new requests would wait longer than anybody can want.
const FLUSH_ROUNDS_MAX: u32 = 1 << 16;

/// A partial change of the global parameters of the schedule: what is `None` stays. What they mean, the scheduler says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct ScheduleChange {
    /// Threads that are primary at once.
    pub primaries: Option<u32>,
    /// Steps of each in a round; `u32::MAX`: unlimited.
    pub steps: Option<u32>,
    /// Who takes the next step.
    pub order: Option<ScheduleOrder>,
    /// Short rounds per Flush.
    pub flush_rounds: Option<u32>,
    /// Who may be primary.
    pub predicate: Option<SchedulePredicate>,
}

/// In which order the primaries of a round take their steps.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub enum ScheduleOrder {
    /// In turns of one step.
    RoundRobin,
    /// In turns of so many steps.
    Quantum(u32),
    /// By this vector of slots.
    Explicit(Vec<u16>),
}

/// Who may be primary.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub enum SchedulePredicate {
    /// Everybody.
    All,
    /// By class of request.
    Classes(Vec<ScheduleClass>),
    /// Who wants no lock that an elder thread may still want.
    FutureLocks,
}

/// In which rounds threads of a class may be primary: those whose number leaves `phase` when divided by `every`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct ScheduleClass {
    /// Of whom.
    pub class: u16,
    /// Every so many rounds.
    pub every: u32,
    /// Which of them.
    pub phase: u32,
}

/// Why a change is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScheduleError {
    /// It names no parameter.
    #[error("nothing is to be changed")]
    Empty,
    /// No primary, no step, no short round, an empty turn.
    #[error("numbers of primaries, steps, short rounds and turns begin at 1")]
    Zero,
    /// More short rounds than allowed.
    #[error("at most {FLUSH_ROUNDS_MAX} short rounds per Flush")]
    FlushRounds,
    /// An explicit order of no turn, or of too many.
    #[error("an explicit order has 1 to {EXPLICIT_MAX} turns")]
    Explicit,
    /// No rule by class, or too many.
    #[error("a predicate by classes has 1 to {CLASSES_MAX} rules")]
    Classes,
}

impl ScheduleChange {
    /// Whether every number in it is within its bounds, and at least one parameter is named.
    ///
    /// # Errors
    /// The first reason found.
    pub fn check(&self) -> Result<(), ScheduleError> {
        if *self == Self::default() {
            return Err(ScheduleError::Empty);
        }
        let numbers = [self.primaries, self.steps, self.flush_rounds];
        if numbers.contains(&Some(0)) || self.order == Some(ScheduleOrder::Quantum(0)) {
            return Err(ScheduleError::Zero);
        }
        if self.flush_rounds.is_some_and(|rounds| rounds > FLUSH_ROUNDS_MAX) {
            return Err(ScheduleError::FlushRounds);
        }
        match &self.order {
            Some(ScheduleOrder::Explicit(slots)) if slots.is_empty() || slots.len() > EXPLICIT_MAX => {
                return Err(ScheduleError::Explicit);
            }
            _ => {}
        }
        match &self.predicate {
            Some(SchedulePredicate::Classes(rules)) if rules.is_empty() || rules.len() > CLASSES_MAX => {
                Err(ScheduleError::Classes)
            }
            Some(SchedulePredicate::Classes(rules)) if rules.iter().any(|rule| rule.every == 0) => {
                Err(ScheduleError::Zero)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_change_within_its_bounds_passes_and_each_bound_holds() {
        let change = |set: fn(&mut ScheduleChange)| {
            let mut change = ScheduleChange { primaries: Some(64), ..ScheduleChange::default() };
            set(&mut change);
            change.check()
        };
        let rule = ScheduleClass { class: 1, every: 2, phase: 0 };
        assert_eq!(change(|_| ()), Ok(()));
        assert_eq!(change(|c| c.order = Some(ScheduleOrder::Explicit(vec![0; EXPLICIT_MAX]))), Ok(()));
        assert_eq!(change(|c| c.primaries = None), Err(ScheduleError::Empty));
        assert_eq!(change(|c| c.steps = Some(0)), Err(ScheduleError::Zero));
        assert_eq!(change(|c| c.order = Some(ScheduleOrder::Quantum(0))), Err(ScheduleError::Zero));
        assert_eq!(change(|c| c.flush_rounds = Some(FLUSH_ROUNDS_MAX + 1)), Err(ScheduleError::FlushRounds));
        assert_eq!(change(|c| c.order = Some(ScheduleOrder::Explicit(vec![]))), Err(ScheduleError::Explicit));
        for rules in [vec![], vec![rule; CLASSES_MAX + 1]] {
            let change =
                ScheduleChange { predicate: Some(SchedulePredicate::Classes(rules)), ..ScheduleChange::default() };
            assert_eq!(change.check(), Err(ScheduleError::Classes));
        }
        let never = SchedulePredicate::Classes(vec![ScheduleClass { every: 0, ..rule }]);
        let change = ScheduleChange { predicate: Some(never), ..ScheduleChange::default() };
        assert_eq!(change.check(), Err(ScheduleError::Zero));
    }
}
