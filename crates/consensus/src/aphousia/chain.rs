//! The tree of blocks above the last decided one, and the decided ones that are still in memory.
//!
//! ```text
//!    decided in memory        root           above: nodes
//!    #7 <- #8 <- #9 <- ...  <- #12  <- #13 linked, certified = valid <- #14 linked (own)
//!                                \- #13' linked, no certificate        #16 parent unknown: not linked
//! ```
//! Invariant: nodes stand above the root. Invariant: the parent of a linked node is the root or a linked node.
//! Invariant: decided blocks in memory are consecutive and end with the root (or there are none).
//! This module holds and finds; what is valid and what is decided is said by its user.

use super::block::{Block, CertifiedBlock, Header};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use unisono_types::bounds::DECIDED_MEMORY_BYTES;
use unisono_types::{Bytes, Certificate, Digest, ReplicaId, SequenceNumber, View};

/// What the tree grows on: the last decided block, or what the epoch stands on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Root {
    pub(super) header: Header,
    pub(super) hash: Digest,
}

/// A block above the root.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Node {
    pub(super) block: Block,
    /// Who must certify it. Known as soon as its parent is valid and it is valid on it.
    pub(super) proposer: Option<ReplicaId>,
    /// The votes that name it, each with exactly its place; the proposer's is one of them.
    pub(super) votes: BTreeMap<ReplicaId, Certificate>,
    /// Whom it came from.
    pub(super) from: ReplicaId,
    /// Since when it has been held here and timely, monotonic.
    pub(super) since: u64,
    /// Asked for by name: does not count against the sender.
    pub(super) requested: bool,
    /// Built here since the last start: may stand on another own one that is not certified yet.
    pub(super) own: bool,
    /// What follows from its being valid was done.
    pub(super) announced: bool,
    /// In the log.
    pub(super) stored: bool,
    /// Its proposer's certificate is in the log too.
    pub(super) certificate_stored: bool,
}

impl Node {
    pub(super) const fn new(block: Block, from: ReplicaId) -> Self {
        Self {
            block,
            proposer: None,
            votes: BTreeMap::new(),
            from,
            since: 0,
            requested: false,
            own: false,
            announced: false,
            stored: false,
            certificate_stored: false,
        }
    }

    pub(super) fn header(&self) -> &Header {
        self.block.header()
    }

    /// The certificate that makes it valid.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        self.votes.get(&self.proposer?).copied()
    }

    /// Its parent is valid, it is valid on it, and its proposer stands by it.
    pub(super) fn is_valid(&self) -> bool {
        self.certificate().is_some()
    }

    pub(super) fn certified_block(&self) -> CertifiedBlock {
        CertifiedBlock { block: self.block.clone(), certificate: self.certificate(), parent_certificate: None }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct DecidedBlock {
    block: CertifiedBlock,
    /// When a piece of a decision ended with this block: shows that it is decided.
    proof: Option<Bytes>,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Chain {
    root: Root,
    pub(super) nodes: BTreeMap<Digest, Node>,
    decided: BTreeMap<SequenceNumber, DecidedBlock>,
    decided_names: BTreeMap<Digest, SequenceNumber>,
    decided_bytes: usize,
}

impl Chain {
    pub(super) const fn new(root: Root) -> Self {
        Self {
            root,
            nodes: BTreeMap::new(),
            decided: BTreeMap::new(),
            decided_names: BTreeMap::new(),
            decided_bytes: 0,
        }
    }

    pub(super) const fn root(&self) -> &Root {
        &self.root
    }

    pub(super) const fn height(&self) -> SequenceNumber {
        self.root.header.height
    }

    /// The header of the root or of a node that is linked.
    pub(super) fn linked_header(&self, hash: &Digest) -> Option<&Header> {
        if *hash == self.root.hash {
            return Some(&self.root.header);
        }
        self.nodes.get(hash).filter(|node| node.proposer.is_some()).map(Node::header)
    }

    /// Whether the root, or a valid node.
    pub(super) fn is_valid(&self, hash: &Digest) -> bool {
        *hash == self.root.hash || self.nodes.get(hash).is_some_and(Node::is_valid)
    }

    pub(super) fn children(&self, hash: &Digest) -> Vec<Digest> {
        self.nodes.values().filter(|node| node.header().parent == *hash).map(|node| node.block.hash()).collect()
    }

    /// From just above the root up to `hash`. Empty for the root; ends early at a parent that is not here.
    pub(super) fn path(&self, hash: &Digest) -> Vec<Digest> {
        let mut path = Vec::new();
        let mut at = *hash;
        while let Some(node) = self.nodes.get(&at) {
            path.push(at);
            at = node.header().parent;
        }
        path.reverse();
        path
    }

    /// Bytes of the frames, and what the headers count for, from just above the root up to `hash`.
    pub(super) fn path_bytes(&self, hash: &Digest) -> (usize, usize) {
        let (mut frames, mut headers) = (0, 0);
        let mut at = *hash;
        while let Some(node) = self.nodes.get(&at) {
            frames += node.block.frame_bytes();
            headers += node.block.header_charge();
            at = node.header().parent;
        }
        (frames, headers)
    }

    /// The valid node of `view` with the greatest step.
    pub(super) fn tip(&self, view: View) -> Option<&Node> {
        let of_view = self.nodes.values().filter(|node| node.header().view == view && node.is_valid());
        of_view.max_by_key(|node| node.header().step)
    }

    /// Views in which valid nodes stand, latest first.
    pub(super) fn views(&self) -> Vec<View> {
        let views: BTreeSet<View> =
            self.nodes.values().filter(|node| node.is_valid()).map(|node| node.header().view).collect();
        views.into_iter().rev().collect()
    }

    /// Removes a node and everything that stands on it.
    pub(super) fn remove_with_descendants(&mut self, hash: &Digest) {
        let mut doomed = alloc::vec![*hash];
        while let Some(hash) = doomed.pop() {
            if self.nodes.remove(&hash).is_some() {
                doomed.extend(self.children(&hash));
            }
        }
    }

    /// `block` on the root is decided: it is the root now, and forks beside it are gone.
    pub(super) fn decide(&mut self, block: CertifiedBlock, proof: Option<Bytes>) {
        let hash = block.block.hash();
        self.root = Root { header: block.block.header().clone(), hash };
        self.nodes.remove(&hash);
        let height = self.height();
        let beside = |node: &Node| {
            node.header().height <= height || (node.header().height == height.next() && node.header().parent != hash)
        };
        let doomed: Vec<Digest> =
            self.nodes.values().filter(|node| beside(node)).map(|node| node.block.hash()).collect();
        for hash in &doomed {
            self.remove_with_descendants(hash);
        }
        self.decided_bytes += block.block.bytes();
        self.decided_names.insert(hash, height);
        self.decided.insert(height, DecidedBlock { block, proof });
        while self.decided_bytes > DECIDED_MEMORY_BYTES && self.decided.len() > 1 {
            self.forget_first_decided();
        }
    }

    /// After a restart: the root's own block and proof, to serve a peer that is one behind.
    pub(super) fn remember_root(&mut self, block: CertifiedBlock, proof: Option<Bytes>) {
        self.decided_bytes += block.block.bytes();
        self.decided_names.insert(block.block.hash(), self.root.header.height);
        self.decided.insert(self.root.header.height, DecidedBlock { block, proof });
    }

    /// Nothing below a stable checkpoint need be kept in memory.
    pub(super) fn truncate(&mut self, below: SequenceNumber) {
        while self.decided.len() > 1 && self.decided.first_key_value().is_some_and(|(height, _)| *height < below) {
            self.forget_first_decided();
        }
    }

    fn forget_first_decided(&mut self) {
        if let Some((_, decided)) = self.decided.pop_first() {
            self.decided_bytes -= decided.block.block.bytes();
            self.decided_names.remove(&decided.block.block.hash());
        }
    }

    /// A decided block that is still in memory.
    pub(super) fn decided(&self, hash: &Digest) -> Option<&CertifiedBlock> {
        self.decided.get(self.decided_names.get(hash)?).map(|decided| &decided.block)
    }

    /// The hash of a decided block that is still in memory.
    pub(super) fn decided_at(&self, height: SequenceNumber) -> Option<Digest> {
        self.decided.get(&height).map(|decided| decided.block.block.hash())
    }

    /// Decided blocks behind `after`, at most `bytes` of them or else one piece, up to one that has a proof. `None` when
    /// they are no longer in memory.
    pub(super) fn decided_after(&self, after: SequenceNumber, bytes: usize) -> Option<(Vec<Bytes>, Bytes)> {
        self.decided.get(&after.next())?;
        let mut run = Vec::new();
        let mut size = 0;
        let mut proven = None;
        for decided in self.decided.range(after.next()..).map(|(_, decided)| decided) {
            size += decided.block.block.bytes();
            if size > bytes && proven.is_some() {
                break;
            }
            run.push(decided.block.to_bytes());
            if let Some(proof) = &decided.proof {
                proven = Some((run.len(), proof.clone()));
            }
        }
        let (length, proof) = proven?;
        run.truncate(length);
        Some((run, proof))
    }

    /// What must always hold; see the module.
    pub(super) fn invariants(&self) {
        let height = self.height();
        for node in self.nodes.values() {
            assert!(node.header().height > height, "nodes stand above the root");
            let linked = node.proposer.is_none() || self.linked_header(&node.header().parent).is_some();
            assert!(linked, "the parent of a linked node is linked");
        }
        let ends = self.decided.last_key_value().is_none_or(|(last, _)| *last == height);
        assert!(ends, "decided blocks end with the root");
        assert_eq!(self.decided.len(), self.decided_names.len(), "every decided block has its name");
    }
}
