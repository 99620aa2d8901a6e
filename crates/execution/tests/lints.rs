//! The clippy.toml for services that the guide offers: clippy knows every name in it, and finds what it is for.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

const TEMPLATE: &str = include_str!("../../../docs/guide/clippy-services.toml");

const SERVICE: &str = r#"
use std::collections::HashMap;
pub fn walk(map: HashMap<u64, u64>) -> u64 { map.into_keys().sum() }
pub fn clock() -> std::time::SystemTime { std::time::SystemTime::now() }
pub fn home() -> Option<std::ffi::OsString> { std::env::var_os("HOME") }
pub fn thread() { std::thread::spawn(|| {}); }
pub fn fine(map: std::collections::BTreeMap<u64, u64>) -> u64 { map.into_keys().sum() }
"#;

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("in the folder")).expect("a folder for tests");
    std::fs::write(path, text).expect("a folder for tests");
}

#[test]
fn clippy_accepts_the_template_for_services_and_finds_what_it_forbids() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clippy-services");
    write(&folder, "Cargo.toml", "[package]\nname = \"service\"\nedition = \"2024\"\n[workspace]\n");
    write(&folder, "clippy.toml", TEMPLATE);
    write(&folder, "src/lib.rs", SERVICE);
    let _ = std::fs::remove_dir_all(folder.join("target"));
    let clippy = Command::new(env!("CARGO"))
        .args(["clippy", "--quiet", "--offline"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env_remove("RUSTFLAGS")
        .env_remove("CLIPPY_CONF_DIR")
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&clippy.stderr);
    assert!(clippy.status.success(), "{said}");
    assert!(!said.contains("clippy.toml:") && !said.contains("does not refer to"), "a name it does not know:\n{said}");
    for found in [
        "type `std::collections::HashMap`",
        "method `std::time::SystemTime::now`",
        "`std::env::var_os`",
        "`std::thread::spawn`",
    ] {
        assert!(said.contains(found), "{found} in\n{said}");
    }
    assert!(said.contains("cx.now() is agreed time") && !said.contains("BTreeMap<u64"), "{said}");
}
