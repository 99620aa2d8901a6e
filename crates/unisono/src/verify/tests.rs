//! Most tests are the workers themselves, so what is served in which order is counted, not timed.

use super::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Who {
    Peer(u8),
    Client(u8),
}
use Who::{Client, Peer};

impl Source for Who {
    type Account = Self;

    fn account(&self) -> Self {
        *self
    }

    fn class(account: Self) -> Class {
        match account {
            Peer(_) => Class::Peer,
            Client(_) => Class::Client,
        }
    }
}

const FEW: Cost = Cost::Signatures(1);
/// Too many for the caller.
const MANY: Cost = Cost::Signatures(HERE_MAX + 1);

/// An item is the microseconds that its check takes on the clock of the test.
struct Bench {
    verifier: Verifier<Who, u64, u64>,
    clock: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let (spend, tell) = (Arc::clone(&clock), Arc::clone(&clock));
        let check = move |item| {
            spend.fetch_add(item, Ordering::Relaxed);
            item
        };
        let tell = move || Duration::from_micros(tell.load(Ordering::Relaxed));
        Self { verifier: Verifier::idle(check, tell, || ()), clock }
    }

    fn queue(&mut self, source: Who, item: u64) {
        assert_eq!(self.verifier.submit(source, item, MANY), None);
    }

    /// One check by a worker; whose it was.
    fn serve(&self) -> Option<Who> {
        let shared = &self.verifier.shared;
        let mut state = shared.lock();
        let job = state.pick(false)?;
        let source = job.0;
        drop(shared.run(state, job));
        Some(source)
    }

    fn taken(&mut self) -> Vec<(Who, u64)> {
        let mut outcomes = Vec::new();
        self.verifier.take(&mut outcomes);
        outcomes.into_iter().map(|(source, outcome)| (source, outcome.unwrap())).collect()
    }
}

#[test]
fn a_flood_delays_another_source_by_one_check() {
    let mut bench = Bench::new();
    (0..1000).for_each(|_| bench.queue(Peer(1), 5_000));
    (0..10).for_each(|_| assert!(bench.serve().is_some()));
    bench.queue(Peer(2), 100);
    assert_eq!(bench.serve(), Some(Peer(2)), "it has been served less");
    // From there on by time, not by number: fifty checks of 100 us for one of 5 ms.
    (0..200).for_each(|_| bench.queue(Peer(2), 100));
    let served: Vec<_> = (0..102).map(|_| bench.serve().unwrap()).collect();
    assert_eq!(served.iter().filter(|source| **source == Peer(1)).count(), 2, "{served:?}");
}

#[test]
fn an_idle_source_saves_nothing_up() {
    let mut bench = Bench::new();
    (0..1000).for_each(|_| bench.queue(Peer(1), 1000));
    (0..500).for_each(|_| assert!(bench.serve().is_some()));
    (0..500).for_each(|_| bench.queue(Peer(2), 1000));
    let others = (0..10).filter(|_| bench.serve() == Some(Peer(1))).count();
    assert!((4..=6).contains(&others), "{others}");
}

#[test]
fn clients_however_many_take_half_of_what_peers_want() {
    let mut bench = Bench::new();
    for client in 0..100 {
        (0..10).for_each(|_| bench.queue(Client(client), 1000));
    }
    (0..10).for_each(|_| assert!(bench.serve().is_some()));
    (0..100).for_each(|_| bench.queue(Peer(1), 1000));
    let peer = (0..20).filter(|_| bench.serve() == Some(Peer(1))).count();
    assert!((9..=11).contains(&peer), "{peer}");
}

#[test]
fn the_caller_checks_little_itself_and_a_flood_leaves_it_most_of_its_time() {
    let mut bench = Bench::new();
    assert_eq!(bench.verifier.submit(Peer(1), 50, FEW), Some(Ok(50)));
    // A second of a flood that is served at once: the burst, and 30 % of the second.
    let mut here = 0;
    while bench.clock.load(Ordering::Relaxed) < 1_000_000 {
        match bench.verifier.submit(Peer(1), 50, FEW) {
            Some(_) => here += 50,
            None => {
                // Elsewhere: the caller's time passes meanwhile.
                bench.serve();
                bench.taken();
            }
        }
    }
    assert!((300_000..330_000).contains(&here), "{here}");
    assert_eq!(bench.verifier.submit(Peer(2), 50, FEW), Some(Ok(50)), "each has its own credit");
    assert_eq!(bench.verifier.submit(Client(2), 50, FEW), Some(Ok(50)));
}

#[test]
fn many_sources_of_a_class_share_what_the_class_is_lent() {
    let mut bench = Bench::new();
    let mut here = 0;
    while bench.clock.load(Ordering::Relaxed) < 1_000_000 {
        for client in 0..100 {
            match bench.verifier.submit(Client(client), 50, FEW) {
                Some(_) => here += 50,
                None => {
                    bench.serve();
                    bench.taken();
                }
            }
        }
    }
    assert!((500_000..560_000).contains(&here), "{here}");
    assert_eq!(bench.verifier.submit(Peer(1), 50, FEW), Some(Ok(50)), "peers have credit of their own");
}

#[test]
fn nothing_overtakes_what_its_source_sent_before() {
    let mut bench = Bench::new();
    bench.queue(Peer(1), 7);
    assert_eq!(bench.verifier.submit(Peer(1), 1, FEW), None, "behind what is queued");
    assert_eq!(bench.verifier.submit(Peer(2), 2, FEW), Some(Ok(2)), "others are not");
    assert_eq!((bench.serve(), bench.serve(), bench.serve()), (Some(Peer(1)), Some(Peer(1)), None));
    assert_eq!(bench.verifier.submit(Peer(1), 3, FEW), None, "behind a result that was not taken");
    assert_eq!(bench.taken(), [(Peer(1), 7), (Peer(1), 1)]);
    bench.serve();
    assert_eq!(bench.taken(), [(Peer(1), 3)]);
    assert_eq!(bench.verifier.submit(Peer(1), 4, FEW), Some(Ok(4)));
    assert_eq!(bench.verifier.outstanding(), 0);
}

#[test]
fn what_became_stale_is_forgotten_before_it_is_checked() {
    let mut bench = Bench::new();
    (0..10).for_each(|item| bench.queue(Peer(1), item));
    (0..10).for_each(|item| bench.queue(Client(1), item));
    bench.verifier.retain(|source, item| source == Peer(1) && item % 5 == 0);
    assert_eq!(bench.verifier.outstanding(), 2);
    while bench.serve().is_some() {}
    assert_eq!(bench.taken(), [(Peer(1), 0), (Peer(1), 5)]);
    assert_eq!(bench.verifier.submit(Client(1), 1, FEW), Some(Ok(1)), "nothing of it waits any more");
}

#[test]
fn the_worker_for_short_checks_leaves_long_ones_to_the_others() {
    let mut bench = Bench::new();
    bench.verifier.submit(Peer(1), 1, Cost::Long);
    bench.verifier.submit(Peer(2), 2, Cost::Signatures(SHORT_MAX + 1));
    bench.verifier.submit(Peer(3), 3, MANY);
    let mut state = bench.verifier.shared.lock();
    assert_eq!(state.pick(true).map(|job| job.0), Some(Peer(3)));
    assert_eq!(state.pick(true).map(|job| job.0), None);
    assert_eq!(state.pick(false).map(|job| job.0), Some(Peer(1)));
}

type Closure = Box<dyn FnOnce() -> u8 + Send>;

/// A verifier with threads whose items are closures, and its notices.
fn threads() -> (Verifier<Who, Closure, u8>, mpsc::Receiver<()>) {
    let (sender, notices) = mpsc::channel();
    let start = std::time::Instant::now();
    let check = |item: Closure| item();
    // The test may have ended.
    let notify = move || sender.send(()).unwrap_or_default();
    (Verifier::new(1, check, move || start.elapsed(), notify).unwrap(), notices)
}

#[test]
fn results_come_in_order_from_threads_and_each_batch_is_announced() {
    let (mut verifier, notices) = threads();
    for item in 0..100u8 {
        for source in [Peer(1), Peer(2), Client(1)] {
            assert_eq!(verifier.submit(source, Box::new(move || item), MANY), None);
        }
    }
    let mut outcomes = Vec::new();
    while outcomes.len() < 300 {
        notices.recv().unwrap();
        verifier.take(&mut outcomes);
    }
    for source in [Peer(1), Peer(2), Client(1)] {
        let of: Vec<_> = outcomes.iter().filter(|(from, _)| *from == source).map(|(_, item)| item.unwrap()).collect();
        assert_eq!(of, (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn a_long_check_holds_up_no_short_one_of_another_source() {
    let (mut verifier, notices) = threads();
    let (release, held) = mpsc::channel::<()>();
    let long = move || {
        held.recv().unwrap();
        1
    };
    verifier.submit(Peer(1), Box::new(long), Cost::Long);
    for item in 2..20 {
        verifier.submit(Peer(2), Box::new(move || item), MANY);
    }
    let mut outcomes = Vec::new();
    while outcomes.len() < 18 {
        notices.recv().unwrap();
        verifier.take(&mut outcomes);
    }
    assert!(outcomes.iter().all(|(source, _)| *source == Peer(2)));
    release.send(()).unwrap();
    notices.recv().unwrap();
    verifier.take(&mut outcomes);
    assert_eq!(outcomes.last(), Some(&(Peer(1), Ok(1))));
}

#[test]
fn a_panicking_check_is_an_outcome_and_the_threads_live_on() {
    let (mut verifier, notices) = threads();
    assert_eq!(verifier.submit(Peer(1), Box::new(|| panic!("planted")), FEW), Some(Err(Panicked)), "the caller's own");
    verifier.submit(Peer(1), Box::new(|| panic!("planted")), Cost::Long);
    verifier.submit(Peer(1), Box::new(|| 2), Cost::Long);
    let mut outcomes = Vec::new();
    while outcomes.len() < 2 {
        notices.recv().unwrap();
        verifier.take(&mut outcomes);
    }
    assert_eq!(outcomes, [(Peer(1), Err(Panicked)), (Peer(1), Ok(2))]);
}

#[test]
fn small_machines_have_a_worker_too() {
    assert_eq!([1, 2, 3, 4, 8, 64].map(workers_for), [1, 1, 1, 1, 5, WORKERS_MAX]);
}
