//! The load generator: how many operations per second, and how long each takes, as a client sees it.
//!
//! ```text
//!   closed loop   clients x outstanding callers, each asks again when it has its answer
//!   open loop     a pacer says when each operation is due; latency counts from there, whether or not a caller was free
//! ```
//! The open loop is what users do: they do not wait for each other. So there is no coordinated omission: a pause of the
//! system delays everything that was due in it, and all of that is counted.
//!
//! Also here: what the machine did meanwhile ([`machine`]), since a figure of a disturbed run is worth nothing.

pub mod machine;
pub mod resp;

use hdrhistogram::Histogram;
use serde::Serialize;
use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc};

/// Longest latency that is told apart: what takes longer counts as this.
const LATENCY_MAX_US: u64 = 600_000_000;

/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// Operations of an open loop that may be due and not yet begun. Beyond it they count as errors: the system is so far
/// behind that a later answer would tell nothing new.
const BACKLOG_MAX: usize = 4_000_000;

/// Whoever executes operations.
pub trait Target: Clone + Send + Sync + 'static {
    /// Executes one operation of caller `client`; `seed` is different for each.
    fn call(&self, client: usize, seed: u64) -> impl Future<Output = Result<(), CallError>> + Send;
}

/// An operation that was not executed, or not known to be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct CallError(pub String);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Callers.
    pub clients: usize,
    /// Operations that each has outstanding.
    pub outstanding: usize,
    /// How long.
    pub duration: Duration,
    /// Operations per second of all together; closed loop when `None`.
    pub rate: Option<f64>,
    /// Processes whose CPU time is divided by the operations. None are known: no figure.
    pub measured_pids: Vec<u32>,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figures {
    /// Operations answered per second.
    pub ops_per_s: f64,
    /// Half took at most this.
    pub p50_us: u64,
    /// 99 of 100 took at most this.
    pub p99_us: u64,
    /// User and system time of the measured processes, per operation.
    pub replica_cpu_us_per_op: Option<f64>,
    /// Operations that failed.
    pub errors: u64,
    /// Share of the machine's time that was taken away from it, 0 to 1.
    pub steal: f64,
    /// The first failure, for people.
    #[serde(skip)]
    pub first_error: Option<String>,
}

/// Counts of one run. Only what is answered before the end counts.
struct Tally {
    latencies: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
    ends: Instant,
}

impl Tally {
    fn new(ends: Instant) -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS).expect("constants that fit together");
        Self { latencies, errors: 0, first_error: None, ends }
    }

    fn count(&mut self, began: Instant, result: Result<(), CallError>) {
        let now = Instant::now();
        match result {
            Ok(()) if now <= self.ends => {
                let latency = u64::try_from((now - began).as_micros()).unwrap_or(u64::MAX);
                self.latencies.saturating_record(latency.max(1));
            }
            Ok(()) => {}
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert(error.0);
            }
        }
    }
}

type Shared = Arc<Mutex<Tally>>;

fn lock(tally: &Shared) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `plan` against `target`.
pub async fn run(target: impl Target, plan: &Plan) -> Figures {
    let machine_before = machine::MachineTime::now();
    let cpu_before = machine::cpu_time(&plan.measured_pids);
    let began = Instant::now();
    let tally = Arc::new(Mutex::new(Tally::new(began + plan.duration)));
    match plan.rate {
        None => closed_loop(target, plan, &tally).await,
        Some(rate) => open_loop(target, plan, rate, &tally).await,
    }
    let seconds = began.elapsed().min(plan.duration).as_secs_f64();
    let cpu_after = machine::cpu_time(&plan.measured_pids);
    let steal = machine::MachineTime::now().steal_since(&machine_before);
    let tally = lock(&tally);
    let operations = tally.latencies.len();
    let cpu_us = cpu_before.zip(cpu_after).map(|(before, after)| after.saturating_sub(before).as_secs_f64() * 1e6);
    Figures {
        ops_per_s: round(operations as f64 / seconds),
        p50_us: tally.latencies.value_at_quantile(0.5),
        p99_us: tally.latencies.value_at_quantile(0.99),
        replica_cpu_us_per_op: cpu_us.filter(|_| operations > 0).map(|us| round(us / operations as f64)),
        errors: tally.errors,
        steal: (steal * 1e4).round() / 1e4,
        first_error: tally.first_error.clone(),
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

async fn closed_loop(target: impl Target, plan: &Plan, tally: &Shared) {
    let ends = lock(tally).ends;
    let callers = (plan.clients * plan.outstanding) as u64;
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let (target, tally) = (target.clone(), tally.clone());
        let client = caller as usize % plan.clients;
        tasks.spawn(async move {
            let mut seed = caller;
            while Instant::now() < ends {
                let began = Instant::now();
                let result = target.call(client, seed).await;
                let failed = result.is_err();
                lock(&tally).count(began, result);
                if failed {
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
                seed += callers;
            }
        });
    }
    // An operation that is never answered shall not keep the run from ending.
    let all = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout_at((ends + GRACE).into(), all).await;
}

/// A caller that was refused does not ask again at once.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// How long after its end a run waits for what is outstanding. Unanswered then: an error.
const GRACE: Duration = Duration::from_secs(5);

async fn open_loop(target: impl Target, plan: &Plan, rate: f64, tally: &Shared) {
    let callers = plan.clients * plan.outstanding;
    let free = Arc::new(Semaphore::new(callers));
    let mut due = pacer(rate, plan.duration);
    let mut seed = 0;
    while let Some(intended) = due.recv().await {
        if due.len() > BACKLOG_MAX {
            lock(tally).count(intended, Err(CallError("too far behind the rate".into())));
            seed += 1;
            continue;
        }
        let Ok(permit) = free.clone().acquire_owned().await else { return };
        let (target, counts, clients) = (target.clone(), tally.clone(), plan.clients);
        tokio::spawn(async move {
            let result = target.call(seed as usize % clients, seed).await;
            lock(&counts).count(intended, result);
            drop(permit);
        });
        seed += 1;
        if Instant::now() > lock(tally).ends {
            break;
        }
    }
    // What was due within the run and not even begun, because everything before it took so long.
    let unbegun = operations_due(rate, plan.duration).saturating_sub(seed);
    let ends = lock(tally).ends;
    let all = u32::try_from(callers).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout_at((ends + GRACE).into(), free.acquire_many(all)).await;
    if unbegun > 0 {
        let mut tally = lock(tally);
        tally.errors += unbegun;
        tally.first_error.get_or_insert_with(|| format!("{unbegun} operations were due and never begun"));
    }
}

/// How many operations an open loop has.
fn operations_due(rate: f64, duration: Duration) -> u64 {
    (rate * duration.as_secs_f64()).ceil() as u64
}

/// Says when operations are due. A thread of its own: the runtime's timers count in milliseconds.
fn pacer(rate: f64, duration: Duration) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let began = Instant::now();
        for index in 0..operations_due(rate, duration) {
            let intended = began + Duration::from_secs_f64(index as f64 / rate);
            let wait = intended.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
            if sender.send(intended).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What the upper bits of a seed say when the bits below it are a size: seeds drawn at random, as tests draw them, have
/// it once in 65 536 times.
const SIZED: u64 = 0x51ed;
const SIZED_SHIFT: u32 = 48;
const SIZE_SHIFT: u32 = 20;
const SIZE_MAX: u64 = (1 << (SIZED_SHIFT - SIZE_SHIFT)) - 1;

/// The seed by which a load generator asks a service's `sample_operation` for an operation that carries `size` bytes.
/// A service that cannot make its operations larger or smaller takes all of it as a seed.
///
/// ```text
///   mark 16 | size 28 | random 20
/// ```
#[must_use]
pub fn sized_seed(seed: u64, size: usize) -> u64 {
    let size = u64::try_from(size).unwrap_or(SIZE_MAX).min(SIZE_MAX);
    (SIZED << SIZED_SHIFT) | (size << SIZE_SHIFT) | (seed & ((1 << SIZE_SHIFT) - 1))
}

/// How many bytes an operation made from this seed shall carry; 0: as the service likes.
#[must_use]
pub fn size_of_seed(seed: u64) -> usize {
    if seed >> SIZED_SHIFT != SIZED {
        return 0;
    }
    usize::try_from((seed >> SIZE_SHIFT) & SIZE_MAX).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Answers at once, but refuses every tenth and is silent between two moments.
    #[derive(Clone, Default)]
    struct Played {
        calls: Arc<AtomicU64>,
        fails: bool,
        silent_until: Option<Instant>,
    }

    impl Target for Played {
        async fn call(&self, _client: usize, _seed: u64) -> Result<(), CallError> {
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            if let Some(until) = self.silent_until {
                tokio::time::sleep_until(until.into()).await;
            }
            tokio::task::yield_now().await;
            if self.fails && call % 10 == 9 { Err(CallError("refused".into())) } else { Ok(()) }
        }
    }

    fn plan(rate: Option<f64>) -> Plan {
        let duration = Duration::from_millis(200);
        Plan { clients: 4, outstanding: 2, duration, rate, measured_pids: vec![std::process::id()] }
    }

    #[tokio::test]
    async fn a_closed_loop_counts_what_was_answered_and_what_failed() {
        let target = Played { fails: true, ..Played::default() };
        let figures = run(target.clone(), &plan(None)).await;
        let calls = target.calls.load(Ordering::Relaxed);
        assert!(figures.ops_per_s > 0.0 && figures.errors > 0, "{figures:?}");
        assert!(figures.errors <= calls / 10 + 1, "{figures:?} of {calls}");
        assert_eq!(figures.first_error.as_deref(), Some("refused"));
        assert!((0.0..=1.0).contains(&figures.steal), "{figures:?}");
        assert!(figures.replica_cpu_us_per_op.is_some(), "this process can be measured");
    }

    #[tokio::test]
    async fn an_open_loop_keeps_its_rate() {
        let target = Played::default();
        let figures = run(target.clone(), &plan(Some(500.0))).await;
        // 500 per second for 200 ms: each is begun, or counted as an error if the machine was too slow for it.
        assert_eq!(target.calls.load(Ordering::Relaxed) + figures.errors, 100);
    }

    #[tokio::test]
    async fn a_pause_delays_everything_that_was_due_in_it() {
        let silent_until = Some(Instant::now() + Duration::from_millis(150));
        let figures = run(Played { silent_until, ..Played::default() }, &plan(Some(1000.0))).await;
        // Eight callers hang in the pause. A closed loop would count eight slow operations; here all that were due in
        // the 150 ms are slow, the median among them.
        assert!(figures.p50_us > 10_000, "{figures:?}");
    }

    #[test]
    fn a_seed_says_how_large_an_operation_shall_be() {
        let seed = sized_seed(u64::MAX - 1, 100);
        assert_eq!(size_of_seed(seed), 100);
        assert_ne!(seed, sized_seed(1, 100));
        assert_eq!(size_of_seed(7), 0);
        assert_eq!(size_of_seed(u64::MAX), 0, "a seed that nobody made for a size");
    }

    #[test]
    fn figures_print_the_fixed_names() {
        let figures = Figures {
            ops_per_s: 1.5,
            p50_us: 2,
            p99_us: 3,
            replica_cpu_us_per_op: None,
            errors: 0,
            steal: 0.25,
            first_error: Some("not shown".into()),
        };
        assert_eq!(
            serde_json::to_string(&figures).unwrap(),
            r#"{"ops_per_s":1.5,"p50_us":2,"p99_us":3,"replica_cpu_us_per_op":null,"errors":0,"steal":0.25}"#
        );
    }
}
