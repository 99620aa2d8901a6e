//! Bugs switched on: the same storms must find them, or the checks are worth nothing.

use crate::aphousia::{Aphousia, Message, Planted};
use crate::conformance::{Cluster, Disk, Random, RunOptions, Subject, run_seed};
use crate::{Consensus, Decision, Input, Output, Status};
use unisono_types::{Bytes, Certificate, Digest, Rejected, ReplicaId, Time, VerifyContext};

/// Aphousia with a bug.
struct Buggy<const FORGOTTEN_GREATEST: bool>(Aphousia);

impl<const F: bool> Consensus for Buggy<F> {
    type Message = Message;

    fn handle(&mut self, now: Time, input: Input<Message>, outbox: &mut Vec<Output<Message>>) {
        self.0.handle(now, input, outbox);
    }

    fn provide(blocks: Vec<Bytes>, proof: Bytes) -> Message {
        Aphousia::provide(blocks, proof)
    }

    fn decision(bytes: &Bytes, context: &VerifyContext) -> Result<Decision, Rejected> {
        Aphousia::decision(bytes, context)
    }

    fn status(&self) -> Status {
        self.0.status()
    }
}

impl<const F: bool> Subject for Buggy<F> {
    fn open(cluster: &Cluster, id: ReplicaId, disk: &Disk) -> Self {
        let mut instance = Aphousia::open(cluster, id, disk);
        instance.plant(Planted { forgotten_greatest: F, quorum_off_by_one: !F });
        Self(instance)
    }

    fn corrupt(cluster: &Cluster, message: &Message, random: &mut Random) -> Option<Message> {
        Aphousia::corrupt(cluster, message, random)
    }

    fn proposed(message: &Message) -> Option<Digest> {
        Aphousia::proposed(message)
    }

    fn vote(certificate: Certificate) -> Message {
        Aphousia::vote(certificate)
    }

    fn describe(message: &Message, name: &dyn Fn(Digest) -> String) -> String {
        Aphousia::describe(message, name)
    }
}

fn seeds_until_disagreement<S: Subject>() -> Option<u64> {
    let options = RunOptions { members: (3, 5), liars: false, ..RunOptions::default() };
    (0..1_000)
        .find(|seed| matches!(run_seed::<S>(*seed, &options), Err(violation) if violation.0.starts_with("agreement")))
}

#[test]
fn a_view_change_that_forgets_its_greatest_vote_is_found() {
    let seed = seeds_until_disagreement::<Buggy<true>>();
    println!("found at seed {seed:?}");
    assert!(seed.is_some());
}

#[test]
fn a_quorum_that_is_one_too_small_is_found() {
    let seed = seeds_until_disagreement::<Buggy<false>>();
    println!("found at seed {seed:?}");
    assert!(seed.is_some());
}
