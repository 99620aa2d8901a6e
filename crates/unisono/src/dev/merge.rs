//! One metrics endpoint for all processes of a cluster: each process is asked when somebody asks, and its samples get
//! a label `process`.
//!
//! ```text
//!   GET /metrics ──> for each NAME: DIR/run/NAME.metrics says where ──> GET there ──┐
//!        answer <── families merged, process="NAME" added <─────────────────────────┘
//! ```
//! A process that does not answer is left out and has `unisono_process_up{process="NAME"} 0`.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Longest answer of one process that is read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// How long one process is waited for.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// The endpoint; gone when dropped.
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(super) async fn serve(address: SocketAddr, run_directory: PathBuf, names: Vec<String>) -> io::Result<Endpoint> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let place = Arc::new((run_directory, names));
    let answer = axum::routing::get(move || {
        let place = place.clone();
        async move { collect(&place.0, &place.1).await }
    });
    let router = axum::Router::new().route("/metrics", answer);
    let server = tokio::spawn(async move {
        let _ = axum::serve(listener, router).await; // it ends with this process
    });
    Ok(Endpoint { address, server })
}

async fn collect(run_directory: &Path, names: &[String]) -> String {
    let mut merged = Merged::default();
    for name in names {
        let text = tokio::time::timeout(ANSWER_TIME, ask(run_directory, name)).await;
        merged.add(name, text.ok().and_then(Result::ok).as_deref());
    }
    merged.print()
}

async fn ask(run_directory: &Path, name: &str) -> io::Result<String> {
    let bad = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
    let address = std::fs::read_to_string(run_directory.join(format!("{name}.metrics")))?;
    let mut stream = TcpStream::connect(address.trim()).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| bad("no HTTP answer"))?;
    if head.split_whitespace().nth(1) == Some("200") { Ok(body.to_owned()) } else { Err(bad("not answered")) }
}

/// Families by name, each with its comments once and the samples of all processes.
#[derive(Default)]
struct Merged {
    families: BTreeMap<String, Family>,
}

#[derive(Default)]
struct Family {
    comments: Vec<String>,
    samples: Vec<String>,
}

impl Merged {
    /// Adds what process `name` answered.
    fn add(&mut self, name: &str, text: Option<&str>) {
        let up = self.families.entry("unisono_process_up".into()).or_default();
        if up.comments.is_empty() {
            up.comments.push("# TYPE unisono_process_up gauge".into());
        }
        up.samples.push(format!("unisono_process_up{{process=\"{name}\"}} {}", u8::from(text.is_some())));
        let mut family = String::new();
        for line in text.unwrap_or_default().lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix('#') {
                family = comment.split_whitespace().nth(1).unwrap_or_default().to_owned();
                let entry = self.families.entry(family.clone()).or_default();
                if !entry.comments.iter().any(|known| known == line) {
                    entry.comments.push(line.into());
                }
            } else {
                let sample = labelled(line, name);
                // A sample belongs to the family announced above it: NAME, NAME_sum, NAME_count, NAME_bucket.
                let own = line.split(['{', ' ']).next().unwrap_or_default();
                let key = if !family.is_empty() && own.starts_with(&family) { family.clone() } else { own.to_owned() };
                self.families.entry(key).or_default().samples.push(sample);
            }
        }
    }

    fn print(&self) -> String {
        let mut text = String::new();
        for family in self.families.values() {
            for line in family.comments.iter().chain(&family.samples) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

/// The sample with one label more.
fn labelled(sample: &str, process: &str) -> String {
    let name_end = sample.find(['{', ' ']).unwrap_or(sample.len());
    let (name, rest) = sample.split_at(name_end);
    match rest.strip_prefix('{') {
        Some(labels) if labels.starts_with('}') => format!("{name}{{process=\"{process}\"{labels}"),
        Some(labels) => format!("{name}{{process=\"{process}\",{labels}"),
        None => format!("{name}{{process=\"{process}\"}}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_merged_and_samples_labelled() {
        let mut merged = Merged::default();
        merged.add("replica-0", Some("# TYPE a counter\na 1\n\n# TYPE b summary\nb{q=\"0.5\"} 2\nb_sum 3\n"));
        merged.add("replica-1", Some("# TYPE a counter\na{} 4\n"));
        merged.add("gateway", None);
        let expected = "# TYPE a counter\n\
            a{process=\"replica-0\"} 1\n\
            a{process=\"replica-1\"} 4\n\
            # TYPE b summary\n\
            b{process=\"replica-0\",q=\"0.5\"} 2\n\
            b_sum{process=\"replica-0\"} 3\n\
            # TYPE unisono_process_up gauge\n\
            unisono_process_up{process=\"replica-0\"} 1\n\
            unisono_process_up{process=\"replica-1\"} 1\n\
            unisono_process_up{process=\"gateway\"} 0\n";
        assert_eq!(merged.print(), expected);
    }

    #[tokio::test]
    async fn each_process_is_asked_where_its_file_says() {
        let place = tempfile::tempdir().unwrap();
        let child_place = tempfile::tempdir().unwrap();
        // Another endpoint of the same kind plays the process.
        let process =
            serve("127.0.0.1:0".parse().unwrap(), child_place.path().into(), vec!["inner".into()]).await.unwrap();
        std::fs::write(place.path().join("replica-0.metrics"), format!("{}\n", process.address)).unwrap();
        let names = ["replica-0".to_owned(), "replica-1".to_owned()];
        let text = collect(place.path(), &names).await;
        assert!(text.contains("unisono_process_up{process=\"replica-0\"} 1"), "{text}");
        assert!(text.contains("unisono_process_up{process=\"replica-0\",process=\"inner\"} 0"), "{text}");
        assert!(text.contains("unisono_process_up{process=\"replica-1\"} 0"), "{text}");
    }
}
