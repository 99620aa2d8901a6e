//! The replica's part in naming what differs: it asks when it is wrong itself, and answers those who are.

use super::{DIVERGENCE, Query, Replica};
use crate::divergence::{self, Next, Page};
use crate::peer::{GRANTS_MAX, LEAVES_MAX, NAME_BYTES_MAX};
use crate::{GrantRecord, Grants, Leaves, Output, PeerMessage, QueryId};
use alloc::{string::String, vec::Vec};
use unisono_consensus::Consensus;
use unisono_types::{Digest, ReplicaId, SequenceNumber, Time};

impl<C: Consensus> Replica<C> {
    pub(super) fn last_marked(&self) -> SequenceNumber {
        self.checkpoints.last().map_or(SequenceNumber::ZERO, |root| root.height)
    }

    /// One question of each peer at a time.
    pub(super) fn serve(&mut self, from: ReplicaId, purpose: Query, out: &mut Vec<Output<C::Message>>) {
        let of_this_peer = |query: &Query| match query {
            Query::Leaves { to, .. } | Query::Grants { to, .. } => *to == from,
            Query::Compare { .. } | Query::CompareGrants { .. } => false,
        };
        if !self.queries.values().any(of_this_peer) {
            self.query(purpose, out);
        }
    }

    fn query(&mut self, purpose: Query, out: &mut Vec<Output<C::Message>>) {
        let query = self.next_query;
        self.next_query = QueryId(query.0 + 1);
        out.push(match &purpose {
            Query::Leaves { after, .. } | Query::Compare { after } => {
                Output::QueryLeaves { query, after: after.clone(), limit: LEAVES_MAX + 1 }
            }
            Query::Grants { from, .. } | Query::CompareGrants { from } => {
                Output::QueryGrants { query, from: *from, limit: GRANTS_MAX }
            }
        });
        self.queries.insert(query, purpose);
    }

    /// The executor answers with objects.
    pub(super) fn leaves(
        &mut self,
        now: Time,
        query: QueryId,
        leaves: Vec<(String, Digest)>,
        out: &mut Vec<Output<C::Message>>,
    ) {
        let page = cut(leaves);
        let marked = self.last_marked();
        match self.queries.remove(&query) {
            Some(Query::Leaves { to, sequence, after }) => {
                let parts = self.checkpoints.root(sequence).map(|root| root.parts);
                let Page { leaves, more } = page;
                let answer = Leaves { sequence, after, parts, marked, leaves, more };
                out.push(Output::Send { to, message: PeerMessage::Leaves(answer) });
            }
            Some(Query::Compare { .. }) => {
                if let Some(search) = &mut self.divergence {
                    let next = search.own_page(&page, marked);
                    self.search(now, next, out);
                }
            }
            _ => {}
        }
    }

    /// The executor answers with grants.
    pub(super) fn grants(
        &mut self,
        now: Time,
        query: QueryId,
        mut grants: Vec<GrantRecord>,
        out: &mut Vec<Output<C::Message>>,
    ) {
        let count = within(grants.iter().map(|grant| grant.lock.len()), GRANTS_MAX);
        grants.truncate(count);
        match self.queries.remove(&query) {
            Some(Query::Grants { to, from }) => {
                out.push(Output::Send { to, message: PeerMessage::Grants(Grants { from, grants }) });
            }
            Some(Query::CompareGrants { .. }) => {
                if let Some(search) = &mut self.divergence {
                    let next = search.own_grants(grants);
                    self.search(now, next, out);
                }
            }
            _ => {}
        }
    }

    /// Does the next thing in the search for what differs.
    pub(super) fn search(&mut self, now: Time, next: Next, out: &mut Vec<Output<C::Message>>) {
        match next {
            Next::Wait => {}
            Next::Ask(to, request) => self.ask_witness(now, to, PeerMessage::LeavesRequest(request), out),
            Next::AskGrants(to, request) => self.ask_witness(now, to, PeerMessage::GrantsRequest(request), out),
            Next::Own(after) => self.query(Query::Compare { after }, out),
            Next::OwnGrants(from) => self.query(Query::CompareGrants { from }, out),
            Next::Halt(reason) => {
                self.halted = true;
                self.inbox.clear();
                out.push(Output::Halt(reason));
            }
        }
    }

    fn ask_witness(
        &self,
        now: Time,
        to: ReplicaId,
        message: PeerMessage<C::Message>,
        out: &mut Vec<Output<C::Message>>,
    ) {
        out.push(Output::Send { to, message });
        let at = Some(now.monotonic.saturating_add(divergence::RETRY_MICROSECONDS));
        out.push(Output::SetTimer { timer: DIVERGENCE, at });
    }
}

/// A page out of what the executor gave: bounded in number and in bytes of names.
fn cut(mut leaves: Vec<(String, Digest)>) -> Page {
    let given = leaves.len();
    let count = within(leaves.iter().map(|(name, _)| name.len()), LEAVES_MAX);
    leaves.truncate(count);
    Page { more: given > count && count != 0, leaves }
}

/// How many names of these lengths fit into one message.
fn within(lengths: impl Iterator<Item = usize>, count_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |length: &usize| {
        bytes += length;
        bytes <= NAME_BYTES_MAX
    };
    lengths.take(count_max).take_while(fits).count()
}
