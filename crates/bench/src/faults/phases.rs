//! Phases of an experiment, calm and faulty in turn under one load, and what the clients' history says about each.
//!
//! ```text
//!   load    ──────────────────────────────────────────────────────────────>   checked history
//!   phases  | calm | fault | ... settled ... | calm | fault | ...
//!   figures   operations per second, latency, longest time without an answer, changes of view
//! ```
//! Both kinds meet the same machine, so their ratio says more than either.

use crate::{history::Event, results::quantile};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a phase counts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Throughput and latency are what the others are held against.
    Calm,
    /// Something is wrong.
    Faulty,
    /// Something is wrong, and throughput and latency are told apart from the others.
    Aside,
}

/// A time during which one thing was so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Phase {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// From and until when, in microseconds of the history's clock.
    pub(super) begin: u64,
    pub(super) end: u64,
    /// Changes of view.
    pub(super) views: u64,
    /// Wishes for another leader, of all replicas, by reason.
    pub(super) complaints: BTreeMap<String, u64>,
}

/// What the history says about one phase.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Figures {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) seconds: f64,
    pub(super) operations: usize,
    pub(super) operations_per_s: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) gap_ms: f64,
    pub(super) views: u64,
    pub(super) complaints: BTreeMap<String, u64>,
}

/// What all phases together say.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Summary {
    pub(super) worst_gap_ms: f64,
    pub(super) views: u64,
    /// In calm phases, where there should be none either.
    pub(super) views_calm: u64,
    pub(super) throughput_pct: f64,
    /// Of the slowest faulty phase.
    pub(super) throughput_min_pct: f64,
    pub(super) p99_calm_ms: f64,
    pub(super) p99_faulty_ms: f64,
}

/// The figures of each phase, and of all.
pub(super) fn evaluate(events: &[Event], phases: &[Phase]) -> (Vec<Figures>, Summary) {
    let answers = answers(events);
    let (mut calm, mut faulty) = (Vec::new(), Vec::new());
    let mut figures = Vec::new();
    for phase in phases {
        let mut latencies = latencies(events, phase);
        figures.push(figures_of(phase, &mut latencies, operations(&answers, phase), gap(&answers, phase)));
        match phase.kind {
            Kind::Calm => calm.extend(latencies),
            Kind::Faulty => faulty.extend(latencies),
            Kind::Aside => {}
        }
    }
    let summary = Summary { p99_calm_ms: p99(&mut calm), p99_faulty_ms: p99(&mut faulty), ..summary(&figures) };
    (figures, summary)
}

fn figures_of(phase: &Phase, latencies: &mut [f64], operations: usize, gap: u64) -> Figures {
    let seconds = phase.end.saturating_sub(phase.begin) as f64 / 1e6;
    Figures {
        name: phase.name.clone(),
        kind: phase.kind,
        seconds: rounded(seconds),
        operations,
        operations_per_s: rounded(operations as f64 / seconds.max(1e-6)),
        p50_ms: rounded(quantile(latencies, 0.5)),
        p99_ms: p99(latencies),
        gap_ms: rounded(gap as f64 / 1e3),
        views: phase.views,
        complaints: phase.complaints.clone(),
    }
}

fn summary(figures: &[Figures]) -> Summary {
    let rates = |kind| figures.iter().filter(move |one| one.kind == kind).map(|one| one.operations_per_s);
    let calm = quantile(&mut rates(Kind::Calm).collect::<Vec<_>>(), 0.5);
    let percent = |rate: f64| if calm > 0.0 { rounded(100.0 * rate / calm) } else { 0.0 };
    let mut faulty: Vec<f64> = rates(Kind::Faulty).collect();
    let not_calm = || figures.iter().filter(|one| one.kind != Kind::Calm);
    Summary {
        worst_gap_ms: not_calm().map(|one| one.gap_ms).fold(0.0, f64::max),
        views: not_calm().map(|one| one.views).sum(),
        views_calm: figures.iter().filter(|one| one.kind == Kind::Calm).map(|one| one.views).sum(),
        throughput_pct: percent(quantile(&mut faulty, 0.5)),
        throughput_min_pct: percent(quantile(&mut faulty, 0.0)),
        ..Summary::default()
    }
}

/// When each client was answered, ascending.
fn answers(events: &[Event]) -> Vec<Vec<u64>> {
    let clients = events.iter().map(|event| event.client + 1).max().unwrap_or(0);
    let mut answers = vec![Vec::new(); clients];
    for event in events {
        if let Some((returned, _)) = &event.returned {
            answers[event.client].push(*returned);
        }
    }
    answers
}

fn operations(answers: &[Vec<u64>], phase: &Phase) -> usize {
    answers.iter().flatten().filter(|at| (phase.begin..phase.end).contains(at)).count()
}

/// In milliseconds, of the operations asked for in a phase, however long they took.
fn latencies(events: &[Event], phase: &Phase) -> Vec<f64> {
    let asked = events.iter().filter(|event| (phase.begin..phase.end).contains(&event.called));
    asked.filter_map(|event| event.returned.as_ref().map(|(at, _)| (at - event.called) as f64 / 1e3)).collect()
}

/// The longest time that some client went without an answer, from the phase's beginning on. One that began in the phase
/// counts until it ended.
fn gap(answers: &[Vec<u64>], phase: &Phase) -> u64 {
    let of_client = |answers: &Vec<u64>| {
        let (mut longest, mut last) = (0, phase.begin);
        for at in answers.iter().filter(|at| **at > phase.begin) {
            longest = longest.max(at - last);
            last = *at;
            if *at >= phase.end {
                return longest;
            }
        }
        longest.max(phase.end.saturating_sub(last))
    };
    answers.iter().map(of_client).max().unwrap_or(0)
}

fn p99(latencies: &mut [f64]) -> f64 {
    rounded(quantile(latencies, 0.99))
}

pub(super) fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answered, Asked};

    fn event(client: usize, called: u64, returned: Option<u64>) -> Event {
        let returned = returned.map(|at| (at, Answered::Number(1)));
        Event { client, called, asked: Asked::Increment, returned }
    }

    fn phase(kind: Kind, begin: u64, end: u64, views: u64) -> Phase {
        Phase { name: "x".into(), kind, begin, end, views, complaints: BTreeMap::new() }
    }

    #[test]
    fn a_fault_is_held_against_the_calm_around_it() {
        // Ten operations in each calm second, five in the faulty one, during which client 1 waits for long.
        let every = |begin: u64, count: u64| {
            (0..count).map(move |i| {
                let called = begin + i * 1_000_000 / count;
                event(0, called, Some(called + 2_000))
            })
        };
        let mut events: Vec<Event> = every(0, 10).chain(every(1_000_000, 5)).chain(every(2_000_000, 10)).collect();
        events.push(event(1, 900_000, Some(950_000)));
        events.push(event(1, 1_400_000, Some(2_300_000)));
        let phases = [
            phase(Kind::Calm, 0, 1_000_000, 1),
            phase(Kind::Faulty, 1_000_000, 2_000_000, 2),
            phase(Kind::Calm, 2_000_000, 3_000_000, 0),
        ];
        let (figures, summary) = evaluate(&events, &phases);
        assert_eq!(figures.iter().map(|one| one.operations).collect::<Vec<_>>(), [11, 5, 11]);
        assert_eq!((summary.views, summary.views_calm), (2, 1), "those of calm phases are not the fault's");
        assert!((summary.throughput_pct - 45.45).abs() < 0.01, "{summary:?}");
        assert!((summary.worst_gap_ms - 1_300.0).abs() < 0.01, "from the fault on, until the answer: {summary:?}");
        assert!((summary.p99_calm_ms - 50.0).abs() < 0.01, "{summary:?}");
        assert!((summary.p99_faulty_ms - 900.0).abs() < 0.01, "{summary:?}");
    }

    #[test]
    fn an_operation_without_an_answer_is_no_operation_and_a_gap() {
        let events = [event(0, 10, Some(20)), event(0, 30, None)];
        let phase = phase(Kind::Faulty, 0, 1_000, 0);
        let answers = answers(&events);
        assert_eq!((operations(&answers, &phase), gap(&answers, &phase)), (1, 980));
        assert_eq!(latencies(&events, &phase), [0.01]);
    }

    #[test]
    fn what_is_aside_counts_for_gaps_and_views_alone() {
        let events: Vec<Event> = (0..30).map(|i| event(0, i * 100_000, Some(i * 100_000 + 1))).collect();
        let phases = [
            phase(Kind::Calm, 0, 1_000_000, 0),
            phase(Kind::Aside, 1_000_000, 1_050_000, 3),
            phase(Kind::Faulty, 2_000_000, 3_000_000, 0),
        ];
        let (figures, summary) = evaluate(&events, &phases);
        assert_eq!(figures.len(), 3);
        assert_eq!(summary.views, 3);
        assert!((summary.throughput_pct - 100.0).abs() < 0.01, "{summary:?}");
    }

    #[test]
    fn no_phases_have_no_figures() {
        assert_eq!(evaluate(&[], &[]), (Vec::new(), Summary::default()));
    }
}
