//! Each family of commands as short stories: what is sent, what comes back. `>` sends, the lines below are the reply.

use super::*;
use crate::resp::Request;

const START: i64 = 1_000_000;

/// Plays a script on one stripe. A line `> command` sends; `+10` alone lets so many milliseconds pass; anything else is
/// the reply expected, one line per element.
fn play(script: &str) {
    play_in(Version::Two, script);
}

fn play_in(version: Version, script: &str) {
    let mut shard = Shard::default();
    let mut now = START;
    let mut expected = String::new();
    let mut got = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(command) = line.strip_prefix("> ") {
            let words: Vec<&[u8]> = command.split_whitespace().map(|word| word.trim_matches('"').as_bytes()).collect();
            let request = Request::from_arguments(&words);
            let command = Command::named(request.argument(0)).unwrap();
            assert!(command.takes(words.len()), "{line}");
            let task = Task { command, arguments: &words[1..], version, now: Milliseconds(now) };
            let reply = if command.reads_only() { read(&shard, task) } else { write(&mut shard, task).reply };
            let reply = String::from_utf8(reply).unwrap();
            got += &format!("{line}\n{}\n", reply.trim_end().replace("\r\n", "\n"));
            expected += line;
        } else if let Some(passed) = line.strip_prefix("pass ") {
            now += passed.parse::<i64>().unwrap();
            continue;
        } else {
            expected += line;
        }
        expected.push('\n');
        shard.invariants();
    }
    assert_eq!(got, expected, "left: what came, right: the script");
}

#[test]
fn strings() {
    play(
        "> SET k v
         +OK
         > GET k
         $1
         v
         > GET nothing
         $-1
         > STRLEN k
         :1
         > APPEND k w
         :2
         > GETSET k x
         $2
         vw
         > GETDEL k
         $1
         x
         > GETDEL k
         $-1
         > SETNX k a
         :1
         > SETNX k b
         :0
         > GET k
         $1
         a",
    );
}

#[test]
fn set_with_options() {
    play(
        "> SET k v XX
         $-1
         > SET k v NX
         +OK
         > SET k w NX
         $-1
         > SET k w XX GET
         $1
         v
         > SET n w NX GET
         $-1
         > SET k x PX 100
         +OK
         > SET k y KEEPTTL
         +OK
         > PTTL k
         :100
         > SET k z
         +OK
         > PTTL k
         :-1
         > SET k v EX 10 PX 10
         -ERR syntax error
         > SET k v NX XX
         -ERR syntax error
         > SET k v KEEPTTL EX 10
         -ERR syntax error
         > SET k v EX
         -ERR syntax error
         > SET k v EX 0
         -ERR invalid expire time in 'set' command
         > SET k v EX x
         -ERR value is not an integer or out of range
         > SET k v EX 9223372036854775807
         -ERR invalid expire time in 'set' command
         > SET k v PXAT 1000500
         +OK
         > PTTL k
         :500
         > SET k v EXAT 1
         +OK
         > GET k
         $-1",
    );
}

#[test]
fn set_get_on_a_list_changes_nothing() {
    play(
        "> RPUSH l a
         :1
         > SET l v GET
         -WRONGTYPE Operation against a key holding the wrong kind of value
         > TYPE l
         +list
         > SET l v
         +OK
         > TYPE l
         +string",
    );
}

#[test]
fn counters() {
    play(
        "> INCR k
         :1
         > DECR k
         :0
         > INCRBY k 41
         :41
         > DECRBY k -1
         :42
         > INCRBY k 9223372036854775807
         -ERR increment or decrement would overflow
         > DECRBY k -9223372036854775808
         -ERR decrement would overflow
         > INCRBY k 1.5
         -ERR value is not an integer or out of range
         > SET k 01
         +OK
         > INCR k
         -ERR value is not an integer or out of range
         > INCRBYFLOAT f 10.5
         $4
         10.5
         > INCRBYFLOAT f 0.1
         $4
         10.6
         > INCRBYFLOAT f x
         -ERR value is not a valid float
         > INCRBYFLOAT f inf
         -ERR increment would produce NaN or Infinity
         > SET k v
         +OK
         > INCRBYFLOAT k 1
         -ERR value is not a valid float",
    );
}

#[test]
fn counters_keep_their_time_to_live() {
    play(
        "> SET k 1 PX 100
         +OK
         > INCR k
         :2
         > PTTL k
         :100
         > APPEND k 0
         :2
         > PTTL k
         :100
         pass 101
         > INCR k
         :1
         > PTTL k
         :-1",
    );
}

#[test]
fn expiry() {
    play(
        "> TTL k
         :-2
         > SET k v
         +OK
         > TTL k
         :-1
         > EXPIRE k 10
         :1
         > TTL k
         :10
         > PEXPIRE k 1499
         :1
         > TTL k
         :1
         > PEXPIRE k 1500
         :1
         > TTL k
         :2
         > PERSIST k
         :1
         > PERSIST k
         :0
         > EXPIRE nothing 10
         :0
         > PEXPIRE k 100
         :1
         pass 100
         > GET k
         $1
         v
         pass 1
         > GET k
         $-1
         > SET k v
         +OK
         > EXPIRE k -1
         :1
         > TYPE k
         +none",
    );
}

#[test]
fn expiry_with_conditions() {
    play(
        "> SET k v
         +OK
         > EXPIRE k 10 XX
         :0
         > EXPIRE k 10 GT
         :0
         > EXPIRE k 10 LT
         :1
         > EXPIRE k 20 NX
         :0
         > EXPIRE k 20 LT
         :0
         > EXPIRE k 20 GT XX
         :1
         > TTL k
         :20
         > EXPIRE k 10 NX GT
         -ERR NX and XX, GT or LT options at the same time are not compatible
         > EXPIRE k 10 GT LT
         -ERR GT and LT options at the same time are not compatible
         > EXPIRE k 10 foo
         -ERR Unsupported option foo
         > EXPIRE k x
         -ERR value is not an integer or out of range
         > EXPIRE k 9223372036854775807
         -ERR invalid expire time in 'expire' command
         > PEXPIRE k 9223372036854775807
         -ERR invalid expire time in 'pexpire' command",
    );
}

#[test]
fn lists() {
    play(
        "> RPUSH l a b c
         :3
         > LPUSH l z y
         :5
         > LRANGE l 0 -1
         *5
         $1
         y
         $1
         z
         $1
         a
         $1
         b
         $1
         c
         > LRANGE l 1 -4
         *1
         $1
         z
         > LRANGE l 5 10
         *0
         > LINDEX l -1
         $1
         c
         > LINDEX l 5
         $-1
         > LLEN l
         :5
         > LPOP l
         $1
         y
         > RPOP l 2
         *2
         $1
         c
         $1
         b
         > LPOP l 0
         *0
         > LPOP l 10
         *2
         $1
         z
         $1
         a
         > TYPE l
         +none
         > LPOP l
         $-1
         > LPOP l 1
         *-1
         > LPOP l -1
         -ERR value is out of range, must be positive
         > LPOP l 1 2
         -ERR wrong number of arguments for 'lpop' command
         > LLEN l
         :0",
    );
}

#[test]
fn hashes() {
    play(
        "> HSET h b 2 a 1
         :2
         > HSET h a 3 c 4
         :1
         > HGET h a
         $1
         3
         > HGET h x
         $-1
         > HMGET h a x
         *2
         $1
         3
         $-1
         > HGETALL h
         *6
         $1
         a
         $1
         3
         $1
         b
         $1
         2
         $1
         c
         $1
         4
         > HLEN h
         :3
         > HINCRBY h a -5
         :-2
         > HINCRBY h new 5
         :5
         > HINCRBY h a 9223372036854775807
         :9223372036854775805
         > HINCRBY h a 9
         -ERR increment or decrement would overflow
         > HSET h a x
         :0
         > HINCRBY h a 1
         -ERR hash value is not an integer
         > HDEL h a b x
         :2
         > HDEL h c new
         :2
         > TYPE h
         +none
         > HSET h a 1 b
         -ERR wrong number of arguments for 'hset' command",
    );
}

#[test]
fn sets() {
    play(
        "> SADD s b a b
         :2
         > SADD s a
         :0
         > SMEMBERS s
         *2
         $1
         a
         $1
         b
         > SISMEMBER s a
         :1
         > SISMEMBER s x
         :0
         > SCARD s
         :2
         > SREM s a x
         :1
         > SREM s b
         :1
         > TYPE s
         +none
         > SMEMBERS s
         *0",
    );
}

#[test]
fn sorted_sets() {
    play(
        "> ZADD z 1 a 2 b
         :2
         > ZADD z CH 1 a 3 b 0.1 c
         :2
         > ZSCORE z c
         $19
         0.10000000000000001
         > ZRANGE z 0 -1
         *3
         $1
         c
         $1
         a
         $1
         b
         > ZRANGE z 0 0 REV WITHSCORES
         *2
         $1
         b
         $1
         3
         > ZADD z NX 9 a
         :0
         > ZADD z XX 9 d
         :0
         > ZADD z GT CH 0 a
         :0
         > ZADD z LT CH 0 a
         :1
         > ZADD z INCR 5 a
         $1
         5
         > ZADD z NX INCR 5 a
         $-1
         > ZINCRBY z -5 a
         $1
         0
         > ZCARD z
         :3
         > ZREM z a b c d
         :3
         > TYPE z
         +none
         > ZADD z XX 1 a
         :0
         > TYPE z
         +none",
    );
}

#[test]
fn ranges_of_sorted_sets() {
    play(
        "> ZADD z 1 a 2 b 2 c 3 d
         :4
         > ZRANGE z (1 3 BYSCORE LIMIT 1 2
         *2
         $1
         c
         $1
         d
         > ZRANGE z +inf -inf BYSCORE REV LIMIT 0 1
         *1
         $1
         d
         > ZRANGE z - (c BYLEX
         *2
         $1
         a
         $1
         b
         > ZRANGE z [c - BYLEX REV
         *3
         $1
         c
         $1
         b
         $1
         a
         > ZRANGE z 0 -1 LIMIT 0 1
         -ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX
         > ZRANGE z - + BYLEX WITHSCORES
         -ERR syntax error, WITHSCORES not supported in combination with BYLEX
         > ZRANGE z a b BYSCORE
         -ERR min or max is not a float
         > ZRANGE z a b BYLEX
         -ERR min or max not valid string range item
         > ZRANGE z 0 -1 foo
         -ERR syntax error
         > ZRANGE nothing 0 -1
         *0",
    );
}

#[test]
fn sorted_sets_refuse_options_that_contradict() {
    play(
        "> ZADD z NX XX 1 a
         -ERR XX and NX options at the same time are not compatible
         > ZADD z NX GT 1 a
         -ERR GT, LT, and/or NX options at the same time are not compatible
         > ZADD z INCR 1 a 2 b
         -ERR INCR option supports a single increment-element pair
         > ZADD z 1 a 2
         -ERR syntax error
         > ZADD z nan a
         -ERR value is not a valid float
         > ZADD z inf a
         :1
         > ZINCRBY z -inf a
         -ERR resulting score is not a number (NaN)
         > ZSCORE z a
         $3
         inf",
    );
}

#[test]
fn version_three_has_types_of_its_own() {
    play_in(
        Version::Three,
        "> GET k
         _
         > LPOP k 1
         _
         > HSET h a 1
         :1
         > HGETALL h
         %1
         $1
         a
         $1
         1
         > SADD s a
         :1
         > SMEMBERS s
         ~1
         $1
         a
         > ZADD z 0.1 a
         :1
         > ZSCORE z a
         ,0.10000000000000001
         > ZRANGE z 0 -1 WITHSCORES
         *1
         *2
         $1
         a
         ,0.10000000000000001",
    );
}

#[test]
fn every_command_refuses_what_is_of_another_type() {
    let mut shard = Shard::default();
    let now = Milliseconds(START);
    let run = |shard: &mut Shard, line: &str| {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let command = Command::named(words[0]).unwrap();
        let task = Task { command, arguments: &words[1..], version: Version::Two, now };
        String::from_utf8(write(shard, task).reply).unwrap()
    };
    run(&mut shard, "SET string v");
    run(&mut shard, "RPUSH list v");
    let before = shard.clone();
    for line in [
        "GET list",
        "GETSET list v",
        "GETDEL list",
        "APPEND list v",
        "STRLEN list",
        "INCR list",
        "DECR list",
        "INCRBY list 1",
        "DECRBY list 1",
        "INCRBYFLOAT list 1",
        "LPUSH string v",
        "RPUSH string v",
        "LPOP string",
        "RPOP string 1",
        "LLEN string",
        "LRANGE string 0 1",
        "LINDEX string 0",
        "HSET list f v",
        "HGET list f",
        "HMGET list f",
        "HGETALL list",
        "HDEL list f",
        "HLEN list",
        "HINCRBY list f 1",
        "SADD list m",
        "SREM list m",
        "SMEMBERS list",
        "SISMEMBER list m",
        "SCARD list",
        "ZADD list 1 m",
        "ZSCORE list m",
        "ZRANGE list 0 1",
        "ZREM list m",
        "ZCARD list",
        "ZINCRBY list 1 m",
    ] {
        assert!(run(&mut shard, line).starts_with("-WRONGTYPE "), "{line}");
    }
    assert_eq!(shard, before, "nothing has changed");
}

#[test]
fn a_reply_over_the_limit_is_refused_and_takes_nothing_away() {
    let mut shard = Shard::default();
    let now = Milliseconds(START);
    let big = vec![b'x'; 1 << 20];
    let arguments: Vec<&[u8]> = std::iter::once(b"l".as_slice()).chain((0..20).map(|_| big.as_slice())).collect();
    let task = Task { command: Command::ListPushRight, arguments: &arguments, version: Version::Two, now };
    assert_eq!(write(&mut shard, task).reply, b":20\r\n");
    let too_long = refusal(&Failure::ReplyTooLong);
    let task = Task { command: Command::ListRange, arguments: &[b"l", b"0", b"-1"], version: Version::Two, now };
    assert_eq!(read(&shard, task), too_long);
    let task = Task { command: Command::ListPopLeft, arguments: &[b"l", b"20"], version: Version::Two, now };
    assert_eq!(write(&mut shard, task).reply, too_long);
    let task = Task { command: Command::ListLength, arguments: &[b"l"], version: Version::Two, now };
    assert_eq!(read(&shard, task), b":20\r\n");
}

#[test]
fn a_string_does_not_grow_over_the_limit() {
    let mut shard = Shard::default();
    let now = Milliseconds(START);
    let big = vec![b'x'; crate::failure::VALUE_BYTES_MAX];
    let mut append = |value: &[u8]| {
        let arguments: [&[u8]; 2] = [b"k", value];
        write(&mut shard, Task { command: Command::Append, arguments: &arguments, version: Version::Two, now }).reply
    };
    assert_eq!(append(&big), b":16777216\r\n");
    assert_eq!(append(b"x"), refusal(&Failure::StringTooLong));
    assert_eq!(append(b""), b":16777216\r\n");
}

#[test]
fn a_push_says_when_somebody_waits() {
    use crate::operation::Token;
    use crate::shard::{Side, Waiter};
    let mut shard = Shard::default();
    shard.line_up(b"q", Waiter { token: Token([1; 16]), side: Side::Left });
    let now = Milliseconds(START);
    let push = |key| Task { command: Command::ListPushLeft, arguments: key, version: Version::Two, now };
    assert!(!write(&mut shard, push(&[b"other", b"v"])).readied);
    assert!(write(&mut shard, push(&[b"q", b"v"])).readied);
    assert_eq!(pop_for_waiter(&mut shard, (b"q", START)), Some(b"v".to_vec()));
    assert!(!write(&mut shard, push(&[b"q", b"v"])).readied, "nobody waits any more");
    assert_eq!(pop_for_waiter(&mut shard, (b"q", START)), None);
}

#[test]
fn time_outs_are_read_as_redis_reads_them() {
    assert_eq!(parse_timeout(b"0"), Ok(0));
    assert_eq!(parse_timeout(b"1.5"), Ok(1_500));
    assert_eq!(parse_timeout(b"0.0001"), Ok(1), "never rounded to for ever");
    assert_eq!(parse_timeout(b"-1"), Err(Failure::TimeoutNegative));
    assert_eq!(parse_timeout(b"1e100"), Err(Failure::TimeoutNegative));
    assert_eq!(parse_timeout(b"x"), Err(Failure::TimeoutNotFloat));
}
