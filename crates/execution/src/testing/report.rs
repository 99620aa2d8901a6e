//! Where two executions of one log part, in words, and whose doing it was.

use super::log::Recording;
use super::replay::{Execution, Trace};
use crate::service::Service;
use crate::witness::{EarlierTime, Fact, Journal};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use unisono_scheduler::{LockId, Mode, Operation};
use unisono_types::{Bytes, Position, Work};

/// Bytes of an operation or a result that a report shows.
const SHOWN_BYTES: usize = 64;

/// What is wrong with a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// Two executions of one log are not equal.
    NotDeterministic,
    /// A handler wrote a time below one that it had read.
    EarlierTime,
}

/// Two executions of one log that are not equal, or one in which time runs backwards: what is wrong with a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Of which kind.
    pub defect: Defect,
    /// The seed of the recording.
    pub seed: u64,
    /// Which of the [`super::policies`], if it was one of them.
    pub policy: &'static str,
    /// What differs from the execution in line.
    pub execution: Execution,
    /// Who did it; `None`: no handler can be blamed.
    pub culprit: Option<Box<Culprit>>,
    /// The first thing that differs.
    pub what: String,
    /// What is often the reason.
    pub hint: &'static str,
}

/// The handler that, having learnt the same as in the other execution, did something else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Culprit {
    /// Its name.
    pub handler: &'static str,
    /// Its request.
    pub request: Position,
    /// Which child of which child of the request; empty: the request's own handler.
    pub path: Vec<u16>,
    /// What the request asks for.
    pub operation: Bytes,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.culprit, self.defect) {
            (Some(culprit), Defect::NotDeterministic) => write!(f, "handler {culprit} is not deterministic")?,
            (Some(culprit), Defect::EarlierTime) => write!(f, "handler {culprit} writes a time that has passed")?,
            (None, _) => write!(f, "two executions differ, and no handler did it")?,
        }
        let what = if self.defect == Defect::EarlierTime { "what it wrote" } else { "what differs" };
        write!(f, "\n  {what}: {}\n  hint: {}\n  schedule: seed {}", self.what, self.hint, self.seed)?;
        if !self.policy.is_empty() {
            write!(f, ", policy \"{}\"", self.policy)?;
        }
        write!(f, ", {:?} against InLine", self.execution)
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of request {:?}", self.handler, self.request)?;
        if !self.path.is_empty() {
            write!(f, ", child {:?},", self.path)?;
        }
        write!(f, " (operation {})", shown(&self.operation))
    }
}

impl std::error::Error for Difference {}

const HINT_ORDER: &str = "it did another thing, or the same things in another order: does it walk through a HashMap or \
HashSet, or decide by a clock, by random numbers that are not the Context's, or by state outside of the service?";

const HINT_VALUE: &str = "it made another value of what it was given: does it read a clock, the environment, an address, \
random numbers that are not the Context's, or walk through a HashMap or HashSet?";

const HINT_OUTSIDE: &str = "every handler did the same as long as it learnt the same: is there shared state outside of the \
service's locks, or is the scheduler at fault?";

const HINT_TIME: &str = "it read `cx.now()` before it owned the lock, and others owned the lock meanwhile: read the time when the \
lock is owned, and again after each wait. A moment that is meant to be the earlier one is handed in as a number.";

const HINT_SCHEDULER: &str = "the thread's own `cx.now()` is below that of a thread that owned the lock before it: the scheduler \
is at fault, its time is not causal.";

/// The handler that wrote an earlier time.
fn earlier_time<S: Service>(
    seed: u64,
    log: &[Work],
    execution: Execution,
    names: &BTreeMap<LockId, String>,
    found: &EarlierTime,
) -> Difference {
    let EarlierTime { position, path, lock, written, read, now } = found;
    let operation = operation_of(log, *position);
    let culprit = Culprit { handler: S::handler(&operation), request: *position, path: path.clone(), operation };
    let name = names.get(lock).cloned().unwrap_or_else(|| format!("{lock:?}"));
    let what = format!("time {written} under {name}, which others have owned at {read}");
    let hint = if now < read { HINT_SCHEDULER } else { HINT_TIME };
    let culprit = Some(Box::new(culprit));
    Difference { defect: Defect::EarlierTime, seed, policy: "", execution, culprit, what, hint }
}

/// The first difference between the recording and another execution of its log, `execution`; `seed` is the recording's.
#[must_use]
pub fn difference<S: Service>(
    seed: u64,
    recording: &Recording,
    execution: Execution,
    found: &Trace,
) -> Option<Difference> {
    let expected = &recording.trace;
    let earlier = |trace: &'_ Trace| trace.earlier.clone().map(|earlier| (trace.names.clone(), earlier));
    if let Some((names, found)) = earlier(expected).or_else(|| earlier(found)) {
        return Some(earlier_time::<S>(seed, &recording.log, execution, &names, &found));
    }
    let (culprit, what, hint) = match culprit(expected, found) {
        Some((position, path, expected_fact, found_fact)) => {
            let operation = operation_of(&recording.log, position);
            let handler = S::handler(&operation);
            let names = |lock: &LockId| expected.names.get(lock).or(found.names.get(lock)).cloned();
            let (what, hint) = deed(&names, expected_fact, found_fact);
            (Some(Box::new(Culprit { handler, request: position, path, operation })), what, hint)
        }
        None => (None, seen_from_outside(expected, found)?, HINT_OUTSIDE),
    };
    let defect = Defect::NotDeterministic;
    Some(Difference { defect, seed, policy: "", execution, culprit, what, hint })
}

fn operation_of(log: &[Work], wanted: Position) -> Bytes {
    let operation = log.iter().find_map(|work| match work {
        Work::Request { position, operation, .. } if *position == wanted => Some(operation.clone()),
        _ => None,
    });
    operation.unwrap_or_default()
}

/// The first thread, in the order of the log, that having learnt the same did something else.
fn culprit<'a>(expected: &'a Trace, found: &'a Trace) -> Option<(Position, Vec<u16>, &'a Fact, &'a Fact)> {
    expected.journals.iter().find_map(|((position, path), expected)| {
        let found = found.journals.get(&(*position, path.clone()))?;
        let (expected, found) = first_difference(expected, found)?;
        (expected.is_deed() && found.is_deed()).then(|| (*position, path.clone(), expected, found))
    })
}

/// What one of them has and the other does not, because it was not executed that far, is no difference.
fn first_difference<'a>(expected: &'a Journal, found: &'a Journal) -> Option<(&'a Fact, &'a Fact)> {
    expected.facts.iter().zip(&found.facts).find(|(expected, found)| expected != found)
}

/// What a handler did, in one execution and in the other.
fn deed(names: &dyn Fn(&LockId) -> Option<String>, expected: &Fact, found: &Fact) -> (String, &'static str) {
    let name = |lock: &LockId| names(lock).unwrap_or_else(|| format!("{lock:?}"));
    match (expected, found) {
        (Fact::Left(expected, _), Fact::Left(found, _)) if expected == found => {
            (format!("it left another value in {}, or took another one out", name(expected)), HINT_VALUE)
        }
        (Fact::Ended(expected), Fact::Ended(found)) => {
            (format!("it came to {} instead of {}", outcome(found), outcome(expected)), HINT_VALUE)
        }
        _ => (format!("it {}, in line it {}", told(&name, found), told(&name, expected)), HINT_ORDER),
    }
}

fn told(name: &dyn Fn(&LockId) -> String, fact: &Fact) -> String {
    match fact {
        Fact::Asked(operation) => format!("asked to {}", asked(name, operation)),
        Fact::Left(lock, _) => format!("used {}", name(lock)),
        Fact::Ended(end) => format!("came to {}", outcome(end)),
        Fact::Learnt(..) | Fact::Found(..) => format!("{fact:?}"),
    }
}

fn asked(name: &dyn Fn(&LockId) -> String, operation: &Operation) -> String {
    match operation {
        Operation::Lock { lock, mode: Mode::Write, .. } => format!("lock {}", name(lock)),
        Operation::Lock { lock, mode: Mode::Read, .. } => format!("lock {} for reading", name(lock)),
        Operation::Try { lock, .. } => format!("try to lock {}", name(lock)),
        Operation::Unlock { lock } => format!("unlock {}", name(lock)),
        Operation::Wait { lock, queue, .. } => format!("wait at queue {} of {}", queue.0, name(lock)),
        Operation::Notify { lock, queue, .. } => format!("notify queue {} of {}", queue.0, name(lock)),
        Operation::Yield => "yield".to_owned(),
        Operation::Sleep { duration } => format!("sleep for {duration} us"),
        Operation::Spawn { .. } => "spawn a child".to_owned(),
        Operation::Join { child } => format!("join child {child}"),
        Operation::External { timeout } => format!("call the outside (time-out {timeout:?})"),
        Operation::Reconfigure(change) => format!("change the schedule: {change:?}"),
        Operation::Finish => "finish".to_owned(),
    }
}

fn outcome(outcome: &unisono_types::Outcome) -> String {
    match outcome {
        Ok(bytes) => format!("result {}", shown(bytes)),
        Err(fault) => format!("\"{fault}\""),
    }
}

fn shown(bytes: &[u8]) -> String {
    let end = bytes.len().min(SHOWN_BYTES);
    let more = if end < bytes.len() { "..." } else { "" };
    format!("\"{}\"{more}", bytes[..end].escape_ascii())
}

/// The first difference in what a cluster would see.
fn seen_from_outside(expected: &Trace, found: &Trace) -> Option<String> {
    let positions: BTreeSet<_> = expected.outcomes.keys().chain(found.outcomes.keys()).collect();
    for position in positions {
        let (expected, found) = (expected.outcomes.get(position), found.outcomes.get(position));
        if expected != found {
            let told = |end: Option<&unisono_types::Outcome>| end.map_or("no end".to_owned(), outcome);
            return Some(format!("request {position:?} came to {} instead of {}", told(found), told(expected)));
        }
    }
    if let Some((expected, found)) =
        expected.grants.iter().zip(&found.grants).find(|(expected, found)| expected != found)
    {
        return Some(format!("{found} instead of {expected}"));
    }
    if expected.leaves != found.leaves {
        let expected: BTreeMap<_, _> = expected.leaves.iter().cloned().collect();
        let found: BTreeMap<_, _> = found.leaves.iter().cloned().collect();
        let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
        let name = names.into_iter().find(|name| expected.get(*name) != found.get(*name));
        return Some(format!("object {} differs at the end", name.map_or("(order)", String::as_str)));
    }
    if expected.marks.len() != found.marks.len() {
        return Some(format!("{} Marks instead of {}", found.marks.len(), expected.marks.len()));
    }
    let (expected, found) = expected.marks.iter().zip(&found.marks).find(|(expected, found)| expected != found)?;
    Some(format!("a Mark reported {found:?} instead of {expected:?}"))
}
