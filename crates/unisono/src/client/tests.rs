//! The client against three replicas played by the test over real links: each opens sessions, echoes operations and
//! counts frames, so that every answer of the client was voted on.

use super::*;
use crate::config::{Cluster, Schedule};
use crate::transport::{Acceptor, Link, listen};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, atomic::AtomicU64},
};
use tokio::{net::TcpListener, sync::broadcast};
use unisono_types::{
    Answer, ClientMessage, ClusterId, Configuration, Epoch, Frame, FrameBody, Incarnation, Limits, Member, ReplicaId,
    Reply, ReplyBody, SequenceNumber, SessionId, decode, encode,
};

const REPLICAS: u8 = 3;
const WINDOW: u32 = 8;

fn key(seed: u8) -> KeyPair {
    KeyPair::from_seed([seed; 32])
}

/// What the played replicas agree on, and what the test looks at.
#[derive(Default)]
struct Agreed {
    sessions: Mutex<BTreeMap<u64, SessionId>>,
    /// Most requests that came in one frame.
    together: AtomicU64,
    /// `Close` frames that replica 0 has seen.
    closed: Mutex<BTreeSet<SessionId>>,
    /// Refuse to open sessions.
    refuses: bool,
    /// Replica 2 lies about every outcome.
    lies: bool,
}

impl Agreed {
    fn answer(&self, replica: u8, frame: &Frame) -> Vec<Answer> {
        match frame.body() {
            FrameBody::Open { nonce, .. } if self.refuses => {
                vec![Answer::NotOpened { nonce: *nonce, reason: Refusal::TooManySessions }]
            }
            FrameBody::Open { nonce, .. } => {
                let mut sessions = self.sessions.lock().unwrap();
                let next = SessionId(sessions.len() as u64 + 1);
                vec![Answer::Opened { nonce: *nonce, session: *sessions.entry(*nonce).or_insert(next) }]
            }
            FrameBody::Requests { session, requests, .. } => {
                self.together.fetch_max(requests.len() as u64, Ordering::Relaxed);
                let echo = |operation: &Bytes| match replica {
                    2 if self.lies => Bytes::from_static(b"a lie"),
                    _ => operation.clone(),
                };
                let answered = requests.iter().filter(|(_, operation)| operation != "park");
                let executed = answered.map(|(number, operation)| Answer::Executed {
                    session: *session,
                    number: *number,
                    body: ReplyBody::Full(Ok(echo(operation))),
                });
                executed.collect()
            }
            FrameBody::Close { session } => {
                if replica == 0 {
                    self.closed.lock().unwrap().insert(*session);
                }
                vec![Answer::NoSession { session: *session }]
            }
            other => panic!("no client says {other:?}"),
        }
    }

    /// What one replica is sent, all answer: the order, as far as a client can see it.
    async fn serve(self: Arc<Self>, replica: u8, cluster: ClusterId, order: broadcast::Sender<Bytes>, mut link: Link) {
        let mut ordered = order.subscribe();
        loop {
            let wire = tokio::select! {
                bytes = link.read() => {
                    let Ok(bytes) = bytes else { return };
                    let ClientMessage::Frame(wire) = decode(&bytes, bytes.len()).unwrap();
                    order.send(wire).unwrap();
                    continue;
                }
                wire = ordered.recv() => wire.unwrap(),
            };
            let answers = self.answer(replica, &Frame::parse(cluster, wire, 1 << 25).unwrap());
            let reply = Reply { epoch: Epoch(0), leader: ReplicaId(0), executed: SequenceNumber(1), answers };
            if !reply.answers.is_empty() && link.write(&encode(&reply)).await.is_err() {
                return;
            }
        }
    }
}

async fn stage(agreed: Agreed) -> (ClientConfig, Arc<Agreed>) {
    let agreed = Arc::new(agreed);
    let mut listeners = Vec::new();
    let mut members = Vec::new();
    for index in 0..REPLICAS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        members.push(Member {
            id: ReplicaId(u16::from(index)),
            address: listener.local_addr().unwrap().to_string(),
            host_key: key(1 + index).public(),
            register_key: key(20 + index).public(),
            incarnation: Incarnation(0),
        });
        listeners.push(listener);
    }
    let membership = Membership::new(Configuration {
        cluster: ClusterId([7; 16]),
        epoch: Epoch(0),
        members,
        client_keys: vec![key(50).public()],
        admin_key: key(60).public(),
        algorithm: "aphousia".into(),
        rotation: 0,
        limits: Limits { window: WINDOW, ..Limits::default() },
    })
    .unwrap();
    let (order, _) = broadcast::channel(4096);
    for (index, listener) in (0..REPLICAS).zip(listeners) {
        let (agreed, cluster, order) = (agreed.clone(), membership.configuration().cluster, order.clone());
        tokio::spawn(listen(listener, Acceptor::new(&key(1 + index), membership.clone()), move |accepted| {
            let (agreed, order) = (agreed.clone(), order.clone());
            async move {
                if let Ok(accepted) = accepted {
                    agreed.serve(index, cluster, order, accepted.link).await;
                }
            }
        }));
    }
    let cluster = Cluster { membership, schedule: Schedule::default() };
    (ClientConfig { cluster, keys: vec![key(50)] }, agreed)
}

#[tokio::test]
async fn what_is_invoked_is_answered() {
    let (config, _) = stage(Agreed::default()).await;
    let client = Client::connect(&config, 0).await.unwrap();
    for word in ["one", "two", "three"] {
        assert_eq!(client.invoke(word).await.unwrap().unwrap(), word);
    }
}

#[tokio::test]
async fn one_liar_is_outvoted() {
    let (config, _) = stage(Agreed { lies: true, ..Agreed::default() }).await;
    let client = Client::connect(&config, 0).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.invoke("truth").await.unwrap().unwrap(), "truth");
    }
}

#[tokio::test]
async fn callers_that_ask_together_share_a_signature() {
    let (config, agreed) = stage(Agreed::default()).await;
    let client = Client::connect(&config, 0).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..WINDOW {
        let (completion, answer) = Completion::one();
        client.submit(Bytes::from_static(b"together"), Pace::Usual, completion);
        answers.push(answer);
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().unwrap().unwrap(), "together");
    }
    assert_eq!(agreed.together.load(Ordering::Relaxed), u64::from(WINDOW));
}

#[tokio::test]
async fn requests_that_wait_do_not_hold_up_the_others() {
    let (config, agreed) = stage(Agreed::default()).await;
    let client = Client::connect(&config, 0).await.unwrap();
    let (completion, mut parked) = Completion::one();
    client.submit(Bytes::from_static(b"park"), Pace::Usual, completion);
    // Far more than the window that the parked request holds open.
    for _ in 0..5 * WINDOW {
        client.invoke("on").await.unwrap().unwrap();
    }
    assert!(parked.try_recv().is_err(), "it still waits");
    assert_eq!(agreed.sessions.lock().unwrap().len(), 2);
    client.close().await;
    assert_eq!(parked.await.unwrap(), Err(InvokeError::Closed));
}

#[tokio::test]
async fn callers_that_tend_to_wait_have_a_session_of_their_own() {
    let (config, agreed) = stage(Agreed::default()).await;
    let client = Client::connect(&config, 0).await.unwrap();
    let (completion, _parked) = Completion::one();
    client.submit(Bytes::from_static(b"park"), Pace::Parking, completion);
    for _ in 0..5 * WINDOW {
        client.invoke("on").await.unwrap().unwrap();
    }
    assert_eq!(agreed.sessions.lock().unwrap().len(), 2, "one for each pace, and no more");
}

#[tokio::test]
async fn a_closed_client_has_closed_its_sessions_and_answers_at_once() {
    let (config, agreed) = stage(Agreed::default()).await;
    let client = Client::connect(&config, 0).await.unwrap();
    client.invoke("x").await.unwrap().unwrap();
    client.close().await;
    assert_eq!(client.invoke("late").await, Err(InvokeError::Closed));
    // f+1 replicas have said that it is closed; replica 0 may not be among them, but it was told before the links ended.
    let other = Client::connect(&config, 0).await.unwrap();
    while agreed.closed.lock().unwrap().is_empty() {
        other.invoke("y").await.unwrap().unwrap();
    }
    assert_eq!(*agreed.closed.lock().unwrap(), BTreeSet::from([SessionId(1)]));
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_with_a_reason() {
    let (config, _) = stage(Agreed::default()).await;
    let client = Client::connect(&config, 0).await.unwrap();
    let limit = config.cluster.membership.configuration().limits.operation_bytes as usize;
    let large = client.invoke(vec![0; limit + 1]).await;
    assert_eq!(large, Err(InvokeError::TooLarge { bytes: limit + 1, limit }));
    let mut waiting = Vec::new();
    for _ in 0..SESSIONS_MAX as u32 * WINDOW {
        let (completion, answer) = Completion::one();
        client.submit(Bytes::from_static(b"park"), Pace::Usual, completion);
        waiting.push(answer);
    }
    let refused = client.invoke("one more").await.unwrap_err();
    assert!(matches!(refused, InvokeError::TooManyOutstanding { .. }), "{refused}");
    let none = Client::connect(&config, 1).await.err();
    assert_eq!(none, Some(ConnectError::NoSuchKey { wanted: 1, available: 1 }));
}

#[tokio::test]
async fn a_cluster_without_a_session_left_says_so() {
    let (config, _) = stage(Agreed { refuses: true, ..Agreed::default() }).await;
    let refused = Client::connect(&config, 0).await.err();
    assert_eq!(refused, Some(ConnectError::Refused(Refusal::TooManySessions)));
}

#[test]
fn what_is_held_is_bounded_and_given_back() {
    let held = Arc::new(Held::default());
    let large = Slot::take(&held, OUTSTANDING_BYTES_MAX).unwrap();
    assert!(Slot::take(&held, 1).is_none());
    drop(large);
    let many: Vec<_> = (0..OUTSTANDING_MAX).map(|_| Slot::take(&held, 1).unwrap()).collect();
    assert!(Slot::take(&held, 1).is_none());
    drop(many);
    assert!(Slot::take(&held, 1).is_some());
}
