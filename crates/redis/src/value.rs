//! What a key can hold: a string, a list, a hash, a set, a sorted set.
//!
//! Invariant: every collection has one order, the same on all replicas: lists their own, sorted sets by score and
//! member, hashes and sets by field and member (Redis leaves those two unspecified).

use borsh::io;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use unisono::gateway::Bytes;

/// Bytes of a key, a member, an element.
pub type Blob = Box<[u8]>;
/// A string.
pub type Text = Vec<u8>;
/// A list, head first.
pub type List = VecDeque<Blob>;
/// A hash.
pub type Hash = BTreeMap<Blob, Blob>;
/// A set.
pub type Set = BTreeSet<Blob>;

/// What a key holds.
#[derive(Clone, PartialEq, Debug, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub enum Value {
    /// A string.
    Text(Text),
    /// A list.
    List(List),
    /// A hash.
    Hash(Hash),
    /// A set.
    Set(Set),
    /// A sorted set.
    SortedSet(SortedSet),
}

impl Value {
    /// What TYPE calls it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::SortedSet(_) => "zset",
        }
    }

    /// Is there nothing left that a key could hold?
    #[cfg(test)]
    pub(crate) fn vanishes(&self) -> bool {
        match self {
            Self::Text(text) => text.vanishes(),
            Self::List(list) => list.vanishes(),
            Self::Hash(hash) => hash.vanishes(),
            Self::Set(set) => set.vanishes(),
            Self::SortedSet(set) => set.vanishes(),
        }
    }
}

/// One of the types that a [`Value`] can be.
pub trait Typed: Default {
    /// It, if it is one.
    fn of(value: &Value) -> Option<&Self>;
    /// It, if it is one.
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
    /// As a value.
    fn into_value(self) -> Value;
    /// Does its key go away with this?
    fn vanishes(&self) -> bool;
}

macro_rules! typed {
    ($type:ty, $variant:ident, $vanishes:expr) => {
        impl Typed for $type {
            fn of(value: &Value) -> Option<&Self> {
                if let Value::$variant(it) = value { Some(it) } else { None }
            }
            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                if let Value::$variant(it) = value { Some(it) } else { None }
            }
            fn into_value(self) -> Value {
                Value::$variant(self)
            }
            fn vanishes(&self) -> bool {
                let vanishes: fn(&Self) -> bool = $vanishes;
                vanishes(self)
            }
        }
    };
}
typed!(Text, Text, |_| false); // the empty string is a value
typed!(List, List, List::is_empty);
typed!(Hash, Hash, Hash::is_empty);
typed!(Set, Set, Set::is_empty);
typed!(SortedSet, SortedSet, SortedSet::is_empty);

/// Where a range of scores begins or ends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ScoreBound {
    /// The score.
    pub score: f64,
    /// Without the score itself.
    pub exclusive: bool,
}

/// Where a range of members begins or ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LexBound<'a> {
    /// Before all.
    Minimum,
    /// Behind all.
    Maximum,
    /// With this one.
    Inclusive(&'a [u8]),
    /// Without this one.
    Exclusive(&'a [u8]),
}

impl LexBound<'_> {
    /// Its place among bounds, and whether it admits what is there.
    fn place(&self) -> ((u8, &[u8]), bool) {
        match self {
            Self::Minimum => ((0, b""), false),
            Self::Inclusive(bound) => ((1, bound), true),
            Self::Exclusive(bound) => ((1, bound), false),
            Self::Maximum => ((2, b""), false),
        }
    }

    fn admits_from_below(&self, member: &[u8]) -> bool {
        match self {
            Self::Minimum => true,
            Self::Maximum => false,
            Self::Inclusive(bound) => member >= *bound,
            Self::Exclusive(bound) => member > *bound,
        }
    }

    fn admits_from_above(&self, member: &[u8]) -> bool {
        match self {
            Self::Minimum => false,
            Self::Maximum => true,
            Self::Inclusive(bound) => member <= *bound,
            Self::Exclusive(bound) => member < *bound,
        }
    }
}

/// Members with scores, ordered by score, then by member.
///
/// Invariant: `order` holds exactly the members of `scores`, each at its score's rank; no score is NaN or -0. A member's
/// bytes are shared by the two.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SortedSet {
    scores: BTreeMap<Bytes, f64>,
    order: BTreeSet<(Rank, Bytes)>,
}

/// A score's place among all scores: as bits that order as the numbers do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank(u64);

impl Rank {
    fn of(score: f64) -> Self {
        let bits = score.to_bits();
        Self(if bits >> 63 == 1 { !bits } else { bits | 1 << 63 })
    }

    fn score(self) -> f64 {
        f64::from_bits(if self.0 >> 63 == 1 { self.0 & !(1 << 63) } else { !self.0 })
    }
}

impl SortedSet {
    /// How many members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// No member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// A member's score.
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    /// Gives a member a score, which is not NaN. The sign of zero is dropped, as by Redis in small sets.
    pub fn insert(&mut self, member: &[u8], score: f64) {
        let score = score + 0.0; // -0 + 0 = 0
        if let Some(before) = self.scores.get_mut(member) {
            let rank = Rank::of(*before);
            *before = score;
            if rank != Rank::of(score) {
                let mut place = (rank, Bytes::copy_from_slice(member));
                self.order.remove(&place);
                place.0 = Rank::of(score);
                self.order.insert(place);
            }
        } else {
            let member = Bytes::copy_from_slice(member);
            self.scores.insert(member.clone(), score);
            self.order.insert((Rank::of(score), member));
        }
    }

    /// Removes a member. False when it is none.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let Some((member, score)) = self.scores.remove_entry(member) else { return false };
        self.order.remove(&(Rank::of(score), member));
        true
    }

    /// Members and scores from the lowest on.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], f64)> {
        self.order.iter().map(shown)
    }

    /// Those with a score between the bounds.
    pub fn by_score(&self, from: ScoreBound, to: ScoreBound) -> impl DoubleEndedIterator<Item = (&[u8], f64)> {
        // the first place of the next rank stands behind all places of a rank
        let behind = |rank: Rank| (Rank(rank.0.saturating_add(1)), Bytes::new());
        let place = |rank: Rank| (rank, Bytes::new());
        let (low, high) = (Rank::of(from.score + 0.0), Rank::of(to.score + 0.0));
        let low = if from.exclusive { behind(low) } else { place(low) };
        let high = if to.exclusive { place(high) } else { behind(high) };
        let low = low.min(high.clone()); // a range that ends before it begins has nothing in it
        self.order.range((Bound::Included(low), Bound::Excluded(high))).map(shown)
    }

    /// Those between the bounds by member. Meant for sets whose scores are all the same; of others it gives what Redis
    /// gives while they are small: the first stretch in the order of scores.
    #[must_use]
    pub fn by_lex(&self, from: LexBound<'_>, to: LexBound<'_>, backwards: bool) -> Vec<(&[u8], f64)> {
        let ((low, admits_low), (high, admits_high)) = (from.place(), to.place());
        let may_have_members = low < high || low == high && admits_low && admits_high;
        let last_is_in = self.iter().next_back().is_some_and(|(member, _)| from.admits_from_below(member));
        let first_is_in = self.iter().next().is_some_and(|(member, _)| to.admits_from_above(member));
        if !(may_have_members && last_is_in && first_is_in) {
            return Vec::new();
        }
        if backwards {
            let from_the_end = self.iter().rev().skip_while(|(member, _)| !to.admits_from_above(member));
            from_the_end.take_while(|(member, _)| from.admits_from_below(member)).collect()
        } else {
            let from_the_start = self.iter().skip_while(|(member, _)| !from.admits_from_below(member));
            from_the_start.take_while(|(member, _)| to.admits_from_above(member)).collect()
        }
    }
}

fn shown((rank, member): &(Rank, Bytes)) -> (&[u8], f64) {
    (member, rank.score())
}

impl BorshSerialize for SortedSet {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.scores.serialize(writer)
    }
}

impl BorshDeserialize for SortedSet {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let scores = BTreeMap::<Bytes, f64>::deserialize_reader(reader)?;
        let order = scores.iter().map(|(member, score)| (Rank::of(*score), member.clone())).collect();
        Ok(Self { scores, order })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(members: &[(&str, f64)]) -> SortedSet {
        let mut set = SortedSet::default();
        members.iter().for_each(|(member, score)| set.insert(member.as_bytes(), *score));
        set
    }

    fn names<'a>(members: impl IntoIterator<Item = (&'a [u8], f64)>) -> String {
        members.into_iter().map(|(member, _)| String::from_utf8_lossy(member).into_owned()).collect()
    }

    fn at(score: f64) -> ScoreBound {
        ScoreBound { score, exclusive: false }
    }

    fn beyond(score: f64) -> ScoreBound {
        ScoreBound { score, exclusive: true }
    }

    #[test]
    fn members_stand_by_score_then_by_name() {
        let mut it =
            set(&[("c", 1.0), ("a", 2.0), ("b", 1.0), ("d", f64::NEG_INFINITY), ("e", -1.5), ("f", f64::INFINITY)]);
        assert_eq!(names(it.iter()), "debcaf");
        it.insert(b"d", 1.0);
        assert_eq!(names(it.iter()), "ebcdaf");
        assert!(it.remove(b"b") && !it.remove(b"b"));
        assert_eq!(names(it.iter().rev()), "fadce");
    }

    #[test]
    fn negative_zero_is_zero() {
        let it = set(&[("b", -0.0), ("a", 0.0)]);
        assert_eq!(names(it.iter()), "ab");
        assert!(it.iter().all(|(_, score)| score.is_sign_positive()));
        assert_eq!(names(it.by_score(at(-0.0), at(-0.0))), "ab");
    }

    #[test]
    fn ranges_of_scores_know_their_ends() {
        let it = set(&[("a", 1.0), ("b", 2.0), ("c", 2.0), ("d", 3.0), ("e", f64::INFINITY)]);
        assert_eq!(names(it.by_score(at(1.0), at(2.0))), "abc");
        assert_eq!(names(it.by_score(beyond(1.0), beyond(3.0))), "bc");
        assert_eq!(names(it.by_score(beyond(2.0), beyond(2.0))), "");
        assert_eq!(names(it.by_score(at(3.0), at(1.0))), "");
        assert_eq!(names(it.by_score(at(f64::NEG_INFINITY), at(f64::INFINITY)).rev()), "edcba");
        assert_eq!(names(it.by_score(beyond(3.0), beyond(f64::INFINITY))), "");
    }

    #[test]
    fn ranges_of_members_know_their_ends() {
        let it = set(&[("a", 0.0), ("b", 0.0), ("c", 0.0), ("d", 0.0)]);
        let lex = |from, to, backwards| names(it.by_lex(from, to, backwards));
        assert_eq!(lex(LexBound::Minimum, LexBound::Maximum, false), "abcd");
        assert_eq!(lex(LexBound::Inclusive(b"b"), LexBound::Exclusive(b"d"), false), "bc");
        assert_eq!(lex(LexBound::Exclusive(b"b"), LexBound::Inclusive(b"d"), true), "dc");
        assert_eq!(lex(LexBound::Maximum, LexBound::Minimum, false), "");
        assert_eq!(lex(LexBound::Inclusive(b"c"), LexBound::Inclusive(b"a"), false), "");
    }

    #[test]
    fn a_decoded_set_is_the_one_that_was_encoded() {
        let it = set(&[("a", 1.0), ("b", -0.0), ("c", f64::NEG_INFINITY)]);
        let decoded: SortedSet = borsh::from_slice(&borsh::to_vec(&it).unwrap()).unwrap();
        assert_eq!(decoded, it);
    }

    proptest::proptest! {
        #[test]
        fn ranks_order_as_scores_do(a: f64, b: f64) {
            let (a, b) = (a + 0.0, b + 0.0);
            if let Some(ordering) = a.partial_cmp(&b) {
                proptest::prop_assert_eq!(Rank::of(a).cmp(&Rank::of(b)), ordering);
                proptest::prop_assert_eq!(Rank::of(a).score(), a);
            }
        }
    }
}
