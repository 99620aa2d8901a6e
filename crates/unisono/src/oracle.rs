//! Whom handlers may ask outside of the service: oracles by name, and other clusters.
//!
//! ```text
//!   cx.call("clock", ..)             an oracle that the program registers: `main_with`
//!   cx.call("cluster:payments", ..)  another replicated service, by its client directory: `process.toml` or --call
//! ```
//! **Every** replica asks, at least once, and again after a restart. The answer counts when f+1 replicas were told the
//! same, byte by byte. So
//! * an oracle that has an effect must recognise repetitions: the [`Call`] is the same on all replicas;
//! * an oracle whose answers differ between replicas gives none, and the handler goes on when its time is up: round
//!   clocks and prices so coarsely that replicas that ask a little later are told the same.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use unisono_types::{CallId, ClusterId};

/// What a target's name begins with when it is another cluster.
pub const CLUSTER_PREFIX: &str = "cluster:";

/// Names one call of a handler in the world: equal on all replicas of the cluster, and when it is asked again.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Call {
    /// The cluster that asks.
    pub cluster: ClusterId,
    /// Which call of it.
    pub id: CallId,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.id)
    }
}

/// What an oracle says: bytes, or why not, in few words. Both are answers, and both must be equal on the replicas.
pub type Said = Result<Vec<u8>, String>;

pub(crate) type Saying = Pin<Box<dyn Future<Output = Said> + Send>>;
type Oracle = dyn Fn(Call, Bytes) -> Saying + Send + Sync;

/// Whom the handlers of a replica may ask. Given to what `main_with` takes.
#[derive(Clone, Default)]
pub struct Oracles {
    named: BTreeMap<String, Arc<Oracle>>,
    clusters: BTreeMap<String, PathBuf>,
}

impl Oracles {
    /// Registers `oracle` under a name. It runs on a thread of its own, together with all others: one that computes for
    /// long, or blocks, holds up no request but those that wait for an oracle.
    pub fn oracle<F, S>(&mut self, name: impl Into<String>, oracle: F) -> &mut Self
    where
        F: Fn(Call, Bytes) -> S + Send + Sync + 'static,
        S: Future<Output = Said> + Send + 'static,
    {
        let boxed = move |call, request| -> Saying { Box::pin(oracle(call, request)) };
        self.named.insert(name.into(), Arc::new(boxed));
        self
    }

    /// Lets handlers call another cluster under `cluster:NAME`. `directory` is one of its client directories.
    pub fn cluster(&mut self, name: impl Into<String>, directory: impl Into<PathBuf>) -> &mut Self {
        self.clusters.insert(name.into(), directory.into());
        self
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Oracle>> {
        self.named.get(name)
    }

    pub(crate) fn clusters(&self) -> impl Iterator<Item = &str> {
        self.clusters.keys().map(String::as_str)
    }

    pub(crate) fn directory(&self, cluster: &str) -> Option<&PathBuf> {
        self.clusters.get(cluster)
    }
}

impl fmt::Debug for Oracles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<_> = self.named.keys().collect();
        f.debug_struct("Oracles").field("named", &named).field("clusters", &self.clusters).finish()
    }
}
