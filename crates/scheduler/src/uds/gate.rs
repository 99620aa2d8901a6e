//! Who may be a primary: the predicate in force, asked of E in order, eldest first, then of requests as they are read.
//!
//! ```text
//!   E:   1 {a}   2 {a b}   3 {c}   4 ?    5 {d}         future locks; "?" has declared none and may want any
//!        pass    held      pass    held   held           behind 1; behind 1 and 3; behind 4
//! ```
//! Every answer is a function of log data, the round and E at its start, also for a request that is read later: whether
//! an elder thread has finished by then is local. Parked threads hold nobody back: what they wait for may be younger.
//!
//! After a round without progress everybody passes: the ones that ran may wait for the ones that were held back.

use super::*;
use crate::locks::normalized;
use crate::{ClassRule, Predicate};

/// The predicate of the round.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    kind: Kind,
    /// Whether somebody may be held back in this round.
    shut: bool,
    /// Held back of E at the start of the round, and of the requests read in it.
    pub(super) held_back: usize,
    claims: Claims,
}

#[derive(Clone, Debug)]
enum Kind {
    All,
    /// In order of classes, each once.
    Classes(Vec<ClassRule>),
    FutureLocks,
}

/// What those asked so far may still want.
#[derive(Clone, Debug, Default)]
struct Claims {
    /// One of them may want any lock.
    any: bool,
    locks: BTreeMap<LockId, Mode>,
}

/// What is known of a thread: by lock, in order of ids, uses that are left. `None`: it may want any lock.
pub(super) type FutureLocks = Option<Vec<DeclaredLock>>;

/// Who declares more locks counts as one of which nothing is known: every round looks at all of them.
const FUTURE_LOCKS_MAX: usize = 256;

/// What a request's declared locks let predicates know.
pub(super) fn future_locks(locks: Vec<DeclaredLock>) -> FutureLocks {
    (1..=FUTURE_LOCKS_MAX).contains(&locks.len()).then(|| normalized(locks))
}

impl Gate {
    pub(super) fn new(predicate: &Predicate) -> Self {
        let kind = match predicate {
            Predicate::All => Kind::All,
            Predicate::FutureLocks => Kind::FutureLocks,
            Predicate::Classes(rules) => {
                let mut rules = rules.clone();
                rules.sort_by_key(|rule| rule.class);
                rules.dedup_by_key(|rule| rule.class);
                Kind::Classes(rules)
            }
        };
        Self { kind, shut: false, held_back: 0, claims: Claims::default() }
    }

    /// A round begins.
    pub(super) fn begin(&mut self, progress: bool) {
        self.shut = progress && !matches!(self.kind, Kind::All);
        self.held_back = 0;
        self.claims = Claims::default();
    }

    #[inline]
    pub(super) fn is_shut(&self) -> bool {
        self.shut
    }

    /// Whether nobody passes who is asked from now on.
    pub(super) fn holds_back_all(&self) -> bool {
        self.claims.any
    }

    /// Whether the next of E may be a primary of this round.
    pub(super) fn passes(&mut self, round: u64, class: u16, future: &FutureLocks) -> bool {
        match &self.kind {
            Kind::All => true,
            Kind::Classes(rules) => match rules.binary_search_by_key(&class, |rule| rule.class) {
                Err(_) => true,
                Ok(at) => {
                    let every = u64::from(rules[at].every.max(1));
                    round % every == u64::from(rules[at].phase) % every
                }
            },
            Kind::FutureLocks => {
                let passes = self.claims.admit(future);
                self.claims.add(future);
                passes
            }
        }
    }
}

impl Claims {
    fn admit(&self, future: &FutureLocks) -> bool {
        let conflicts = |lock: &DeclaredLock| {
            self.locks.get(&lock.lock).is_some_and(|mode| *mode == Mode::Write || lock.mode == Mode::Write)
        };
        !self.any
            && match future {
                None => self.locks.is_empty(),
                Some(locks) => !locks.iter().any(conflicts),
            }
    }

    fn add(&mut self, future: &FutureLocks) {
        let Some(locks) = future else {
            self.any = true;
            return;
        };
        for declared in locks {
            let mode = self.locks.entry(declared.lock).or_insert(declared.mode);
            *mode = declared.mode.max(*mode);
        }
    }
}

impl Uds {
    /// The first of E that pass become primaries of the round that begins; if none does, the first.
    pub(super) fn select_passing(&mut self, grants: &mut Vec<Grant>) {
        for thread in self.carried.drain(..) {
            self.eligible.insert((self.threads[thread as usize].id, thread));
        }
        let mut passing = Vec::new();
        for (_, thread) in &self.eligible {
            if passing.len() == self.slots_max || self.gate.holds_back_all() {
                break;
            }
            let entry = &self.threads[*thread as usize];
            if self.gate.passes(self.round, entry.class, &entry.future) {
                passing.push(*thread);
            }
        }
        if passing.is_empty() {
            passing.extend(self.eligible.first().map(|(_, thread)| *thread));
        }
        for thread in passing {
            self.eligible.remove(&(self.threads[thread as usize].id, thread));
            self.select(thread, grants);
        }
        self.gate.held_back = self.eligible.len();
    }

    /// An undeclared request is read: a primary, if it passes or there is none; else it waits in E.
    pub(super) fn enter_round(&mut self, thread: u32, grants: &mut Vec<Grant>) {
        self.undeclared += 1;
        if self.gate.is_shut() {
            let Thread { class, future, .. } = &self.threads[thread as usize];
            let passes = self.gate.passes(self.round, *class, future);
            if !passes && !self.slots.is_empty() {
                self.gate.held_back += 1;
                self.eligible.insert((self.threads[thread as usize].id, thread));
                return;
            }
        }
        self.select(thread, grants);
    }

    /// The thread has used a lock that it was known to want.
    pub(super) fn used(&mut self, thread: u32, lock: LockId) {
        if let Some(future) = &mut self.threads[thread as usize].future
            && let Ok(at) = future.binary_search_by_key(&lock, |declared| declared.lock)
        {
            future[at].uses -= 1;
            if future[at].uses == 0 {
                future.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_declares_very_many_locks_is_unknown() {
        let declared = |count: u128| {
            (0..count).map(|lock| DeclaredLock { lock: LockId(lock), mode: Mode::Write, uses: 1 }).collect::<Vec<_>>()
        };
        assert_eq!(future_locks(declared(0)), None);
        assert_eq!(future_locks(declared(256)), Some(declared(256)));
        assert_eq!(future_locks(declared(257)), None);
    }
}
