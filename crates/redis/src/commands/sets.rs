//! Sets.

use super::{Done, Task};
use crate::resp::Reply;
use crate::shard::{Change, Shard};
use crate::value::{Blob, Set};

pub(super) fn add(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let added = shard.update(task.key(), task.now, |set: &mut Set| {
        let added = task.arguments[1..].iter().filter(|member| set.insert(Blob::from(**member))).count();
        Ok(Change { result: added, changed: added > 0 })
    })?;
    reply.count(added);
    Ok(())
}

pub(super) fn remove(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let removed = shard.update(task.key(), task.now, |set: &mut Set| {
        let removed = task.arguments[1..].iter().filter(|member| set.remove(**member)).count();
        Ok(Change { result: removed, changed: removed > 0 })
    })?;
    reply.count(removed);
    Ok(())
}

pub(super) fn members(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let set = shard.read::<Set>(task.key(), task.now)?;
    reply.set(set.map_or(0, Set::len));
    set.into_iter().flatten().for_each(|member| reply.bulk(member));
    Ok(())
}

pub(super) fn is_member(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let set = shard.read::<Set>(task.key(), task.now)?;
    reply.integer(i64::from(set.is_some_and(|set| set.contains(task.arguments[1]))));
    Ok(())
}

pub(super) fn cardinality(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    reply.count(shard.read::<Set>(task.key(), task.now)?.map_or(0, Set::len));
    Ok(())
}
