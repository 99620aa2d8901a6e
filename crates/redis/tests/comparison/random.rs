//! Random commands and random numbers, by seed.

use crate::common::{Random, array};
use crate::{Both, server};

/// Random commands, in pipelines of random length, replies compared one by one.
#[test]
fn random_commands() {
    let Some(server) = server() else { return };
    for seed in 0..6 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut both = Both::new(&server, 1);
        let hello = if seed % 2 == 0 { b"HELLO 2\r\n" } else { b"HELLO 3\r\n" };
        both.send(0, hello);
        both.real[0].reply();
        both.cluster.take(both.ours[0]);
        let mut queueing = false;
        for _ in 0..60 {
            let mut commands: Vec<Vec<&str>> = (0..1 + random.below(60)).map(|_| random_command(&mut random)).collect();
            for command in &mut commands {
                match command[0] {
                    "MULTI" => queueing = true,
                    "EXEC" | "DISCARD" => queueing = false,
                    "SMEMBERS" if queueing => command[0] = "SCARD", // their order cannot be undone inside EXEC's reply
                    "HGETALL" if queueing => command[0] = "HLEN",
                    _ => {}
                }
            }
            let bytes: Vec<u8> = commands.iter().flat_map(|words| array(words)).collect();
            both.send(0, &bytes);
            both.compare(0, &commands);
        }
    }
}

fn random_command(random: &mut Random) -> Vec<&'static str> {
    const KEYS: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "h"];
    const TEXTS: &[&str] =
        &["", "x", "y", "zz", "0", "1", "-1", "5", "10", "3.5", "1e3", "inf", "-inf", "text", "\r\n"];
    const NUMBERS: &[&str] = &["0", "1", "-1", "2", "-2", "5", "100", "-100", "9223372036854775807", "x", "1.5", ""];
    const SCORES: &[&str] = &["0", "1", "-1", "1.5", "0.1", "1e20", "inf", "-inf", "nan", "x", "(1", "(0.1", "-0"];
    const LEX: &[&str] = &["-", "+", "[x", "(x", "[zz", "(1", "x", "["];
    const SPANS: &[&str] = &["1000000", "5000000", "0", "-1", "x", "9223372036854775807"];
    // K key, T text, N number, S score, L bound of members, E span (long, for the clocks are not the same)
    let shapes: &[&str] = &[
        "SET K T",
        "SET K T",
        "SET K T NX",
        "SET K T XX GET",
        "SET K T EX E",
        "SET K T PX E",
        "SET K T KEEPTTL",
        "SET K T GET",
        "GET K",
        "GETSET K T",
        "GETDEL K",
        "MGET K K K",
        "MSET K T K T",
        "SETNX K T",
        "APPEND K T",
        "STRLEN K",
        "INCR K",
        "DECR K",
        "INCRBY K N",
        "DECRBY K N",
        "INCRBYFLOAT K T",
        "INCRBYFLOAT K N",
        "DEL K",
        "DEL K K K",
        "UNLINK K K",
        "EXISTS K K K",
        "TYPE K",
        "EXPIRE K E",
        "EXPIRE K E NX",
        "PEXPIRE K E",
        "TTL K",
        "PERSIST K",
        "LPUSH K T T",
        "RPUSH K T T",
        "LPOP K",
        "RPOP K",
        "LPOP K N",
        "RPOP K N",
        "LLEN K",
        "LRANGE K N N",
        "LINDEX K N",
        "BLPOP K K 0.001",
        "BRPOP K 0.001",
        "HSET K T T T T",
        "HSET K T N",
        "HGET K T",
        "HMGET K T T",
        "HGETALL K",
        "HDEL K T T",
        "HLEN K",
        "HINCRBY K T N",
        "SADD K T T",
        "SREM K T T",
        "SMEMBERS K",
        "SISMEMBER K T",
        "SCARD K",
        "ZADD K S T S T",
        "ZADD K NX S T",
        "ZADD K XX CH S T",
        "ZADD K GT CH S T",
        "ZADD K LT S T",
        "ZADD K INCR S T",
        "ZSCORE K T",
        "ZRANGE K N N",
        "ZRANGE K N N REV",
        "ZRANGE K N N WITHSCORES",
        "ZRANGE K S S BYSCORE",
        "ZRANGE K S S BYSCORE REV WITHSCORES",
        "ZRANGE K S S BYSCORE LIMIT N N",
        "ZRANGE K L L BYLEX",
        "ZRANGE K L L BYLEX REV",
        "ZREM K T T",
        "ZCARD K",
        "ZINCRBY K S T",
        "DBSIZE",
        "MULTI",
        "EXEC",
        "EXEC",
        "DISCARD",
        "WATCH K",
        "UNWATCH",
        "PING",
        "ECHO T",
        "nosuch T T",
        "GET",
        "HSET K T",
    ];
    let shape = random.pick(shapes);
    shape
        .split(' ')
        .map(|word| match word {
            "K" => random.pick(KEYS),
            "T" => random.pick(TEXTS),
            "N" => random.pick(NUMBERS),
            "S" => random.pick(SCORES),
            "L" => random.pick(LEX),
            "E" => random.pick(SPANS),
            _ => word,
        })
        .collect()
}

/// Random numbers added and printed: the arithmetic of INCRBYFLOAT and of scores.
#[test]
fn random_numbers() {
    let Some(server) = server() else { return };
    for seed in 0..4 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut both = Both::new(&server, 1);
        for _ in 0..20 {
            let mut commands: Vec<[String; 4]> = Vec::new();
            for _ in 0..50 {
                let (a, b) = (random_number(&mut random), random_number(&mut random));
                commands.push(["SET".into(), "f".into(), a.clone(), "KEEPTTL".into()]);
                commands.push(["INCRBYFLOAT".into(), "f".into(), b.clone(), String::new()]);
                commands.push(["ZADD".into(), "z".into(), a, "m".into()]);
                commands.push(["ZINCRBY".into(), "z".into(), b, "m".into()]);
            }
            let commands: Vec<Vec<&str>> = commands
                .iter()
                .map(|words| words.iter().map(String::as_str).filter(|word| !word.is_empty()).collect())
                .collect();
            let bytes: Vec<u8> = commands.iter().flat_map(|words| array(words)).collect();
            both.send(0, &bytes);
            both.compare(0, &commands);
        }
    }
}

fn random_number(random: &mut Random) -> String {
    let sign = random.pick(&["", "", "-", "+"]);
    let digits = random.number() % 10u64.pow(random.below(19) as u32);
    let fraction = random.number() % 10u64.pow(random.below(19) as u32);
    match random.below(5) {
        0 => format!("{sign}{digits}"),
        1 => format!("{sign}{digits}e{}", random.below(40) as i64 - 20),
        2 => format!("{sign}{}", f64::from_bits(random.number() % (0x7ff << 52))),
        _ => format!("{sign}{digits}.{fraction}"),
    }
}
