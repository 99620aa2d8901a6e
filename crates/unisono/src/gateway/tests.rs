//! A line protocol over loopback sockets, before a cluster that the test plays itself.

use super::*;
use crate::client::{Completion, Pace, Submit};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};

/// `text\n` is an operation and its outcome comes back as it is; `quit\n` says `bye\n` and closes.
struct Lines;

#[derive(Default)]
struct LineConnection {
    next_ticket: u64,
}

impl Protocol for Lines {
    type Connection = LineConnection;

    fn connect(&self) -> LineConnection {
        LineConnection::default()
    }
}

impl Connection for LineConnection {
    fn receive(&mut self, input: &mut BytesMut, actions: &mut Vec<Action>) {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            let line = input.split_to(end + 1).freeze();
            if &line[..] == b"quit\n" {
                actions.push(Action::Write(Bytes::from_static(b"bye\n")));
                actions.push(Action::Close);
                return;
            }
            actions.push(Action::Invoke { ticket: self.next_ticket, operation: line });
            self.next_ticket += 1;
        }
    }

    fn answer(&mut self, _ticket: u64, outcome: Result<Outcome, InvokeError>, actions: &mut Vec<Action>) {
        actions.push(Action::Write(match outcome {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(fault)) => format!("fault {fault}\n").into(),
            Err(error) => format!("error {error}\n").into(),
        }));
    }

    fn disconnected(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::Invoke { ticket: 0, operation: Bytes::from_static(b"gone\n") });
    }
}

/// The cluster: what is submitted arrives here, and the test answers when it likes.
#[derive(Clone)]
struct Played(mpsc::UnboundedSender<(Bytes, Completion)>);

impl Submit for Played {
    fn submit(&self, operation: Bytes, _pace: Pace, completion: Completion) {
        let _ = self.0.send((operation, completion));
    }
}

struct Stage {
    address: SocketAddr,
    submitted: mpsc::UnboundedReceiver<(Bytes, Completion)>,
    _stop: oneshot::Sender<()>,
}

async fn stage() -> Stage {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, submitted) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(serve(listener, Arc::new(Lines), Played(sender), async {
        let _ = stopped.await;
    }));
    Stage { address, submitted, _stop: stop }
}

impl Stage {
    async fn next(&mut self) -> (Bytes, Completion) {
        self.submitted.recv().await.unwrap()
    }
}

#[tokio::test]
async fn an_operation_goes_in_and_its_outcome_comes_out() {
    let mut stage = stage().await;
    let mut client = BufReader::new(TcpStream::connect(stage.address).await.unwrap());
    client.write_all(b"hel").await.unwrap();
    client.write_all(b"lo\n").await.unwrap();
    let (operation, completion) = stage.next().await;
    assert_eq!(&operation[..], b"hello\n");
    completion.complete(Ok(Ok(Bytes::from_static(b"world\n"))));
    let mut line = String::new();
    client.read_line(&mut line).await.unwrap();
    assert_eq!(line, "world\n");
}

#[tokio::test]
async fn answers_may_come_in_any_order_and_errors_are_answers() {
    let mut stage = stage().await;
    let mut client = TcpStream::connect(stage.address).await.unwrap();
    client.write_all(b"a\nb\nc\n").await.unwrap();
    let (_, a) = stage.next().await;
    let (_, b) = stage.next().await;
    let (_, c) = stage.next().await;
    c.complete(Err(InvokeError::Closed));
    drop(b); // a driver that ends answers everybody
    a.complete(Ok(Err(Fault::UnknownOperation)));
    client.write_all(b"quit\n").await.unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    let closed = format!("error {}\n", InvokeError::Closed);
    assert_eq!(all, format!("{closed}{closed}fault {}\nbye\n", Fault::UnknownOperation));
}

#[tokio::test]
async fn a_protocol_that_closes_is_flushed_first_and_told_when_the_peer_is_gone() {
    let mut stage = stage().await;
    let mut client = TcpStream::connect(stage.address).await.unwrap();
    client.write_all(b"quit\nnever seen\n").await.unwrap();
    let mut all = String::new();
    let _ = client.read_to_string(&mut all).await; // the unread line may reset the connection
    assert_eq!(all, "bye\n");
    assert_eq!(&stage.next().await.0[..], b"gone\n");
}

#[tokio::test]
async fn a_peer_that_half_closes_still_gets_what_it_asked_for() {
    let mut stage = stage().await;
    let mut client = TcpStream::connect(stage.address).await.unwrap();
    client.write_all(b"a\n").await.unwrap();
    client.shutdown().await.unwrap();
    stage.next().await.1.complete(Ok(Ok(Bytes::from_static(b"late\n"))));
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "late\n");
}

#[tokio::test]
async fn a_client_that_never_reads_is_no_longer_read_and_others_go_on() {
    const ANSWER: usize = 64 << 10;
    let mut stage = stage().await;
    let deaf = TcpStream::connect(stage.address).await.unwrap();
    let (_deaf_reads, mut deaf_writes) = deaf.into_split();
    // It asks for ever: its writes end when the kernel's buffers are full, which is when the gateway reads no more.
    tokio::spawn(async move { while deaf_writes.write_all(&b"x\n".repeat(4096)).await.is_ok() {} });

    let mut polite = BufReader::new(TcpStream::connect(stage.address).await.unwrap());
    let mut deaf_answers = 0;
    for round in 0..100 {
        let question = format!("round {round}\n");
        polite.write_all(question.as_bytes()).await.unwrap();
        loop {
            let (operation, completion) = stage.next().await;
            if operation == question.as_bytes() {
                completion.complete(Ok(Ok(operation)));
                break;
            }
            deaf_answers += 1;
            completion.complete(Ok(Ok(Bytes::from(vec![b'y'; ANSWER]))));
        }
        let mut line = String::new();
        polite.read_line(&mut line).await.unwrap();
        assert_eq!(line, question);
    }
    // The bound of the output, what was outstanding when it was reached, and what the kernel's buffers take.
    let bound = (OUTPUT_BYTES_MAX + (32 << 20)) / ANSWER + INVOCATIONS_MAX;
    assert!(deaf_answers <= bound, "{deaf_answers} answers were made for a client that reads none");
    assert!(stage.submitted.len() <= INVOCATIONS_MAX, "the deaf client's other lines wait outside");
}

#[tokio::test]
async fn a_thousand_idle_connections_do_not_hold_up_one_that_works() {
    let mut stage = stage().await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(TcpStream::connect(stage.address).await.unwrap());
    }
    let mut client = BufReader::new(TcpStream::connect(stage.address).await.unwrap());
    client.write_all(b"now\n").await.unwrap();
    let (operation, completion) = stage.next().await;
    completion.complete(Ok(Ok(operation)));
    let mut line = String::new();
    client.read_line(&mut line).await.unwrap();
    assert_eq!(line, "now\n");
}
