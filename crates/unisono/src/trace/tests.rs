//! Stories of threads as the page draws them.

use super::*;
use unisono_execution::recording::{RecordedEvent, RecordedThread};
use unisono_types::SequenceNumber;

/// A thread's number and what happens to it; without a thread, the round ends.
type Story = (Option<u32>, EventKind);

/// One event a microsecond, of threads of requests 1.0, 1.1, ... that call `transfer`.
fn recording(threads: u32, objects: &[&str], story: Vec<Story>) -> Recording {
    let position = |index| Position::new(SequenceNumber(1), index).unwrap();
    let thread = |index| RecordedThread { position: position(index), path: Vec::new(), handler: "transfer".into() };
    let mut round = 1;
    let event = |(number, (thread, kind)): (u64, Story)| {
        let event = RecordedEvent { number, time: number, round, thread, kind };
        round += u64::from(thread.is_none());
        event
    };
    Recording {
        clocked: true,
        forgotten: 0,
        threads: (0..threads).map(thread).collect(),
        objects: objects.iter().map(|lock| (*lock).to_owned()).collect(),
        events: (0..).zip(story).map(event).collect(),
    }
}

fn asked(thread: u32, operation: AskedOperation, object: u32) -> Story {
    (Some(thread), EventKind::Asked { operation, object: Some(object) })
}

fn waits(thread: u32, reason: WaitReason) -> Story {
    (Some(thread), EventKind::Waits { reason })
}

fn resumed(thread: u32, result: AskedResult) -> Story {
    (Some(thread), EventKind::Resumed { result })
}

fn runs(thread: u32) -> Story {
    (Some(thread), EventKind::Runs { worker: Some(0) })
}

fn round_ended(next_primaries: u32) -> Story {
    let (next_order, next_predicate) = ("round-robin".into(), "all".into());
    let kind =
        EventKind::RoundEnded { primaries: 2, admitted: 0, next_primaries, next_steps: 1, next_order, next_predicate };
    (None, kind)
}

fn spans(picture: &Picture<'_>, thread: usize) -> String {
    let span = |span: &Span| {
        let lock = span.lock.map_or(String::new(), |lock| format!(" {}", picture.locks[lock as usize]));
        format!("{}-{} {:?}{lock}", span.begin, span.end, span.kind)
    };
    picture.threads[thread].spans.iter().map(span).collect::<Vec<_>>().join(", ")
}

fn holds(picture: &Picture<'_>, thread: usize) -> String {
    let hold = |hold: &Hold| format!("{}-{} {}", hold.begin, hold.end, hold.lock);
    picture.threads[thread].holds.iter().map(hold).collect::<Vec<_>>().join(", ")
}

#[test]
fn one_lock_goes_from_thread_to_thread() {
    let story = vec![
        (Some(0), EventKind::Selected),
        runs(0),
        (Some(1), EventKind::Ahead),
        asked(1, AskedOperation::Lock, 0),
        waits(1, WaitReason::Selection),
        asked(0, AskedOperation::Lock, 0),
        resumed(0, AskedResult::Granted),
        waits(1, WaitReason::Turn),
        waits(1, WaitReason::Queue),
        asked(0, AskedOperation::Unlock, 0),
        resumed(1, AskedResult::Granted),
        resumed(0, AskedResult::Granted),
        runs(1),
        (Some(0), EventKind::Finished),
        round_ended(64),
        (Some(1), EventKind::Finished),
        round_ended(8),
    ];
    let recording = recording(2, &["account"], story);
    let picture = Picture::of(&recording, 0, "bank");
    assert_eq!(spans(&picture, 0), "0-1 Ready, 1-5 Running, 6-9 Running, 11-13 Running");
    assert_eq!(
        spans(&picture, 1),
        "2-3 Ahead, 4-7 Selection, 7-8 Turn account, 8-10 Lock account, 10-12 Ready, 12-15 Running"
    );
    assert_eq!((holds(&picture, 0), holds(&picture, 1)), ("6-9 0".into(), "10-15 0".into()));
    let shown =
        |round: &Round| (round.number, round.begin, round.end, round.grants, round.parameters.as_ref().map(|p| p.n));
    assert_eq!(picture.rounds.iter().map(shown).collect::<Vec<_>>(), [(1, 0, 14, 2, None), (2, 14, 16, 0, Some(64))]);
}

#[test]
fn a_thread_that_runs_ahead_goes_on_as_a_primary() {
    let story =
        vec![(Some(0), EventKind::Ahead), runs(0), (Some(0), EventKind::Selected), (Some(0), EventKind::Finished)];
    let recording = recording(1, &[], story);
    let picture = Picture::of(&recording, 0, "bank");
    assert_eq!(spans(&picture, 0), "0-1 Ahead, 1-2 Ahead, 2-3 Running");
    assert_eq!(picture.threads[0].spans[2].worker, Some(1));
}

#[test]
fn who_waits_to_be_notified_has_given_its_lock_back_and_owns_it_again() {
    let story = vec![
        (Some(0), EventKind::Selected),
        asked(0, AskedOperation::Lock, 0),
        resumed(0, AskedResult::Granted),
        asked(0, AskedOperation::Wait, 0),
        waits(0, WaitReason::Notification),
        resumed(0, AskedResult::TimedOut),
        runs(0),
        asked(0, AskedOperation::Unlock, 0),
    ];
    let recording = recording(1, &["queue"], story);
    let picture = Picture::of(&recording, 0, "bank");
    assert_eq!(spans(&picture, 0), "0-1 Ready, 2-3 Running, 4-5 Parked queue, 5-6 Ready, 6-7 Running");
    assert_eq!(holds(&picture, 0), "2-3 0, 5-7 0");
}

#[test]
fn a_lock_that_was_refused_is_owned_by_nobody() {
    let refused = [
        AskedResult::TimedOut,
        AskedResult::Deadlock,
        AskedResult::NotPossible,
        AskedResult::Occupied,
        AskedResult::NotDeclared,
    ];
    for result in refused {
        let recording =
            recording(1, &["account"], vec![asked(0, AskedOperation::Lock, 0), resumed(0, result), runs(0)]);
        assert_eq!(holds(&Picture::of(&recording, 0, "bank"), 0), "", "{result:?}");
    }
}

#[test]
fn what_a_client_chose_as_a_key_cannot_end_the_script() {
    let story = vec![(Some(0), EventKind::Selected), (Some(0), EventKind::Finished)];
    let recording = recording(1, &["keys[</script><script>alert(1)]"], story);
    let page = page(&recording, 2, "</script>");
    assert_eq!(page.matches("</script>").count(), PAGE.matches("</script>").count());
    assert!(page.contains("\\u003c/script>\\u003cscript>alert(1)]"));
}

#[test]
fn numbers_that_name_nothing_and_an_empty_recording_draw_nothing() {
    let story = vec![
        asked(7, AskedOperation::Lock, 0),
        asked(0, AskedOperation::Lock, 9),
        waits(0, WaitReason::Queue),
        resumed(0, AskedResult::Granted),
    ];
    let recording = recording(1, &[], story);
    let picture = Picture::of(&recording, 0, "bank");
    assert_eq!((spans(&picture, 0), holds(&picture, 0)), (String::new(), String::new()));
    assert!(page(&Recording::default(), 0, "bank").contains("\"threads\":[]"));
}
