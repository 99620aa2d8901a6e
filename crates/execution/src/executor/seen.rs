//! What people may see of the schedule: feeding the recorder, and the last grants. Decides nothing.

use super::GrantRecord;
use super::recorder::Recorder;
use super::state::{Phase, State};
use crate::recording::Recording;
use unisono_scheduler::{Grant, Mode, Operation, ThreadIndex};
use unisono_types::Position;

impl State {
    /// The schedule is recorded from now on, with room for so many events; 0: no longer.
    pub(super) fn record(&mut self, limit: usize) {
        let recorder = (limit > 0).then(|| Box::new(Recorder::new(limit, self.clock.clone())));
        self.scheduler.observe(recorder.is_some());
        let before = std::mem::replace(&mut self.recorder, recorder);
        self.recorded = if self.recorder.is_some() { None } else { before.or(self.recorded.take()) };
    }

    pub(super) fn recording(&self) -> Recording {
        let recorder = self.recorder.as_ref().or(self.recorded.as_ref());
        recorder.map(|recorder| recorder.recording(&self.registry)).unwrap_or_default()
    }

    /// A task is about to be polled.
    pub(super) fn record_run(&mut self, thread: ThreadIndex, worker: Option<usize>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.runs(thread.0, &self.slots[thread.0 as usize].name, worker);
        }
    }

    /// Something is about to reach the scheduler.
    pub(super) fn record_round(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.set_round(self.scheduler.status().round);
        }
    }

    pub(super) fn record_asked(&mut self, thread: ThreadIndex, operation: &Operation) {
        self.record_round();
        if let Some(recorder) = &mut self.recorder {
            recorder.asked(thread.0, &self.slots[thread.0 as usize].name, operation);
        }
    }

    /// Before the grant is carried out.
    pub(super) fn record_grant(&mut self, grant: &Grant) {
        let Some(recorder) = &mut self.recorder else { return };
        let name = |thread: &ThreadIndex| &self.slots[thread.0 as usize].name;
        match grant {
            Grant::Start { thread } => recorder.selected(thread.0, name(thread)),
            Grant::Resume { thread, result, .. } => recorder.resumed(thread.0, name(thread), *result),
            Grant::Finished { thread } => recorder.finished(thread.0, name(thread)),
            Grant::RoundEnded(end) => recorder.round_ended(end.clone()),
            Grant::Call { .. } | Grant::Marked(_) => {}
        }
    }

    /// The thread has asked for something: where that has put it.
    pub(super) fn record_standing(&mut self, thread: ThreadIndex) {
        let Some(recorder) = &mut self.recorder else { return };
        let slot = &self.slots[thread.0 as usize];
        if slot.reply.is_none() && !matches!(slot.phase, Phase::Free) {
            recorder.stands(thread.0, &slot.name, self.scheduler.standing(thread));
        }
    }

    /// The scheduler has done something: who of those that wait stands elsewhere now.
    pub(super) fn record_moves(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        for slot in recorder.restless() {
            let standing = self.scheduler.standing(ThreadIndex(slot));
            recorder.stands(slot, &self.slots[slot as usize].name, standing);
        }
    }

    pub(super) fn last_grants(&self, from: u64, limit: usize) -> Vec<GrantRecord> {
        let grants = self.scheduler.grants(from, limit);
        let names = self.registry.lock_names(&grants.iter().map(|grant| grant.lock).collect());
        let told = grants.into_iter().map(|grant| GrantRecord {
            number: grant.number,
            round: grant.round,
            position: Position(grant.position),
            path: grant.path,
            lock: names.get(&grant.lock).cloned().unwrap_or_else(|| format!("{:?}", grant.lock)),
            write: grant.mode == Mode::Write,
            writers_before: grant.writers_before,
        });
        told.collect()
    }
}
