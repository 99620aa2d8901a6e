//! Keeps the last events of the schedule in a ring, while somebody has switched it on. See [`crate::recording`] for what
//! an event means.
//!
//! Invariant: at most `limit` events are kept, about 100 bytes each and their thread's name, which they share. Off, it
//! costs a branch per event of the scheduler.

use crate::object::Registry;
use crate::recording::{AskedOperation, AskedResult, EventKind, RecordedEvent, RecordedThread, Recording, WaitReason};
use crate::thread::Name;
use crate::witness::lock_of;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use unisono_scheduler::{LockId, Mode, Operation, OperationResult, Order, Predicate, RoundEnd, Standing};

/// Tells the time in microseconds, from wherever the host counts.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// More events are not kept, whatever was asked for: some 30 megabytes.
const EVENTS_MAX: usize = 1 << 18;

pub(super) struct Recorder {
    limit: usize,
    clock: Option<Clock>,
    /// How many there have been.
    count: u64,
    events: VecDeque<Kept>,
    /// Of the scheduler, as of the event that is being recorded.
    round: u64,
    /// By slot: the names of live threads that have had events.
    names: HashMap<u32, Arc<Name>>,
    /// By slot: who waits, and why as it was last recorded.
    waiting: BTreeMap<u32, WaitReason>,
    /// Those of them that wait within the round, as its primaries.
    inside: BTreeSet<u32>,
    /// A round has ended since `restless` was asked last.
    ended: bool,
}

struct Kept {
    time: u64,
    round: u64,
    thread: Option<Arc<Name>>,
    what: What,
}

enum What {
    Kind(EventKind),
    Asked(AskedOperation, Option<LockId>),
    RoundEnded(Box<RoundEnd>),
}

impl Recorder {
    pub(super) fn new(limit: usize, clock: Option<Clock>) -> Self {
        Self {
            limit: limit.clamp(1, EVENTS_MAX),
            clock,
            count: 0,
            events: VecDeque::new(),
            round: 0,
            names: HashMap::new(),
            waiting: BTreeMap::new(),
            inside: BTreeSet::new(),
            ended: false,
        }
    }

    pub(super) const fn set_round(&mut self, round: u64) {
        self.round = round;
    }

    pub(super) fn ahead(&mut self, slot: u32, name: &Name) {
        self.thread(slot, name, What::Kind(EventKind::Ahead));
    }

    pub(super) fn selected(&mut self, slot: u32, name: &Name) {
        self.thread(slot, name, What::Kind(EventKind::Selected));
    }

    pub(super) fn runs(&mut self, slot: u32, name: &Name, worker: Option<usize>) {
        let worker = worker.map(|worker| u16::try_from(worker).unwrap_or(u16::MAX));
        self.thread(slot, name, What::Kind(EventKind::Runs { worker }));
    }

    pub(super) fn asked(&mut self, slot: u32, name: &Name, operation: &Operation) {
        let asked = match operation {
            Operation::Lock { mode: Mode::Write, .. } => AskedOperation::Lock,
            Operation::Lock { mode: Mode::Read, .. } => AskedOperation::Read,
            Operation::Try { .. } => AskedOperation::Try,
            Operation::Unlock { .. } => AskedOperation::Unlock,
            Operation::Wait { .. } => AskedOperation::Wait,
            Operation::Notify { .. } => AskedOperation::Notify,
            Operation::Sleep { .. } => AskedOperation::Sleep,
            Operation::Yield => AskedOperation::Yield,
            Operation::Spawn { .. } => AskedOperation::Spawn,
            Operation::Join { .. } => AskedOperation::Join,
            Operation::External { .. } => AskedOperation::Call,
            Operation::Reconfigure(_) => AskedOperation::Reconfigure,
            Operation::Finish => AskedOperation::Finish,
        };
        self.thread(slot, name, What::Asked(asked, lock_of(operation)));
    }

    pub(super) fn resumed(&mut self, slot: u32, name: &Name, result: OperationResult) {
        self.waits_no_more(slot);
        let result = match result {
            OperationResult::Granted => AskedResult::Granted,
            OperationResult::TimedOut => AskedResult::TimedOut,
            OperationResult::Deadlock => AskedResult::Deadlock,
            OperationResult::NotPossible => AskedResult::NotPossible,
            OperationResult::Occupied => AskedResult::Occupied,
            OperationResult::NotDeclared => AskedResult::NotDeclared,
        };
        self.thread(slot, name, What::Kind(EventKind::Resumed { result }));
    }

    /// Where the thread stands whose operation is not done yet; recorded when it is another place than before.
    pub(super) fn stands(&mut self, slot: u32, name: &Name, standing: Standing) {
        let reason = match standing {
            Standing::Nowhere | Standing::Running => return,
            Standing::Fresh | Standing::NotPrimary => WaitReason::Selection,
            Standing::AwaitingTurn => WaitReason::Turn,
            Standing::OutOfSteps => WaitReason::Step,
            Standing::Enqueued => WaitReason::Queue,
            Standing::Trying => WaitReason::EndOfRound,
            Standing::Blocked => WaitReason::ParkedOwner,
            Standing::Ticket => WaitReason::Ticket,
            Standing::Waiting => WaitReason::Notification,
            Standing::Sleeping => WaitReason::Time,
            Standing::Joining => WaitReason::Child,
            Standing::External => WaitReason::Answer,
        };
        if matches!(reason, WaitReason::Turn | WaitReason::Step | WaitReason::Queue | WaitReason::EndOfRound) {
            self.inside.insert(slot);
        } else {
            self.inside.remove(&slot);
        }
        if self.waiting.insert(slot, reason) != Some(reason) {
            self.thread(slot, name, What::Kind(EventKind::Waits { reason }));
        }
    }

    /// Threads that may stand elsewhere now: primaries that wait within their round; and when a round has ended, those
    /// that it may have blocked, woken or left behind.
    pub(super) fn restless(&mut self) -> Vec<u32> {
        if !std::mem::take(&mut self.ended) {
            return self.inside.iter().copied().collect();
        }
        let stays = |reason: &WaitReason| {
            matches!(reason, WaitReason::Time | WaitReason::Child | WaitReason::Answer | WaitReason::Ticket)
        };
        self.waiting.iter().filter(|(_, reason)| !stays(reason)).map(|(slot, _)| *slot).collect()
    }

    pub(super) fn finished(&mut self, slot: u32, name: &Name) {
        self.thread(slot, name, What::Kind(EventKind::Finished));
        self.waits_no_more(slot);
        self.names.remove(&slot);
    }

    pub(super) fn round_ended(&mut self, end: Box<RoundEnd>) {
        self.round = end.round;
        self.push(None, What::RoundEnded(end));
        self.round += 1;
        self.ended = true;
    }

    fn waits_no_more(&mut self, slot: u32) {
        self.waiting.remove(&slot);
        self.inside.remove(&slot);
    }

    fn thread(&mut self, slot: u32, name: &Name, what: What) {
        let known = self.names.entry(slot).or_insert_with(|| Arc::new(name.clone()));
        if **known != *name {
            *known = Arc::new(name.clone()); // the slot's thread before left without a word: it was never born
        }
        let thread = Arc::clone(known);
        self.push(Some(thread), what);
    }

    fn push(&mut self, thread: Option<Arc<Name>>, what: What) {
        let time = self.clock.as_ref().map_or(self.count, |clock| clock());
        self.count += 1;
        if self.events.len() == self.limit {
            self.events.pop_front();
        }
        self.events.push_back(Kept { time, round: self.round, thread, what });
    }

    /// What is kept.
    pub(super) fn recording(&self, registry: &Registry) -> Recording {
        let locks: BTreeSet<LockId> = self.events.iter().filter_map(Kept::lock).collect();
        let mut names = registry.lock_names(&locks);
        let mut object_of = BTreeMap::new();
        let mut objects = Vec::new();
        for lock in locks {
            object_of.insert(lock, objects.len() as u32);
            objects.push(names.remove(&lock).unwrap_or_else(|| format!("{lock:?}")));
        }
        let mut threads = Vec::new();
        let mut thread_of: HashMap<*const Name, u32> = HashMap::new();
        let mut thread = |name: &Arc<Name>| {
            *thread_of.entry(Arc::as_ptr(name)).or_insert_with(|| {
                let Name { position, path, handler, .. } = &**name;
                threads.push(RecordedThread {
                    position: *position,
                    path: path.clone(),
                    handler: (*handler).to_owned(),
                });
                threads.len() as u32 - 1
            })
        };
        let forgotten = self.count - self.events.len() as u64;
        let events = self.events.iter().zip(forgotten..).map(|(kept, number)| RecordedEvent {
            number,
            time: kept.time,
            round: kept.round,
            thread: kept.thread.as_ref().map(&mut thread),
            kind: kept.what.kind(&object_of),
        });
        let events = events.collect();
        Recording { clocked: self.clock.is_some(), forgotten, threads, objects, events }
    }
}

impl Kept {
    const fn lock(&self) -> Option<LockId> {
        match self.what {
            What::Asked(_, lock) => lock,
            _ => None,
        }
    }
}

impl What {
    fn kind(&self, object_of: &BTreeMap<LockId, u32>) -> EventKind {
        match self {
            Self::Kind(kind) => kind.clone(),
            Self::Asked(operation, lock) => {
                let object = lock.and_then(|lock| object_of.get(&lock).copied());
                EventKind::Asked { operation: *operation, object }
            }
            Self::RoundEnded(end) => EventKind::RoundEnded {
                primaries: end.primaries as u32,
                admitted: end.admitted as u32,
                next_primaries: end.parameters.primaries,
                next_steps: end.parameters.steps,
                next_order: match &end.parameters.order {
                    Order::RoundRobin => "round-robin".to_owned(),
                    Order::Quantum(steps) => format!("quantum {steps}"),
                    Order::Explicit(slots) => format!("explicit, {} places", slots.len()),
                },
                next_predicate: match &end.parameters.predicate {
                    Predicate::All => "all".to_owned(),
                    Predicate::Classes(rules) => format!("classes, {} rules", rules.len()),
                    Predicate::FutureLocks => "future locks".to_owned(),
                },
            },
        }
    }
}
