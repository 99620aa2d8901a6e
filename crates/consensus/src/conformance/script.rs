//! Stories as text: commands, `----`, and the log of what happened. So that a protocol is read without reading code.
//!
//! ```text
//!   cluster 3 [rotation 1] [seed 2]   a new network of three, calm: every message and sync takes a millisecond; liars
//!                              draw from the seed
//!   start all | start r0       (re)starts from the disk            crash r0 | crash all
//!   submit r0 a                hands a frame named a to r0         behave r0 silent|equivocating|corrupting|replaying|slow
//!   cut r0 r1                  no message passes between them      mend
//!   link r0 down|up            the others are told                 run 5ms
//!   quiet                      what happens next is not logged     loud
//! ```
//! A blank line behind a log ends it; the next commands go on with the same network. Lines with `#` are remarks.
//! With UPDATE_EXPECT=1 in the environment the logs are rewritten instead of compared.

use super::{Behaviour, Cluster, Conditions, Network, Subject};
use std::{fs, path::Path, string::String, vec::Vec};
use unisono_types::ReplicaId;

/// Runs every script in `directory`.
///
/// # Panics
/// When a script cannot be read, a log differs from what is written, or a promise is broken.
pub fn check_scripts<S: Subject>(directory: &Path) {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a directory can be listed").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", directory.display());
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    for path in paths {
        let before = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let after = run_script::<S>(&before);
        if update {
            fs::write(&path, &after).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        } else if before != after {
            let line = before.lines().zip(after.lines()).position(|(before, after)| before != after);
            let line = line.unwrap_or_else(|| before.lines().count().min(after.lines().count()));
            let (was, is) = (before.lines().nth(line).unwrap_or(""), after.lines().nth(line).unwrap_or(""));
            panic!(
                "{} line {}:\n  written  {was}\n  happened {is}\n(UPDATE_EXPECT=1 rewrites the log)",
                path.display(),
                line + 1
            );
        }
    }
}

/// The script with the logs of what happened now.
fn run_script<S: Subject>(script: &str) -> String {
    let mut out = String::new();
    let mut story: Story<S> = Story { network: None, frames: 0, quiet: false };
    let mut in_log = false;
    for line in script.lines() {
        if in_log {
            if line.is_empty() {
                in_log = false;
                out.push('\n');
            }
            continue;
        }
        out.push_str(line);
        out.push('\n');
        if line == "----" {
            in_log = true;
            for happened in story.log() {
                out.push_str(&happened);
                out.push('\n');
            }
        } else if !line.is_empty() && !line.starts_with('#') {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(story.command(&words).is_some(), "not a command: {line}");
        }
    }
    out
}

struct Story<S: Subject> {
    network: Option<Network<S>>,
    frames: u64,
    quiet: bool,
}

impl<S: Subject> Story<S> {
    fn log(&mut self) -> Vec<String> {
        let Some(network) = &mut self.network else { return Vec::new() };
        if let Err(violation) = network.verdict() {
            panic!("{}", violation.0);
        }
        let trace = network.trace.replace(Vec::new()).unwrap_or_default();
        // What replicas say about where they stand, and how far they are, when nothing happens is noise in a story.
        let noise = |line: &String| line.contains(": status ") || line.ends_with(": probe") || line.ends_with(": echo");
        trace.into_iter().filter(|line| !noise(line)).collect()
    }

    fn command(&mut self, words: &[&str]) -> Option<()> {
        if let ["cluster", members, rest @ ..] = words {
            let (mut rotation, mut seed) = (0, 1);
            for words in rest.chunks(2) {
                match words {
                    ["rotation", steps] => rotation = steps.parse().ok()?,
                    ["seed", chance] => seed = chance.parse().ok()?,
                    _ => return None,
                }
            }
            let mut network = Network::new(Cluster::new(members.parse().ok()?, rotation), seed, Conditions::CALM);
            network.trace = Some(Vec::new());
            self.network = Some(network);
            return Some(());
        }
        let network = self.network.as_mut()?;
        let replicas = |word: &str| match word {
            "all" => Some(network.ids().collect::<Vec<_>>()),
            word => replica(word).map(|id| vec![id]),
        };
        match words {
            ["start", who] => replicas(who)?.into_iter().for_each(|id| network.start(id)),
            ["crash", who] => replicas(who)?.into_iter().for_each(|id| network.crash(id)),
            ["submit", to, name] => {
                self.frames += 1;
                let frame = network.cluster().frame(self.frames, name.as_bytes());
                network.submit(replica(to)?, frame, name);
            }
            ["behave", who, how] => {
                let behaviour = match *how {
                    "correct" => Behaviour::Correct,
                    "silent" => Behaviour::Silent,
                    "equivocating" => Behaviour::Equivocating,
                    "corrupting" => Behaviour::Corrupting,
                    "replaying" => Behaviour::Replaying,
                    "slow" => Behaviour::Slow,
                    _ => return None,
                };
                network.set_behaviour(replica(who)?, behaviour);
            }
            ["cut", a, b] => network.cut(replica(a)?, replica(b)?),
            ["mend"] => network.mend(),
            ["link", peer, state] => network.tell_link(replica(peer)?, *state == "up"),
            ["run", time] => network.run(time.strip_suffix("ms")?.parse::<u64>().ok()? * 1_000),
            ["quiet"] => self.quiet = true,
            ["loud"] => self.quiet = false,
            _ => return None,
        }
        if self.quiet {
            network.trace = Some(Vec::new());
        }
        Some(())
    }
}

fn replica(word: &str) -> Option<ReplicaId> {
    word.strip_prefix('r')?.parse().ok().map(ReplicaId)
}
