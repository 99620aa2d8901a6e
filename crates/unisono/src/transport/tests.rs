//! Sockets on system-chosen loopback ports; no test sleeps.

use super::*;
use crate::config::KeyPair;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use unisono_types::{ClusterId, Configuration, Epoch, Incarnation, Member, Membership};

const MEMBER: u8 = 1;
const CLIENT: u8 = 50;
const ADMIN: u8 = 60;

fn key(seed: u8) -> KeyPair {
    KeyPair::from_seed([seed; 32])
}

fn membership(address: &str) -> Membership {
    let members = (0..3u8).map(|index| Member {
        id: ReplicaId(u16::from(index)),
        address: address.into(),
        host_key: key(MEMBER + index).public(),
        register_key: key(20 + index).public(),
        incarnation: Incarnation(0),
    });
    Membership::new(Configuration {
        cluster: ClusterId([4; 16]),
        epoch: Epoch(0),
        members: members.collect(),
        client_keys: vec![key(CLIENT).public()],
        admin_key: key(ADMIN).public(),
        algorithm: "aphousia".into(),
        rotation: 0,
        limits: Limits::default(),
    })
    .unwrap()
}

/// An acceptor of member 0 whose results come out of a channel.
struct Server {
    membership: Membership,
    target: Target,
    results: mpsc::Receiver<Result<Accepted, LinkError>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let membership = membership(&listener.local_addr().unwrap().to_string());
        let target = Target::from(membership.member(ReplicaId(0)).unwrap());
        let acceptor = Acceptor::new(&key(MEMBER), membership.clone());
        let (sender, results) = mpsc::channel(16);
        tokio::spawn(listen(listener, acceptor, move |result| {
            let sender = sender.clone();
            async move { drop(sender.send(result).await) }
        }));
        Self { membership, target, results }
    }

    fn dialer(&self, seed: u8, kind: LinkKind) -> Dialer {
        Dialer::new(key(seed), kind, self.membership.clone())
    }

    async fn next(&mut self) -> Result<Accepted, LinkError> {
        self.results.recv().await.unwrap()
    }
}

fn inlet() -> (Inlet<()>, mpsc::Receiver<((), LinkEvent)>) {
    let (sender, receiver) = mpsc::channel(64);
    (Inlet { tag: (), sender, budget: Budget::new(1 << 20, 1 << 20) }, receiver)
}

#[tokio::test]
async fn everyone_is_known_by_key() {
    let mut server = Server::start().await;
    let cases = [
        (MEMBER + 1, LinkKind::Peer, Role::Peer(ReplicaId(1))),
        (CLIENT, LinkKind::Client, Role::Client(key(CLIENT).public())),
        (ADMIN, LinkKind::Admin, Role::Admin),
    ];
    for (seed, kind, role) in cases {
        let mut here = server.dialer(seed, kind).dial(&server.target).await.unwrap();
        let Accepted { role: known, link: mut there } = server.next().await.unwrap();
        assert_eq!(known, role);
        here.write(b"ping").await.unwrap();
        assert_eq!(there.read().await.unwrap(), "ping");
    }
}

#[tokio::test]
async fn a_stranger_is_refused_by_the_server() {
    let mut server = Server::start().await;
    // TLS 1.3 lets a client finish before the server has judged its key: the dialer may notice at once or when it reads.
    let link = server.dialer(99, LinkKind::Client).dial(&server.target).await;
    assert!(matches!(server.next().await, Err(LinkError::Handshake(_))));
    if let Ok(mut link) = link {
        assert!(link.read().await.is_err());
    }
}

#[tokio::test]
async fn a_dialer_refuses_another_members_key() {
    let mut server = Server::start().await;
    let target = Target { key: key(MEMBER + 2).public(), ..server.target.clone() };
    let error = server.dialer(CLIENT, LinkKind::Client).dial(&target).await.unwrap_err();
    assert!(matches!(error, LinkError::Handshake(_)), "{error}");
    assert!(server.next().await.is_err());
}

#[tokio::test]
async fn a_key_opens_only_links_of_its_kind() {
    let mut server = Server::start().await;
    for (seed, kind) in [
        (CLIENT, LinkKind::Peer),
        (CLIENT, LinkKind::Admin),
        (ADMIN, LinkKind::Client),
        (MEMBER + 1, LinkKind::Admin),
        (MEMBER + 1, LinkKind::Client),
    ] {
        let _link = server.dialer(seed, kind).dial(&server.target).await.unwrap();
        assert!(matches!(server.next().await, Err(LinkError::WrongKind)), "{seed} {kind:?}");
    }
}

#[tokio::test]
async fn a_link_of_another_cluster_is_refused_even_with_a_known_key() {
    let mut server = Server::start().await;
    let mut configuration = server.membership.configuration().clone();
    configuration.cluster = ClusterId([5; 16]);
    let dialer = Dialer::new(key(CLIENT), LinkKind::Client, Membership::new(configuration).unwrap());
    let _link = dialer.dial(&server.target).await.unwrap();
    assert!(matches!(server.next().await, Err(LinkError::BadHello)));
}

#[tokio::test]
async fn plain_text_is_no_handshake() {
    let mut server = Server::start().await;
    let mut stream = TcpStream::connect(&server.target.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(server.next().await, Err(LinkError::Handshake(_))));
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 64, "an alert at most, then closed");
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_closed_at_the_deadline() {
    let mut server = Server::start().await;
    let mut stream = TcpStream::connect(&server.target.address).await.unwrap();
    let start = tokio::time::Instant::now();
    assert!(matches!(server.next().await, Err(LinkError::HandshakeTimeout)));
    assert_eq!(start.elapsed().as_secs(), HANDSHAKE_DEADLINE.as_secs());
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn whoever_says_nothing_takes_no_place_from_one_who_holds_a_key() {
    let mut server = Server::start().await;
    let mut idle = Vec::new();
    for _ in 0..UNAUTHENTICATED_MAX {
        idle.push(TcpStream::connect(&server.target.address).await.unwrap());
    }
    for (nth, seed) in [MEMBER + 1, ADMIN, CLIENT].into_iter().enumerate() {
        let kind = [LinkKind::Peer, LinkKind::Admin, LinkKind::Client][nth];
        let (dialer, target) = (server.dialer(seed, kind), server.target.clone());
        let (here, crowded) = tokio::join!(dialer.dial(&target), server.next());
        assert!(matches!(crowded, Err(LinkError::Crowded)));
        assert!(here.is_ok() && server.next().await.is_ok());
        assert!(matches!(idle[nth].read(&mut [0; 1]).await, Ok(0) | Err(_)), "the oldest is closed");
        idle.push(TcpStream::connect(&server.target.address).await.unwrap());
    }
}

#[tokio::test]
async fn an_oversized_announcement_closes_the_link() {
    let mut server = Server::start().await;
    let mut here = server.dialer(ADMIN, LinkKind::Admin).dial(&server.target).await.unwrap();
    let mut there = server.next().await.unwrap().link;
    here.write(&vec![0; ENVELOPE_BYTES + 1]).await.unwrap();
    assert!(matches!(there.read().await, Err(LinkError::Oversized { .. })));
}

#[tokio::test]
async fn messages_flow_both_ways_in_order_and_a_flood_is_held_by_the_budget() {
    let mut server = Server::start().await;
    let (inlet_here, mut here) = inlet();
    let outbox = Outbox::new(64 << 20);
    let dialed = server.dialer(CLIENT, LinkKind::Client).keep(server.target.clone(), outbox, inlet_here);
    let accepted = server.next().await.unwrap();
    assert!(matches!(here.recv().await, Some(((), LinkEvent::Up))));

    let (sender, mut there) = mpsc::channel(1024);
    let inlet_there = Inlet { tag: 7u8, sender, budget: Budget::new(8 << 10, 0) };
    let back = Outbox::new(1 << 20);
    let answers = back.clone();
    tokio::spawn(async move { accepted.link.run(&back, &inlet_there).await });
    for number in 0..100u32 {
        assert!(dialed.outbox.push(Bytes::from([&number.to_le_bytes()[..], &[0; 2000]].concat())));
    }
    let mut held = Vec::new();
    for number in 0..100u32 {
        let (tag, LinkEvent::Message(message)) = there.recv().await.unwrap() else { panic!("a message") };
        assert_eq!((tag, &message.bytes[..4]), (7, &number.to_le_bytes()[..]));
        held.push(message);
        // 2 KiB each: while four are held, no fifth is let in.
        if held.len() == 4 {
            assert!(there.try_recv().is_err());
            held.clear();
        }
    }
    assert!(answers.push(Bytes::from_static(b"done")));
    let Some(((), LinkEvent::Message(message))) = here.recv().await else { panic!("the answer") };
    assert_eq!(message.bytes, "done");
}

/// A peer's link to member 0: raw on the dialing side, served into a queue on the other.
struct Raw {
    stream: tokio_rustls::client::TlsStream<TcpStream>,
    events: mpsc::Receiver<((), LinkEvent)>,
    outbox: Outbox,
}

impl Raw {
    async fn new(server: &mut Server, budget: Budget) -> Self {
        let stream = TcpStream::connect(&server.target.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(tls::client(&key(MEMBER + 1), server.target.key));
        let mut stream = connector.connect(tls::server_name(), stream).await.unwrap();
        let hello = accept::hello(server.membership.configuration().cluster, LinkKind::Peer);
        stream.write_all(&framed(&hello)).await.unwrap();
        stream.flush().await.unwrap();
        let link = server.next().await.unwrap().link;
        let ((sender, events), outbox) = (mpsc::channel(1024), Outbox::new(0));
        let (inlet, own) = (Inlet { tag: (), sender, budget }, outbox.clone());
        tokio::spawn(async move { link.serve(&own, &inlet).await });
        Self { stream, events, outbox }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn next(&mut self) -> LinkEvent {
        self.events.recv().await.unwrap().1
    }

    /// The next event that is no progress.
    async fn settled(&mut self) -> LinkEvent {
        loop {
            match self.next().await {
                LinkEvent::Progress { .. } => {}
                event => return event,
            }
        }
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    pieces::put_message(&mut out, message);
    out.to_vec()
}

/// The beginning of a large message and its first pieces.
fn begun(total: usize, count: usize) -> Vec<u8> {
    let message = vec![0; total];
    let (mut out, mut at) = (bytes::BytesMut::new(), 0);
    for _ in 0..count {
        at = pieces::put_piece(&mut out, &message, at);
    }
    out.to_vec()
}

const LARGE: usize = 24 << 20;

#[tokio::test]
async fn a_vote_queued_behind_a_block_of_24_mib_arrives_first() {
    let mut server = Server::start().await;
    let (inlet, _here) = inlet();
    let outbox = Outbox::overtaking(1 << 20, LARGE);
    assert!(outbox.push(vec![7; LARGE].into()) && outbox.push(Bytes::from_static(b"vote")));
    let _dialed = server.dialer(MEMBER + 1, LinkKind::Peer).keep(server.target.clone(), outbox, inlet);
    let accepted = server.next().await.unwrap();
    let (sender, mut there) = mpsc::channel(1024);
    let inlet = Inlet { tag: (), sender, budget: Budget::new(1 << 20, LARGE) };
    tokio::spawn(async move { accepted.link.run(&Outbox::new(0), &inlet).await });
    let (mut lengths, mut most) = (Vec::new(), 0);
    while lengths.len() < 2 {
        match there.recv().await.unwrap().1 {
            LinkEvent::Message(message) => lengths.push(message.bytes.len()),
            LinkEvent::Progress { received, total } => {
                assert!(total == LARGE && (most..LARGE).contains(&received));
                most = received;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lengths, [4, LARGE]);
}

#[tokio::test]
async fn a_stream_of_pieces_that_nobody_sends_ends_the_link_and_frees_what_it_took() {
    let mut server = Server::start().await;
    let budget = Budget::new(1 << 20, LARGE);
    let second = [begun(1 << 20, 1), begun(1 << 20, 1)].concat();
    let limit = LinkKind::Peer.message_bytes_max(&server.membership.configuration().limits);
    let cases = [second, begun(LARGE, 1)[4..].to_vec(), begun(limit + 1, 1), vec![0xff; 4]];
    for bytes in cases {
        let mut raw = Raw::new(&mut server, budget.clone()).await;
        raw.send(&bytes).await;
        let reason = raw.settled().await;
        let expected = matches!(reason, LinkEvent::Down(LinkError::BadPiece | LinkError::Oversized { .. }));
        assert!(expected, "{reason:?}");
    }
    let mut raw = Raw::new(&mut server, budget).await;
    raw.send(&framed(&vec![1; LARGE])).await;
    assert!(matches!(raw.settled().await, LinkEvent::Message(_)), "all of the budget is there again");
}

#[tokio::test]
async fn a_large_message_takes_its_share_when_it_begins_and_small_ones_pass_those_that_wait_elsewhere() {
    let mut server = Server::start().await;
    let budget = Budget::new(1 << 20, LARGE);
    let mut slow = Raw::new(&mut server, budget.part(1 << 20, LARGE)).await;
    slow.send(&begun(LARGE, 1)).await;
    assert!(matches!(slow.next().await, LinkEvent::Progress { received: 0, total: LARGE }));
    let mut other = Raw::new(&mut server, budget.part(1 << 20, LARGE)).await;
    other.send(b"\x04\0\0\0vote").await;
    assert!(matches!(other.next().await, LinkEvent::Message(_)));
    other.send(&begun(1 << 20, 1)).await;
    // It waits for room; the slow one has a second for its next piece now, and that does not come.
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    assert!(matches!(slow.settled().await, LinkEvent::Down(LinkError::Stalled)));
    assert!(start.elapsed() < Duration::from_secs(3), "not the ten that it has when nobody waits");
    tokio::time::resume();
    assert!(matches!(other.next().await, LinkEvent::Progress { received: 0, .. }));
    other.outbox.close();
    assert!(matches!(other.settled().await, LinkEvent::Down(LinkError::ClosedHere)));
}

#[tokio::test]
async fn a_broken_link_is_dialed_again_and_nothing_stale_is_sent_on_it() {
    let mut server = Server::start().await;
    let (inlet, mut events) = inlet();
    let dialed = server.dialer(MEMBER + 1, LinkKind::Peer).keep(server.target.clone(), Outbox::new(1 << 20), inlet);
    let first = server.next().await.unwrap();
    assert!(matches!(events.recv().await, Some(((), LinkEvent::Up))));
    drop(first);
    assert!(matches!(events.recv().await, Some(((), LinkEvent::Down(_)))));
    let mut second = server.next().await.unwrap();
    assert_eq!(second.role, Role::Peer(ReplicaId(1)));
    assert!(matches!(events.recv().await, Some(((), LinkEvent::Up))));
    assert!(dialed.outbox.push(Bytes::from_static(b"fresh")));
    assert_eq!(second.link.read().await.unwrap(), "fresh");
    drop(dialed);
    assert!(matches!(second.link.read().await, Err(LinkError::Closed | LinkError::Io(_))), "dropping it ends it");
}

#[tokio::test]
async fn an_unreachable_peer_is_dialed_again_until_the_link_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let membership = membership(&listener.local_addr().unwrap().to_string());
    let target = Target::from(membership.member(ReplicaId(0)).unwrap());
    drop(listener);
    let (inlet, mut events) = inlet();
    let dialer = Dialer::new(key(MEMBER + 1), LinkKind::Peer, membership);
    let dialed = dialer.keep(target, Outbox::new(1 << 20), inlet);
    for _ in 0..3 {
        let event = tokio::time::timeout(Duration::from_secs(30), events.recv()).await.unwrap();
        assert!(matches!(event, Some(((), LinkEvent::Down(LinkError::Io(_))))));
    }
    dialed.outbox.close();
    while events.recv().await.is_some() {}
}

#[test]
fn every_reason_has_a_label_of_its_own() {
    let io = || io::Error::other("x");
    let reasons = [
        LinkError::Io(io()),
        LinkError::Handshake(io()),
        LinkError::HandshakeTimeout,
        LinkError::Crowded,
        LinkError::UnknownKey,
        LinkError::BadHello,
        LinkError::WrongKind,
        LinkError::Oversized { length: 1, limit: 0 },
        LinkError::BadPiece,
        LinkError::Stalled,
        LinkError::NotReading,
        LinkError::Closed,
        LinkError::ClosedHere,
    ];
    let labels: std::collections::BTreeSet<_> = reasons.iter().map(LinkError::label).collect();
    assert_eq!(labels.len(), reasons.len());
}
