//! Clocks that are wrong, ways that are long, blocks that are large: none of them accuses a correct leader or stops it.

use super::hostile::{block, instance, says};
use crate::aphousia::planted::Planted;
use crate::aphousia::{Aphousia, CertifiedBlock, EnteredView, Header, Instance, Message, Recovered, Rules, Settings};
use crate::conformance::{Behaviour, Cluster, Conditions, Network, Subject};
use crate::{ClockReading, Complaints, Consensus, Input, Output, Record, RegisterAnswer, TimerId};
use std::collections::{BTreeMap, BTreeSet};
use unisono_trusted::{RegisterState, VoteRegister};
use unisono_types::{
    Certificate, Epoch, Frame, FrameBody, Limits, RegisterView, ReplicaId, RequestNumber, SequenceNumber, SessionId,
    Signed, Signer, Step, Time, Timestamp, Verified, View, VotePosition, Wish,
};

const SECOND: u64 = 1_000_000;
const DAY: i64 = 24 * 3_600 * 1_000_000;
const LEADER: ReplicaId = ReplicaId(0);

/// Three replicas in a calm network that run this variant.
fn network<S: Subject>(planted: Option<Planted>) -> Network<S> {
    let variant = planted.and_then(|planted| Planted::ALL.iter().position(|other| *other == planted));
    let cluster = Cluster::new(3, 0).of_variant(variant.unwrap_or(0));
    let mut network = Network::new(cluster, 1, Conditions::CALM);
    network.ids().for_each(|id| network.start(id));
    network
}

/// Hands a frame to everyone and lets time pass, until it is decided or the time is over; how long it took.
fn decide<S: Subject>(network: &mut Network<S>, number: u64, most: u64) -> u64 {
    let frame = network.cluster().frame(number, b"x");
    let since = network.now();
    network.ids().for_each(|id| network.submit(id, frame.clone(), ""));
    while !network.checks.is_decided(&frame.id()) && network.now() < since + most {
        network.run(1_000);
    }
    network.verdict().unwrap_or_else(|violation| panic!("{}", violation.0));
    network.now() - since
}

fn view<S: Subject>(network: &Network<S>) -> View {
    network.ids().filter_map(|id| network.instance(id)).map(|instance| instance.status().view.view()).max().unwrap()
}

/// The reasons for which followers have wished for another leader.
fn reasons<S: Subject>(network: &Network<S>) -> Vec<&'static str> {
    let of = |id| network.instance(id).map(|instance| instance.status().complaints.by_reason());
    let given = network.ids().filter_map(of).flatten().filter(|(_, count)| *count > 0).map(|(reason, _)| reason);
    let reasons: BTreeSet<_> = given.collect();
    reasons.into_iter().collect()
}

#[test]
fn clocks_that_are_set_leave_no_gap_and_time_goes_on() {
    for steps in [vec![-5_000_000], vec![-60_000_000], vec![-600_000_000], vec![DAY, -DAY], vec![DAY, -DAY, DAY]] {
        let mut network = network::<Aphousia>(None);
        decide(&mut network, 1, SECOND);
        let skew = |id| network.instance(id).unwrap().status().clock_skew_micros;
        assert!(network.ids().all(|id| (-100_000..=0).contains(&skew(id))), "at rest a little behind the clocks");
        let mut number = 1;
        for step in [0].into_iter().chain(steps.clone()) {
            network.ids().for_each(|id| network.set_clock(id, step));
            let (from, since) = (network.agreed_time(), network.now());
            for _ in 0..100 {
                number += 1;
                let took = decide(&mut network, number, 60 * SECOND);
                assert!(took < SECOND, "{steps:?}: {took} us");
                network.run(20_000);
            }
            let advanced = network.agreed_time().0 - from.0;
            assert!(advanced >= (network.now() - since) / 3, "{steps:?}: {advanced} us");
        }
        assert_eq!(view(&network), View(0), "{steps:?}: who follows the clocks is no bad leader");
    }
}

#[test]
fn under_load_time_that_waits_for_the_clocks_runs_at_half_speed() {
    // Each decision makes room for the next block at once: time since the newest decision is 0 whenever one is built.
    let mut network = network::<Aphousia>(None);
    decide(&mut network, 1, SECOND);
    network.ids().for_each(|id| network.set_clock(id, -600_000_000));
    let (from, since) = (network.agreed_time(), network.now());
    for number in 2..500 {
        let frame = network.cluster().frame(number, b"x");
        network.submit(LEADER, frame, "");
        network.run(1_000);
    }
    let (advanced, elapsed) = (network.agreed_time().0 - from.0, network.now() - since);
    assert!((elapsed * 2 / 5..elapsed * 3 / 5).contains(&advanced), "{advanced} us in {elapsed} us");
}

#[test]
fn a_leader_whose_clock_is_ahead_is_replaced_and_its_time_is_not_taken() {
    let mut network = network::<Aphousia>(None);
    decide(&mut network, 1, SECOND);
    let from = network.agreed_time();
    network.set_clock(LEADER, DAY);
    assert!(decide(&mut network, 2, 60 * SECOND) < SECOND);
    assert!(view(&network) > View(0));
    assert!(network.agreed_time() < from.after(2 * SECOND));
    let waits = |id| network.instance(ReplicaId(id)).unwrap().status().clock_waits;
    assert!(waits(1) > 0 && waits(2) > 0, "it shows");
    assert_eq!(reasons(&network), ["time-out"]);
}

#[test]
fn a_leader_that_holds_time_back_is_replaced() {
    let held = |planted| {
        let mut network = network::<Instance<Planted>>(Some(planted));
        for number in 1..200 {
            decide(&mut network, number, SECOND);
            network.run(100_000);
            let slow = -((network.now() / 10 * 9) as i64);
            network.set_skew(LEADER, slow);
        }
        (view(&network), reasons(&network))
    };
    let (views, reasons) = held(Planted::SizeAccuses);
    assert!(views > View(0), "a rule that has nothing to do with it");
    assert_eq!(reasons, ["time-held-back"]);
    assert_eq!(held(Planted::SlowTimeExcused), (View(0), vec![]));
}

#[test]
fn a_leader_whose_links_are_down_is_replaced_for_that() {
    let mut network = network::<Aphousia>(None);
    decide(&mut network, 1, SECOND);
    network.crash(LEADER);
    network.tell_link(LEADER, false);
    network.run(SECOND / 10);
    assert_eq!((view(&network), reasons(&network)), (View(1), vec!["link-down"]));
}

/// How far beyond its clock a replica votes after a liar and one that starts anew have made it skip views.
fn tolerance_after_skipping<R: Rules>(rules: R) -> u64 {
    let cluster = Cluster::new(3, 0);
    let mut instance = instance(&cluster, rules);
    let wish = |replica| {
        let (id, signer) = (cluster.membership().configuration().cluster, cluster.host_signer(ReplicaId(replica)));
        Message::Wish(Signed::sign(id, ReplicaId(replica), &signer, Wish { epoch: Epoch(0), view: View(1_000) }))
    };
    says(&mut instance, 1, wish(2));
    says(&mut instance, 2, wish(0));
    let mut register = cluster.register(ReplicaId(1), RegisterState::default());
    let change = register.advance(RegisterView::new(Epoch(0), View(1_000))).unwrap();
    let now = Time { monotonic: 3, wall: SECOND + 3 };
    instance.handle(now, Input::Answered(RegisterAnswer::ViewChange(change)), &mut Vec::new());
    assert_eq!(instance.status().view.view(), View(1_000));
    instance.tolerance_micros()
}

#[test]
fn views_that_others_make_me_skip_do_not_widen_what_i_vote_for() {
    assert_eq!(tolerance_after_skipping(crate::aphousia::Standard), 500_000);
    assert!(tolerance_after_skipping(Planted::SkippedViewsCount) > 50 * SECOND);
}

/// The first block, stamped a day ahead of everybody's clock, its leader's certificate with it.
fn block_of_tomorrow(cluster: &Cluster) -> CertifiedBlock {
    let parent = cluster.membership().configuration().digest();
    let (step, height, timestamp) = (Step(1), SequenceNumber(1), Timestamp(DAY as u64));
    let block = block(cluster, Header { step, height, parent, timestamp, ..Header::genesis(Epoch(0)) }, 10);
    CertifiedBlock { certificate: Some(vote(cluster, LEADER, block.position())), ..CertifiedBlock::bare(block) }
}

fn vote(cluster: &Cluster, voter: ReplicaId, position: VotePosition) -> Certificate {
    let mut register = cluster.register(voter, RegisterState::default());
    register.certify(position.view, position.step, position.hash).unwrap()
}

/// What a replica does when it receives that block from its leader.
fn receives<R: Rules>(instance: &mut Instance<R>, block: CertifiedBlock) -> Vec<Output<Message>> {
    let mut outbox = Vec::new();
    let message = Verified::own(Message::Block(block));
    let now = Time { monotonic: 1, wall: SECOND + 1 };
    instance.handle(now, Input::Message { from: LEADER, message }, &mut outbox);
    outbox
}

fn asks_for_a_vote(outbox: &[Output<Message>]) -> bool {
    outbox.iter().any(|output| matches!(output, Output::Certify { .. }))
}

#[test]
fn a_stamp_that_a_correct_replica_has_voted_for_is_timely() {
    // Six members, two of them may lie, and four decide.
    let cluster = Cluster::new(6, 0);
    let mut instance = instance(&cluster, crate::aphousia::Standard);
    let tomorrow = block_of_tomorrow(&cluster);
    let position = tomorrow.block.position();
    assert!(!asks_for_a_vote(&receives(&mut instance, tomorrow)));
    let second = Message::Vote(vote(&cluster, ReplicaId(2), position));
    assert!(!asks_for_a_vote(&says(&mut instance, 2, second.clone())), "both may lie");
    assert!(!asks_for_a_vote(&says(&mut instance, 3, second)), "and say it again");
    let mut register = cluster.register(ReplicaId(3), RegisterState::default());
    register.certify(position.view, position.step, position.hash).unwrap();
    let change = register.advance(RegisterView::new(Epoch(0), View(1))).unwrap();
    let change = Message::ViewChange(EnteredView { change, wishes: Vec::new() });
    assert!(asks_for_a_vote(&says(&mut instance, 4, change)), "a last vote is a vote");
}

#[test]
fn what_a_clock_has_shown_outlives_a_restart() {
    let cluster = Cluster::new(3, 0);
    let votes = |clock: ClockReading| {
        let id = ReplicaId(1);
        let settings = Settings::new(id, cluster.host_signer(id), cluster.membership().clone());
        let recovered = Recovered { clock, ..Recovered::default() };
        let mut instance = Aphousia::new(settings, recovered);
        instance.handle(Time { monotonic: 0, wall: SECOND }, Input::Start, &mut Vec::new());
        let outbox = receives(&mut instance, block_of_tomorrow(&cluster));
        let kept = outbox.iter().find_map(|output| match output {
            Output::Persist { record: Record::Clock(reading), .. } => Some(reading.micros),
            _ => None,
        });
        assert_eq!(kept.is_some(), asks_for_a_vote(&outbox));
        kept
    };
    let (tomorrow, after) = (DAY as u64, SequenceNumber(0));
    let reading = |micros| ClockReading { after, micros };
    assert_eq!(votes(reading(0)), None, "its clock is a day behind");
    assert_eq!(votes(reading(tomorrow)), Some(tomorrow + 1), "it was not before it was set back, and goes on");
    assert_eq!(votes(reading(tomorrow - 2 * SECOND)), None, "not as far as that");
}

#[test]
fn twenty_minutes_of_six_seconds_are_lived_through_and_forgotten() {
    let mut network = network::<Aphousia>(None);
    decide(&mut network, 1, SECOND);
    network.conditions.delay = (5_000_000, 6_000_000);
    let far = network.now();
    let mut number = 1;
    while network.now() < far + 1_200 * SECOND {
        number += 1;
        decide(&mut network, number, 120 * SECOND);
    }
    assert!(number > 10, "{number} in twenty minutes: it goes on meanwhile");
    assert!(view(&network) < View(12), "{:?}", view(&network));
    network.conditions = Conditions::CALM;
    assert!(decide(&mut network, number + 1, 60 * SECOND) < 30 * SECOND);
    // And a leader that dies then is replaced as soon as ever.
    network.run(30 * SECOND);
    let leader = network.instance(LEADER).unwrap().status().leader;
    network.crash(leader);
    let took = decide(&mut network, number + 2, 60 * SECOND);
    assert!(took < 2 * SECOND, "{took} us");
}

#[test]
fn long_ways_cost_few_views() {
    let views = |planted| {
        let mut network = network::<Instance<Planted>>(Some(planted));
        decide(&mut network, 1, SECOND);
        network.conditions.delay = (5_000_000, 6_000_000);
        let end = network.now() + 300 * SECOND;
        for number in 2.. {
            if network.now() >= end {
                break;
            }
            decide(&mut network, number, 300 * SECOND);
        }
        view(&network).0
    };
    let (ships, short) = (views(Planted::StampStands), views(Planted::ShortTimeouts));
    assert!(ships <= 4 && short > 20, "{ships} by the rule, {short} without");
}

#[test]
fn large_blocks_depose_nobody() {
    let views = |planted, frames| {
        let mut network = network::<Instance<Planted>>(Some(planted));
        let limits =
            Limits { operation_bytes: 2 << 20, frame_bytes: 3 << 20, block_bytes: 4 << 20, ..Limits::default() };
        let cluster = network.cluster().clone().with_limits(limits);
        network = Network::new(cluster, 1, Conditions { bandwidth: 8_000, ..Conditions::CALM });
        network.ids().for_each(|id| network.start(id));
        for number in 1..=frames {
            let frame = network.cluster().frame(number, &vec![1; 1_500_000]);
            network.ids().for_each(|id| network.submit(id, frame.clone(), ""));
        }
        network.run(frames * SECOND);
        assert_eq!(network.instance(LEADER).unwrap().status().pending, 0);
        view(&network)
    };
    for frames in [4, 10] {
        assert_eq!(views(Planted::StampStands, frames), View(0), "a rule that has nothing to do with it");
        assert!(views(Planted::SizeAccuses, frames) > View(0));
    }
}

#[test]
fn whoever_waits_for_the_turns_of_others_waits_for_their_bytes() {
    let limits = Limits { operation_bytes: 2 << 20, frame_bytes: 3 << 20, block_bytes: 3 << 20, ..Limits::default() };
    let cluster = Cluster::new(3, 0).with_limits(limits);
    let mut network = Network::<Aphousia>::new(cluster, 1, Conditions { bandwidth: 8_000, ..Conditions::CALM });
    network.ids().for_each(|id| network.start(id));
    let signed = |client| {
        let requests = vec![(RequestNumber(1), vec![1; 2 << 20].into())];
        let (session, lowest_unacknowledged) = (SessionId(client), RequestNumber(1));
        let body = FrameBody::Requests { session, lowest_unacknowledged, requests };
        Frame::sign(network.cluster().membership().configuration().cluster, &Signer::keyed(1, client), body)
    };
    let mut frames: Vec<Frame> = (1..=6).map(signed).collect();
    frames.sort_by_key(Frame::key);
    // The leader hears last of whoever has the last turn; the others have known of it for longest.
    let last = frames.pop().unwrap();
    network.ids().skip(1).for_each(|id| network.submit(id, last.clone(), ""));
    frames.push(last);
    for frame in frames {
        network.ids().for_each(|id| network.submit(id, frame.clone(), ""));
    }
    network.run(6 * SECOND);
    assert_eq!(network.instance(LEADER).unwrap().status().pending, 0);
    assert_eq!(view(&network), View(0));
}

/// How long a follower waits before it wishes for another leader, in microseconds, while a block that is never complete
/// comes at this many MB/s.
fn patience_while_a_block_comes(speed: u64) -> u64 {
    let cluster = Cluster::new(3, 0).with_limits(Limits::default());
    let mut follower = instance(&cluster, crate::aphousia::Standard);
    let mut timers = BTreeMap::from([(crate::aphousia::timers::STATUS, SECOND)]);
    let mut outbox = Vec::new();
    let mut input = Input::Submit(Verified::own(cluster.frame(1, b"x")));
    for at in (1..).step_by(10_000) {
        let now = Time { monotonic: at, wall: SECOND + at };
        follower.handle(now, input, &mut outbox);
        let due: Vec<TimerId> = timers.iter().filter(|(_, due)| **due <= at).map(|(timer, _)| *timer).collect();
        for timer in due {
            timers.remove(&timer);
            follower.handle(now, Input::Timeout(timer), &mut outbox);
        }
        for output in outbox.drain(..) {
            match output {
                Output::SetTimer { timer, at: Some(at) } => drop(timers.insert(timer, at)),
                Output::Broadcast(Message::Wish(_)) => return at,
                // The leader is there.
                Output::Broadcast(Message::Probe(sent)) => timers.extend([(TimerId(99), sent)]),
                _ => {}
            }
        }
        if let Some(sent) = timers.remove(&TimerId(99)) {
            for from in [LEADER, ReplicaId(2)] {
                let message = Verified::own(Message::Echo(sent));
                follower.handle(now, Input::Message { from, message }, &mut outbox);
            }
        }
        input = Input::Arriving { from: LEADER, bytes: (at * speed) as usize };
    }
    unreachable!("a leader that completes nothing is replaced")
}

#[test]
fn bytes_that_come_are_patience_and_no_more_than_they_take() {
    let waited = patience_while_a_block_comes;
    let base = waited(0);
    assert!((150_000..170_000).contains(&base), "{base} us");
    let slow = waited(1);
    assert!(slow < 2 * base, "1 MB/s is too slow for a block: {slow} us");
    let fast = waited(16);
    assert!((4 * SECOND..7 * SECOND).contains(&fast), "a whole block at 8 MB/s to each of two, and no more: {fast} us");
}

#[test]
fn a_block_that_has_come_is_no_sooner_a_fault_than_one_that_comes() {
    let cluster = Cluster::new(3, 0).with_limits(Limits::default());
    let patience = |arrivals: &[usize]| {
        let mut follower = instance(&cluster, crate::aphousia::Standard);
        let now = Time { monotonic: 1, wall: SECOND + 1 };
        let mut input = |input| follower.handle(now, input, &mut Vec::new());
        input(Input::Submit(Verified::own(cluster.frame(1, b"x"))));
        arrivals.iter().for_each(|bytes| input(Input::Arriving { from: LEADER, bytes: *bytes }));
        follower.timeout_micros(now)
    };
    let (base, block) = (patience(&[]), 24 << 20);
    let whole = patience(&[block]);
    assert!(whole > base + 6 * SECOND);
    assert_eq!(patience(&[block, 0]), whole, "it is here, and not yet decided");
    assert_eq!(patience(&[block, 0, block, 0, block]), whole, "more than one at a time buys nothing");
}

#[test]
fn an_echo_for_the_process_before_this_one_is_no_round_trip() {
    let cluster = Cluster::new(3, 0);
    let id = ReplicaId(1);
    let settings = Settings::new(id, cluster.host_signer(id), cluster.membership().clone());
    let mut instance = Aphousia::new(settings, Recovered::default());
    let mut says = |monotonic, input| {
        let mut outbox = Vec::new();
        instance.handle(Time { monotonic, wall: SECOND }, input, &mut outbox);
        (outbox, instance.distance.round_trip_micros())
    };
    // Its monotonic clock began when the machine did.
    let begin = 3_600 * SECOND;
    let (outbox, _) = says(begin, Input::Start);
    assert!(outbox.iter().any(|output| matches!(output, Output::Broadcast(Message::Probe(_)))));
    let echo = |from, sent| Input::Message { from, message: Verified::own(Message::Echo(sent)) };
    says(begin + 100, echo(LEADER, 7));
    assert_eq!(says(begin + 100, echo(ReplicaId(2), 7)).1, 0, "nothing was measured");
    assert_eq!(says(begin + 200, echo(LEADER, begin)).1, 100, "half way from nothing to 200 us");
}

#[test]
fn a_leader_that_is_slower_than_it_need_be_is_replaced_within_two_seconds() {
    let replaced = |planted, most| {
        let mut network = network::<Instance<Planted>>(Some(planted));
        for number in 1..100 {
            decide(&mut network, number, SECOND);
        }
        network.set_behaviour(LEADER, Behaviour::Slow);
        let since = network.now();
        let mut number = 100;
        while view(&network) == View(0) && network.now() < since + most {
            number += 1;
            decide(&mut network, number, SECOND);
        }
        (view(&network) > View(0)).then(|| {
            assert_eq!(reasons(&network), ["slow"]);
            network.now() - since
        })
    };
    assert!(replaced(Planted::StampStands, 10 * SECOND).is_some_and(|took| took < 2 * SECOND));
    assert_eq!(replaced(Planted::SlowLeaderExcused, 10 * SECOND), None);
}

#[test]
fn when_all_are_slow_few_views_pass() {
    for (delay, sync) in [(100_000, 1_000), (1_000, 150_000), (60_000, 60_000)] {
        let mut network = network::<Aphousia>(None);
        decide(&mut network, 1, SECOND);
        network.conditions.delay = (delay, delay);
        network.conditions.sync = (sync, sync);
        let since = network.now();
        let mut number = 1;
        while network.now() < since + 60 * SECOND {
            number += 1;
            decide(&mut network, number, 10 * SECOND);
        }
        assert!(number > 60, "{number} decided");
        assert!(view(&network) <= View(6), "{:?} with delays of {delay} us, syncs of {sync} us", view(&network));
    }
}

#[test]
fn an_entry_shown_to_one_follower_is_told_to_the_leader_before_it_accuses() {
    let mut network = network::<Aphousia>(None);
    for number in 1..200 {
        let frame = network.cluster().frame(number, b"x");
        network.submit(ReplicaId(1), frame.clone(), "");
        let since = network.now();
        while !network.checks.is_decided(&frame.id()) {
            network.run(1_000);
            assert!(network.now() < since + 50_000, "the leader is told in time");
        }
    }
    assert_eq!(view(&network), View(0));
}

/// A network that has decided the first 19 frames.
fn network_at_work() -> Network<Aphousia> {
    let mut network = network(None);
    for number in 1..20 {
        decide(&mut network, number, SECOND);
    }
    network
}

#[test]
fn a_follower_that_was_stopped_accuses_nobody_when_it_goes_on() {
    let mut network = network_at_work();
    for number in 20..60 {
        let frame = network.cluster().frame(number, b"x");
        network.ids().for_each(|id| network.submit(id, frame.clone(), ""));
        network.run(number % 8 * 500);
        network.stop(ReplicaId(1), 100_000 * number);
        network.run(200_000 * number);
    }
    assert_eq!((view(&network), reasons(&network)), (View(0), vec![]));
}

#[test]
fn a_follower_that_has_waited_for_long_before_it_is_stopped_accuses_nobody_either() {
    let mut network = network_at_work();
    for number in 20..60 {
        let frame = network.cluster().frame(number, b"x");
        let hesitates = 70_000 + 2_000 * (number - 20);
        network.stop(LEADER, hesitates);
        network.ids().for_each(|id| network.submit(id, frame.clone(), ""));
        network.run(hesitates + 500);
        [ReplicaId(1), ReplicaId(2)].into_iter().for_each(|follower| network.stop(follower, SECOND));
        network.run(4 * SECOND);
        for follower in [ReplicaId(1), ReplicaId(2)] {
            let complaints = network.instance(follower).unwrap().status().complaints;
            assert_eq!(complaints, Complaints::default(), "{follower:?} after {hesitates} us");
        }
    }
}

#[test]
fn what_clients_show_to_followers_buys_a_dead_leader_no_time() {
    let cluster = Cluster::new(3, 0).with_limits(Limits::default());
    let mut network: Network<Aphousia> = Network::new(cluster, 1, Conditions::CALM);
    network.ids().for_each(|id| network.start(id));
    decide(&mut network, 1, SECOND);
    network.stop(LEADER, 3_600 * SECOND);
    for number in 2..40 {
        let frame = network.cluster().frame(number, &vec![1; 1_500_000]);
        [ReplicaId(1), ReplicaId(2)].into_iter().for_each(|id| network.submit(id, frame.clone(), ""));
    }
    let since = network.now();
    while view(&network) == View(0) {
        network.run(SECOND / 10);
        assert!(network.now() < since + 5 * SECOND, "57 MB would excuse it for 14 s");
    }
}

/// When a follower wishes for another view although something is decided every 40 ms, just never what it waits for.
fn wishes_after<R: Rules>(rules: R) -> Option<u64> {
    let cluster = Cluster::new(3, 0);
    let mut follower = instance(&cluster, rules);
    let waiting = Input::Submit(Verified::own(cluster.frame(1_000, b"ignored")));
    let mut outbox = Vec::new();
    follower.handle(Time { monotonic: 1, wall: SECOND + 1 }, waiting, &mut outbox);
    let mut leads = cluster.register(LEADER, RegisterState::default());
    let mut votes = cluster.register(ReplicaId(1), RegisterState::default());
    let mut parent = cluster.membership().configuration().digest();
    let mut timers = BTreeMap::new();
    for at in (1_000..SECOND).step_by(1_000) {
        let now = Time { monotonic: at, wall: SECOND + at };
        let due: Vec<TimerId> = timers.iter().filter(|(_, due)| **due <= at).map(|(timer, _)| *timer).collect();
        due.into_iter().for_each(|timer| {
            timers.remove(&timer);
            follower.handle(now, Input::Timeout(timer), &mut outbox);
        });
        if at % 40_000 == 0 {
            let (step, height) = (Step(at / 40_000), SequenceNumber(at / 40_000));
            let header = Header { step, height, parent, timestamp: now.timestamp(), ..Header::genesis(Epoch(0)) };
            let block = block(&cluster, header, 10);
            parent = block.hash();
            let vote = block.position();
            let certificate = Some(leads.certify(vote.view, vote.step, vote.hash).unwrap());
            let message = Message::Block(CertifiedBlock { certificate, ..CertifiedBlock::bare(block) });
            let message = Input::Message { from: LEADER, message: Verified::own(message) };
            follower.handle(now, message, &mut outbox);
        }
        while let Some(output) = outbox.pop() {
            match output {
                Output::SetTimer { timer, at: Some(at) } => {
                    timers.insert(timer, at);
                }
                Output::Certify { view, step, hash } => {
                    let answer = RegisterAnswer::Certificate(votes.certify(view, step, hash).unwrap());
                    follower.handle(now, Input::Answered(answer), &mut outbox);
                }
                Output::Broadcast(Message::Wish(_)) => return Some(at),
                _ => {}
            }
        }
    }
    assert!(follower.status().committed > SequenceNumber(20), "it has decided the rest");
    None
}

#[test]
fn what_is_decided_beside_the_oldest_entry_excuses_nobody() {
    assert!(wishes_after(crate::aphousia::Standard).is_some_and(|after| after < 200_000));
    assert_eq!(wishes_after(Planted::AnyDecisionRenews), None);
}

/// Whether a follower wishes for another view within a second of a frame that the leader does not take.
fn wishes_while_waiting(withdrawn: bool) -> bool {
    let cluster = Cluster::new(3, 0);
    let mut follower = instance(&cluster, crate::aphousia::Standard);
    let frame = cluster.frame(1, b"ordered in another frame");
    let mut outbox = Vec::new();
    let at = |monotonic| Time { monotonic, wall: SECOND + monotonic };
    follower.handle(at(1), Input::Submit(Verified::own(frame.clone())), &mut outbox);
    assert_eq!(follower.oldest_waiting().map(|waiting| waiting.id()), Some(frame.id()));
    if withdrawn {
        follower.withdraw(&frame.id());
        assert_eq!(follower.oldest_waiting(), None);
    }
    let mut timers = BTreeMap::new();
    for now in (1_000..SECOND).step_by(1_000) {
        while let Some(output) = outbox.pop() {
            match output {
                Output::SetTimer { timer, at: Some(at) } => drop(timers.insert(timer, at)),
                Output::Broadcast(Message::Wish(_)) => return true,
                _ => {}
            }
        }
        let due: Vec<TimerId> = timers.iter().filter(|(_, due)| **due <= now).map(|(timer, _)| *timer).collect();
        for timer in due {
            timers.remove(&timer);
            follower.handle(at(now), Input::Timeout(timer), &mut outbox);
        }
    }
    false
}

#[test]
fn a_frame_that_is_withdrawn_accuses_nobody() {
    assert!(wishes_while_waiting(false));
    assert!(!wishes_while_waiting(true));
}

/// When a replica wishes for another leader whose decisions come every 40 ms with stamps that are a millisecond apart, far
/// behind its clock.
#[test]
fn time_is_held_back_when_it_was_slow_for_two_whole_windows() {
    let mut follower = instance(&Cluster::new(3, 0), crate::aphousia::Standard);
    let mut outbox = Vec::new();
    let wished = (1..1_000).map(|decision| decision * 40_000).find(|at| {
        let now = Time { monotonic: *at, wall: 100 * SECOND + at };
        follower.time_agreed(now, Timestamp(90 * SECOND + at / 40), *at, &mut outbox);
        outbox.iter().any(|output| matches!(output, Output::Broadcast(Message::Wish(_))))
    });
    let wished = wished.expect("a leader that holds time back is replaced");
    assert!((5 * SECOND..6 * SECOND).contains(&wished), "two windows of 5 D, not {wished} us");
}
