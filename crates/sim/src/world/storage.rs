//! The storage of a machine: the log that ships, written in groups on a disk that takes its time, fails and forgets.
//!
//! ```text
//!   Write(group) ──> queue ──(disk free)──> in flight ──(its time)──> Writer::write ──> durable(ticket)
//!                                                          \__ fails: the process ends and is started again
//! ```
//! A group touches the disk when its time is over. The power may fail before: then as much of it was written as chance
//! says, operation by operation.

use super::World;
use super::event::Event;
use crate::core::{Input, Log};
use crate::disk::Failure;
use crate::plan::SECOND;
use crate::{Fault, Planted, Property, Seat};
use unisono_consensus::Provide;
use unisono_node::log::{self, Entry, Group, LogReader, LogSettings, Queue, StorageError, Ticket, Writer, mark};

/// Usual bytes of a segment here: small, so that every run has some.
const SEGMENT_BYTES: u64 = 48 << 10;

/// Operations of one group on the disk, at the most: a new segment, the mark, the group itself.
const OPERATIONS_MAX: u64 = 12;

/// Until a process that ended for its disk is started again.
const RESTART_MAX: u64 = SECOND;

/// One process's log.
pub(super) struct Store {
    queue: Queue,
    writer: Writer,
    reader: LogReader,
    in_flight: Option<(Vec<Entry>, Ticket)>,
}

impl World {
    /// Opens the log of a core and makes its process. An error: the disk does not let it start.
    pub(super) fn open_core(&mut self, replica: usize, core: usize) -> Result<(), StorageError> {
        let settings = self.log_settings(replica);
        let host = &mut self.hosts[replica];
        let places = host.disk.places(core);
        if places.key.list().is_ok_and(|names| names.is_empty()) {
            log::create(&places, settings)?;
        }
        let opened = log::open(&places, settings)?;
        let recovered = opened.recovered;
        let register = match &host.liar {
            Some(liar) if liar.plan().keeps_seat => host.register.of_liar(),
            Some(_) if host.life > 1 || core > 0 => host.register.clone(),
            _ => {
                let (id, signer) = host.identity.clone();
                let votes_twice = self.plan.planted == Some(Planted::RegisterVotesTwice);
                host.register = Seat::new(id, signer, recovered.register, votes_twice);
                host.register.clone()
            }
        };
        if host.liar.is_none() && recovered.lost.is_none() {
            let found = (recovered.register.view, recovered.register.step);
            if found < host.spoken {
                let text = format!("replica {replica} has said {:?} and finds {found:?}", host.spoken);
                self.checker.report(Property::Durability, text);
            }
        }
        if let Some(lost) = recovered.lost {
            self.trace.line(self.now, || format!("replica {replica} finds that {lost}: its register is silent"));
        }
        let host = &mut self.hosts[replica];
        host.lost = recovered.lost.is_some();
        let store =
            Store { queue: Queue::default(), writer: opened.writer, reader: opened.reader.clone(), in_flight: None };
        host.stores.truncate(core);
        host.stores.push(store);
        host.seats.truncate(core);
        host.seats.push(register.clone());
        let log = Log { recovered, reader: opened.reader, register };
        let process = self.factory.create(unisono_types::ReplicaId(replica as u16), log);
        let host = &mut self.hosts[replica];
        host.cores.truncate(core);
        host.cores.push(process);
        Ok(())
    }

    fn log_settings(&self, replica: usize) -> LogSettings {
        let judge: fn(Option<&mark::Mark>, &mark::Found) -> Option<mark::Lost> = match self.plan.planted {
            Some(Planted::AmnesiaForgiven) => |_, _| None,
            _ => mark::judge,
        };
        let usual = LogSettings::new(self.hosts[replica].identity.0, self.factory.parent());
        LogSettings { segment_bytes: SEGMENT_BYTES, judge, ..usual }
    }

    /// A process hands over a group.
    pub(super) fn write(&mut self, replica: usize, core: usize, group: Group) {
        let ticket = group.ticket;
        let Some(store) = self.hosts[replica].stores.get_mut(core) else { return };
        store.queue.push(group, self.now);
        if self.plan.planted == Some(Planted::AnswersBeforeSync) {
            let life = self.hosts[replica].life;
            let input = Box::new(Input::Durable(ticket));
            self.schedule(self.now, Event::Inner { replica, core, life, input });
        }
        self.write_due(replica, core);
    }

    /// Begins to write if the disk is free and something is due.
    pub(super) fn write_due(&mut self, replica: usize, core: usize) {
        let (low, high) = self.plan.disk;
        let host = &mut self.hosts[replica];
        let (life, slowness) = (host.life, host.disk_slowness);
        let Some(store) = host.stores.get_mut(core).filter(|store| store.in_flight.is_none()) else { return };
        match store.queue.due() {
            None => {}
            Some(due) if due > self.now => self.schedule(due, Event::Write { replica, core, life }),
            Some(_) => {
                store.in_flight = store.queue.take();
                let at = self.now + self.random.between(low, high) + slowness;
                self.schedule(at, Event::Synced { replica, core, life });
            }
        }
    }

    /// The time of the group in flight is over: now it is on the disk, unless that fails.
    pub(super) fn synced(&mut self, replica: usize, core: usize) {
        self.arm_by_chance(replica);
        let host = &mut self.hosts[replica];
        let Some(store) = host.stores.get_mut(core) else { return };
        let Some((entries, ticket)) = store.in_flight.take() else { return };
        let written = store.writer.write(entries);
        host.disk.disarm();
        match written {
            Ok(()) => {
                if self.plan.planted != Some(Planted::AnswersBeforeSync) {
                    self.input(replica, core, Input::Durable(ticket));
                }
                self.write_due(replica, core);
            }
            Err(error) => self.storage_failed(replica, &error),
        }
    }

    fn arm_by_chance(&mut self, replica: usize) {
        let storage = self.plan.storage;
        if self.healed || storage.fails == 0 || !self.random.chance(storage.fails) {
            return;
        }
        let failure = match self.random.below(3) {
            0 => Failure::Sync,
            1 => Failure::Full,
            _ => Failure::Power(self.random.below(OPERATIONS_MAX) as u32),
        };
        self.hosts[replica].disk.arm(failure);
    }

    /// A process that cannot write ends; what watches it starts it again after a while.
    pub(super) fn storage_failed(&mut self, replica: usize, error: &StorageError) {
        self.trace.line(self.now, || format!("replica {replica} ends: {error}"));
        self.counts.faults.storage += 1;
        if self.healed {
            let text = format!("replica {replica} ends for a disk that is in order: {error}");
            self.checker.report(Property::Durability, text);
        }
        let power = matches!(error, StorageError::Io { source, .. } if source.to_string().contains("power"));
        self.end_process(replica, power);
        let at = self.now + self.random.between(1_000, RESTART_MAX);
        self.schedule(at, Event::End(Fault::Crash { replicas: 1 << replica, down: 0 }));
    }

    /// Power is lost while a group may be on its way: some of its operations took place.
    pub(super) fn lose_power(&mut self, replica: usize) {
        let operations = self.random.below(OPERATIONS_MAX) as u32;
        let host = &mut self.hosts[replica];
        host.disk.arm(Failure::Power(operations));
        for store in &mut host.stores {
            if let Some((entries, _)) = store.in_flight.take() {
                // Whether it comes to its end or not: nothing that waits for it hears of it.
                let _ = store.writer.write(entries);
            }
        }
        host.disk.power_off(&mut self.random);
    }

    /// Reads the log on behalf of a peer that is far behind.
    pub(super) fn provide(&mut self, replica: usize, core: usize, provide: Provide) {
        let Some(store) = self.hosts[replica].stores.get(core) else { return };
        let blocks = match store.reader.committed(provide.from, self.factory.piece_bytes()) {
            Ok(blocks) => blocks,
            Err(error) => {
                self.checker.report(Property::Durability, format!("replica {replica} cannot read its log: {error}"));
                return;
            }
        };
        let life = self.hosts[replica].life;
        let at = self.now + self.random.between(20, 500);
        let input = Box::new(Input::Provided { provide, blocks });
        self.schedule(at, Event::Inner { replica, core, life, input });
    }
}
