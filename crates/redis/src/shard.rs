//! One stripe of the key space: the keys whose hash falls into it, what they hold, when they expire, and who waits
//! for them.
//!
//! ```text
//!   entries   key -> value, expiry, version            \ encoded
//!   waiting   key -> first come, first served          |
//!   changes, gone, gone_floor: versions                /
//!   expiries  (time, key): an index of entries, rebuilt when decoded
//! ```
//! Invariants:
//! * No entry holds an empty list, hash, set or sorted set.
//! * `expiries` holds exactly the (expiry, key) of the entries that have one.
//! * A version is given once: two states of a key that differ have different versions, also when the key went away
//!   in between. (A key may seem changed that was not: [`Shard::version`]; it never seems unchanged that was.)
//! * An expired key is as good as gone: reads pass over it, writes remove it first; each write also removes a few
//!   others whose time has come, so that they do not pile up.
//! * Who waits for a key finds its list empty or missing, whenever the stripe's lock is free.

use crate::failure::Failure;
use crate::operation::Token;
use crate::value::{Blob, List, Typed, Value};
use borsh::io;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many expired keys a write removes beside its own.
const SWEEP_MAX: usize = 4;
/// How many keys that went away a stripe remembers by version.
const GONE_MAX: usize = 64;

/// Milliseconds since the Unix epoch, in agreed time.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    borsh::BorshSerialize,
    borsh::BorshDeserialize,
    unisono::Input,
)]
pub struct Milliseconds(pub i64);

/// How often the keys of a stripe had changed when a key last did.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, borsh::BorshSerialize, borsh::BorshDeserialize,
)]
pub struct Changes(pub u64);

/// From which end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub enum Side {
    /// The head.
    Left,
    /// The tail.
    Right,
}

/// Somebody waits for a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub struct Waiter {
    /// Under which name.
    pub token: Token,
    /// For the head or the tail.
    pub side: Side,
}

/// What is kept under a key.
#[derive(Clone, PartialEq, Debug, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub struct Entry {
    value: Value,
    expires: Option<Milliseconds>,
    version: Changes,
}

impl Entry {
    /// What it holds.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// When it expires.
    #[must_use]
    pub fn expires(&self) -> Option<Milliseconds> {
        self.expires
    }

    /// A key lives through the millisecond of its expiry, as in Redis.
    fn expired(&self, now: Milliseconds) -> bool {
        self.expires.is_some_and(|expires| now > expires)
    }
}

/// What a change to a value came to.
pub struct Change<R> {
    /// For the caller.
    pub result: R,
    /// Was the value changed?
    pub changed: bool,
}

/// One stripe of the key space. See the module.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Shard {
    entries: BTreeMap<Blob, Entry>,
    waiting: BTreeMap<Blob, VecDeque<Waiter>>,
    changes: Changes,
    gone: VecDeque<(u64, Changes)>,
    gone_floor: Changes,
    expiries: BTreeSet<(Milliseconds, Blob)>,
}

impl Shard {
    /// The entry of a key that lives.
    #[must_use]
    pub fn entry(&self, key: &[u8], now: Milliseconds) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| !entry.expired(now))
    }

    /// What a key holds as a `T`; nothing when it does not live.
    ///
    /// # Errors
    /// [`Failure::WrongType`] when it holds something else.
    pub fn read<T: Typed>(&self, key: &[u8], now: Milliseconds) -> Result<Option<&T>, Failure> {
        match self.entry(key, now) {
            None => Ok(None),
            Some(entry) => T::of(&entry.value).map(Some).ok_or(Failure::WrongType),
        }
    }

    /// Changes what a key holds, beginning with an empty `T`, ending without the key when it has become empty.
    ///
    /// # Errors
    /// [`Failure::WrongType`] when it holds something else, and whatever `change` refuses; then nothing is changed,
    /// provided that `change` refuses before it changes.
    pub fn update<T: Typed, R>(
        &mut self,
        key: &[u8],
        now: Milliseconds,
        change: impl FnOnce(&mut T) -> Result<Change<R>, Failure>,
    ) -> Result<R, Failure> {
        self.sweep(key, now);
        let Some(entry) = self.entries.get_mut(key) else {
            let mut fresh = T::default();
            let Change { result, changed } = change(&mut fresh)?;
            if changed && !fresh.vanishes() {
                self.put(key, fresh.into_value(), None);
            }
            return Ok(result);
        };
        let value = T::of_mut(&mut entry.value).ok_or(Failure::WrongType)?;
        let Change { result, changed } = change(value)?;
        if value.vanishes() {
            self.delete(key);
        } else if changed {
            self.changes.0 += 1;
            entry.version = self.changes;
        }
        Ok(result)
    }

    /// Has a key hold `value` from now on, until `expires`.
    pub fn set(&mut self, key: &[u8], now: Milliseconds, value: Value, expires: Option<Milliseconds>) {
        self.sweep(key, now);
        self.put(key, value, expires);
    }

    fn put(&mut self, key: &[u8], value: Value, expires: Option<Milliseconds>) {
        self.changes.0 += 1;
        let version = self.changes;
        if let Some(entry) = self.entries.get_mut(key) {
            let before = std::mem::replace(entry, Entry { value, expires, version });
            if before.expires != expires {
                self.index(key, before.expires, expires);
            }
        } else {
            self.entries.insert(key.into(), Entry { value, expires, version });
            self.index(key, None, expires);
        }
    }

    fn index(&mut self, key: &[u8], before: Option<Milliseconds>, after: Option<Milliseconds>) {
        if let Some(before) = before {
            self.expiries.remove(&(before, key.into()));
        }
        if let Some(after) = after {
            self.expiries.insert((after, key.into()));
        }
    }

    /// Changes when a living key expires. False when there is no such key.
    pub fn expire(&mut self, key: &[u8], now: Milliseconds, expires: Option<Milliseconds>) -> bool {
        self.sweep(key, now);
        let Some(entry) = self.entries.get_mut(key) else { return false };
        self.changes.0 += 1;
        entry.version = self.changes;
        let before = std::mem::replace(&mut entry.expires, expires);
        self.index(key, before, expires);
        true
    }

    /// Removes a key, if it lives.
    pub fn remove(&mut self, key: &[u8], now: Milliseconds) -> Option<Value> {
        self.sweep(key, now);
        self.delete(key)
    }

    /// Removes a key, expired or not, and remembers that.
    fn delete(&mut self, key: &[u8]) -> Option<Value> {
        let entry = self.entries.remove(key)?;
        self.index(key, entry.expires, None);
        self.changes.0 += 1;
        self.gone.push_back((hash(key), self.changes));
        if self.gone.len() > GONE_MAX
            && let Some((_, version)) = self.gone.pop_front()
        {
            self.gone_floor = version;
        }
        Some(entry.value)
    }

    /// Removes `key` if its time has come, and a few others.
    fn sweep(&mut self, key: &[u8], now: Milliseconds) {
        if self.expiries.is_empty() {
            return;
        }
        if self.entries.get(key).is_some_and(|entry| entry.expired(now)) {
            self.delete(key);
        }
        for _ in 0..SWEEP_MAX {
            match self.expiries.first() {
                Some((expires, _)) if now > *expires => {}
                _ => return,
            }
            if let Some((_, key)) = self.expiries.pop_first() {
                self.delete(&key);
            }
        }
    }

    /// A number that changes whenever the key does, and survives its removal. Of keys that are not there only the
    /// last few removals are told apart: a key that is not there may seem changed when many others went.
    pub fn version(&mut self, key: &[u8], now: Milliseconds) -> Changes {
        self.sweep(key, now);
        match self.entries.get(key) {
            Some(entry) => entry.version,
            None => {
                let hash = hash(key);
                let last = self.gone.iter().rev().find(|(gone, _)| *gone == hash);
                last.map_or(self.gone_floor, |(_, version)| *version)
            }
        }
    }

    /// Keys that live, and how many of them have an expiry.
    #[must_use]
    pub fn counts(&self, now: Milliseconds) -> (u64, u64) {
        let expired = self.expiries.range(..(now, Blob::default())).count();
        ((self.entries.len() - expired) as u64, (self.expiries.len() - expired) as u64)
    }

    /// Removes all keys. Who waits goes on waiting.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.expiries.clear();
        self.gone.clear();
        self.changes.0 += 1;
        self.gone_floor = self.changes;
    }

    /// Does anybody wait for this key?
    #[must_use]
    pub fn awaited(&self, key: &[u8]) -> bool {
        self.waiting.contains_key(key)
    }

    /// Lines up behind those who wait for `key`, once.
    pub fn line_up(&mut self, key: &[u8], waiter: Waiter) {
        let line = self.waiting.entry(key.into()).or_default();
        if !line.iter().any(|other| other.token == waiter.token) {
            line.push_back(waiter);
        }
    }

    /// Leaves the line.
    pub fn leave_line(&mut self, key: &[u8], token: Token) {
        if let Some(line) = self.waiting.get_mut(key) {
            line.retain(|waiter| waiter.token != token);
            if line.is_empty() {
                self.waiting.remove(key);
            }
        }
    }

    /// Who is first in the line of a key that has something for him.
    #[must_use]
    pub fn next_served(&self, key: &[u8], now: Milliseconds) -> Option<Waiter> {
        let waiter = self.waiting.get(key)?.front()?;
        matches!(self.read::<List>(key, now), Ok(Some(_))).then_some(*waiter)
    }

    /// Takes an element from a list.
    ///
    /// # Errors
    /// [`Failure::WrongType`] when the key holds something else.
    pub fn pop(&mut self, key: &[u8], now: Milliseconds, side: Side) -> Result<Option<Blob>, Failure> {
        self.update(key, now, |list: &mut List| {
            let result = match side {
                Side::Left => list.pop_front(),
                Side::Right => list.pop_back(),
            };
            Ok(Change { changed: result.is_some(), result })
        })
    }

    /// What the module promises.
    #[cfg(test)]
    pub(crate) fn invariants(&self) {
        let index: BTreeSet<_> = self
            .entries
            .iter()
            .filter_map(|(key, entry)| entry.expires.map(|expires| (expires, key.clone())))
            .collect();
        assert_eq!(index, self.expiries, "the index of expiries");
        assert!(self.entries.values().all(|entry| !entry.value.vanishes()), "an empty collection is no key");
        assert!(self.entries.values().all(|entry| entry.version <= self.changes));
        assert!(self.waiting.values().all(|line| !line.is_empty()));
        assert!(self.gone.len() <= GONE_MAX);
    }
}

impl BorshSerialize for Shard {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let Self { entries, waiting, changes, gone, gone_floor, expiries: _ } = self;
        (entries, waiting, changes, gone, gone_floor).serialize(writer)
    }
}

impl BorshDeserialize for Shard {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let entries = BTreeMap::<Blob, Entry>::deserialize_reader(reader)?;
        let waiting = BorshDeserialize::deserialize_reader(reader)?;
        let changes = BorshDeserialize::deserialize_reader(reader)?;
        let gone = BorshDeserialize::deserialize_reader(reader)?;
        let gone_floor = BorshDeserialize::deserialize_reader(reader)?;
        let expiring = entries.iter().filter_map(|(key, entry)| entry.expires.map(|expires| (expires, key.clone())));
        let expiries = expiring.collect();
        Ok(Self { entries, waiting, changes, gone, gone_floor, expiries })
    }
}

/// A key's place in the key space: FNV-1a, then the finalizer of MurmurHash3, from a fixed seed. Written out since it
/// must be the same on every replica and in every version. Whoever chooses keys to fall into one stripe costs himself
/// parallelism, nothing else: within a stripe keys are ordered, not hashed.
#[must_use]
pub fn hash(key: &[u8]) -> u64 {
    const SEED: u64 = 0xcbf2_9ce4_8422_2325 ^ 0x756e_6973_6f6e_6f00; // FNV's offset, "unisono"
    let folded = key.iter().fold(SEED, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (folded ^ (folded >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Milliseconds = Milliseconds(1_000);

    fn after(milliseconds: i64) -> Milliseconds {
        Milliseconds(T0.0 + milliseconds)
    }

    fn text(value: &str) -> Value {
        Value::Text(value.as_bytes().to_vec())
    }

    #[test]
    fn a_key_lives_through_the_millisecond_of_its_expiry() {
        let mut shard = Shard::default();
        shard.set(b"k", T0, text("v"), Some(after(10)));
        assert!(shard.entry(b"k", after(10)).is_some());
        assert!(shard.entry(b"k", after(11)).is_none());
        assert_eq!((shard.counts(after(10)), shard.counts(after(11))), ((1, 1), (0, 0)));
        shard.invariants();
    }

    #[test]
    fn writes_to_other_keys_remove_what_has_expired() {
        let mut shard = Shard::default();
        for number in 0..100u8 {
            shard.set(&[number], T0, text("v"), Some(after(10)));
        }
        for number in 0..25u8 {
            shard.set(b"other", after(100 + i64::from(number)), text("v"), None);
        }
        assert_eq!(shard.entries.len(), 1, "four with each write");
        shard.invariants();
    }

    #[test]
    fn a_version_survives_removal_and_is_never_given_twice() {
        let mut shard = Shard::default();
        let mut seen = vec![shard.version(b"k", T0)];
        for _ in 0..100 {
            shard.set(b"k", T0, text("v"), None);
            seen.push(shard.version(b"k", T0));
            shard.remove(b"k", T0);
            seen.push(shard.version(b"k", T0));
        }
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_key_that_expires_unseen_changes_its_version() {
        let mut shard = Shard::default();
        shard.set(b"k", T0, text("v"), Some(after(1)));
        let before = shard.version(b"k", T0);
        assert_ne!(shard.version(b"k", after(2)), before);
        let gone = shard.version(b"k", after(2));
        shard.set(b"other", after(3), text("v"), None);
        assert_eq!(shard.version(b"k", after(3)), gone, "and stays as it is afterwards");
    }

    #[test]
    fn a_missing_key_keeps_its_version_while_few_others_go() {
        let mut shard = Shard::default();
        let before = shard.version(b"k", T0);
        for number in 0..GONE_MAX as u8 {
            shard.set(&[number], T0, text("v"), None);
            shard.remove(&[number], T0);
        }
        assert_eq!(shard.version(b"k", T0), before);
        shard.set(b"one more", T0, text("v"), None);
        shard.remove(b"one more", T0);
        assert_ne!(shard.version(b"k", T0), before, "then it seems changed, which is allowed");
    }

    #[test]
    fn what_became_empty_is_gone_and_what_was_refused_is_as_before() {
        let mut shard = Shard::default();
        let push = |list: &mut List| {
            list.push_back(b"x".as_slice().into());
            Ok(Change { result: (), changed: true })
        };
        shard.update(b"k", T0, push).unwrap();
        assert_eq!(shard.pop(b"k", T0, Side::Left), Ok(Some(b"x".as_slice().into())));
        assert!(shard.entry(b"k", T0).is_none());
        let refused = shard.update(b"k", T0, |_: &mut List| Err::<Change<()>, _>(Failure::Syntax));
        assert_eq!(refused, Err(Failure::Syntax));
        assert!(shard.entry(b"k", T0).is_none());
        shard.set(b"k", T0, text("v"), None);
        assert_eq!(shard.pop(b"k", T0, Side::Left), Err(Failure::WrongType));
        shard.invariants();
    }

    #[test]
    fn lines_are_first_come_first_served() {
        let waiter = |number| Waiter { token: Token([number; 16]), side: Side::Left };
        let mut shard = Shard::default();
        shard.line_up(b"q", waiter(1));
        shard.line_up(b"q", waiter(2));
        shard.line_up(b"q", waiter(1));
        assert_eq!(shard.next_served(b"q", T0), None, "there is nothing for him");
        shard.set(b"q", T0, Value::List(List::from([b"x".as_slice().into()])), None);
        assert_eq!(shard.next_served(b"q", T0), Some(waiter(1)));
        shard.leave_line(b"q", waiter(1).token);
        assert_eq!(shard.next_served(b"q", T0), Some(waiter(2)));
        shard.leave_line(b"q", waiter(2).token);
        assert!(!shard.awaited(b"q"));
        shard.invariants();
    }

    #[test]
    fn a_decoded_stripe_is_the_one_that_was_encoded() {
        let mut shard = Shard::default();
        shard.set(b"a", T0, text("v"), Some(after(10)));
        shard.set(b"b", T0, Value::List(List::from([b"x".as_slice().into()])), None);
        shard.remove(b"b", T0);
        shard.line_up(b"q", Waiter { token: Token([1; 16]), side: Side::Right });
        let bytes = borsh::to_vec(&shard).unwrap();
        let decoded: Shard = borsh::from_slice(&bytes).unwrap();
        assert_eq!(decoded, shard);
        decoded.invariants();
    }

    #[test]
    fn the_hash_is_fixed_and_spreads_keys() {
        assert_eq!(hash(b""), hash(b""));
        let mut stripes = [0; 256];
        (0..25_600).for_each(|number| stripes[(hash(format!("key:{number}").as_bytes()) % 256) as usize] += 1);
        assert!(stripes.iter().all(|keys| (50..170).contains(keys)), "{stripes:?}");
    }
}
