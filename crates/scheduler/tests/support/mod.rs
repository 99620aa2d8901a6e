//! What the tests of the policies share: `story`, scripts of single events; `program`, random handlers and logs;
//! `executor`, which runs them under random timing and observes from outside.
#![allow(dead_code, unreachable_pub)] // each test file uses a part of it

pub mod executor;
pub mod program;
pub mod story;

use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{Order, Parameters, Scheduler};

/// A policy that can check itself.
pub trait Checked: Scheduler {
    fn check(&self);

    fn locks_in_use(&self) -> usize;
}

impl Checked for Uds {
    fn check(&self) {
        self.invariants();
    }

    fn locks_in_use(&self) -> usize {
        self.locks_in_use()
    }
}

impl Checked for Sequential {
    fn check(&self) {
        self.invariants();
    }

    fn locks_in_use(&self) -> usize {
        self.locks_in_use()
    }
}

pub fn parameters(primaries: u32, steps: u32) -> Parameters {
    Parameters { primaries, steps, order: Order::RoundRobin, flush_rounds: 16 }
}

/// xorshift64*: enough for schedules, and the same everywhere.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..4 {
            random.word();
        }
        random
    }

    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.word() >> 16) % bound
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// Mixes what a handler has seen.
pub fn mix(a: u64, b: u64) -> u64 {
    (a.rotate_left(7) ^ b).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
