//! Tables of docs/internals/performance.md and scheduler.md, made from the kept results in bench/results/*.jsonl.
//!
//! A result is one JSON object a line: `commit`, `machine`, `name`, `unit`, `median`, `spread` (highest minus lowest
//! of the runs), `runs`, and optionally `goal`. The newest line of each name counts. One with a `table` is a `line` of that
//! table on the scheduler's page, with `columns` as pairs of head and contents; the others stand on the page of figures.

use anyhow::Context as _;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

const BEGIN: &str = "<!-- results: begin (cargo xtask bench-report) -->";
const END: &str = "<!-- results: end -->";

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut newest: BTreeMap<String, (usize, Value)> = BTreeMap::new();
    let mut place = 0;
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
            place += 1;
            newest.insert(name.to_owned(), (place, value));
        }
    }
    type Rows<'a> = Vec<&'a (usize, Value)>;
    let (mut lines, figures): (Rows<'_>, Rows<'_>) = newest.values().partition(|(_, row)| row["table"].is_string());
    lines.sort_by_key(|(place, _)| *place); // as they were measured; figures by name
    let lines: Vec<&Value> = lines.into_iter().map(|(_, row)| row).collect();
    rewrite(root, "docs/internals/performance.md", &table(figures.iter().map(|(_, row)| row)))?;
    rewrite(root, "docs/internals/scheduler.md", &tables(&lines))?;
    println!("bench-report: {} figures, {} lines of tables", figures.len(), lines.len());
    Ok(())
}

fn rewrite(root: &Path, page: &str, tables: &str) -> anyhow::Result<()> {
    let page = root.join(page);
    let text = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    Ok(fs::write(&page, replaced(&text, tables)?)?)
}

/// One table for each title, with the columns of all its lines in the order in which they first occur.
fn tables(lines: &[&Value]) -> String {
    let mut titles: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for line in lines {
        titles.entry(line["table"].as_str().unwrap_or_default()).or_default().push(line);
    }
    let mut out = String::new();
    for (title, lines) in titles {
        let mut heads: Vec<&str> = Vec::new();
        for head in lines.iter().flat_map(|line| cells(line)).map(|(head, _)| head) {
            if !heads.contains(&head) {
                heads.push(head);
            }
        }
        let newest = lines.last().expect("a title comes from a line");
        let told = |key: &str| newest[key].as_str().unwrap_or("unknown").to_owned();
        out.push_str(&format!("{title} (commit {}, {}):\n\n", told("commit"), told("machine")));
        out.push_str(&format!("| | goal | {} |\n|---|---|{}\n", heads.join(" | "), "---|".repeat(heads.len())));
        for line in lines {
            let contents = |head: &&str| cells(line).find(|(name, _)| name == head).map_or("-", |(_, text)| text);
            let contents: Vec<&str> = heads.iter().map(contents).collect();
            let goal = line["goal"].as_str().unwrap_or("-");
            out.push_str(&format!(
                "| {} | {goal} | {} |\n",
                line["line"].as_str().unwrap_or_default(),
                contents.join(" | ")
            ));
        }
        out.push('\n');
    }
    out
}

fn cells(line: &Value) -> impl Iterator<Item = (&str, &str)> {
    let pairs = line["columns"].as_array().into_iter().flatten();
    pairs.filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?)))
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

    #[test]
    fn lines_of_one_title_make_a_table_and_what_a_line_lacks_is_left_out() {
        let line = |name: &str, columns: &[[&str; 2]]| serde_json::json!({"table": "2 cores", "line": name, "columns": columns, "goal": ">= 1.8", "commit": "c"});
        let (one, other) = (line("C", &[["free", "1.9"]]), line("L", &[["free", "1.8"], ["uds", "1.7"]]));
        let text = tables(&[&one, &other]);
        assert!(
            text.starts_with("2 cores (commit c, unknown):\n\n| | goal | free | uds |\n|---|---|---|---|\n"),
            "{text}"
        );
        assert!(text.contains("| C | >= 1.8 | 1.9 | - |\n| L | >= 1.8 | 1.8 | 1.7 |\n"), "{text}");
    }
}
