//! Naming what differs, once f+1 others have shown that this replica is wrong.
//!
//! ```text
//!   LeavesRequest ──────> a witness
//!   Leaves <──────────── parts of its root at that Mark, a page of its objects
//!     grants differ           -> GrantsRequest, Grants: pages of the last grants, compared one by one with our own
//!     objects differ          -> own page from the executor, compared entry by entry, then the next page
//!     parts differ elsewhere  -> scheduler, sessions
//! ```
//! That this replica must stop is certain before the first question. The answer is one witness's word, so it only
//! names: it never decides. Grants come first, as what was granted otherwise explains the objects. They are numbered
//! alike on all replicas as long as they are equal, so the first difference can be found while both go on. Objects are
//! compared as of the last Marks of both; while these differ (the cluster goes on meanwhile) the page is asked for again.

use crate::{Difference, GrantRecord, Grants, GrantsRequest, HaltReason, Leaves, LeavesRequest, Parts};
use alloc::{boxed::Box, string::String, vec::Vec};
use unisono_types::{Checkpoint, Digest, ReplicaId, SequenceNumber};

/// Microseconds until a question is asked again, of the next witness: a page takes milliseconds.
pub(crate) const RETRY_MICROSECONDS: u64 = 500_000;

/// Questions that brought nothing new before we stop without a name: some seconds.
const FRUITLESS_MAX: u32 = 10;

/// Pages compared before we stop without a name: a hundred million objects.
const PAGES_MAX: u32 = 100_000;

/// Proof that this replica is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mismatch {
    pub(crate) own: Checkpoint,
    pub(crate) theirs: Checkpoint,
    /// f+1 others, ascending.
    pub(crate) witnesses: Vec<ReplicaId>,
}

/// A page of objects: names and digests, and whether more follow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Page {
    pub(crate) leaves: Vec<(String, Digest)>,
    pub(crate) more: bool,
}

/// The search for a name.
#[derive(Clone, Debug)]
pub(crate) struct Divergence {
    mismatch: Mismatch,
    parts: Parts,
    witness: usize,
    after: Option<String>,
    theirs: Option<(SequenceNumber, Page)>,
    /// The page of our own grants that a witness is asked to compare, once grants are known to differ.
    grants: Option<Vec<GrantRecord>>,
    fruitless: u32,
    pages: u32,
}

/// What to do next in the search.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Nothing: wait.
    Wait,
    /// Ask this witness.
    Ask(ReplicaId, LeavesRequest),
    /// Ask the own executor for the page behind this object.
    Own(Option<String>),
    /// Ask this witness.
    AskGrants(ReplicaId, GrantsRequest),
    /// Ask the own executor for grants from this number on.
    OwnGrants(u64),
    /// Stop.
    Halt(HaltReason),
}

impl Divergence {
    /// Begins; `parts` made our own root.
    pub(crate) fn new(mismatch: Mismatch, parts: Parts) -> (Self, Next) {
        let search =
            Self { mismatch, parts, witness: 0, after: None, theirs: None, grants: None, fruitless: 0, pages: 0 };
        let next = if search.mismatch.own.header == search.mismatch.theirs.header {
            search.ask()
        } else {
            search.halt(Difference::Decision)
        };
        (search, next)
    }

    fn ask(&self) -> Next {
        let sequence = self.mismatch.own.sequence;
        Next::Ask(self.mismatch.witnesses[self.witness], LeavesRequest { sequence, after: self.after.clone() })
    }

    fn halt(&self, first: Difference) -> Next {
        Next::Halt(HaltReason::MinorityRoot {
            sequence: self.mismatch.own.sequence,
            own: self.mismatch.own.root,
            theirs: self.mismatch.theirs.root,
            witnesses: self.mismatch.witnesses.len(),
            first,
        })
    }

    /// No answer in time, or one that leads nowhere: begin again with the next witness.
    pub(crate) fn retry(&mut self) -> Next {
        self.fruitless += 1;
        if self.fruitless > FRUITLESS_MAX {
            return self.halt(Difference::Unknown);
        }
        self.witness = (self.witness + 1) % self.mismatch.witnesses.len();
        self.after = None;
        self.theirs = None;
        self.grants = None;
        self.ask()
    }

    /// A witness answers. `marked` is our own last Mark.
    pub(crate) fn answered(&mut self, from: ReplicaId, answer: Leaves, marked: SequenceNumber) -> Next {
        let expected = self.mismatch.witnesses[self.witness] == from
            && answer.sequence == self.mismatch.own.sequence
            && answer.after == self.after;
        if !expected || self.theirs.is_some() || self.grants.is_some() {
            return Next::Wait;
        }
        if let Some(theirs) = &answer.parts {
            if theirs.grants != self.parts.grants {
                self.grants = Some(Vec::new());
                return Next::OwnGrants(0);
            }
            if theirs.objects == self.parts.objects && theirs.scheduler != self.parts.scheduler {
                return self.halt(Difference::Scheduler);
            }
            if theirs.objects == self.parts.objects && theirs.sessions != self.parts.sessions {
                return self.halt(Difference::Sessions);
            }
            if theirs.objects == self.parts.objects {
                return Next::Wait; // it contradicts the root it signed; the timer asks another one
            }
        }
        if answer.marked != marked {
            return Next::Wait;
        }
        self.theirs = Some((marked, Page { leaves: answer.leaves, more: answer.more }));
        Next::Own(self.after.clone())
    }

    /// Our own executor answers. `marked` is our own last Mark.
    pub(crate) fn own_page(&mut self, own: &Page, marked: SequenceNumber) -> Next {
        let Some((at, theirs)) = self.theirs.take() else { return Next::Wait };
        if at != marked {
            return Next::Wait;
        }
        match compare(own, &theirs) {
            Compared::Differs(name) => self.halt(Difference::Object(name)),
            Compared::EqualUpTo(name) if self.pages < PAGES_MAX => {
                self.pages += 1;
                self.after = Some(name);
                self.ask()
            }
            Compared::EqualUpTo(_) => self.halt(Difference::Unknown),
            Compared::Equal => Next::Wait,
        }
    }

    /// Our own executor answers with grants.
    pub(crate) fn own_grants(&mut self, own: Vec<GrantRecord>) -> Next {
        if self.grants.is_none() {
            return Next::Wait;
        }
        let Some(from) = own.first().map(|first| first.number) else {
            return self.halt(Difference::Grants); // they differ, and we have kept none in which they could
        };
        self.grants = Some(own);
        Next::AskGrants(self.mismatch.witnesses[self.witness], GrantsRequest { from })
    }

    /// A witness answers with grants.
    pub(crate) fn grants_answered(&mut self, from: ReplicaId, answer: Grants) -> Next {
        let Some(own) = self.grants.as_mut().filter(|_| self.mismatch.witnesses[self.witness] == from) else {
            return Next::Wait;
        };
        if own.first().is_none_or(|first| first.number != answer.from) {
            return Next::Wait;
        }
        let Some(start) = answer.grants.first().map(|first| first.number.max(answer.from)) else {
            return Next::Wait; // it is not so far, or has forgotten; the timer asks another one
        };
        let own = core::mem::take(own);
        let mine = own.iter().skip_while(|grant| grant.number < start);
        let mut next = start;
        for (mine, theirs) in mine.zip(&answer.grants) {
            if mine != theirs {
                // What lies before what both have kept may have differed as well.
                let is_first = next > start || start == 0;
                let (own, theirs) = (Box::new(mine.clone()), Box::new(theirs.clone()));
                return self.halt(Difference::Grant { own, theirs, is_first });
            }
            next = mine.number.saturating_add(1);
        }
        self.pages += 1;
        if self.pages > PAGES_MAX { self.halt(Difference::Grants) } else { Next::OwnGrants(next) }
    }
}

enum Compared {
    Differs(String),
    EqualUpTo(String),
    Equal,
}

/// Compares two pages that begin behind the same object, in the executor's order, which is the same on all replicas
/// and otherwise unknown here.
fn compare(own: &Page, theirs: &Page) -> Compared {
    for (index, (mine, other)) in own.leaves.iter().zip(&theirs.leaves).enumerate() {
        if mine != other {
            // Either one object with two digests, or one of the two has an object more at this place.
            let mine_is_extra = own.leaves[index..].iter().any(|(name, _)| *name == other.0);
            let name = if mine_is_extra { &mine.0 } else { &other.0 };
            return Compared::Differs(name.clone());
        }
    }
    let common = own.leaves.len().min(theirs.leaves.len());
    let surplus = |page: &Page, other: &Page| page.leaves.get(common).filter(|_| !other.more).cloned();
    if let Some((name, _)) = surplus(own, theirs).or_else(|| surplus(theirs, own)) {
        return Compared::Differs(name);
    }
    match own.leaves.get(..common).and_then(<[_]>::last) {
        Some((name, _)) if own.more || theirs.more => Compared::EqualUpTo(name.clone()),
        _ => Compared::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec};
    use unisono_types::{Epoch, Position};

    const AT: SequenceNumber = SequenceNumber(9);

    fn parts(objects: u8, scheduler: u8, sessions: u8) -> Parts {
        let [objects, scheduler, sessions] = [objects, scheduler, sessions].map(|byte| Digest([byte; 32]));
        Parts { objects, scheduler, sessions, grants: Digest::ZERO }
    }

    fn search() -> Divergence {
        let own = Checkpoint { epoch: Epoch(0), sequence: AT, header: Digest::ZERO, root: Digest([1; 32]) };
        let theirs = Checkpoint { root: Digest([2; 32]), ..own };
        let witnesses = vec![ReplicaId(1), ReplicaId(2)];
        let (search, next) = Divergence::new(Mismatch { own, theirs, witnesses }, parts(1, 1, 1));
        assert_eq!(next, Next::Ask(ReplicaId(1), LeavesRequest { sequence: AT, after: None }));
        search
    }

    fn page(entries: &[(&str, u8)], more: bool) -> Page {
        let leaves = entries.iter().map(|(name, digest)| ((*name).into(), Digest([*digest; 32]))).collect();
        Page { leaves, more }
    }

    fn answer(after: Option<&str>, parts: Parts, page: Page) -> Leaves {
        let after = after.map(String::from);
        Leaves { sequence: AT, after, parts: Some(parts), marked: AT, leaves: page.leaves, more: page.more }
    }

    fn named(next: Next) -> Difference {
        match next {
            Next::Halt(HaltReason::MinorityRoot { first, .. }) => first,
            other => panic!("expected an end, got {other:?}"),
        }
    }

    #[test]
    fn a_part_other_than_the_objects_is_named_at_once() {
        let empty = || page(&[], false);
        let scheduler = search().answered(ReplicaId(1), answer(None, parts(1, 2, 1), empty()), AT);
        assert_eq!(named(scheduler), Difference::Scheduler);
        let sessions = search().answered(ReplicaId(1), answer(None, parts(1, 1, 2), empty()), AT);
        assert_eq!(named(sessions), Difference::Sessions);
    }

    #[test]
    fn the_first_differing_object_is_found_pages_deep() {
        let mut search = search();
        let theirs = page(&[("a", 1), ("b", 1)], true);
        assert_eq!(search.answered(ReplicaId(1), answer(None, parts(2, 1, 1), theirs.clone()), AT), Next::Own(None));
        let request = LeavesRequest { sequence: AT, after: Some("b".into()) };
        assert_eq!(search.own_page(&theirs, AT), Next::Ask(ReplicaId(1), request));
        let theirs = answer(Some("b"), parts(2, 1, 1), page(&[("c", 1), ("d", 1)], false));
        assert_eq!(search.answered(ReplicaId(1), theirs, AT), Next::Own(Some("b".into())));
        assert_eq!(named(search.own_page(&page(&[("c", 1), ("d", 9)], false), AT)), Difference::Object("d".into()));
    }

    #[test]
    fn an_object_that_only_one_side_has_is_named() {
        let (less, more, order) = (&[("a", 1)][..], &[("a", 1), ("b", 1)][..], &[("b", 1), ("a", 1)][..]);
        for (own, theirs) in [(less, more), (more, less), (less, order), (order, less)] {
            let mut search = search();
            search.answered(ReplicaId(1), answer(None, parts(2, 1, 1), page(theirs, false)), AT);
            assert_eq!(named(search.own_page(&page(own, false), AT)), Difference::Object("b".into()));
        }
    }

    /// Grants with these numbers, each with a lock.
    fn grants(numbers: core::ops::Range<u64>, lock: impl Fn(u64) -> u64) -> Vec<GrantRecord> {
        let grant = |number| GrantRecord {
            number,
            round: number / 4,
            position: Position(number << 24),
            path: vec![],
            lock: format!("rows[{}]", lock(number)),
            write: true,
            writers_before: 0,
        };
        numbers.map(grant).collect()
    }

    /// A search that has just learnt that grants differ.
    fn search_for_a_grant() -> Divergence {
        let mut search = search();
        let theirs = Parts { grants: Digest([9; 32]), ..parts(2, 2, 2) };
        assert_eq!(search.answered(ReplicaId(1), answer(None, theirs, page(&[], false)), AT), Next::OwnGrants(0));
        search
    }

    #[test]
    fn the_first_grant_that_differs_is_found_pages_deep() {
        let mut search = search_for_a_grant();
        let request = |from| Next::AskGrants(ReplicaId(1), GrantsRequest { from });
        assert_eq!(search.own_grants(grants(0..4, |n| n)), request(0));
        let answer = |from, grants| Grants { from, grants };
        assert_eq!(search.grants_answered(ReplicaId(2), answer(0, grants(0..4, |_| 0))), Next::Wait, "not asked");
        assert_eq!(search.grants_answered(ReplicaId(1), answer(0, grants(0..4, |n| n))), Next::OwnGrants(4));
        assert_eq!(search.own_grants(grants(4..8, |n| n)), request(4));
        let end = search.grants_answered(ReplicaId(1), answer(4, grants(4..7, |n| if n < 6 { n } else { 99 })));
        let Difference::Grant { own, theirs, is_first: true } = named(end) else { panic!() };
        assert_eq!((own.number, own.lock.as_str(), theirs.lock.as_str()), (6, "rows[6]", "rows[99]"));
    }

    #[test]
    fn grants_that_one_side_has_forgotten_are_skipped_and_what_cannot_be_known_is_not_claimed() {
        let mut search = search_for_a_grant();
        search.own_grants(grants(0..4, |n| n));
        let later = Grants { from: 0, grants: grants(10..14, |n| n) };
        assert_eq!(search.grants_answered(ReplicaId(1), later), Next::OwnGrants(10));
        search.own_grants(grants(10..14, |n| n + 1));
        let end = search.grants_answered(ReplicaId(1), Grants { from: 10, grants: grants(10..14, |n| n) });
        assert!(matches!(named(end), Difference::Grant { is_first: false, .. }));
        let mut search = search_for_a_grant();
        assert_eq!(named(search.own_grants(vec![])), Difference::Grants);
    }

    #[test]
    fn silence_and_contradictions_move_on_to_the_next_witness_and_end_without_a_name() {
        let mut search = search();
        let contradiction = answer(None, parts(1, 1, 1), page(&[], false));
        assert_eq!(search.answered(ReplicaId(1), contradiction.clone(), AT), Next::Wait);
        assert!(matches!(search.retry(), Next::Ask(ReplicaId(2), _)));
        assert_eq!(search.answered(ReplicaId(1), contradiction, AT), Next::Wait, "nobody asked it now");
        let ends = (0..FRUITLESS_MAX).map(|_| search.retry()).last().unwrap();
        assert_eq!(named(ends), Difference::Unknown);
    }

    #[test]
    fn pages_of_different_marks_are_never_compared() {
        let mut search = search();
        let theirs = answer(None, parts(2, 1, 1), page(&[("a", 1)], false));
        assert_eq!(search.answered(ReplicaId(1), theirs.clone(), SequenceNumber(8)), Next::Wait);
        assert_eq!(search.answered(ReplicaId(1), theirs, AT), Next::Own(None));
        assert_eq!(search.own_page(&page(&[("a", 2)], false), SequenceNumber(10)), Next::Wait, "ours moved on");
    }

    #[test]
    fn a_witness_that_repeats_itself_for_ever_is_left() {
        let mut search = search();
        let mut after: Option<String> = None;
        let ends = (0..).find_map(|number| {
            let same = page(&[(&format!("{number:09}"), 1)], true);
            search.answered(ReplicaId(1), answer(after.as_deref(), parts(2, 1, 1), same.clone()), AT);
            match search.own_page(&same, AT) {
                Next::Ask(_, request) => {
                    after = request.after;
                    None
                }
                end => Some(end),
            }
        });
        assert_eq!(named(ends.unwrap()), Difference::Unknown);
    }
}
