//! Load over RESP: for the gateway, and for any Redis it is compared with.
//!
//! ```text
//!   call ──> queue ──> written at once with all that wait ──> server
//!   caller <── oldest of those that wait <── one reply ────────┘
//! ```
//! One connection per caller, requests pipelined. Only as much of RESP as the answers to SET and a few others need.

use super::{CallError, Target};
use bytes::{Buf, BytesMut};
use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
};

/// One value of the protocol, as far as a test or a load generator looks at it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// `+OK`
    Simple(String),
    /// `-ERR ...`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3`; `None` is the null.
    Bulk(Option<Vec<u8>>),
    /// `*2`; `None` is the null.
    Array(Option<Vec<Value>>),
}

/// Bytes or elements that a reply may announce: more is nothing that this client asked for.
const LENGTH_MAX: usize = 512 << 20;

/// Arrays within arrays.
const DEPTH_MAX: usize = 8;

/// Reads one value from the front of `input`. `Ok(None)` when it is not complete yet.
///
/// # Errors
/// When the bytes are not RESP2.
pub fn parse(input: &[u8]) -> Result<Option<(Value, usize)>, io::Error> {
    parse_within(input, DEPTH_MAX)
}

fn parse_within(input: &[u8], depth: usize) -> Result<Option<(Value, usize)>, io::Error> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "the server's answer is not RESP2");
    let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else {
        return if input.first().is_some_and(|byte| !b"+-:$*".contains(byte)) { Err(bad()) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&input[1..end.max(1)]).map_err(|_| bad())?;
    let mut used = end + 2;
    let length = || -> Result<Option<usize>, io::Error> {
        match line.parse::<i64>().map_err(|_| bad())? {
            -1 => Ok(None),
            length => usize::try_from(length).ok().filter(|length| *length <= LENGTH_MAX).map(Some).ok_or_else(bad),
        }
    };
    let value = match input[0] {
        b'+' => Value::Simple(line.into()),
        b'-' => Value::Error(line.into()),
        b':' => Value::Integer(line.parse().map_err(|_| bad())?),
        b'$' => match length()? {
            None => Value::Bulk(None),
            Some(length) => {
                let Some(bytes) = input.get(used..used + length + 2) else { return Ok(None) };
                used += length + 2;
                Value::Bulk(Some(bytes[..length].to_vec()))
            }
        },
        b'*' => match length()? {
            None => Value::Array(None),
            Some(_) if depth == 0 => return Err(bad()),
            Some(length) => {
                let mut values = Vec::new();
                for _ in 0..length {
                    let Some((value, more)) = parse_within(&input[used..], depth - 1)? else { return Ok(None) };
                    values.push(value);
                    used += more;
                }
                Value::Array(Some(values))
            }
        },
        _ => return Err(bad()),
    };
    Ok(Some((value, used)))
}

/// Appends a command to what will be sent.
pub fn write_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

type Call = (Vec<u8>, oneshot::Sender<Value>);

/// A pipelined connection. Cheap to clone; closed when the last clone is gone.
#[derive(Clone)]
pub struct RespClient(mpsc::Sender<Call>);

/// Commands that wait in a connection. A caller waits for its answer, so callers bound it already.
const CALLS_MAX: usize = 4096;

impl RespClient {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, receiver) = mpsc::channel(CALLS_MAX);
        tokio::spawn(async move {
            // Who still waits for an answer learns of a broken connection by its channel being closed.
            let _ = drive(stream, receiver).await;
        });
        Ok(Self(sender))
    }

    /// Sends one command and waits for its answer.
    ///
    /// # Errors
    /// When the connection broke: whether the command was executed is not known.
    pub async fn command(&self, words: &[&[u8]]) -> io::Result<Value> {
        let broken = || io::Error::new(io::ErrorKind::ConnectionReset, "the connection broke");
        let mut bytes = Vec::new();
        write_command(&mut bytes, words);
        let (sender, answer) = oneshot::channel();
        self.0.send((bytes, sender)).await.map_err(|_| broken())?;
        answer.await.map_err(|_| broken())
    }
}

async fn drive(stream: TcpStream, mut calls: mpsc::Receiver<Call>) -> io::Result<()> {
    let (mut reads, mut writes) = stream.into_split();
    let mut waiting: VecDeque<oneshot::Sender<Value>> = VecDeque::new();
    let mut input = BytesMut::new();
    let mut output = Vec::new();
    loop {
        tokio::select! {
            call = calls.recv() => {
                let Some((bytes, answer)) = call else { return Ok(()) };
                output.extend_from_slice(&bytes);
                waiting.push_back(answer);
                while let Ok((bytes, answer)) = calls.try_recv() {
                    output.extend_from_slice(&bytes);
                    waiting.push_back(answer);
                }
                writes.write_all(&output).await?;
                output.clear();
            }
            count = reads.read_buf(&mut input) => {
                if count? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                while let Some((value, used)) = parse(&input)? {
                    input.advance(used);
                    if let Some(answer) = waiting.pop_front() {
                        let _ = answer.send(value); // who asked may have gone
                    }
                }
            }
        }
    }
}

/// A server that speaks RESP as a target: SET of values of one size under many keys.
#[derive(Clone)]
pub struct RespTarget {
    connections: Arc<Vec<RespClient>>,
    value: Arc<Vec<u8>>,
}

/// Keys that are written; as many as redis-benchmark takes with -r in its manual's example.
const KEYS: u64 = 100_000;

impl RespTarget {
    /// Connects `clients` times.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(address: SocketAddr, clients: usize, size: usize) -> io::Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..clients {
            connections.push(RespClient::connect(address).await?);
        }
        Ok(Self { connections: Arc::new(connections), value: Arc::new(vec![b'x'; size]) })
    }
}

impl Target for RespTarget {
    async fn call(&self, client: usize, seed: u64) -> Result<(), CallError> {
        let key = format!("key:{:012}", seed % KEYS);
        match self.connections[client].command(&[b"SET", key.as_bytes(), &self.value]).await {
            Ok(Value::Error(text)) => Err(CallError(text)),
            Ok(_) => Ok(()),
            Err(error) => Err(CallError(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn every_kind_of_value_is_read_and_no_prefix_is_taken_for_a_whole() {
        let text = b"*5\r\n+OK\r\n-ERR no\r\n:-7\r\n$5\r\na\r\nbc\r\n*2\r\n$-1\r\n*-1\r\n";
        let value = Value::Array(Some(vec![
            Value::Simple("OK".into()),
            Value::Error("ERR no".into()),
            Value::Integer(-7),
            Value::Bulk(Some(b"a\r\nbc".to_vec())),
            Value::Array(Some(vec![Value::Bulk(None), Value::Array(None)])),
        ]));
        assert_eq!(parse(text).unwrap(), Some((value, text.len())));
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end]).unwrap(), None, "{end} bytes");
        }
    }

    #[test]
    fn what_is_not_resp_is_an_error_and_not_a_wait() {
        let deep = b"*1\r\n".repeat(20);
        for text in [&b"HTTP/1.1 200 OK\r\n"[..], b"x", b"$x\r\n", b"$-2\r\n", b"*99999999999\r\n", b":\r\n", &deep] {
            assert!(parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[tokio::test]
    async fn pipelined_answers_reach_their_callers_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut input = BytesMut::new();
            let mut answered = 0;
            while answered < 100 {
                stream.read_buf(&mut input).await.unwrap();
                while let Some((value, used)) = parse(&input).unwrap() {
                    input.advance(used);
                    let Value::Array(Some(words)) = value else { panic!("{value:?}") };
                    let Value::Bulk(Some(word)) = &words[1] else { panic!("{words:?}") };
                    let mut reply = format!("${}\r\n", word.len()).into_bytes();
                    reply.extend_from_slice(word);
                    reply.extend_from_slice(b"\r\n");
                    stream.write_all(&reply).await.unwrap();
                    answered += 1;
                }
            }
        });
        let client = RespClient::connect(address).await.unwrap();
        let mut calls = tokio::task::JoinSet::new();
        for index in 0..100 {
            let client = client.clone();
            calls.spawn(async move {
                let word = format!("word {index}");
                let value = client.command(&[b"ECHO", word.as_bytes()]).await.unwrap();
                assert_eq!(value, Value::Bulk(Some(word.into_bytes())));
            });
        }
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
        assert!(client.command(&[b"ECHO", b"nobody is left"]).await.is_err());
    }
}
