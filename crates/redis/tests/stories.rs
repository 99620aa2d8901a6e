//! Applications talk to the gateway, the gateway to the service: stories in both schedulers.

mod common;

use common::{Cluster, Random, Schedule, array};
use unisono_redis::gateway::Settings;
use unisono_redis::operation::{Encoder, Token};

/// Tells a story under the sequential scheduler and under several schedules of UDS.
fn tell(story: impl Fn(&mut Cluster)) {
    story(&mut Cluster::new(Schedule::Sequential));
    for seed in 0..4 {
        println!("UDS, seed {seed}");
        story(&mut Cluster::new(Schedule::Uds(seed)));
    }
}

#[test]
fn a_burst_is_one_operation_and_its_replies_are_in_order() {
    tell(|cluster| {
        let a = cluster.connect();
        let burst =
            [array(&["SET", "k", "v"]), array(&["PING"]), array(&["GET", "k"]), array(&["FOO"]), array(&["GET", "k"])];
        let before = cluster.operations;
        let replies = cluster.send(a, burst.concat());
        let expected =
            "+OK\r\n+PONG\r\n$1\r\nv\r\n-ERR unknown command 'FOO', with args beginning with: \r\n$1\r\nv\r\n";
        assert_eq!(String::from_utf8(replies).unwrap(), expected);
        assert_eq!(cluster.operations - before, 1);
    });
}

#[test]
fn what_concerns_the_connection_alone_needs_no_cluster() {
    tell(|cluster| {
        let a = cluster.connect();
        assert_eq!(cluster.ask(a, "PING"), "+PONG\r\n");
        assert_eq!(cluster.ask(a, "ECHO hi"), "$2\r\nhi\r\n");
        assert_eq!(cluster.ask(a, "CLIENT SETNAME me"), "+OK\r\n");
        assert_eq!(cluster.ask(a, "CLIENT GETNAME"), "$2\r\nme\r\n");
        assert_eq!(cluster.ask(a, "SELECT 0"), "+OK\r\n");
        assert_eq!(cluster.ask(a, "SELECT 1"), "-ERR DB index is out of range\r\n");
        assert!(cluster.ask(a, "HELLO 3").starts_with("%7\r\n$6\r\nserver\r\n"));
        assert_eq!(cluster.ask(a, "CONFIG GET save"), "%1\r\n$4\r\nsave\r\n$0\r\n\r\n");
        assert_eq!(cluster.operations, 0);
        assert_eq!(cluster.ask(a, "GET nothing"), "_\r\n", "and the service answers in version 3");
    });
}

#[test]
fn hello_in_the_middle_of_a_burst_counts_from_there_on() {
    tell(|cluster| {
        let a = cluster.connect();
        let replies = cluster.ask(a, "GET x\r\nHELLO 3\r\nGET x\r\nHELLO 2\r\nGET x");
        assert!(replies.starts_with("$-1\r\n%7\r\n"), "{replies}");
        assert!(replies.contains("_\r\n*14\r\n"), "{replies}");
        assert!(replies.ends_with("*0\r\n$-1\r\n"), "{replies}");
    });
}

#[test]
fn quit_answers_what_stands_before_it_and_nothing_behind() {
    tell(|cluster| {
        let a = cluster.connect();
        assert_eq!(cluster.ask(a, "SET k v\r\nQUIT\r\nSET k w"), "+OK\r\n+OK\r\n");
        assert!(cluster.closed(a));
        let b = cluster.connect();
        assert_eq!(cluster.ask(b, "GET k"), "$1\r\nv\r\n");
    });
}

#[test]
fn a_protocol_error_ends_the_connection_behind_the_replies() {
    tell(|cluster| {
        let a = cluster.connect();
        let replies = cluster.ask(a, "SET k v\r\n*x");
        assert_eq!(replies, "+OK\r\n-ERR Protocol error: invalid multibulk length\r\n");
        assert!(cluster.closed(a));
    });
}

#[test]
fn keys_of_one_command_may_be_anywhere() {
    tell(|cluster| {
        let a = cluster.connect();
        assert_eq!(cluster.ask(a, "MSET a 1 b 2 c 3 a 4"), "+OK\r\n");
        assert_eq!(cluster.ask(a, "MGET a b c d"), "*4\r\n$1\r\n4\r\n$1\r\n2\r\n$1\r\n3\r\n$-1\r\n");
        assert_eq!(cluster.ask(a, "EXISTS a a d"), ":2\r\n");
        assert_eq!(cluster.ask(a, "DBSIZE"), ":3\r\n");
        assert_eq!(cluster.ask(a, "DEL a b d"), ":2\r\n");
        assert_eq!(cluster.ask(a, "UNLINK c c"), ":1\r\n");
        assert_eq!(cluster.ask(a, "MSET a 1 b"), "-ERR wrong number of arguments for 'mset' command\r\n");
        assert_eq!(cluster.ask(a, "DBSIZE"), ":0\r\n");
        cluster.ask(a, "MSET a 1 b 2");
        assert_eq!(cluster.ask(a, "FLUSHALL ASYNC"), "+OK\r\n");
        assert_eq!(cluster.ask(a, "FLUSHALL NOW"), "-ERR syntax error\r\n");
        assert_eq!(cluster.ask(a, "MGET a b"), "*2\r\n$-1\r\n$-1\r\n");
    });
}

#[test]
fn info_counts_the_living_keys() {
    tell(|cluster| {
        let a = cluster.connect();
        cluster.ask(a, "MSET a 1 b 2");
        cluster.ask(a, "SET c 3 PX 100");
        let keyspace = "# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=0\r\n";
        assert_eq!(cluster.ask(a, "INFO keyspace"), format!("${}\r\n{keyspace}\r\n", keyspace.len()));
        assert!(cluster.ask(a, "INFO").contains("connected_clients:1\r\n"));
        cluster.pass(101);
        assert!(cluster.ask(a, "INFO").contains("db0:keys=2,expires=0"));
        assert_eq!(cluster.ask(a, "DBSIZE"), ":2\r\n");
    });
}

#[test]
fn keys_expire_in_agreed_time() {
    tell(|cluster| {
        let a = cluster.connect();
        cluster.ask(a, "SET k v PX 1000");
        cluster.pass(400);
        assert_eq!(cluster.ask(a, "PTTL k"), ":600\r\n");
        cluster.pass(601);
        assert_eq!(cluster.ask(a, "GET k"), "$-1\r\n");
    });
}

mod transactions {
    use super::*;

    #[test]
    fn queue_and_execute_at_once() {
        tell(|cluster| {
            let a = cluster.connect();
            assert_eq!(cluster.ask(a, "MULTI"), "+OK\r\n");
            assert_eq!(cluster.ask(a, "SET a 1"), "+QUEUED\r\n");
            assert_eq!(cluster.ask(a, "PING"), "+QUEUED\r\n");
            assert_eq!(cluster.ask(a, "INCR a"), "+QUEUED\r\n");
            assert_eq!(cluster.ask(a, "LPUSH a x"), "+QUEUED\r\n");
            let b = cluster.connect();
            assert_eq!(cluster.ask(b, "GET a"), "$-1\r\n", "nothing has happened yet");
            let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
            assert_eq!(cluster.ask(a, "EXEC"), format!("*4\r\n+OK\r\n+PONG\r\n:2\r\n{wrong}"));
            assert_eq!(cluster.ask(b, "GET a"), "$1\r\n2\r\n");
        });
    }

    #[test]
    fn a_whole_one_in_a_burst_is_one_operation() {
        tell(|cluster| {
            let a = cluster.connect();
            let before = cluster.operations;
            let replies = cluster.ask(a, "MULTI\r\nSET a 1\r\nGET a\r\nEXEC\r\nPING");
            assert_eq!(replies, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$1\r\n1\r\n+PONG\r\n");
            assert_eq!(cluster.operations - before, 1);
        });
    }

    #[test]
    fn end_without_effect_when_a_command_was_refused() {
        tell(|cluster| {
            let a = cluster.connect();
            cluster.ask(a, "MULTI\r\nSET a 1");
            assert_eq!(cluster.ask(a, "GET"), "-ERR wrong number of arguments for 'get' command\r\n");
            let refused = "-EXECABORT Transaction discarded because of previous errors.\r\n";
            assert_eq!(cluster.ask(a, "EXEC"), refused);
            assert_eq!(cluster.ask(a, "GET a"), "$-1\r\n");
        });
    }

    #[test]
    fn say_what_is_out_of_place() {
        tell(|cluster| {
            let a = cluster.connect();
            assert_eq!(cluster.ask(a, "EXEC"), "-ERR EXEC without MULTI\r\n");
            assert_eq!(cluster.ask(a, "DISCARD"), "-ERR DISCARD without MULTI\r\n");
            assert_eq!(cluster.ask(a, "MULTI\r\nMULTI"), "+OK\r\n-ERR MULTI calls can not be nested\r\n");
            assert_eq!(cluster.ask(a, "WATCH a"), "-ERR WATCH inside MULTI is not allowed\r\n");
            assert_eq!(cluster.ask(a, "EXEC"), "*0\r\n", "neither of which spoils the transaction");
        });
    }

    #[test]
    fn fail_when_a_watched_key_has_changed() {
        let changes = ["SET w 2", "DEL w", "EXPIRE w 100", "APPEND w x", "SET w 1", "FLUSHALL"];
        for change in changes {
            tell(|cluster| {
                let (a, b) = (cluster.connect(), cluster.connect());
                cluster.ask(b, "SET w 1");
                assert_eq!(cluster.ask(a, "WATCH w"), "+OK\r\n");
                cluster.ask(b, change);
                assert_eq!(cluster.ask(a, "MULTI\r\nSET a 1\r\nEXEC"), "+OK\r\n+QUEUED\r\n*-1\r\n", "{change}");
                assert_eq!(
                    cluster.ask(a, "MULTI\r\nPING\r\nEXEC"),
                    "+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n",
                    "watched no longer"
                );
                assert_eq!(cluster.ask(a, "GET a"), "$-1\r\n");
            });
        }
    }

    #[test]
    fn take_place_when_no_watched_key_has_changed() {
        let no_changes = ["GET w", "SET other 2", "EXPIRE nothing 100", "SET w 2 NX", "PERSIST w", "DEL nothing"];
        for no_change in no_changes {
            tell(|cluster| {
                let (a, b) = (cluster.connect(), cluster.connect());
                cluster.ask(b, "SET w 1");
                cluster.ask(a, "WATCH w");
                cluster.ask(b, no_change);
                assert_eq!(
                    cluster.ask(a, "MULTI\r\nSET a 1\r\nEXEC"),
                    "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n",
                    "{no_change}"
                );
            });
        }
    }

    #[test]
    fn see_a_key_that_came_and_went() {
        tell(|cluster| {
            let (a, b) = (cluster.connect(), cluster.connect());
            cluster.ask(a, "WATCH w");
            cluster.ask(b, "SET w 1");
            cluster.ask(b, "DEL w");
            assert_eq!(cluster.ask(a, "MULTI\r\nEXEC"), "+OK\r\n*-1\r\n");
        });
    }

    #[test]
    fn see_a_key_that_expired() {
        tell(|cluster| {
            let (a, b) = (cluster.connect(), cluster.connect());
            cluster.ask(b, "SET w 1 PX 100");
            cluster.ask(a, "WATCH w");
            cluster.pass(101);
            assert_eq!(cluster.ask(a, "MULTI\r\nEXEC"), "+OK\r\n*-1\r\n");
            cluster.ask(a, "WATCH w");
            cluster.pass(100);
            assert_eq!(cluster.ask(a, "MULTI\r\nEXEC"), "+OK\r\n*0\r\n", "it was gone already");
        });
    }

    #[test]
    fn what_was_watched_first_counts_and_unwatch_forgets() {
        tell(|cluster| {
            let (a, b) = (cluster.connect(), cluster.connect());
            cluster.ask(a, "WATCH w");
            cluster.ask(b, "SET w 1");
            cluster.ask(a, "WATCH w");
            assert_eq!(cluster.ask(a, "MULTI\r\nEXEC"), "+OK\r\n*-1\r\n");
            cluster.ask(a, "WATCH w");
            cluster.ask(b, "SET w 1");
            assert_eq!(cluster.ask(a, "UNWATCH\r\nMULTI\r\nEXEC"), "+OK\r\n+OK\r\n*0\r\n");
            cluster.ask(a, "WATCH w");
            cluster.ask(b, "SET w 1");
            assert_eq!(cluster.ask(a, "MULTI\r\nDISCARD\r\nMULTI\r\nEXEC"), "+OK\r\n+OK\r\n+OK\r\n*0\r\n");
        });
    }

    #[test]
    fn that_do_not_take_place_do_not_name_the_connection_either() {
        tell(|cluster| {
            let (a, b) = (cluster.connect(), cluster.connect());
            cluster.ask(a, "WATCH w");
            cluster.ask(b, "SET w 1");
            let replies = cluster.ask(a, "MULTI\r\nCLIENT SETNAME me\r\nHELLO 3\r\nEXEC\r\nCLIENT GETNAME");
            assert_eq!(replies, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*-1\r\n$-1\r\n");
        });
    }

    #[test]
    fn never_show_half_of_themselves() {
        for seed in 0..20 {
            println!("seed {seed}");
            let mut cluster = Cluster::new(Schedule::Uds(seed));
            let (a, b) = (cluster.connect(), cluster.connect());
            for number in 0..10 {
                cluster.arrive(a, format!("MULTI\r\nMSET x {number} y {number}\r\nSET z {number}\r\nEXEC\r\n"));
                cluster.arrive(b, "MULTI\r\nGET x\r\nMGET y z\r\nEXEC\r\n");
                cluster.settle();
                let seen = cluster.taken(b);
                let values: Vec<_> = seen.lines().filter(|line| line.parse::<u8>().is_ok()).collect();
                assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "{seen}");
            }
        }
    }
}

mod blocking {
    use super::*;

    #[test]
    fn a_pop_that_finds_something_does_not_wait() {
        tell(|cluster| {
            let a = cluster.connect();
            cluster.ask(a, "RPUSH q x y");
            assert_eq!(cluster.ask(a, "BLPOP nothing q 0"), "*2\r\n$1\r\nq\r\n$1\r\nx\r\n");
            assert_eq!(cluster.ask(a, "BRPOP q 0"), "*2\r\n$1\r\nq\r\n$1\r\ny\r\n");
            assert_eq!(cluster.ask(a, "EXISTS q"), ":0\r\n");
        });
    }

    #[test]
    fn a_push_serves_who_waits_and_answers_its_own_length() {
        tell(|cluster| {
            let (a, b) = (cluster.connect(), cluster.connect());
            assert_eq!(cluster.ask(a, "BLPOP p q 0"), "");
            assert_eq!(cluster.ask(b, "RPUSH q x y"), ":2\r\n");
            assert_eq!(cluster.taken(a), "*2\r\n$1\r\nq\r\n$1\r\nx\r\n");
            assert_eq!(cluster.ask(b, "LRANGE q 0 -1"), "*1\r\n$1\r\ny\r\n");
            assert_eq!(cluster.ask(b, "RPUSH p z"), ":1\r\n", "he does not stand in the other line any more");
            assert_eq!(cluster.ask(b, "LLEN p"), ":1\r\n");
        });
    }

    #[test]
    fn first_come_first_served() {
        tell(|cluster| {
            let waiting: Vec<usize> = (0..5).map(|_| cluster.connect()).collect();
            for who in &waiting {
                assert_eq!(cluster.ask(*who, "BRPOP q 0"), "");
            }
            let b = cluster.connect();
            assert_eq!(cluster.ask(b, "LPUSH q 1 2 3 4 5 6"), ":6\r\n");
            for (who, element) in waiting.iter().zip(1..) {
                assert_eq!(cluster.taken(*who), format!("*2\r\n$1\r\nq\r\n$1\r\n{element}\r\n"));
            }
            assert_eq!(cluster.ask(b, "LRANGE q 0 -1"), "*1\r\n$1\r\n6\r\n");
        });
    }

    #[test]
    fn who_waits_gives_up_in_agreed_time() {
        tell(|cluster| {
            let (a, b) = (cluster.connect(), cluster.connect());
            assert_eq!(cluster.ask(a, "BLPOP q 1.5"), "");
            cluster.pass(1_400);
            assert_eq!(cluster.taken(a), "");
            cluster.pass(101);
            assert_eq!(cluster.taken(a), "*-1\r\n");
            assert_eq!(cluster.ask(b, "RPUSH q x\r\nLLEN q"), ":1\r\n:1\r\n", "and takes nothing afterwards");
            assert_eq!(cluster.ask(a, "BLPOP q -1"), "-ERR timeout is negative\r\n");
            assert_eq!(cluster.ask(a, "BLPOP q soon"), "-ERR timeout is not a float or out of range\r\n");
            assert_eq!(cluster.parked(), 0);
        });
    }

    #[test]
    fn who_has_left_takes_nothing() {
        tell(|cluster| {
            let (a, b, c) = (cluster.connect(), cluster.connect(), cluster.connect());
            cluster.ask(a, "BLPOP q 0");
            cluster.ask(b, "BLPOP q 0");
            cluster.vanish(a);
            assert_eq!(cluster.ask(c, "RPUSH q x"), ":1\r\n");
            assert_eq!(cluster.taken(b), "*2\r\n$1\r\nq\r\n$1\r\nx\r\n");
            assert_eq!(cluster.parked(), 0);
        });
    }

    #[test]
    fn a_cancellation_may_overtake_its_pop() {
        tell(|cluster| {
            let token = Token([9; 16]);
            let request = unisono_redis::resp::Request::from_arguments(["BLPOP", "q", "0"]);
            let command = unisono_redis::command::Command::BlockingPopLeft;
            let block = Encoder::block(token, command, &request, Default::default());
            assert_eq!(cluster.execute(&Encoder::cancel(token)).unwrap().len(), 0);
            assert_eq!(cluster.execute(&block).unwrap(), "*-1\r\n");
        });
    }

    #[test]
    fn what_is_behind_a_blocked_pop_waits_for_it() {
        tell(|cluster| {
            let (a, b) = (cluster.connect(), cluster.connect());
            assert_eq!(cluster.ask(a, "SET k 1\r\nBLPOP q 0\r\nINCR k"), "+OK\r\n", "what is before it does not");
            assert_eq!(cluster.ask(b, "GET k"), "$1\r\n1\r\n");
            cluster.ask(b, "RPUSH q x");
            assert_eq!(cluster.taken(a), "*2\r\n$1\r\nq\r\n$1\r\nx\r\n:2\r\n");
        });
    }

    #[test]
    fn in_a_transaction_nobody_waits() {
        tell(|cluster| {
            let a = cluster.connect();
            let replies = cluster.ask(a, "MULTI\r\nBLPOP q 0\r\nRPUSH q x\r\nBRPOP q 0\r\nBLPOP q x\r\nEXEC");
            let expected = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n*-1\r\n:1\r\n*2\r\n$1\r\nq\r\n$1\r\nx\r\n\
                -ERR timeout is not a float or out of range\r\n";
            assert_eq!(replies, expected);
        });
    }

    #[test]
    fn a_transaction_serves_at_its_end() {
        tell(|cluster| {
            let (a, b, c) = (cluster.connect(), cluster.connect(), cluster.connect());
            cluster.ask(a, "BLPOP q 0");
            cluster.ask(c, "MULTI\r\nRPUSH q x\r\nDEL q\r\nEXEC");
            assert_eq!(cluster.taken(a), "", "it was gone again");
            cluster.ask(b, "BLPOP p q 0");
            cluster.ask(c, "MULTI\r\nRPUSH q x\r\nRPUSH p y\r\nLPUSH q w\r\nEXEC");
            assert_eq!(cluster.taken(a), "*2\r\n$1\r\nq\r\n$1\r\nw\r\n");
            assert_eq!(cluster.taken(b), "*2\r\n$1\r\nq\r\n$1\r\nx\r\n", "the key that was pushed to first");
            assert_eq!(cluster.ask(c, "LLEN p"), ":1\r\n");
        });
    }

    #[test]
    fn a_list_of_another_type_is_refused_at_once_and_one_that_comes_is_no_list() {
        tell(|cluster| {
            let (a, b) = (cluster.connect(), cluster.connect());
            cluster.ask(b, "SET s v");
            assert!(cluster.ask(a, "BLPOP q s 0").starts_with("-WRONGTYPE"));
            cluster.ask(a, "BLPOP q 0");
            assert_eq!(cluster.ask(b, "SET q v\r\nDEL q\r\nRPUSH q x"), "+OK\r\n:1\r\n:1\r\n");
            assert_eq!(cluster.taken(a), "*2\r\n$1\r\nq\r\n$1\r\nx\r\n");
        });
    }

    #[test]
    fn version_three_has_a_null_of_its_own() {
        tell(|cluster| {
            let a = cluster.connect();
            cluster.ask(a, "HELLO 3");
            cluster.ask(a, "BLPOP q 1");
            cluster.pass(1_001);
            assert_eq!(cluster.taken(a), "_\r\n");
        });
    }

    /// Many wait for several keys, some give up, some vanish, others push: every element is given once or still there.
    #[test]
    fn no_element_is_lost_or_given_twice() {
        for seed in 0..60 {
            println!("seed {seed}");
            let schedule = if seed % 4 == 0 { Schedule::Sequential } else { Schedule::Uds(seed) };
            let mut cluster = Cluster::new(schedule);
            let mut random = Random(seed);
            let pusher = cluster.connect();
            let mut waiting: Vec<usize> = Vec::new();
            let mut pushed = 0;
            let mut got: Vec<String> = Vec::new();
            let lists = ["p", "q", "r"];
            for _ in 0..60 {
                match random.below(6) {
                    0 | 1 => {
                        let who = cluster.connect();
                        let (first, second) = (random.pick(&lists), random.pick(&lists));
                        let (pop, timeout) = (random.pick(&["BLPOP", "BRPOP"]), random.pick(&["0", "0.02", "1"]));
                        cluster.arrive(who, format!("{pop} {first} {second} {timeout}\r\n"));
                        waiting.push(who);
                    }
                    2 | 3 => {
                        pushed += 2;
                        let push = random.pick(&["LPUSH", "RPUSH"]);
                        let list = random.pick(&lists);
                        cluster.arrive(pusher, format!("{push} {list} e{} e{}\r\n", pushed - 1, pushed));
                    }
                    4 => cluster.pass(10),
                    _ if random.below(3) == 0 && !waiting.is_empty() => {
                        // whoever vanishes has read what came before
                        let who = waiting.swap_remove(random.below(waiting.len()));
                        cluster.settle();
                        got.extend(elements(&cluster.taken(who)));
                        cluster.vanish(who);
                    }
                    _ => cluster.settle(),
                }
            }
            cluster.settle();
            cluster.take(pusher);
            for who in waiting {
                got.extend(elements(&cluster.taken(who)));
            }
            for list in lists {
                got.extend(elements(&cluster.ask(pusher, &format!("LRANGE {list} 0 -1"))));
            }
            got.sort();
            let mut expected: Vec<String> = (1..=pushed).map(|number| format!("e{number}")).collect();
            expected.sort();
            assert_eq!(got, expected);
        }
    }

    fn elements(replies: &str) -> Vec<String> {
        replies.lines().filter(|line| line.starts_with('e')).map(str::to_owned).collect()
    }
}

mod limits {
    use super::*;

    #[test]
    fn a_value_over_the_limit_is_refused_and_the_connection_stays_usable() {
        let settings = Settings { operation_bytes: 300_000, value_bytes: 10_000 };
        let mut cluster = Cluster::with(Schedule::Sequential, settings);
        let a = cluster.connect();
        let largest = vec![b'x'; 10_000];
        let over = vec![b'x'; 10_001];
        assert_eq!(cluster.send(a, array(&[b"SET".as_slice(), b"k", &largest])), b"+OK\r\n");
        let refused = b"-ERR a value or command of 10001 bytes exceeds the cluster's limit of 10000\r\n";
        assert_eq!(cluster.send(a, array(&[b"SET".as_slice(), b"k", &over])), refused);
        assert_eq!(cluster.ask(a, "STRLEN k"), ":10000\r\n");
        let mut many: Vec<&[u8]> = vec![b"MSET"];
        (0..30).for_each(|_| many.extend([b"k".as_slice(), &largest]));
        assert!(cluster.send(a, array(&many)).starts_with(b"-ERR a value or command of "));
        assert_eq!(cluster.ask(a, "PING"), "+PONG\r\n");
        let in_transaction = [array(&["MULTI"]), array(&[b"SET".as_slice(), b"k", &over]), array(&["EXEC"])].concat();
        assert!(
            cluster
                .send(a, in_transaction)
                .ends_with(b"-EXECABORT Transaction discarded because of previous errors.\r\n")
        );
    }

    #[test]
    fn a_transaction_over_the_limit_is_refused() {
        let settings = Settings { operation_bytes: 100_000, value_bytes: 30_000 };
        let mut cluster = Cluster::with(Schedule::Sequential, settings);
        let a = cluster.connect();
        let value = vec![b'x'; 20_000];
        cluster.ask(a, "MULTI");
        assert_eq!(cluster.send(a, array(&[b"SET".as_slice(), b"k", &value])), b"+QUEUED\r\n");
        let refused = cluster.send(a, array(&[b"SET".as_slice(), b"k", &value]));
        assert!(refused.starts_with(b"-ERR the transaction exceeds the cluster's limit of "));
        assert!(cluster.ask(a, "EXEC").starts_with("-EXECABORT "));
        assert_eq!(cluster.ask(a, "EXISTS k"), ":0\r\n");
    }

    #[test]
    fn a_long_pipeline_becomes_several_operations_none_over_the_limit() {
        let settings = Settings { operation_bytes: 200_000, value_bytes: 50_000 };
        let mut cluster = Cluster::with(Schedule::Sequential, settings);
        let a = cluster.connect();
        let value = vec![b'x'; 50_000];
        let mut burst = Vec::new();
        for number in 0..20 {
            burst.extend(array(&[b"SET".as_slice(), format!("k{number}").as_bytes(), &value]));
        }
        assert_eq!(cluster.send(a, burst), b"+OK\r\n".repeat(20));
        assert!((10..=20).contains(&cluster.operations), "{}", cluster.operations);
    }

    #[test]
    fn a_long_answer_comes_in_several_operations() {
        let mut cluster = Cluster::new(Schedule::Sequential);
        let a = cluster.connect();
        let value = vec![b'x'; 600_000];
        cluster.send(a, array(&[b"SET".as_slice(), b"k", &value]));
        let before = cluster.operations;
        let replies = cluster.send(a, [b"GET k\r\n".repeat(10), b"GETDEL k\r\nGET k\r\n".to_vec()].concat());
        assert_eq!(replies.len(), 11 * (600_000 + 11) + 5);
        assert!(replies.ends_with(b"$-1\r\n"));
        assert!(cluster.operations - before > 3);
    }

    #[test]
    fn largest_values_in_one_pipeline_all_arrive() {
        let mut cluster = Cluster::new(Schedule::Sequential);
        let a = cluster.connect();
        let value = vec![b'x'; 16 << 20];
        assert_eq!(cluster.send(a, array(&[b"SET".as_slice(), b"k", &value])), b"+OK\r\n");
        let replies = cluster.ask(a, "GET k\r\nGET k\r\nGETSET k v\r\nGET k");
        assert_eq!(replies.len(), 3 * ((16 << 20) + 13) + 7);
        let replies = cluster.send(a, array(&[b"SET".as_slice(), b"k", &value]));
        assert_eq!(replies, b"+OK\r\n");
        assert!(cluster.ask(a, "MGET k k").starts_with("-ERR the reply would exceed"));
        assert!(cluster.ask(a, "MULTI\r\nGET k\r\nGET k\r\nEXEC").contains("-ERR the reply would exceed"));
    }

    #[test]
    fn cheap_requests_with_long_answers_are_answered_at_the_pace_of_the_cluster() {
        let mut cluster = Cluster::new(Schedule::Sequential);
        let a = cluster.connect();
        cluster.arrive(a, b"COMMAND\r\n".repeat(2_000));
        let first = cluster.take(a).len();
        assert!((1 << 20..2 << 20).contains(&first), "{first}");
        assert!(cluster.left(a) > 0);
        cluster.settle();
        let rest = cluster.take(a).len();
        assert!(rest > 10 * first, "all are answered in the end");
        assert_eq!(cluster.left(a), 0);
    }

    #[test]
    fn watched_keys_are_bounded() {
        let mut cluster = Cluster::new(Schedule::Sequential);
        let a = cluster.connect();
        let key = vec![b'x'; 600_000];
        assert_eq!(cluster.send(a, array(&[b"WATCH".as_slice(), &key])), b"+OK\r\n");
        assert_eq!(cluster.send(a, array(&[b"WATCH".as_slice(), &key])), b"-ERR too many keys are watched at once\r\n");
    }

    #[test]
    fn hostile_operations_are_refused_by_the_service() {
        let mut cluster = Cluster::new(Schedule::Sequential);
        let mut random = Random(1);
        for _ in 0..2_000 {
            let length = random.below(40);
            let mut operation: Vec<u8> = (0..length).map(|_| random.number() as u8).collect();
            if let Some(kind) = operation.first_mut() {
                *kind %= 3; // what does not wait
            }
            match cluster.execute(&operation) {
                Ok(_) | Err(unisono_types::Fault::UnknownOperation) => {}
                Err(fault) => panic!("{operation:?}: {fault}"),
            }
        }
    }

    /// Pieces of valid commands, in any order, through the gateway: no panic, and it comes to rest.
    #[test]
    fn hostile_applications_harm_nobody() {
        for seed in 0..200 {
            let mut random = Random(seed);
            let mut cluster = Cluster::new(Schedule::Sequential);
            let a = cluster.connect();
            for _ in 0..30 {
                let piece = random.pick(&[
                    "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
                    "*1\r\n",
                    "$4\r\nPING\r\n",
                    "MULTI\r\n",
                    "EXEC\r\n",
                    "WATCH k\r\n",
                    "SET k v\r\n",
                    "BLPOP q 0.01\r\n",
                    "\r\n",
                    "HELLO 3\r\n",
                    "HELLO 2 AUTH\r\n",
                    "CLIENT\r\n",
                    "CLIENT LIST ID 1\r\n",
                    "CONFIG GET *\r\n",
                    "*0\r\n",
                    "DISCARD\r\n",
                    "INFO\r\n",
                    "COMMAND INFO GET\r\n",
                    "ZADD z 1\r\n",
                    "RPUSH q x\r\n",
                    "\"\r\n",
                    "*3\r\n$3\r\nSET\r\n$-1\r\n",
                    "FLUSHALL\r\n",
                ]);
                cluster.arrive(a, piece);
                if random.below(3) == 0 {
                    cluster.settle();
                }
                if random.below(5) == 0 {
                    cluster.pass(20);
                }
            }
            cluster.pass(20);
            let b = cluster.connect();
            assert_eq!(cluster.ask(b, "PING\r\nSET other v"), "+PONG\r\n+OK\r\n", "seed {seed}");
        }
    }
}
