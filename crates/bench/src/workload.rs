//! Clients that write what can be checked, for as long as an experiment lasts.

use crate::history::{Answered, Asked, Event, OPERATIONS_PER_REGISTER, ReadBack};
use anyhow::{Context, bail};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use unisono::load::resp::{RespClient, Value};

/// A client that was refused or cut off waits this long before it goes on.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Most operations that are kept: far above what a run of the largest kind makes here.
const EVENTS_MAX: usize = 20_000_000;

#[derive(Default)]
struct Seen {
    events: Vec<Event>,
    errors: u64,
    first_error: Option<String>,
    /// When each client last got an answer, and the longest time without one since it was last asked for.
    clients: Vec<Pace>,
}

#[derive(Clone, Copy, Default)]
struct Pace {
    last_us: u64,
    longest_gap_us: u64,
    /// When the longest gap began.
    gap_from_us: u64,
}

/// A time without answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    pub(crate) length: Duration,
    /// From the moment that was asked about until the gap began; zero when it had begun before.
    pub(crate) after: Duration,
}

struct Shared {
    began: Instant,
    stop: AtomicBool,
    register_operations: AtomicU64,
    seen: Mutex<Seen>,
}

impl Shared {
    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running clients.
pub(crate) struct Workload {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    address: SocketAddr,
}

/// Everything that was seen.
pub(crate) struct Seeing {
    pub(crate) events: Vec<Event>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) read_back: ReadBack,
}

impl Seeing {
    /// Operations whose answer is known.
    pub(crate) fn answered(&self) -> usize {
        self.events.iter().filter(|event| event.returned.is_some()).count()
    }
}

impl Workload {
    /// Starts `clients` clients of the gateway at `address`.
    pub(crate) fn start(address: SocketAddr, clients: usize) -> Self {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            register_operations: AtomicU64::new(0),
            seen: Mutex::new(Seen { clients: vec![Pace::default(); clients], ..Seen::default() }),
        });
        let tasks = (0..clients).map(|client| tokio::spawn(run(client, address, shared.clone()))).collect();
        Self { shared, clients: tasks, address }
    }

    /// Operations answered so far.
    pub(crate) fn answered(&self) -> usize {
        self.shared.seen().events.len()
    }

    /// The clock by which events are told.
    pub(crate) fn now_us(&self) -> u64 {
        self.shared.now_us()
    }

    /// From here on, the longest time that some client goes without an answer counts. Returns the moment.
    pub(crate) fn watch_gaps(&self) -> u64 {
        for pace in &mut self.shared.seen().clients {
            pace.longest_gap_us = 0;
        }
        self.shared.now_us()
    }

    /// The longest time that some client went without an answer since `moment`, that of [`Self::watch_gaps`]; one that
    /// still waits is included.
    pub(crate) fn longest_gap(&self, moment: u64) -> Gap {
        let now = self.shared.now_us();
        let seen = self.shared.seen();
        let gaps = seen.clients.iter().map(|pace| {
            let waiting = now.saturating_sub(pace.last_us);
            (pace.longest_gap_us, pace.gap_from_us).max((waiting, pace.last_us))
        });
        let (length, from) = gaps.max().unwrap_or((0, now));
        Gap { length: Duration::from_micros(length), after: Duration::from_micros(from.saturating_sub(moment)) }
    }

    /// Waits until every client has been answered once more.
    pub(crate) async fn all_answered(&self, patience: Duration) -> anyhow::Result<()> {
        let from = self.shared.now_us();
        let all = async {
            while self.shared.seen().clients.iter().any(|pace| pace.last_us <= from) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(patience, all).await.context("some client gets no answer any more")
    }

    /// Ends the clients and reads back what they wrote.
    pub(crate) async fn finish(self) -> anyhow::Result<Seeing> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let clients = self.clients.len();
        for client in self.clients {
            client.await?;
        }
        let connection = RespClient::connect(self.address).await?;
        let mut lists = Vec::new();
        for client in 0..clients {
            lists.push(read_list(&connection, client).await?);
        }
        let counter = match connection.command(&[b"GET", b"counter"]).await? {
            Value::Bulk(Some(bytes)) => String::from_utf8(bytes)?.parse()?,
            other => bail!("the counter cannot be read: {other:?}"),
        };
        let mut seen = self.shared.seen();
        Ok(Seeing {
            events: std::mem::take(&mut seen.events),
            errors: seen.errors,
            first_error: seen.first_error.clone(),
            read_back: ReadBack { lists, counter },
        })
    }
}

async fn read_list(connection: &RespClient, client: usize) -> anyhow::Result<Vec<String>> {
    const PIECE: usize = 10_000;
    let mut tokens = Vec::new();
    loop {
        let (first, last) = (tokens.len().to_string(), (tokens.len() + PIECE - 1).to_string());
        let name = list_name(client);
        let words = [b"LRANGE", name.as_bytes(), first.as_bytes(), last.as_bytes()];
        let Value::Array(Some(values)) = connection.command(&words).await? else {
            bail!("the list of client {client} cannot be read");
        };
        let count = values.len();
        for value in values {
            let Value::Bulk(Some(bytes)) = value else { bail!("a list holds strings") };
            tokens.push(String::from_utf8(bytes)?);
        }
        if count < PIECE {
            return Ok(tokens);
        }
    }
}

fn list_name(client: usize) -> String {
    format!("list:{client}")
}

async fn run(client: usize, address: SocketAddr, shared: Arc<Shared>) {
    let mut connection = None;
    let mut turn = 0u64;
    while !shared.stop.load(Ordering::Relaxed) && shared.seen().events.len() < EVENTS_MAX {
        let open = match &connection {
            Some(open) => open,
            None => match RespClient::connect(address).await {
                Ok(open) => connection.insert(open),
                Err(error) => {
                    fail(&shared, error.to_string()).await;
                    continue;
                }
            },
        };
        let asked = next(client, turn, &shared);
        turn += 1;
        let called = shared.now_us();
        let answer = ask(open, client, &asked).await;
        let returned = shared.now_us();
        let known = match answer {
            Ok(Ok(answered)) => Some((returned, answered)),
            Ok(Err(text)) => {
                fail(&shared, text).await;
                None
            }
            Err(error) => {
                connection = None;
                fail(&shared, error.to_string()).await;
                None
            }
        };
        let mut seen = shared.seen();
        if known.is_some() {
            let pace = &mut seen.clients[client];
            (pace.longest_gap_us, pace.gap_from_us) =
                (pace.longest_gap_us, pace.gap_from_us).max((returned - pace.last_us, pace.last_us));
            pace.last_us = returned;
        }
        seen.events.push(Event { client, called, asked, returned: known });
    }
}

async fn fail(shared: &Shared, text: String) {
    {
        let mut seen = shared.seen();
        seen.errors += 1;
        seen.first_error.get_or_insert(text);
    }
    tokio::time::sleep(ERROR_PAUSE).await;
}

fn next(client: usize, turn: u64, shared: &Shared) -> Asked {
    let token = format!("{client}.{turn}");
    let register = || shared.register_operations.fetch_add(1, Ordering::Relaxed) / OPERATIONS_PER_REGISTER;
    match turn % 4 {
        0 => Asked::Push { token },
        1 => Asked::Increment,
        2 => Asked::Set { register: register(), value: token },
        _ => Asked::Get { register: register() },
    }
}

/// The answer, or the error text of one that was refused.
async fn ask(connection: &RespClient, client: usize, asked: &Asked) -> io::Result<Result<Answered, String>> {
    let register_name = |register: &u64| format!("register:{register}");
    let value = match asked {
        Asked::Push { token } => {
            connection.command(&[b"RPUSH", list_name(client).as_bytes(), token.as_bytes()]).await?
        }
        Asked::Increment => connection.command(&[b"INCR", b"counter"]).await?,
        Asked::Set { register, value } => {
            connection.command(&[b"SET", register_name(register).as_bytes(), value.as_bytes()]).await?
        }
        Asked::Get { register } => connection.command(&[b"GET", register_name(register).as_bytes()]).await?,
    };
    Ok(match value {
        Value::Integer(number) => Ok(Answered::Number(number)),
        Value::Simple(_) => Ok(Answered::Done),
        Value::Bulk(None) => Ok(Answered::Value(None)),
        Value::Bulk(Some(bytes)) => Ok(Answered::Value(Some(String::from_utf8_lossy(&bytes).into_owned()))),
        Value::Error(text) => Err(text),
        Value::Array(_) => Err("an array was answered where none can be".into()),
    })
}
