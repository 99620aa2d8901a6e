//! Commands that concern keys, whatever they hold.

use super::{Done, Task, is};
use crate::command::Command;
use crate::failure::Failure;
use crate::resp::Reply;
use crate::shard::{Entry, Milliseconds, Shard};

pub(super) fn type_name(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    reply.simple(shard.entry(task.key(), task.now).map_or("none", |entry| entry.value().type_name()));
    Ok(())
}

pub(super) fn time_to_live(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let left = match shard.entry(task.key(), task.now).map(Entry::expires) {
        None => -2,
        Some(None) => -1,
        Some(Some(expires)) => {
            let left = expires.0.saturating_sub(task.now.0).max(0);
            if task.command == Command::TimeToLive { left.saturating_add(500) / 1000 } else { left }
        }
    };
    reply.integer(left);
    Ok(())
}

pub(super) fn expire(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let conditions = Conditions::parse(&task.arguments[2..])?;
    let given = task.integer(1)?;
    let unit = if task.command == Command::Expire { 1000 } else { 1 };
    let expires = given.checked_mul(unit).and_then(|span| span.checked_add(task.now.0));
    let expires = expires.ok_or(Failure::InvalidExpire(task.command.facts().name))?;
    let Some(before) = shard.entry(task.key(), task.now).map(Entry::expires) else {
        reply.integer(0);
        return Ok(());
    };
    let holds = conditions.hold(before.map(|before| before.0), expires);
    if holds && expires <= task.now.0 {
        shard.remove(task.key(), task.now);
    } else if holds {
        shard.expire(task.key(), task.now, Some(Milliseconds(expires)));
    }
    reply.integer(i64::from(holds));
    Ok(())
}

/// Under which conditions EXPIRE takes effect.
#[derive(Default)]
struct Conditions {
    only_without: bool,
    only_with: bool,
    only_later: bool,
    only_sooner: bool,
}

impl Conditions {
    fn parse(options: &[&[u8]]) -> Result<Self, Failure> {
        let mut conditions = Self::default();
        for option in options {
            match option {
                _ if is(option, "NX") => conditions.only_without = true,
                _ if is(option, "XX") => conditions.only_with = true,
                _ if is(option, "GT") => conditions.only_later = true,
                _ if is(option, "LT") => conditions.only_sooner = true,
                _ => return Err(Failure::UnsupportedOption(String::from_utf8_lossy(option).into_owned())),
            }
        }
        let Self { only_without, only_with, only_later, only_sooner } = conditions;
        if only_without && (only_with || only_later || only_sooner) {
            Err(Failure::ExpireNotCompatible)
        } else if only_later && only_sooner {
            Err(Failure::ExpireGreaterAndLess)
        } else {
            Ok(conditions)
        }
    }

    /// A key without an expiry lives for ever: nothing is later, everything sooner.
    fn hold(&self, before: Option<i64>, after: i64) -> bool {
        !(self.only_without && before.is_some()
            || self.only_with && before.is_none()
            || self.only_later && before.is_none_or(|before| after <= before)
            || self.only_sooner && before.is_some_and(|before| after >= before))
    }
}

pub(super) fn persist(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let expires = shard.entry(task.key(), task.now).and_then(Entry::expires).is_some();
    if expires {
        shard.expire(task.key(), task.now, None);
    }
    reply.integer(i64::from(expires));
    Ok(())
}
