//! A change of the schedule as `types` orders it, and as the scheduler knows it.

use unisono_scheduler::{Change, ClassRule, Order, Predicate};
use unisono_types::{ScheduleChange, ScheduleClass, ScheduleOrder, SchedulePredicate};

pub(super) fn change(change: ScheduleChange) -> Change {
    let ScheduleChange { primaries, steps, order, flush_rounds, predicate } = change;
    Change { primaries, steps, order: order.map(self::order), flush_rounds, predicate: predicate.map(self::predicate) }
}

fn order(order: ScheduleOrder) -> Order {
    match order {
        ScheduleOrder::RoundRobin => Order::RoundRobin,
        ScheduleOrder::Quantum(steps) => Order::Quantum(steps),
        ScheduleOrder::Explicit(slots) => Order::Explicit(slots),
    }
}

fn predicate(predicate: SchedulePredicate) -> Predicate {
    match predicate {
        SchedulePredicate::All => Predicate::All,
        SchedulePredicate::Classes(rules) => {
            let rule = |ScheduleClass { class, every, phase }| ClassRule { class, every, phase };
            Predicate::Classes(rules.into_iter().map(rule).collect())
        }
        SchedulePredicate::FutureLocks => Predicate::FutureLocks,
    }
}
