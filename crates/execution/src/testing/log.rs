//! A log in the making: requests, and what a leader, an operator and the outside would add to them.

use super::Options;
use super::replay::{Called, Run, Trace};
use crate::context::Random;
use crate::service::Service;
use crate::witness;
use std::collections::VecDeque;
use unisono_scheduler::Scheduler;
use unisono_types::{
    Bytes, CallAnswer, CallRefused, Position, RequestNumber, ScheduleChange, ScheduleClass, ScheduleOrder,
    SchedulePredicate, SequenceNumber, SessionId, Timestamp, Work, encode,
};

/// Entries that a recording adds at its end at most: handlers that wake up for ever must not record for ever.
const ADDED_ENTRIES_MAX: usize = 10_000;

/// Agreed time between two decisions of a recording, in microseconds: none, hardly any, what a busy cluster has, and a
/// pause. The same in one half of all cases, so that requests at one time meet.
const DISTANCES: [u64; 8] = [0, 0, 0, 1, 1_000, 2_000, 5_000, 50_000];

/// Flushes that a recording adds while a deadline waits.
const FLUSHES_PER_TICK: u32 = 8;

/// Sessions that a recording pretends.
const SESSIONS: u64 = 3;

/// What the outside says to a call of this target with this request, under this seed; `None`: nothing, ever.
pub type Oracle = fn(seed: u64, target: &str, request: &[u8]) -> Option<CallAnswer>;

/// An outside that nobody wrote: mostly it answers with eight bytes that depend on everything, now and then it knows no
/// such target, fails, or is silent.
#[must_use]
pub fn pretend(seed: u64, target: &str, request: &[u8]) -> Option<CallAnswer> {
    let answer = witness::hash(&encode(&(seed, target, request)));
    match answer % 8 {
        0 => None,
        1 => Some(Err(CallRefused::Unknown)),
        2 => Some(Err(CallRefused::Failed("pretended".to_owned()))),
        _ => Some(Ok(Bytes::copy_from_slice(&answer.to_le_bytes()))),
    }
}

/// A log, and what came of it in line.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The ordered work.
    pub log: Vec<Work>,
    /// What it came to.
    pub trace: Trace,
}

/// Executes `operations` in line. As a leader would, it adds Flushes and Ticks when nothing else can move what is left,
/// now and then at once, else at the end; and a Mark now and then, and last. Outside calls are answered at once, late,
/// twice, or never; some answers come that nobody has asked for. Agreed time never runs backwards; from decision to decision it
/// stands still, or takes a small or a large step, and now and then there is a Tick that nobody needs.
pub fn record<S: Service>(scheduler: Box<dyn Scheduler>, operations: &[Vec<u8>], seed: u64) -> Recording {
    record_with::<S>(&Options::default(), scheduler, operations, seed)
}

/// [`record`], otherwise than by default.
pub fn record_with<S: Service>(
    options: &Options,
    scheduler: Box<dyn Scheduler>,
    operations: &[Vec<u8>],
    seed: u64,
) -> Recording {
    let mut recorder = Recorder {
        random: Random::new(seed),
        run: Run::new::<S>(scheduler, 0, 0),
        log: Log::default(),
        outside: Outside { seed, oracle: options.oracle, answers: VecDeque::new() },
    };
    let reconfigure = options.reconfigure && seed % 2 == 1;
    let mut rest = operations;
    while !rest.is_empty() {
        let (decision, behind) = rest.split_at((1 + recorder.random.below(6)).min(rest.len()));
        rest = behind;
        recorder.log.pass(DISTANCES[recorder.random.below(DISTANCES.len())]);
        let works = recorder.log.decision(decision, recorder.random.next_number());
        recorder.submit(works);
        if recorder.random.below(8) == 0 {
            let tick = recorder.log.tick();
            recorder.submit([tick]);
        }
        if recorder.random.below(4) == 0 {
            let mark = recorder.log.mark();
            recorder.submit([mark]);
        }
        if reconfigure && recorder.random.below(4) == 0 {
            let change = recorder.log.add(Work::Reconfigure(change(&mut recorder.random)));
            recorder.submit([change]);
        }
        recorder.add_answers();
        if recorder.random.below(2) == 0 {
            recorder.add_what_is_missing();
        }
    }
    for _ in 0..ADDED_ENTRIES_MAX {
        if !recorder.add_what_is_missing() && !recorder.add_answer() {
            break;
        }
    }
    recorder.run.executor.submit(recorder.log.mark());
    Recording { trace: recorder.run.finish(), log: recorder.log.works }
}

struct Recorder {
    random: Random,
    run: Run,
    log: Log,
    outside: Outside,
}

/// The pretended outside, with the answers that are on their way.
struct Outside {
    seed: u64,
    oracle: Oracle,
    answers: VecDeque<Work>,
}

impl Recorder {
    fn submit(&mut self, works: impl IntoIterator<Item = Work>) {
        self.run.executor.submit_all(works);
        self.run.settle();
        for call in self.run.called.drain(..) {
            if let Some(answer) = (self.outside.oracle)(self.outside.seed, &call.target, &call.request) {
                let Called { position, path, call, .. } = call;
                // The time is that of its arrival.
                let answer = Work::Answer { position, path, call, timestamp: Timestamp(0), answer };
                if self.random.below(8) == 0 {
                    self.outside.answers.push_back(answer.clone());
                }
                self.outside.answers.push_back(answer);
            }
        }
    }

    /// Some of the answers that are on their way arrive, not in the order of the calls; and some that nobody asked for.
    fn add_answers(&mut self) {
        while self.random.below(3) > 0 && self.add_answer() {}
        if self.random.below(8) == 0 {
            let position = Position::new(self.log.sequence, self.random.below(4) as u32).expect("a recording is short");
            let path = vec![1; self.random.below(3)];
            let answer = Ok(Bytes::from_static(b"unasked"));
            let call = self.random.below(3) as u32;
            self.answer(Work::Answer { position, path, call, timestamp: Timestamp(0), answer });
        }
    }

    fn add_answer(&mut self) -> bool {
        let pick = self.random.below(self.outside.answers.len());
        let Some(answer) = self.outside.answers.remove(pick) else { return false };
        self.answer(answer);
        true
    }

    /// An answer is decided now.
    fn answer(&mut self, mut answer: Work) {
        self.log.pass(DISTANCES[self.random.below(DISTANCES.len())]);
        if let Work::Answer { timestamp, .. } = &mut answer {
            *timestamp = Timestamp(self.log.timestamp);
        }
        let answer = self.log.add(answer);
        self.submit([answer]);
    }

    fn add_what_is_missing(&mut self) -> bool {
        let Some((flush, tick)) = self.run.starved.take() else { return false };
        // A need for time is said once; it is still there after the Flush.
        self.run.starved = tick.filter(|_| flush).map(|tick| (false, Some(tick)));
        let Some(work) = self.log.entry_for((flush, tick)) else { return false };
        self.submit([work]);
        true
    }
}

/// Any change of the parameters.
fn change(random: &mut Random) -> ScheduleChange {
    let number = |random: &mut Random, bound| 1 + random.below(bound) as u32;
    let mut change = ScheduleChange::default();
    if random.below(2) == 0 {
        change.primaries = Some(number(random, 8));
    }
    if random.below(2) == 0 {
        change.steps = Some(if random.below(4) == 0 { u32::MAX } else { number(random, 4) });
    }
    if random.below(3) == 0 {
        change.order = Some(match random.below(3) {
            0 => ScheduleOrder::RoundRobin,
            1 => ScheduleOrder::Quantum(number(random, 3)),
            _ => ScheduleOrder::Explicit((0..random.below(6)).map(|_| random.below(6) as u16).collect()),
        });
    }
    if random.below(4) == 0 {
        change.flush_rounds = Some(number(random, 16));
    }
    if random.below(3) == 0 {
        change.predicate = Some(match random.below(3) {
            0 => SchedulePredicate::All,
            1 => SchedulePredicate::FutureLocks,
            _ => SchedulePredicate::Classes(vec![ScheduleClass {
                class: random.below(3) as u16,
                every: number(random, 3),
                phase: number(random, 3),
            }]),
        });
    }
    change
}

#[derive(Default)]
struct Log {
    works: Vec<Work>,
    sequence: SequenceNumber,
    timestamp: u64,
    requests: u64,
    /// Added since the last Tick.
    flushes: u32,
}

impl Log {
    /// Agreed time goes on.
    fn pass(&mut self, microseconds: u64) {
        self.timestamp += microseconds;
    }

    fn tick(&mut self) -> Work {
        self.add(Work::Tick(Timestamp(self.timestamp)))
    }

    /// All requests of a decision have its time.
    fn decision(&mut self, operations: &[Vec<u8>], sessions: u64) -> Vec<Work> {
        self.sequence = self.sequence.next();
        let requests = operations.iter().zip(0..).map(|(operation, index)| {
            self.requests += 1;
            Work::Request {
                position: Position::new(self.sequence, index).expect("a recording is short"),
                timestamp: Timestamp(self.timestamp),
                session: SessionId(sessions % SESSIONS),
                number: RequestNumber(self.requests),
                operation: Bytes::from(operation.clone()),
            }
        });
        let requests: Vec<Work> = requests.collect();
        self.works.extend_from_slice(&requests);
        requests
    }

    fn mark(&mut self) -> Work {
        self.sequence = self.sequence.next();
        self.add(Work::Mark(self.sequence))
    }

    /// What a leader would add: a Flush while one is needed, else the Tick for the earliest deadline. Its clock goes on
    /// while it adds Flushes.
    fn entry_for(&mut self, (flush, tick): (bool, Option<Timestamp>)) -> Option<Work> {
        if flush && (tick.is_none() || self.flushes < FLUSHES_PER_TICK) {
            self.flushes += 1;
            return Some(self.add(Work::Flush));
        }
        self.flushes = 0;
        self.timestamp = self.timestamp.max(tick?.0);
        Some(self.tick())
    }

    fn add(&mut self, work: Work) -> Work {
        self.works.push(work.clone());
        work
    }
}
