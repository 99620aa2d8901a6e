//! A schedule as a picture: a page that stands alone, with a row for each thread and a band for each round.
//!
//! ```text
//!   Recording ── events of threads ──> Picture ── JSON within trace/page.html ──> a file for a browser
//!                                      spans: what a thread did or waited for    holds: which lock it owned
//! ```
//! The page draws; here is only decided what there is to draw. Nothing that a request or a key says can end the script
//! that it stands in.

use serde::Serialize;
use std::collections::BTreeMap;
use unisono_execution::recording::{AskedOperation, AskedResult, EventKind, Recording, WaitReason};
use unisono_types::Position;

/// The page without its data.
const PAGE: &str = include_str!("trace/page.html");

/// Where the data goes.
const DATA: &str = "/*DATA*/";

/// The page that shows `recording`, of replica `replica` of a cluster that runs `service`.
#[must_use]
pub fn page(recording: &Recording, replica: u16, service: &str) -> String {
    let picture = Picture::of(recording, replica, service);
    let json = serde_json::to_string(&picture).expect("a picture has a JSON form");
    PAGE.replace(DATA, &json.replace('<', "\\u003c"))
}

/// What the page draws. `begin` and `end` are events, by their place; `times` says when they happened.
#[derive(Serialize, Debug)]
struct Picture<'a> {
    replica: u16,
    service: &'a str,
    /// Whether times are microseconds.
    clocked: bool,
    /// Events that were recorded before, and are no longer here.
    forgotten: u64,
    times: Vec<u64>,
    rounds: Vec<Round>,
    threads: Vec<Thread<'a>>,
    locks: &'a [String],
}

#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
struct Round {
    number: u64,
    begin: usize,
    end: usize,
    /// Its parameters, once the end of the round before has told them.
    parameters: Option<Parameters>,
    primaries: u32,
    admitted: u32,
    grants: usize,
}

#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
struct Parameters {
    n: u32,
    s: u32,
    order: String,
    predicate: String,
}

#[derive(Serialize, Debug)]
struct Thread<'a> {
    handler: &'a str,
    name: String,
    spans: Vec<Span>,
    holds: Vec<Hold>,
}

#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
struct Span {
    kind: Kind,
    begin: usize,
    end: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    what: &'static str,
    /// 0: whoever called the executor; else a worker, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<u16>,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Computes, selected.
    Running,
    /// Computes, not yet selected.
    Ahead,
    /// May go on, but nobody has taken it up.
    Ready,
    /// Waits to be selected.
    Selection,
    /// Waits for a turn or a step.
    Turn,
    /// Waits for a lock.
    Lock,
    Parked,
}

#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
struct Hold {
    lock: u32,
    begin: usize,
    end: usize,
    mode: &'static str,
    round: u64,
}

/// What is known of a thread while its events are read.
#[derive(Default)]
struct Course {
    spans: Vec<Span>,
    holds: Vec<Hold>,
    /// The last span goes on.
    open: bool,
    /// The scheduler has let it begin.
    selected: bool,
    worker: Option<u16>,
    asked: Option<(AskedOperation, Option<u32>)>,
    /// Locks that it owns: where in `holds`.
    owned: BTreeMap<u32, usize>,
}

impl Course {
    fn end_span(&mut self, at: usize) {
        if std::mem::take(&mut self.open)
            && let Some(span) = self.spans.last_mut()
        {
            span.end = at;
        }
    }

    fn begin_span(&mut self, at: usize, kind: Kind, lock: Option<u32>, what: &'static str) {
        self.end_span(at);
        let worker = self.worker.filter(|_| matches!(kind, Kind::Running | Kind::Ahead));
        self.spans.push(Span { kind, begin: at, end: at, lock, what, worker });
        self.open = true;
    }

    fn computes(&mut self, at: usize) {
        self.begin_span(at, if self.selected { Kind::Running } else { Kind::Ahead }, None, "");
    }

    fn own(&mut self, at: usize, lock: u32, mode: &'static str, round: u64) {
        self.owned.insert(lock, self.holds.len());
        self.holds.push(Hold { lock, begin: at, end: at, mode, round });
    }

    fn give_back(&mut self, at: usize, lock: u32) {
        if let Some(hold) = self.owned.remove(&lock) {
            self.holds[hold].end = at;
        }
    }

    fn end(&mut self, at: usize) {
        self.end_span(at);
        while let Some((lock, _)) = self.owned.first_key_value() {
            self.give_back(at, *lock);
        }
    }

    /// One event of the thread; whether it was given a lock.
    fn event(&mut self, at: usize, kind: &EventKind, round: u64) -> bool {
        match kind {
            EventKind::Ahead => self.computes(at),
            EventKind::Selected => {
                let computes = self.open && self.spans.last().is_some_and(|span| span.kind == Kind::Ahead);
                self.selected = true;
                if computes {
                    self.computes(at);
                } else if self.asked.is_none() {
                    self.begin_span(at, Kind::Ready, None, "");
                }
            }
            EventKind::Runs { worker } => {
                self.worker = Some(worker.map_or(0, |worker| worker.saturating_add(1)));
                self.computes(at);
            }
            EventKind::Asked { operation, object } => {
                self.end_span(at);
                if let (AskedOperation::Unlock | AskedOperation::Wait, Some(lock)) = (operation, object) {
                    self.give_back(at, *lock);
                }
                self.asked = Some((*operation, *object));
            }
            EventKind::Waits { reason } => {
                let (kind, what) = in_words(*reason);
                let lock = self.asked.and_then(|(_, lock)| lock).filter(|_| kind != Kind::Selection);
                self.begin_span(at, kind, lock, what);
            }
            EventKind::Resumed { result } => return self.resumed(at, *result, round),
            EventKind::Finished => self.end(at),
            EventKind::RoundEnded { .. } => {}
        }
        false
    }

    fn resumed(&mut self, at: usize, result: AskedResult, round: u64) -> bool {
        self.selected = true;
        let waited = self.open;
        let asked = self.asked.take();
        if waited {
            self.begin_span(at, Kind::Ready, None, "");
        } else {
            self.computes(at);
        }
        let (operation, lock) = match asked {
            Some((operation, Some(lock))) => (operation, lock),
            _ => return false,
        };
        let mode = match (operation, result) {
            (AskedOperation::Lock | AskedOperation::Try, AskedResult::Granted) => "alone",
            (AskedOperation::Read, AskedResult::Granted) => "with other readers",
            (AskedOperation::Wait, AskedResult::Granted | AskedResult::TimedOut) => "alone, again",
            _ => return false,
        };
        self.own(at, lock, mode, round);
        true
    }
}

/// What waiting looks like, and what it is called where the colour does not say it.
const fn in_words(reason: WaitReason) -> (Kind, &'static str) {
    match reason {
        WaitReason::Selection => (Kind::Selection, ""),
        WaitReason::Turn => (Kind::Turn, "waits for its turn"),
        WaitReason::Step => (Kind::Turn, "has no step left in this round"),
        WaitReason::EndOfRound => (Kind::Turn, "tries at the end of the round"),
        WaitReason::Queue => (Kind::Lock, ""),
        WaitReason::Ticket => (Kind::Lock, "waits until its ticket is first"),
        WaitReason::ParkedOwner => (Kind::Parked, "behind a lock whose owner is parked"),
        WaitReason::Notification => (Kind::Parked, "waits to be notified"),
        WaitReason::Time => (Kind::Parked, "sleeps"),
        WaitReason::Child => (Kind::Parked, "waits for a child"),
        WaitReason::Answer => (Kind::Parked, "waits for an answer from outside"),
    }
}

impl<'a> Picture<'a> {
    fn of(recording: &'a Recording, replica: u16, service: &'a str) -> Self {
        let mut courses: Vec<Course> = recording.threads.iter().map(|_| Course::default()).collect();
        let mut rounds: Vec<Round> = Vec::new();
        let mut parameters = None;
        let mut begin = 0;
        let mut grants = 0;
        for (at, event) in recording.events.iter().enumerate() {
            if let EventKind::RoundEnded {
                primaries,
                admitted,
                next_primaries,
                next_steps,
                next_order,
                next_predicate,
            } = &event.kind
            {
                let (order, predicate) = (next_order.clone(), next_predicate.clone());
                let next = Some(Parameters { n: *next_primaries, s: *next_steps, order, predicate });
                let parameters = std::mem::replace(&mut parameters, next);
                let (number, primaries, admitted) = (event.round, *primaries, *admitted);
                rounds.push(Round { number, begin, end: at, parameters, primaries, admitted, grants });
                (begin, grants) = (at, 0);
            }
            // A recording comes from another process: who is not in it is nobody.
            if let Some(course) = event.thread.and_then(|thread| courses.get_mut(thread as usize)) {
                grants += usize::from(course.event(at, &event.kind, event.round));
            }
        }
        let last = recording.events.len().saturating_sub(1);
        courses.iter_mut().for_each(|course| course.end(last));
        let mut threads: Vec<_> = recording.threads.iter().zip(courses).collect();
        threads.sort_by_key(|(thread, _)| *thread);
        let known = |lock: u32| (lock as usize) < recording.objects.len();
        let threads = threads.into_iter().map(|(thread, course)| Thread {
            handler: &thread.handler,
            name: name(thread.position, &thread.path),
            // What took no event takes no place.
            spans: course
                .spans
                .into_iter()
                .filter(|span| span.begin < span.end && span.lock.is_none_or(known))
                .collect(),
            holds: course.holds.into_iter().filter(|hold| known(hold.lock)).collect(),
        });
        Self {
            replica,
            service,
            clocked: recording.clocked,
            forgotten: recording.forgotten,
            times: recording.events.iter().map(|event| event.time).collect(),
            rounds,
            threads: threads.collect(),
            locks: &recording.objects,
        }
    }
}

/// Decision, place in it, and the path of births: `17.3`, `17.3/1/2`.
fn name(position: Position, path: &[u16]) -> String {
    let births: String = path.iter().map(|number| format!("/{number}")).collect();
    format!("{position:?}{births}")
}

#[cfg(test)]
mod tests;
