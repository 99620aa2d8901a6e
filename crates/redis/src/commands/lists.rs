//! Lists.

use super::{Done, Task, check_reply, positions};
use crate::command::Command;
use crate::failure::Failure;
use crate::number::parse_double;
use crate::resp::Reply;
use crate::shard::{Change, Milliseconds, Shard, Side};
use crate::value::{Blob, List};

pub(super) fn push(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let length = shard.update(task.key(), task.now, |list: &mut List| {
        for element in &task.arguments[1..] {
            let element = Blob::from(*element);
            if task.command == Command::ListPushLeft { list.push_front(element) } else { list.push_back(element) }
        }
        Ok(Change { result: list.len(), changed: true })
    })?;
    reply.count(length);
    Ok(())
}

pub(super) fn pop(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let side = if task.command == Command::ListPopLeft { Side::Left } else { Side::Right };
    if task.arguments.len() > 2 {
        return Err(Failure::Arity(task.command.facts().name));
    }
    if task.arguments.len() == 1 {
        reply.bulk_or_null(shard.pop(task.key(), task.now, side)?.as_deref());
        return Ok(());
    }
    let count = task.integer(1).ok().and_then(|count| usize::try_from(count).ok()).ok_or(Failure::NotPositive)?;
    let Some(list) = shard.read::<List>(task.key(), task.now)? else {
        reply.null_array();
        return Ok(());
    };
    let count = count.min(list.len());
    match side {
        Side::Left => check_reply(list.iter().take(count).map(|element| element.len()))?,
        Side::Right => check_reply(list.iter().rev().take(count).map(|element| element.len()))?,
    }
    reply.array(count);
    shard.update(task.key(), task.now, |list: &mut List| {
        match side {
            Side::Left => list.drain(..count).for_each(|element| reply.bulk(&element)),
            Side::Right => list.drain(list.len() - count..).rev().for_each(|element| reply.bulk(&element)),
        }
        Ok(Change { result: (), changed: count > 0 })
    })
}

pub(super) fn length(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    reply.count(shard.read::<List>(task.key(), task.now)?.map_or(0, List::len));
    Ok(())
}

pub(super) fn range(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let (start, end) = (task.integer(1)?, task.integer(2)?);
    let Some(list) = shard.read::<List>(task.key(), task.now)? else {
        reply.array(0);
        return Ok(());
    };
    let positions = positions(start, end, list.len());
    reply.array(positions.len());
    list.range(positions).for_each(|element| reply.bulk(element));
    Ok(())
}

pub(super) fn index(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let Some(list) = shard.read::<List>(task.key(), task.now)? else {
        reply.null();
        return Ok(());
    };
    let index = task.integer(1)?;
    let index = if index < 0 { index.saturating_add(list.len() as i64) } else { index };
    let element = usize::try_from(index).ok().and_then(|index| list.get(index));
    reply.bulk_or_null(element.map(|element| &**element));
    Ok(())
}

/// How long a blocking pop waits, in milliseconds; 0: for ever.
///
/// # Errors
/// [`Failure::TimeoutNotFloat`], [`Failure::TimeoutNegative`] (also for spans beyond 64 bits, as in Redis).
pub fn parse_timeout(text: &[u8]) -> Result<u64, Failure> {
    let seconds = parse_double(text).ok_or(Failure::TimeoutNotFloat)?;
    let milliseconds = (seconds * 1000.0).ceil();
    if !(0.0..i64::MAX as f64).contains(&milliseconds) {
        return Err(Failure::TimeoutNegative);
    }
    Ok(milliseconds as u64)
}

/// Takes the element of the waiter who is first in line for `key`, and takes him out of it.
#[must_use]
pub fn pop_for_waiter(shard: &mut Shard, (key, now): (&[u8], i64)) -> Option<Vec<u8>> {
    let waiter = shard.next_served(key, Milliseconds(now))?;
    shard.leave_line(key, waiter.token);
    shard.pop(key, Milliseconds(now), waiter.side).ok().flatten().map(Vec::from)
}

/// The reply of a blocking pop that got something.
pub fn write_popped(reply: &mut Reply, key: &[u8], element: &[u8]) {
    reply.array(2);
    reply.bulk(key);
    reply.bulk(element);
}
