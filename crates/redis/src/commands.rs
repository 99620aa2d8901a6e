//! What the commands do to one stripe: pure functions of the stripe, the arguments and agreed time.
//!
//! ```text
//!   read  (&Shard,     Task) -> reply bytes                GET, LRANGE, ...
//!   write (&mut Shard, Task) -> reply bytes, readied       SET, LPUSH, ...
//! ```
//! A command with several keys is taken apart by the service into steps of one key each ([`exists`], [`delete`],
//! [`put`], [`read`] of one key of an MGET), for none of them needs two keys at once.
//!
//! Invariant: a command that is refused has changed nothing. Texts and orders of checks are those of Redis 7.0.

mod hashes;
mod keys;
mod lists;
mod sets;
mod sorted_sets;
mod strings;

pub use lists::{parse_timeout, pop_for_waiter, write_popped};

use crate::command::Command;
use crate::failure::{Failure, REPLY_BYTES_MAX};
use crate::number::parse_integer;
use crate::resp::{Reply, Version};
use crate::shard::{Milliseconds, Shard};
use crate::value::Value;

/// One command for one stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, unisono::Input)]
pub struct Task<'a> {
    /// Which command.
    pub command: Command,
    /// Its arguments, without its name: as many as the table allows, the first of them the key.
    pub arguments: &'a [&'a [u8]],
    /// The version of the reply.
    pub version: Version,
    /// Agreed time.
    pub now: Milliseconds,
}

impl<'a> Task<'a> {
    fn key(&self) -> &'a [u8] {
        self.arguments[0]
    }

    fn integer(&self, index: usize) -> Result<i64, Failure> {
        parse_integer(self.arguments[index]).ok_or(Failure::NotInteger)
    }
}

type Done = Result<(), Failure>;

/// What a write came to.
#[derive(Clone, PartialEq, Eq, Debug, Default, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub struct Written {
    /// The reply.
    pub reply: Vec<u8>,
    /// Somebody waits for the key, and there may be something for him now.
    pub readied: bool,
}

/// Runs a command that only reads.
#[must_use]
pub fn read(shard: &Shard, task: Task<'_>) -> Vec<u8> {
    let run = match task.command {
        Command::Get => strings::get,
        Command::MultiGet => strings::get_or_null,
        Command::StringLength => strings::length,
        Command::Type => keys::type_name,
        Command::TimeToLive | Command::TimeToLiveMilliseconds => keys::time_to_live,
        Command::ListLength => lists::length,
        Command::ListRange => lists::range,
        Command::ListIndex => lists::index,
        Command::HashGet => hashes::get,
        Command::HashMultiGet => hashes::multi_get,
        Command::HashGetAll => hashes::get_all,
        Command::HashLength => hashes::length,
        Command::SetMembers => sets::members,
        Command::SetIsMember => sets::is_member,
        Command::SetCardinality => sets::cardinality,
        Command::SortedScore => sorted_sets::score,
        Command::SortedRange => sorted_sets::range,
        Command::SortedCardinality => sorted_sets::cardinality,
        _ => no_command_of_a_stripe,
    };
    finish(task, |reply| run(shard, task, reply))
}

/// Runs a command that may write.
#[must_use]
pub fn write(shard: &mut Shard, task: Task<'_>) -> Written {
    let run = match task.command {
        Command::Set => strings::set,
        Command::GetSet => strings::get_set,
        Command::GetDelete => strings::get_delete,
        Command::SetIfAbsent => strings::set_if_absent,
        Command::Append => strings::append,
        Command::Increment | Command::Decrement | Command::IncrementBy | Command::DecrementBy => strings::increment,
        Command::IncrementByFloat => strings::increment_by_float,
        Command::Expire | Command::ExpireMilliseconds => keys::expire,
        Command::Persist => keys::persist,
        Command::ListPushLeft | Command::ListPushRight => lists::push,
        Command::ListPopLeft | Command::ListPopRight => lists::pop,
        Command::HashSet => hashes::set,
        Command::HashDelete => hashes::delete,
        Command::HashIncrementBy => hashes::increment_by,
        Command::SetAdd => sets::add,
        Command::SetRemove => sets::remove,
        Command::SortedAdd | Command::SortedIncrementBy => sorted_sets::add,
        Command::SortedRemove => sorted_sets::remove,
        _ => return Written { reply: read(shard, task), readied: false },
    };
    let reply = finish(task, |reply| run(shard, task, reply));
    let pushes = matches!(task.command, Command::ListPushLeft | Command::ListPushRight);
    Written { reply, readied: pushes && shard.awaited(task.key()) }
}

fn finish(task: Task<'_>, run: impl FnOnce(&mut Reply) -> Done) -> Vec<u8> {
    let mut reply = Reply::new(task.version);
    let refused = match run(&mut reply) {
        Ok(()) if reply.overflowed() => Failure::ReplyTooLong,
        Ok(()) => return reply.into_bytes(),
        Err(failure) => failure,
    };
    refusal(&refused)
}

/// The reply that tells of a failure.
#[must_use]
pub fn refusal(failure: &Failure) -> Vec<u8> {
    Reply::of(Version::Two, |reply| reply.error(failure.to_string()))
}

/// The service takes commands without a key, or with several, apart; they do not come here.
fn no_command_of_a_stripe(_: &Shard, _: Task<'_>, _: &mut Reply) -> Done {
    Err(Failure::Syntax)
}

/// Is the key there? A step of EXISTS.
#[must_use]
pub fn exists(shard: &Shard, (key, now): (&[u8], i64)) -> bool {
    shard.entry(key, Milliseconds(now)).is_some()
}

/// Removes the key. A step of DEL.
#[must_use]
pub fn delete(shard: &mut Shard, (key, now): (&[u8], i64)) -> bool {
    shard.remove(key, Milliseconds(now)).is_some()
}

/// Sets the key. A step of MSET.
pub fn put(shard: &mut Shard, (key, value, now): (&[u8], &[u8], i64)) {
    shard.set(key, Milliseconds(now), Value::Text(value.to_vec()), None);
}

/// Does an option's name stand here, in letters of any case?
fn is(argument: &[u8], name: &str) -> bool {
    argument.eq_ignore_ascii_case(name.as_bytes())
}

/// The positions that an inclusive range with ends counted from the start, or from the end when negative, covers.
fn positions(start: i64, end: i64, length: usize) -> std::ops::Range<usize> {
    let length = length as i64;
    let from_start = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
    let start = from_start(start).max(0);
    let end = from_start(end).min(length - 1);
    if start > end { 0..0 } else { start as usize..end as usize + 1 }
}

/// Would so many bytes of strings fit a reply?
fn check_reply(lengths: impl Iterator<Item = usize>) -> Done {
    let total: usize = lengths.map(|length| length + 32).sum(); // 32: more than any frame of a string has
    if total > REPLY_BYTES_MAX { Err(Failure::ReplyTooLong) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
