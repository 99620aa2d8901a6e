//! `unisono trace`, as its user meets it: a page that a browser draws.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_unisono");

/// Ended with the test, whatever becomes of it; `dev` then ends its replicas.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The document that Chromium makes of a page, scripts included. `None`: there is no Chromium here.
fn rendered(page: &Path) -> Option<String> {
    let profile = tempfile::tempdir().expect("a directory");
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => Some(String::from_utf8(output.stdout).expect("a document is text")),
        Err(_) if std::env::var_os("UNISONO_TOOLS").is_some_and(|value| value == "required") => {
            panic!("this needs chromium")
        }
        Err(_) => {
            println!("skipped: needs chromium");
            None
        }
    }
}

#[test]
fn the_schedule_of_a_running_cluster_is_drawn_by_a_browser() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("cluster");
    let dev = Command::new(PROGRAM)
        .args(["dev", "--redis", "127.0.0.1:0", "--dir"])
        .arg(&dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut dev = Ended(dev.expect("the program starts"));
    let mut line = String::new();
    let mut output = BufReader::new(dev.0.stdout.take().expect("piped")); // held so that it can go on printing
    output.read_line(&mut line).expect("the program prints");
    let redis = line.split_whitespace().find_map(|word| word.strip_prefix("redis=")).expect("it is ready").to_owned();

    // A client that goes on for as long as something is recorded.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(redis).expect("the gateway listens");
        let mut answer = [0; 64];
        while stopped.try_recv().is_err() {
            stream.write_all(b"INCR one\r\nINCR two\r\n").expect("the gateway reads");
            assert!(stream.read(&mut answer).expect("the gateway answers") > 0);
        }
    });
    let html = place.path().join("schedule.html");
    let trace = Command::new(PROGRAM)
        .args(["trace", "--json", "--seconds", "0.5", "--events", "500", "--html"])
        .args([&html, &dir])
        .output()
        .expect("the program starts");
    stop.send(()).expect("the client still runs");
    client.join().expect("the client was served");
    assert!(trace.status.success(), "{}", String::from_utf8_lossy(&trace.stderr));
    let said: serde_json::Value = serde_json::from_slice(&trace.stdout).expect("trace prints JSON");
    let threads = said["threads"].as_u64().expect("a number of threads");
    assert!(threads > 0 && said["events"].as_u64() > Some(threads), "{said}");

    let Some(document) = rendered(&html) else { return };
    assert!(document.contains("<title>Schedule of replica 0</title>"), "the script ran");
    let row = "<g class=\"thread\" data-thread=\"";
    let drawn = |index: &u64| document.contains(&format!("{row}{index}\""));
    assert_eq!((0..=threads).filter(drawn).count() as u64, threads, "a row for each thread");
    assert!(document.contains(&format!("{threads} of {threads} threads")));
    assert!(document.contains("owns shards["), "locks are shown by name");
}
