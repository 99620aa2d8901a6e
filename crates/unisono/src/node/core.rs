//! The event loop.

use super::NodeError;
use super::administer::admit;
use super::checking::{Checking, Reason, Verdict};
use super::counters::Counters;
use super::links::{Arrival, Arrivals, Links, Source};
use super::messages::{Algorithm, Checked, Received};
use super::outside::{self, Outside};
use super::timers::Timers;
use crate::admin;
use crate::config::ReplicaConfig;
use crate::oracle::{Call, Oracles};
use crate::storage::{self, LogThread, Report, StorageError};
use crate::transport::{self, Accepted, Acceptor, LinkEvent};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use unisono_consensus::{Complaints, Consensus, Provide, Status, aphousia};
use unisono_execution::{Executor, Service};
use unisono_node::log::{self, LogReader, Places, Recovered, Ticket};
use unisono_node::{Drive, Effect, Node as Ring, arriving_bytes, provided};
use unisono_replica::{HaltReason, Input, MarkRule, Replica, Settings};
use unisono_trusted::Register;
use unisono_types::{CallAnswer, CallId, ReplicaId, SequenceNumber, Time, VerifyContext};

/// Messages taken from each queue per wake-up: enough to fill a block, few enough that timers are on time.
const ARRIVALS_MAX: usize = 512;

/// A disk that has just been faster than this is waited for in the loop when nothing else waits: a hand-over to the
/// storage thread and back takes a tenth of it.
const SYNC_HERE_MAX: Duration = Duration::from_millis(1);

/// Writes in the loop between two looks at timers and everything else: a block of one's own, and what follows from it.
const WRITES_HERE_MAX: usize = 4;

/// A connection at rest sleeps; when no timer is set, this wakes the loop all the same.
const IDLE: Duration = Duration::from_secs(60);

/// A replica that was killed a moment ago still holds its port and its lock until the system has cleared it away: who
/// starts it again at once is not to fail for that.
const PREDECESSOR: Duration = Duration::from_secs(2);
/// How often to look whether it is gone.
const PREDECESSOR_LOOK: Duration = Duration::from_millis(10);

/// Everything that reaches the loop but messages of links.
pub(super) enum Notice {
    Accepted(Accepted),
    Stored(Report),
    Worked,
    Checked,
    Provided { to: ReplicaId, message: Option<Bytes> },
    Admin(admin::Request, oneshot::Sender<serde_json::Value>),
    Outside { call: CallId, answer: CallAnswer },
}

/// One replica: its log is open, its state is up to the log's end, it listens.
pub struct Node {
    listener: Option<TcpListener>,
    pub(super) config: ReplicaConfig,
    pub(super) context: Arc<VerifyContext>,
    pub(super) ring: Ring<Algorithm, Register, Counters>,
    /// Handlers run on threads: their reports must wake the loop.
    pub(super) threaded: Arc<AtomicBool>,
    outside: Outside,
    log: LogThread,
    reader: LogReader,
    checking: Checking,
    verdicts: Vec<Verdict>,
    /// The height at which what had become stale was last forgotten.
    looked_at: SequenceNumber,
    notices: mpsc::UnboundedReceiver<Notice>,
    notify: mpsc::UnboundedSender<Notice>,
    worked: Arc<AtomicBool>,
    timers: Timers,
    started: Instant,
    effects: Vec<Effect>,
    /// The last sync was short enough to be waited for in the loop.
    sync_is_fast: bool,
    /// Peers for which the log is being read.
    providing: BTreeSet<ReplicaId>,
    halted: Option<HaltReason>,
    /// Why this replica does nothing any more until a person has looked at it; shown meanwhile.
    pub(super) halt_text: Option<String>,
    /// Those that were logged.
    complaints: Complaints,
    /// A recorded schedule that the administrator is fetching, in canonical bytes.
    pub(super) recorded: Bytes,
    #[cfg(feature = "liar")]
    liar: Option<Arc<super::liar::Liar>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.config.id).finish_non_exhaustive()
    }
}

impl Node {
    /// Takes the replica's address and its log, and executes the log again for service `S`. Connections wait until
    /// [`run`](Self::run).
    ///
    /// # Errors
    /// [`NodeError`], which says what to do.
    pub async fn start<S: Service>(config: ReplicaConfig) -> Result<Self, NodeError> {
        Self::start_with::<S>(config, Oracles::default()).await
    }

    /// [`start`](Self::start) with somebody outside whom the handlers may call.
    ///
    /// # Errors
    /// [`NodeError`], which says what to do.
    pub async fn start_with<S: Service>(config: ReplicaConfig, oracles: Oracles) -> Result<Self, NodeError> {
        // First of all, so that a port in use shows before the log is replayed.
        let begin = Instant::now();
        let listener = loop {
            match TcpListener::bind(&config.listen).await {
                Ok(listener) => break listener,
                Err(error) if error.kind() == ErrorKind::AddrInUse && begin.elapsed() < PREDECESSOR => {}
                Err(source) => {
                    let settings = config.directory.join(crate::config::PROCESS_FILE);
                    return Err(NodeError::Listen { address: config.listen.clone(), source, settings });
                }
            }
            tokio::time::sleep(PREDECESSOR_LOOK).await;
        };
        let disk = loop {
            match storage::lock(&config) {
                Err(StorageError::Locked(_)) if begin.elapsed() < PREDECESSOR => {}
                locked => break locked?,
            }
            tokio::time::sleep(PREDECESSOR_LOOK).await;
        };
        let mut node = Self::recover::<S>(&config, &disk, oracles)?;
        node.listener = Some(listener);
        Ok(node)
    }

    /// Opens the log and brings the state up to its end.
    fn recover<S: Service>(config: &ReplicaConfig, places: &Places, mut oracles: Oracles) -> Result<Self, NodeError> {
        // Counts from here on, even if nothing reads it.
        crate::metrics::install();
        let context = Arc::new(config.cluster.verify_context());
        let membership = config.cluster.membership.clone();
        let log_settings = storage::settings(&membership, config.id);
        let opened = log::open(places, log_settings)?;
        let recovered = opened.recovered;
        tell(&recovered, config);
        let (notify, notices) = mpsc::unbounded_channel();
        let stored = notify.clone();
        let log = LogThread::start(opened.writer, move |report| drop(stored.send(Notice::Stored(report))))
            .map_err(NodeError::system("starting the storage thread"))?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let executor_settings = unisono_execution::Settings {
            cluster: context.cluster,
            workers: config.workers,
            start_ahead: config.start_ahead,
            ..unisono_execution::Settings::default()
        };
        for (name, directory) in &config.clusters {
            oracles.cluster(name, directory);
        }
        let signer = config.host.signer().clone();
        let settings = Settings { id: config.id, signer, membership, marks: MarkRule::default() };
        let register = Register::restore(log_settings.register, config.register.signer().clone(), recovered.register);
        let executor = Executor::new::<S>(config.cluster.schedule.scheduler(), executor_settings);
        let consensus = consensus(config, &recovered);
        let ring = Ring::new(settings, consensus, (register, recovered.lost), executor, Drive::Run, Counters::new());
        let mut node = Self {
            listener: None,
            config: config.clone(),
            ring,
            threaded: Arc::new(AtomicBool::new(config.workers > 0)),
            outside: Outside::new(oracles, config.id, notify.clone()),
            log,
            reader: opened.reader,
            checking: Checking::new(Arc::clone(&context), crate::verify::workers_for(cores), {
                let notify = notify.clone();
                // The loop may have ended.
                move || drop(notify.send(Notice::Checked))
            })
            .map_err(NodeError::system("starting threads"))?,
            verdicts: Vec::new(),
            looked_at: SequenceNumber(0),
            context,
            notices,
            notify,
            worked: Arc::new(AtomicBool::new(false)),
            timers: Timers::default(),
            started: Instant::now(),
            effects: Vec::new(),
            sync_is_fast: false,
            providing: BTreeSet::new(),
            recorded: Bytes::new(),
            halted: None,
            halt_text: None,
            complaints: Complaints::default(),
            #[cfg(feature = "liar")]
            liar: super::liar::Liar::start(config),
        };
        node.replay(&recovered)?;
        if let Some(text) = super::contradiction::found(&config.directory)? {
            node.halt_with(text);
        }
        Ok(node)
    }

    /// Executes the own log again, up to its last committed block. There are no links yet.
    fn replay(&mut self, recovered: &Recovered) -> Result<(), NodeError> {
        let start = Instant::now();
        let now = self.now();
        self.ring.replay(now, recovered, &self.reader, &self.context, &mut self.effects)?;
        self.perform(None);
        self.store_later();
        if let Some(last) = &recovered.committed {
            let seconds = start.elapsed().as_secs_f32();
            tracing::info!(decisions = last.sequence.0, seconds, "replayed the log");
        }
        Ok(())
    }

    /// Serves until `stop`, on the calling task alone; a current-thread runtime of its own serves it best.
    ///
    /// # Errors
    /// [`NodeError`]: the replica had to stop. Whoever runs it prints that, exits with a failure and leaves it stopped.
    ///
    /// # Panics
    /// Never: a node that was started has its listener.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
        let listener = self.listener.take().expect("only start makes nodes");
        let (threaded, worked, notify) = (Arc::clone(&self.threaded), Arc::clone(&self.worked), self.notify.clone());
        self.ring.executor().set_notify(Arc::new(move || {
            // Without threads the loop itself runs the handlers and takes what they report.
            if threaded.load(Ordering::Acquire) && !worked.swap(true, Ordering::AcqRel) {
                drop(notify.send(Notice::Worked));
            }
        }));
        let started = self.started;
        self.ring
            .executor()
            .set_clock(Arc::new(move || u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)));
        let (mut links, mut arrivals) = Links::start(&self.config);
        #[cfg(feature = "liar")]
        links.lie(self.liar.clone());
        let acceptor = Acceptor::new(&self.config.host, self.config.cluster.membership.clone());
        let notify = self.notify.clone();
        let accepting =
            tokio::spawn(transport::listen(listener, acceptor, move |result| admit(result, notify.clone())));
        self.ring.push(Input::Start);
        self.turn(&links);
        self.store_later();
        tracing::info!(replica = %self.config.id, address = %self.config.listen, "serving");

        let mut stop = pin!(stop);
        let (mut from_peers, mut from_clients, mut notices) = (Vec::new(), Vec::new(), Vec::new());
        let result = loop {
            if let Some(reason) = self.halted.take() {
                break Err(NodeError::Halted(reason));
            }
            let due =
                self.timers.next().map_or(IDLE, |at| Duration::from_micros(at.saturating_sub(self.now().monotonic)));
            let mut sleep = pin!(tokio::time::sleep(due));
            // Everything that is ready is taken in one wake-up, so that none of the sources can starve another.
            let stopped = poll_fn(|context| {
                if stop.as_mut().poll(context).is_ready() {
                    return Poll::Ready(true);
                }
                let mut ready = sleep.as_mut().poll(context).is_ready();
                ready |= self.notices.poll_recv_many(context, &mut notices, ARRIVALS_MAX).is_ready();
                ready |= poll_arrivals(&mut arrivals, context, &mut from_peers, &mut from_clients);
                if ready { Poll::Ready(false) } else { Poll::Pending }
            })
            .await;
            if stopped {
                break Ok(());
            }
            let counters = self.ring.probe_mut();
            counters.wakeups.increment(1);
            counters.wakeup.record((from_peers.len() + from_clients.len()) as f64);
            let taken = notices.drain(..).try_for_each(|notice| self.notice(notice, &mut links));
            if let Err(error) = taken {
                break Err(error);
            }
            self.arrivals(from_peers.drain(..).chain(from_clients.drain(..)), &mut links);
            let now = self.now().monotonic;
            while let Some(timer) = self.timers.due(now) {
                self.ring.push(Input::Timeout(timer));
            }
            self.turn(&links);
            if let Err(error) = self.store(&links, &arrivals).await {
                break Err(error);
            }
            self.forget_stale();
            self.gauge(&links);
        };
        accepting.abort();
        if let Err(error) = &result {
            tracing::error!(replica = %self.config.id, "stopped: {error}");
        }
        result
    }

    fn now(&self) -> Time {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let wall = micros(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        #[cfg(feature = "liar")]
        let wall = self.liar.as_ref().map_or(wall, |liar| liar.wall(wall));
        // From 1 on, so that "never" and "at the very start" differ.
        Time { monotonic: micros(self.started.elapsed()) + 1, wall }
    }

    fn notice(&mut self, notice: Notice, links: &mut Links) -> Result<(), NodeError> {
        match notice {
            Notice::Accepted(accepted) => links.accepted(accepted),
            Notice::Stored(Report::Durable { ticket, took, entries }) => self.durable(ticket, took, entries),
            Notice::Stored(Report::Failed(error)) => return Err(error.into()),
            Notice::Worked => self.worked.store(false, Ordering::Release),
            // Taken with what has come.
            Notice::Checked => {}
            Notice::Provided { to, message } => {
                self.providing.remove(&to);
                if let Some(message) = message {
                    links.send(to, message);
                }
            }
            Notice::Admin(request, answer) => {
                // Whoever asked may be gone.
                drop(answer.send(self.administer(request)));
            }
            Notice::Outside { call, answer } => self.ring.push(Input::Outside { call, answer }),
        }
        Ok(())
    }

    /// Everything up to `ticket` is on the disk.
    fn durable(&mut self, ticket: Ticket, took: Duration, entries: usize) {
        self.sync_is_fast = took < SYNC_HERE_MAX;
        let counters = self.ring.probe_mut();
        counters.sync.record(took.as_secs_f64());
        counters.group.record(entries as f64);
        self.ring.durable(ticket, &mut self.effects);
    }

    /// Checks what links sent and feeds it.
    fn arrivals(&mut self, arrivals: impl Iterator<Item = Arrival>, links: &mut Links) {
        // What was queued before comes first.
        self.checking.take(&mut self.verdicts);
        for (source, event) in arrivals {
            match (source, event) {
                (Source::Dialed(peer), event @ (LinkEvent::Up | LinkEvent::Down(_))) => {
                    let up = matches!(event, LinkEvent::Up);
                    if links.dialed(peer, up) {
                        tracing::debug!(%peer, up, "link");
                        self.ring.push(Input::Link { peer, up });
                    }
                }
                // Nobody answers on a link that we dialed; a peer that does is told no more than silence.
                (Source::Dialed(_), LinkEvent::Message(_)) | (_, LinkEvent::Up) => {}
                (source, LinkEvent::Down(reason)) => {
                    metrics::counter!("unisono_links_closed_total", "kind" => source.kind(), "reason" => reason.label())
                        .increment(1);
                    self.end(source, links);
                }
                (source, LinkEvent::Progress { received, total }) => {
                    self.progress(source, arriving_bytes(received, total), total - received, links);
                }
                (source, LinkEvent::Message(message)) => {
                    if message.is_large() {
                        self.progress(source, 0, 0, links);
                    }
                    self.ring.probe_mut().messages.increment(1);
                    let Some(sender) = links.sender(source) else { continue };
                    let replica = self.ring.replica();
                    let verdict = self.checking.arrived(sender, message, |received| is_wanted(replica, received));
                    self.verdicts.extend(verdict);
                }
            }
        }
        for Verdict { source, result, .. } in std::mem::take(&mut self.verdicts) {
            self.checked(source, result, links);
        }
    }

    /// Forgets what waits for its check and is not worth it any more, when decisions have been made since.
    fn forget_stale(&mut self) {
        let replica = self.ring.replica();
        let decided = replica.consensus().status().committed;
        if std::mem::replace(&mut self.looked_at, decided) != decided {
            self.checking.forget(|received| is_wanted(replica, received));
        }
    }

    fn checked(&mut self, source: Source, result: Result<Checked, Reason>, links: &mut Links) {
        match (source, result) {
            (_, Ok(Checked::Peer(from, message))) => self.ring.push(Input::Peer { from, message }),
            (Source::Client(connection), Ok(Checked::Client(frame))) => {
                if let Some(key) = links.client_key(connection) {
                    self.ring.push(Input::Client { connection, key, frame });
                }
            }
            (_, Ok(Checked::Client(_))) => unreachable!("clients' messages come from clients' links"),
            (source, Err(reason)) => {
                metrics::counter!("unisono_rejected_total", "kind" => source.kind(), "reason" => reason.label())
                    .increment(1);
                tracing::warn!(?source, %reason, "closed a link that sent what no correct program sends");
                self.end(source, links);
            }
        }
    }

    /// A large message comes: so many bytes are here or about to be, and so many are missing.
    fn progress(&mut self, source: Source, arriving: usize, missing: usize, links: &mut Links) {
        if let Some(from) = links.progress(source, missing) {
            self.ring.push(Input::Arriving { from, bytes: arriving });
        }
    }

    fn end(&mut self, source: Source, links: &mut Links) {
        self.progress(source, 0, 0, links);
        links.end(source);
        if let Source::Client(connection) = source {
            self.ring.push(Input::Disconnected(connection));
        }
    }

    /// Takes what has come, and does what follows.
    fn turn(&mut self, links: &Links) {
        let now = self.now();
        self.ring.turn(now, &mut self.effects);
        self.perform(Some(links));
    }

    /// Sends the gathered group to the disk. While nothing else waits for this loop, that is done here: the hand-over to
    /// the storage thread and back would take as long as the sync.
    async fn store(&mut self, links: &Links, arrivals: &Arrivals) -> Result<(), NodeError> {
        for _ in 0..WRITES_HERE_MAX {
            if !self.ring.is_urgent() || !self.sync_is_fast {
                break;
            }
            // First of all what was said leaves.
            tokio::task::yield_now().await;
            if !(arrivals.peers.is_empty() && arrivals.clients.is_empty() && self.notices.is_empty()) {
                break;
            }
            let Some(group) = self.ring.group() else { break };
            match self.log.write_here(group) {
                Ok(Report::Durable { ticket, took, entries }) => {
                    self.durable(ticket, took, entries);
                    self.turn(links);
                }
                Ok(Report::Failed(error)) => return Err(error.into()),
                Err(group) => {
                    self.log.append(group);
                    break;
                }
            }
        }
        self.store_later();
        Ok(())
    }

    /// Gives the gathered group to the storage thread.
    fn store_later(&mut self) {
        if let Some(group) = self.ring.group() {
            self.log.append(group);
        }
    }

    /// Without links, at the replay, there is nobody to send to.
    fn perform(&mut self, links: Option<&Links>) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match (effect, links) {
                (Effect::Send { to, bytes }, Some(links)) => links.send(to, bytes),
                (Effect::Broadcast(bytes), Some(links)) => links.broadcast(&bytes),
                (Effect::Reply { connection, reply }, Some(links)) => {
                    self.ring.probe_mut().replies.increment(reply.answers.len() as u64);
                    links.reply(connection, &reply);
                }
                (Effect::Send { .. } | Effect::Broadcast(_) | Effect::Reply { .. }, None) => {}
                (Effect::SetTimer { timer, at }, _) => self.timers.set(timer, at),
                (Effect::Ask { call, target, request }, _) => {
                    let call = Call { cluster: self.context.cluster, id: call };
                    self.outside.ask(outside::Question { call, target, request });
                }
                (Effect::Provide(provide), _) => self.provide(provide),
                (Effect::Silenced(lost), _) => {
                    tracing::error!("{}", super::lost_text(lost, &self.config.directory.display().to_string()));
                }
                (Effect::Halt(reason @ HaltReason::TwoHistories(_)), _) => {
                    let text = super::contradiction::keep(&self.config.directory, &reason.to_string());
                    self.halt_with(text);
                }
                (Effect::Halt(reason), _) => self.halted = Some(reason),
                (Effect::Suspect { peer, reason }, _) => {
                    metrics::counter!("unisono_suspected_total", "peer" => peer.to_string(), "reason" => reason)
                        .increment(1);
                    tracing::warn!(%peer, reason, "suspected");
                }
            }
        }
        self.effects = effects;
    }

    /// Reads the log for a peer, beside the loop; one reading per peer at a time.
    fn provide(&mut self, Provide { to, from, committed }: Provide) {
        if !self.providing.insert(to) {
            return;
        }
        let (reader, notify) = (self.reader.clone(), self.notify.clone());
        let piece = self.context.membership.bounds().piece;
        let read = move || {
            let message = match reader.committed(from, piece) {
                Ok(blocks) => provided::<Algorithm>(committed, blocks),
                Err(error) => {
                    tracing::error!("reading the log for a peer: {error}");
                    None
                }
            };
            // The loop may have ended.
            drop(notify.send(Notice::Provided { to, message }));
        };
        drop(tokio::task::spawn_blocking(read));
    }

    /// Does nothing any more but say why.
    fn halt_with(&mut self, text: String) {
        tracing::error!("{text}");
        self.ring.halt();
        self.halt_text = Some(text);
    }

    fn gauge(&mut self, links: &Links) {
        let consensus = self.ring.replica().consensus().status();
        let (executed, queued) = (self.ring.executed(), self.log.queued_bytes());
        let (halted, silent) = (self.halt_text.is_some(), self.ring.ledger().lost().is_some());
        let counters = self.ring.probe_mut();
        counters.halted.set(f64::from(u8::from(halted)));
        counters.silent.set(f64::from(u8::from(silent)));
        counters.clock_skew.set(consensus.clock_skew_micros as f64 / 1e6);
        counters.decisions.set(consensus.committed.0 as f64);
        counters.executed.set(executed.0 as f64);
        counters.view.set(f64::from(consensus.view.view().0));
        counters.pending.set(consensus.pending as f64);
        counters.clients.set(links.clients() as f64);
        counters.peers.set(links.peers_up() as f64);
        counters.log_queue.set(queued as f64);
        let under_way = links.under_way();
        counters.outgoing.set(under_way.outgoing as f64);
        counters.incoming.set(under_way.incoming as f64);
        for (counter, (_, count)) in counters.complaints.iter().zip(consensus.complaints.by_reason()) {
            counter.absolute(count);
        }
        self.tell_complaints(&consensus);
    }

    /// Whoever reads the log wants to know why a leader was replaced.
    fn tell_complaints(&mut self, consensus: &Status) {
        let before = std::mem::replace(&mut self.complaints, consensus.complaints).by_reason();
        for ((reason, count), (_, told)) in consensus.complaints.by_reason().into_iter().zip(before) {
            if count > told {
                let (view, leader) = (consensus.view.view().0, consensus.leader.0);
                tracing::info!(view, leader, reason, "wishes for another leader");
            }
        }
    }
}

/// Whether a message is worth its check.
fn is_wanted(replica: &Replica<Algorithm>, received: &Received) -> bool {
    match received {
        Received::Peer(from, message) => replica.is_wanted(*from, message),
        Received::Client(_) => replica.wants_frames(),
    }
}

/// What a person should know about the log that was found.
fn tell(recovered: &Recovered, config: &ReplicaConfig) {
    if let Some(torn) = &recovered.torn {
        tracing::warn!("the log ended within a write at {torn}: it was not answered yet, and it was left behind");
    }
    if recovered.damaged_copies > 0 {
        let copies = recovered.damaged_copies;
        tracing::warn!(copies, "one copy of the vote register's state is damaged: check the disk");
    }
    if let Some(lost) = recovered.lost {
        let directory = config.directory.display();
        tracing::error!("{}", super::lost_text(lost, &directory.to_string()));
    }
}

fn consensus(config: &ReplicaConfig, recovered: &Recovered) -> Algorithm {
    let membership = config.cluster.membership.clone();
    let settings = aphousia::Settings::new(config.id, config.host.signer().clone(), membership);
    Algorithm::new(settings, recovered.into())
}

/// Polls both queues, so that the loop is woken by either. A queue never closes while the node lives.
fn poll_arrivals(
    arrivals: &mut Arrivals,
    context: &mut std::task::Context<'_>,
    from_peers: &mut Vec<Arrival>,
    from_clients: &mut Vec<Arrival>,
) -> bool {
    let peers = arrivals.peers.poll_recv_many(context, from_peers, ARRIVALS_MAX).is_ready();
    let clients = arrivals.clients.poll_recv_many(context, from_clients, ARRIVALS_MAX).is_ready();
    peers | clients
}
