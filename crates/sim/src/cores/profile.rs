//! The loads by name: what one request of each does.

use crate::Random;
use unisono_scheduler::{Declaration, DeclaredLock, Lane, LockId, Mode};

/// What a thread does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Keeps a core busy for so many nanoseconds.
    Compute(u64),
    /// Owns a lock.
    Lock(u32),
    /// Gives it back.
    Unlock(u32),
}

/// What one request does; behind the last step it finishes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Script(pub Vec<Step>);

/// A load: requests that differ by chance only.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// What it is called.
    pub name: &'static str,
    /// What it does, for people.
    pub what: &'static str,
    /// The speed-ups on 16 cores with C = 20 us that are to be reached: free mutexes, and the best deterministic setting.
    pub goal: Option<(f64, f64)>,
    /// How many locks there are.
    pub locks: u32,
    write: fn(&mut Random, u64) -> Vec<Step>,
}

/// Of these one is chosen where a profile names no number.
const LOCKS: u32 = 32;

impl Profile {
    /// All of them. C is the mean of what is computed but for `mix-90-10`, where it is what the short ones compute.
    pub const ALL: [Self; 9] = [
        Self { name: "C", what: "computes C", goal: None, locks: 0, write: |_, c| vec![Step::Compute(c)] },
        Self {
            name: "L32-C-U",
            what: "computes C under one of 32 locks",
            goal: Some((15.4, 15.0)),
            locks: 32,
            write: |random, c| {
                let lock = any(random, 32);
                vec![Step::Lock(lock), Step::Compute(c), Step::Unlock(lock)]
            },
        },
        Self {
            name: "L1-C-U",
            what: "computes C under the only lock",
            goal: None,
            locks: 1,
            write: |_, c| vec![Step::Lock(0), Step::Compute(c), Step::Unlock(0)],
        },
        Self {
            name: "LU-C-LU",
            what: "one of 32 locks, computes C, one of 32 locks",
            goal: None,
            locks: LOCKS,
            write: |random, c| [touch(random, LOCKS).as_slice(), &[Step::Compute(c)], &touch(random, LOCKS)].concat(),
        },
        Self {
            name: "LU-c-LU",
            what: "one of 32 locks, computes 0 to 2C, one of 32 locks",
            goal: Some((15.6, 15.0)),
            locks: LOCKS,
            write: |random, c| {
                let compute = Step::Compute(random.between(0, 2 * c));
                [touch(random, LOCKS).as_slice(), &[compute], &touch(random, LOCKS)].concat()
            },
        },
        Self {
            name: "C-LU",
            what: "computes C, then one of 32 locks",
            goal: Some((15.8, 15.7)),
            locks: LOCKS,
            write: |random, c| [[Step::Compute(c)].as_slice(), &touch(random, LOCKS)].concat(),
        },
        Self {
            name: "nested-64",
            what: "computes C under two of 64 locks, the smaller one first",
            goal: Some((9.5, 8.9)),
            locks: 64,
            write: |random, c| {
                let (one, other) = (any(random, 64), any(random, 63));
                let other = if other < one { other } else { other + 1 };
                let (outer, inner) = (one.min(other), one.max(other));
                let compute = Step::Compute(c);
                vec![Step::Lock(outer), Step::Lock(inner), compute, Step::Unlock(inner), Step::Unlock(outer)]
            },
        },
        Self {
            name: "mix-90-10",
            what: "computes C, one in ten 100 C, then one of 32 locks",
            goal: Some((15.6, 15.4)),
            locks: LOCKS,
            write: |random, c| {
                let compute = Step::Compute(if random.chance(100) { 100 * c } else { c });
                [[compute].as_slice(), &touch(random, LOCKS)].concat()
            },
        },
        Self {
            name: "three-of-256",
            what: "three times: computes 0 to 2C, then one of 256 locks",
            goal: Some((15.2, 15.0)),
            locks: 256,
            write: |random, c| {
                let part = |_| {
                    let compute = Step::Compute(random.between(0, 2 * c));
                    [[compute].as_slice(), &touch(random, 256)].concat()
                };
                (0..3).flat_map(part).collect()
            },
        },
    ];

    /// The profile of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name == name)
    }

    /// So many requests, C = `c` nanoseconds.
    #[must_use]
    pub fn scripts(&self, count: usize, c: u64, seed: u64) -> Vec<Script> {
        let mut random = Random::new(seed);
        (0..count).map(|_| Script((self.write)(&mut random, c))).collect()
    }
}

fn any(random: &mut Random, locks: u32) -> u32 {
    random.below(u64::from(locks)) as u32
}

fn touch(random: &mut Random, locks: u32) -> [Step; 2] {
    let lock = any(random, locks);
    [Step::Lock(lock), Step::Unlock(lock)]
}

impl Script {
    /// All that it computes.
    #[must_use]
    pub fn computes(&self) -> u64 {
        self.0.iter().map(|step| if let Step::Compute(time) = step { *time } else { 0 }).sum()
    }

    /// What it says of itself beforehand.
    #[must_use]
    pub fn declaration(&self, lane: Lane) -> Declaration {
        let mut locks: Vec<DeclaredLock> = Vec::new();
        for step in &self.0 {
            let Step::Lock(lock) = step else { continue };
            let lock = lock_id(*lock);
            match locks.iter_mut().find(|declared| declared.lock == lock) {
                Some(declared) => declared.uses += 1,
                None => locks.push(DeclaredLock { lock, mode: Mode::Write, uses: 1 }),
            }
        }
        Declaration { class: 0, lane, locks }
    }
}

pub(super) fn lock_id(lock: u32) -> LockId {
    LockId(u128::from(lock) << 96)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_profile_does_what_its_name_says() {
        const C: u64 = 20_000;
        let count = |steps: &[Step], lock: bool| {
            steps
                .iter()
                .filter(|step| if lock { matches!(step, Step::Lock(_)) } else { matches!(step, Step::Unlock(_)) })
                .count()
        };
        for profile in Profile::ALL {
            let scripts = profile.scripts(4_000, C, 7);
            assert_eq!(scripts, profile.scripts(4_000, C, 7), "by seed");
            let mean = scripts.iter().map(Script::computes).sum::<u64>() as f64 / 4_000.0 / C as f64;
            let (locks, expected) = match profile.name {
                "C" => (0, 1.0),
                "mix-90-10" => (1, 10.9),
                "three-of-256" => (3, 3.0),
                "nested-64" | "LU-C-LU" | "LU-c-LU" => (2, 1.0),
                _ => (1, 1.0),
            };
            assert!((mean / expected - 1.0).abs() < 0.1, "{}: {mean} C", profile.name);
            for Script(steps) in &scripts {
                assert_eq!((count(steps, true), count(steps, false)), (locks, locks), "{}", profile.name);
                assert!(steps.iter().all(|step| !matches!(step, Step::Lock(lock) if *lock >= profile.locks)));
            }
        }
        assert!(Profile::named("nested-64").is_some() && Profile::named("nested").is_none());
    }

    #[test]
    fn a_lock_used_twice_is_declared_once() {
        let script = Script(vec![Step::Lock(3), Step::Unlock(3), Step::Compute(1), Step::Lock(3), Step::Unlock(3)]);
        let lock = DeclaredLock { lock: lock_id(3), mode: Mode::Write, uses: 2 };
        assert_eq!(
            script.declaration(Lane::Declared),
            Declaration { class: 0, lane: Lane::Declared, locks: vec![lock] }
        );
    }
}
