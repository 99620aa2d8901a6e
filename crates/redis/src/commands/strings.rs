//! Strings and counters.

use super::{Done, Task, is};
use crate::command::Command;
use crate::extended::{self, Parsed};
use crate::failure::{Failure, VALUE_BYTES_MAX};
use crate::number::{parse_integer, write_integer};
use crate::resp::Reply;
use crate::shard::{Change, Milliseconds, Shard};
use crate::value::{Text, Value};

pub(super) fn get(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    reply.bulk_or_null(shard.read::<Text>(task.key(), task.now)?.map(Vec::as_slice));
    Ok(())
}

/// One key of an MGET: what is no string is as good as missing.
pub(super) fn get_or_null(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    reply.bulk_or_null(shard.read::<Text>(task.key(), task.now).ok().flatten().map(Vec::as_slice));
    Ok(())
}

pub(super) fn length(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    reply.count(shard.read::<Text>(task.key(), task.now)?.map_or(0, Vec::len));
    Ok(())
}

/// When a key shall expire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expiry {
    Never,
    Keep,
    /// Its argument, and what that means.
    At {
        text: usize,
        unit: i64,
        absolute: bool,
    },
}

/// The options of SET.
struct Options {
    only_absent: bool,
    only_present: bool,
    get: bool,
    expiry: Expiry,
}

impl Options {
    fn parse(arguments: &[&[u8]]) -> Result<Self, Failure> {
        let mut options = Self { only_absent: false, only_present: false, get: false, expiry: Expiry::Never };
        let mut index = 2;
        while let Some(option) = arguments.get(index) {
            let timed = [("EX", 1000, false), ("PX", 1, false), ("EXAT", 1000, true), ("PXAT", 1, true)]
                .into_iter()
                .find(|(name, ..)| is(option, name));
            if is(option, "NX") && !options.only_present {
                options.only_absent = true;
            } else if is(option, "XX") && !options.only_absent {
                options.only_present = true;
            } else if is(option, "GET") {
                options.get = true;
            } else if is(option, "KEEPTTL") && matches!(options.expiry, Expiry::Never | Expiry::Keep) {
                options.expiry = Expiry::Keep;
            } else if let Some((_, unit, absolute)) = timed
                && index + 1 < arguments.len()
                && options.expiry.may_become(unit, absolute)
            {
                index += 1;
                options.expiry = Expiry::At { text: index, unit, absolute };
            } else {
                return Err(Failure::Syntax);
            }
            index += 1;
        }
        Ok(options)
    }
}

impl Expiry {
    /// The same option may come twice, as in Redis; the last counts.
    fn may_become(self, new_unit: i64, new_absolute: bool) -> bool {
        match self {
            Self::Never => true,
            Self::Keep => false,
            Self::At { unit, absolute, .. } => (unit, absolute) == (new_unit, new_absolute),
        }
    }

    fn time(self, task: Task<'_>) -> Result<Option<Milliseconds>, Failure> {
        let Self::At { text, unit, absolute } = self else { return Ok(None) };
        let invalid = || Failure::InvalidExpire(task.command.facts().name);
        let given = task.integer(text)?;
        if given <= 0 {
            return Err(invalid());
        }
        let span = given.checked_mul(unit).ok_or_else(invalid)?;
        let at = if absolute { span } else { span.checked_add(task.now.0).ok_or_else(invalid)? };
        Ok(Some(Milliseconds(at)))
    }
}

pub(super) fn set(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let options = Options::parse(task.arguments)?;
    let mut expires = options.expiry.time(task)?;
    let present = shard.entry(task.key(), task.now);
    let proceeds = !(options.only_absent && present.is_some() || options.only_present && present.is_none());
    if options.expiry == Expiry::Keep {
        expires = present.and_then(|entry| entry.expires());
    }
    match (options.get, proceeds) {
        (true, _) => get(shard, task, reply)?,
        (false, true) => reply.ok(),
        (false, false) => reply.null(),
    }
    if proceeds {
        shard.set(task.key(), task.now, Value::Text(task.arguments[1].to_vec()), expires);
    }
    Ok(())
}

pub(super) fn get_set(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    get(shard, task, reply)?;
    shard.set(task.key(), task.now, Value::Text(task.arguments[1].to_vec()), None);
    Ok(())
}

pub(super) fn get_delete(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    get(shard, task, reply)?;
    shard.remove(task.key(), task.now);
    Ok(())
}

pub(super) fn set_if_absent(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let absent = shard.entry(task.key(), task.now).is_none();
    if absent {
        shard.set(task.key(), task.now, Value::Text(task.arguments[1].to_vec()), None);
    }
    reply.integer(i64::from(absent));
    Ok(())
}

pub(super) fn append(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let length = shard.update(task.key(), task.now, |text: &mut Text| {
        if text.len() + task.arguments[1].len() > VALUE_BYTES_MAX {
            return Err(Failure::StringTooLong);
        }
        text.extend_from_slice(task.arguments[1]);
        Ok(Change { result: text.len(), changed: true })
    })?;
    reply.count(length);
    Ok(())
}

pub(super) fn increment(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let increment = match task.command {
        Command::Increment => 1,
        Command::Decrement => -1,
        Command::DecrementBy => task.integer(1)?.checked_neg().ok_or(Failure::DecrementOverflow)?,
        _ => task.integer(1)?,
    };
    let present = shard.entry(task.key(), task.now).is_some();
    let sum = shard.update(task.key(), task.now, |text: &mut Text| {
        let value = if present { parse_integer(text).ok_or(Failure::NotInteger)? } else { 0 };
        let sum = value.checked_add(increment).ok_or(Failure::Overflow)?;
        text.clear();
        write_integer(text, sum);
        Ok(Change { result: sum, changed: true })
    })?;
    reply.integer(sum);
    Ok(())
}

pub(super) fn increment_by_float(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let present = shard.entry(task.key(), task.now).is_some();
    let text = shard.update(task.key(), task.now, |text: &mut Text| {
        let value = extended::parse(if present { text } else { b"0" }).ok_or(Failure::NotFloat)?;
        let increment = extended::parse(task.arguments[1]).ok_or(Failure::NotFloat)?;
        let (Parsed::Finite(value), Parsed::Finite(increment)) = (value, increment) else {
            return Err(Failure::NotFinite);
        };
        let sum = value.plus(increment).ok_or(Failure::NotFinite)?;
        text.clear();
        sum.write(text);
        Ok(Change { result: text.clone(), changed: true })
    })?;
    reply.bulk(&text);
    Ok(())
}
