//! Hashes.

use super::{Done, Task};
use crate::failure::Failure;
use crate::number::{parse_integer, write_integer};
use crate::resp::Reply;
use crate::shard::{Change, Shard};
use crate::value::{Blob, Hash};

pub(super) fn set(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let (pairs, odd) = task.arguments[1..].as_chunks::<2>();
    if !odd.is_empty() {
        return Err(Failure::Arity(task.command.facts().name));
    }
    let created = shard.update(task.key(), task.now, |hash: &mut Hash| {
        let is_new = |[field, value]: &[&[u8]; 2]| hash.insert(Blob::from(*field), Blob::from(*value)).is_none();
        Ok(Change { result: pairs.iter().map(is_new).filter(|new| *new).count(), changed: true })
    })?;
    reply.count(created);
    Ok(())
}

pub(super) fn get(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let hash = shard.read::<Hash>(task.key(), task.now)?;
    reply.bulk_or_null(hash.and_then(|hash| hash.get(task.arguments[1])).map(|value| &**value));
    Ok(())
}

pub(super) fn multi_get(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let hash = shard.read::<Hash>(task.key(), task.now)?;
    let fields = &task.arguments[1..];
    reply.array(fields.len());
    for field in fields {
        reply.bulk_or_null(hash.and_then(|hash| hash.get(*field)).map(|value| &**value));
    }
    Ok(())
}

pub(super) fn get_all(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let hash = shard.read::<Hash>(task.key(), task.now)?;
    reply.map(hash.map_or(0, Hash::len));
    for (field, value) in hash.into_iter().flatten() {
        reply.bulk(field);
        reply.bulk(value);
    }
    Ok(())
}

pub(super) fn delete(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let deleted = shard.update(task.key(), task.now, |hash: &mut Hash| {
        let deleted = task.arguments[1..].iter().filter(|field| hash.remove(**field).is_some()).count();
        Ok(Change { result: deleted, changed: deleted > 0 })
    })?;
    reply.count(deleted);
    Ok(())
}

pub(super) fn length(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    reply.count(shard.read::<Hash>(task.key(), task.now)?.map_or(0, Hash::len));
    Ok(())
}

pub(super) fn increment_by(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let increment = task.integer(2)?;
    let sum = shard.update(task.key(), task.now, |hash: &mut Hash| {
        let value = match hash.get(task.arguments[1]) {
            Some(text) => parse_integer(text).ok_or(Failure::HashNotInteger)?,
            None => 0,
        };
        let sum = value.checked_add(increment).ok_or(Failure::Overflow)?;
        let mut text = Vec::new();
        write_integer(&mut text, sum);
        hash.insert(Blob::from(task.arguments[1]), text.into());
        Ok(Change { result: sum, changed: true })
    })?;
    reply.integer(sum);
    Ok(())
}
