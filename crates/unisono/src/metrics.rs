//! Counters for people and machines, as text for Prometheus at /metrics. Nothing decides by them.

use axum::{Router, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::net::TcpListener;

/// Seconds of a sync: from a fast NVMe disk to one that is about to fail.
const SYNC_SECONDS: [f64; 12] =
    [0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.003, 0.006, 0.012, 0.05, 0.25, 1.0];

/// Sizes of batches.
const BATCH_SIZES: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

fn recorder() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SYNC_SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_size".into()), &BATCH_SIZES))
            .expect("the lists of buckets are not empty");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Where a program has installed a recorder of its own, ours stays empty and the program's counts.
        drop(metrics::set_global_recorder(recorder));
        handle
    })
}

/// Begins to count, for the whole process. Before this, counting does nothing.
pub fn install() {
    recorder();
}

/// What was counted, as Prometheus reads it.
#[must_use]
pub fn render() -> String {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    let handle = recorder();
    handle.run_upkeep();
    handle.render()
}

/// Memory that this process has in use.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The endpoint; gone when dropped.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    file: Option<PathBuf>,
    server: tokio::task::JoinHandle<()>,
}

impl Endpoint {
    /// Serves /metrics on `address`; port 0 is any free one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        install();
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/metrics", get(|| async { render() }));
        let server = tokio::spawn(async move {
            // Ends with the process; a broken connection of one reader is not ours to report.
            drop(axum::serve(listener, router).await);
        });
        let upkeep = async {
            let mut ticks = tokio::time::interval(Duration::from_secs(5));
            loop {
                ticks.tick().await;
                recorder().run_upkeep();
            }
        };
        // Histograms keep every sample until somebody folds them: do that also when nobody asks.
        let server = tokio::spawn(async move {
            tokio::select! { _ = server => {}, () = upkeep => {} }
        });
        Ok(Self { address, file: None, server })
    }

    /// Writes the address into DIR/run/NAME.metrics, whole.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn announce(&mut self, run_directory: &Path, name: &str) -> io::Result<()> {
        let path = run_directory.join(format!("{name}.metrics"));
        crate::node::write_whole(&path, format!("{}\n", self.address).as_bytes())?;
        self.file = Some(path);
        Ok(())
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
        if let Some(file) = &self.file {
            drop(std::fs::remove_file(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_was_counted_can_be_read_over_http() {
        let directory = tempfile::tempdir().unwrap();
        let mut endpoint = Endpoint::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        endpoint.announce(directory.path(), "replica-0").unwrap();
        metrics::counter!("unisono_metrics_test_total", "reason" => "probe").increment(3);
        metrics::histogram!("unisono_metrics_test_seconds").record(0.0003);
        let file = directory.path().join("replica-0.metrics");
        let address = std::fs::read_to_string(&file).unwrap();
        let mut stream = tokio::net::TcpStream::connect(address.trim()).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("unisono_metrics_test_total{reason=\"probe\"} 3"), "{text}");
        assert!(text.contains("unisono_metrics_test_seconds_bucket{le=\"0.0004\"} 1"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
        drop(endpoint);
        assert!(!file.exists());
    }
}
