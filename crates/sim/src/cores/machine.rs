//! The machine: m cores, a log, a scheduler, and nothing else.
//!
//! Local choices are those of the executor: a core goes on with its thread as long as it is granted what it asks for, takes
//! what is ready in the order of the grants, and when nothing is ready begins a thread that may run ahead.

use super::profile::{Script, Step, lock_id};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use unisono_scheduler::{Entry, Event, Grant, Lane, Mode, Operation, OperationResult, Scheduler, ThreadIndex};

/// What a machine is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// m.
    pub cores: usize,
    /// What each operation costs its core, in nanoseconds: little beside what is computed, and not nothing.
    pub operation: u64,
    /// How the log grows.
    pub feeding: Feeding,
    /// Requests that are under way at once: in the log or begun, and not finished.
    pub outstanding: usize,
}

/// How the log grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feeding {
    /// It always holds what there is; a Flush comes only when nothing else can.
    Full,
    /// By agreement: what was sent, and a Flush when one is needed, is cut into a batch each `every` nanoseconds and
    /// arrives `agreement` nanoseconds later. Each finished request's client sends the next one at once.
    Batches {
        /// Between two batches.
        every: u64,
        /// From the cut to the arrival.
        agreement: u64,
    },
}

impl Machine {
    /// With a log that is always full.
    #[must_use]
    pub const fn of(cores: usize) -> Self {
        Self { cores, operation: 50, feeding: Feeding::Full, outstanding: 4_096 }
    }
}

/// What came of a load.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Run {
    /// Cores that were busy on average, from the first tenth of the requests to the last: they do nothing that one core
    /// would not do too, so this is the speed-up.
    pub speed_up: f64,
    /// Requests per second that one core would finish.
    pub sequential: f64,
    /// Rounds begun.
    pub rounds: u64,
    /// Flushes ordered.
    pub flushes: u64,
    /// Virtual nanoseconds from beginning to end.
    pub time: u64,
}

impl Machine {
    /// Runs all `scripts` to their end; `start_ahead` threads may begin before they are selected.
    ///
    /// # Panics
    /// When the scheduler lets it hang, or refuses a lock.
    #[must_use]
    pub fn run(&self, scheduler: Box<dyn Scheduler>, start_ahead: usize, lane: Lane, scripts: &[Script]) -> Run {
        let mut engine = Engine::new(self, scheduler, start_ahead, lane, scripts);
        engine.fill();
        loop {
            engine.occupy();
            let Some(Reverse((time, _, happening))) = engine.agenda.pop() else {
                if engine.finished == scripts.len() {
                    return engine.result();
                }
                engine.flush();
                continue;
            };
            engine.pass(time);
            match happening {
                Happening::Stepped(thread) => engine.stepped(thread),
                Happening::Cut => engine.cut(),
                Happening::Arrived(requests, flush) => engine.arrived(requests, flush),
            }
            if self.feeding == Feeding::Full {
                engine.arrive();
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Happening {
    /// The thread on some core has done its step.
    Stepped(u32),
    /// A batch is cut.
    Cut,
    /// A batch of so many requests, and perhaps a Flush, arrives.
    Arrived(usize, bool),
}

struct Engine<'a> {
    machine: &'a Machine,
    scheduler: Box<dyn Scheduler>,
    start_ahead: usize,
    lane: Lane,
    scripts: &'a [Script],
    agenda: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    /// Happenings so far: those of one moment happen in the order in which they were foreseen.
    foreseen: u64,
    now: u64,
    threads: Vec<Thread>,
    free: Vec<u32>,
    /// In the order of the grants.
    ready: VecDeque<u32>,
    /// Nobody has begun them; those begun meanwhile are skipped.
    fresh: VecDeque<u32>,
    ahead: usize,
    busy: usize,
    /// Nanoseconds of all cores so far.
    worked: u64,
    /// Scripts sent, in the log, finished.
    sent: usize,
    arrived: usize,
    finished: usize,
    flushes: u64,
    /// A Flush is on its way.
    flushing: bool,
    /// When the measured part began, and what had been worked by then.
    begin: Option<(u64, u64)>,
    end: Option<(u64, u64)>,
    /// The thread whose operation is just performed, and whether it was granted.
    asking: Option<u32>,
    answered: bool,
    grants: Vec<Grant>,
}

#[derive(Clone, Copy, Debug)]
struct Thread {
    script: usize,
    /// Its next step.
    at: usize,
    phase: Phase,
    /// Counts in `Engine::ahead`.
    ahead: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Vacant,
    Fresh,
    Ready,
    /// On a core.
    Running,
    /// Its operation waits in the scheduler.
    Waiting,
}

impl<'a> Engine<'a> {
    fn new(
        machine: &'a Machine,
        scheduler: Box<dyn Scheduler>,
        start_ahead: usize,
        lane: Lane,
        scripts: &'a [Script],
    ) -> Self {
        Self {
            machine,
            scheduler,
            start_ahead,
            lane,
            scripts,
            agenda: BinaryHeap::new(),
            foreseen: 0,
            now: 0,
            threads: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            fresh: VecDeque::new(),
            ahead: 0,
            busy: 0,
            worked: 0,
            sent: 0,
            arrived: 0,
            finished: 0,
            flushes: 0,
            flushing: false,
            begin: None,
            end: None,
            asking: None,
            answered: false,
            grants: Vec::new(),
        }
    }

    fn result(&self) -> Run {
        let ((begin, before), (end, after)) = self.begin.zip(self.end).unwrap_or(((0, 0), (self.now, self.worked)));
        let requests = self.scripts.len() as f64;
        Run {
            speed_up: (after - before) as f64 / (end - begin).max(1) as f64,
            sequential: requests * 1e9 / (self.worked as f64).max(1.0),
            rounds: self.scheduler.status().round,
            flushes: self.flushes,
            time: self.now,
        }
    }

    fn foresee(&mut self, delay: u64, happening: Happening) {
        self.foreseen += 1;
        self.agenda.push(Reverse((self.now + delay, self.foreseen, happening)));
    }

    fn pass(&mut self, time: u64) {
        self.worked += (time - self.now) * self.busy as u64;
        self.now = time;
    }

    // -- the log

    fn fill(&mut self) {
        self.sent = self.scripts.len().min(self.machine.outstanding);
        match self.machine.feeding {
            Feeding::Full => self.arrive(),
            Feeding::Batches { .. } => self.cut(),
        }
    }

    /// All that was sent is in the log now.
    fn arrive(&mut self) {
        while self.arrived < self.sent {
            let position = self.arrived as u64;
            let thread = Thread { script: self.arrived, at: 0, phase: Phase::Fresh, ahead: false };
            let index = match self.free.pop() {
                Some(index) => {
                    self.threads[index as usize] = thread;
                    index
                }
                None => {
                    self.threads.push(thread);
                    self.threads.len() as u32 - 1
                }
            };
            self.fresh.push_back(index);
            let declaration = self.scripts[self.arrived].declaration(self.lane);
            self.arrived += 1;
            self.handle(Event::Entry(Entry::Request {
                thread: ThreadIndex(index),
                position,
                timestamp: 0,
                declaration,
            }));
        }
    }

    fn cut(&mut self) {
        let Feeding::Batches { every, agreement } = self.machine.feeding else { return };
        let status = self.scheduler.status();
        let flush = !self.flushing && status.needs_flush;
        let idle = self.busy == 0 && self.agenda.is_empty() && self.arrived == self.sent;
        assert!(flush || !idle || self.finished == self.scripts.len(), "nothing can go on: {status:?}");
        self.flushing |= flush;
        self.foresee(agreement, Happening::Arrived(self.sent, flush));
        if self.finished < self.scripts.len() {
            self.foresee(every, Happening::Cut);
        }
    }

    fn arrived(&mut self, sent: usize, flush: bool) {
        let later = std::mem::replace(&mut self.sent, sent.max(self.arrived));
        self.arrive();
        self.sent = later;
        if flush {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let status = self.scheduler.status();
        let hangs = self.machine.feeding == Feeding::Full && !status.needs_flush;
        assert!(!hangs, "nothing can go on: {status:?}");
        self.flushing = false;
        self.flushes += 1;
        self.handle(Event::Entry(Entry::Flush));
    }

    // -- the cores

    /// Gives idle cores something to do.
    fn occupy(&mut self) {
        while self.busy < self.machine.cores {
            let Some(thread) = self.ready.pop_front().or_else(|| self.begin_ahead()) else { return };
            self.busy += 1;
            self.threads[thread as usize].phase = Phase::Running;
            self.go_on(thread);
        }
    }

    fn begin_ahead(&mut self) -> Option<u32> {
        while self.fresh.front().is_some_and(|index| self.threads[*index as usize].phase != Phase::Fresh) {
            self.fresh.pop_front();
        }
        if self.ahead >= self.start_ahead {
            return None;
        }
        let index = self.fresh.pop_front()?;
        self.threads[index as usize].ahead = true;
        self.ahead += 1;
        Some(index)
    }

    /// The thread's next step takes its time.
    fn go_on(&mut self, thread: u32) {
        let Thread { script, at, .. } = self.threads[thread as usize];
        let time = match self.scripts[script].0.get(at) {
            Some(Step::Compute(time)) => *time,
            Some(Step::Lock(_) | Step::Unlock(_)) | None => self.machine.operation,
        };
        self.foresee(time, Happening::Stepped(thread));
    }

    fn stepped(&mut self, index: u32) {
        let thread = &mut self.threads[index as usize];
        let step = self.scripts[thread.script].0.get(thread.at);
        thread.at += 1;
        let operation = match step {
            Some(Step::Compute(_)) => return self.go_on(index),
            Some(Step::Lock(lock)) => Operation::Lock { lock: lock_id(*lock), mode: Mode::Write, timeout: None },
            Some(Step::Unlock(lock)) => Operation::Unlock { lock: lock_id(*lock) },
            None => Operation::Finish,
        };
        thread.phase = Phase::Waiting;
        self.asking = Some(index);
        self.handle(Event::Operation { thread: ThreadIndex(index), operation });
        self.asking = None;
        // What is granted at once goes on where it is.
        if std::mem::take(&mut self.answered) {
            self.threads[index as usize].phase = Phase::Running;
            self.go_on(index);
        } else {
            self.busy -= 1;
        }
    }

    fn handle(&mut self, event: Event) {
        let mut grants = std::mem::take(&mut self.grants);
        self.scheduler.handle(event, &mut grants);
        for grant in grants.drain(..) {
            match grant {
                Grant::Start { thread } => {
                    self.selected(thread.0);
                    if self.threads[thread.0 as usize].phase == Phase::Fresh {
                        self.make_ready(thread.0);
                    }
                }
                Grant::Resume { thread, result, .. } => {
                    assert_eq!(result, OperationResult::Granted, "a lock is always granted in the end");
                    self.selected(thread.0);
                    if self.asking == Some(thread.0) {
                        self.answered = true;
                    } else {
                        self.make_ready(thread.0);
                    }
                }
                Grant::Finished { thread } => {
                    self.selected(thread.0);
                    self.threads[thread.0 as usize].phase = Phase::Vacant;
                    self.free.push(thread.0);
                    self.finish();
                }
                Grant::Call { .. } | Grant::Marked(_) | Grant::RoundEnded(_) => unreachable!("no script asks for that"),
            }
        }
        self.grants = grants;
    }

    fn selected(&mut self, thread: u32) {
        if std::mem::take(&mut self.threads[thread as usize].ahead) {
            self.ahead -= 1;
        }
    }

    fn make_ready(&mut self, thread: u32) {
        self.threads[thread as usize].phase = Phase::Ready;
        self.ready.push_back(thread);
    }

    fn finish(&mut self) {
        self.finished += 1;
        self.sent = self.scripts.len().min(self.finished + self.machine.outstanding);
        let moment = (self.now, self.worked);
        if self.finished >= self.scripts.len() / 10 {
            self.begin.get_or_insert(moment);
        }
        if self.finished >= self.scripts.len() - self.scripts.len() / 10 {
            self.end.get_or_insert(moment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Best, Profile, Setting};
    use super::*;
    use unisono_scheduler::{Parameters, Status};

    const C: u64 = 20_000;

    fn scripts(profile: &str, count: usize) -> Vec<Script> {
        Profile::named(profile).unwrap().scripts(count, C, 3)
    }

    fn uds(primaries: u32, steps: u32, ahead: usize) -> Setting {
        Setting::Uds(Parameters { primaries, steps, ..Parameters::uds() }, ahead)
    }

    #[test]
    fn what_shares_nothing_uses_all_cores_and_what_shares_all_uses_one() {
        let machine = Machine::of(4);
        let speed_up = |setting: &Setting, profile| setting.run(&machine, &scripts(profile, 400)).speed_up;
        for setting in [Setting::Free(64), uds(32, 4, 64), Setting::Declared] {
            assert!((speed_up(&setting, "C") - 4.0).abs() < 0.2, "{setting}");
            assert!((speed_up(&setting, "L1-C-U") - 1.0).abs() < 0.01, "{setting}");
        }
        assert!((speed_up(&Setting::Sequential, "C") - 1.0).abs() < 0.01);
        let run = Setting::Sequential.run(&machine, &scripts("C", 400));
        assert!((run.sequential - 1e9 / (C + machine.operation) as f64).abs() < 1.0, "{run:?}");
    }

    #[test]
    fn a_run_is_a_function_of_its_arguments() {
        let machine = Machine { feeding: Feeding::Batches { every: 50_000, agreement: 400_000 }, ..Machine::of(3) };
        let run = || uds(24, 2, 24).run(&machine, &scripts("nested-64", 500));
        assert_eq!(run(), run());
    }

    #[test]
    fn a_log_that_agreement_fills_costs_flushes_and_some_time() {
        let machine = Machine { outstanding: 60, ..Machine::of(4) };
        let fed = Machine { feeding: Feeding::Batches { every: 100_000, agreement: 500_000 }, ..machine };
        let scripts = scripts("three-of-256", 2_000);
        let (full, fed) = (uds(64, 4, 128).run(&machine, &scripts), uds(64, 4, 128).run(&fed, &scripts));
        assert!(full.flushes > 0 && fed.flushes > 0, "a round of 64 never fills: {full:?} {fed:?}");
        assert!((0.5..1.0).contains(&(fed.speed_up / full.speed_up)), "{full:?} {fed:?}");
    }

    /// The goals are for 16 cores: `unisono-bench scheduler --simulate` holds the figures against them. Here the same
    /// share of four cores.
    #[test]
    fn the_share_of_the_cores_that_the_goals_ask_for_is_used() {
        let machine = Machine { outstanding: 300, ..Machine::of(4) };
        for profile in Profile::ALL {
            let Some((_, goal)) = profile.goal else { continue };
            let best =
                Best::of(&[uds(64, 4, 128), Setting::Declared], &machine, &scripts(profile.name, 1_000)).unwrap();
            assert!(best.run.speed_up / 4.0 >= goal / 16.0, "{}: {best:?}", profile.name);
        }
    }

    /// Starts everybody and grants nothing.
    struct Deaf;

    impl Scheduler for Deaf {
        fn handle(&mut self, _: Event, _: &mut Vec<Grant>) {}

        fn status(&self) -> Status {
            Status::default()
        }
    }

    #[test]
    #[should_panic(expected = "nothing can go on")]
    fn a_hang_is_no_result() {
        let _ = Machine::of(2).run(Box::new(Deaf), 2, Lane::Undeclared, &scripts("C-LU", 10));
    }

    #[test]
    #[should_panic(expected = "nothing can go on")]
    fn a_hang_is_no_result_with_batches_either() {
        let machine = Machine { feeding: Feeding::Batches { every: 1_000, agreement: 1_000 }, ..Machine::of(2) };
        let _ = machine.run(Box::new(Deaf), 2, Lane::Undeclared, &scripts("C-LU", 10));
    }

    /// Refuses every lock.
    struct Grudging;

    impl Scheduler for Grudging {
        fn handle(&mut self, event: Event, grants: &mut Vec<Grant>) {
            match event {
                Event::Operation { thread, operation: Operation::Lock { .. } } => {
                    grants.push(Grant::Resume { thread, result: OperationResult::Deadlock, now: 0 });
                }
                Event::Entry(Entry::Request { thread, .. }) => grants.push(Grant::Start { thread }),
                _ => {}
            }
        }

        fn status(&self) -> Status {
            Status::default()
        }
    }

    #[test]
    #[should_panic(expected = "a lock is always granted")]
    fn a_refusal_is_no_grant() {
        let _ = Machine::of(2).run(Box::new(Grudging), 0, Lane::Undeclared, &scripts("C-LU", 10));
    }
}
