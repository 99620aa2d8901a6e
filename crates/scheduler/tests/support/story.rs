//! Stories: one event per line, and behind the arrow the grants that it leads to. Thread N has position and index N.
//!
//! ```text
//!   request 1        -> start 1
//!   1 lock a         -> 1 granted
//!   tick 30          ->
//! ```
//! Events: `request N [at T]`, `tick T`, `flush`, `mark N`, `parameters N S`, and of thread N: `lock L [for D]`,
//! `read L [for D]`, `unlock L`, `wait L[/Q] [for D]`, `notify L[/Q]`, `notify-all L[/Q]`, `sleep D`, `yield`, `try L`,
//! `try-read L`, `spawn M` (the host's
//! name of the child), `call [for D]` (answered by the entry `answer N CALL`), `join K` (the K-th child), `finish`.
//! Grants show a thread's `now` when it is not 0: `1 granted @30`.

use super::{Checked, parameters};
use unisono_scheduler::{Entry, Event, Grant, LockId, Mode, Operation, OperationResult, QueueId, ThreadIndex};

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
        ["request", name] => Entry::Request { thread: thread(name), position: number(name), timestamp: 0 },
        ["request", name, "at", time] => {
            Entry::Request { thread: thread(name), position: number(name), timestamp: number(time) }
        }
        ["tick", time] => Entry::Tick(number(time)),
        ["flush"] => Entry::Flush,
        ["answer", position, call] => {
            Entry::Answer { position: number(position), path: Vec::new(), call: number(call) as u32 }
        }
        ["mark", mark] => Entry::Mark(number(mark)),
        ["parameters", n, s] => Entry::Reconfigure(parameters(number(n) as u32, number(s) as u32)),
        [name, ref operation @ ..] => {
            return Event::Operation { thread: thread(name), operation: parse_operation(operation, event) };
        }
        [] => panic!("an empty event"),
    })
}

fn parse_operation(words: &[&str], event: &str) -> Operation {
    let number = |word: &str| word.parse::<u64>().unwrap_or_else(|_| panic!("no number: {word} in: {event}"));
    let lock = |name: &str| LockId(name.bytes().fold(0, |id, byte| id << 8 | u128::from(byte)));
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
        Grant::Resume { thread, result, now } => {
            let result = match result {
                OperationResult::Granted => "granted",
                OperationResult::TimedOut => "timed out",
                OperationResult::Deadlock => "deadlock",
                OperationResult::NotPossible => "not possible",
                OperationResult::Occupied => "occupied",
            };
            let now = if *now == 0 { String::new() } else { format!(" @{now}") };
            format!("{} {result}{now}", thread.0)
        }
    }
}
