//! One seed, from its plan to its verdict.

use crate::customer::{Customer, History};
use crate::numbers::{NumbersFactory, Submitter};
use crate::store::Store;
use crate::{
    Actor, Administrator, Algorithm, Factory, Identities, Outcome, Parts, Plan, Planted, Property, Random,
    ReplicaFactory, Trace, Violation, World,
};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use unisono_consensus::aphousia::{Aphousia, Instance, planted::Planted as PlantedRule};

/// What runs in the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Replicas, execution and clients of the store.
    Whole,
    /// Agreement alone, on a log of numbers.
    Numbers,
}

/// Runs the plan of `seed`.
#[must_use]
pub fn run_seed<A: Algorithm>(seed: u64, scope: Scope, print: bool) -> Outcome {
    run_plan::<A>(&Plan::of_seed(seed), scope, print)
}

/// Runs a plan of Aphousia, with its planted bug if it has one.
#[must_use]
pub fn run_planted(plan: &Plan, scope: Scope, print: bool) -> Outcome {
    match plan.planted {
        Some(Planted::Agreement(_)) => run_plan::<Instance<PlantedRule>>(plan, scope, print),
        _ => run_plan::<Aphousia>(plan, scope, print),
    }
}

/// Runs a plan.
#[must_use]
pub fn run_plan<A: Algorithm>(plan: &Plan, scope: Scope, print: bool) -> Outcome {
    let trace = Trace::new(print);
    trace.line(0, || format!("{plan:?}"));
    let run = || match scope {
        Scope::Whole => run_whole::<A>(plan, trace.clone()),
        Scope::Numbers => run_numbers::<A>(plan, trace.clone()),
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("a panic without words").to_owned();
        let violation = Some(Violation { property: Property::NoPanic, text });
        Outcome { seed: plan.seed, trace_hash: 0, counts: crate::Counts::default(), violation }
    })
}

fn run_whole<A: Algorithm>(plan: &Plan, trace: Trace) -> Outcome {
    let identities = Identities::new(plan);
    let history = Rc::new(RefCell::new(History::default()));
    let mut random = Random::new(plan.seed ^ 0xc1e4);
    let customer = |client| {
        let history = Rc::clone(&history);
        Box::new(Customer::new(identities.clone(), plan, client, random.fork(), history)) as Box<dyn Actor>
    };
    let mut actors: Vec<Box<dyn Actor>> = (0..plan.linear_clients + plan.busy_clients).map(customer).collect();
    if let Some(pause) = plan.administrator {
        let random = Random::new(plan.seed ^ 0xad31);
        actors.push(Box::new(Administrator::new(identities.clone(), pause, random)));
    }
    let factory = Box::new(ReplicaFactory::<Store, A>::new(identities.clone(), plan));
    let mut outcome = run_world(plan, trace, factory, &identities, actors);
    outcome.counts.uses = history.borrow().uses();
    (outcome.counts.stress.large_operations, outcome.counts.stress.large_bytes) = history.borrow().large;
    outcome.counts.stress.sessions_ended = history.borrow().sessions_ended;
    if outcome.violation.is_none() {
        let (checked, undecided, violation) = history.borrow().check();
        outcome.counts.histories_checked = checked;
        outcome.counts.histories_undecided = undecided;
        outcome.violation = violation;
    }
    outcome
}

fn run_numbers<A: Algorithm>(plan: &Plan, trace: Trace) -> Outcome {
    let identities = Identities::new(plan);
    let mut random = Random::new(plan.seed ^ 0xc1e4);
    let submitter =
        |client| Box::new(Submitter::new(identities.clone(), client, plan.think, random.fork())) as Box<dyn Actor>;
    let actors = (0..plan.linear_clients + plan.busy_clients).map(submitter).collect();
    let factory = Box::new(NumbersFactory::<A>::new(identities.clone(), plan.planted));
    run_world(plan, trace, factory, &identities, actors)
}

fn run_world(
    plan: &Plan,
    trace: Trace,
    factory: Box<dyn Factory>,
    identities: &Identities,
    actors: Vec<Box<dyn Actor>>,
) -> Outcome {
    let parts = Parts { factory, registers: identities.registers.clone(), actors, checked: identities.checked.clone() };
    let mut world = World::new(plan.clone(), parts, trace);
    world.run();
    let violation = world.checker().violation().cloned();
    Outcome { seed: plan.seed, trace_hash: world.trace_hash(), counts: world.counts(), violation }
}
