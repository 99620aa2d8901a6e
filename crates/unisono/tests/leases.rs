//! The example of a lock service with leases: under every schedule and whatever agreed time does, a name has one holder
//! at a time.
#![allow(dead_code, missing_docs)]

#[path = "../examples/leases.rs"]
mod leases;

use leases::{Lease, Leases, LeasesOperation, Refused};
use std::collections::BTreeMap;
use unisono::borsh::{self, BorshDeserialize};
use unisono::testing::{self, Defect, Options, Recording};
use unisono::{Context, Mutex, State, Timestamp, service};
use unisono_scheduler::uds::{Planted, Uds};
use unisono_scheduler::{Parameters, Scheduler};
use unisono_types::Work;

/// How long a token was good, as clients were told.
#[derive(Clone, Copy, Debug)]
struct Held {
    from: Timestamp,
    /// By the last grant or renewal of these times, or by its release.
    told: Timestamp,
    until: Timestamp,
    released: bool,
}

impl Held {
    fn hear(&mut self, lease: &Lease, release: bool) {
        // Of two renewals at one time the shorter counts: nobody is told which was the last.
        let later = lease.since > self.told || lease.since == self.told && lease.until < self.until;
        if release || !self.released && later {
            (self.told, self.until) = (lease.since, lease.until);
        }
        self.released |= release;
        self.from = self.from.min(lease.since);
    }
}

type Told = BTreeMap<(String, u64), Held>;

fn lease<E>(reply: &[u8]) -> Option<Lease>
where
    Result<Lease, E>: BorshDeserialize,
{
    borsh::from_slice::<Result<Lease, E>>(reply).expect("a lease or a refusal").ok()
}

/// What clients were told of each token.
fn told(recording: &Recording) -> Told {
    let mut told = Told::new();
    for work in &recording.log {
        let Work::Request { position, operation, .. } = work else { continue };
        let (Some(Ok(reply)), [method @ 0..=2, arguments @ ..]) =
            (recording.trace.outcomes.get(position), &operation[..])
        else {
            continue;
        };
        let name = String::deserialize(&mut &arguments[..]).expect("a name");
        let Some(lease) = lease::<Refused>(reply) else { continue };
        let Lease { token, since, until, .. } = lease;
        let held = told.entry((name, token));
        held.or_insert(Held { from: since, told: since, until, released: false }).hear(&lease, *method == 2);
    }
    told
}

/// Two tokens of a name that were good at the same time, or one that had lapsed when it was given.
fn two_holders(told: &Told) -> Option<String> {
    let pairs = told.iter().zip(told.iter().skip(1));
    let mut pairs = pairs.filter(|(((name, _), _), ((next, _), _))| name == next);
    pairs
        .find(|((_, held), (_, next))| next.from < held.until)
        .map(|(held, next)| format!("{held:?} and {next:?} at one time"))
}

fn operations(seed: u64) -> Vec<Vec<u8>> {
    testing::samples::<Leases>(80, seed)
}

#[test]
fn a_name_never_has_two_holders() {
    let (mut leases, mut passed_on) = (0, 0);
    for seed in 0..6 {
        let recordings = testing::check_all::<Leases>(&operations(seed), seed * 10..seed * 10 + 2);
        for recording in recordings.unwrap_or_else(|difference| panic!("samples {seed}: {difference}")) {
            let told = told(&recording);
            assert_eq!(two_holders(&told), None, "samples {seed}");
            leases += told.len();
            passed_on += told.values().filter(|held| held.released).count();
        }
    }
    assert!(leases > 300 && passed_on > 20, "leases were given and released: {leases}, {passed_on}");
}

/// A scheduler whose locks carry no time: a waiter that a later request wakes still has its old one.
fn old_now() -> Box<dyn Scheduler> {
    Box::new(Uds::planted(Parameters { primaries: 4, ..Parameters::uds() }, Planted::LockCarriesNothing))
}

#[test]
fn with_a_time_that_is_not_causal_there_are_two_holders_and_the_test_says_who_wrote_it() {
    let found = (0..20).find_map(|seed| {
        let recording = testing::record::<Leases>(old_now(), &operations(seed), seed);
        two_holders(&told(&recording))
    });
    assert!(found.is_some(), "the check of leases sees it");
    let difference = testing::check::<Leases>(old_now, &operations(0), 0..20).unwrap_err();
    assert_eq!(difference.defect, Defect::EarlierTime, "{difference}");
    assert!(difference.hint.contains("scheduler"), "{difference}");
}

/// The mistake that leads to the same with the right scheduler.
#[derive(State)]
struct Hasty {
    last: Mutex<Last>,
}

#[derive(Clone, Default, borsh::BorshSerialize, borsh::BorshDeserialize)]
#[borsh(crate = "unisono::borsh")]
struct Last {
    at: Timestamp,
    number: u64,
}

#[service]
impl Hasty {
    /// Notes a time that it read before it owned the lock.
    async fn note_early(&self, cx: &Context) {
        let now = cx.now();
        let mut last = self.last.lock(cx).await;
        last.with_mut(now, |last, now| last.at = now);
    }

    /// Notes the time at which it owns the lock.
    async fn note(&self, cx: &Context) {
        let mut last = self.last.lock(cx).await;
        last.with_mut(cx.now(), |last, now| last.at = now);
        last.with_mut((), |last, ()| last.number += 1);
        cx.sleep(3_000).await;
        last.with_mut((cx.now(), Some(1u8)), |last, (now, _)| last.at = now);
    }

    /// Notes when it arrived, on purpose.
    async fn arrived(&self, cx: &Context) {
        let arrived = cx.now().0;
        let mut last = self.last.lock(cx).await;
        last.with_mut(arrived, |last, arrived| last.number = arrived);
    }
}

#[test]
fn a_time_that_was_read_before_the_lock_was_owned_is_reported_with_the_handler() {
    let right: Vec<_> = (0..10).flat_map(|_| [HastyOperation::note(), HastyOperation::arrived()]).collect();
    testing::check_all::<Hasty>(&right, 0..4).unwrap();
    let wrong: Vec<_> = right.iter().cloned().chain((0..6).map(|_| HastyOperation::note_early())).collect();
    let difference = testing::check_all::<Hasty>(&wrong, 0..4).unwrap_err();
    let report = difference.to_string();
    assert_eq!(difference.defect, Defect::EarlierTime, "{report}");
    assert!(report.starts_with("handler `note_early` of request "), "{report}");
    assert!(report.contains("under last, which others have owned at "), "{report}");
    assert!(report.contains("before it owned the lock"), "{report}");
}

#[test]
fn a_lease_ends_by_time_or_by_its_token_and_fencing_tokens_ascend() {
    let options = Options { reconfigure: false, ..Options::default() };
    let name = || "door".to_owned();
    let operations = [
        LeasesOperation::acquire(name(), 100_000, 0),
        LeasesOperation::release(name(), 7),
        LeasesOperation::renew(name(), 1, 400_000),
        LeasesOperation::acquire(name(), 10, 0),
        LeasesOperation::acquire(name(), 10, 3_600_000_000),
        LeasesOperation::acquire(name(), 0, 0),
    ];
    let policy = || testing::policy(None);
    let recording = testing::check_with::<Leases>(&options, policy, &operations, 0..8).unwrap();
    let replies: Vec<Result<Lease, Refused>> =
        recording.trace.outcomes.values().map(|reply| borsh::from_slice(reply.as_ref().unwrap()).unwrap()).collect();
    let [first, released, renewed, busy, second, nothing] = &replies[..] else { panic!("six replies: {replies:?}") };
    let (first, renewed, second) = (first.as_ref().unwrap(), renewed.as_ref().unwrap(), second.as_ref().unwrap());
    assert_eq!((first.token, renewed.token, second.token), (1, 1, 2));
    assert_eq!((released, busy, nothing), (&Err(Refused::Lapsed), &Err(Refused::Busy), &Err(Refused::Duration)));
    assert_eq!(renewed.until, renewed.since.after(400_000));
    assert!(second.since >= renewed.until, "{second:?} after {renewed:?}");
}
