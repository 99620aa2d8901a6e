//! Sorted sets.

use super::{Done, Task, is, positions};
use crate::command::Command;
use crate::failure::Failure;
use crate::number::{parse_double, parse_integer};
use crate::resp::{Reply, Version};
use crate::shard::{Change, Shard};
use crate::value::{LexBound, ScoreBound, SortedSet};

/// The options of ZADD; ZINCRBY is `ZADD INCR`.
#[derive(Default)]
struct AddOptions {
    only_absent: bool,
    only_present: bool,
    only_greater: bool,
    only_less: bool,
    count_changed: bool,
    increment: bool,
}

impl AddOptions {
    /// The options, and the scores and members behind them.
    fn parse<'a>(arguments: &'a [&'a [u8]]) -> Result<(Self, &'a [&'a [u8]]), Failure> {
        let mut options = Self::default();
        let mut rest = arguments;
        while let [option, tail @ ..] = rest {
            match option {
                _ if is(option, "NX") => options.only_absent = true,
                _ if is(option, "XX") => options.only_present = true,
                _ if is(option, "GT") => options.only_greater = true,
                _ if is(option, "LT") => options.only_less = true,
                _ if is(option, "CH") => options.count_changed = true,
                _ if is(option, "INCR") => options.increment = true,
                _ => break,
            }
            rest = tail;
        }
        let Self { only_absent, only_present, only_greater, only_less, increment, .. } = options;
        if rest.is_empty() || rest.len() % 2 == 1 {
            Err(Failure::Syntax)
        } else if only_absent && only_present {
            Err(Failure::AddNotCompatible)
        } else if only_absent && (only_greater || only_less) || only_greater && only_less {
            Err(Failure::AddGreaterLessNotCompatible)
        } else if increment && rest.len() > 2 {
            Err(Failure::IncrementSingle)
        } else {
            Ok((options, rest))
        }
    }

    /// The score that a member shall have, given what it has; nothing: it stays as it is.
    fn outcome(&self, before: Option<f64>, score: f64) -> Result<Option<f64>, Failure> {
        let Some(before) = before else { return Ok((!self.only_present).then_some(score)) };
        if self.only_absent {
            return Ok(None);
        }
        let score = if self.increment { before + score } else { score };
        if score.is_nan() {
            return Err(Failure::ScoreNotNumber);
        }
        let refused = self.only_less && score >= before || self.only_greater && score <= before;
        Ok((!refused).then_some(score))
    }
}

pub(super) fn add(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let (options, pairs) = match task.command {
        Command::SortedIncrementBy => (AddOptions { increment: true, ..AddOptions::default() }, &task.arguments[1..]),
        _ => AddOptions::parse(&task.arguments[1..])?,
    };
    let mut additions = Vec::with_capacity(pairs.len() / 2);
    for [score, member] in pairs.as_chunks::<2>().0 {
        additions.push((parse_double(score).ok_or(Failure::NotFloat)?, *member));
    }
    let (added, updated, last) = shard.update(task.key(), task.now, |set: &mut SortedSet| {
        let (mut added, mut updated, mut last) = (0, 0, None);
        for (score, member) in additions {
            let before = set.score(member);
            last = options.outcome(before, score)?;
            match (before, last) {
                (_, None) => {}
                (None, Some(score)) => {
                    set.insert(member, score);
                    added += 1;
                }
                (Some(before), Some(score)) if before != score => {
                    set.insert(member, score);
                    updated += 1;
                }
                (Some(_), Some(_)) => {}
            }
        }
        Ok(Change { result: (added, updated, last), changed: added + updated > 0 })
    })?;
    match (options.increment, last) {
        (true, Some(score)) => reply.double(score),
        (true, None) => reply.null(),
        (false, _) => reply.integer(if options.count_changed { added + updated } else { added }),
    }
    Ok(())
}

pub(super) fn remove(shard: &mut Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let removed = shard.update(task.key(), task.now, |set: &mut SortedSet| {
        let removed = task.arguments[1..].iter().filter(|member| set.remove(member)).count();
        Ok(Change { result: removed, changed: removed > 0 })
    })?;
    reply.count(removed);
    Ok(())
}

pub(super) fn score(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let set = shard.read::<SortedSet>(task.key(), task.now)?;
    match set.and_then(|set| set.score(task.arguments[1])) {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
    Ok(())
}

pub(super) fn cardinality(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    reply.count(shard.read::<SortedSet>(task.key(), task.now)?.map_or(0, SortedSet::len));
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// The options of ZRANGE.
struct RangeOptions {
    by: By,
    reverse: bool,
    with_scores: bool,
    offset: i64,
    limit: i64,
}

impl RangeOptions {
    fn parse(arguments: &[&[u8]]) -> Result<Self, Failure> {
        let mut options = Self { by: By::Rank, reverse: false, with_scores: false, offset: 0, limit: -1 };
        let mut rest = arguments;
        while let [option, tail @ ..] = rest {
            rest = tail;
            match option {
                _ if is(option, "WITHSCORES") => options.with_scores = true,
                _ if is(option, "LIMIT") && tail.len() >= 2 => {
                    options.offset = parse_integer(tail[0]).ok_or(Failure::NotInteger)?;
                    options.limit = parse_integer(tail[1]).ok_or(Failure::NotInteger)?;
                    rest = &tail[2..];
                }
                _ if is(option, "REV") && !options.reverse => options.reverse = true,
                _ if is(option, "BYLEX") && options.by == By::Rank => options.by = By::Lex,
                _ if is(option, "BYSCORE") && options.by == By::Rank => options.by = By::Score,
                _ => return Err(Failure::Syntax),
            }
        }
        if options.limit != -1 && options.by == By::Rank {
            Err(Failure::LimitAlone)
        } else if options.with_scores && options.by == By::Lex {
            Err(Failure::ScoresByLex)
        } else {
            Ok(options)
        }
    }

    /// What LIMIT leaves of a range: nothing with a negative offset, all with a negative count.
    fn limited<T>(&self, members: impl Iterator<Item = T>) -> Vec<T> {
        let Ok(offset) = usize::try_from(self.offset) else { return Vec::new() };
        members.skip(offset).take(usize::try_from(self.limit).unwrap_or(usize::MAX)).collect()
    }
}

fn score_bound(text: &[u8]) -> Result<ScoreBound, Failure> {
    let (exclusive, number) = match text {
        [b'(', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    // as strtod: nothing is 0, and what is too large is infinite
    let score =
        if number.is_empty() { Some(0.0) } else { core::str::from_utf8(number).ok().and_then(|it| it.parse().ok()) };
    match score {
        Some(score) if !f64::is_nan(score) => Ok(ScoreBound { score, exclusive }),
        _ => Err(Failure::BoundNotFloat),
    }
}

fn lex_bound(text: &[u8]) -> Result<LexBound<'_>, Failure> {
    match text {
        b"-" => Ok(LexBound::Minimum),
        b"+" => Ok(LexBound::Maximum),
        [b'[', rest @ ..] => Ok(LexBound::Inclusive(rest)),
        [b'(', rest @ ..] => Ok(LexBound::Exclusive(rest)),
        _ => Err(Failure::BoundNotString),
    }
}

pub(super) fn range(shard: &Shard, task: Task<'_>, reply: &mut Reply) -> Done {
    let options = RangeOptions::parse(&task.arguments[3..])?;
    let (first, second) = (task.arguments[1], task.arguments[2]);
    let (low, high) = if options.reverse { (second, first) } else { (first, second) };
    let set = || shard.read::<SortedSet>(task.key(), task.now);
    let members = match options.by {
        By::Rank => {
            let (start, end) = (task.integer(1)?, task.integer(2)?);
            set()?.map(|set| {
                let positions = positions(start, end, set.len());
                let (skipped, taken) = (positions.start, positions.len());
                if options.reverse {
                    set.iter().rev().skip(skipped).take(taken).collect()
                } else {
                    set.iter().skip(skipped).take(taken).collect()
                }
            })
        }
        By::Score => {
            let (low, high) = (score_bound(low)?, score_bound(high)?);
            set()?.map(|set| {
                let members = set.by_score(low, high);
                if options.reverse { options.limited(members.rev()) } else { options.limited(members) }
            })
        }
        By::Lex => {
            let (low, high) = (lex_bound(low)?, lex_bound(high)?);
            set()?.map(|set| options.limited(set.by_lex(low, high, options.reverse).into_iter()))
        }
    };
    write_members(reply, &members.unwrap_or_default(), options.with_scores);
    Ok(())
}

/// Version 3 pairs members with their scores, version 2 strings them together.
fn write_members(reply: &mut Reply, members: &[(&[u8], f64)], with_scores: bool) {
    let paired = with_scores && reply.version() == Version::Three;
    reply.array(if with_scores && !paired { 2 * members.len() } else { members.len() });
    for (member, score) in members {
        if paired {
            reply.array(2);
        }
        reply.bulk(member);
        if with_scores {
            reply.double(*score);
        }
    }
}
