//! The profiles as a service, and as plain threads: the same handlers, computing for real.
//!
//! An operation is a lane and the steps of a script. To compute is to turn a wheel that was calibrated before.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};
use unisono_execution::borsh::{self, BorshDeserialize, BorshSerialize};
use unisono_execution::{Context, Declaration, DeclaredLock, Lane, Mutex, Objects, Service, State, UnknownOperation};
use unisono_sim::cores::{Script, Step};

/// More than any profile has.
const LOCKS: usize = 256;

/// Turns of the wheel in a millisecond, undisturbed.
static TURNS_PER_MILLISECOND: AtomicU64 = AtomicU64::new(0);

/// Locks that a script holds at once, at the most.
const HELD_MAX: usize = 2;

/// The service.
pub(super) struct Load {
    locks: [Mutex<u64>; LOCKS],
}

/// The same locks without it.
pub(super) struct Plain {
    locks: Vec<StdMutex<u64>>,
}

/// What a request asks for.
#[derive(BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_execution::borsh")]
struct Request {
    declared: bool,
    steps: Vec<Wire>,
}

#[derive(Clone, Copy, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_execution::borsh")]
enum Wire {
    Compute(u64),
    Lock(u32),
    Unlock,
}

/// The request's bytes.
pub(super) fn operation(script: &Script, declared: bool) -> Vec<u8> {
    let wire = |step: &Step| match step {
        Step::Compute(nanoseconds) => Wire::Compute(*nanoseconds),
        Step::Lock(lock) => Wire::Lock(*lock),
        Step::Unlock(_) => Wire::Unlock, // of the lock taken last: that is how scripts nest
    };
    let request = Request { declared, steps: script.0.iter().map(wire).collect() };
    borsh::to_vec(&request).expect("numbers have bytes")
}

impl State for Load {
    fn create(objects: &mut Objects, name: &str) -> Self {
        Self { locks: State::create(objects, &Objects::path(name, "locks")) }
    }
}

impl Service for Load {
    async fn execute<'a>(&'a self, cx: &'a Context, operation: &'a [u8]) -> Result<Vec<u8>, UnknownOperation> {
        let request: Request = borsh::from_slice(operation).map_err(|_| UnknownOperation)?;
        let mut held = [const { None }; HELD_MAX];
        let mut depth = 0;
        for step in request.steps {
            match step {
                Wire::Compute(nanoseconds) => compute(nanoseconds),
                Wire::Lock(lock) => {
                    let mut guard = self.locks[lock as usize % LOCKS].lock(cx).await;
                    guard.with_mut((), |value, ()| *value += 1);
                    held[depth] = Some(guard);
                    depth += 1;
                }
                Wire::Unlock => {
                    depth -= 1;
                    held[depth] = None;
                }
            }
        }
        Ok(Vec::new())
    }

    fn handler(_: &[u8]) -> &'static str {
        "script"
    }

    fn declare(&self, operation: &[u8]) -> Declaration {
        let Ok(request) = borsh::from_slice::<Request>(operation) else { return Declaration::default() };
        if !request.declared {
            return Declaration::default();
        }
        let lock = |step: &Wire| match step {
            Wire::Lock(lock) => Some(self.locks[*lock as usize % LOCKS].declared()),
            _ => None,
        };
        let locks: Vec<DeclaredLock> = request.steps.iter().filter_map(lock).collect();
        Declaration { lane: Lane::Declared, locks, ..Declaration::default() }
    }
}

impl Default for Plain {
    fn default() -> Self {
        Self { locks: (0..LOCKS).map(|_| StdMutex::new(0)).collect() }
    }
}

impl Plain {
    /// Runs a request on the calling thread.
    pub(super) fn execute(&self, operation: &[u8]) {
        let request: Request = borsh::from_slice(operation).expect("it was made by this program");
        let mut held = [const { None }; HELD_MAX];
        let mut depth = 0;
        for step in request.steps {
            match step {
                Wire::Compute(nanoseconds) => compute(nanoseconds),
                Wire::Lock(lock) => {
                    let lock = &self.locks[lock as usize % LOCKS];
                    let mut guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
                    *guard += 1;
                    held[depth] = Some(guard);
                    depth += 1;
                }
                Wire::Unlock => {
                    depth -= 1;
                    held[depth] = None;
                }
            }
        }
    }
}

/// Keeps a core busy as long as an undisturbed one needs so many nanoseconds.
fn compute(nanoseconds: u64) {
    turn(nanoseconds * TURNS_PER_MILLISECOND.load(Ordering::Relaxed) / 1_000_000);
}

/// One copy for all, and nothing but registers: copies in the handler, in plain threads and in what measures the wheel
/// differed by a factor of two.
#[inline(never)]
fn turn(turns: u64) {
    let mut wheel = black_box(1_u64);
    for _ in 0..turns {
        wheel = (wheel.rotate_left(5) ^ 0x9e37_79b9).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    black_box(wheel);
}

/// Measures the wheel. Of many short looks the fastest counts: in the others somebody else had the core.
pub(super) fn calibrate() {
    const LOOKS: usize = 200;
    const TURNS: u64 = 100_000;
    let look = |_| {
        let begun = Instant::now();
        turn(TURNS);
        begun.elapsed()
    };
    let fastest = (0..LOOKS).map(look).min().unwrap_or(Duration::from_millis(1));
    let turns = TURNS * 1_000_000 / (fastest.as_nanos() as u64).max(1);
    TURNS_PER_MILLISECOND.store(turns.max(1), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_sim::cores::Profile;

    #[test]
    fn a_script_travels_as_bytes_and_runs_on_plain_threads() {
        calibrate();
        let plain = Plain::default();
        for profile in Profile::ALL {
            for script in profile.scripts(20, 100, 1) {
                plain.execute(&operation(&script, true));
            }
        }
        let taken: u64 = plain.locks.iter().map(|lock| *lock.lock().unwrap()).sum();
        assert_eq!(taken, 20 * (1 + 1 + 2 + 2 + 1 + 2 + 1 + 3), "each lock of each script");
    }
}
