//! How requests are executed, in words: names of presets, and parameters as people write them.
//!
//! ```text
//!   n=64 steps=4 order=quantum:8 flush-rounds=16 predicate=all
//! ```
//! One form for the command line, `cluster.toml` and `status`. What is written can be read back.

use serde_json::{Value, json};
use std::fmt;
use std::str::FromStr;
use unisono_scheduler::presets::Preset;
use unisono_scheduler::{ClassRule, Order, Parameters, Predicate, Scheduler};
use unisono_types::{ScheduleChange, ScheduleClass, ScheduleError, ScheduleOrder, SchedulePredicate};

/// How requests are executed: a preset, with the parameters that the cluster begins with. The same on every replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule(Preset);

impl Default for Schedule {
    fn default() -> Self {
        Self(Preset::named("uds").expect("the preset that suits most loads has this name"))
    }
}

/// There is no preset of this name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no schedule {0:?}: this version has {names}", names = Preset::NAMES.join(", "))]
pub struct UnknownSchedule(String);

impl FromStr for Schedule {
    type Err = UnknownSchedule;

    fn from_str(name: &str) -> Result<Self, UnknownSchedule> {
        Preset::named(name).map(Self).ok_or_else(|| UnknownSchedule(name.into()))
    }
}

impl Schedule {
    /// The preset's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.0.name
    }

    /// The parameters that the cluster begins with; `sequential` has none.
    #[must_use]
    pub fn parameters(&self) -> Option<&Parameters> {
        self.0.scheduler().parameters().map(|_| &self.0.parameters)
    }

    /// The same preset, begun with these changes.
    #[must_use]
    pub fn changed(mut self, change: ScheduleChange) -> Self {
        let ScheduleChange { primaries, steps, order, flush_rounds, predicate } = change;
        let before = self.0.parameters;
        self.0.parameters = Parameters {
            primaries: primaries.unwrap_or(before.primaries),
            steps: steps.unwrap_or(before.steps),
            order: order.map_or(before.order, |order| match order {
                ScheduleOrder::RoundRobin => Order::RoundRobin,
                ScheduleOrder::Quantum(steps) => Order::Quantum(steps),
                ScheduleOrder::Explicit(slots) => Order::Explicit(slots),
            }),
            flush_rounds: flush_rounds.unwrap_or(before.flush_rounds),
            predicate: predicate.map_or(before.predicate, |predicate| match predicate {
                SchedulePredicate::All => Predicate::All,
                SchedulePredicate::FutureLocks => Predicate::FutureLocks,
                SchedulePredicate::Classes(rules) => {
                    let rule = |ScheduleClass { class, every, phase }| ClassRule { class, every, phase };
                    Predicate::Classes(rules.into_iter().map(rule).collect())
                }
            }),
        };
        self
    }

    /// A scheduler at its beginning.
    #[must_use]
    pub fn scheduler(&self) -> Box<dyn Scheduler> {
        self.0.scheduler()
    }

    /// How many handlers may compute before they are primary, if nothing local says otherwise.
    #[must_use]
    pub const fn start_ahead(&self) -> usize {
        if self.0.start_ahead { unisono_execution::Settings::START_AHEAD } else { 0 }
    }
}

/// Why words name no change of parameters. Says what would.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WordError {
    /// Not NAME=VALUE of a known name.
    #[error("{0:?} names no parameter: write n=, steps=, order=, flush-rounds= or predicate=, and a value")]
    Name(String),
    /// A value that the parameter cannot have.
    #[error("{word:?}: {expected}")]
    Value {
        /// What was written.
        word: String,
        /// What may be written.
        expected: &'static str,
    },
    /// The same parameter again.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// Out of bounds.
    #[error(transparent)]
    Bounds(#[from] ScheduleError),
}

/// What the words change. Each parameter may be named once.
///
/// # Errors
/// [`WordError`], which says what may be written.
pub fn change_of<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Result<ScheduleChange, WordError> {
    let mut change = ScheduleChange::default();
    for word in words {
        let word = word.as_ref();
        let (name, value) = word.split_once('=').ok_or_else(|| WordError::Name(word.into()))?;
        let wrong = |expected| WordError::Value { word: word.into(), expected };
        match name {
            "n" => set(&mut change.primaries, "n", number(value, "all").ok_or_else(|| wrong(N))?)?,
            "steps" => set(&mut change.steps, "steps", number(value, "unlimited").ok_or_else(|| wrong(STEPS))?)?,
            "order" => set(&mut change.order, "order", order(value).ok_or_else(|| wrong(ORDER))?)?,
            "flush-rounds" => {
                let rounds = value.parse().map_err(|_| wrong(FLUSH_ROUNDS))?;
                set(&mut change.flush_rounds, "flush-rounds", rounds)?;
            }
            "predicate" => {
                set(&mut change.predicate, "predicate", predicate(value).ok_or_else(|| wrong(PREDICATE))?)?;
            }
            _ => return Err(WordError::Name(word.into())),
        }
    }
    change.check()?;
    Ok(change)
}

const N: &str = "how many threads are primary at once, a number from 1 on, or all";
const STEPS: &str = "how many steps each has in a round, a number from 1 on, or unlimited";
const ORDER: &str = "round-robin, quantum:STEPS, or explicit:SLOT,SLOT,... with slots from 0 to 65535";
const FLUSH_ROUNDS: &str = "how many short rounds one Flush may hold, a number from 1 to 65536";
const PREDICATE: &str = "all, future-locks, or classes:CLASS/EVERY/PHASE,...";

fn set<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), WordError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(WordError::Twice(name)),
    }
}

fn number(value: &str, most: &str) -> Option<u32> {
    if value == most { Some(u32::MAX) } else { value.parse().ok() }
}

fn order(value: &str) -> Option<ScheduleOrder> {
    match value.split_once(':') {
        None if value == "round-robin" => Some(ScheduleOrder::RoundRobin),
        Some(("quantum", steps)) => steps.parse().ok().map(ScheduleOrder::Quantum),
        Some(("explicit", slots)) => {
            slots.split(',').map(|slot| slot.parse().ok()).collect::<Option<_>>().map(ScheduleOrder::Explicit)
        }
        _ => None,
    }
}

fn predicate(value: &str) -> Option<SchedulePredicate> {
    let class = |rule: &str| {
        let (class, rest) = rule.split_once('/')?;
        let (every, phase) = rest.split_once('/')?;
        Some(ScheduleClass { class: class.parse().ok()?, every: every.parse().ok()?, phase: phase.parse().ok()? })
    };
    match value.split_once(':') {
        None if value == "all" => Some(SchedulePredicate::All),
        None if value == "future-locks" => Some(SchedulePredicate::FutureLocks),
        Some(("classes", rules)) => rules.split(',').map(class).collect::<Option<_>>().map(SchedulePredicate::Classes),
        _ => None,
    }
}

/// Parameters in words, as [`change_of`] reads them.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a>(pub &'a Parameters);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parameters { primaries, steps, order, flush_rounds, predicate } = self.0;
        let (n, steps) = (or_word(*primaries, "all"), or_word(*steps, "unlimited"));
        let (order, predicate) = (order_in_words(order), predicate_in_words(predicate));
        write!(f, "n={n} steps={steps} order={order} flush-rounds={flush_rounds} predicate={predicate}")
    }
}

/// Parameters as one JSON object: numbers where there is one.
#[must_use]
pub fn describe(parameters: &Parameters) -> Value {
    let Parameters { primaries, steps, order, flush_rounds, predicate } = parameters;
    let number = |value: u32, most: &str| if value == u32::MAX { json!(most) } else { json!(value) };
    json!({
        "n": number(*primaries, "all"),
        "steps": number(*steps, "unlimited"),
        "order": order_in_words(order),
        "flush_rounds": flush_rounds,
        "predicate": predicate_in_words(predicate),
    })
}

fn or_word(value: u32, most: &str) -> String {
    if value == u32::MAX { most.into() } else { value.to_string() }
}

fn order_in_words(order: &Order) -> String {
    match order {
        Order::RoundRobin => "round-robin".into(),
        Order::Quantum(steps) => format!("quantum:{steps}"),
        Order::Explicit(slots) => format!("explicit:{}", joined(slots, ToString::to_string)),
    }
}

fn predicate_in_words(predicate: &Predicate) -> String {
    match predicate {
        Predicate::All => "all".into(),
        Predicate::FutureLocks => "future-locks".into(),
        Predicate::Classes(rules) => {
            format!("classes:{}", joined(rules, |rule| format!("{}/{}/{}", rule.class, rule.every, rule.phase)))
        }
    }
}

fn joined<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    items.iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(words: &[&str]) -> String {
        change_of(words).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "n=64 steps=4 order=round-robin flush-rounds=16 predicate=all",
            "n=all steps=unlimited order=quantum:8 flush-rounds=1 predicate=future-locks",
            "n=3 steps=1 order=explicit:0,1,1,2 flush-rounds=65536 predicate=classes:1/2/0,7/3/1",
        ] {
            let schedule = Schedule::default().changed(change_of(text.split(' ')).unwrap());
            assert_eq!(Words(schedule.parameters().unwrap()).to_string(), text);
        }
        let described = describe(Schedule::default().changed(change_of(["n=all"]).unwrap()).parameters().unwrap());
        assert_eq!((&described["n"], &described["steps"]), (&json!("all"), &json!(4)));
    }

    #[test]
    fn what_is_not_named_stays() {
        let changed = Schedule::default().changed(change_of(["steps=9"]).unwrap());
        let expected = Parameters { steps: 9, ..Parameters::uds() };
        assert_eq!(changed.parameters(), Some(&expected));
    }

    #[test]
    fn words_that_name_nothing_are_refused_with_what_would() {
        assert!(error(&["n"]).contains("write n=, steps=, order="));
        assert!(error(&["speed=9"]).contains("\"speed=9\" names no parameter"));
        assert!(error(&["n=many"]).contains("\"n=many\": how many threads are primary"));
        assert!(error(&["n=0"]).contains("begin at 1"));
        assert!(error(&["steps=-1"]).contains("unlimited"));
        assert!(error(&["steps=1", "steps=1"]).contains("twice"));
        assert!(error(&["order=quantum:"]).contains("quantum:STEPS"));
        assert!(error(&["order=explicit:0,,1"]).contains("explicit:SLOT"));
        assert!(error(&["order=explicit:0,70000"]).contains("65535"));
        assert!(error(&["flush-rounds=70000"]).contains("at most 65536"));
        assert!(error(&["predicate=classes:1/2"]).contains("CLASS/EVERY/PHASE"));
        assert!(error(&["predicate=classes:1/0/0"]).contains("begin at 1"));
        assert!(error(&[]).contains("nothing is to be changed"));
    }

    #[test]
    fn every_preset_has_a_schedule_and_only_the_sequential_one_no_parameters() {
        for name in Preset::NAMES {
            let schedule: Schedule = name.parse().unwrap();
            assert_eq!(schedule.name(), name);
            assert_eq!(schedule.parameters().is_none(), name == "sequential");
            assert_eq!(schedule.start_ahead() == 0, ["sequential", "sat"].contains(&name), "{name}");
        }
        let unknown = "magic".parse::<Schedule>().unwrap_err().to_string();
        assert!(unknown.contains("magic") && unknown.contains("round-robin"), "{unknown}");
    }
}
