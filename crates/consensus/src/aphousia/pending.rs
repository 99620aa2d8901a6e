//! Frames that wait to be decided: bounded, shared equally between the keys that signed them, taken in turns.
//!
//! ```text
//!   admitted frames ──add──> entries ──take_batch, one turn per key──> own block
//!                              │ dropped only from a share above the others'      (share)
//!   blocks of peers ──────> blocks: one arrival each; their frames take no room here
//!                              └──(void)──> back to the replica's admission
//! ```
//! What a peer forwards, and what stands in a block, is not taken in as it comes: the enclosing replica admits it or
//! does not, as execution would. A block that this replica may have to decide is waited for like an entry, and gives its
//! frames back if it leaves the chain undecided.
//!
//! Invariant: `index` and `entries` name the same frames. Invariant: `ready` are the owners with something unproposed.

use super::block::{Block, FRAME_OVERHEAD_BYTES};
use super::share::{self, Owner, Pot, SYSTEM_MAX, Share, is_system};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use unisono_types::{Digest, Frame};

/// What one key may put into a block before it is another's turn: many small frames, so that turns cost little, and
/// few enough that a block has room for hundreds of keys.
const TURN_BYTES: usize = 4 << 10;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Entry {
    frame: Frame,
    /// See [`share::rank`].
    rank: u64,
    /// Stands in a block of the chain that this replica follows.
    proposed: bool,
    /// Was shown to the others by this replica.
    shown: bool,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Pending {
    entries: BTreeMap<u64, Entry>,
    index: BTreeMap<Digest, u64>,
    shares: BTreeMap<Owner, Share>,
    ready: BTreeSet<Owner>,
    /// Who had the last turn.
    turn: Option<Owner>,
    members: Pot,
    clients: Pot,
    /// Frames that stand in undecided blocks of the chain that this replica follows, whether they waited here or not.
    chained: BTreeSet<Digest>,
    /// Undecided blocks that are waited for, with their arrival.
    blocks: BTreeMap<Digest, (u64, Block)>,
    /// Arrival number of the next one.
    next: u64,
}

impl Pending {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (members, clients) = Pot::split(bytes_max);
        Self {
            entries: BTreeMap::new(),
            index: BTreeMap::new(),
            shares: BTreeMap::new(),
            ready: BTreeSet::new(),
            turn: None,
            members,
            clients,
            chained: BTreeSet::new(),
            blocks: BTreeMap::new(),
            next: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all that waits.
    pub(super) fn bytes(&self) -> usize {
        self.shares.values().map(|share| share.bytes).sum()
    }

    /// Arrival number of the entry or block that has waited longest.
    pub(super) fn oldest(&self) -> Option<u64> {
        let entry = self.entries.keys().next().copied();
        entry.into_iter().chain(self.oldest_block()).min()
    }

    fn oldest_block(&self) -> Option<u64> {
        self.blocks.values().map(|(arrival, _)| *arrival).min()
    }

    /// Whether a frame waits here, or stands in the chain and is not decided.
    pub(super) fn knows(&self, frame: &Digest) -> bool {
        self.index.contains_key(frame) || self.chained.contains(frame)
    }

    /// Whether what has waited longest stands in a block of the chain.
    pub(super) fn oldest_is_proposed(&self) -> bool {
        let entry = self.entries.first_key_value();
        match (entry, self.oldest_block()) {
            (Some((arrival, entry)), block) => entry.proposed || block.is_some_and(|block| block < *arrival),
            (None, block) => block.is_some(),
        }
    }

    /// The frame that has waited longest, unless it stands in a block of the chain.
    pub(super) fn oldest_waiting(&self) -> Option<&Frame> {
        self.entries.first_key_value().filter(|(_, entry)| !entry.proposed).map(|(_, entry)| &entry.frame)
    }

    /// Nobody waits for this frame any more. Its arrival, if it waited here and stands in no block.
    pub(super) fn withdraw(&mut self, frame: &Digest) -> Option<u64> {
        let arrival = *self.index.get(frame).filter(|_| !self.chained.contains(frame))?;
        self.remove(arrival).map(|_| arrival)
    }

    /// Takes an admitted frame in; whether it is new and found room.
    pub(super) fn add(&mut self, frame: &Frame) -> bool {
        let (owner, bytes, system) = (Owner::of(frame), frame.wire().len(), is_system(frame));
        let too_many = system && self.shares.get(&owner).is_some_and(|share| share.system >= SYSTEM_MAX);
        let rank = share::rank(frame);
        if too_many || self.knows(&frame.id()) || !self.make_room(owner, bytes, rank) {
            return false;
        }
        let arrival = self.next;
        self.next += 1;
        self.index.insert(frame.id(), arrival);
        self.entries.insert(arrival, Entry { frame: frame.clone(), rank, proposed: false, shown: false });
        self.change(owner, |share| {
            share.frames += 1;
            share.bytes += bytes;
            share.system += usize::from(system);
            share.waits(arrival, rank);
        });
        true
    }

    /// Whether there is room for a frame of this size now: the greatest shares lose their last frames for it, as long as
    /// they are greater than this one becomes, and then this share those that come behind the frame. What stands in a
    /// block is not dropped.
    fn make_room(&mut self, owner: Owner, bytes: usize, rank: u64) -> bool {
        let none = Share::default();
        loop {
            let pot = self.pot(owner);
            if pot.has_room(bytes) {
                return true;
            }
            let own = self.shares.get(&owner).unwrap_or(&none);
            let last = |greedy: Owner| self.shares.get(&greedy)?.last();
            let own_last = || own.last().filter(|(behind, _)| *behind > rank);
            let Some((_, last)) = pot.greater(own, bytes).find_map(last).or_else(own_last) else { return false };
            self.remove(last);
        }
    }

    const fn pot(&self, owner: Owner) -> &Pot {
        match owner {
            Owner::Member(_) => &self.members,
            Owner::Client(_) => &self.clients,
        }
    }

    /// Changes a share, and everything that is kept about shares with it.
    fn change(&mut self, owner: Owner, change: impl FnOnce(&mut Share)) {
        let pot = match owner {
            Owner::Member(_) => &mut self.members,
            Owner::Client(_) => &mut self.clients,
        };
        let share = self.shares.entry(owner).or_default();
        let (before, was_ready) = ((share.frames, share.bytes), !share.waiting.is_empty());
        change(share);
        let (after, is_ready) = ((share.frames, share.bytes), !share.waiting.is_empty());
        if after.0 == 0 {
            self.shares.remove(&owner);
        }
        if before != after {
            pot.account(owner, before, after);
        }
        match (was_ready, is_ready) {
            (false, true) => drop(self.ready.insert(owner)),
            (true, false) => drop(self.ready.remove(&owner)),
            _ => {}
        }
    }

    fn remove(&mut self, arrival: u64) -> Option<Entry> {
        let entry = self.entries.remove(&arrival)?;
        self.index.remove(&entry.frame.id());
        let (bytes, system) = (entry.frame.wire().len(), is_system(&entry.frame));
        self.change(Owner::of(&entry.frame), |share| {
            share.frames -= 1;
            share.bytes -= bytes;
            share.system -= usize::from(system);
            share.waits_no_more(arrival, entry.rank);
        });
        Some(entry)
    }

    fn set_proposed(&mut self, arrival: u64, proposed: bool) {
        let Some(entry) = self.entries.get_mut(&arrival).filter(|entry| entry.proposed != proposed) else { return };
        entry.proposed = proposed;
        let (owner, rank) = (Owner::of(&entry.frame), entry.rank);
        self.change(owner, |share| {
            if proposed {
                share.waits_no_more(arrival, rank);
            } else {
                share.waits(arrival, rank);
            }
        });
    }

    /// This block is decided. Returns the bytes of those of its frames that this replica had shown to the others.
    pub(super) fn decided(&mut self, block: &Block) -> usize {
        self.blocks.remove(&block.hash());
        let mut shown = 0;
        for frame in block.frames() {
            self.chained.remove(&frame.id());
            let entry = self.index.get(&frame.id()).copied().and_then(|arrival| self.remove(arrival));
            shown += entry.filter(|entry| entry.shown).map_or(0, |entry| entry.frame.wire().len());
        }
        shown
    }

    /// These frames stand in a block of the chain.
    pub(super) fn proposed(&mut self, block: &Block) {
        for frame in block.frames() {
            self.chained.insert(frame.id());
            if let Some(arrival) = self.index.get(&frame.id()).copied() {
                self.set_proposed(arrival, true);
            }
        }
    }

    /// The chain is another one now: nothing stands in it but what is told again.
    pub(super) fn forget_proposed(&mut self) {
        self.chained.clear();
        let proposed = |(arrival, entry): (&u64, &Entry)| entry.proposed.then_some(*arrival);
        let proposed: Vec<u64> = self.entries.iter().filter_map(proposed).collect();
        proposed.into_iter().for_each(|arrival| self.set_proposed(arrival, false));
    }

    pub(super) fn has_unproposed(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The frames of the next block: about `batch_bytes` of them, `bytes_max` at the most. Keys take turns, each in
    /// its order of arrival; who has its turn when the block is full goes on in the next one.
    pub(super) fn take_batch(&mut self, batch_bytes: usize, bytes_max: usize) -> Vec<Frame> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        while let Some(owner) = self.next_turn() {
            let mut turn = 0;
            while let Some((arrival, frame)) = self.first_waiting(&owner).filter(|_| turn < TURN_BYTES) {
                let more = frame.wire().len() + FRAME_OVERHEAD_BYTES;
                if bytes + more > bytes_max || (bytes > 0 && bytes + more > batch_bytes) {
                    return batch;
                }
                bytes += more;
                turn += more;
                batch.push(frame.clone());
                self.set_proposed(arrival, true);
            }
            self.turn = Some(owner);
        }
        batch
    }

    fn next_turn(&self) -> Option<Owner> {
        let behind = self.turn.and_then(|turn| {
            use core::ops::Bound::{Excluded, Unbounded};
            self.ready.range((Excluded(turn), Unbounded)).next()
        });
        behind.or_else(|| self.ready.first()).copied()
    }

    fn first_waiting(&self, owner: &Owner) -> Option<(u64, &Frame)> {
        let arrival = *self.shares.get(owner)?.waiting.first()?;
        Some((arrival, &self.entries.get(&arrival)?.frame))
    }

    /// Frames that stand in no block of the chain, to show them to the others: the oldest first, then in turns, at most
    /// about `bytes` of them but one at least.
    pub(super) fn show(&mut self, bytes: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        for arrival in self.to_show(bytes) {
            if let Some(entry) = self.entries.get_mut(&arrival) {
                entry.shown = true;
                frames.push(entry.frame.clone());
            }
        }
        frames
    }

    /// The frame that is to be shown first, if one waits that stands in no block of the chain.
    pub(super) fn first_to_show(&self) -> Vec<Frame> {
        let first = self.to_show(1).into_iter().next().and_then(|arrival| self.entries.get(&arrival));
        first.map(|entry| entry.frame.clone()).into_iter().collect()
    }

    fn to_show(&self, bytes: usize) -> Vec<u64> {
        let shares = self.ready.iter().filter_map(|owner| self.shares.get(owner));
        let mut queues: Vec<_> = shares.map(|share| share.waiting.iter()).collect();
        queues.sort_by_key(|queue| queue.clone().next().copied());
        let mut left = bytes;
        let mut chosen = Vec::new();
        while !queues.is_empty() {
            queues.retain(|queue| queue.len() > 0);
            for queue in &mut queues {
                let Some((arrival, entry)) = queue.next().and_then(|at| Some((*at, self.entries.get(at)?))) else {
                    continue;
                };
                let more = entry.frame.wire().len() + FRAME_OVERHEAD_BYTES;
                if more > left && !chosen.is_empty() {
                    return chosen;
                }
                left = left.saturating_sub(more);
                chosen.push(arrival);
            }
        }
        chosen
    }

    /// A block is here that this replica may have to decide: it is waited for as an entry is.
    pub(super) fn wait_for(&mut self, block: &Block) {
        if !block.frames().is_empty() && !self.blocks.contains_key(&block.hash()) {
            self.blocks.insert(block.hash(), (self.next, block.clone()));
            self.next += 1;
        }
    }

    pub(super) fn waits_for_blocks(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Blocks waited for that are void now, or gone: their frames that do not wait here.
    pub(super) fn give_back(&mut self, stands: impl Fn(&Digest) -> bool) -> Vec<Frame> {
        let void: Vec<Digest> = self.blocks.keys().filter(|hash| !stands(hash)).copied().collect();
        let void: Vec<Block> = void.iter().filter_map(|hash| Some(self.blocks.remove(hash)?.1)).collect();
        let frames = void.iter().flat_map(Block::frames);
        frames.filter(|frame| !self.index.contains_key(&frame.id())).cloned().collect()
    }

    /// Frames and bytes of each key, counted anew and held against what is kept.
    #[cfg(test)]
    pub(super) fn counted(&self) -> BTreeMap<unisono_types::PublicKey, (usize, usize)> {
        let mut counted: BTreeMap<Owner, Share> = BTreeMap::new();
        for (arrival, entry) in &self.entries {
            let share = counted.entry(Owner::of(&entry.frame)).or_default();
            share.frames += 1;
            share.bytes += entry.frame.wire().len();
            share.system += usize::from(is_system(&entry.frame));
            if !entry.proposed {
                share.waits(*arrival, entry.rank);
            }
        }
        assert_eq!(counted, self.shares);
        let ready = counted.iter().filter(|(_, share)| !share.waiting.is_empty());
        assert!(ready.map(|(owner, _)| owner).eq(&self.ready));
        let key = |(owner, share): (Owner, Share)| match owner {
            Owner::Member(key) | Owner::Client(key) => (key, (share.frames, share.bytes)),
        };
        counted.into_iter().map(key).collect()
    }

    /// What must always hold; see the module.
    pub(super) fn invariants(&self) {
        assert_eq!(self.entries.len(), self.index.len(), "index and entries name the same frames");
        assert_eq!(self.entries.len(), self.members.frames() + self.clients.frames(), "each entry has its owner");
        self.members.invariants();
        self.clients.invariants();
    }
}
