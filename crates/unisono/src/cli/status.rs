//! `status`: every replica's own account of itself.

use crate::admin;
use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct StatusArguments {
    /// The cluster's directory: its part `admin` holds the key that replicas answer to.
    dir: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn execute(arguments: StatusArguments) -> anyhow::Result<()> {
    let replicas = admin::query_status(arguments.dir.join("admin")).await?;
    if arguments.json {
        println!("{}", json!({ "replicas": replicas }));
    } else {
        print!("{}", table(&replicas));
    }
    if !replicas.iter().any(is_reachable) {
        bail!("no replica answers: start them with `unisono replica {}/replica-0` and so on", arguments.dir.display());
    }
    Ok(())
}

pub(super) fn is_reachable(replica: &Value) -> bool {
    replica["reachable"] == true
}

/// Columns for people: title and the field that stands in it.
const COLUMNS: [(&str, &str); 10] = [
    ("view", "view"),
    ("leader", "leader"),
    ("height", "height"),
    ("executed", "executed"),
    ("round", "round"),
    ("root height", "root_height"),
    ("state root", "state_root"),
    ("workers", "workers"),
    ("ahead", "start_ahead"),
    ("pid", "pid"),
];

/// Digits of a root that are shown: enough to see that two differ.
const ROOT_DIGITS: usize = 16;

/// Seconds between agreed time and a replica's clock that a person should know of.
const SKEW_SHOWN: f64 = 0.5;

fn table(replicas: &[Value]) -> String {
    let mut text = to_table(&COLUMNS, replicas);
    let mut schedules: Vec<String> = replicas.iter().filter(|replica| is_reachable(replica)).map(schedule).collect();
    schedules.dedup();
    match schedules.as_slice() {
        [] => {}
        [one] => text.push_str(&format!("schedule  {one}\n")),
        // While a change is on its way; or one of them lags behind.
        several => several.iter().for_each(|one| text.push_str(&format!("schedule  {one} (not all alike just now)\n"))),
    }
    for replica in replicas.iter().filter(|replica| is_reachable(replica)) {
        if let Some(reason) = replica["halted"].as_str() {
            text.push_str(&format!("REPLICA {} IS HALTED: {reason}\n", replica["id"]));
        }
        if let Some(reason) = replica["register"]["lost"].as_str() {
            text.push_str(&format!("replica {} follows without voting: {reason}\n", replica["id"]));
        }
        if let Some(skew) = replica["clock_skew_seconds"].as_f64().filter(|skew| skew.abs() >= SKEW_SHOWN) {
            text.push_str(&format!("replica {}: agreed time is {skew:+.1} s from its clock\n", replica["id"]));
        }
    }
    if let Some(height) = differing_height(replicas) {
        text.push_str(&format!("STATE ROOTS DIFFER at height {height}: at least one of these replicas is faulty\n"));
    }
    text
}

fn schedule(replica: &Value) -> String {
    let name = replica["schedule"].as_str().unwrap_or("unknown");
    match in_words(&replica["parameters"]).as_str() {
        "" => name.to_owned(),
        words => format!("{name}: {words}"),
    }
}

/// Parameters of the schedule as `reconfigure` takes them; nothing for a schedule without.
pub(super) fn in_words(parameters: &Value) -> String {
    let word = |(title, field): (&str, &str)| match &parameters[field] {
        Value::Null => None,
        Value::String(text) => Some(format!("{title}={text}")),
        other => Some(format!("{title}={other}")),
    };
    let names = [("n", "n"), ("steps", "steps"), ("order", "order"), ("flush-rounds", "flush_rounds")];
    names.into_iter().chain([("predicate", "predicate")]).filter_map(word).collect::<Vec<_>>().join(" ")
}

/// One row per replica.
pub(super) fn to_table(shown: &[(&str, &str)], replicas: &[Value]) -> String {
    let titles = shown.iter().map(|(title, _)| *title);
    let mut rows = vec![["replica", ""].into_iter().chain(titles).map(str::to_owned).collect()];
    for replica in replicas {
        let id = replica["id"].to_string();
        if !is_reachable(replica) {
            rows.push(vec![id, "unreachable".into()]);
            continue;
        }
        let mut row = vec![id, String::new()];
        row.extend(shown.iter().map(|(_, field)| match &replica[*field] {
            Value::String(text) => text.chars().take(ROOT_DIGITS).collect(),
            other => other.to_string(),
        }));
        rows.push(row);
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|index| rows.iter().filter_map(|row| row.get(index)).map(String::len).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).filter(|(_, width)| **width > 0);
        let line = cells.map(|(cell, width)| format!("{cell:<width$}")).collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A height that two replicas list with different roots.
fn differing_height(replicas: &[Value]) -> Option<u64> {
    let roots = replicas.iter().filter_map(|replica| replica["recent_roots"].as_array()).flatten();
    let roots: Vec<(u64, &str)> = roots.filter_map(|pair| Some((pair[0].as_u64()?, pair[1].as_str()?))).collect();
    let differs = |(height, root): &&(u64, &str)| roots.iter().any(|(other, hex)| other == height && hex != root);
    roots.iter().find(differs).map(|(height, _)| *height)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(id: u64, root: &str) -> Value {
        json!({
            "id": id, "reachable": true, "view": 2, "leader": 1, "height": 120, "executed": 119, "round": 7,
            "root_height": 100, "state_root": "0123456789abcdef0123456789abcdef", "pid": 4242,
            "recent_roots": [[50, "aa"], [100, root]], "workers": 2, "start_ahead": 64, "schedule": "uds",
            "parameters": {
                "n": 64, "steps": "unlimited", "order": "quantum:8", "flush_rounds": 16, "predicate": "all",
            },
        })
    }

    #[test]
    fn the_table_shows_who_is_where() {
        let text = table(&[replica(0, "bb"), json!({"id": 1, "reachable": false}), replica(2, "bb")]);
        let expected = "\
replica               view  leader  height  executed  round  root height  state root        workers  ahead  pid
0                     2     1       120     119       7      100          0123456789abcdef  2        64     4242
1        unreachable
2                     2     1       120     119       7      100          0123456789abcdef  2        64     4242
schedule  uds: n=64 steps=unlimited order=quantum:8 flush-rounds=16 predicate=all
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_schedule_without_parameters_is_only_named_and_two_are_both_shown() {
        let mut sequential = replica(0, "bb");
        sequential["schedule"] = "sequential".into();
        sequential["parameters"] = Value::Null;
        assert!(table(&[sequential.clone()]).ends_with("schedule  sequential\n"));
        let text = table(&[sequential, replica(1, "bb")]);
        assert_eq!(text.matches("not all alike").count(), 2, "{text}");
    }

    #[test]
    fn a_replica_that_is_halted_silent_or_out_of_time_is_called_out() {
        let mut one = replica(1, "bb");
        one["halted"] = "two histories are proven".into();
        one["register"] = json!({ "mode": "lost", "lost": "the data directory is empty" });
        one["clock_skew_seconds"] = 600.0.into();
        let text = table(&[replica(0, "bb"), one]);
        assert!(text.contains("REPLICA 1 IS HALTED: two histories are proven\n"), "{text}");
        assert!(text.contains("replica 1 follows without voting: the data directory is empty\n"), "{text}");
        assert!(text.contains("replica 1: agreed time is +600.0 s from its clock\n"), "{text}");
        assert_eq!(text.matches("replica 0").count(), 0, "{text}");
    }

    #[test]
    fn differing_roots_at_one_height_are_called_out() {
        let text = table(&[replica(0, "bb"), replica(1, "cc")]);
        assert!(text.contains("STATE ROOTS DIFFER at height 100"), "{text}");
        assert_eq!(differing_height(&[replica(0, "bb"), replica(1, "bb")]), None);
    }
}
