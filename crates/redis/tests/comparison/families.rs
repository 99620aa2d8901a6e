//! Each family of commands, one by one, with its errors.

use crate::play;

macro_rules! families {
    ($($name:ident: $script:literal)*) => {$(
        #[test]
        fn $name() {
            for version in [2, 3] {
                play(stringify!($name), version, $script);
            }
        }
    )*};
}

families! {
    connection: r#"
        PING
        PING hi
        PING a b
        ECHO hi
        ECHO
        SELECT 0
        SELECT x
        SELECT 99
        CLIENT GETNAME
        CLIENT SETNAME me
        CLIENT GETNAME
        CLIENT SETNAME "a b"
        CLIENT SETNAME ""
        CLIENT GETNAME
        CLIENT NO-EVICT ON
        CLIENT NO-EVICT MAYBE
        CLIENT
        CLIENT FOO
        CLIENT SETNAME
        CLIENT ID x
        CLIENT LIST FOO
        CLIENT LIST ID x
        CLIENT LIST ID 0
        CLIENT LIST TYPE foo
        CLIENT LIST TYPE master
        HELLO x
        HELLO 4
        HELLO 1
        HELLO 3 FOO
        HELLO 3 SETNAME "a b"
        HELLO 3 AUTH nobody x
        CONFIG GET nosuch
        CONFIG GET maxmemor?
        CONFIG GET "[t]imeout"
        CONFIG GET
        CONFIG FOO
        COMMAND FOO
        COMMAND INFO nosuch
        COMMAND DOCS nosuch
        COMMAND LIST FILTERBY MODULE x
        COMMAND LIST FILTERBY FOO x
        INFO nosuch
        nosuch
        nosuch a b
        "" a
        "a	b" "c" "d"
        GET
        GET a b
        quit
    "#
    strings: r#"
        SET k v
        GET k
        GET nothing
        SET k v XX GET
        SET n v XX
        SET n v NX GET
        SET n w NX GET
        SET n w NX
        SET k v EX 100
        TTL k
        SET k w KEEPTTL
        TTL k
        SET k w
        TTL k
        SET k v PX 100000 GET
        PTTL k
        SET k v EXAT 99999999999
        SET k v PXAT 1
        GET k
        SET k v EX
        SET k v EX 0
        SET k v EX -1
        SET k v EX x
        SET k v EX 9223372036854775807
        SET k v PX 9223372036854775807
        SET k v EX 1 PX 1
        SET k v EX 1 EX 2
        SET k v NX XX
        SET k v KEEPTTL EX 1
        SET k v EX 1 KEEPTTL
        SET k v FOO
        SET k
        GETSET k a
        GETSET new b
        GETDEL k
        GETDEL k
        APPEND k ab
        APPEND k ""
        APPEND empty ""
        EXISTS empty
        STRLEN k
        STRLEN nothing
        SETNX k x
        SETNX m x
        MSET a 1 b 2 a 3
        MSET a
        MSET a 1 b
        MGET a b nothing
        RPUSH l x
        MGET a l
        GET l
        SET l v GET
        GETSET l v
        GETDEL l
        APPEND l v
        STRLEN l
        SETNX l v
        SET l v
        TYPE l
    "#
    counters: r#"
        INCR k
        DECR k
        INCRBY k 10
        DECRBY k 3
        INCRBY k x
        INCRBY k 1.0
        INCRBY k 9223372036854775807
        DECRBY k -9223372036854775808
        DECRBY k 9223372036854775807
        DECRBY k 9223372036854775807
        SET k 9223372036854775807
        INCR k
        SET k -9223372036854775808
        DECR k
        SET k " 1"
        INCR k
        SET k 01
        INCR k
        SET k -0
        INCR k
        SET k ""
        INCR k
        INCRBYFLOAT k 1
        INCRBYFLOAT f 10.5
        INCRBYFLOAT f 0.1
        INCRBYFLOAT f -5
        INCRBYFLOAT f 5.0e3
        INCRBYFLOAT f 1e-5
        INCRBYFLOAT f 100000.1
        INCRBYFLOAT f 1e17
        INCRBYFLOAT f 3.3e20
        INCRBYFLOAT f -3.3e20
        INCRBYFLOAT f inf
        INCRBYFLOAT f nan
        INCRBYFLOAT f x
        INCRBYFLOAT f ""
        INCRBYFLOAT f " 1"
        SET f 3
        INCRBYFLOAT f 1.1
        SET f 0.1
        INCRBYFLOAT f 0.2
        SET f 1e400
        INCRBYFLOAT f 1
        SET f inf
        INCRBYFLOAT f 1
        SET f .5
        INCRBYFLOAT f +.5
        SET f 5.
        INCRBYFLOAT f -5.00
        RPUSH l x
        INCR l
        INCRBYFLOAT l x
        INCRBY l x
    "#
    keys: r#"
        SET a 1
        SET b 2
        RPUSH l x
        HSET h f v
        SADD s m
        ZADD z 1 m
        TYPE a
        TYPE l
        TYPE h
        TYPE s
        TYPE z
        TYPE nothing
        EXISTS a b a nothing
        DBSIZE
        DEL a nothing a
        UNLINK b
        DEL
        DBSIZE
        TTL l
        TTL nothing
        PTTL nothing
        EXPIRE l 100
        TTL l
        PTTL l
        EXPIRE l 100 NX
        EXPIRE l 50 GT
        EXPIRE l 200 GT
        TTL l
        EXPIRE l 300 LT
        EXPIRE l 100 LT
        TTL l
        EXPIRE h 100 XX
        EXPIRE h 100 GT
        EXPIRE h 100 LT
        EXPIRE h 200 XX GT
        TTL h
        EXPIRE h 100 NX XX
        EXPIRE h 100 NX GT
        EXPIRE h 100 GT LT
        EXPIRE h 100 FOO
        EXPIRE h x FOO
        EXPIRE h x
        EXPIRE h 9223372036854775807
        EXPIRE h -9223372036854775808
        PEXPIRE h 9223372036854775807
        PEXPIRE h 100000
        PTTL h
        PERSIST h
        PERSIST h
        PERSIST nothing
        EXPIRE h 0
        EXISTS h
        PEXPIRE s -1
        EXISTS s
        EXPIRE nothing 1
        FLUSHALL FOO
        FLUSHALL SYNC
        DBSIZE
        INFO keyspace
        SET k v
        INFO keyspace
    "#
    lists: r#"
        RPUSH l a b c
        LPUSH l x y
        LRANGE l 0 -1
        LRANGE l 1 2
        LRANGE l -2 -1
        LRANGE l -100 100
        LRANGE l 3 1
        LRANGE l 100 200
        LRANGE l x 1
        LRANGE nothing 0 x
        LRANGE nothing 0 1
        LINDEX l 0
        LINDEX l -1
        LINDEX l 100
        LINDEX l -100
        LINDEX l x
        LINDEX nothing x
        LLEN l
        LLEN nothing
        LPOP l
        RPOP l
        LPOP l 2
        RPOP l 0
        RPOP l 100
        EXISTS l
        LPOP l
        LPOP l 1
        LPOP l 0
        LPOP l -1
        LPOP l x
        LPOP l 1 2
        RPOP l 1 2 3
        LPUSH l
        SET s v
        RPUSH s v
        LPOP s
        LPOP s 0
        LPOP s x
        LLEN s
        LRANGE s 0 1
        LRANGE s x 1
        LINDEX s 0
        LINDEX s x
    "#
    blocking: r#"
        RPUSH q a b
        BLPOP nothing q 0
        BRPOP q 0
        EXISTS q
        BLPOP q 0.01
        BLPOP q 0 x
        BLPOP q x
        BLPOP q -1
        BLPOP q 1e100
        BLPOP q inf
        BLPOP q nan
        BLPOP q ""
        BLPOP q
        SET s v
        BLPOP q s 0
        BLPOP s 0
        a! BLPOP q 0
        b! BRPOP p q 0
        c! BLPOP q q p 0
        d: RPUSH q 1 2 3 4
        a?
        b?
        c?
        d: LRANGE q 0 -1
        d: DEL q
        a! BLPOP q 0
        d: MULTI
        d: RPUSH q x
        d: DEL q
        d: EXEC
        d: SET q v
        d: DEL q
        b! BLPOP p q 0
        d: MULTI
        d: RPUSH q x
        d: RPUSH p y
        d: LPUSH q w
        d: EXEC
        a?
        b?
        d: LRANGE p 0 -1
        d: EXISTS q
        d: MULTI
        d: BLPOP q 0
        d: BLPOP p q 0
        d: BRPOP s 0
        d: BRPOP q x
        d: EXEC
    "#
    hashes: r#"
        HSET h a 1 b 2
        HSET h a 3 c 4
        HSET h a
        HSET h a 1 b
        HGET h a
        HGET h x
        HGET nothing x
        HMGET h a x b
        HMGET nothing a b
        HGETALL h
        HGETALL nothing
        HLEN h
        HLEN nothing
        HINCRBY h a 5
        HINCRBY h new -5
        HINCRBY h a x
        HINCRBY h a 9223372036854775807
        HSET h s text
        HINCRBY h s 1
        HDEL h a x
        HDEL h a b c new s
        EXISTS h
        HDEL h a
        SET s v
        HSET s a 1
        HSET s a
        HGET s a
        HMGET s a
        HGETALL s
        HLEN s
        HDEL s a
        HINCRBY s a x
        HINCRBY s a 1
    "#
    sets: r#"
        SADD s a b a
        SADD s b c
        SADD s
        SMEMBERS s
        SMEMBERS nothing
        SISMEMBER s a
        SISMEMBER s x
        SISMEMBER nothing x
        SCARD s
        SCARD nothing
        SREM s a x
        SREM s b c
        EXISTS s
        SREM s a
        SADD i 3 1 2
        SMEMBERS i
        SET k v
        SADD k a
        SREM k a
        SMEMBERS k
        SISMEMBER k a
        SCARD k
    "#
    sorted_sets: r#"
        ZADD z 1 a 2 b 3 c
        ZADD z 1 a 5 b
        ZADD z CH 1 a 6 b 7 d
        ZADD z NX 9 a 9 e
        ZADD z XX 9 a 9 f
        ZADD z XX CH 8 a 8 g
        ZADD z GT CH 7 a
        ZADD z GT CH 10 a
        ZADD z LT CH 11 a
        ZADD z LT CH 1 a 1 new
        ZADD z INCR 1.5 a
        ZADD z NX INCR 1 a
        ZADD z XX INCR 1 nothing
        ZADD z GT INCR -1 a
        ZADD z INCR 1 a 2 b
        ZADD z NX XX 1 a
        ZADD z NX GT 1 a
        ZADD z GT LT 1 a
        ZADD z NX LT XX 1 a
        ZADD z 1
        ZADD z 1 a 2
        ZADD z NX a
        ZADD z FOO 1 a
        ZADD z x a
        ZADD z nan a
        ZADD z 1 a x b
        ZADD z " 1" a
        ZADD z "" a
        ZADD z 0.1 p 3.3 q 1e17 r -1e-10 s 123456789.123456789 t
        ZADD z inf u -inf v +inf w Infinity x
        ZADD z 1e309 y
        ZADD z 0 zero
        ZADD z CH -0 zero
        ZSCORE z zero
        ZADD z -0 minus
        ZSCORE z minus
        ZRANGE z 0 -1 WITHSCORES
        ZRANGE z 0 -1 REV
        ZRANGE z -3 -2 WITHSCORES REV
        ZRANGE z 5 1
        ZRANGE z 100 200
        ZRANGE z x 1
        ZRANGE z 0 -1 FOO
        ZRANGE z 0 -1 LIMIT 0 1
        ZRANGE z 0 -1 LIMIT 0 -1
        ZRANGE z 0 -1 LIMIT 0
        ZRANGE z 0 -1 BYSCORE LIMIT x 1
        ZRANGE z 1 7 BYSCORE
        ZRANGE z (1 (7 BYSCORE WITHSCORES
        ZRANGE z 7 1 BYSCORE REV
        ZRANGE z -inf +inf BYSCORE LIMIT 2 3
        ZRANGE z -inf +inf BYSCORE LIMIT 2 -1
        ZRANGE z -inf +inf BYSCORE LIMIT -1 2
        ZRANGE z +inf (-inf BYSCORE REV LIMIT 1 2 WITHSCORES
        ZRANGE z x 7 BYSCORE
        ZRANGE z (x 7 BYSCORE
        ZRANGE z nan 7 BYSCORE
        ZRANGE z "" 7 BYSCORE
        ZRANGE z 7 1 BYSCORE
        ZRANGE z 0 1 BYLEX
        ZRANGE z - + BYLEX WITHSCORES
        ZADD l 0 a 0 b 0 c 0 d 0 e
        ZRANGE l - + BYLEX
        ZRANGE l [b [d BYLEX
        ZRANGE l (b (d BYLEX
        ZRANGE l [d [b BYLEX REV
        ZRANGE l + - BYLEX REV LIMIT 1 2
        ZRANGE l [d [b BYLEX
        ZRANGE l + - BYLEX
        ZRANGE l b d BYLEX
        ZRANGE l -x + BYLEX
        ZRANGE l - + BYLEX BYSCORE
        ZRANGE nothing 0 1
        ZRANGE nothing x 1
        ZRANGE nothing 0 1 BYSCORE WITHSCORES
        ZSCORE z a
        ZSCORE z x9
        ZSCORE nothing a
        ZINCRBY z 1 a
        ZINCRBY z 2.5 fresh
        ZINCRBY z x a
        ZINCRBY z -inf u
        ZCARD z
        ZREM z a b nothing
        ZREM l a b c d e
        EXISTS l
        ZCARD l
        ZADD nothing XX 1 a
        EXISTS nothing
        SET k v
        ZADD k 1 a
        ZADD k x a
        ZSCORE k a
        ZRANGE k 0 1
        ZRANGE k x 1
        ZREM k a
        ZCARD k
        ZINCRBY k 1 a
    "#
    transactions: r#"
        EXEC
        DISCARD
        UNWATCH
        MULTI
        SET a 1
        INCR a
        LPUSH a x
        PING
        ECHO hi
        CLIENT GETNAME
        SELECT 0
        GET a
        UNWATCH
        COMMAND INFO nosuch
        EXEC
        MULTI
        MULTI
        WATCH a
        EXEC
        MULTI
        GET
        GET a
        EXEC
        MULTI
        nosuch
        SET a 5
        EXEC
        GET a
        MULTI
        SET a 9
        DISCARD
        GET a
        WATCH w
        b: SET w 1
        MULTI
        SET a 2
        EXEC
        GET a
        WATCH w
        b: GET w
        MULTI
        SET a 3
        EXEC
        WATCH w
        b: EXPIRE w 100
        MULTI
        EXEC
        WATCH w
        b: DEL w
        MULTI
        EXEC
        WATCH w
        b: SET w 1
        b: DEL w
        MULTI
        EXEC
        WATCH w
        b: SADD w a
        UNWATCH
        MULTI
        EXEC
        WATCH w
        b: SADD w a
        MULTI
        EXEC
        WATCH w
        b: SADD w b
        MULTI
        EXEC
        WATCH w
        MULTI
        b: SREM w b
        DISCARD
        MULTI
        EXEC
        WATCH w w
        SADD w mine
        MULTI
        EXEC
        WATCH
        MULTI
        SET k v EX 0
        SET k v
        EXEC
        MULTI
        CLIENT FOO
        EXEC
        MULTI x
    "#
}
