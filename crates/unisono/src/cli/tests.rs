//! The command line as a person meets it: what it takes, what it refuses, and what it says then.

use super::*;
use unisono_execution::{Context as Cx, Objects, State, UnknownOperation};

/// A service that can do nothing.
struct Nothing;

impl State for Nothing {
    fn create(_objects: &mut Objects, _name: &str) -> Self {
        Self
    }
}

impl Service for Nothing {
    async fn execute<'a>(&'a self, _cx: &'a Cx, _operation: &'a [u8]) -> Result<Vec<u8>, UnknownOperation> {
        Err(UnknownOperation)
    }

    fn handler(_operation: &[u8]) -> &'static str {
        "nothing"
    }
}

fn run(words: &[&str]) -> u8 {
    start(&Application::of::<Nothing>(), program(), words.iter().map(OsString::from).collect())
}

fn error_of(words: &[&str]) -> String {
    let line = CommandLine::try_parse_from(std::iter::once("unisono").chain(words.iter().copied())).unwrap();
    format!("{:#}", execute(&Application::of::<Nothing>(), program(), line.command).unwrap_err())
}

#[test]
fn the_shape_of_the_command_line_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn what_cannot_be_understood_exits_with_2() {
    let cases: [&[&str]; 13] = [
        &[],
        &["fly"],
        &["dev", "--replicas", "many"],
        &["dev", "--redis", "6379"],
        &["dev", "--schedule", "magic"],
        &["dev", "--call", "bank"],
        &["init"],
        &["reconfigure", "x"],
        &["reconfigure"],
        &["tune", "x"],
        &["tune", "set", "x"],
        &["bench"],
        &["bench", "--cluster", "x", "--redis", "127.0.0.1:1"],
    ];
    for words in cases {
        assert_eq!(run(words), NOT_UNDERSTOOD, "{words:?}");
    }
    assert_eq!(run(&["--help"]), DONE);
    assert_eq!(run(&["--version"]), DONE);
}

#[test]
fn a_wrong_word_is_answered_with_the_right_ones() {
    for (words, expected) in [
        (&["reconfigure", "n=2", "speed=9", "x"][..], "write n=, steps=, order="),
        (&["reconfigure", "n=0", "x"], "begin at 1"),
        (&["reconfigure", "order=explicit:0,x", "x"], "explicit:SLOT,SLOT"),
        (&["tune", "set", "workers=many", "x"], "workers=NUMBER"),
        (&["tune", "set", "workers=100000", "x"], "at most 1024"),
        (&["dev", "--schedule", "magic"], "pds1, pds2, round-robin"),
        (&["dev", "--call", "bank"], "NAME=DIR/client"),
    ] {
        assert_eq!(run(words), NOT_UNDERSTOOD, "{words:?}");
        let line = std::iter::once("unisono").chain(words.iter().copied());
        let error = CommandLine::try_parse_from(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{words:?}: {error}");
    }
    let mut shape = CommandLine::command();
    let help = shape.find_subcommand_mut("reconfigure").unwrap().render_long_help().to_string();
    for word in ["n=NUMBER|all", "steps=", "order=quantum:", "order=explicit:", "flush-rounds=", "predicate="] {
        assert!(help.contains(word), "{help}");
    }
}

#[test]
fn init_makes_a_cluster_once() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("cluster");
    let directory = directory.to_str().unwrap();
    assert_eq!(run(&["init", directory, "--replicas", "4", "--schedule", "sequential"]), DONE);
    for name in ["replica-0/host.key", "replica-3/register.key", "client/keys/63.key", "admin/admin.key"] {
        assert!(place.path().join("cluster").join(name).is_file(), "{name}");
    }
    assert_eq!(run(&["init", directory, "--replicas", "4"]), FAILED);
    assert!(error_of(&["init", directory]).contains("choose another directory"));
}

#[test]
fn errors_say_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let nowhere = place.path().join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    let without_cluster: [&[&str]; 5] =
        [&["replica"], &["status"], &["reconfigure", "n=2"], &["tune", "set", "workers=2"], &["tune", "show"]];
    for words in without_cluster {
        let error = error_of(&[words, &[nowhere]].concat());
        assert!(error.contains("unisono init"), "{words:?}: {error}");
    }
    let twice = error_of(&["reconfigure", "n=2", "n=3", nowhere]);
    assert!(twice.contains("n is given twice"), "{twice}");
    let error = error_of(&["dev", "--dir", nowhere, "--algorithm", "paxos"]);
    assert!(error.contains("paxos") && error.contains("aphousia"), "{error}");
    let error = error_of(&["gateway", nowhere, "--listen", "127.0.0.1:1"]);
    assert!(error.contains("no protocol"), "{error}");
    let error = error_of(&["bench", "--cluster", nowhere]);
    assert!(error.contains("sample_operation"), "{error}");
    for (words, expected) in [
        (["--clients", "0"], "must be from 1"),
        (["--clients", "1000000"], "must be from 1"),
        (["--seconds", "0"], "--seconds"),
        (["--rate", "0"], "--rate"),
    ] {
        let error = error_of(&[&["bench", "--redis", "127.0.0.1:1"][..], &words].concat());
        assert!(error.contains(expected), "{words:?}: {error}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = error_of(&["bench", "--redis", &closed, "--seconds", "0.1"]);
    assert!(error.contains("start a gateway or a Redis there"), "{error}");
}

#[test]
fn a_service_without_protocol_does_not_offer_a_gateway() {
    let without = Application::of::<Nothing>();
    assert!(without.gateway.is_none());
    let arguments = |words: &[&str]| match CommandLine::try_parse_from(words).unwrap().command {
        Command::Dev(arguments) => arguments,
        other => panic!("{other:?}"),
    };
    assert!(arguments(&["unisono", "dev"]).options(&without, program()).gateway.is_none());
}
