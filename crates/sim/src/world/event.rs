//! What waits in the queue of a world, by virtual time; of one time, in the order in which it was scheduled.

use super::SAID_MAX;
use crate::Fault;
use crate::core::{Factory, Input};
use unisono_types::Bytes;

pub(super) struct Scheduled {
    pub(super) at: u64,
    pub(super) number: u64,
    pub(super) event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub(super) enum Event {
    ToReplica {
        replica: usize,
        from: usize,
        life: u64,
        bytes: Bytes,
    },
    ToClient {
        client: usize,
        from: usize,
        life: u64,
        bytes: Bytes,
    },
    Timer {
        replica: usize,
        core: usize,
        timer: u64,
        setting: u64,
    },
    Synced {
        replica: usize,
        core: usize,
        life: u64,
    },
    Write {
        replica: usize,
        core: usize,
        life: u64,
    },
    Step {
        replica: usize,
        core: usize,
        life: u64,
    },
    Inner {
        replica: usize,
        core: usize,
        life: u64,
        input: Box<Input>,
    },
    ClientTimer {
        client: usize,
        setting: u64,
    },
    ClientLink {
        client: usize,
        replica: usize,
        up: bool,
    },
    Begin(usize),
    End(Fault),
    /// A liar strikes.
    Act {
        replica: usize,
    },
    /// A replica has done what it was given.
    Free {
        replica: usize,
    },
}

impl Event {
    pub(super) fn replica(&self) -> Option<usize> {
        match self {
            Self::ToReplica { replica, .. }
            | Self::Timer { replica, .. }
            | Self::Synced { replica, .. }
            | Self::Write { replica, .. }
            | Self::Step { replica, .. }
            | Self::Inner { replica, .. } => Some(*replica),
            _ => None,
        }
    }

    pub(super) fn describe(&self, replicas: usize, factory: &dyn Factory) -> String {
        match self {
            Self::ToReplica { replica, from, bytes, .. } if *from < replicas => {
                let mut said = factory.describe(bytes);
                if let Some((end, _)) = said.char_indices().nth(SAID_MAX) {
                    said.truncate(end);
                }
                format!("replica {replica} <- replica {from}: {said}")
            }
            Self::ToReplica { replica, from, bytes, .. } => {
                format!("replica {replica} <- client {}: {} bytes", from - replicas, bytes.len())
            }
            Self::ToClient { client, from, bytes, .. } => {
                format!("client {client} <- replica {from}: {} bytes", bytes.len())
            }
            Self::Timer { replica, timer, .. } => format!("replica {replica}: timer {timer:#x}"),
            Self::Synced { replica, .. } => format!("replica {replica}: disk synced"),
            Self::Write { replica, .. } => format!("replica {replica}: what waits is written"),
            Self::Step { replica, .. } => format!("replica {replica}: a task steps"),
            Self::Inner { replica, input, .. } => format!("replica {replica}: {input:?}"),
            Self::ClientTimer { client, .. } => format!("client {client}: timer"),
            Self::ClientLink { client, replica, up } => format!("client {client}: link to replica {replica} up: {up}"),
            Self::Begin(_) | Self::End(_) => "the plan goes on".into(),
            Self::Free { replica } => format!("replica {replica} is free"),
            Self::Act { replica } => format!("liar {replica} strikes"),
        }
    }
}
