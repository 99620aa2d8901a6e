//! What the store should do, one operation at a time.

use super::{StoreAnswer, StoreOperation, pop, push};
use crate::linear::Model;
use crate::outside;
use StoreAnswer::{Done, Nothing, Number, Told};
use std::collections::BTreeMap;

/// What the store does when nothing else is under way.
#[derive(Debug)]
pub struct StoreModel;

/// The state of one part.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Part {
    number: u64,
    lists: BTreeMap<u32, Vec<u64>>,
}

impl Model for StoreModel {
    type State = Part;
    type Input = StoreOperation;
    type Output = StoreAnswer;

    fn step(state: &mut Part, input: &StoreOperation) -> StoreAnswer {
        use StoreOperation as Op;
        match input {
            Op::Read(_) | Op::Hold(..) | Op::Sum(_) | Op::TrySum(_) | Op::SumDeclared(_) => Number(state.number),
            Op::Write(_, new) | Op::TryWrite(_, new) | Op::WriteWithin(_, new, _) => {
                state.number = *new;
                Done(true)
            }
            Op::Exchange(_, new) | Op::ExchangeDeclared(_, new) => Number(std::mem::replace(&mut state.number, *new)),
            Op::CompareAndSet(_, expected, new) => {
                let equal = state.number == *expected;
                if equal {
                    state.number = *new;
                }
                Done(equal)
            }
            Op::Consult(_, question) => {
                state.number = outside::truth(&question.bytes());
                Told(Ok(state.number.to_le_bytes().to_vec()))
            }
            Op::Add(_, amount) | Op::AddLater(_, amount, _) | Op::TryAdd(_, amount) => {
                state.number = state.number.wrapping_add(*amount);
                Number(state.number)
            }
            Op::Push(list, value) => Number(push(state.lists.entry(*list).or_default(), *value)),
            Op::Pop(list) | Op::Take(list, _) => state.take(*list).map_or(Nothing, Number),
            Op::Move(from, to) | Op::MoveCarelessly(from, to) | Op::MoveDeclared(from, to) => match state.take(*from) {
                None => Nothing,
                Some(value) => {
                    push(state.lists.entry(*to).or_default(), value);
                    Number(value)
                }
            },
            // Of these a history tells nothing: they are checked one by one.
            Op::Tally(_)
            | Op::Panic
            | Op::Overreach(_)
            | Op::Ask(_)
            | Op::Handover(_)
            | Op::Bereave
            | Op::Enter(..)
            | Op::Reconfigure(_)
            | Op::Carry(_) => Nothing,
        }
    }
}

impl Part {
    fn take(&mut self, list: u32) -> Option<u64> {
        self.lists.get_mut(&list).and_then(|list| pop(list, ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{Operation, Verdict, check};

    fn done(
        called: u64,
        at: u64,
        input: StoreOperation,
        output: StoreAnswer,
    ) -> Operation<StoreOperation, StoreAnswer> {
        Operation { client: 0, called, input, returned: Some((at, output)) }
    }

    #[test]
    fn a_lost_push_and_a_doubled_pop_are_seen() {
        let push = done(0, 1, StoreOperation::Push(0, 7), Number(1));
        let pop = |called, answer| done(called, called + 1, StoreOperation::Pop(0), answer);
        assert_eq!(check::<StoreModel>(&[push.clone(), pop(2, Number(7)), pop(4, Nothing)]), Verdict::Linearizable);
        assert!(matches!(check::<StoreModel>(&[push.clone(), pop(2, Nothing)]), Verdict::Violated(_)));
        let twice = [push, pop(2, Number(7)), pop(4, Number(7))];
        assert!(matches!(check::<StoreModel>(&twice), Verdict::Violated(_)));
    }

    #[test]
    fn a_take_that_gives_up_must_have_met_an_empty_list() {
        let push = done(0, 1, StoreOperation::Push(0, 7), Number(1));
        let take = |called, at| done(called, at, StoreOperation::Take(0, 50), Nothing);
        assert!(matches!(check::<StoreModel>(&[push.clone(), take(2, 9)]), Verdict::Violated(_)));
        assert_eq!(
            check::<StoreModel>(&[done(5, 6, StoreOperation::Push(0, 7), Number(1)), take(2, 9)]),
            Verdict::Linearizable
        );
    }

    #[test]
    fn an_element_that_moves_is_nowhere_else() {
        let history = [
            done(0, 1, StoreOperation::Push(0, 7), Number(1)),
            done(2, 3, StoreOperation::Move(0, 1), Number(7)),
            done(4, 5, StoreOperation::Pop(0), Number(7)),
        ];
        assert!(matches!(check::<StoreModel>(&history), Verdict::Violated(_)));
    }
}
