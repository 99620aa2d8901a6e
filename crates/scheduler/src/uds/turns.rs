//! Whose turn it is within a round: the order as a generator over slots, and the steps that each slot has left.
//! Knows slots only, no threads.
//!
//! ```text
//!   round-robin, quantum:  a ring of the slots with steps left      0 -> 1 -> 3 -> (0)        2 has left the ring
//!   explicit:              the vector, then s steps for each slot that does not occur in it
//! ```
//! The head stands at a slot with steps left, or before a slot that is still to come (the membership is open), or at
//! the end. A slot without steps is never visited again, so a step costs O(1) however many slots are done, and a whole
//! round O(slots) or O(length of the vector).

use crate::list::{Links, List};
use crate::{Order, Parameters};
use alloc::vec::Vec;

/// Steps that never run out.
const UNLIMITED: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Head {
    At(u32),
    /// Before a slot that may still come.
    Open,
    End,
}

/// The turns of a round.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    steps: u32,
    order: Generator,
    /// By slot.
    left: Vec<u32>,
    /// Slots with steps left, ascending.
    live: List,
    links: Links,
    head: Head,
    /// Slots that the round may have.
    slots_max: usize,
    /// Whether slots may still come.
    open: bool,
}

#[derive(Clone, Debug)]
enum Generator {
    Ring {
        quantum: u32,
        /// What is left of the head's quantum.
        visit: u32,
    },
    Explicit {
        vector: Vec<u16>,
        /// How often each slot occurs in the vector.
        occurrences: Vec<u32>,
        /// Place in the vector; behind it, its length + slot.
        at: usize,
    },
}

impl Turns {
    pub(super) fn new(parameters: &Parameters) -> Self {
        let order = match &parameters.order {
            Order::RoundRobin => Generator::Ring { quantum: 1, visit: 0 },
            Order::Quantum(quantum) => Generator::Ring { quantum: (*quantum).max(1), visit: 0 },
            Order::Explicit(vector) => {
                let slots = vector.iter().max().map_or(0, |slot| usize::from(*slot) + 1);
                let mut occurrences = alloc::vec![0; slots];
                vector.iter().for_each(|slot| occurrences[usize::from(*slot)] += 1);
                Generator::Explicit { vector: vector.clone(), occurrences, at: 0 }
            }
        };
        Self {
            steps: parameters.steps.max(1),
            order,
            left: Vec::new(),
            live: List::EMPTY,
            links: Links::default(),
            head: Head::End,
            slots_max: 0,
            open: false,
        }
    }

    /// A round begins: no slots yet, `slots_max` may come.
    pub(super) fn begin(&mut self, slots_max: usize) {
        self.left.clear();
        self.live = List::EMPTY;
        self.links.clear();
        self.head = Head::Open;
        self.slots_max = slots_max;
        self.open = true;
        if let Generator::Explicit { at, .. } = &mut self.order {
            *at = 0;
        }
    }

    /// The next slot comes.
    pub(super) fn push(&mut self) -> u32 {
        assert!(self.open && self.left.len() < self.slots_max);
        let slot = self.left.len() as u32;
        let steps = match &self.order {
            Generator::Ring { .. } => self.steps,
            Generator::Explicit { occurrences, .. } => match occurrences.get(slot as usize) {
                None | Some(0) => self.steps,
                Some(count) => *count,
            },
        };
        self.left.push(steps);
        self.links.reserve(self.left.len());
        self.live.push_back(&mut self.links, slot);
        if self.head == Head::Open {
            self.seek(None);
        }
        if self.left.len() == self.slots_max {
            self.close();
        }
        slot
    }

    /// No further slot comes.
    pub(super) fn close(&mut self) {
        self.open = false;
        if self.head == Head::Open {
            self.seek(None);
        }
    }

    /// The slot whose turn it is; it has steps left.
    #[inline]
    pub(super) fn head(&self) -> Option<u32> {
        match self.head {
            Head::At(slot) => Some(slot),
            Head::Open | Head::End => None,
        }
    }

    #[inline]
    pub(super) fn has_steps(&self, slot: u32) -> bool {
        self.left[slot as usize] > 0
    }

    /// The slot takes a step; at the head, unless somebody planted a bug.
    #[inline]
    pub(super) fn take(&mut self, slot: u32) {
        let left = &mut self.left[slot as usize];
        if *left != UNLIMITED {
            *left -= 1;
        }
        let emptied = *left == 0;
        let at_head = self.head == Head::At(slot);
        let moves_on = at_head
            && match &mut self.order {
                Generator::Ring { visit, .. } => {
                    *visit -= 1;
                    *visit == 0 || emptied
                }
                Generator::Explicit { vector, at, .. } if *at < vector.len() => {
                    *at += 1;
                    true
                }
                Generator::Explicit { .. } => emptied,
            };
        if emptied {
            self.leave(slot, moves_on);
        } else if moves_on {
            self.seek(Some(slot));
        }
    }

    /// The slot gives up what it has left.
    pub(super) fn forfeit(&mut self, slot: u32) {
        if self.has_steps(slot) {
            self.left[slot as usize] = 0;
            self.leave(slot, self.head == Head::At(slot));
        }
    }

    fn leave(&mut self, slot: u32, moves_on: bool) {
        if moves_on {
            self.seek(Some(slot));
        }
        self.live.remove(&mut self.links, slot);
        if self.head == Head::At(slot) {
            self.head = Head::End; // it was the only one on the ring and came round to itself
        }
    }

    /// Moves the head to the next slot; `from` is where it stood, still on the ring.
    fn seek(&mut self, from: Option<u32>) {
        self.head = match &mut self.order {
            Generator::Ring { quantum, visit } => {
                let next = match from {
                    Some(slot) => self.links.next(slot),
                    // It stood before a slot to come: that one, if it has come, is the last.
                    None if self.open => Some(self.left.len() as u32 - 1),
                    None => None,
                };
                match next.or(if self.open { None } else { self.live.first() }) {
                    Some(slot) => {
                        *visit = (*quantum).min(self.left[slot as usize]).max(1);
                        Head::At(slot)
                    }
                    None if self.open => Head::Open,
                    None => Head::End,
                }
            }
            Generator::Explicit { vector, occurrences, at } => loop {
                let slot = match vector.get(*at) {
                    Some(slot) => usize::from(*slot),
                    None => {
                        let slot = *at - vector.len();
                        if slot >= self.slots_max {
                            break Head::End;
                        }
                        if occurrences.get(slot).is_some_and(|count| *count > 0) {
                            *at += 1;
                            continue;
                        }
                        slot
                    }
                };
                match self.left.get(slot) {
                    Some(0) => *at += 1,
                    Some(_) => break Head::At(slot as u32),
                    None if self.open && slot < self.slots_max => break Head::Open,
                    None if *at >= vector.len() || self.live.is_empty() => break Head::End,
                    None => *at += 1,
                }
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(steps: u32, order: Order) -> Turns {
        Turns::new(&Parameters { primaries: 3, steps, order, ..Parameters::uds() })
    }

    /// Takes up to `count` steps as they come.
    fn taken(turns: &mut Turns, count: usize) -> Vec<u32> {
        let mut slots = Vec::new();
        while let Some(slot) = turns.head().filter(|_| slots.len() < count) {
            turns.take(slot);
            slots.push(slot);
        }
        slots
    }

    fn full(steps: u32, order: Order) -> Turns {
        let mut turns = turns(steps, order);
        turns.begin(3);
        (0..3).for_each(|slot| assert_eq!(turns.push(), slot));
        turns
    }

    #[test]
    fn each_order_spelled_out() {
        for (steps, order, expected) in [
            (2, Order::RoundRobin, vec![0, 1, 2, 0, 1, 2]),
            (3, Order::Quantum(2), vec![0, 0, 1, 1, 2, 2, 0, 1, 2]),
            (2, Order::Quantum(9), vec![0, 0, 1, 1, 2, 2]),
            (2, Order::Explicit(vec![2, 0, 2, 7, 0, 0]), vec![2, 0, 2, 0, 0, 1, 1]),
            (2, Order::Explicit(vec![]), vec![0, 0, 1, 1, 2, 2]),
        ] {
            let mut turns = full(steps, order.clone());
            assert_eq!(taken(&mut turns, 99), expected, "{order:?}");
            assert_eq!(turns.head(), None);
            turns.begin(3);
            (0..3).for_each(|slot| assert_eq!(turns.push(), slot));
            assert_eq!(taken(&mut turns, 99), expected, "a second round is like the first");
        }
    }

    #[test]
    fn unlimited_steps_never_run_out() {
        let mut ring = full(UNLIMITED, Order::RoundRobin);
        assert_eq!(taken(&mut ring, 7), [0, 1, 2, 0, 1, 2, 0]);
        let mut explicit = full(UNLIMITED, Order::Explicit(vec![1, 2]));
        assert_eq!(taken(&mut explicit, 6), [1, 2, 0, 0, 0, 0]);
    }

    #[test]
    fn the_head_waits_for_a_slot_to_come_and_passes_it_when_none_can() {
        let mut turns = turns(2, Order::RoundRobin);
        turns.begin(3);
        assert_eq!(turns.head(), None);
        turns.push();
        assert_eq!(taken(&mut turns, 99), [0], "slot 1 goes before slot 0 again");
        turns.push();
        assert_eq!(taken(&mut turns, 99), [1]);
        turns.close();
        assert_eq!(taken(&mut turns, 99), [0, 1]);

        let mut turns = super::tests::turns(2, Order::Explicit(vec![2, 0, 1, 0]));
        turns.begin(3);
        turns.push();
        assert_eq!(turns.head(), None, "slot 2 first");
        turns.close();
        assert_eq!(taken(&mut turns, 99), [0, 0]);
        turns.begin(2);
        turns.push();
        assert_eq!(turns.head(), Some(0), "a slot that this round cannot have is passed at once");
    }

    #[test]
    fn forfeited_slots_are_passed() {
        for order in [Order::RoundRobin, Order::Quantum(1), Order::Explicit(vec![0, 1, 2, 0, 1, 2])] {
            let mut turns = full(2, order);
            turns.forfeit(1);
            assert_eq!(taken(&mut turns, 2), [0, 2]);
            turns.forfeit(0);
            turns.forfeit(0);
            assert_eq!(taken(&mut turns, 9), [2]);
            assert!((0..3).all(|slot| !turns.has_steps(slot)));
        }
    }

    #[test]
    fn all_gone_while_open_then_one_more_comes() {
        for order in [Order::RoundRobin, Order::Explicit(vec![0, 1, 2])] {
            let mut turns = turns(1, order);
            turns.begin(3);
            turns.push();
            turns.forfeit(0);
            turns.push();
            assert_eq!(taken(&mut turns, 9), [1]);
            turns.close();
            assert_eq!(turns.head(), None);
        }
    }

    #[test]
    fn a_step_out_of_turn_leaves_the_head_where_it_is() {
        let mut turns = full(1, Order::RoundRobin);
        turns.take(1);
        assert_eq!(taken(&mut turns, 9), [0, 2]);
    }
}
