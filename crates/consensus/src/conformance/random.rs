//! Chance from a seed, and a whole run made of it: trouble for a while, then healing, then progress is demanded.

use super::{Behaviour, Cluster, Conditions, Network, Subject, Violation};
use std::{collections::BTreeSet, vec::Vec};
use unisono_types::{Digest, ReplicaId, SequenceNumber};

/// SplitMix64: small, fast, the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, 0 when `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// A number of `least..=most`.
    pub const fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// True in `per_mille` of 1000 cases.
    pub const fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }
}

/// Between two looks at agreed time.
const TIME_MICROS: u64 = 1_000_000;

/// For so long each message takes some seconds.
const FAR_MICROS: u64 = 120_000_000;
/// Within this time after it everything is decided.
const CALM_MICROS: u64 = 30_000_000;

/// What a run may contain.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Replicas, at least and at most.
    pub members: (u16, u16),
    /// Steps per leader; `None`: drawn per seed.
    pub rotation: Option<u64>,
    /// Whether up to f replicas lie.
    pub liars: bool,
    /// Which variant of its algorithm the subject runs, where it has some: planted bugs.
    pub variant: usize,
    /// Microseconds of trouble.
    pub trouble_micros: u64,
    /// Whether to print what happened, line by line.
    pub trace: bool,
    /// Microseconds within which, after healing, everything must be decided everywhere.
    pub progress_micros: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            members: (1, 7),
            rotation: None,
            liars: true,
            variant: 0,
            trace: false,
            trouble_micros: 3_000_000,
            progress_micros: 10_000_000,
        }
    }
}

/// What a run contained: a test that saw no trouble proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Decisions.
    pub decisions: u64,
    /// Frames submitted.
    pub frames: u64,
    /// Crashes.
    pub crashes: u64,
    /// Cut links.
    pub cuts: u64,
    /// Times that clocks were set.
    pub clocks: u64,
    /// Whether messages took seconds for a while.
    pub far: u64,
    /// Liars.
    pub liars: u64,
    /// Replicas that were suspected on evidence.
    pub suspected: u64,
    /// The greatest view.
    pub view: u64,
}

/// One run, all of it drawn from `seed`.
///
/// # Errors
/// The first promise that was broken; liveness is checked after healing.
pub fn run_seed<S: Subject>(seed: u64, options: &RunOptions) -> Result<Report, Violation> {
    let mut random = Random::new(seed);
    let members = random.between(options.members.0.into(), options.members.1.into()) as u16;
    let rotation = options.rotation.unwrap_or_else(|| [0, 0, 1, 3][random.below(4) as usize]);
    let delay_most = [300, 2_000, 30_000][random.below(3) as usize];
    let trouble = Conditions {
        loss: [0, 10, 100, 300][random.below(4) as usize],
        duplication: [0, 100, 500][random.below(3) as usize],
        delay: (50, delay_most),
        sync: (100, [500, 5_000, 60_000][random.below(3) as usize]),
        bandwidth: 0,
    };
    let cluster = Cluster::new(members, rotation).of_variant(options.variant);
    let mut network: Network<S> = Network::new(cluster, random.next(), trouble);
    network.checkpoint_interval = [0, 5, 40][random.below(3) as usize];
    let correct = network.ids().collect();
    let mut run = Run { report: Report::default(), correct, awaited: Vec::new(), number: 0, wrong: None };
    run.choose_liars(&mut network, &mut random, options);
    if options.trace {
        network.trace = Some(Vec::new());
        println!("{members} members, rotation {rotation}, {trouble:?}, correct {:?}", run.correct);
    }
    let verdict = run.play(&mut network, &mut random, options);
    network.trace.iter().flatten().for_each(|line| println!("{line}"));
    verdict?;
    run.report.decisions = network.checks.height().0;
    run.report.suspected = network.suspected.len() as u64;
    let views = network.ids().filter_map(|id| network.instance(id).map(|instance| instance.status().view.view().0));
    run.report.view = views.max().unwrap_or(0).into();
    Ok(run.report)
}

/// Messages that take this long: from one end of trouble to the other, and beyond what time-outs start with.
const FAR: Conditions =
    Conditions { loss: 0, duplication: 0, delay: (4_000_000, 6_000_000), sync: (100, 5_000), bandwidth: 0 };

struct Run {
    report: Report,
    correct: BTreeSet<ReplicaId>,
    /// Frames that some correct replica holds and did not lose by a crash.
    awaited: Vec<(ReplicaId, Digest)>,
    number: u64,
    /// The one replica whose clock may be far off, and by how much it is.
    wrong: Option<(ReplicaId, i64)>,
}

impl Run {
    fn play<S: Subject>(
        &mut self,
        network: &mut Network<S>,
        random: &mut Random,
        options: &RunOptions,
    ) -> Result<(), Violation> {
        network.ids().for_each(|id| network.start(id));
        let end = network.now() + options.trouble_micros;
        while network.now() < end {
            self.make_trouble(network, random);
            network.run(random.between(100, 40_000));
            network.verdict()?;
        }
        self.heal(network);
        if random.chance(60) {
            self.report.far += 1;
            self.demand_progress_after_distance(network, options)?;
        }
        self.demand_progress(network, options)?;
        self.demand_time(network, options)
    }

    fn choose_liars<S: Subject>(&mut self, network: &mut Network<S>, random: &mut Random, options: &RunOptions) {
        let faulty = network.cluster().membership().quorum().faulty() as u64;
        let count = if options.liars { random.below(faulty + 1) } else { 0 };
        while self.report.liars < count {
            let id = ReplicaId(random.below(network.cluster().membership().len() as u64) as u16);
            if self.correct.remove(&id) {
                let behaviours = [
                    Behaviour::Silent,
                    Behaviour::Equivocating,
                    Behaviour::Corrupting,
                    Behaviour::Replaying,
                    Behaviour::Slow,
                ];
                network.set_behaviour(id, behaviours[random.below(5) as usize]);
                self.report.liars += 1;
            }
        }
        for id in network.ids() {
            if random.chance(300) {
                network.set_skew(id, random.below(400_000) as i64);
            }
        }
    }

    /// All clocks are set together, or, in other runs, one is wrong for a while: who restarts forgets what its clock was,
    /// and with both, some correct replicas would vote for the wrong one's time and others wait as long as the step.
    /// All of them step forward by little for the same reason.
    fn set_clocks<S: Subject>(&mut self, network: &mut Network<S>, random: &mut Random) {
        let step = [-600_000_000, -60_000_000, -5_000_000, 1_000_000][random.below(4) as usize];
        let faulty = network.cluster().membership().quorum().faulty() as u64;
        self.report.clocks += 1;
        let may_be_wrong = self.report.liars < faulty && (self.wrong.is_some() || self.report.clocks == 1);
        if !may_be_wrong || (self.wrong.is_none() && random.chance(500)) {
            network.ids().for_each(|id| network.set_clock(id, step));
            return;
        }
        // A clock that is far off counts as a fault, and so does one that was: what was voted for by it stays.
        let members = network.cluster().membership().len() as u64;
        let (id, before) = self.wrong.unwrap_or((ReplicaId(random.below(members) as u16), 0));
        let step = [0, step, 600_000_000][random.below(3) as usize];
        network.set_clock(id, step - before);
        self.wrong = Some((id, step));
    }

    fn submit<S: Subject>(&mut self, network: &mut Network<S>, to: ReplicaId, bytes: usize) {
        self.number += 1;
        let frame = network.cluster().frame(self.number, &vec![7; bytes]);
        if self.correct.contains(&to) && network.is_up(to) {
            self.awaited.push((to, frame.id()));
        }
        network.submit(to, frame, "");
        self.report.frames += 1;
    }

    fn make_trouble<S: Subject>(&mut self, network: &mut Network<S>, random: &mut Random) {
        let members = network.cluster().membership().len() as u64;
        let any = |random: &mut Random| ReplicaId(random.below(members) as u16);
        match random.below(20) {
            0..=11 => {
                let to = any(random);
                for _ in 0..random.between(1, 5) {
                    // Small enough that nothing waiting is dropped for want of room, now and then a block's worth.
                    let bytes = if random.chance(30) { 4_000 } else { random.between(1, 200) };
                    self.submit(network, to, bytes as usize);
                }
            }
            12 | 13 => {
                let (a, b) = (any(random), any(random));
                network.cut(a, b);
                self.report.cuts += 1;
            }
            14 | 15 => network.mend(),
            16 => {
                let id = any(random);
                if network.is_up(id) {
                    network.crash(id);
                    // What was only in its memory is the client's to send again, elsewhere.
                    self.awaited.retain(|(to, _)| *to != id);
                    self.report.crashes += 1;
                    if random.chance(700) {
                        network.tell_link(id, false);
                    }
                }
            }
            17 | 18 => {
                for id in network.ids() {
                    if random.chance(600) && !network.is_up(id) {
                        network.start(id);
                        network.tell_link(id, true);
                    }
                }
            }
            // Before the first decision there is no agreed time that could go on.
            _ if random.chance(500) && network.checks.height() > SequenceNumber(0) => self.set_clocks(network, random),
            _ => {
                let step = random.below(400_000) as i64 - 200_000;
                network.set_clock(any(random), step);
            }
        }
    }

    fn heal<S: Subject>(&mut self, network: &mut Network<S>) {
        network.mend();
        network.conditions =
            Conditions { loss: 0, duplication: 0, delay: (50, 2_000), sync: (100, 5_000), bandwidth: 0 };
        for id in network.ids() {
            network.start(id);
            network.tell_link(id, true);
        }
        // Every correct replica is told something new, so that nobody is excused by having nothing to do.
        for id in self.correct.clone() {
            self.submit(network, id, 10);
        }
    }

    fn demand_progress<S: Subject>(&self, network: &mut Network<S>, options: &RunOptions) -> Result<(), Violation> {
        let end = network.now() + options.progress_micros;
        loop {
            network.run(50_000);
            network.verdict()?;
            let height: SequenceNumber = network.checks.height();
            let behind = self.correct.iter().find(|id| network.checks.height_of(**id) < height);
            let waiting = self.awaited.iter().find(|(_, frame)| !network.checks.is_decided(frame));
            if behind.is_none() && waiting.is_none() {
                return Ok(());
            }
            if network.now() >= end {
                let heights: Vec<_> = self.correct.iter().map(|id| (*id, network.checks.height_of(*id))).collect();
                return Err(Violation(format!("liveness: {heights:?}, undecided {waiting:?}")));
            }
        }
    }

    /// Messages are on their way for seconds; when that is over, things are soon decided at the usual pace.
    fn demand_progress_after_distance<S: Subject>(
        &mut self,
        network: &mut Network<S>,
        options: &RunOptions,
    ) -> Result<(), Violation> {
        let calm = std::mem::replace(&mut network.conditions, FAR);
        network.run(FAR_MICROS);
        network.conditions = calm;
        self.correct.clone().into_iter().for_each(|id| self.submit(network, id, 10));
        self.demand_progress(network, &RunOptions { progress_micros: CALM_MICROS, ..*options })
    }

    /// Wherever the clocks were set, agreed time must go on: at a quarter of the speed of clocks at least.
    fn demand_time<S: Subject>(&mut self, network: &mut Network<S>, options: &RunOptions) -> Result<(), Violation> {
        let (from, since) = (network.agreed_time(), network.now());
        // A first decision may say only how far time has come; what counts is where it is later.
        for _ in 0..2 {
            network.run(TIME_MICROS);
            self.correct.clone().into_iter().for_each(|id| self.submit(network, id, 10));
            self.demand_progress(network, options)?;
        }
        let advanced = network.agreed_time().0 - from.0;
        let elapsed = network.now() - since;
        if advanced < elapsed / 5 {
            return Err(Violation(format!("agreed time advances by {advanced} us in {elapsed} us")));
        }
        Ok(())
    }
}
