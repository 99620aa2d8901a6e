//! A Byzantine replica for experiments. Exists only with the feature `liar`, which no shipped program has.
//!
//! ```text
//!   DIR/replica-I/liar ── Orders, read every 20 ms ──┐
//!   core ── bytes, replies ───────────────────────> Liar ── (delay, peer, bytes), replies ──> outboxes
//!   system's wall clock ──────────────────────────> Liar ── shifted ──> core
//! ```
//! The core itself stays correct, its log and its register too; only what leaves is falsified. So a replica that stops
//! lying is correct again, and experiments can alternate. What the register would have to sign is out of reach here: the
//! simulator's liars cover that.
//!
//! Without the environment variable `UNISONO_LIAR` there is no liar in such a build either.
//! Never: a lie depends on anything but orders, seed and the order of messages.

use crate::config::{KeyPair, ReplicaConfig};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use unisono_consensus::aphousia::{Block, CertifiedBlock, Message, inline_digest};
use unisono_node::message::{encoded, parse_peer};
use unisono_replica::PeerMessage;
use unisono_types::{
    Answer, ClusterId, Frame, FrameBody, ReplicaId, Reply, ReplyBody, SequenceNumber, Timestamp, VerifyContext,
};

/// Set, it makes the replicas of such a build look for orders.
pub const VARIABLE: &str = "UNISONO_LIAR";

/// How often orders are read.
const LOOK: Duration = Duration::from_millis(20);

/// How often a flood brings its share.
pub(super) const FLOOD: Duration = Duration::from_millis(10);

/// Frames of a flood's share: with 200 bytes each, 2 MB/s.
const FLOOD_FRAMES: usize = 100;

/// Different frames of a flood; then it begins again.
const FLOOD_POOL: usize = 2_000;

/// Old messages of a flood's share.
const FLOOD_OLD: usize = 20;

/// Old messages that are kept, and the size above which none is.
const OLD_MAX: usize = 1_024;
const OLD_BYTES_MAX: usize = 64 << 10;

/// The first two bytes of messages between replicas: what consensus says, and which kind of it.
const BLOCK: &[u8] = &[0, 0];
const DECIDED: &[u8] = &[0, 8];

/// What a replica does instead of what it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Nothing else.
    #[default]
    Honest,
    /// Sends nothing to one peer, and nothing to clients.
    Silent,
    /// Sends everything late, by 100 to 500 ms.
    Slow,
    /// Flips a bit in one of four messages, by chance.
    Corrupt,
    /// Sends an old message before every second one.
    Replay,
    /// Proposes other blocks to one peer than to the rest.
    Equivocate,
    /// Sends votes, but no blocks, to one peer.
    Withhold,
    /// Sends 2 MB/s of correctly signed frames of an unknown key, and 2000 old messages a second.
    Flood,
    /// Answers clients wrongly.
    WrongReplies,
    /// Answers peers that catch up with garbage, or not at all.
    FeedLaggards,
}

impl Strategy {
    /// All but the honest one.
    pub const LIES: [Self; 9] = [
        Self::Silent,
        Self::Slow,
        Self::Corrupt,
        Self::Replay,
        Self::Equivocate,
        Self::Withhold,
        Self::Flood,
        Self::WrongReplies,
        Self::FeedLaggards,
    ];

    /// As orders name it.
    #[must_use]
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// What the file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Orders {
    /// What to do.
    pub strategy: Strategy,
    /// Fixes whom it concerns and how.
    pub seed: u64,
    /// How far the wall clock is ahead of the system's, in milliseconds.
    pub wall_ms: i64,
}

impl Orders {
    /// Gives these orders to the replica of a directory, which follows them within [`LOOK`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn give(&self, replica_directory: &Path) -> std::io::Result<()> {
        super::write_whole(&file(replica_directory), &serde_json::to_vec(self)?)
    }

    fn read(path: &Path) -> Self {
        std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

fn file(replica_directory: &Path) -> PathBuf {
    replica_directory.join("liar")
}

/// Numbers that a seed fixes (SplitMix64).
#[derive(Default)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound.max(1) as u64).unwrap_or(0)
    }
}

/// What leaves instead of one message: how much later, to whom, what.
pub(super) type Sent = Vec<(Duration, ReplicaId, Bytes)>;

/// What a replica of a test build does with everything that leaves it.
pub(super) struct Liar {
    peers: Vec<ReplicaId>,
    context: VerifyContext,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    orders: Orders,
    random: Random,
    old: VecDeque<Bytes>,
    pool: Vec<Frame>,
    flooded: usize,
    /// Messages and replies that were falsified by these orders, for people.
    told: u64,
}

impl Liar {
    /// Follows the orders in the replica's directory from now on; `None` without [`VARIABLE`].
    pub(super) fn start(config: &ReplicaConfig) -> Option<Arc<Self>> {
        std::env::var_os(VARIABLE)?;
        let liar = Arc::new(Self::new(config.id, config.cluster.verify_context(), Orders::default()));
        let (path, followed) = (file(&config.directory), Arc::downgrade(&liar));
        std::thread::spawn(move || {
            while let Some(liar) = followed.upgrade() {
                liar.follow(Orders::read(&path));
                drop(liar);
                std::thread::sleep(LOOK);
            }
        });
        Some(liar)
    }

    fn new(id: ReplicaId, context: VerifyContext, orders: Orders) -> Self {
        let peers = context.membership.ids().filter(|peer| *peer != id).collect();
        let liar = Self { peers, context, state: Mutex::default() };
        liar.follow(orders);
        liar
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, orders: Orders) {
        let mut state = self.state();
        if state.orders != orders {
            let told = std::mem::take(&mut state.told);
            tracing::warn!(?orders, told, "new orders, and lies told by those before");
            state.orders = orders;
            state.random = Random(orders.seed);
        }
    }

    /// The wall clock in microseconds, as ordered.
    pub(super) fn wall(&self, micros: u64) -> u64 {
        micros.saturating_add_signed(self.state().orders.wall_ms.saturating_mul(1_000))
    }

    /// What is sent instead of `bytes` to `to`.
    pub(super) fn lie(&self, to: ReplicaId, bytes: Bytes) -> Sent {
        let mut state = self.state();
        let Orders { strategy, seed, .. } = state.orders;
        let is_victim = self.peers.get(seed as usize % self.peers.len().max(1)) == Some(&to);
        let truth = vec![(Duration::ZERO, to, bytes.clone())];
        let mut later = Duration::ZERO;
        let mut sent = Sent::new();
        let bytes = match strategy {
            Strategy::Honest | Strategy::WrongReplies => Some(bytes),
            Strategy::Silent => Some(bytes).filter(|_| !is_victim),
            Strategy::Withhold => Some(bytes).filter(|bytes| !is_victim || !bytes.starts_with(BLOCK)),
            Strategy::Slow => {
                later = lateness(seed);
                Some(bytes)
            }
            Strategy::Corrupt if state.random.below(4) == 0 => Some(changed(&bytes, &mut state.random)),
            Strategy::Corrupt => Some(bytes),
            Strategy::Replay => {
                let old = if state.random.below(2) == 0 { state.some_old() } else { None };
                sent.extend(old.map(|old| (Duration::ZERO, to, old)));
                state.keep(&bytes);
                Some(bytes)
            }
            Strategy::Flood => {
                state.keep(&bytes);
                Some(bytes)
            }
            Strategy::Equivocate if is_victim && bytes.starts_with(BLOCK) => {
                Some(other_block(&bytes, &self.context).unwrap_or(bytes))
            }
            Strategy::Equivocate => Some(bytes),
            Strategy::FeedLaggards if bytes.starts_with(DECIDED) => match state.random.below(3) {
                0 => None,
                1 => Some(bytes.slice(..bytes.len() / 2)),
                _ => Some(changed(&bytes, &mut state.random)),
            },
            Strategy::FeedLaggards => Some(bytes),
        };
        sent.extend(bytes.map(|bytes| (later, to, bytes)));
        state.told += u64::from(sent != truth);
        sent
    }

    /// What a client is told instead, and how much later.
    pub(super) fn reply(&self, reply: &Reply) -> Option<(Duration, Reply)> {
        let mut state = self.state();
        let Orders { strategy, seed, .. } = state.orders;
        let told = match strategy {
            Strategy::Silent => None,
            Strategy::Slow => Some((lateness(seed), reply.clone())),
            Strategy::WrongReplies => Some((Duration::ZERO, wrong(reply.clone()))),
            _ => return Some((Duration::ZERO, reply.clone())),
        };
        state.told += 1;
        told
    }

    /// A flood's next share, for each peer. Empty when nothing else was ordered.
    pub(super) fn flood(&self) -> Sent {
        let mut state = self.state();
        if state.orders.strategy != Strategy::Flood {
            return Sent::new();
        }
        if state.pool.is_empty() {
            state.pool = strangers(self.context.cluster, state.orders.seed);
        }
        let from = state.flooded;
        state.flooded = (from + FLOOD_FRAMES) % FLOOD_POOL;
        let frames = Message::Frames(state.pool[from..from + FLOOD_FRAMES].to_vec());
        let mut messages = vec![encoded(&PeerMessage::Consensus(frames))];
        messages.extend((0..FLOOD_OLD).filter_map(|_| state.some_old()));
        state.told += (messages.len() * self.peers.len()) as u64;
        let to_each = |peer: &ReplicaId| messages.iter().map(|bytes| (Duration::ZERO, *peer, bytes.clone())).collect();
        self.peers.iter().flat_map(|peer| -> Sent { to_each(peer) }).collect()
    }
}

impl State {
    fn keep(&mut self, bytes: &Bytes) {
        if bytes.len() > OLD_BYTES_MAX {
            return;
        }
        if self.old.len() == OLD_MAX {
            self.old.pop_front();
        }
        self.old.push_back(bytes.clone());
    }

    fn some_old(&mut self) -> Option<Bytes> {
        let index = self.random.below(self.old.len());
        self.old.get(index).cloned()
    }
}

fn lateness(seed: u64) -> Duration {
    Duration::from_millis(100 + seed % 5 * 100)
}

/// With one bit flipped.
fn changed(bytes: &Bytes, random: &mut Random) -> Bytes {
    let mut bytes = bytes.to_vec();
    let index = random.below(bytes.len());
    if let Some(byte) = bytes.get_mut(index) {
        *byte ^= 1 << random.below(8);
    }
    bytes.into()
}

/// Another block for the same place, without the last frame or with a later time, and well-formed: nothing but its
/// missing certificate tells it from the first.
fn other_block(bytes: &Bytes, context: &VerifyContext) -> Option<Bytes> {
    let Ok(PeerMessage::Consensus(Message::Block(first))) = parse_peer::<Message>(bytes.clone(), context) else {
        return None;
    };
    let (mut header, mut frames) = (first.block.header().clone(), first.block.frames().to_vec());
    if frames.pop().is_none() {
        header.timestamp = Timestamp(header.timestamp.0 + 1);
    }
    header.inline = inline_digest(&frames);
    let block = Block::new(context.cluster, header, frames);
    let other = CertifiedBlock { block, certificate: None, parent_certificate: first.parent_certificate };
    Some(encoded(&PeerMessage::Consensus(Message::Block(other))))
}

/// Minimal frames, each correctly signed by a key that the cluster does not know.
fn strangers(cluster: ClusterId, seed: u64) -> Vec<Frame> {
    let stranger = KeyPair::from_seed([(seed % 251) as u8; 32]);
    let body = |nonce| FrameBody::Open { nonce, recent: SequenceNumber(0) };
    (0..FLOOD_POOL as u64).map(|nonce| Frame::sign(cluster, stranger.signer(), body(nonce))).collect()
}

/// Another outcome for everything that was executed.
fn wrong(mut reply: Reply) -> Reply {
    for answer in &mut reply.answers {
        if let Answer::Executed { body, .. } = answer {
            *body = ReplyBody::Full(Ok(Bytes::from_static(b"wrong")));
        }
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{InitOptions, init};
    use unisono_consensus::aphousia::{Aphousia, Header};
    use unisono_node::{log::CommittedBlock, provided};
    use unisono_types::{Digest, Epoch, Step, Unverified, View};

    fn liar(strategy: Strategy, seed: u64) -> Liar {
        let place = tempfile::tempdir().unwrap();
        init(place.path(), &InitOptions { client_keys: 1, ..InitOptions::default() }).unwrap();
        let config = ReplicaConfig::load(place.path().join("replica-0")).unwrap();
        Liar::new(config.id, config.cluster.verify_context(), Orders { strategy, seed, wall_ms: 0 })
    }

    /// A proposal as a leader sends it, with one frame or none.
    fn proposal(liar: &Liar, frames: usize) -> Bytes {
        let context = &liar.context;
        let frames = strangers(context.cluster, 1)[..frames].to_vec();
        let header = Header {
            epoch: context.membership.configuration().epoch,
            view: View(0),
            step: Step(1),
            height: SequenceNumber(1),
            parent: Digest::ZERO,
            timestamp: Timestamp(5),
            inline: inline_digest(&frames),
            penalties: Vec::new(),
            justification: None,
        };
        let block = Block::new(context.cluster, header, frames);
        let certified = CertifiedBlock { block, certificate: None, parent_certificate: None };
        encoded(&PeerMessage::Consensus(Message::Block(certified)))
    }

    fn status() -> Bytes {
        encoded(&PeerMessage::Consensus(Message::Ask(SequenceNumber(7))))
    }

    const VICTIM: ReplicaId = ReplicaId(1);
    const OTHER: ReplicaId = ReplicaId(2);

    fn as_it_is(to: ReplicaId, bytes: &Bytes) -> Sent {
        vec![(Duration::ZERO, to, bytes.clone())]
    }

    #[test]
    fn one_that_is_honest_passes_on_everything() {
        let liar = liar(Strategy::Honest, 3);
        assert_eq!(liar.lie(VICTIM, status()), as_it_is(VICTIM, &status()));
        assert!(liar.flood().is_empty());
        assert_eq!(liar.wall(1_000_000), 1_000_000);
    }

    #[test]
    fn silence_and_withheld_blocks_concern_one_peer() {
        let silent = liar(Strategy::Silent, 0);
        assert_eq!(silent.lie(VICTIM, status()), []);
        assert_eq!(silent.lie(OTHER, status()), as_it_is(OTHER, &status()));
        assert_eq!(silent.state().told, 1);
        let withholding = liar(Strategy::Withhold, 0);
        let block = proposal(&withholding, 1);
        assert_eq!(withholding.lie(VICTIM, block.clone()), []);
        assert_eq!(withholding.lie(VICTIM, status()), as_it_is(VICTIM, &status()));
        assert_eq!(withholding.lie(OTHER, block.clone()), as_it_is(OTHER, &block));
    }

    #[test]
    fn what_is_slow_is_late_for_peers_and_clients() {
        let liar = liar(Strategy::Slow, 2);
        assert_eq!(liar.lie(OTHER, status()), [(Duration::from_millis(300), OTHER, status())]);
        assert_eq!(liar.reply(&reply()).unwrap().0, Duration::from_millis(300));
    }

    #[test]
    fn an_other_block_is_well_formed_and_another_one() {
        let liar = liar(Strategy::Equivocate, 0);
        for frames in [0, 1] {
            let first = proposal(&liar, frames);
            assert_eq!(liar.lie(OTHER, first.clone()), as_it_is(OTHER, &first));
            let (_, _, second) = liar.lie(VICTIM, first.clone()).remove(0);
            let hash = |bytes: &Bytes| match parse_peer::<Message>(bytes.clone(), &liar.context) {
                Ok(PeerMessage::Consensus(Message::Block(block))) => block.block.hash(),
                other => panic!("{other:?}"),
            };
            assert_ne!(hash(&first), hash(&second), "{frames} frames");
        }
    }

    #[test]
    fn a_flood_is_signed_and_comes_with_old_messages() {
        let liar = liar(Strategy::Flood, 9);
        assert_eq!(liar.lie(OTHER, status()), as_it_is(OTHER, &status()));
        let share = liar.flood();
        assert_eq!(share.len(), 2 * (1 + FLOOD_OLD));
        assert!(share.contains(&(Duration::ZERO, VICTIM, status())));
        let Ok(PeerMessage::Consensus(Message::Frames(frames))) =
            parse_peer::<Message>(share[0].2.clone(), &liar.context)
        else {
            panic!("{share:?}");
        };
        assert_eq!(frames.len(), FLOOD_FRAMES);
        // Otherwise a single check would end it.
        Unverified::new(frames[0].clone()).verify(&liar.context).unwrap();
        for _ in 0..FLOOD_POOL / FLOOD_FRAMES {
            assert!(!liar.flood().is_empty(), "it begins again");
        }
        assert_eq!(liar.state().told, (21 * 2 * (1 + FLOOD_OLD)) as u64);
    }

    #[test]
    fn laggards_get_garbage_and_others_what_they_are_due() {
        let liar = liar(Strategy::FeedLaggards, 4);
        assert_eq!(liar.lie(OTHER, status()), as_it_is(OTHER, &status()));
        let answer = Bytes::from([DECIDED, &[0; 100]].concat());
        for _ in 0..20 {
            assert_ne!(liar.lie(OTHER, answer.clone()), as_it_is(OTHER, &answer));
        }
    }

    #[test]
    fn a_seed_repeats_its_corruption_and_its_replays() {
        for strategy in [Strategy::Corrupt, Strategy::Replay] {
            let run = || {
                let liar = liar(strategy, 11);
                (0..40).map(|_| liar.lie(OTHER, status())).collect::<Vec<_>>()
            };
            let sent = run();
            assert_eq!(sent, run());
            assert!(sent.iter().any(|sent| *sent != as_it_is(OTHER, &status())), "{strategy:?}");
        }
    }

    fn reply() -> Reply {
        let body = ReplyBody::Full(Ok(Bytes::from_static(b"right")));
        let session = unisono_types::SessionId::default();
        let answers = vec![Answer::Executed { session, number: unisono_types::RequestNumber(1), body }];
        Reply { epoch: Epoch(0), leader: VICTIM, executed: SequenceNumber(1), answers }
    }

    #[test]
    fn wrong_replies_are_wrong_and_silence_is_none() {
        assert_ne!(liar(Strategy::WrongReplies, 0).reply(&reply()).unwrap().1, reply());
        assert_eq!(liar(Strategy::Corrupt, 0).reply(&reply()).unwrap().1, reply());
        assert!(liar(Strategy::Silent, 0).reply(&reply()).is_none());
    }

    #[test]
    fn orders_are_given_by_a_file_and_clocks_follow_them() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(Orders::read(&file(place.path())), Orders::default());
        let orders = Orders { strategy: Strategy::WrongReplies, seed: 5, wall_ms: -2_000 };
        orders.give(place.path()).unwrap();
        assert_eq!(Orders::read(&file(place.path())), orders);
        let liar = liar(Strategy::Honest, 0);
        liar.follow(orders);
        assert_eq!(liar.wall(5_000_000), 3_000_000);
        assert_eq!(liar.wall(5), 0, "not below zero");
        assert_eq!(Strategy::WrongReplies.name(), "wrong-replies");
    }

    #[test]
    fn the_kinds_of_messages_are_those_of_the_wire() {
        let liar = liar(Strategy::Honest, 0);
        assert!(proposal(&liar, 0).starts_with(BLOCK));
        let block = CommittedBlock {
            sequence: SequenceNumber(1),
            hash: Digest::ZERO,
            bytes: Bytes::new(),
            proof: Bytes::from_static(b"proof"),
        };
        assert!(provided::<Aphousia>(SequenceNumber(1), vec![block]).unwrap().starts_with(DECIDED));
    }
}
