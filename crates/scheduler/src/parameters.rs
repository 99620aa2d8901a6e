//! The global parameters of a schedule and their changes. They are agreed: no local circumstance decides them.

use alloc::vec::Vec;

/// Global parameters: they change only at a round boundary, through an ordered entry or a handler.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Parameters {
    /// n: primaries per round.
    pub primaries: u32,
    /// s: steps per primary and round; `u32::MAX` = unlimited.
    pub steps: u32,
    /// Who may take the next step.
    pub order: Order,
    /// k: short rounds per Flush.
    pub flush_rounds: u32,
    /// Who may be a primary.
    pub predicate: Predicate,
}

/// In which order the slots of a round take their steps. Every slot occurs in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    /// 0 1 2 ... 0 1 2 ...
    RoundRobin,
    /// q steps of slot 0, q of slot 1, ...
    Quantum(u32),
    /// This vector of slots, its first 65 536 places; slots missing in it take their steps behind it.
    Explicit(Vec<u16>),
}

/// Who may be a primary: a function of log data and the round.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Predicate {
    /// Everybody.
    All,
    /// By class; a class without a rule in every round. Of several rules for one class the first holds.
    Classes(Vec<ClassRule>),
    /// Who wants no lock that an elder thread may still want.
    FutureLocks,
}

/// In which rounds threads of a class may be primaries: in those whose number leaves `phase` when divided by `every`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClassRule {
    /// Of whom.
    pub class: u16,
    /// Every so many rounds; 0 counts as 1.
    pub every: u32,
    /// Which of them; counted modulo `every`.
    pub phase: u32,
}

/// A partial change of the global parameters: what is `None` stays.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Change {
    /// n.
    pub primaries: Option<u32>,
    /// s.
    pub steps: Option<u32>,
    /// Who may take the next step.
    pub order: Option<Order>,
    /// k.
    pub flush_rounds: Option<u32>,
    /// Who may be a primary.
    pub predicate: Option<Predicate>,
}

/// Places of an explicit order: more than there are slots to name. What is behind is cut off, whoever asked for it.
const PLACES_MAX: usize = 1 << 16;

impl Change {
    /// Both, one after the other: what the later one sets it wins.
    pub(crate) fn then(&mut self, later: Change) {
        let Change { primaries, steps, order, flush_rounds, predicate } = later;
        self.primaries = primaries.or(self.primaries);
        self.steps = steps.or(self.steps);
        self.order = order.or(self.order.take());
        if let Some(Order::Explicit(places)) = &mut self.order {
            places.truncate(PLACES_MAX);
        }
        self.flush_rounds = flush_rounds.or(self.flush_rounds);
        self.predicate = predicate.or(self.predicate.take());
    }

    /// Whether anything is another than before.
    pub(crate) fn apply(self, parameters: &mut Parameters) -> bool {
        fn set<T: PartialEq>(place: &mut T, new: Option<T>) -> bool {
            let Some(new) = new.filter(|new| new != place) else { return false };
            *place = new;
            true
        }
        let Change { primaries, steps, order, flush_rounds, predicate } = self;
        set(&mut parameters.primaries, primaries)
            | set(&mut parameters.steps, steps)
            | set(&mut parameters.order, order)
            | set(&mut parameters.flush_rounds, flush_rounds)
            | set(&mut parameters.predicate, predicate)
    }
}

/// All of them.
impl From<Parameters> for Change {
    fn from(parameters: Parameters) -> Self {
        let Parameters { primaries, steps, order, flush_rounds, predicate } = parameters;
        Change {
            primaries: Some(primaries),
            steps: Some(steps),
            order: Some(order),
            flush_rounds: Some(flush_rounds),
            predicate: Some(predicate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let mut parameters = Parameters { primaries: 3, flush_rounds: 7, ..Parameters::uds() };
        let mut change = Change { primaries: Some(5), steps: Some(1), ..Change::default() };
        change.then(Change { primaries: Some(9), order: Some(Order::Quantum(2)), ..Change::default() });
        assert!(change.clone().apply(&mut parameters));
        let expected =
            Parameters { primaries: 9, steps: 1, order: Order::Quantum(2), flush_rounds: 7, ..Parameters::uds() };
        assert_eq!(parameters, expected);
        assert!(!change.apply(&mut parameters), "nothing new");
        assert!(!Change::default().apply(&mut parameters));
        assert!(Change::from(Parameters::uds()).apply(&mut parameters));
        assert_eq!(parameters, Parameters::uds());
    }

    #[test]
    fn an_order_has_a_longest_length() {
        let mut change = Change::default();
        change.then(Change { order: Some(Order::Explicit(alloc::vec![1; 100_000])), ..Change::default() });
        assert_eq!(change.order, Some(Order::Explicit(alloc::vec![1; PLACES_MAX])));
    }
}
