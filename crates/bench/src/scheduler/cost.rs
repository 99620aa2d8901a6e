//! What the scheduler itself costs: a pair of lock and unlock, a handler, and a pair beside many others. In line, in CPU
//! time of the calling thread, so that others on the machine disturb little.

use super::real::decisions;
use crate::results::{Row, quantile};
use serde::Serialize;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Mutex as StdMutex, PoisonError};
use unisono_execution::{
    Bytes, Context, Done, Executor, Mutex, Objects, Service, Settings, State, UnknownOperation, Work,
};
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{Order, Parameters};

/// Pairs of one handler that does nothing else.
const PAIRS: usize = 1_000;

/// Handlers of a run.
const HANDLERS: usize = 1_000;
const EMPTY_HANDLERS: usize = 50_000;

/// Pairs of one handler beside many primaries: as many as it has steps.
const STEPS: u32 = 4;

/// How many primaries there are beside it.
const PRIMARIES: [usize; 3] = [16, 256, 4_096];

/// One for each of the most primaries.
const LOCKS: usize = 4_096;

/// Threads that wait for ever.
const PARKED: usize = 10_000;

/// Medians, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cost {
    lock_pair_ns: f64,
    plain_pair_ns: f64,
    ratio: f64,
    empty_handler_ns: f64,
    /// A pair by the number of primaries, and with 10 000 parked threads beside 256.
    lock_pair_among_ns: BTreeMap<String, f64>,
    /// Greatest over least of these.
    among_ratio: f64,
    #[serde(skip)]
    runs: Vec<[f64; 4]>,
}

pub(super) fn measure(runs: usize, small: bool) -> Cost {
    let shrink = if small { 10 } else { 1 };
    let mut all: Vec<[f64; 4]> = Vec::new();
    let mut among: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..runs.max(1) {
        let empty = handler_ns(&unlimited(), 0, &Ask::Empty, EMPTY_HANDLERS / shrink);
        let pair = |ask: &Ask| ((handler_ns(&unlimited(), 0, ask, HANDLERS / shrink) - empty) / PAIRS as f64).max(0.0);
        let (lock, plain) = (pair(&Ask::Pairs(PAIRS as u32)), pair(&Ask::PlainPairs(PAIRS as u32)));
        all.push([lock, plain, lock / plain.max(0.1), empty]);
        let crowds = PRIMARIES.map(|primaries| (primaries, 0)).into_iter().chain([(256, PARKED)]);
        for (primaries, parked) in crowds.filter(|(primaries, parked)| !small || primaries + parked < 1_000) {
            let parameters = Parameters { primaries: primaries as u32, steps: STEPS, ..Parameters::uds() };
            let count = (16 * primaries).max(20_000 / shrink);
            let with = handler_ns(&parameters, parked, &Ask::Pairs(STEPS), count);
            let without = handler_ns(&parameters, parked, &Ask::Empty, count);
            let name = if parked == 0 { format!("{primaries}") } else { format!("{primaries}, {parked} parked") };
            among.entry(name).or_default().push((with - without) / f64::from(STEPS));
        }
    }
    let median = |index: usize| rounded(&all.iter().map(|run| run[index]).collect::<Vec<_>>());
    let among: BTreeMap<String, f64> = among.into_iter().map(|(name, values)| (name, rounded(&values))).collect();
    let (least, greatest) =
        among.values().fold((f64::MAX, 0.0_f64), |(least, greatest), value| (least.min(*value), greatest.max(*value)));
    Cost {
        lock_pair_ns: median(0),
        plain_pair_ns: median(1),
        ratio: median(2),
        empty_handler_ns: median(3),
        lock_pair_among_ns: among,
        among_ratio: super::hundredths(greatest / least.max(0.1)),
        runs: all,
    }
}

fn rounded(values: &[f64]) -> f64 {
    super::hundredths(quantile(&mut values.to_vec(), 0.5))
}

impl Cost {
    pub(super) fn print(&self) {
        println!(
            "a pair of lock and unlock {} ns, plain {} ns, ratio {} (goal <= 2); an empty handler {} ns (goal <= 500)",
            self.lock_pair_ns, self.plain_pair_ns, self.ratio, self.empty_handler_ns
        );
        println!(
            "a pair among so many primaries: {:?} ns, ratio {} (goal <= 1.5)",
            self.lock_pair_among_ns, self.among_ratio
        );
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        let of = |index: usize| self.runs.iter().map(|run| run[index]).collect::<Vec<_>>();
        let mut rows = vec![
            Row::new("a pair of lock and unlock", "ns", None, &of(0), 0.0),
            Row::new("a pair of lock and unlock, plain mutex", "ns", None, &of(1), 0.0),
            Row::new("a pair of lock and unlock over a plain one", "x", Some("<= 2"), &of(2), 0.0),
            Row::new("an empty handler", "ns", Some("<= 500"), &of(3), 0.0),
        ];
        for (name, value) in &self.lock_pair_among_ns {
            rows.push(Row::new(
                &format!("a pair of lock and unlock among {name} primaries"),
                "ns",
                None,
                &[*value],
                0.0,
            ));
        }
        let ratio = [self.among_ratio];
        rows.push(Row::new("a pair among many primaries, dearest over cheapest", "x", Some("<= 1.5"), &ratio, 0.0));
        rows
    }
}

/// One thread holds its turn as long as it likes.
fn unlimited() -> Parameters {
    Parameters { primaries: 16, steps: u32::MAX, order: Order::Quantum(u32::MAX), ..Parameters::uds() }
}

/// What a handler of this harness does.
enum Ask {
    Empty,
    /// On a lock of its own.
    Pairs(u32),
    /// On a mutex of the standard library.
    PlainPairs(u32),
    /// Waits for ever.
    Park,
}

impl Ask {
    /// The bytes: kind, how often, which lock.
    fn operation(&self, place: usize) -> Bytes {
        let (kind, count) = match self {
            Self::Empty => (0, 0),
            Self::Pairs(count) => (1, *count),
            Self::PlainPairs(count) => (2, *count),
            Self::Park => (3, 0),
        };
        let mut bytes = vec![kind];
        bytes.extend(count.to_le_bytes());
        bytes.extend((place as u32).to_le_bytes());
        bytes.into()
    }
}

/// The service.
struct Harness {
    own: [Mutex<u64>; LOCKS],
    parking: Mutex<u64>,
}

static PLAIN: StdMutex<u64> = StdMutex::new(0);

impl State for Harness {
    fn create(objects: &mut Objects, name: &str) -> Self {
        Self {
            own: State::create(objects, &Objects::path(name, "own")),
            parking: State::create(objects, &Objects::path(name, "parking")),
        }
    }
}

impl Service for Harness {
    async fn execute<'a>(&'a self, cx: &'a Context, operation: &'a [u8]) -> Result<Vec<u8>, UnknownOperation> {
        let [kind, c0, c1, c2, c3, place @ ..] = operation else { return Err(UnknownOperation) };
        let count = u32::from_le_bytes([*c0, *c1, *c2, *c3]);
        let place = u32::from_le_bytes(place.try_into().map_err(|_| UnknownOperation)?);
        match kind {
            1 => {
                let own = self.own.get(place as usize).ok_or(UnknownOperation)?;
                for _ in 0..count {
                    own.lock(cx).await.with_mut(1, |total, by| *total += by);
                }
            }
            2 => {
                for _ in 0..count {
                    *black_box(&PLAIN).lock().unwrap_or_else(PoisonError::into_inner) += black_box(1);
                }
            }
            3 => drop(self.parking.lock(cx).await.wait(0).await),
            _ => {}
        }
        Ok(Vec::new())
    }

    fn handler(_: &[u8]) -> &'static str {
        "cost"
    }
}

/// CPU time of a handler in line, in nanoseconds, with so many parked threads there.
fn handler_ns(parameters: &Parameters, parked: usize, ask: &Ask, count: usize) -> f64 {
    let scheduler = Box::new(Uds::new(parameters.clone()));
    let executor = Executor::new::<Harness>(scheduler, Settings { workers: 0, ..Settings::default() });
    // Each lock is used by one handler of a round.
    let locks = parameters.primaries as usize;
    let parking = (0..parked).map(|_| Ask::Park.operation(0));
    let operations: Vec<Bytes> = parking.chain((0..count).map(|place| ask.operation(place % locks))).collect();
    let mut decisions = decisions(&operations);
    let measured = decisions.split_off(parked.div_ceil(super::real::DECISION));
    let mut done = Vec::new();
    let mut ended = 0;
    let mut pass = |works: Vec<Work>| {
        executor.submit_all(works);
        executor.run_until_idle();
        executor.take_done(&mut done);
        ended += done.drain(..).filter(|done| matches!(done, Done::Executed { outcome: Ok(_), .. })).count();
    };
    decisions.into_iter().for_each(&mut pass);
    let begun = thread_ns();
    measured.into_iter().for_each(&mut pass);
    let nanoseconds = thread_ns() - begun;
    assert!(ended + 2 * locks + super::real::DECISION > count, "all but the last rounds' handlers have ended: {ended}");
    nanoseconds as f64 / count as f64
}

/// What this thread has spent on its core.
fn thread_ns() -> u64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}
