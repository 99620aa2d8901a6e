//! The event loop.

use super::NodeError;
use super::administer::admit;
use super::checking::{Checking, Reason, Verdict};
use super::counters::Counters;
use super::links::{Arrival, Arrivals, Links, Source};
use super::messages::{Algorithm, AlgorithmMessage, Checked, encoded};
use super::outside::{self, Outside};
use super::register::DurableRegister;
use super::timers::Timers;
use crate::admin;
use crate::config::ReplicaConfig;
use crate::oracle::{Call, Oracles};
use crate::storage::{
    self, CommittedBlock, Entry, LogReader, LogSettings, LogThread, Owner, RealDisk, Recovered, Report, StorageError,
    Ticket,
};
use crate::transport::{self, Accepted, Acceptor, LinkEvent};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use unisono_consensus::aphousia::{self, Header};
use unisono_consensus::{Consensus, PersistId, Provide, Record, RegisterAnswer};
use unisono_execution::{Executor, Service};
use unisono_replica::{GrantRecord, HaltReason, Input, MarkRule, Output, PeerMessage, Replica, Settings};
use unisono_types::{CallAnswer, CallId, Digest, Done, ReplicaId, SequenceNumber, Time, VerifyContext, Work, decode};

/// Messages taken from each queue per wake-up: enough to fill a block, few enough that timers are on time.
const ARRIVALS_MAX: usize = 512;

/// Bytes of committed blocks in one answer to a peer that is far behind.
const PROVIDED_BYTES_MAX: usize = 1 << 20;

/// Bytes of the own log that are replayed at once.
const REPLAY_BYTES: usize = 4 << 20;

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

/// What a group commit lets happen.
enum Promise {
    Persisted(PersistId),
    Answered(RegisterAnswer),
}

/// One replica: its log is open, its state is up to the log's end, it listens.
pub struct Node {
    listener: Option<TcpListener>,
    pub(super) config: ReplicaConfig,
    pub(super) context: Arc<VerifyContext>,
    pub(super) replica: Replica<Algorithm>,
    pub(super) register: DurableRegister,
    pub(super) executor: Executor,
    /// Handlers run on threads: their reports must wake the loop.
    pub(super) threaded: Arc<AtomicBool>,
    outside: Outside,
    executed: SequenceNumber,
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
    pub(super) inputs: Vec<Input<AlgorithmMessage>>,
    outputs: Vec<Output<AlgorithmMessage>>,
    done: Vec<Done>,
    /// The group that is being gathered, and what it lets happen.
    group: Vec<Entry>,
    group_promises: Vec<Promise>,
    group_urgent: bool,
    /// The last sync was short enough to be waited for in the loop.
    sync_is_fast: bool,
    /// Groups on their way to the disk.
    waiting: VecDeque<(Ticket, Vec<Promise>)>,
    /// Peers for which the log is being read.
    providing: BTreeSet<ReplicaId>,
    halted: Option<HaltReason>,
    counters: Counters,
    /// A recorded schedule that the administrator is fetching, in canonical bytes.
    pub(super) recorded: Bytes,
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
            match RealDisk::lock(&config.data_directory()) {
                Err(StorageError::Locked(_)) if begin.elapsed() < PREDECESSOR => {}
                locked => break locked?,
            }
            tokio::time::sleep(PREDECESSOR_LOOK).await;
        };
        let mut node = Self::recover::<S>(&config, disk, oracles)?;
        node.listener = Some(listener);
        Ok(node)
    }

    /// Opens the log and brings the state up to its end.
    fn recover<S: Service>(config: &ReplicaConfig, disk: RealDisk, mut oracles: Oracles) -> Result<Self, NodeError> {
        // Counts from here on, even if nobody reads it.
        crate::metrics::install();
        let context = Arc::new(config.cluster.verify_context());
        let owner = Owner { cluster: context.cluster, replica: config.id };
        let opened = storage::open(Arc::new(disk), LogSettings::new(owner, parent_of))?;
        let (recovered, reader) = (opened.recovered.clone(), opened.reader.clone());
        if let Some(torn) = &recovered.torn {
            tracing::warn!("the log ended within a write at {torn}: nobody was told of it, and it was left behind");
        }
        if recovered.damaged_copies > 0 {
            tracing::warn!(
                copies = recovered.damaged_copies,
                "one copy of the vote register's state is damaged: check the disk"
            );
        }
        let register = DurableRegister::restore(config, recovered.register.as_ref())?;
        let last = recovered.committed.as_ref().map_or(SequenceNumber(0), |block| block.sequence);
        let consensus = Self::consensus(config, &register, recovered);
        let membership = config.cluster.membership.clone();
        let signer = config.host.signer().clone();
        let settings = Settings { id: config.id, signer, membership, marks: MarkRule::default() };
        let (notify, notices) = mpsc::unbounded_channel();
        let stored = notify.clone();
        let log = LogThread::start(opened, move |report| drop(stored.send(Notice::Stored(report))))
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
        let mut node = Self {
            listener: None,
            config: config.clone(),
            replica: Replica::new(settings, consensus),
            register,
            executor: Executor::new::<S>(config.cluster.schedule.scheduler(), executor_settings),
            threaded: Arc::new(AtomicBool::new(config.workers > 0)),
            outside: Outside::new(oracles, config.id, notify.clone()),
            executed: SequenceNumber(0),
            log,
            reader,
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
            inputs: Vec::new(),
            outputs: Vec::new(),
            done: Vec::new(),
            group: Vec::new(),
            group_promises: Vec::new(),
            group_urgent: false,
            sync_is_fast: false,
            waiting: VecDeque::new(),
            providing: BTreeSet::new(),
            recorded: Bytes::new(),
            halted: None,
            counters: Counters::new(),
        };
        node.replay(last)?;
        Ok(node)
    }

    fn consensus(config: &ReplicaConfig, register: &DurableRegister, recovered: Recovered) -> Algorithm {
        let membership = config.cluster.membership.clone();
        let settings = aphousia::Settings::new(config.id, config.host.signer().clone(), membership);
        let proof = recovered.committed.as_ref().map(|block| block.proof.clone());
        let committed = recovered.committed.map(|CommittedBlock { sequence, hash, bytes, .. }| (sequence, hash, bytes));
        let register = register.state();
        Algorithm::new(settings, aphousia::Recovered { register, committed, blocks: recovered.blocks, proof })
    }

    /// Executes the own log again, up to its last committed block.
    fn replay(&mut self, last: SequenceNumber) -> Result<(), NodeError> {
        let start = Instant::now();
        let mut next = SequenceNumber(1);
        while next <= last {
            let blocks = self.reader.committed(next, REPLAY_BYTES)?;
            if blocks.is_empty() {
                return Err(NodeError::Unreadable(next.0));
            }
            for block in blocks {
                let decision = Algorithm::decision(&block.bytes, &self.context);
                let decision = decision.map_err(|_| NodeError::Unreadable(block.sequence.0))?;
                self.replica.replay(&decision, &mut self.outputs);
                next = block.sequence.next();
                let outputs = std::mem::take(&mut self.outputs);
                for output in outputs {
                    if let Output::Execute(work) = output {
                        self.executor.submit(work);
                    }
                }
            }
            if self.executor.workers() > 0 {
                self.executor.wait_idle();
            }
            // What finishes now goes into the stored replies; there is nobody to send anything to yet.
            self.turn(None);
            self.store_later();
        }
        if last > SequenceNumber(0) {
            tracing::info!(decisions = last.0, seconds = start.elapsed().as_secs_f32(), "replayed the log");
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
        self.executor.set_notify(Arc::new(move || {
            // Without threads the loop itself runs the handlers and takes what they report.
            if threaded.load(Ordering::Acquire) && !worked.swap(true, Ordering::AcqRel) {
                drop(notify.send(Notice::Worked));
            }
        }));
        let started = self.started;
        self.executor.set_clock(Arc::new(move || u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)));
        let (mut links, mut arrivals) = Links::start(&self.config);
        let acceptor = Acceptor::new(&self.config.host, self.config.cluster.membership.clone());
        let notify = self.notify.clone();
        let accepting =
            tokio::spawn(transport::listen(listener, acceptor, move |result| admit(result, notify.clone())));
        self.inputs.push(Input::Start);
        self.turn(Some(&links));
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
            self.counters.wakeups.increment(1);
            self.counters.wakeup.record((from_peers.len() + from_clients.len()) as f64);
            let taken = notices.drain(..).try_for_each(|notice| self.notice(notice, &mut links));
            if let Err(error) = taken {
                break Err(error);
            }
            self.arrivals(from_peers.drain(..).chain(from_clients.drain(..)), &mut links);
            let now = self.now().monotonic;
            while let Some(timer) = self.timers.due(now) {
                self.inputs.push(Input::Timeout(timer));
            }
            self.turn(Some(&links));
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
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // From 1 on, so that "never" and "at the very start" differ.
        Time { monotonic: micros(self.started.elapsed()) + 1, wall: micros(wall) }
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
            Notice::Outside { call, answer } => self.inputs.push(Input::Outside { call, answer }),
        }
        Ok(())
    }

    /// Everything up to `ticket` is on the disk.
    fn durable(&mut self, ticket: Ticket, took: Duration, entries: usize) {
        self.sync_is_fast = took < SYNC_HERE_MAX;
        self.counters.sync.record(took.as_secs_f64());
        self.counters.group.record(entries as f64);
        while self.waiting.front().is_some_and(|(waits, _)| *waits <= ticket) {
            let (_, promises) = self.waiting.pop_front().expect("just looked at");
            self.inputs.extend(promises.into_iter().map(|promise| match promise {
                Promise::Persisted(id) => Input::Persisted(id),
                Promise::Answered(answer) => Input::Answered(answer),
            }));
        }
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
                        self.inputs.push(Input::Link { peer, up });
                    }
                }
                // Nobody answers on a link that we dialed; a peer that does is told no more than silence.
                (Source::Dialed(_), LinkEvent::Message(_)) | (_, LinkEvent::Up) => {}
                (source, LinkEvent::Down(reason)) => {
                    let kind = if matches!(source, Source::Client(_)) { "client" } else { "peer" };
                    metrics::counter!("unisono_links_closed_total", "kind" => kind, "reason" => reason.label())
                        .increment(1);
                    links.end(source);
                    if let Source::Client(connection) = source {
                        self.inputs.push(Input::Disconnected(connection));
                    }
                }
                (source, LinkEvent::Progress { received, total }) => links.progress(source, total - received),
                (source, LinkEvent::Message(message)) => {
                    if message.is_large() {
                        links.progress(source, 0);
                    }
                    self.counters.messages.increment(1);
                    let Some(sender) = links.sender(source) else { continue };
                    let is_wanted = |message: &_| !self.replica.is_stale(message);
                    self.verdicts.extend(self.checking.arrived(sender, message, is_wanted));
                }
            }
        }
        for Verdict { source, result, .. } in std::mem::take(&mut self.verdicts) {
            self.checked(source, result, links);
        }
    }

    /// Forgets what waits for its check and is not worth it any more, when decisions have been made since.
    fn forget_stale(&mut self) {
        let decided = self.replica.consensus().status().committed;
        if std::mem::replace(&mut self.looked_at, decided) != decided {
            self.checking.forget(|message| !self.replica.is_stale(message));
        }
    }

    fn checked(&mut self, source: Source, result: Result<Checked, Reason>, links: &mut Links) {
        match (source, result) {
            (_, Ok(Checked::Peer(from, message))) => self.inputs.push(Input::Peer { from, message }),
            (Source::Client(connection), Ok(Checked::Client(frame))) => {
                if let Some(key) = links.client_key(connection) {
                    self.inputs.push(Input::Client { connection, key, frame });
                }
            }
            (_, Ok(Checked::Client(_))) => unreachable!("clients' messages come from clients' links"),
            (source, Err(reason)) => {
                let kind = if matches!(source, Source::Client(_)) { "client" } else { "peer" };
                metrics::counter!("unisono_rejected_total", "kind" => kind, "reason" => reason.label()).increment(1);
                tracing::warn!(?source, %reason, "closed a link that sent what no correct program sends");
                links.end(source);
                if let Source::Client(connection) = source {
                    self.inputs.push(Input::Disconnected(connection));
                }
            }
        }
    }

    /// Feeds the inputs, then what execution makes of the outputs, until nothing is left, and gathers a group for the
    /// disk. Without links, at the replay, there is nobody to send to.
    fn turn(&mut self, links: Option<&Links>) {
        loop {
            if !self.inputs.is_empty() && self.halted.is_none() {
                let now = self.now();
                let mut inputs = std::mem::take(&mut self.inputs);
                let mut outputs = std::mem::take(&mut self.outputs);
                self.replica.handle_all(now, inputs.drain(..), &mut outputs);
                for output in outputs.drain(..) {
                    self.output(output, links);
                }
                // Leaves may have been answered at once.
                inputs.append(&mut self.inputs);
                self.inputs = inputs;
                self.outputs = outputs;
            }
            if self.halted.is_some() {
                self.inputs.clear();
                break;
            }
            if self.executor.workers() == 0 {
                self.executor.run_until_idle();
            }
            self.collect();
            if self.inputs.is_empty() {
                break;
            }
        }
    }

    /// Sends the gathered group to the disk. While nothing else waits for this loop, that is done here: the hand-over to
    /// the storage thread and back would take as long as the sync.
    async fn store(&mut self, links: &Links, arrivals: &Arrivals) -> Result<(), NodeError> {
        for _ in 0..WRITES_HERE_MAX {
            if !self.group_urgent || !self.sync_is_fast {
                break;
            }
            // First of all whatever was said leaves.
            tokio::task::yield_now().await;
            if !(arrivals.peers.is_empty() && arrivals.clients.is_empty() && self.notices.is_empty()) {
                break;
            }
            match self.log.write_here(std::mem::take(&mut self.group)) {
                Ok(Report::Durable { ticket, took, entries }) => {
                    self.group_urgent = false;
                    self.waiting.push_back((ticket, std::mem::take(&mut self.group_promises)));
                    self.durable(ticket, took, entries);
                    self.turn(Some(links));
                }
                Ok(Report::Failed(error)) => return Err(error.into()),
                Err(group) => {
                    self.group = group;
                    break;
                }
            }
        }
        self.store_later();
        Ok(())
    }

    /// Gives the gathered group to the storage thread.
    fn store_later(&mut self) {
        if !self.group_promises.is_empty() || !self.group.is_empty() {
            let ticket = self.log.append(self.group.drain(..), self.group_urgent);
            self.waiting.push_back((ticket, std::mem::take(&mut self.group_promises)));
            self.group_urgent = false;
        }
    }

    /// What execution has to report.
    fn collect(&mut self) {
        self.executor.take_done(&mut self.done);
        let finished = self.done.iter().filter(|done| matches!(done, Done::Executed { .. })).count();
        self.counters.finished.increment(finished as u64);
        self.inputs.extend(self.done.drain(..).map(Input::Done));
        let executed = self.executor.executed();
        if executed > self.executed {
            self.executed = executed;
            self.inputs.push(Input::Executed(executed));
        }
    }

    fn output(&mut self, output: Output<AlgorithmMessage>, links: Option<&Links>) {
        match output {
            Output::Send { to, message } => {
                if let Some(links) = links {
                    links.send(to, encoded(&message));
                }
            }
            Output::Broadcast(message) => {
                if let Some(links) = links {
                    links.broadcast(&encoded(&message));
                }
            }
            Output::Reply { connection, reply } => {
                self.counters.replies.increment(reply.answers.len() as u64);
                if let Some(links) = links {
                    links.reply(connection, &reply);
                }
            }
            Output::Persist { id, record } => {
                // A commit can be derived again: nobody waits for it.
                self.group_urgent |= !matches!(record, Record::Commit { .. });
                match record {
                    Record::Block { sequence, hash, bytes } => self.group.push(Entry::Block { sequence, hash, bytes }),
                    Record::Commit { sequence, hash, proof } => {
                        self.group.push(Entry::Commit { sequence, hash, proof })
                    }
                    Record::Barrier => {}
                }
                self.group_promises.push(Promise::Persisted(id));
            }
            Output::Certify { view, step, hash } => {
                let answered = self.register.certify(view, step, hash);
                self.answered(answered);
            }
            Output::Advance { view } => {
                let answered = self.register.advance(view);
                self.answered(answered);
            }
            Output::Attest { nonce } => {
                let answered = self.register.attest(nonce);
                self.answered(answered);
            }
            Output::SetTimer { timer, at } => self.timers.set(timer, at),
            Output::Execute(work) => {
                if matches!(work, Work::Request { .. }) {
                    self.counters.requests.increment(1);
                }
                self.executor.submit(work);
            }
            Output::Ask { call, target, request } => {
                let call = Call { cluster: self.context.cluster, id: call };
                self.outside.ask(outside::Question { call, target, request });
            }
            Output::Provide(provide) => self.provide(provide),
            Output::QueryLeaves { query, after, limit } => {
                self.collect();
                let leaves = self.executor.leaves(after.as_deref(), limit);
                self.inputs.push(Input::Leaves { query, leaves });
            }
            Output::QueryGrants { query, from, limit } => {
                let grants = self.executor.grants(from, limit).into_iter().map(grant_record).collect();
                self.inputs.push(Input::Grants { query, grants });
            }
            Output::Halt(reason) => self.halted = Some(reason),
            Output::Suspect { peer, reason } => {
                metrics::counter!("unisono_suspected_total", "peer" => peer.to_string(), "reason" => reason)
                    .increment(1);
                tracing::warn!(%peer, reason, "suspected");
            }
        }
    }

    fn answered(&mut self, (answer, record): (RegisterAnswer, Entry)) {
        self.group.push(record);
        self.group_promises.push(Promise::Answered(answer));
        self.group_urgent = true;
    }

    /// Reads the log for a peer, beside the loop; one reading per peer at a time.
    fn provide(&mut self, Provide { to, from }: Provide) {
        if !self.providing.insert(to) {
            return;
        }
        let (reader, notify) = (self.reader.clone(), self.notify.clone());
        let read = move || {
            let message = match reader.committed(from, PROVIDED_BYTES_MAX) {
                Ok(blocks) => provided(blocks),
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

    fn gauge(&self, links: &Links) {
        let consensus = self.replica.consensus().status();
        self.counters.decisions.set(consensus.committed.0 as f64);
        self.counters.executed.set(self.executed.0 as f64);
        self.counters.view.set(f64::from(consensus.view.view().0));
        self.counters.pending.set(consensus.pending as f64);
        self.counters.clients.set(links.clients() as f64);
        self.counters.peers.set(links.peers_up() as f64);
        self.counters.log_queue.set(self.log.queued_bytes() as f64);
        let under_way = links.all_under_way();
        self.counters.outgoing.set(under_way.outgoing as f64);
        self.counters.incoming.set(under_way.incoming as f64);
    }
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

/// A grant as `execution` names it, for `replica`, which does not know that.
fn grant_record(grant: unisono_execution::GrantRecord) -> GrantRecord {
    let unisono_execution::GrantRecord { number, round, position, path, lock, write, writers_before } = grant;
    GrantRecord { number, round, position, path, lock, write, writers_before }
}

fn provided(blocks: Vec<CommittedBlock>) -> Option<Bytes> {
    let proof = blocks.last()?.proof.clone();
    let blocks = blocks.into_iter().map(|block| block.bytes).collect();
    Some(encoded(&PeerMessage::Consensus(Algorithm::provide(blocks, proof))))
}

/// The parent of a block in our own log: its header stands first, with its length in front.
fn parent_of(block: &Bytes) -> Option<Digest> {
    let (length, rest) = block.split_first_chunk::<4>()?;
    let header = rest.get(..u32::from_le_bytes(*length) as usize)?;
    decode::<Header>(header, header.len()).ok().map(|header| header.parent)
}
