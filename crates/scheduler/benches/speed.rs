//! What the policies cost, without any executor: `cargo bench -p unisono-scheduler`.
//!
//! Prints one JSON line per measurement: the median and the extremes of several runs, in nanoseconds of CPU time per
//! pair of lock and unlock (of wall time where the system does not tell), so that a busy machine disturbs less.
//! `threads` handlers do nothing but lock and unlock; beside them `parked` threads wait. A plain mutex tells how much of
//! that is the machine. A word `NAME/THREADS/PARKED` asks for that line alone.
#![allow(clippy::disallowed_types, reason = "a bench reads the clock; the core never does")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{
    Declaration, DeclaredLock, Entry, Event, Grant, Lane, LockId, Mode, Operation, OperationResult, Parameters,
    QueueId, Scheduler, ThreadIndex,
};

const RUNS: usize = 5;
/// Pairs per run.
const PAIRS: u64 = 2_000_000;
/// Steps per round.
const STEPS: u32 = 4;
/// Who has finished one pair begins another.
const UNLIMITED: u32 = u32::MAX;

fn main() {
    plain_mutex();
    measure("sequential", 1, 0, || Box::new(Sequential::new()), Kind::Own);
    measure("uds-1-unlimited", 1, 0, || uds(1, UNLIMITED), Kind::Own);
    for threads in [16, 256, 4096] {
        for parked in [0, 10_000] {
            measure("uds", threads, parked, move || uds(threads, STEPS), Kind::Own);
        }
    }
    for threads in [16, 256, 4096] {
        measure("uds-contended", threads, 0, move || uds(threads, STEPS), Kind::Shared);
    }
    measure("uds-declared", 16, 0, || uds(16, STEPS), Kind::Declared);
}

fn uds(primaries: u32, steps: u32) -> Box<dyn Scheduler> {
    Box::new(Uds::new(Parameters { primaries, steps, ..Parameters::uds() }))
}

/// Which locks the threads use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Each its own.
    Own,
    /// One of 32, by thread and turn.
    Shared,
    /// Each its own, declared: one request per pair.
    Declared,
}

/// Whether this line is asked for.
fn is_asked(name: &str, threads: u32, parked: u32) -> bool {
    let line = format!("{name}/{threads}/{parked}");
    // `cargo bench` adds a word of its own.
    std::env::args().skip(1).filter(|word| !word.starts_with('-')).all(|word| word == line)
}

fn plain_mutex() {
    if !is_asked("plain-mutex", 1, 0) {
        return;
    }
    let mutex = Mutex::new(0_u64);
    report("plain-mutex", 1, 0, || {
        for pair in 0..PAIRS {
            *black_box(&mutex).lock().expect("nobody panics") += pair;
        }
    });
    black_box(mutex);
}

fn measure(name: &str, threads: u32, parked: u32, make: impl Fn() -> Box<dyn Scheduler>, kind: Kind) {
    if !is_asked(name, threads, parked) {
        return;
    }
    let mut host = Host::new(make(), threads, kind);
    host.park(parked);
    (0..threads).for_each(|_| host.request());
    host.run(PAIRS / 4); // everybody is under way
    report(name, threads, parked, || host.run(PAIRS));
}

fn report(name: &str, threads: u32, parked: u32, mut run: impl FnMut()) {
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let begun = (Instant::now(), cpu_ns());
            run();
            let nanoseconds = match (begun.1, cpu_ns()) {
                (Some(begun), Some(now)) => now - begun,
                _ => begun.0.elapsed().as_nanos() as u64,
            };
            nanoseconds as f64 / PAIRS as f64
        })
        .collect();
    runs.sort_unstable_by(f64::total_cmp);
    println!(
        r#"{{"scheduler":"{name}","threads":{threads},"parked":{parked},"median_ns":{:.1},"min_ns":{:.1},"max_ns":{:.1}}}"#,
        runs[RUNS / 2],
        runs[0],
        runs[RUNS - 1]
    );
}

/// Runs whoever was granted something, first come, first served.
struct Host {
    scheduler: Box<dyn Scheduler>,
    kind: Kind,
    threads: u32,
    position: u64,
    free: Vec<u32>,
    /// By thread: whether it owns its lock, and how many pairs it has done.
    state: Vec<(bool, u32)>,
    ready: VecDeque<u32>,
    grants: Vec<Grant>,
}

impl Host {
    fn new(scheduler: Box<dyn Scheduler>, threads: u32, kind: Kind) -> Self {
        Self {
            scheduler,
            kind,
            threads,
            position: 0,
            free: Vec::new(),
            state: Vec::new(),
            ready: VecDeque::new(),
            grants: Vec::new(),
        }
    }

    fn lock(&self, thread: u32) -> LockId {
        match self.kind {
            Kind::Shared => LockId(u128::from((thread + self.state[thread as usize].1) % 32)),
            Kind::Own | Kind::Declared => LockId(u128::from(thread) << 96),
        }
    }

    fn request(&mut self) {
        self.position += 1;
        let thread = self.free.pop().unwrap_or_else(|| {
            self.state.push((false, 0));
            self.state.len() as u32 - 1
        });
        let mut declaration = Declaration::default();
        if self.kind == Kind::Declared {
            declaration.lane = Lane::Declared;
            declaration.locks.push(DeclaredLock { lock: self.lock(thread), mode: Mode::Write, uses: 1 });
        }
        let request =
            Entry::Request { thread: ThreadIndex(thread), position: self.position, timestamp: 0, declaration };
        self.handle(Event::Entry(request));
    }

    /// Threads that wait for ever, beside those that are measured.
    fn park(&mut self, parked: u32) {
        let lock = LockId(1);
        for _ in 0..parked {
            self.request();
            while let Some(thread) = self.ready.pop_front() {
                let operation = match self.state[thread as usize].0 {
                    false => Operation::Lock { lock, mode: Mode::Write, timeout: None },
                    true => Operation::Wait { lock, queue: QueueId(0), timeout: None },
                };
                self.state[thread as usize].0 = true;
                self.handle(Event::Operation { thread: ThreadIndex(thread), operation });
            }
        }
        self.handle(Event::Entry(Entry::Flush));
    }

    fn run(&mut self, pairs: u64) {
        let mut done = 0;
        while done < pairs {
            let Some(thread) = self.ready.pop_front() else {
                assert!(self.scheduler.status().needs_flush);
                self.handle(Event::Entry(Entry::Flush));
                continue;
            };
            let lock = self.lock(thread);
            let state = &mut self.state[thread as usize];
            let operation = match state.0 {
                false if self.kind == Kind::Declared && state.1 == 1 => Operation::Finish,
                false => Operation::Lock { lock, mode: Mode::Write, timeout: None },
                true => {
                    state.1 = state.1.wrapping_add(1);
                    done += 1;
                    Operation::Unlock { lock }
                }
            };
            if operation == Operation::Finish {
                *state = (false, 0);
            } else {
                state.0 = !state.0;
            }
            self.handle(Event::Operation { thread: ThreadIndex(thread), operation });
        }
    }

    fn handle(&mut self, event: Event) {
        let mut grants = std::mem::take(&mut self.grants);
        self.scheduler.handle(event, &mut grants);
        for grant in grants.drain(..) {
            match grant {
                Grant::Start { thread } => self.ready.push_back(thread.0),
                Grant::Resume { thread, result, .. } => {
                    debug_assert_eq!(result, OperationResult::Granted);
                    self.ready.push_back(thread.0);
                }
                Grant::Finished { thread } => {
                    self.free.push(thread.0);
                    self.threads = self.threads.wrapping_add(1);
                }
                Grant::Call { .. } | Grant::Marked(_) | Grant::RoundEnded(_) => {}
            }
        }
        self.grants = grants;
        while self.kind == Kind::Declared
            && self.free.pop().is_some_and(|thread| {
                self.free.push(thread);
                true
            })
        {
            self.request();
        }
    }
}

/// What this thread has used so far (Linux).
fn cpu_ns() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}
