//! Linearizability of client histories: is there one order of all operations, each somewhere between its call and its
//! return, in which one after the other they give exactly the answers that the clients got?
//!
//! ```text
//!   client 1  |--- write 7 ---|                 one order that explains it:
//!   client 2        |--- read: 7 ---|               write 7, read: 7, take: empty
//!   client 3                  |-- take: empty --|
//! ```
//! Wing and Gong's search (1993) with Lowe's memory of configurations seen (2017): walk the history, put the first
//! operation that fits first, go back when an operation returns that fits nowhere. An operation whose client never
//! learnt its outcome stays open: it may take effect anywhere behind its call, with any answer, or never.
//!
//! A history is cut into parts that cannot influence each other before it is checked (one part per group of keys):
//! linearizability is local (Herlihy and Wing 1990), and the search is exponential in how many overlap.

use std::{collections::HashSet, fmt::Debug, hash::Hash};

/// What the service should do, one operation at a time.
pub trait Model {
    /// The state of one part.
    type State: Clone + Eq + Hash + Default;
    /// An operation.
    type Input: Clone + Debug;
    /// Its answer.
    type Output: Clone + PartialEq + Debug;

    /// Performs `input` on `state`.
    fn step(state: &mut Self::State, input: &Self::Input) -> Self::Output;
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct Operation<I, O> {
    /// Who.
    pub client: usize,
    /// When it was called: any numbers that grow with time.
    pub called: u64,
    /// What.
    pub input: I,
    /// When it returned and with what; `None`: nobody knows whether it took effect.
    pub returned: Option<(u64, O)>,
}

/// What came out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none. The text shows the operations around the one that fits nowhere.
    Violated(String),
    /// The search took more steps than it may.
    Undecided,
}

/// Steps of one search. A part of some hundred operations takes some thousand; one that takes this many has far too
/// many operations open at once.
const STEPS_MAX: u64 = 4_000_000;

/// Checks one part of a history.
#[must_use]
pub fn check<M: Model>(history: &[Operation<M::Input, M::Output>]) -> Verdict {
    Search::<M>::new(history).run()
}

/// Calls and returns in order of time as a doubly linked list in which an operation that was put into the order is
/// left out, and put back when the search goes back.
struct Search<'h, M: Model> {
    history: &'h [Operation<M::Input, M::Output>],
    /// Entry `e` of the list is the call of operation `e - 1`, or the return of operation `e - 1 - history.len()`;
    /// 0 is its head and its end.
    next: Vec<usize>,
    previous: Vec<usize>,
    placed: Vec<u64>,
    completed_left: usize,
    seen: HashSet<(Vec<u64>, M::State)>,
    stack: Vec<(usize, M::State)>,
    /// The return at which the search was stuck when most operations were placed.
    farthest: (usize, usize),
}

impl<'h, M: Model> Search<'h, M> {
    fn new(history: &'h [Operation<M::Input, M::Output>]) -> Self {
        let count = history.len();
        let mut entries: Vec<(u64, usize)> = Vec::new();
        for (index, operation) in history.iter().enumerate() {
            entries.push((operation.called, index + 1));
            if let Some((at, _)) = operation.returned {
                entries.push((at, index + 1 + count));
            }
        }
        entries.sort_unstable();
        let (mut next, mut previous) = (vec![0; 2 * count + 1], vec![0; 2 * count + 1]);
        let mut last = 0;
        for (_, entry) in entries {
            next[last] = entry;
            previous[entry] = last;
            last = entry;
        }
        previous[0] = last;
        let completed_left = history.iter().filter(|operation| operation.returned.is_some()).count();
        Self {
            history,
            next,
            previous,
            placed: vec![0; count.div_ceil(64)],
            completed_left,
            seen: HashSet::new(),
            stack: Vec::new(),
            farthest: (0, 0),
        }
    }

    fn run(mut self) -> Verdict {
        let mut state = M::State::default();
        let mut entry = self.next[0];
        for _ in 0..STEPS_MAX {
            if self.completed_left == 0 {
                return Verdict::Linearizable;
            }
            let is_call = (1..=self.history.len()).contains(&entry);
            if is_call {
                entry = match self.fits(entry - 1, &state) {
                    Some(after) => {
                        self.stack.push((entry - 1, std::mem::replace(&mut state, after)));
                        self.lift(entry - 1);
                        self.next[0]
                    }
                    None => self.next[entry],
                };
                continue;
            }
            if entry != 0 && self.stack.len() >= self.farthest.0 {
                self.farthest = (self.stack.len(), entry - 1 - self.history.len());
            }
            let Some((operation, before)) = self.stack.pop() else {
                return Verdict::Violated(self.explain());
            };
            state = before;
            self.unlift(operation);
            entry = self.next[operation + 1];
        }
        Verdict::Undecided
    }

    /// The state behind `operation`, if it gives the answer it gave and this configuration is new.
    fn fits(&mut self, operation: usize, state: &M::State) -> Option<M::State> {
        let Operation { input, returned, .. } = &self.history[operation];
        let mut after = state.clone();
        let output = M::step(&mut after, input);
        if returned.as_ref().is_some_and(|(_, expected)| *expected != output) {
            return None;
        }
        let mut placed = self.placed.clone();
        placed[operation / 64] |= 1 << (operation % 64);
        self.seen.insert((placed, after.clone())).then_some(after)
    }

    fn lift(&mut self, operation: usize) {
        self.placed[operation / 64] |= 1 << (operation % 64);
        self.unlink(operation + 1);
        if self.history[operation].returned.is_some() {
            self.unlink(operation + 1 + self.history.len());
            self.completed_left -= 1;
        }
    }

    fn unlift(&mut self, operation: usize) {
        self.placed[operation / 64] &= !(1 << (operation % 64));
        if self.history[operation].returned.is_some() {
            self.relink(operation + 1 + self.history.len());
            self.completed_left += 1;
        }
        self.relink(operation + 1);
    }

    fn unlink(&mut self, entry: usize) {
        let (before, behind) = (self.previous[entry], self.next[entry]);
        self.next[before] = behind;
        self.previous[behind] = before;
    }

    fn relink(&mut self, entry: usize) {
        let (before, behind) = (self.previous[entry], self.next[entry]);
        self.next[before] = entry;
        self.previous[behind] = entry;
    }

    /// The operations that overlap the one that fits nowhere, and what came just before it.
    fn explain(&self) -> String {
        let stuck = &self.history[self.farthest.1];
        let end = stuck.returned.as_ref().map_or(u64::MAX, |(at, _)| *at);
        let mut near: Vec<_> = self.history.iter().filter(|operation| operation.called <= end).collect();
        near.sort_by_key(|operation| operation.returned.as_ref().map_or(u64::MAX, |(at, _)| *at));
        let overlapping = near.iter().filter(|o| o.returned.as_ref().is_none_or(|(at, _)| *at >= stuck.called)).count();
        let from = near.len().saturating_sub(overlapping + 6);
        let lines: Vec<String> = near[from..].iter().map(|operation| show::<M>(operation)).collect();
        format!("no order explains {}; near it:\n  {}", show::<M>(stuck), lines.join("\n  "))
    }
}

fn show<M: Model>(operation: &Operation<M::Input, M::Output>) -> String {
    let Operation { client, called, input, returned } = operation;
    match returned {
        Some((at, output)) => format!("[{called}..{at}] client {client}: {input:?} -> {output:?}"),
        None => format!("[{called}..    ] client {client}: {input:?} -> unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    /// One register.
    struct Register;

    #[derive(Clone, Debug)]
    enum Do {
        Write(u64),
        Read,
    }

    impl Model for Register {
        type State = u64;
        type Input = Do;
        type Output = u64;

        fn step(state: &mut u64, input: &Do) -> u64 {
            if let Do::Write(value) = input {
                *state = *value;
            }
            *state
        }
    }

    fn done(client: usize, called: u64, at: u64, input: Do, output: u64) -> Operation<Do, u64> {
        Operation { client, called, input, returned: Some((at, output)) }
    }

    fn open(client: usize, called: u64, input: Do) -> Operation<Do, u64> {
        Operation { client, called, input, returned: None }
    }

    #[test]
    fn overlapping_operations_may_be_ordered_either_way() {
        let write = done(1, 0, 10, Do::Write(7), 7);
        for seen in [0, 7] {
            assert_eq!(check::<Register>(&[write.clone(), done(2, 5, 6, Do::Read, seen)]), Verdict::Linearizable);
        }
    }

    #[test]
    fn a_stale_read_is_seen() {
        let verdict = check::<Register>(&[done(1, 0, 1, Do::Write(7), 7), done(2, 2, 3, Do::Read, 0)]);
        assert!(matches!(&verdict, Verdict::Violated(text) if text.contains("client 2: Read -> 0")), "{verdict:?}");
    }

    #[test]
    fn two_readers_may_not_see_one_write_come_and_go() {
        let history = [done(1, 0, 100, Do::Write(7), 7), done(2, 10, 20, Do::Read, 7), done(3, 30, 40, Do::Read, 0)];
        assert!(matches!(check::<Register>(&history), Verdict::Violated(_)));
    }

    #[test]
    fn a_value_that_nobody_wrote_is_seen() {
        assert!(matches!(check::<Register>(&[done(1, 0, 1, Do::Read, 9)]), Verdict::Violated(_)));
    }

    #[test]
    fn an_open_operation_took_effect_any_time_behind_its_call_or_never() {
        let write = open(1, 10, Do::Write(7));
        for (called, seen, fine) in [(20, 7, true), (20, 0, true), (5, 0, true), (900, 7, true), (900, 0, true)] {
            let verdict = check::<Register>(&[write.clone(), done(2, called, called + 1, Do::Read, seen)]);
            assert_eq!(verdict == Verdict::Linearizable, fine, "{called} {seen}");
        }
        let early = check::<Register>(&[write.clone(), done(2, 5, 6, Do::Read, 7)]);
        assert!(matches!(early, Verdict::Violated(_)), "before its call it cannot have had an effect");
        let twice =
            [write, done(2, 20, 21, Do::Write(8), 8), done(2, 22, 23, Do::Read, 7), done(2, 24, 25, Do::Read, 8)];
        assert!(matches!(check::<Register>(&twice), Verdict::Violated(_)), "it takes effect once");
    }

    /// All orders of a small history, tried one by one: what the search must agree with.
    fn brute(history: &[Operation<Do, u64>]) -> bool {
        fn go(history: &[Operation<Do, u64>], placed: u32, state: u64) -> bool {
            let unplaced = |index: &usize| placed & (1 << index) == 0;
            if (0..history.len()).filter(unplaced).all(|index| history[index].returned.is_none()) {
                return true;
            }
            (0..history.len()).filter(unplaced).any(|index| {
                let too_late = (0..history.len())
                    .filter(unplaced)
                    .any(|other| history[other].returned.as_ref().is_some_and(|(at, _)| *at < history[index].called));
                let mut after = state;
                let output = Register::step(&mut after, &history[index].input);
                let fits = history[index].returned.as_ref().is_none_or(|(_, expected)| *expected == output);
                !too_late && fits && go(history, placed | 1 << index, after)
            })
        }
        go(history, 0, 0)
    }

    #[test]
    fn the_search_agrees_with_trying_all_orders() {
        let (mut good, mut bad) = (0, 0);
        for seed in 0..3_000 {
            let mut random = Random::new(seed);
            let mut times: Vec<u64> = (0..12).collect();
            random.shuffle(&mut times);
            let history: Vec<_> = (0..6)
                .map(|index| {
                    let (called, at) =
                        (times[2 * index].min(times[2 * index + 1]), times[2 * index].max(times[2 * index + 1]));
                    let input = if random.chance(500) { Do::Write(index as u64) } else { Do::Read };
                    let output = match input {
                        Do::Write(value) => value,
                        Do::Read => random.below(7) % 6,
                    };
                    if random.chance(150) { open(index, called, input) } else { done(index, called, at, input, output) }
                })
                .collect();
            let expected = brute(&history);
            let verdict = check::<Register>(&history);
            assert_eq!(verdict == Verdict::Linearizable, expected, "seed {seed}: {history:?} {verdict:?}");
            if expected { good += 1 } else { bad += 1 }
        }
        assert!(good > 300 && bad > 300, "{good} {bad}");
    }
}
