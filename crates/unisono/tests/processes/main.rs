//! Services of the library on clusters of real processes: calls of the outside, changes while they run, and replicas
//! that go astray.
//!
//! The replicas are this program itself: `processes NAME replica DIR` runs a replica of the service of that name, as
//! the program of a user would. Without such a name it runs the stories, or those whose names contain a word that it
//! is given.
#![allow(missing_docs)]

mod cluster;
mod services;
mod stories;
#[allow(dead_code)]
#[path = "../../examples/workflow.rs"]
mod workflow;

use std::ffi::OsString;
use std::panic::catch_unwind;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let [program, name, command, rest @ ..] = words.as_slice()
        && let Some(service) = name.to_str().and_then(services::named)
    {
        let arguments = std::iter::once(command).chain(rest).cloned().collect();
        return service(vec![program.clone(), name.clone()], arguments);
    }
    let filters: Vec<&str> =
        words[1..].iter().filter_map(|word| word.to_str()).filter(|w| !w.starts_with('-')).collect();
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
    let stories: Vec<_> = stories::ALL.iter().filter(|(name, _)| chosen(name)).collect();
    if words.iter().any(|word| word == "--list") {
        stories.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    println!("\nrunning {} tests", stories.len());
    for (name, story) in &stories {
        let passed = catch_unwind(story).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(name);
        }
    }
    println!("\ntest result: {} passed; {} failed: {failed:?}\n", stories.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
