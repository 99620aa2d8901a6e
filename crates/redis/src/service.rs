//! The service: the key space in stripes, each under a lock of its own, and the handlers of the five operations.
//!
//! ```text
//!   shards    0 | 1 | 2 | ... | 255      a key's stripe: its hash       locked in ascending order, then
//!   waiters   0 | 1 | ... | 63           a blocked pop's: its token     one of these at a time
//! ```
//! * A batch runs its commands one after the other; between two commands others may come in, as in Redis. Stripes that
//!   the next command needs too stay locked.
//! * A transaction locks the stripes of all its keys and of all watched keys, compares versions, then runs.
//! * A pop that finds nothing lines up in the stripes of its keys and waits in its own place ([`crate::waiters`]).
//!   Whoever pushes serves the line before he unlocks the stripe: first come, first served, per key, as in Redis; in a
//!   transaction at its end, keys in the order in which they were pushed to.
//!
//! Invariant: whenever a stripe's lock is free, no list in it has elements that somebody in line still waits for. So
//! no element is lost or given twice, and nobody overtakes the line.

use crate::command::Command;
use crate::commands::{self, Task, Written};
use crate::failure::{Failure, REPLY_BYTES_MAX, RESULT_BYTES_MAX};
use crate::operation::{Call, Calls, Kind, Operation, Token};
use crate::resp::{Reply, Version};
use crate::shard::{self, Changes, Milliseconds, Shard, Side, Waiter};
use crate::waiters::{NotEntered, Queue, State as Waited, Waiters};
use unisono::{Context, Guard, Mutex, Service, State, UnknownOperation};

/// Stripes of the key space: so many keys can be worked on in parallel. Fixed, since it decides where a key is.
pub const SHARDS: usize = 256;
/// Stripes of those who wait.
pub const WAITER_STRIPES: usize = 64;
/// A batch stops behind the command whose reply takes it beyond this many bytes; the gateway sends the rest again.
pub const BATCH_REPLY_BYTES: usize = 1 << 20;
/// Before a command whose reply may be long and which cannot be run again, a batch stops at this many bytes already.
const BATCH_REPLY_BYTES_BEFORE_LONG: usize = 32 << 10;
/// Behind the replies stands how many commands ran.
const COUNT_BYTES: usize = 4;

const _: () = assert!(BATCH_REPLY_BYTES_BEFORE_LONG + REPLY_BYTES_MAX + COUNT_BYTES <= RESULT_BYTES_MAX);
const _: () = assert!(2 * BATCH_REPLY_BYTES + COUNT_BYTES <= RESULT_BYTES_MAX);

/// A Redis-compatible store, replicated. Operations and replies: [`crate::operation`].
#[derive(State)]
pub struct Redis {
    shards: [Mutex<Shard>; SHARDS],
    waiters: [Mutex<Waiters>; WAITER_STRIPES],
}

impl Service for Redis {
    async fn execute<'a>(&'a self, cx: &'a Context, operation: &'a [u8]) -> Result<Vec<u8>, UnknownOperation> {
        Ok(match Operation::decode(operation)? {
            Operation::Batch(calls) => self.batch(cx, &calls).await,
            Operation::Transaction { version, watched, calls } => self.transaction(cx, version, &watched, &calls).await,
            Operation::Watch(keys) => self.watch(cx, &keys).await,
            Operation::Block { token, calls } => {
                let call = calls.iter().next().ok_or(UnknownOperation)?;
                self.block(cx, token, call).await
            }
            Operation::Cancel(token) => self.cancel(cx, token).await,
        })
    }

    fn handler(operation: &[u8]) -> &'static str {
        Kind::of(operation).map_or("unknown", Kind::name)
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        crate::load::sample(seed, crate::load::Mix::of_seed(seed))
    }
}

/// Which stripe a key is in.
fn stripe(key: &[u8]) -> usize {
    (shard::hash(key) % SHARDS as u64) as usize
}

fn stripe_of_waiter(token: Token) -> usize {
    (shard::hash(&token.0) % WAITER_STRIPES as u64) as usize
}

/// The stripes that a command needs, ascending.
fn stripes(call: &Call<'_>) -> Vec<usize> {
    let Some(command) = call.command else { return Vec::new() };
    if matches!(command, Command::DatabaseSize | Command::FlushAll | Command::Info) {
        return (0..SHARDS).collect();
    }
    let keys = command.keys(call.arguments.len()).map(|index| stripe(call.arguments[index]));
    ascending(keys.collect())
}

fn ascending(mut stripes: Vec<usize>) -> Vec<usize> {
    stripes.sort_unstable();
    stripes.dedup();
    stripes
}

fn milliseconds(cx: &Context) -> Milliseconds {
    Milliseconds(i64::try_from(cx.now().0 / 1000).unwrap_or(i64::MAX))
}

/// Stripes that are locked, ascending.
#[derive(Default)]
struct Held<'cx> {
    guards: Vec<(usize, Guard<'cx, Shard>)>,
}

impl<'cx> Held<'cx> {
    /// Makes sure that the stripes `needed` (ascending) are locked. Others are given back if any is missing, for locks
    /// are taken in ascending order only.
    async fn lock(&mut self, redis: &Redis, cx: &'cx Context, needed: &[usize]) {
        if needed.iter().all(|stripe| self.position(*stripe).is_some()) {
            return;
        }
        self.guards.clear();
        for stripe in needed {
            self.guards.push((*stripe, redis.shards[*stripe].lock(cx).await));
        }
    }

    fn position(&self, stripe: usize) -> Option<usize> {
        self.guards.iter().position(|(held, _)| *held == stripe)
    }

    /// The stripe of a key, which is locked.
    fn of(&mut self, key: &[u8]) -> &mut Guard<'cx, Shard> {
        let stripe = stripe(key);
        let held = self.guards.iter_mut().find(|(held, _)| *held == stripe);
        &mut held.expect("the stripes of a command's keys are locked before it runs").1
    }
}

impl Redis {
    async fn batch(&self, cx: &Context, calls: &Calls<'_>) -> Vec<u8> {
        let mut held = Held::default();
        let mut replies = Vec::new();
        let mut done = 0u32;
        for call in calls.iter() {
            if replies.len() > BATCH_REPLY_BYTES_BEFORE_LONG && takes_at_length(&call) {
                break;
            }
            held.lock(self, cx, &stripes(&call)).await;
            let mut ready = None;
            let reply = run(cx, &mut held, &call, &mut |key| ready = Some(key));
            if !replies.is_empty() && replies.len() + reply.0.len() + COUNT_BYTES > RESULT_BYTES_MAX {
                break; // it only read, for the others have room: the gateway asks again
            }
            reply.append_to(&mut replies);
            if let Some(key) = ready {
                self.serve_line(cx, &mut held, key).await;
            }
            done += 1;
            if replies.len() > BATCH_REPLY_BYTES {
                break;
            }
        }
        replies.extend_from_slice(&done.to_le_bytes());
        replies
    }

    async fn transaction(
        &self,
        cx: &Context,
        version: Version,
        watched: &[(&[u8], u64)],
        calls: &Calls<'_>,
    ) -> Vec<u8> {
        let mut needed: Vec<usize> = watched.iter().map(|(key, _)| stripe(key)).collect();
        calls.iter().for_each(|call| needed.extend(stripes(&call)));
        let mut held = Held::default();
        held.lock(self, cx, &ascending(needed)).await;
        let now = milliseconds(cx);
        for (key, seen) in watched {
            if held.of(key).with_mut((*key, now.0), version_of) != Changes(*seen) {
                return Reply::of(version, Reply::null_array);
            }
        }
        let mut replies = Reply::new(version);
        replies.array(calls.len());
        let mut replies = replies.into_bytes();
        let mut ready = Vec::new();
        for call in calls.iter() {
            let reply = run(cx, &mut held, &call, &mut |key| ready.push(key));
            if replies.len() + reply.0.len() > REPLY_BYTES_MAX {
                // it is done and cannot be undone, and its place in the array must be filled
                replies.extend_from_slice(&commands::refusal(&Failure::ReplyTooLong));
            } else {
                reply.append_to(&mut replies);
            }
        }
        for key in ready {
            self.serve_line(cx, &mut held, key).await;
        }
        replies
    }

    async fn watch(&self, cx: &Context, keys: &[&[u8]]) -> Vec<u8> {
        let mut held = Held::default();
        held.lock(self, cx, &ascending(keys.iter().map(|key| stripe(key)).collect())).await;
        let now = milliseconds(cx);
        keys.iter().flat_map(|key| held.of(key).with_mut((*key, now.0), version_of).0.to_le_bytes()).collect()
    }

    /// Gives elements of the list `key`, whose stripe is locked, to those who wait for them, as long as there are both.
    async fn serve_line(&self, cx: &Context, held: &mut Held<'_>, key: &[u8]) {
        let now = milliseconds(cx).0;
        let shard = held.of(key);
        while let Some(token) = shard.with((key, now), next_served) {
            let mut waiters = self.waiters[stripe_of_waiter(token)].lock(cx).await;
            if !waiters.with(token, Waiters::waits) {
                shard.with_mut((key, token), leave_line);
                continue;
            }
            if let Some(element) = shard.with_mut((key, now), commands::pop_for_waiter)
                && let Some(Queue(queue)) = waiters.with_mut((token, key, element.as_slice()), Waiters::deliver)
            {
                waiters.notify_one(queue);
            }
        }
    }

    async fn block(&self, cx: &Context, token: Token, call: Call<'_>) -> Vec<u8> {
        let [keys @ .., timeout] = call.arguments else { return commands::refusal(&Failure::Syntax) };
        let timeout = match commands::parse_timeout(timeout) {
            Ok(timeout) => timeout,
            Err(failure) => return commands::refusal(&failure),
        };
        let mut held = Held::default();
        held.lock(self, cx, &stripes(&call)).await;
        if let Some(reply) = pop_first(cx, &mut held, &call) {
            return reply.0;
        }
        // He has a place to be served in, and stands in line, before the stripes are free: whoever pushes finds both.
        let mut place = self.waiters[stripe_of_waiter(token)].lock(cx).await;
        let queue = match place.with_mut(token, Waiters::enter) {
            Ok(Queue(queue)) => queue,
            Err(NotEntered::Cancelled) => return Reply::of(call.version, Reply::null_array),
            Err(NotEntered::TokenInUse) => return commands::refusal(&Failure::TokenInUse),
        };
        let left = call.command == Some(Command::BlockingPopLeft);
        keys.iter().for_each(|key| held.of(key).with_mut((*key, token, left), line_up));
        drop(held);
        let mut timed_out = false;
        while !timed_out && place.with(token, Waiters::waits) {
            if timeout == 0 {
                place = place.wait(queue).await;
            } else {
                (place, timed_out) = place.wait_for(queue, timeout.saturating_mul(1000)).await;
            }
        }
        let waited = place.with_mut(token, Waiters::leave);
        drop(place);
        for stripe in stripes(&call) {
            let mut shard = self.shards[stripe].lock(cx).await;
            for key in keys.iter().filter(|key| self::stripe(key) == stripe) {
                shard.with_mut((*key, token), leave_line);
            }
        }
        Reply::of(call.version, |reply| match waited {
            Some(Waited::Served { key, element }) => commands::write_popped(reply, &key, &element),
            Some(Waited::Waiting | Waited::Cancelled) | None => reply.null_array(),
        })
    }

    async fn cancel(&self, cx: &Context, token: Token) -> Vec<u8> {
        let now = milliseconds(cx).0;
        let mut waiters = self.waiters[stripe_of_waiter(token)].lock(cx).await;
        if let Some(Queue(queue)) = waiters.with_mut((token, now), Waiters::cancel) {
            waiters.notify_one(queue);
        }
        Vec::new()
    }
}

/// The reply to one command.
struct Answer(Vec<u8>);

impl Answer {
    fn of(version: Version, write: impl FnOnce(&mut Reply)) -> Self {
        Self(Reply::of(version, write))
    }

    /// Moves where it can: most batches have one command.
    fn append_to(self, replies: &mut Vec<u8>) {
        if replies.is_empty() { *replies = self.0 } else { replies.extend_from_slice(&self.0) }
    }
}

/// Does it change what is shared, and may it answer with more than a few bytes all the same?
fn takes_at_length(call: &Call<'_>) -> bool {
    match call.command {
        Some(Command::Set) => call.arguments.len() > 2, // perhaps with GET
        Some(
            Command::GetSet
            | Command::GetDelete
            | Command::ListPopLeft
            | Command::ListPopRight
            | Command::BlockingPopLeft
            | Command::BlockingPopRight,
        ) => true,
        _ => false,
    }
}

/// Runs one command whose stripes are locked; `ready` learns of a key that somebody waits for.
fn run<'a>(cx: &Context, held: &mut Held<'_>, call: &Call<'a>, ready: &mut dyn FnMut(&'a [u8])) -> Answer {
    let now = milliseconds(cx);
    let Some(command) = call.command else { return Answer(call.arguments[0].to_vec()) };
    let (arguments, version) = (call.arguments, call.version);
    let count = |count: usize| Answer::of(version, |reply| reply.count(count));
    match command {
        Command::MultiGet => {
            let mut reply = Reply::new(version);
            reply.array(arguments.len());
            for key in arguments {
                let task = Task { command, arguments: std::slice::from_ref(key), version, now };
                reply.raw(&held.of(key).with(task, commands::read));
                if reply.len() > REPLY_BYTES_MAX {
                    return Answer(commands::refusal(&Failure::ReplyTooLong));
                }
            }
            Answer(reply.into_bytes())
        }
        Command::MultiSet => {
            let (pairs, odd) = arguments.as_chunks::<2>();
            if !odd.is_empty() {
                return Answer(commands::refusal(&Failure::Arity(command.facts().name)));
            }
            pairs.iter().for_each(|[key, value]| held.of(key).with_mut((*key, *value, now.0), commands::put));
            Answer::of(version, Reply::ok)
        }
        Command::Exists => {
            count(arguments.iter().filter(|key| held.of(key).with((**key, now.0), commands::exists)).count())
        }
        Command::Delete | Command::Unlink => {
            count(arguments.iter().filter(|key| held.of(key).with_mut((**key, now.0), commands::delete)).count())
        }
        Command::DatabaseSize => Answer::of(version, |reply| reply.integer(sizes(held, now).0 as i64)),
        Command::FlushAll => flush_all(held, call),
        Command::Info => info(held, call, now),
        Command::BlockingPopLeft | Command::BlockingPopRight => {
            let timeout = arguments.last().copied().unwrap_or_default();
            match commands::parse_timeout(timeout) {
                Err(failure) => Answer(commands::refusal(&failure)),
                Ok(_) => pop_first(cx, held, call).unwrap_or_else(|| Answer::of(version, Reply::null_array)),
            }
        }
        _ if arguments.is_empty() => Answer(commands::refusal(&Failure::Syntax)), // the gateway answers those
        _ => {
            let key = arguments[0];
            let task = Task { command, arguments, version, now };
            let shard = held.of(key);
            if command.reads_only() {
                return Answer(shard.with(task, commands::read));
            }
            let Written { reply, readied } = shard.with_mut(task, commands::write);
            if readied {
                ready(key);
            }
            Answer(reply)
        }
    }
}

/// Pops from the first key that has something: a blocking pop as long as it does not block.
fn pop_first(cx: &Context, held: &mut Held<'_>, call: &Call<'_>) -> Option<Answer> {
    let now = milliseconds(cx).0;
    let from_left = call.command == Some(Command::BlockingPopLeft);
    for key in &call.arguments[..call.arguments.len() - 1] {
        match held.of(key).with_mut((*key, now, from_left), pop) {
            None => return Some(Answer(commands::refusal(&Failure::WrongType))),
            Some(None) => {}
            Some(Some(element)) => {
                return Some(Answer::of(call.version, |reply| commands::write_popped(reply, key, &element)));
            }
        }
    }
    None
}

fn sizes(held: &Held<'_>, now: Milliseconds) -> (u64, u64) {
    held.guards.iter().fold((0, 0), |(keys, expiring), (_, shard)| {
        let (more_keys, more_expiring) = shard.with(now.0, counts);
        (keys + more_keys, expiring + more_expiring)
    })
}

fn flush_all(held: &mut Held<'_>, call: &Call<'_>) -> Answer {
    let option_is = |name: &str| call.arguments.len() == 1 && call.arguments[0].eq_ignore_ascii_case(name.as_bytes());
    if !(call.arguments.is_empty() || option_is("SYNC") || option_is("ASYNC")) {
        return Answer(commands::refusal(&Failure::Syntax));
    }
    held.guards.iter_mut().for_each(|(_, shard)| shard.with_mut((), |shard, ()| shard.clear()));
    Answer::of(call.version, Reply::ok)
}

/// INFO as the gateway began it, with the counts of keys at its end when it asks for them.
fn info(held: &Held<'_>, call: &Call<'_>, now: Milliseconds) -> Answer {
    let begun = call.arguments.first().copied().unwrap_or_default();
    let mut text = String::from_utf8_lossy(begun).into_owned();
    let (keys, expiring) = sizes(held, now);
    text.push_str("# Keyspace\r\n");
    if keys > 0 {
        text.push_str(&format!("db0:keys={keys},expires={expiring},avg_ttl=0\r\n"));
    }
    Answer::of(call.version, |reply| reply.verbatim(&text))
}

// Steps on one stripe, as functions of data.

fn version_of(shard: &mut Shard, (key, now): (&[u8], i64)) -> Changes {
    shard.version(key, Milliseconds(now))
}

fn next_served(shard: &Shard, (key, now): (&[u8], i64)) -> Option<Token> {
    shard.next_served(key, Milliseconds(now)).map(|waiter| waiter.token)
}

fn line_up(shard: &mut Shard, (key, token, left): (&[u8], Token, bool)) {
    let side = if left { Side::Left } else { Side::Right };
    shard.line_up(key, Waiter { token, side });
}

fn leave_line(shard: &mut Shard, (key, token): (&[u8], Token)) {
    shard.leave_line(key, token);
}

/// Nothing: the key holds something else. Nothing inside: there is no element.
fn pop(shard: &mut Shard, (key, now, left): (&[u8], i64, bool)) -> Option<Option<Vec<u8>>> {
    let side = if left { Side::Left } else { Side::Right };
    shard.pop(key, Milliseconds(now), side).ok().map(|element| element.map(Vec::from))
}

fn counts(shard: &Shard, now: i64) -> (u64, u64) {
    shard.counts(Milliseconds(now))
}
