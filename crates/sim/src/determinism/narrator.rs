//! A scheduler that writes down what happens to it and what it grants: how a failing seed is read.

use std::sync::{Arc, Mutex};
use unisono_scheduler::{Event, Grant, GrantRecord, Parameters, Scheduler, Standing, Status, ThreadIndex};

/// What was written down.
pub(super) type Lines = Arc<Mutex<Vec<String>>>;

/// Most lines that are kept: of a livelock the beginning says enough.
const LINES_MAX: usize = 100_000;

pub(super) struct Narrator {
    pub(super) inner: Box<dyn Scheduler>,
    pub(super) lines: Lines,
}

impl Scheduler for Narrator {
    fn handle(&mut self, event: Event, grants: &mut Vec<Grant>) {
        let (told, before) = (format!("{event:?}"), grants.len());
        self.inner.handle(event, grants);
        let granted: Vec<String> = grants[before..].iter().map(|grant| format!("{grant:?}")).collect();
        let mut lines = self.lines.lock().expect("nobody panics with it");
        if lines.len() < LINES_MAX {
            lines.push(format!("{told} -> {}", granted.join(", ")));
        }
    }

    fn status(&self) -> Status {
        self.inner.status()
    }

    fn grants(&self, from: u64, limit: usize) -> Vec<GrantRecord> {
        self.inner.grants(from, limit)
    }

    fn observe(&mut self, on: bool) {
        self.inner.observe(on);
    }

    fn standing(&self, thread: ThreadIndex) -> Standing {
        self.inner.standing(thread)
    }

    fn parameters(&self) -> Option<&Parameters> {
        self.inner.parameters()
    }
}
