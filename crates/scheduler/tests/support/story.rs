//! Stories: one event per line, and behind the arrow the grants that it leads to. Thread N has position and index N.
//!
//! ```text
//!   request 1        -> start 1
//!   1 lock a         -> 1 granted
//!   tick 30          ->
//! ```
//! Events: `request N [at T] [class C] [wants LOCKS] [declares LOCKS]` (foreknown locks, or the declared lane; `read:L`,
//! and `L*2` for two uses), `tick T`, `flush`, `mark N`, `answer N CALL [at T]`, `parameters N S`, `classes C/EVERY+PHASE ...`,
//! `future-locks`, and of thread N: `lock L [for D]`, `read L [for D]`, `unlock L`, `wait L[/Q] [for D]`,
//! `notify L[/Q]`, `notify-all L[/Q]`, `sleep D`, `yield`, `try L`, `try-read L`, `spawn M` (the host's name of the
//! child), `call [for D]`, `join K` (the K-th child), `parameters N S`, `finish`.
//! Grants show a thread's `now` when it is not 0: `1 granted @30`.

use unisono_scheduler::testing::Checked;
use unisono_scheduler::{
    Change, ClassRule, Declaration, DeclaredLock, Entry, Event, Grant, Lane, LockId, Mode, Operation, OperationResult,
    Predicate, QueueId, ThreadIndex,
};

/// Plays the script; panics at the first line that leads to other grants.
pub fn story(scheduler: &mut dyn Checked, script: &str) {
    for line in script.lines().map(|line| line.split('#').next().unwrap().trim()).filter(|line| !line.is_empty()) {
        let (event, expected) = line.split_once("->").unwrap_or_else(|| panic!("no arrow in: {line}"));
        let mut grants = Vec::new();
        scheduler.handle(parse(event.trim()), &mut grants);
        scheduler.check();
        let shown = grants.iter().map(show).collect::<Vec<_>>().join(", ");
        assert_eq!(shown, expected.trim(), "in: {line}\n{script}");
    }
}

fn parse(event: &str) -> Event {
    let words: Vec<&str> = event.split_whitespace().collect();
    let number = |word: &str| word.parse::<u64>().unwrap_or_else(|_| panic!("no number: {word} in: {event}"));
    let thread = |word: &str| ThreadIndex(number(word) as u32);
    Event::Entry(match words[..] {
        ["request", name, ref rest @ ..] => request(thread(name), rest),
        ["tick", time] => Entry::Tick(number(time)),
        ["flush"] => Entry::Flush,
        ["answer", position, call, ref rest @ ..] => Entry::Answer {
            position: number(position),
            path: Vec::new(),
            call: number(call) as u32,
            timestamp: rest.get(1).map_or(0, |time| number(time)),
        },
        ["mark", mark] => Entry::Mark(number(mark)),
        ["parameters", n, s] => Entry::Reconfigure(change(n, s)),
        ["classes", ref rules @ ..] => {
            predicate(Predicate::Classes(rules.iter().map(|rule| class_rule(rule)).collect()))
        }
        ["future-locks"] => predicate(Predicate::FutureLocks),
        [name, ref operation @ ..] => {
            return Event::Operation { thread: thread(name), operation: parse_operation(operation, event) };
        }
        [] => panic!("an empty event"),
    })
}

fn change(n: &str, s: &str) -> Change {
    let number = |word: &str| Some(word.parse().expect("a number"));
    Change { primaries: number(n), steps: number(s), ..Change::default() }
}

fn predicate(predicate: Predicate) -> Entry {
    Entry::Reconfigure(Change { predicate: Some(predicate), ..Change::default() })
}

/// `C/EVERY+PHASE`.
fn class_rule(rule: &str) -> ClassRule {
    let (class, rounds) = rule.split_once('/').expect("a class");
    let (every, phase) = rounds.split_once('+').expect("a phase");
    let number = |word: &str| word.parse().expect("a number");
    ClassRule { class: class.parse().expect("a class"), every: number(every), phase: number(phase) }
}

fn request(thread: ThreadIndex, words: &[&str]) -> Entry {
    let (mut timestamp, mut declaration) = (0, Declaration::default());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "at" => timestamp = words.next().expect("a time").parse().expect("a time"),
            "class" => declaration.class = words.next().expect("a class").parse().expect("a class"),
            "wants" => {}
            "declares" => declaration.lane = Lane::Declared,
            lock => declaration.locks.push(declared(lock)),
        }
    }
    Entry::Request { thread, position: thread.0.into(), timestamp, declaration }
}

/// `L`, `read:L`, `L*2`.
fn declared(word: &str) -> DeclaredLock {
    let (name, uses) = word.split_once('*').map_or((word, 1), |(name, uses)| (name, uses.parse().expect("uses")));
    match name.strip_prefix("read:") {
        Some(name) => DeclaredLock { lock: lock_id(name), mode: Mode::Read, uses },
        None => DeclaredLock { lock: lock_id(name), mode: Mode::Write, uses },
    }
}

fn lock_id(name: &str) -> LockId {
    LockId(name.bytes().fold(0, |id, byte| id << 8 | u128::from(byte)))
}

fn parse_operation(words: &[&str], event: &str) -> Operation {
    let number = |word: &str| word.parse::<u64>().unwrap_or_else(|_| panic!("no number: {word} in: {event}"));
    let lock = lock_id;
    let queue = |name: &str| match name.split_once('/') {
        None => (lock(name), QueueId(0)),
        Some((name, queue)) => (lock(name), QueueId(number(queue))),
    };
    match *words {
        ["lock", name] => Operation::Lock { lock: lock(name), mode: Mode::Write, timeout: None },
        ["lock", name, "for", d] => Operation::Lock { lock: lock(name), mode: Mode::Write, timeout: Some(number(d)) },
        ["read", name] => Operation::Lock { lock: lock(name), mode: Mode::Read, timeout: None },
        ["read", name, "for", d] => Operation::Lock { lock: lock(name), mode: Mode::Read, timeout: Some(number(d)) },
        ["unlock", name] => Operation::Unlock { lock: lock(name) },
        ["wait", name] => Operation::Wait { lock: queue(name).0, queue: queue(name).1, timeout: None },
        ["wait", name, "for", d] => {
            Operation::Wait { lock: queue(name).0, queue: queue(name).1, timeout: Some(number(d)) }
        }
        ["notify", name] => Operation::Notify { lock: queue(name).0, queue: queue(name).1, all: false },
        ["notify-all", name] => Operation::Notify { lock: queue(name).0, queue: queue(name).1, all: true },
        ["sleep", d] => Operation::Sleep { duration: number(d) },
        ["yield"] => Operation::Yield,
        ["try", name] => Operation::Try { lock: lock(name), mode: Mode::Write },
        ["try-read", name] => Operation::Try { lock: lock(name), mode: Mode::Read },
        ["call"] => Operation::External { timeout: None },
        ["call", "for", d] => Operation::External { timeout: Some(number(d)) },
        ["spawn", child] => Operation::Spawn { thread: ThreadIndex(number(child) as u32) },
        ["join", child] => Operation::Join { child: number(child) as u16 },
        ["parameters", n, s] => Operation::Reconfigure(Box::new(change(n, s))),
        ["finish"] => Operation::Finish,
        _ => panic!("no such event: {event}"),
    }
}

fn show(grant: &Grant) -> String {
    match grant {
        Grant::Start { thread } => format!("start {}", thread.0),
        Grant::Call { thread, call } => format!("{} calls {call}", thread.0),
        Grant::Finished { thread } => format!("{} finished", thread.0),
        Grant::Marked(report) => format!("marked {} in round {}", report.mark, report.round),
        Grant::RoundEnded(end) => format!("round {} ended with {} primaries", end.round, end.primaries),
        Grant::Resume { thread, result, now } => {
            let result = match result {
                OperationResult::Granted => "granted",
                OperationResult::TimedOut => "timed out",
                OperationResult::Deadlock => "deadlock",
                OperationResult::NotPossible => "not possible",
                OperationResult::Occupied => "occupied",
                OperationResult::NotDeclared => "not declared",
            };
            let now = if *now == 0 { String::new() } else { format!(" @{now}") };
            format!("{} {result}{now}", thread.0)
        }
    }
}
