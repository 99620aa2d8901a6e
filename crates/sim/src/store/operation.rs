//! What clients ask the store for, what they may be answered, and which of the service's possibilities that has used.

use super::{LISTS, REGISTERS, ROOM, TOTALS};
use crate::{Random, outside};
use unisono_execution::CallError;
use unisono_types::Fault;
use unisono_types::borsh::{BorshDeserialize, BorshSerialize};

/// What a client may ask for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub enum StoreOperation {
    /// The value of a register.
    Read(u32),
    /// Sets it.
    Write(u32, u64),
    /// Sets it; answers what was there.
    Exchange(u32, u64),
    /// Sets it if it has the first value.
    CompareAndSet(u32, u64, u64),
    /// A total.
    Sum(u8),
    /// Adds to it; answers what it is then.
    Add(u8, u64),
    /// Sleeps so many microseconds, then adds.
    AddLater(u8, u64, u64),
    /// Appends to a list; answers its length.
    Push(u32, u64),
    /// Takes the first of a list, if there is one.
    Pop(u32),
    /// Takes the first of a list; waits so many microseconds for one.
    Take(u32, u64),
    /// Moves the first of one list to the end of another, both locked in ascending order.
    Move(u32, u32),
    /// The same, locked as they come, which may be a deadlock.
    MoveCarelessly(u32, u32),
    /// Notes that this request ran, after that many yields; answers how often it has.
    Tally(u8),
    /// Panics.
    Panic,
    /// The value of a register, which it keeps to itself for so many microseconds.
    Hold(u32, u64),
    /// Sets a register if nobody owns it.
    TryWrite(u32, u64),
    /// Sets a register if it can be had within so many microseconds.
    WriteWithin(u32, u64, u64),
    /// A total if nobody writes it.
    TrySum(u8),
    /// Adds to it if nobody owns it.
    TryAdd(u8, u64),
    /// Sets a register, in the declared lane; answers what was there.
    ExchangeDeclared(u32, u64),
    /// A total, in the declared lane.
    SumDeclared(u8),
    /// Moves the first of one list to the end of another, in the declared lane.
    MoveDeclared(u32, u32),
    /// Declares a register and locks another one.
    Overreach(u32),
    /// Asks outside and puts what was said into a register, which it owns meanwhile.
    Consult(u32, Question),
    /// Asks outside.
    Ask(Question),
    /// A child brings a value, for which its parent waits.
    Handover(u64),
    /// A child panics; answers whether its parent learnt that.
    Bereave,
    /// Goes into a room that holds [`ROOM`], within so many microseconds; stays there for as many as the second number
    /// says, and answers how many were in it.
    Enter(u64, u64),
    /// Changes the schedule's parameters, by chance from this number.
    Reconfigure(u64),
    /// Brings so many bytes; answers their [`sum`].
    Carry(Vec<u8>),
}

/// What somebody outside is asked.
#[derive(Clone, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct Question {
    /// Whom: one of [`outside::TARGETS`].
    pub target: u8,
    /// What.
    pub word: u64,
    /// For how many microseconds to wait.
    pub patience: Option<u64>,
    /// Whether a child asks.
    pub by_child: bool,
}

/// What a client is answered.
#[derive(Clone, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub enum StoreAnswer {
    /// A number.
    Number(u64),
    /// Nothing there.
    Nothing,
    /// It was done, or not.
    Done(bool),
    /// A lock could not be had; nothing was changed.
    Refused,
    /// What the outside said. If it was no answer, nothing was changed.
    Told(Result<Vec<u8>, CallError>),
}

use StoreAnswer::{Done, Nothing, Number, Refused, Told};

/// What encoding adds to the bytes of a large operation.
const LARGE_OVERHEAD: usize = 5;

/// Tells bytes from others.
#[must_use]
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().map(|byte| u64::from(*byte));
    words.chain(rest).fold(bytes.len() as u64, |sum, word| sum.rotate_left(5) ^ word)
}

/// Longest wait for an element of a list, and longest nap.
const PATIENCE_MAX: u64 = 1_500_000;

/// Longest wait for the outside of who owns a register: a few of them, one behind the other, must end in time.
const OWNERS_PATIENCE_MAX: u64 = 700_000;

/// How long a register is kept at the most.
const HOLD_MAX: u64 = 100_000;

/// What can be used of scheduler and executor by a handler. Each of it has to be seen in a run of some seeds.
pub const USES: [&str; 30] = [
    "calls-answered",
    "calls-by-children",
    "calls-late",
    "calls-owning-a-lock",
    "calls-refused",
    "calls-to-nobody",
    "calls-too-large",
    "calls-without-time-out",
    "children",
    "children-that-panic",
    "deadlocks",
    "declared-moves",
    "declared-reads",
    "declared-writes",
    "locks-in-time",
    "locks-nested",
    "locks-not-in-time",
    "not-declared",
    "notified",
    "panics",
    "permits",
    "permits-not-in-time",
    "reads",
    "reconfigurations",
    "sleeps",
    "tries",
    "tries-refused",
    "waits-not-in-time",
    "writes",
    "yields",
];

impl Question {
    /// What is said to the target.
    #[must_use]
    pub fn bytes(&self) -> [u8; 8] {
        self.word.to_le_bytes()
    }

    /// The target's name.
    #[must_use]
    pub fn target(&self) -> &'static str {
        outside::TARGETS[usize::from(self.target) % outside::TARGETS.len()]
    }

    fn may_be_told(&self, answer: &Result<Vec<u8>, CallError>) -> bool {
        match answer {
            Err(CallError::TimedOut) => self.patience.is_some(),
            Err(CallError::Refused(refused)) => outside::may_say(self.target(), &self.bytes(), &Err(refused)),
            Ok(bytes) => outside::may_say(self.target(), &self.bytes(), &Ok(bytes)),
        }
    }

    fn uses(&self, answer: &Result<Vec<u8>, CallError>) -> Vec<&'static str> {
        use unisono_types::CallRefused;
        let mut uses = vec![match answer {
            Ok(_) => "calls-answered",
            Err(CallError::TimedOut) => "calls-late",
            Err(CallError::Refused(CallRefused::Unknown)) => "calls-to-nobody",
            Err(CallError::Refused(CallRefused::Failed(_))) => "calls-refused",
            Err(CallError::Refused(CallRefused::TooLarge)) => "calls-too-large",
        }];
        uses.extend(self.by_child.then_some("calls-by-children"));
        uses.extend(self.patience.is_none().then_some("calls-without-time-out"));
        uses
    }

    /// One for a handler that owns a register: it waits for a limited time, for somebody who says numbers if anything.
    fn draw_of_owner(random: &mut Random, word: u64) -> Self {
        let target = random.pick(&outside::THAT_SAY_NUMBERS);
        let patience = Some(random.below(OWNERS_PATIENCE_MAX));
        Self { target, word, patience, by_child: random.chance(300) }
    }

    /// Without a time-out only who answers everybody alike is asked.
    fn draw(random: &mut Random) -> Self {
        let word = random.next_u64();
        let by_child = random.chance(300);
        if random.chance(300) {
            return Self { target: random.pick(&outside::THAT_AGREE), word, patience: None, by_child };
        }
        let target = random.below(outside::TARGETS.len() as u64) as u8;
        Self { target, word, patience: Some(random.below(PATIENCE_MAX)), by_child }
    }
}

impl StoreOperation {
    /// Any operation whose effect a history can tell; `unique` is what it writes.
    pub fn draw(random: &mut Random, unique: u64) -> Self {
        let register = random.below(REGISTERS) as u32;
        let total = random.below(TOTALS as u64) as u8;
        let (list, other) = (random.below(LISTS) as u32, random.below(LISTS) as u32);
        let wait = random.below(PATIENCE_MAX);
        match random.below(20) {
            0..=2 => Self::Read(register),
            3 | 4 => Self::Write(register, unique),
            5 => Self::Exchange(register, unique),
            6 => Self::CompareAndSet(register, 0, unique),
            7 => Self::Sum(total),
            8 | 9 => Self::Add(total, unique),
            10 => Self::AddLater(total, unique, wait / 10),
            11..=13 => Self::Push(list, unique),
            14 => Self::Pop(list),
            15 | 16 => Self::Take(list, wait),
            17 => Self::Move(list, other),
            _ => Self::MoveCarelessly(list, other),
        }
    }

    /// What a history can tell of, too, but was thought of later: seeds from before must go on doing the same.
    pub fn draw_more(random: &mut Random, unique: u64) -> Self {
        let register = random.below(REGISTERS) as u32;
        // Who keeps something must meet who would not wait for it.
        let contended = random.below(REGISTERS / 2) as u32;
        let total = random.below(TOTALS as u64) as u8;
        let list = random.below(LISTS) as u32;
        let wait = random.below(HOLD_MAX);
        match random.below(14) {
            0 | 1 => Self::Hold(contended, wait),
            2 | 3 => Self::TryWrite(contended, unique),
            4 => Self::WriteWithin(contended, unique, wait / 10),
            5 => Self::TrySum(total),
            6 => Self::TryAdd(total, unique),
            7 | 8 => Self::ExchangeDeclared(register, unique),
            9 => Self::SumDeclared(total),
            10 | 11 => Self::MoveDeclared(list, (list + 1 + random.below(LISTS - 1) as u32) % LISTS as u32),
            _ => Self::Consult(contended, Question::draw_of_owner(random, unique)),
        }
    }

    /// Something for a client that has many requests under way.
    pub fn draw_busy(random: &mut Random) -> Self {
        match random.below(30) {
            0 => Self::Panic,
            1 | 2 => Self::AddLater(0, 0, random.below(300_000)),
            3 => Self::Take(LISTS as u32, random.below(300_000)),
            _ => Self::Tally(random.below(3) as u8),
        }
    }

    /// The same, thought of later. The register and the lists behind those of histories are for quarrels only.
    pub fn draw_more_busy(random: &mut Random) -> Self {
        let (register, list) = (REGISTERS as u32, LISTS as u32 + 1);
        let wait = random.below(HOLD_MAX / 2);
        match random.below(20) {
            0 => Self::Overreach(random.below(REGISTERS) as u32),
            1 | 2 => Self::Handover(random.next_u64()),
            3 => Self::Bereave,
            4..=6 => Self::Enter(wait / 10, random.below(HOLD_MAX)),
            7 => Self::Reconfigure(random.next_u64()),
            8 | 9 => Self::MoveCarelessly(list, list + 1),
            10 | 11 => Self::MoveCarelessly(list + 1, list),
            12 => Self::Hold(register, wait),
            13 => Self::TryWrite(register, 0),
            14 => Self::WriteWithin(register, 0, wait / 10),
            _ => Self::Ask(Question::draw(random)),
        }
    }

    /// A large one: of any size up to this limit, and often of just that.
    pub fn draw_large(random: &mut Random, limit: usize) -> Self {
        let most = limit - LARGE_OVERHEAD;
        let smaller = most >> random.below(6);
        let bytes = if random.chance(300) { most } else { random.index(smaller) };
        let word = random.next_u64().to_le_bytes();
        Self::Carry(word.into_iter().cycle().take(bytes).collect())
    }

    /// Which part of the history it belongs to; parts cannot influence each other.
    #[must_use]
    pub const fn part(&self) -> Option<(u8, u32)> {
        match self {
            Self::Read(key)
            | Self::Write(key, _)
            | Self::Exchange(key, _)
            | Self::CompareAndSet(key, _, _)
            | Self::Hold(key, _)
            | Self::TryWrite(key, _)
            | Self::WriteWithin(key, _, _)
            | Self::ExchangeDeclared(key, _)
            | Self::Consult(key, _) => Some((0, *key)),
            Self::Sum(total)
            | Self::Add(total, _)
            | Self::AddLater(total, _, _)
            | Self::TrySum(total)
            | Self::TryAdd(total, _)
            | Self::SumDeclared(total) => Some((1, *total as u32)),
            Self::Push(..)
            | Self::Pop(_)
            | Self::Take(..)
            | Self::Move(..)
            | Self::MoveCarelessly(..)
            | Self::MoveDeclared(..) => Some((2, 0)),
            Self::Tally(_)
            | Self::Panic
            | Self::Overreach(_)
            | Self::Ask(_)
            | Self::Handover(_)
            | Self::Bereave
            | Self::Enter(..)
            | Self::Carry(_)
            | Self::Reconfigure(_) => None,
        }
    }

    /// Whether it may be refused, with nothing changed: lists are what is locked two at a time.
    #[must_use]
    pub const fn may_meet_deadlock(&self) -> bool {
        matches!(self.part(), Some((2, _)))
    }

    /// Whether it may come to this, whatever else is under way; a history says the rest.
    #[must_use]
    pub fn may_come_to(&self, outcome: &Result<StoreAnswer, Fault>) -> bool {
        match (self, outcome) {
            (Self::Panic, outcome) => matches!(outcome, Err(Fault::Panicked { .. })),
            (Self::Overreach(_), outcome) => matches!(outcome, Err(Fault::NotDeclared { .. })),
            (_, Err(_)) => false,
            (Self::Consult(_, question) | Self::Ask(question), Ok(Told(told))) => question.may_be_told(told),
            (Self::Handover(value), Ok(answer)) => *answer == Number(*value),
            (Self::Carry(bytes), Ok(answer)) => *answer == Number(sum(bytes)),
            (Self::Enter(..), Ok(answer)) => matches!(answer, Number(1..=ROOM) | Nothing),
            (Self::Bereave | Self::Reconfigure(_), Ok(answer)) => *answer == Done(true),
            (_, Ok(_)) => true,
        }
    }

    /// Whether with this answer it has changed nothing and seen nothing: then a history does not tell of it.
    #[must_use]
    pub const fn left_no_trace(&self, answer: &StoreAnswer) -> bool {
        match self {
            Self::TryWrite(..) | Self::WriteWithin(..) | Self::TrySum(_) | Self::TryAdd(..) => {
                matches!(answer, Refused)
            }
            Self::Consult(..) => matches!(answer, Told(Err(_))),
            _ => self.may_meet_deadlock() && matches!(answer, Refused),
        }
    }

    /// What it has used for certain when it has come to this: some of [`USES`].
    #[must_use]
    pub fn uses(&self, outcome: &Result<StoreAnswer, Fault>) -> Vec<&'static str> {
        let Ok(answer) = outcome else {
            return match self {
                Self::Panic => vec!["panics"],
                Self::Overreach(_) => vec!["not-declared"],
                _ => Vec::new(),
            };
        };
        match (self, answer) {
            (Self::MoveCarelessly(from, to), Refused) if from != to => vec!["deadlocks"],
            (Self::Move(..) | Self::MoveCarelessly(..), Number(_)) => vec!["locks-nested"],
            (Self::Sum(_), _) => vec!["reads"],
            (Self::Add(..), _) => vec!["writes"],
            (Self::AddLater(_, _, 1..) | Self::Hold(_, 1..), _) => vec!["sleeps"],
            (Self::Tally(1..), _) => vec!["yields"],
            (Self::Take(_, 1..), Nothing) => vec!["waits-not-in-time"],
            (Self::TryWrite(..) | Self::TrySum(_) | Self::TryAdd(..), Refused) => vec!["tries-refused"],
            (Self::TryWrite(..) | Self::TrySum(_) | Self::TryAdd(..), _) => vec!["tries"],
            (Self::WriteWithin(..), Refused) => vec!["locks-not-in-time"],
            (Self::WriteWithin(..), _) => vec!["locks-in-time"],
            (Self::ExchangeDeclared(..), _) => vec!["declared-writes"],
            (Self::SumDeclared(_), _) => vec!["declared-reads"],
            (Self::MoveDeclared(..), Number(_)) => vec!["declared-moves"],
            (Self::Handover(_), _) => vec!["children", "notified"],
            (Self::Bereave, _) => vec!["children-that-panic"],
            (Self::Enter(..), Number(_)) => vec!["permits"],
            (Self::Enter(..), Nothing) => vec!["permits-not-in-time"],
            (Self::Reconfigure(_), _) => vec!["reconfigurations"],
            (Self::Ask(question), Told(told)) => question.uses(told),
            (Self::Consult(_, question), Told(told)) => {
                let mut uses = question.uses(told);
                uses.push("calls-owning-a-lock");
                uses
            }
            _ => Vec::new(),
        }
    }

    /// Reads of everything that a history can tell about, for its end.
    #[must_use]
    pub fn reads() -> Vec<Self> {
        let registers = (0..REGISTERS as u32).map(Self::Read);
        registers.chain((0..TOTALS as u8).map(Self::Sum)).chain((0..LISTS as u32).map(Self::Pop)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use unisono_execution::Service;
    use unisono_types::{CallRefused, encode};

    #[test]
    fn operations_of_every_part_are_drawn() {
        let mut random = Random::new(1);
        for draw in [StoreOperation::draw, StoreOperation::draw_more] {
            let drawn: Vec<StoreOperation> = (0..500).map(|unique| draw(&mut random, unique)).collect();
            for part in 0..3 {
                assert!(drawn.iter().any(|operation| operation.part().is_some_and(|(kind, _)| kind == part)));
            }
            assert!(drawn.iter().all(|operation| operation.part().is_some()));
        }
        assert_eq!(Store::handler(&encode(&StoreOperation::Panic)), "panic");
        assert_eq!(Store::handler(&encode(&StoreOperation::Push(1, 1))), "list");
        assert_eq!(Store::handler(&encode(&StoreOperation::Sum(1))), "total");
        assert_eq!(Store::handler(&encode(&StoreOperation::Reconfigure(1))), "more");
    }

    #[test]
    fn what_the_outside_never_said_is_no_answer() {
        let question = Question { target: 0, word: 7, patience: None, by_child: false };
        let asked = |question: &Question, told| StoreOperation::Ask(question.clone()).may_come_to(&Ok(Told(told)));
        let truth = outside::truth(&question.bytes()).to_le_bytes().to_vec();
        assert!(asked(&question, Ok(truth)));
        assert!(!asked(&question, Ok(vec![0; 8])) && !asked(&question, Err(CallError::Refused(CallRefused::Unknown))));
        assert!(!asked(&question, Err(CallError::TimedOut)), "it had no time-out");
        assert!(asked(&Question { patience: Some(1), ..question }, Err(CallError::TimedOut)));
    }

    #[test]
    fn large_operations_reach_the_limit_and_never_pass_it() {
        let mut random = Random::new(1);
        let drawn = (0..40).map(|_| encode(&StoreOperation::draw_large(&mut random, 1_000)).len());
        assert_eq!(drawn.max(), Some(1_000));
        let carried = StoreOperation::Carry(vec![1, 2, 3]);
        assert!(carried.may_come_to(&Ok(Number(sum(&[1, 2, 3])))) && !carried.may_come_to(&Ok(Number(sum(&[1, 2])))));
    }

    #[test]
    fn a_room_that_is_too_full_and_a_value_from_nowhere_are_seen() {
        assert!(StoreOperation::Enter(0, 0).may_come_to(&Ok(Number(ROOM))));
        assert!(!StoreOperation::Enter(0, 0).may_come_to(&Ok(Number(ROOM + 1))));
        assert!(!StoreOperation::Handover(3).may_come_to(&Ok(Number(4))));
        assert!(!StoreOperation::Overreach(0).may_come_to(&Ok(Done(true))), "it must not come through");
    }
}
