//! Tables of docs/internals/performance.md, made from the kept results in bench/results/*.jsonl.
//!
//! A result is one JSON object a line: `commit`, `machine`, `name`, `unit`, `median`, `spread` (highest minus lowest
//! of the runs), `runs`, and optionally `goal`. The newest line of each name counts.

use anyhow::Context as _;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

const BEGIN: &str = "<!-- results: begin (cargo xtask bench-report) -->";
const END: &str = "<!-- results: end -->";

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut newest = BTreeMap::new();
    let folder = root.join("bench/results");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "jsonl")) {
        for line in fs::read_to_string(file)?.lines().filter(|line| !line.trim().is_empty()) {
            let value: Value = serde_json::from_str(line).with_context(|| format!("in {}", file.display()))?;
            let name = value["name"].as_str().with_context(|| format!("a row of {} has no name", file.display()))?;
            newest.insert(name.to_owned(), value);
        }
    }
    let page = root.join("docs/internals/performance.md");
    let text = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    fs::write(&page, replaced(&text, &table(newest.values()))?)?;
    println!("bench-report: {} figures", newest.len());
    Ok(())
}

fn table<'a>(rows: impl Iterator<Item = &'a Value>) -> String {
    let mut out =
        String::from("| figure | median | spread | runs | goal | commit | machine |\n|---|---|---|---|---|---|---|\n");
    for row in rows {
        let cell = |key: &str| match &row[key] {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let unit = cell("unit");
        out.push_str(&format!(
            "| {} | {} {unit} | {} | {} | {} | {} | {} |\n",
            cell("name"),
            cell("median"),
            cell("spread"),
            cell("runs"),
            cell("goal"),
            cell("commit"),
            cell("machine"),
        ));
    }
    out
}

fn replaced(text: &str, table: &str) -> anyhow::Result<String> {
    let (head, rest) = text.split_once(BEGIN).with_context(|| format!("the page lacks the line {BEGIN}"))?;
    let (_, tail) = rest.split_once(END).with_context(|| format!("the page lacks the line {END}"))?;
    Ok(format!("{head}{BEGIN}\n{table}{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_between_the_marks_changes() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let row = serde_json::json!({"name": "x", "median": 3, "unit": "us", "runs": 5});
        let page = replaced(&page, &table([&row].into_iter())).unwrap();
        assert!(page.starts_with("before\n") && page.ends_with("\nafter\n"), "{page}");
        assert!(page.contains("| x | 3 us | - | 5 | - | - | - |"), "{page}");
        assert!(replaced("no marks", "").is_err());
    }
}
