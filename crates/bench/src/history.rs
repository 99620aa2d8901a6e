//! What the clients of an experiment saw, and whether a correct store could have shown it to them.
//!
//! Each client repeats four operations, each with values that exist once:
//! * RPUSH to a list of its own: the answer is the list's length, and at the end the list is read back. An acknowledged
//!   token that is missing was lost, one that stands there twice was doubled.
//! * INCR of a counter that all share: an answer that was given twice, or that is not greater than every answer given
//!   before it was asked for, cannot come from one counter.
//! * SET and GET of registers that all share, checked with Wing and Gong's search (`unisono_sim::linear`), a register
//!   at a time. A register is used for [`OPERATIONS_PER_REGISTER`] operations, then the next: the search is
//!   exponential in how many overlap.
//!
//! An operation whose outcome its client never learnt may have taken effect at any time, once, or never.

use std::collections::{BTreeMap, BTreeSet};
use unisono_sim::linear::{self, Model, Verdict};

/// Operations on one register before the next one is taken.
pub(crate) const OPERATIONS_PER_REGISTER: u64 = 64;

/// One operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// Append `token` to the client's own list.
    Push { token: String },
    /// Add one to the shared counter.
    Increment,
    /// Write a register.
    Set { register: u64, value: String },
    /// Read a register.
    Get { register: u64 },
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answered {
    /// A length or a counter.
    Number(i64),
    /// A value, or that there is none.
    Value(Option<String>),
    /// OK.
    Done,
}

/// One operation of one client with its times in microseconds of one clock.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) client: usize,
    pub(crate) called: u64,
    pub(crate) asked: Asked,
    /// `None`: the client does not know.
    pub(crate) returned: Option<(u64, Answered)>,
}

/// What the lists hold at the end, by client, and the counter.
#[derive(Clone, Default, Debug)]
pub(crate) struct ReadBack {
    pub(crate) lists: Vec<Vec<String>>,
    pub(crate) counter: i64,
}

/// What is wrong.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Verdicts {
    /// Acknowledged and not there, or an answer from a state that lacked it.
    pub(crate) lost: u64,
    /// There more often than asked for.
    pub(crate) doubled: u64,
    /// The first few, in words.
    pub(crate) details: Vec<String>,
}

const DETAILS_MAX: usize = 10;

impl Verdicts {
    fn lose(&mut self, detail: String) {
        self.lost += 1;
        self.note(detail);
    }

    fn double(&mut self, detail: String) {
        self.doubled += 1;
        self.note(detail);
    }

    fn note(&mut self, detail: String) {
        if self.details.len() < DETAILS_MAX {
            self.details.push(detail);
        }
    }
}

/// Holds everything against everything.
pub(crate) fn check(events: &[Event], read_back: &ReadBack) -> Verdicts {
    let mut verdicts = Verdicts::default();
    for (client, list) in read_back.lists.iter().enumerate() {
        check_list(client, events, list, &mut verdicts);
    }
    check_counter(events, read_back.counter, &mut verdicts);
    check_registers(events, &mut verdicts);
    verdicts
}

fn check_list(client: usize, events: &[Event], list: &[String], verdicts: &mut Verdicts) {
    let mut places = BTreeMap::new();
    for (place, token) in (1i64..).zip(list) {
        if let Some(first) = places.get(token.as_str()) {
            verdicts.double(format!("client {client}: {token} stands in its list at {first} and at {place}"));
        } else {
            places.insert(token.as_str(), place);
        }
    }
    let mut asked = BTreeSet::new();
    for event in events.iter().filter(|event| event.client == client) {
        let Asked::Push { token } = &event.asked else { continue };
        asked.insert(token.as_str());
        let Some((_, answer)) = &event.returned else { continue };
        match (places.get(token.as_str()), answer) {
            (None, _) => verdicts.lose(format!("client {client}: {token} was acknowledged and is not in its list")),
            (Some(place), Answered::Number(length)) if place == length => {}
            (Some(place), answer) => {
                // One client, one operation at a time: the length it was told is where its token stands.
                verdicts.lose(format!("client {client}: {token} stands at {place}, but the answer was {answer:?}"));
            }
        }
    }
    for token in list.iter().filter(|token| !asked.contains(token.as_str())) {
        verdicts.double(format!("client {client}: {token} stands in its list and was never asked for"));
    }
}

fn check_counter(events: &[Event], counter: i64, verdicts: &mut Verdicts) {
    let increments: Vec<&Event> = events.iter().filter(|event| event.asked == Asked::Increment).collect();
    let mut answered: Vec<(u64, u64, i64)> = Vec::new();
    let mut seen = BTreeSet::new();
    for event in &increments {
        if let Some((returned, Answered::Number(value))) = event.returned {
            if !seen.insert(value) {
                verdicts.lose(format!("the counter answered {value} twice"));
            }
            answered.push((event.called, returned, value));
        }
    }
    let (acknowledged, asked) = (answered.len() as i64, increments.len() as i64);
    if counter < acknowledged {
        verdicts.lost += (acknowledged - counter).unsigned_abs();
        verdicts.note(format!("the counter is {counter} after {acknowledged} acknowledged increments"));
    }
    if counter > asked {
        verdicts.doubled += (counter - asked).unsigned_abs();
        verdicts.note(format!("the counter is {counter} after {asked} increments were asked for"));
    }
    // Every answer given before a call is smaller than the answer to that call.
    let mut by_return = answered.clone();
    by_return.sort_unstable_by_key(|(_, returned, _)| *returned);
    answered.sort_unstable_by_key(|(called, _, _)| *called);
    let mut returned_before = by_return.into_iter().peekable();
    let mut greatest = 0;
    for (called, _, value) in answered {
        while let Some((_, _, earlier)) = returned_before.next_if(|(_, returned, _)| *returned < called) {
            greatest = greatest.max(earlier);
        }
        if value <= greatest {
            verdicts.lose(format!("the counter answered {value} after it had answered {greatest}"));
        }
    }
}

/// One register for the search.
struct Register;

impl Model for Register {
    type State = Option<String>;
    type Input = Asked;
    type Output = Answered;

    fn step(state: &mut Self::State, input: &Asked) -> Answered {
        match input {
            Asked::Set { value, .. } => {
                *state = Some(value.clone());
                Answered::Done
            }
            _ => Answered::Value(state.clone()),
        }
    }
}

fn check_registers(events: &[Event], verdicts: &mut Verdicts) {
    let mut parts: BTreeMap<u64, Vec<linear::Operation<Asked, Answered>>> = BTreeMap::new();
    for event in events {
        if let Asked::Set { register, .. } | Asked::Get { register } = &event.asked {
            parts.entry(*register).or_default().push(linear::Operation {
                client: event.client,
                called: event.called,
                input: event.asked.clone(),
                returned: event.returned.clone(),
            });
        }
    }
    for (register, mut part) in parts {
        part.sort_by_key(|operation| operation.called);
        match linear::check::<Register>(&part) {
            Verdict::Linearizable => {}
            Verdict::Violated(reason) => verdicts.lose(format!("register {register} is not linearizable:\n{reason}")),
            Verdict::Undecided => verdicts.note(format!("register {register}: too many operations overlap to decide")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(client: usize, called: u64, asked: Asked, returned: Option<(u64, Answered)>) -> Event {
        Event { client, called, asked, returned }
    }

    fn push(token: &str, called: u64, length: i64) -> Event {
        event(0, called, Asked::Push { token: token.into() }, Some((called + 1, Answered::Number(length))))
    }

    fn increment(client: usize, called: u64, returned: u64, value: i64) -> Event {
        event(client, called, Asked::Increment, Some((returned, Answered::Number(value))))
    }

    fn lists(tokens: &[&str]) -> ReadBack {
        ReadBack { lists: vec![tokens.iter().map(ToString::to_string).collect()], counter: 0 }
    }

    #[test]
    fn a_good_history_is_good() {
        let set = Asked::Set { register: 1, value: "x".into() };
        let events = [
            push("a", 0, 1),
            event(0, 2, Asked::Push { token: "b".into() }, None),
            push("c", 4, 3),
            increment(0, 5, 9, 2),
            increment(1, 6, 8, 1),
            event(0, 10, set, Some((15, Answered::Done))),
            event(1, 11, Asked::Get { register: 1 }, Some((12, Answered::Value(None)))),
            event(1, 13, Asked::Get { register: 1 }, Some((14, Answered::Value(Some("x".into()))))),
        ];
        let read_back = ReadBack { counter: 2, ..lists(&["a", "b", "c"]) };
        assert_eq!(check(&events, &read_back), Verdicts::default());
    }

    #[test]
    fn a_lost_and_a_doubled_token_are_seen() {
        let events = [push("a", 0, 1), push("b", 2, 2)];
        let lost = check(&events, &lists(&["a"]));
        assert_eq!((lost.lost, lost.doubled), (1, 0), "{lost:?}");
        let doubled = check(&events, &lists(&["a", "b", "b"]));
        assert_eq!((doubled.lost, doubled.doubled), (0, 1), "{doubled:?}");
        let stranger = check(&events, &lists(&["a", "b", "z"]));
        assert_eq!((stranger.lost, stranger.doubled), (0, 1), "{stranger:?}");
        let moved = check(&events, &lists(&["b", "a"]));
        assert_eq!((moved.lost, moved.doubled), (2, 0), "{moved:?}");
    }

    #[test]
    fn a_counter_that_goes_back_repeats_or_jumps_is_seen() {
        let check = |events: &[Event], counter| {
            let verdicts = check(events, &ReadBack { lists: Vec::new(), counter });
            (verdicts.lost, verdicts.doubled)
        };
        assert_eq!(check(&[increment(0, 0, 1, 1), increment(0, 2, 3, 2)], 2), (0, 0));
        assert_eq!(check(&[increment(0, 0, 1, 2), increment(0, 2, 3, 1)], 2), (1, 0), "it goes back");
        assert_eq!(check(&[increment(0, 0, 9, 1), increment(1, 0, 9, 1)], 2), (1, 0), "it repeats");
        assert_eq!(check(&[increment(0, 0, 1, 1)], 0), (1, 0), "one is lost at the end");
        assert_eq!(check(&[increment(0, 0, 1, 1)], 3), (0, 2), "more than was asked for");
        assert_eq!(check(&[event(0, 0, Asked::Increment, None)], 1), (0, 0), "unknown and done");
        assert_eq!(check(&[event(0, 0, Asked::Increment, None)], 0), (0, 0), "unknown and not done");
    }

    #[test]
    fn a_stale_read_is_seen() {
        let events = [
            event(0, 0, Asked::Set { register: 7, value: "old".into() }, Some((1, Answered::Done))),
            event(0, 2, Asked::Set { register: 7, value: "new".into() }, Some((3, Answered::Done))),
            event(1, 4, Asked::Get { register: 7 }, Some((5, Answered::Value(Some("old".into()))))),
        ];
        let verdicts = check(&events, &ReadBack::default());
        assert_eq!(verdicts.lost, 1, "{verdicts:?}");
    }
}
