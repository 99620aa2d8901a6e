//! Outside calls: performed once selected, answered by ordered work that may come before the call, with a time.
#![allow(missing_docs)]

mod common;

use common::{Bench, decode, sequential, uds};
use unisono_execution::testing;
use unisono_execution::{Bytes, CallError, CallRefused, Context, Mutex, Settings};
use unisono_macros::{State, service};
use unisono_scheduler::Order;
use unisono_types::{CallAnswer, Done, Position, RequestNumber, SequenceNumber, SessionId, Timestamp, Work};

#[derive(State)]
#[state(crate = unisono_execution)]
struct Broker {
    rates: Mutex<Vec<u8>>,
    failures: Mutex<u64>,
}

type Quote = Result<Vec<u8>, CallError>;

#[service(crate = unisono_execution)]
impl Broker {
    async fn quote(&self, cx: &Context, target: String) -> Quote {
        cx.call(&target, b"rate?".to_vec(), None).await.map(|bytes| bytes.to_vec())
    }

    async fn quote_within(&self, cx: &Context, target: String, microseconds: u64) -> (Quote, u64) {
        let quote = cx.call(&target, b"rate?".to_vec(), Some(microseconds)).await.map(|bytes| bytes.to_vec());
        if quote.is_err() {
            self.failures.lock(cx).await.with_mut((), |failures, ()| *failures += 1);
        }
        (quote, cx.now().0)
    }

    /// Asks two at the same time, and one after the other.
    async fn compare(&self, cx: &Context) -> Vec<Quote> {
        let child = cx.spawn(|cx| async move { cx.call("left", Vec::new(), Some(5_000)).await }).await;
        let right = cx.call("right", Vec::new(), Some(5_000)).await;
        let left = child.expect("few children").join().await;
        let again = cx.call("left", b"again".to_vec(), Some(1_000)).await;
        [left, right, again].map(|quote| quote.map(|bytes| bytes.to_vec())).into()
    }

    /// Keeps its lock while it asks.
    async fn update(&self, cx: &Context, target: String) -> usize {
        let mut rates = self.rates.lock(cx).await;
        match cx.call(&target, b"rate?".to_vec(), Some(3_000)).await {
            Ok(rate) => rates.with_mut(rate, |rates, rate| {
                rates.extend_from_slice(&rate);
                rates.len()
            }),
            Err(_) => 0,
        }
    }

    async fn rates(&self, cx: &Context) -> Vec<u8> {
        self.rates.lock(cx).await.with((), |rates, ()| rates.clone())
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        let target = format!("oracle {}", (seed >> 8) % 5);
        match seed % 8 {
            0 => BrokerOperation::quote(target),
            1..=2 => BrokerOperation::quote_within(target, 1 + (seed >> 16) % 4_000),
            3 => BrokerOperation::compare(),
            4..=5 => BrokerOperation::update(target),
            _ => BrokerOperation::rates(),
        }
    }
}

fn value(text: &'static str) -> CallAnswer {
    Ok(Bytes::from_static(text.as_bytes()))
}

impl Bench {
    /// Answers the last call that was performed.
    fn answer(&self, answer: CallAnswer) {
        let call = self.called.last().expect("somebody has called").clone();
        let (position, path, call, timestamp) = (call.position, call.path, call.call, Timestamp(0));
        self.executor.submit(Work::Answer { position, path, call, timestamp, answer });
    }
}

fn benches() -> Vec<Bench> {
    [sequential(), uds(1, u32::MAX, Order::RoundRobin), uds(8, 2, Order::RoundRobin)]
        .into_iter()
        .map(|scheduler| Bench::with::<Broker>(scheduler, Settings::default()))
        .collect()
}

/// Runs on with as many Flushes as it takes; the request's result, if it has ended.
fn flushed<T: unisono_execution::borsh::BorshDeserialize>(bench: &mut Bench, sequence: SequenceNumber) -> Option<T> {
    for _ in 0..5 {
        if let Some((_, outcome)) = bench.run().into_iter().find(|(ended, _)| *ended == sequence) {
            return Some(decode(&outcome));
        }
        bench.flush();
    }
    None
}

#[test]
fn a_call_is_reported_once_it_is_performed_and_brings_its_answer() {
    for answer in [value("7"), Err(CallRefused::Unknown), Err(CallRefused::Failed("closed".to_owned()))] {
        for mut bench in benches() {
            let asking = bench.request(BrokerOperation::quote("rates".to_owned()));
            assert_eq!(flushed::<Quote>(&mut bench, asking), None, "it waits");
            assert_eq!(bench.called.len(), 1);
            assert_eq!((bench.called[0].target.as_str(), &bench.called[0].request[..]), ("rates", &b"rate?"[..]));
            assert_eq!(bench.executor.executed(), asking, "who waits for the outside is settled");
            bench.answer(answer.clone());
            let expected = answer.clone().map(|bytes| bytes.to_vec()).map_err(CallError::Refused);
            assert_eq!(flushed::<Quote>(&mut bench, asking), Some(expected));
        }
    }
}

#[test]
fn an_answer_that_has_come_says_that_a_flush_is_needed() {
    let mut bench = Bench::with::<Broker>(uds(8, 2, Order::RoundRobin), Settings::default());
    let asking = bench.request(BrokerOperation::quote("rates".to_owned()));
    assert_eq!(flushed::<Quote>(&mut bench, asking), None);
    bench.starved.clear();
    bench.answer(value("7"));
    bench.run();
    assert_eq!(bench.starved, [(true, None)]);
    assert_eq!(flushed::<Quote>(&mut bench, asking), Some(Ok(b"7".to_vec())));
}

#[test]
fn agreed_time_ends_a_call_and_a_late_answer_is_no_answer_to_the_next() {
    for mut bench in benches() {
        let asking = bench.request(BrokerOperation::quote_within("rates".to_owned(), 500));
        assert_eq!(flushed::<(Quote, u64)>(&mut bench, asking), None);
        bench.tick(500);
        let now = bench.timestamp;
        assert_eq!(flushed(&mut bench, asking), Some((Quote::Err(CallError::TimedOut), now)));
        bench.answer(value("late"));
        let asking = bench.request(BrokerOperation::quote("rates".to_owned()));
        assert_eq!(flushed::<Quote>(&mut bench, asking), None);
        bench.answer(value("7"));
        bench.answer(value("8"));
        assert_eq!(flushed::<Quote>(&mut bench, asking), Some(Ok(b"7".to_vec())));
        bench.mark();
    }
}

#[test]
fn what_is_too_large_is_refused_before_anybody_is_asked() {
    let mut bench = Bench::with::<Broker>(sequential(), Settings { result_bytes_max: 20, ..Settings::default() });
    let asking = bench.request(BrokerOperation::quote("r".repeat(257)));
    assert_eq!(flushed::<Quote>(&mut bench, asking), Some(Err(CallError::Refused(CallRefused::TooLarge))));
    assert_eq!(bench.called, []);
}

#[test]
fn a_machine_that_is_slow_meets_the_answers_before_the_calls() {
    let mut fast = Bench::with::<Broker>(uds(2, 1, Order::RoundRobin), Settings::default());
    let asking = fast.request(BrokerOperation::compare());
    let mut answered = 0;
    let mut log = Vec::new();
    let result = loop {
        if let Some((_, outcome)) = fast.run().into_iter().find(|(ended, _)| *ended == asking) {
            break outcome;
        }
        let work = match fast.called.get(answered) {
            Some(call) => {
                answered += 1;
                let answer = Ok(Bytes::from(format!("{} {}", call.target, call.call)));
                let (position, path, timestamp) = (call.position, call.path.clone(), Timestamp(0));
                Work::Answer { position, path, call: call.call, timestamp, answer }
            }
            None => Work::Flush,
        };
        log.push(work.clone());
        fast.executor.submit(work);
    };
    let quotes: Vec<Quote> = decode(&result);
    let expected = ["left 0", "right 0", "left 1"].map(|text| Ok(text.as_bytes().to_vec()));
    assert_eq!(quotes, expected);

    let mut slow = Bench::with::<Broker>(uds(2, 1, Order::RoundRobin), Settings::default());
    slow.request(BrokerOperation::compare());
    slow.executor.submit_all(log);
    assert_eq!(slow.run(), [(asking, result)]);
    assert_eq!(slow.called, fast.called);
    assert_eq!(slow.mark(), fast.mark());
}

#[test]
fn answers_that_nobody_asked_for_are_kept_until_the_next_mark_only() {
    let mut bench = Bench::new::<Broker>();
    let unasked = |call| Work::Answer {
        position: Position::new(SequenceNumber(1), 0).unwrap(),
        path: vec![],
        call,
        timestamp: Timestamp(0),
        answer: Ok(Bytes::from(vec![0; 1 << 20])),
    };
    for _ in 0..5 {
        bench.executor.submit_all((0..20).map(unasked));
        assert_eq!(bench.executor.answers(), 20);
        bench.mark();
        assert_eq!(bench.executor.answers(), 0);
    }
}

#[test]
fn workers_report_calls_too() {
    let settings = Settings { workers: 2, ..Settings::default() };
    let executor = unisono_execution::Executor::new::<Broker>(sequential(), settings);
    executor.submit_all((1..=50).map(|n| Work::Request {
        position: Position::new(SequenceNumber(n), 0).unwrap(),
        timestamp: Timestamp(n),
        session: SessionId(1),
        number: RequestNumber(n),
        operation: Bytes::from(BrokerOperation::quote(n.to_string())),
    }));
    executor.wait_idle();
    let mut done = Vec::new();
    executor.take_done(&mut done);
    for done in done.drain(..) {
        if let Done::Called { position, path, call, target, .. } = done {
            let (timestamp, answer) = (Timestamp(60), Ok(Bytes::from(target)));
            executor.submit(Work::Answer { position, path, call, timestamp, answer });
        }
    }
    executor.wait_idle();
    executor.take_done(&mut done);
    let ended = done.iter().filter(|done| match done {
        Done::Executed { position, outcome, .. } => {
            decode::<Quote>(outcome) == Ok(position.sequence().0.to_string().into_bytes())
        }
        _ => false,
    });
    assert_eq!(ended.count(), 50);
}

#[test]
fn every_policy_and_schedule_gives_one_result() {
    for sample in 0..3 {
        let operations = testing::samples::<Broker>(40, sample);
        for recording in testing::check_all::<Broker>(&operations, 0..4).unwrap() {
            let answers = recording.log.iter().filter(|work| matches!(work, Work::Answer { .. })).count();
            assert!(answers > 5, "the outside answers: {answers}");
        }
    }
}
