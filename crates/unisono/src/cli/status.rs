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

fn is_reachable(replica: &Value) -> bool {
    replica["reachable"] == true
}

/// Columns for people: title and the field that stands in it.
const COLUMNS: [(&str, &str); 8] = [
    ("view", "view"),
    ("leader", "leader"),
    ("height", "height"),
    ("executed", "executed"),
    ("round", "round"),
    ("root height", "root_height"),
    ("state root", "state_root"),
    ("pid", "pid"),
];

/// Digits of a root that are shown: enough to see that two differ.
const ROOT_DIGITS: usize = 16;

fn table(replicas: &[Value]) -> String {
    let mut rows =
        vec![["replica", ""].into_iter().chain(COLUMNS.map(|(title, _)| title)).map(str::to_owned).collect()];
    for replica in replicas {
        let id = replica["id"].to_string();
        if !is_reachable(replica) {
            rows.push(vec![id, "unreachable".into()]);
            continue;
        }
        let mut row = vec![id, String::new()];
        row.extend(COLUMNS.map(|(_, field)| match &replica[field] {
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
    if let Some(height) = differing_height(replicas) {
        text.push_str(&format!("STATE ROOTS DIFFER at height {height}: at least one of these replicas is faulty\n"));
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
            "recent_roots": [[50, "aa"], [100, root]],
        })
    }

    #[test]
    fn the_table_shows_who_is_where() {
        let text = table(&[replica(0, "bb"), json!({"id": 1, "reachable": false}), replica(2, "bb")]);
        let expected = "\
replica               view  leader  height  executed  round  root height  state root        pid
0                     2     1       120     119       7      100          0123456789abcdef  4242
1        unreachable
2                     2     1       120     119       7      100          0123456789abcdef  4242
";
        assert_eq!(text, expected);
    }

    #[test]
    fn differing_roots_at_one_height_are_called_out() {
        let text = table(&[replica(0, "bb"), replica(1, "cc")]);
        assert!(text.contains("STATE ROOTS DIFFER at height 100"), "{text}");
        assert_eq!(differing_height(&[replica(0, "bb"), replica(1, "bb")]), None);
    }
}
