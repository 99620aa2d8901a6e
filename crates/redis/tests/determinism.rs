//! The service under many random schedules: equal replies, equal state, whatever runs first.

mod common;

use common::{Random, Schedule};
use unisono_execution::testing;
use unisono_redis::Redis;
use unisono_redis::command::Command;
use unisono_redis::operation::{Encoder, Token};
use unisono_redis::resp::{Request, Version};

const SEEDS: std::ops::Range<u64> = 0..8;

fn request(words: &[&str]) -> (Command, Request) {
    (Command::named(words[0].as_bytes()).unwrap(), Request::from_arguments(words))
}

/// A random operation on few keys: batches, transactions, pops that wait, cancellations.
fn operation(random: &mut Random) -> Vec<u8> {
    const KEYS: [&str; 6] = ["a", "b", "c", "p", "q", "r"];
    let lines = [
        "SET a 1",
        "INCR b",
        "MSET a 1 b 2 c 3",
        "MGET a b c",
        "DEL a b c p q r",
        "RPUSH p x y",
        "LPUSH q x y",
        "RPUSH r x",
        "LPOP p",
        "DBSIZE",
        "FLUSHALL",
        "EXPIRE a 1",
        "GETSET c 9",
        "RPOP q 2",
        "LRANGE r 0 -1",
    ];
    let line = |random: &mut Random| request(&random.pick(&lines).split(' ').collect::<Vec<_>>());
    let token = Token([random.below(8) as u8; 16]);
    match random.below(10) {
        0..4 => {
            let mut batch = Encoder::batch();
            for _ in 0..=random.below(5) {
                let (command, request) = line(random);
                batch.command(command, &request, Version::Two);
            }
            batch.finish()
        }
        4 | 5 => {
            let watched = [(random.pick(&KEYS).as_bytes(), random.below(3) as u64)];
            let mut transaction = Encoder::transaction(Version::Three, watched.into_iter().take(random.below(2)));
            for _ in 0..=random.below(4) {
                let (command, request) = line(random);
                transaction.command(command, &request, Version::Two);
            }
            transaction.finish()
        }
        6 => Encoder::cancel(token),
        _ => {
            let words = [
                random.pick(&["BLPOP", "BRPOP"]),
                random.pick(&KEYS),
                random.pick(&KEYS),
                random.pick(&["0", "0.005"]),
            ];
            let (command, request) = request(&words);
            Encoder::block(token, command, &request, Version::Two)
        }
    }
    .into()
}

#[test]
fn a_mixture_of_everything_is_deterministic() {
    for schedule in [Schedule::Sequential, Schedule::Uds(0)] {
        for seed in SEEDS {
            println!("{schedule:?}, seed {seed}");
            let mut random = Random(seed);
            let operations: Vec<_> = (0..60).map(|_| operation(&mut random)).collect();
            let recording = testing::check::<Redis>(|| schedule.scheduler(), &operations, seed..seed + 1);
            let recording = recording.unwrap_or_else(|difference| panic!("{difference}"));
            let faults: Vec<_> = recording.trace.outcomes.values().filter(|outcome| outcome.is_err()).collect();
            assert!(faults.is_empty(), "{faults:?}");
        }
    }
}

#[test]
fn samples_for_load_generators_are_deterministic() {
    let samples = testing::samples::<Redis>(200, 1);
    testing::check::<Redis>(|| Schedule::Uds(0).scheduler(), &samples, 0..2).unwrap();
}
