//! What a compiler does not see: the arrow table, purity, module headers, docs that stay true, leftovers, licences.
//!
//! Every check takes plain values and returns findings, so that its test can show that it finds something.

use anyhow::{Context as _, bail};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// `a -> b` = "a uses b". The page of this table is docs/internals/architecture.md; a new arrow needs a decision page.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("trusted", &["types"]),
    ("consensus", &["types", "trusted"]),
    ("scheduler", &[]),
    ("execution", &["types", "scheduler"]),
    ("replica", &["types", "consensus", "scheduler"]),
    ("node", &["replica", "execution", "consensus", "trusted", "types", "scheduler"]),
    ("client", &["types"]),
    ("macros", &[]),
    ("unisono", &["node", "replica", "client", "execution", "consensus", "trusted", "types", "scheduler", "macros"]),
    ("redis", &["unisono"]),
    ("cli", &["unisono", "redis"]),
    ("sim", &["node", "replica", "client", "execution", "consensus", "trusted", "types", "scheduler", "macros"]),
    ("bench", &["unisono", "sim", "redis", "execution", "scheduler", "replica"]),
    ("xtask", &[]),
];

/// Arrows that only tests may use.
const TEST_ARROWS: &[(&str, &[&str])] =
    &[("redis", &["sim", "execution", "scheduler", "types"]), ("replica", &["trusted"]), ("execution", &["macros"])];

const PURE: &[&str] = &["types", "trusted", "consensus", "scheduler", "replica", "client"];

const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "Unlicense",
    "0BSD",
    "BSL-1.0",
    "MIT-0",
    "Apache-2.0 WITH LLVM-exception",
    "CDLA-Permissive-2.0",
    "OpenSSL",
];

const FILE_BYTES_MAX: u64 = 1 << 20;

type Findings = Vec<String>;

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let metadata = metadata(root)?;
    let files = tracked(root)?;
    let mut findings = arrows(&metadata);
    findings.extend(liars(&metadata));
    findings.extend(licences(&metadata));
    let mut names = BTreeSet::new();
    for path in &files {
        let full = root.join(path);
        let Ok(data) = fs::metadata(&full) else { continue };
        if data.len() > FILE_BYTES_MAX {
            findings.push(format!("{}: {} bytes, larger than 1 MiB", path.display(), data.len()));
        }
        names.insert(path.clone());
        let Ok(text) = fs::read_to_string(&full) else { continue };
        findings.extend(leftovers(path, &text));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => findings.extend(header(path, &text)),
            Some("md") => {
                findings.extend(links(root, path, &text));
                findings.extend(commands(path, &text));
            }
            _ => {}
        }
    }
    for name in PURE {
        let library = PathBuf::from(format!("crates/{name}/src/lib.rs"));
        let text = fs::read_to_string(root.join(&library)).with_context(|| format!("reading {}", library.display()))?;
        findings.extend(purity(&library, &text));
        let lints = PathBuf::from(format!("crates/{name}/clippy.toml"));
        if !names.contains(&lints) {
            findings.push(format!("{}: missing; it forbids what a pure crate may not use", lints.display()));
        }
    }
    if findings.is_empty() {
        println!("tidy: {} files, nothing found", files.len());
        return Ok(());
    }
    findings.sort();
    for finding in &findings {
        println!("tidy: {finding}");
    }
    bail!("{} findings", findings.len())
}

fn metadata(root: &Path) -> anyhow::Result<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output =
        Command::new(cargo).args(["metadata", "--format-version", "1", "--locked"]).current_dir(root).output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn tracked(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output().context("git ls-files")?;
    let list = String::from_utf8(output.stdout)?;
    Ok(list.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect())
}

fn folder(package: &str) -> &str {
    package.strip_prefix("unisono-").unwrap_or(package)
}

/// The manifests against the table.
fn arrows(metadata: &Value) -> Findings {
    let table = |rows: &'static [(&str, &[&str])]| rows.iter().copied().collect::<BTreeMap<_, _>>();
    let (allowed, tests) = (table(ARROWS), table(TEST_ARROWS));
    let members: BTreeSet<&str> =
        metadata["workspace_members"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut findings = Findings::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        if !package["id"].as_str().is_some_and(|id| members.contains(id)) {
            continue;
        }
        let name = folder(package["name"].as_str().unwrap_or_default());
        let Some(may) = allowed.get(name) else {
            findings.push(format!("crate {name} is not in the arrow table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if dependency["path"].is_null() {
                continue;
            }
            let to = folder(dependency["name"].as_str().unwrap_or_default());
            let in_tests = dependency["kind"] == "dev";
            let extra = if in_tests { tests.get(name).copied().unwrap_or_default() } else { &[] };
            // A crate's tests may need it with features that it ships without.
            let itself = in_tests && name == to;
            if !may.contains(&to) && !extra.contains(&to) && !itself {
                findings.push(format!("arrow {name} -> {to} is not allowed (docs/internals/architecture.md)"));
            }
        }
    }
    findings
}

/// Replicas that lie by order (feature `liar` of `unisono`) are for experiments alone: only bench may ask for them.
fn liars(metadata: &Value) -> Findings {
    let mut findings = Findings::new();
    let holds = |names: &Value| names.as_array().into_iter().flatten().any(|name| name == "liar");
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let asks = package["dependencies"].as_array().into_iter().flatten().any(|one| holds(&one["features"]));
        if asks && name != "unisono-bench" || holds(&package["features"]["default"]) {
            findings.push(format!("{name} asks for the feature `liar`, which only unisono-bench may"));
        }
    }
    findings
}

/// Licences and sources of everything that is built in.
fn licences(metadata: &Value) -> Findings {
    let mut findings = Findings::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        if let Some(source) = package["source"].as_str()
            && !source.starts_with("registry+https://github.com/rust-lang/crates.io-index")
        {
            findings.push(format!("{name} comes from {source}: only crates.io is allowed"));
        }
        let licence = package["license"].as_str().unwrap_or_default();
        if !licence_allowed(licence) {
            findings.push(format!("{name} has the licence {licence:?}, which is not on the list (deny.toml, tidy)"));
        }
    }
    findings
}

/// One alternative of an OR must be wholly on the list.
fn licence_allowed(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    flat.split(" OR ").any(|alternative| {
        let mut parts = alternative.split(" AND ").map(str::trim).peekable();
        parts.peek().is_some_and(|first| !first.is_empty()) && parts.all(|part| LICENCES.contains(&part))
    })
}

fn leftovers(path: &Path, text: &str) -> Findings {
    // Written in two parts, so that this file does not find itself.
    let marks = [
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ign", "ore"),
        concat!("dbg", "!("),
    ];
    let code = path.extension().is_some_and(|extension| ["rs", "sh", "toml", "md"].iter().any(|e| extension == *e));
    if !code {
        return Findings::new();
    }
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(number, line)| {
            let mark = marks.iter().find(|mark| line.contains(**mark))?;
            Some(format!("{}:{}: leftover {mark}", path.display(), number + 1))
        })
        .collect()
}

fn header(path: &Path, text: &str) -> Findings {
    let inside_source = path.components().any(|part| part.as_os_str() == "src");
    if inside_source && !text.starts_with("//!") {
        return vec![format!("{}: begins without a module header (//!)", path.display())];
    }
    Findings::new()
}

fn purity(path: &Path, text: &str) -> Findings {
    // A feature for other crates' tests may lift it too (`conformance`); nothing that ships enables one.
    if text.lines().any(|line| line.starts_with("#![cfg_attr(not(") && line.ends_with("), no_std)]")) {
        return Findings::new();
    }
    vec![format!("{}: a pure crate must be #![cfg_attr(not(test), no_std)]", path.display())]
}

/// Relative links of a page must lead somewhere.
fn links(root: &Path, path: &Path, text: &str) -> Findings {
    let mut findings = Findings::new();
    for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let file = target.split('#').next().unwrap_or_default();
        if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let base = path.parent().unwrap_or(Path::new(""));
        if !root.join(base).join(file).exists() {
            findings.push(format!("{}: dead link {target}", path.display()));
        }
    }
    findings
}

/// Commands in code blocks of the docs (those marked `text` hold none): packages, xtask commands and subcommands of
/// the program must exist.
fn commands(path: &Path, text: &str) -> Findings {
    let program = ["dev", "init", "replica", "gateway", "status", "reconfigure", "tune", "trace", "bench", "help"];
    let xtask = ["ci", "tidy", "bench-report"];
    let packages: Vec<String> = ARROWS
        .iter()
        .map(|(name, _)| if ["unisono", "xtask"].contains(name) { (*name).into() } else { format!("unisono-{name}") })
        .collect();
    let mut findings = Findings::new();
    let (mut fenced, mut inside) = (false, false);
    for (number, line) in text.lines().enumerate() {
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            fenced = !fenced;
            inside = fenced && kind != "text";
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut bad = |what: &str, word: &str| {
            findings.push(format!("{}:{}: no such {what}: {word}", path.display(), number + 1));
        };
        if !inside || words.is_empty() {
            continue;
        }
        let words = if words[0] == "$" { &words[1..] } else { &words[..] };
        match words {
            ["cargo", "xtask", command, ..] if !xtask.contains(command) => bad("xtask command", command),
            ["unisono", command, ..] if !command.starts_with('-') && !program.contains(command) => {
                bad("command of unisono", command);
            }
            ["cargo", "run", "--release", "--", command, ..] if !program.contains(command) => {
                bad("command of unisono", command);
            }
            _ => {}
        }
        if words.first() == Some(&"cargo") {
            for pair in words.windows(2).filter(|pair| pair[0] == "-p") {
                if !packages.iter().any(|package| package == pair[1]) {
                    bad("package", pair[1]);
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependencies: &[(&str, &str)]) -> Value {
        let dependencies: Vec<Value> = dependencies
            .iter()
            .map(|(to, kind)| {
                let kind = if *kind == "normal" { Value::Null } else { json!(kind) };
                json!({"name": to, "path": "somewhere", "kind": kind})
            })
            .collect();
        json!({"id": name, "name": name, "license": "MIT", "source": null, "dependencies": dependencies})
    }

    fn workspace(packages: &[Value]) -> Value {
        let members: Vec<&Value> = packages.iter().map(|package| &package["id"]).collect();
        json!({"packages": packages, "workspace_members": members})
    }

    #[test]
    fn an_arrow_against_the_table_is_found() {
        let good = workspace(&[package("unisono-trusted", &[("unisono-types", "normal")])]);
        assert_eq!(arrows(&good), Findings::new());
        let bad = workspace(&[package("unisono-consensus", &[("unisono-execution", "normal")])]);
        assert_eq!(arrows(&bad).len(), 1);
        let in_tests = workspace(&[package("unisono-redis", &[("unisono-sim", "dev")])]);
        assert_eq!(arrows(&in_tests), Findings::new());
        let itself = workspace(&[package("unisono-scheduler", &[("unisono-scheduler", "dev")])]);
        assert_eq!(arrows(&itself), Findings::new());
        let in_code = workspace(&[package("unisono-redis", &[("unisono-sim", "normal")])]);
        assert_eq!(arrows(&in_code).len(), 1);
        assert_eq!(arrows(&workspace(&[package("unisono-new", &[])])).len(), 1);
    }

    #[test]
    fn a_program_with_liars_is_found() {
        let with = |name: &str, default: &[&str]| {
            let dependency = json!({"name": "unisono", "path": "somewhere", "kind": null, "features": ["liar"]});
            json!({"packages": [{"name": name, "dependencies": [dependency], "features": {"default": default}}]})
        };
        assert_eq!(liars(&with("unisono-bench", &[])), Findings::new());
        assert_eq!(liars(&with("unisono-cli", &[])).len(), 1);
        assert_eq!(liars(&with("unisono-bench", &["liar"])).len(), 1);
        assert_eq!(liars(&workspace(&[package("unisono-cli", &[("unisono", "normal")])])), Findings::new());
    }

    #[test]
    fn a_licence_must_have_one_alternative_on_the_list() {
        for good in
            ["MIT", "MIT OR Apache-2.0", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0", "Apache-2.0 AND ISC"]
        {
            assert!(licence_allowed(good), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0"] {
            assert!(!licence_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn docs_that_are_not_true_are_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = Path::new("page.md");
        assert_eq!(links(root, page, "[x](src/tidy.rs) [y](https://example.org)"), Findings::new());
        assert_eq!(links(root, page, "[x](src/gone.rs)").len(), 1);
        let block = |line: &str| format!("```\n{line}\n```\n");
        assert_eq!(commands(page, &block("cargo run --release -- dev")), Findings::new());
        assert_eq!(commands(page, &block("cargo xtask ci")), Findings::new());
        assert_eq!(commands(page, &block("$ unisono fly")).len(), 1);
        assert_eq!(commands(page, &block("cargo test -p unisono-gone")).len(), 1);
    }

    #[test]
    fn leftovers_and_missing_headers_are_found() {
        let path = Path::new("crates/types/src/lib.rs");
        assert_eq!(leftovers(path, concat!("// FIX", "ME later")).len(), 1);
        assert_eq!(header(path, "use core::fmt;").len(), 1);
        assert_eq!(header(path, "//! What it is.\n"), Findings::new());
        assert_eq!(purity(path, "use std::fs;").len(), 1);
    }
}
