//! Asks oracles and other clusters for the replica, on a thread of its own: what is asked outside may take its time.
//!
//! How many are asked at once, the replica bounds. Each is answered exactly once, with a refusal if need be.
//! The thread begins with the first call, so a service that calls nobody has none.

use super::core::Notice;
use crate::client::Client;
use crate::config::ClientConfig;
use crate::oracle::{CLUSTER_PREFIX, Call, Oracles};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, mpsc};
use unisono_types::{CallAnswer, CallRefused, ReplicaId};

/// Who has not answered by then is taken for one that will not.
const DEADLINE: Duration = Duration::from_secs(60);

/// A question for somebody outside.
pub(super) struct Question {
    pub(super) call: Call,
    pub(super) target: String,
    pub(super) request: Bytes,
}

/// The thread that asks, once there was something to ask.
pub(super) struct Outside {
    targets: Arc<Targets>,
    notify: mpsc::UnboundedSender<Notice>,
    thread: Option<mpsc::UnboundedSender<Question>>,
}

/// Who may be asked.
struct Targets {
    oracles: Oracles,
    /// Which key of another cluster's directory is used: replicas must not share one.
    id: ReplicaId,
    clients: BTreeMap<String, OnceCell<Client>>,
}

impl Outside {
    pub(super) fn new(oracles: Oracles, id: ReplicaId, notify: mpsc::UnboundedSender<Notice>) -> Self {
        let clients = oracles.clusters().map(|name| (name.to_owned(), OnceCell::new())).collect();
        Self { targets: Arc::new(Targets { oracles, id, clients }), notify, thread: None }
    }

    /// Asks; the answer comes as a notice.
    pub(super) fn ask(&mut self, question: Question) {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => match start(Arc::clone(&self.targets), self.notify.clone()) {
                Ok(thread) => thread,
                Err(error) => {
                    let refused = Err(CallRefused::failed(format!("the system gives no thread: {error}")));
                    drop(self.notify.send(Notice::Outside { call: question.call.id, answer: refused }));
                    return;
                }
            },
        };
        // The thread lives as long as this sender.
        drop(thread.send(question));
        self.thread = Some(thread);
    }
}

fn start(
    targets: Arc<Targets>,
    notify: mpsc::UnboundedSender<Notice>,
) -> std::io::Result<mpsc::UnboundedSender<Question>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, mut questions) = mpsc::unbounded_channel::<Question>(); // bounded by what the replica asks at once
    let work = async move {
        while let Some(Question { call, target, request }) = questions.recv().await {
            let (targets, notify) = (Arc::clone(&targets), notify.clone());
            let id = call.id.clone();
            let asked = tokio::spawn(async move {
                let answer = tokio::time::timeout(DEADLINE, targets.ask(call, &target, request)).await;
                answer
                    .unwrap_or_else(|_| Err(CallRefused::failed(format!("no answer within {} s", DEADLINE.as_secs()))))
            });
            tokio::spawn(async move {
                let answer = asked.await.unwrap_or_else(|_| Err(CallRefused::failed("the oracle panicked".into())));
                drop(notify.send(Notice::Outside { call: id, answer })); // the loop may have ended
            });
        }
    };
    std::thread::Builder::new().name("outside".into()).spawn(move || {
        runtime.block_on(work);
        runtime.shutdown_background(); // nobody waits for what is still being asked
    })?;
    Ok(sender)
}

impl Targets {
    async fn ask(&self, call: Call, target: &str, request: Bytes) -> CallAnswer {
        if let Some(name) = target.strip_prefix(CLUSTER_PREFIX) {
            return self.ask_cluster(name, request).await;
        }
        let oracle = self.oracles.named(target).ok_or(CallRefused::Unknown)?;
        oracle(call, request).await.map(Bytes::from).map_err(CallRefused::failed)
    }

    async fn ask_cluster(&self, name: &str, request: Bytes) -> CallAnswer {
        let (Some(directory), Some(client)) = (self.oracles.directory(name), self.clients.get(name)) else {
            return Err(CallRefused::Unknown);
        };
        let connect = async {
            let config = ClientConfig::load(directory).map_err(|error| error.to_string())?;
            let key = usize::from(self.id.0) % config.keys.len();
            Client::connect(&config, key).await.map_err(|error| error.to_string())
        };
        let client = client.get_or_try_init(|| connect).await.map_err(CallRefused::failed)?;
        match client.invoke(request).await {
            Ok(outcome) => outcome.map_err(|fault| CallRefused::failed(fault.to_string())),
            Err(error) => Err(CallRefused::failed(error.to_string())),
        }
    }
}
