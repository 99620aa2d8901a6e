//! The table of commands: their names, how many arguments they take, which of those are keys, who answers them, and
//! what `COMMAND` tells about them. The facts are those of Redis 7.0.
//!
//! Invariant: a command's number never changes; operations and logs name commands by it.

/// Who answers a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The gateway: it concerns the connection alone.
    Gateway,
    /// The gateway's transaction machinery.
    Transaction,
    /// The service.
    Service,
}

/// What is known about a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Its name, in small letters.
    pub name: &'static str,
    /// Arguments with its name: exactly so many, or at least so many when negative.
    pub arity: i32,
    /// Who answers it.
    pub place: Place,
    /// First key, last key (negative: from the end, -1 the last argument), step between keys; 0 without keys.
    pub keys: (i32, i32, i32),
    /// Flags, as `COMMAND INFO` lists them.
    pub flags: &'static str,
    /// Access categories.
    pub categories: &'static str,
    /// Group of the documentation.
    pub group: &'static str,
    /// The version of Redis that brought it.
    pub since: &'static str,
    /// What it does.
    pub summary: &'static str,
}

/// No command has a longer name.
const NAME_BYTES_MAX: usize = 16;

macro_rules! commands {
    ($($variant:ident = $number:literal: $name:literal, $arity:literal, $place:ident, $keys:expr, $flags:literal,
       $categories:literal, $group:literal, $since:literal, $summary:literal;)*) => {
        /// A command.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, unisono::Input)]
        #[repr(u8)]
        pub enum Command {
            $(#[doc = $summary] $variant = $number,)*
        }

        impl Command {
            /// All of them, by number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            const FACTS: &[Facts] = &[$(Facts {
                name: $name, arity: $arity, place: Place::$place, keys: $keys, flags: $flags,
                categories: $categories, group: $group, since: $since, summary: $summary,
            }),*];

            fn of_small_letters(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

commands! {
    Get = 0: "get", 2, Service, (1, 1, 1), "readonly fast", "@read @string @fast", "string", "1.0.0", "Get the value of a key";
    Set = 1: "set", -3, Service, (1, 1, 1), "write denyoom", "@write @string @slow", "string", "1.0.0", "Set the string value of a key";
    GetSet = 2: "getset", 3, Service, (1, 1, 1), "write denyoom fast", "@write @string @fast", "string", "1.0.0", "Set the string value of a key and return its old value";
    GetDelete = 3: "getdel", 2, Service, (1, 1, 1), "write fast", "@write @string @fast", "string", "6.2.0", "Get the value of a key and delete the key";
    MultiGet = 4: "mget", -2, Service, (1, -1, 1), "readonly fast", "@read @string @fast", "string", "1.0.0", "Get the values of all the given keys";
    MultiSet = 5: "mset", -3, Service, (1, -1, 2), "write denyoom", "@write @string @slow", "string", "1.0.1", "Set multiple keys to multiple values";
    SetIfAbsent = 6: "setnx", 3, Service, (1, 1, 1), "write denyoom fast", "@write @string @fast", "string", "1.0.0", "Set the value of a key, only if the key does not exist";
    Append = 7: "append", 3, Service, (1, 1, 1), "write denyoom fast", "@write @string @fast", "string", "2.0.0", "Append a value to a key";
    StringLength = 8: "strlen", 2, Service, (1, 1, 1), "readonly fast", "@read @string @fast", "string", "2.2.0", "Get the length of the value stored in a key";
    Increment = 9: "incr", 2, Service, (1, 1, 1), "write denyoom fast", "@write @string @fast", "string", "1.0.0", "Increment the integer value of a key by one";
    Decrement = 10: "decr", 2, Service, (1, 1, 1), "write denyoom fast", "@write @string @fast", "string", "1.0.0", "Decrement the integer value of a key by one";
    IncrementBy = 11: "incrby", 3, Service, (1, 1, 1), "write denyoom fast", "@write @string @fast", "string", "1.0.0", "Increment the integer value of a key by the given amount";
    DecrementBy = 12: "decrby", 3, Service, (1, 1, 1), "write denyoom fast", "@write @string @fast", "string", "1.0.0", "Decrement the integer value of a key by the given number";
    IncrementByFloat = 13: "incrbyfloat", 3, Service, (1, 1, 1), "write denyoom fast", "@write @string @fast", "string", "2.6.0", "Increment the float value of a key by the given amount";
    Delete = 14: "del", -2, Service, (1, -1, 1), "write", "@keyspace @write @slow", "generic", "1.0.0", "Delete a key";
    Unlink = 15: "unlink", -2, Service, (1, -1, 1), "write fast", "@keyspace @write @fast", "generic", "4.0.0", "Delete a key asynchronously in another thread";
    Exists = 16: "exists", -2, Service, (1, -1, 1), "readonly fast", "@keyspace @read @fast", "generic", "1.0.0", "Determine if a key exists";
    Type = 17: "type", 2, Service, (1, 1, 1), "readonly fast", "@keyspace @read @fast", "generic", "1.0.0", "Determine the type stored at key";
    Expire = 18: "expire", -3, Service, (1, 1, 1), "write fast", "@keyspace @write @fast", "generic", "1.0.0", "Set a key's time to live in seconds";
    ExpireMilliseconds = 19: "pexpire", -3, Service, (1, 1, 1), "write fast", "@keyspace @write @fast", "generic", "2.6.0", "Set a key's time to live in milliseconds";
    TimeToLive = 20: "ttl", 2, Service, (1, 1, 1), "readonly fast", "@keyspace @read @fast", "generic", "1.0.0", "Get the time to live for a key in seconds";
    TimeToLiveMilliseconds = 21: "pttl", 2, Service, (1, 1, 1), "readonly fast", "@keyspace @read @fast", "generic", "2.6.0", "Get the time to live for a key in milliseconds";
    Persist = 22: "persist", 2, Service, (1, 1, 1), "write fast", "@keyspace @write @fast", "generic", "2.2.0", "Remove the expiration from a key";
    ListPushLeft = 23: "lpush", -3, Service, (1, 1, 1), "write denyoom fast", "@write @list @fast", "list", "1.0.0", "Prepend one or multiple elements to a list";
    ListPushRight = 24: "rpush", -3, Service, (1, 1, 1), "write denyoom fast", "@write @list @fast", "list", "1.0.0", "Append one or multiple elements to a list";
    ListPopLeft = 25: "lpop", -2, Service, (1, 1, 1), "write fast", "@write @list @fast", "list", "1.0.0", "Remove and get the first elements in a list";
    ListPopRight = 26: "rpop", -2, Service, (1, 1, 1), "write fast", "@write @list @fast", "list", "1.0.0", "Remove and get the last elements in a list";
    ListLength = 27: "llen", 2, Service, (1, 1, 1), "readonly fast", "@read @list @fast", "list", "1.0.0", "Get the length of a list";
    ListRange = 28: "lrange", 4, Service, (1, 1, 1), "readonly", "@read @list @slow", "list", "1.0.0", "Get a range of elements from a list";
    ListIndex = 29: "lindex", 3, Service, (1, 1, 1), "readonly", "@read @list @slow", "list", "1.0.0", "Get an element from a list by its index";
    BlockingPopLeft = 30: "blpop", -3, Service, (1, -2, 1), "write noscript blocking", "@write @list @slow @blocking", "list", "2.0.0", "Remove and get the first element in a list, or block until one is available";
    BlockingPopRight = 31: "brpop", -3, Service, (1, -2, 1), "write noscript blocking", "@write @list @slow @blocking", "list", "2.0.0", "Remove and get the last element in a list, or block until one is available";
    HashSet = 32: "hset", -4, Service, (1, 1, 1), "write denyoom fast", "@write @hash @fast", "hash", "2.0.0", "Set the string value of a hash field";
    HashGet = 33: "hget", 3, Service, (1, 1, 1), "readonly fast", "@read @hash @fast", "hash", "2.0.0", "Get the value of a hash field";
    HashMultiGet = 34: "hmget", -3, Service, (1, 1, 1), "readonly fast", "@read @hash @fast", "hash", "2.0.0", "Get the values of all the given hash fields";
    HashGetAll = 35: "hgetall", 2, Service, (1, 1, 1), "readonly", "@read @hash @slow", "hash", "2.0.0", "Get all the fields and values in a hash";
    HashDelete = 36: "hdel", -3, Service, (1, 1, 1), "write fast", "@write @hash @fast", "hash", "2.0.0", "Delete one or more hash fields";
    HashLength = 37: "hlen", 2, Service, (1, 1, 1), "readonly fast", "@read @hash @fast", "hash", "2.0.0", "Get the number of fields in a hash";
    HashIncrementBy = 38: "hincrby", 4, Service, (1, 1, 1), "write denyoom fast", "@write @hash @fast", "hash", "2.0.0", "Increment the integer value of a hash field by the given number";
    SetAdd = 39: "sadd", -3, Service, (1, 1, 1), "write denyoom fast", "@write @set @fast", "set", "1.0.0", "Add one or more members to a set";
    SetRemove = 40: "srem", -3, Service, (1, 1, 1), "write fast", "@write @set @fast", "set", "1.0.0", "Remove one or more members from a set";
    SetMembers = 41: "smembers", 2, Service, (1, 1, 1), "readonly", "@read @set @slow", "set", "1.0.0", "Get all the members in a set";
    SetIsMember = 42: "sismember", 3, Service, (1, 1, 1), "readonly fast", "@read @set @fast", "set", "1.0.0", "Determine if a given value is a member of a set";
    SetCardinality = 43: "scard", 2, Service, (1, 1, 1), "readonly fast", "@read @set @fast", "set", "1.0.0", "Get the number of members in a set";
    SortedAdd = 44: "zadd", -4, Service, (1, 1, 1), "write denyoom fast", "@write @sortedset @fast", "sorted-set", "1.2.0", "Add one or more members to a sorted set, or update its score if it already exists";
    SortedScore = 45: "zscore", 3, Service, (1, 1, 1), "readonly fast", "@read @sortedset @fast", "sorted-set", "1.2.0", "Get the score associated with the given member in a sorted set";
    SortedRange = 46: "zrange", -4, Service, (1, 1, 1), "readonly", "@read @sortedset @slow", "sorted-set", "1.2.0", "Return a range of members in a sorted set";
    SortedRemove = 47: "zrem", -3, Service, (1, 1, 1), "write fast", "@write @sortedset @fast", "sorted-set", "1.2.0", "Remove one or more members from a sorted set";
    SortedCardinality = 48: "zcard", 2, Service, (1, 1, 1), "readonly fast", "@read @sortedset @fast", "sorted-set", "1.2.0", "Get the number of members in a sorted set";
    SortedIncrementBy = 49: "zincrby", 4, Service, (1, 1, 1), "write denyoom fast", "@write @sortedset @fast", "sorted-set", "1.2.0", "Increment the score of a member in a sorted set";
    DatabaseSize = 50: "dbsize", 1, Service, (0, 0, 0), "readonly fast", "@keyspace @read @fast", "server", "1.0.0", "Return the number of keys in the selected database";
    FlushAll = 51: "flushall", -1, Service, (0, 0, 0), "write", "@keyspace @write @slow @dangerous", "server", "1.0.0", "Remove all keys from all databases";
    Info = 52: "info", -1, Service, (0, 0, 0), "loading stale", "@slow @dangerous", "server", "1.0.0", "Get information and statistics about the server";
    Ping = 53: "ping", -1, Gateway, (0, 0, 0), "fast", "@fast @connection", "connection", "1.0.0", "Ping the server";
    Echo = 54: "echo", 2, Gateway, (0, 0, 0), "loading stale fast", "@fast @connection", "connection", "1.0.0", "Echo the given string";
    Hello = 55: "hello", -1, Gateway, (0, 0, 0), "noscript loading stale fast no_auth allow_busy", "@fast @connection", "connection", "6.0.0", "Handshake with Redis";
    Select = 56: "select", 2, Gateway, (0, 0, 0), "loading stale fast", "@fast @connection", "connection", "1.0.0", "Change the selected database for the current connection";
    Quit = 57: "quit", -1, Gateway, (0, 0, 0), "noscript loading stale fast no_auth allow_busy", "@fast @connection", "connection", "1.0.0", "Close the connection";
    Command = 58: "command", -1, Gateway, (0, 0, 0), "loading stale", "@slow @connection", "server", "2.8.13", "Get array of Redis command details";
    Client = 59: "client", -2, Gateway, (0, 0, 0), "", "@slow", "connection", "2.4.0", "A container for client connection commands";
    Config = 60: "config", -2, Gateway, (0, 0, 0), "", "@slow", "server", "2.0.0", "A container for server configuration commands";
    Multi = 61: "multi", 1, Transaction, (0, 0, 0), "noscript loading stale fast allow_busy", "@fast @transaction", "transactions", "1.2.0", "Mark the start of a transaction block";
    Exec = 62: "exec", 1, Transaction, (0, 0, 0), "noscript loading stale skip_slowlog", "@slow @transaction", "transactions", "1.2.0", "Execute all commands issued after MULTI";
    Discard = 63: "discard", 1, Transaction, (0, 0, 0), "noscript loading stale fast allow_busy", "@fast @transaction", "transactions", "2.0.0", "Discard all commands issued after MULTI";
    Watch = 64: "watch", -2, Transaction, (1, -1, 1), "noscript loading stale fast allow_busy", "@fast @transaction", "transactions", "2.2.0", "Watch the given keys to determine execution of the MULTI/EXEC block";
    Unwatch = 65: "unwatch", 1, Transaction, (0, 0, 0), "noscript loading stale fast allow_busy", "@fast @transaction", "transactions", "2.2.0", "Forget about all watched keys";
}

impl Command {
    /// The command called `name`, in letters of any case.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        let mut small = [0; NAME_BYTES_MAX];
        let small = small.get_mut(..name.len())?;
        small.copy_from_slice(name);
        small.make_ascii_lowercase();
        Self::of_small_letters(core::str::from_utf8(small).ok()?)
    }

    /// The command of a number.
    #[must_use]
    pub fn numbered(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// What is known about it.
    #[must_use]
    pub fn facts(self) -> &'static Facts {
        &Self::FACTS[usize::from(self.number())]
    }

    /// May it have so many arguments, its name included?
    #[must_use]
    pub fn takes(self, arguments: usize) -> bool {
        let arity = self.facts().arity;
        if arity >= 0 { arguments == arity as usize } else { arguments >= arity.unsigned_abs() as usize }
    }

    /// Does it wait when there is nothing to take?
    #[must_use]
    pub fn blocks(self) -> bool {
        matches!(self, Self::BlockingPopLeft | Self::BlockingPopRight)
    }

    /// Does it leave the shared state as it is?
    #[must_use]
    pub fn reads_only(self) -> bool {
        self.facts().flags.starts_with("readonly")
    }

    /// Which of `count` arguments behind the name are keys (the first of them is 0).
    pub fn keys(self, count: usize) -> impl Iterator<Item = usize> {
        let (first, last, step) = self.facts().keys;
        let last = if last < 0 { count as i64 + 1 + i64::from(last) } else { i64::from(last) };
        let range = if first == 0 { 0..0 } else { first as usize - 1..usize::try_from(last).unwrap_or(0).min(count) };
        range.step_by(step.max(1) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back_to_their_command() {
        for (index, command) in Command::ALL.iter().enumerate() {
            assert_eq!(usize::from(command.number()), index);
            assert_eq!(Command::numbered(command.number()), Some(*command));
            assert_eq!(Command::named(command.facts().name.to_uppercase().as_bytes()), Some(*command));
        }
        assert_eq!(Command::numbered(Command::ALL.len() as u8), None);
        assert_eq!(Command::named(b"nosuch"), None);
        assert_eq!(Command::named(&[b'g'; 1000]), None);
        assert_eq!(Command::named(b"\xff"), None);
    }

    #[test]
    fn numbers_that_are_in_logs_stay() {
        // the first, one in the middle and the last of the first release
        assert_eq!(Command::Get.number(), 0);
        assert_eq!(Command::BlockingPopLeft.number(), 30);
        assert_eq!(Command::Unwatch.number(), 65);
    }

    #[test]
    fn keys_stand_where_the_table_says() {
        let keys = |command: Command, count| command.keys(count).collect::<Vec<_>>();
        assert_eq!(keys(Command::Get, 1), [0]);
        assert_eq!(keys(Command::MultiSet, 4), [0, 2]);
        assert_eq!(keys(Command::MultiSet, 3), [0, 2], "a wrong number is refused when it runs, by its own check");
        assert_eq!(keys(Command::Delete, 3), [0, 1, 2]);
        assert_eq!(keys(Command::BlockingPopLeft, 3), [0, 1], "the time-out is no key");
        assert!(keys(Command::DatabaseSize, 0).is_empty());
        assert!(keys(Command::Get, 0).is_empty());
    }

    #[test]
    fn arity_counts_the_name() {
        assert!(Command::Get.takes(2) && !Command::Get.takes(1) && !Command::Get.takes(3));
        assert!(Command::Set.takes(3) && Command::Set.takes(9) && !Command::Set.takes(2));
    }
}
