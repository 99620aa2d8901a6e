//! A Byzantine replica: the real core, whose words a liar bends on their way out.
//!
//! ```text
//!   core A ─┐                    ┌─> held back, late, flipped, said to somebody else
//!           ├─ one register ─────┤   said again later, with other claims (forged)
//!   core B ─┘ (twins: each       └─> wrong answers to clients
//!              talks to its half)
//! ```
//! It holds only its own keys, and its register is an honest one: that is the fault model (n = 2f+1 stands on it).
//! Twins on one register (Bano and others, "Twins", 2020) are the general liar: whatever two correct histories could
//! make one identity say to different peers is said, blocks of two contents among it.
//!
//! It never stops lying: what is demanded after healing is demanded with it.

use crate::lies::{Bend, Kind};
use crate::plan::Feeding;
use crate::{LiarPlan, Random, plan::SECOND};
use std::collections::{BTreeMap, VecDeque};
use unisono_types::{Bytes, Digest, RegisterView, Step};

/// Messages that a liar remembers.
const MEMORY_MAX: usize = 128;

/// Twins divide their peers anew after this long.
const DIVISION_LENGTH: u64 = SECOND / 2;

/// How long a liar that is slow lets others wait, at the most.
const LATENESS_MAX: u64 = 2 * SECOND;

/// Blocks of its log that a liar remembers by name.
const BLOCKS_MAX: usize = 32;

/// How late a liar answers who must catch up: just before the question is put to another peer.
const FEEDING_DELAY: u64 = 90_000;

/// The mind of one Byzantine replica.
#[derive(Debug)]
pub struct Liar {
    plan: LiarPlan,
    random: Random,
    memory: Vec<Bytes>,
    silent_until: Vec<u64>,
    blocks: BTreeMap<Digest, Bytes>,
    block_order: VecDeque<Digest>,
    /// Answers that it gave to laggards, to be given again.
    meals: VecDeque<Bytes>,
}

/// One thing a liar says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// To which replica.
    pub to: usize,
    /// What.
    pub bytes: Bytes,
    /// How much later.
    pub delay: u64,
}

/// What a liar has its register do behind the core's back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisterCall {
    /// Vote for garbage.
    Certify(RegisterView, Step, Digest),
    /// Leave early.
    Advance(RegisterView),
}

impl Liar {
    /// A liar among `replicas`.
    #[must_use]
    pub fn new(plan: LiarPlan, replicas: usize, random: Random) -> Self {
        Self {
            plan,
            random,
            memory: Vec::new(),
            silent_until: vec![0; replicas],
            blocks: BTreeMap::new(),
            block_order: VecDeque::new(),
            meals: VecDeque::new(),
        }
    }

    /// What was drawn for it.
    #[must_use]
    pub const fn plan(&self) -> &LiarPlan {
        &self.plan
    }

    /// How many cores it runs.
    #[must_use]
    pub const fn cores(&self) -> usize {
        if self.plan.twins { 2 } else { 1 }
    }

    /// Which of its cores talks to this machine just now.
    #[must_use]
    pub fn core_for(&self, now: u64, peer: usize) -> usize {
        if !self.plan.twins {
            return 0;
        }
        let division = Random::new((now / DIVISION_LENGTH) ^ ((self.plan.replica as u64) << 32)).next_u64();
        (division >> (peer % 64)) as usize & 1
    }

    /// Remembers something that it said or heard.
    pub fn remember(&mut self, bytes: &Bytes) {
        if self.memory.len() < MEMORY_MAX {
            self.memory.push(bytes.clone());
        } else if self.random.chance(50) {
            let place = self.random.index(MEMORY_MAX);
            self.memory[place] = bytes.clone();
        }
    }

    /// A core writes a block to the log.
    pub fn notice_block(&mut self, hash: Digest, bytes: &Bytes) {
        if self.blocks.insert(hash, bytes.clone()).is_none() {
            self.block_order.push_back(hash);
            if self.block_order.len() > BLOCKS_MAX
                && let Some(oldest) = self.block_order.pop_front()
            {
                self.blocks.remove(&oldest);
            }
        }
    }

    /// A block that it remembers.
    #[must_use]
    pub fn block(&self, hash: &Digest) -> Option<Bytes> {
        self.blocks.get(hash).cloned()
    }

    /// The newest block that it remembers.
    #[must_use]
    pub fn newest_block(&self) -> Option<Bytes> {
        self.block_order.back().and_then(|hash| self.block(hash))
    }

    /// How it bends what it certifies this time, if it does.
    pub fn bends(&mut self) -> Option<Bend> {
        let bends = self.random.chance(self.plan.bends);
        let known = self.plan.bends();
        (bends && !known.is_empty()).then(|| self.random.pick(&known))
    }

    /// Whether it votes for something that nobody has before it leaves a view.
    pub fn hides(&mut self) -> bool {
        self.random.chance(self.plan.hides)
    }

    /// Whether a peer is not shown this block. One block is kept from the same peers each time.
    #[must_use]
    pub fn withholds(&self, bytes: &Bytes, to: usize) -> bool {
        let end = bytes.last_chunk::<8>().map_or(0, |end| u64::from_le_bytes(*end));
        let seed = end ^ (bytes.len() as u64) << 40 ^ (to as u64) << 56 ^ self.plan.replica as u64;
        self.plan.withholds > 0 && Random::new(seed).chance(self.plan.withholds)
    }

    /// How far its wall clock is off, of its own making.
    #[must_use]
    pub fn skew(&self, now: u64) -> Option<i64> {
        let permille = self.plan.clock_permille?;
        Some(-((now.saturating_sub(self.plan.behaves_until) * (1_000 - permille) / 1_000) as i64))
    }

    /// Whether it does not let a client's message in; `mentions` says whether it brings something of a client.
    pub fn ignores(&mut self, now: u64, from_client: bool, kind: Kind, mentions: impl Fn(usize) -> bool) -> bool {
        let brings = now >= self.plan.behaves_until && (from_client || kind == Kind::Frames);
        brings
            && (self.plan.censors.is_some_and(mentions)
                || (self.plan.ignores > 0 && self.random.chance(self.plan.ignores)))
    }

    /// What it says to who must catch up, in place of this; `tamper` makes something that does not hold of it.
    pub fn feed(&mut self, bytes: Bytes, tamper: impl FnOnce(&mut Random) -> Option<Bytes>) -> Vec<(Bytes, u64)> {
        match self.plan.feeds {
            Feeding::Honest => vec![(bytes, 0)],
            Feeding::Late => vec![(bytes, FEEDING_DELAY)],
            Feeding::Stale => {
                self.meals.push_back(bytes.clone());
                if self.meals.len() > 16 {
                    self.meals.pop_front();
                }
                let old = self.random.index(self.meals.len());
                vec![(self.meals[old].clone(), 0), (self.meals[old].clone(), FEEDING_DELAY / 2)]
            }
            Feeding::Tampered => vec![(tamper(&mut self.random).unwrap_or(bytes), 0)],
            Feeding::Starving => Vec::new(),
        }
    }

    /// Something that it remembers.
    pub fn memory(&mut self) -> Option<Bytes> {
        (!self.memory.is_empty()).then(|| self.memory[self.random.index(self.memory.len())].clone())
    }

    /// What it says in place of `bytes` to replica `to`; `forge` makes other claims of them.
    pub fn say(
        &mut self,
        now: u64,
        to: usize,
        bytes: Bytes,
        forge: impl FnOnce(&mut Random) -> Vec<Bytes>,
    ) -> Vec<Said> {
        let random = &mut self.random;
        let mut said = Vec::new();
        if self.silent_until[to] > now {
            return said;
        }
        if random.chance(self.plan.silent) {
            self.silent_until[to] = now + random.below(SECOND);
        }
        if random.chance(self.plan.forges) {
            let forged = forge(random);
            said.extend(forged.into_iter().map(|bytes| Said { to, bytes, delay: random.below(1_000) }));
        }
        if random.chance(self.plan.misdirects) {
            let other = random.index(self.silent_until.len());
            said.push(Said { to: other, bytes: bytes.clone(), delay: random.below(1_000) });
        }
        if !self.memory.is_empty() && random.chance(self.plan.replays) {
            let old = self.memory[random.index(self.memory.len())].clone();
            said.push(Said { to, bytes: old, delay: random.below(SECOND) });
        }
        let delay = if random.chance(self.plan.slow) { random.below(LATENESS_MAX) } else { 0 };
        let delay = if now >= self.plan.behaves_until { delay + self.plan.drags } else { delay };
        let bytes = if random.chance(self.plan.corrupts) { corrupted(&bytes, random) } else { bytes };
        said.push(Said { to, bytes, delay });
        said.retain(|said| said.to != self.plan.replica);
        said
    }

    /// Whether it answers a client wrongly this time.
    pub fn answers_wrongly(&mut self) -> bool {
        self.random.chance(self.plan.wrong_replies)
    }

    /// Whether it makes something else of what the outside said to it.
    pub fn misquotes(&mut self) -> bool {
        self.random.chance(self.plan.misquotes)
    }

    /// What it has its register do this time, which stands at (view, step).
    pub fn abuse(&mut self, view: RegisterView, step: Step) -> Option<RegisterCall> {
        let random = &mut self.random;
        if !random.chance(self.plan.abuses_register) {
            return None;
        }
        if random.chance(300) {
            return Some(RegisterCall::Advance(RegisterView(view.0 + random.between(1, 3))));
        }
        let hash = Digest::of("a liar's garbage", &[&random.next_u64().to_le_bytes()]);
        Some(RegisterCall::Certify(view, Step(step.0 + random.between(1, 3)), hash))
    }

    /// Chance for who acts on its behalf.
    pub const fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

/// Bytes with a few of them flipped, cut off or added.
fn corrupted(bytes: &Bytes, random: &mut Random) -> Bytes {
    let mut changed = bytes.to_vec();
    match random.below(4) {
        0 => changed.truncate(random.index(changed.len() + 1)),
        1 => changed.push(random.next_u64() as u8),
        _ => {
            for _ in 0..random.between(1, 3) {
                if !changed.is_empty() {
                    let place = random.index(changed.len());
                    changed[place] ^= 1 << random.below(8);
                }
            }
        }
    }
    changed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn liar(plan: LiarPlan) -> Liar {
        Liar::new(plan, 3, Random::new(5))
    }

    #[test]
    fn without_habits_it_says_what_its_core_says() {
        let mut liar = liar(LiarPlan::default());
        let bytes = Bytes::from_static(b"truth");
        let said = liar.say(0, 1, bytes.clone(), |_| vec![Bytes::from_static(b"lie")]);
        assert_eq!(said, [Said { to: 1, bytes, delay: 0 }]);
        assert!(!liar.answers_wrongly() && liar.abuse(RegisterView(0), Step(0)).is_none());
    }

    #[test]
    fn each_habit_shows() {
        let mut liar =
            liar(LiarPlan { corrupts: 1_000, replays: 1_000, forges: 1_000, misdirects: 1_000, ..LiarPlan::default() });
        liar.remember(&Bytes::from_static(b"old"));
        let said: Vec<Said> = (0..50)
            .flat_map(|_| liar.say(0, 1, Bytes::from_static(b"truth"), |_| vec![Bytes::from_static(b"lie")]))
            .collect();
        for heard in [&b"old"[..], b"lie", b"truth"] {
            assert!(said.iter().any(|said| said.bytes == heard));
        }
        assert!(said.iter().any(|said| said.to == 2) && said.iter().all(|said| said.to != 0));
        let literal = [&b"old"[..], b"lie", b"truth"];
        assert!(said.iter().any(|said| !literal.contains(&&said.bytes[..])), "something was corrupted");
    }

    #[test]
    fn twins_divide_their_peers_now_this_way_now_that() {
        let liar = liar(LiarPlan { twins: true, ..LiarPlan::default() });
        let divisions: std::collections::BTreeSet<Vec<usize>> =
            (0..40).map(|half| (0..3).map(|peer| liar.core_for(half * DIVISION_LENGTH, peer)).collect()).collect();
        assert_eq!(divisions.len(), 8);
    }

    #[test]
    fn silence_lasts_a_while() {
        let mut liar = liar(LiarPlan { silent: 1_000, ..LiarPlan::default() });
        assert_eq!(liar.say(0, 1, Bytes::new(), |_| Vec::new()).len(), 1);
        assert_eq!(liar.say(1, 1, Bytes::new(), |_| Vec::new()).len(), 0);
    }
}
