//! The wire protocol of Redis, versions 2 and 3: requests in ([`Decoder`]), replies out ([`Reply`]).
//!
//! ```text
//!   *2\r\n $3\r\nGET\r\n $1\r\nk\r\n      an array of bulk strings          \  one Request: the bytes it came in,
//!   GET "k"\r\n                           an inline command, with quotes    /  and where in them its arguments are
//! ```
//! The decoder is resumable: it remembers how far it has come in the front of the buffer, so that input which arrives
//! in small pieces is looked at once, not again with every piece; and it copies no argument.
//!
//! Invariant: the buffer holds at most one request's bytes below [`Limits::request`] plus what one read brought:
//! larger values are skipped as they arrive, and answered with an error when they are over, so the connection stays
//! usable.

use crate::failure::REPLY_BYTES_MAX;
use crate::number::{parse_integer, write_double, write_integer};
use unisono::gateway::{Buf, Bytes, BytesMut};

/// Arguments of one request, as in Redis up to 6.2.
const ARGUMENTS_MAX: i64 = 1 << 20;
/// Bytes of an inline request and of a length line, as in Redis (`PROTO_INLINE_MAX_SIZE`).
const LINE_BYTES_MAX: usize = 64 << 10;
/// Above this length of an argument the peer is not speaking the protocol, as in Redis (`proto-max-bulk-len`).
const BULK_BYTES_MAX: i64 = 512 << 20;

/// Which version of the protocol a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, unisono::Input)]
pub enum Version {
    /// RESP2, what a connection begins with.
    #[default]
    Two,
    /// RESP3, after `HELLO 3`.
    Three,
}

/// Bounds of what is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one argument.
    pub argument: usize,
    /// Bytes of all arguments of one request.
    pub request: usize,
}

/// One command with its arguments, the first of them its name.
///
/// Invariant: there is at least one argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    bytes: Bytes,
    arguments: Vec<(u32, u32)>,
}

impl Request {
    /// How many arguments, the name included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arguments.len()
    }

    /// Never: a request without arguments is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arguments.is_empty()
    }

    /// The arguments, the name included.
    pub fn arguments(&self) -> impl Iterator<Item = &[u8]> {
        self.arguments.iter().map(|(start, end)| &self.bytes[*start as usize..*end as usize])
    }

    /// One of the arguments; an empty one beyond the last.
    #[must_use]
    pub fn argument(&self, index: usize) -> &[u8] {
        self.arguments.get(index).map_or(b"", |(start, end)| &self.bytes[*start as usize..*end as usize])
    }

    /// The arguments one behind the other: an inline request's or a test's.
    #[must_use]
    pub fn from_arguments<A: AsRef<[u8]>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let mut bytes = Vec::new();
        let arguments = arguments
            .into_iter()
            .map(|argument| {
                let start = bytes.len() as u32;
                bytes.extend_from_slice(argument.as_ref());
                (start, bytes.len() as u32)
            })
            .collect();
        Self { bytes: bytes.into(), arguments }
    }
}

/// What has come in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    /// A command.
    Request(Request),
    /// A command that was too large, now skipped whole: so many bytes (of one argument, or of all), the limit.
    TooLarge {
        /// Bytes it had.
        bytes: u64,
        /// Bytes allowed.
        limit: usize,
    },
}

/// The peer does not speak the protocol; its connection ends after this message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("ERR Protocol error: {0}")]
pub struct ProtocolError(pub String);

impl ProtocolError {
    fn new<T>(text: impl Into<String>) -> Result<T, Self> {
        Err(Self(text.into()))
    }
}

/// Takes requests from the front of a buffer.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
    /// Bytes at the front of the buffer that belong to the request being read.
    position: usize,
    /// Where its arguments are, from the front of the buffer.
    arguments: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Before a request.
    Start,
    /// Within an array: so many arguments are to come.
    Array { left: u32 },
    /// The next bytes are an argument of this length; this one included, so many are to come.
    Bulk { left: u32, length: usize },
    /// Within an array that is too large: so many bytes of an argument, then so many arguments; size and limit so far.
    Skip { bytes: u64, left: u32, size: u64, limit: usize },
}

impl Decoder {
    /// A decoder at the start of a connection's input.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Start, position: 0, arguments: Vec::new() }
    }

    /// The next request, or nothing until more bytes have come. `buffer` must keep what this leaves in it.
    ///
    /// # Errors
    /// [`ProtocolError`] when what comes is not the protocol; nothing can be decoded afterwards.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Incoming>, ProtocolError> {
        loop {
            match self.state {
                State::Start => match buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        let Some(line) = self.line(buffer, "too big mbulk count string")? else { return Ok(None) };
                        let count = parse_integer(&buffer[line.0 + 1..line.1]).filter(|count| *count <= ARGUMENTS_MAX);
                        let Some(count) = count else { return ProtocolError::new("invalid multibulk length") };
                        match u32::try_from(count) {
                            Ok(left @ 1..) => self.state = State::Array { left },
                            Ok(0) | Err(_) => self.discard(buffer), // nothing was asked
                        }
                    }
                    Some(_) => match self.inline(buffer)? {
                        Inline::Incomplete => return Ok(None),
                        Inline::Empty => {}
                        Inline::Request(request) => return Ok(Some(Incoming::Request(request))),
                    },
                },
                State::Array { left: 0 } => {
                    let bytes = buffer.split_to(self.position).freeze();
                    let arguments = std::mem::take(&mut self.arguments);
                    (self.state, self.position) = (State::Start, 0);
                    return Ok(Some(Incoming::Request(Request { bytes, arguments })));
                }
                State::Array { left } => {
                    let Some(length) = self.bulk_length(buffer)? else { return Ok(None) };
                    let size = self.position + length;
                    if length > self.limits.argument {
                        self.skip(buffer, length, left, length as u64, self.limits.argument);
                    } else if size > self.limits.request {
                        self.skip(buffer, length, left, size as u64, self.limits.request);
                    } else {
                        self.state = State::Bulk { left, length };
                    }
                }
                State::Bulk { left, length } => {
                    let end = self.position + length;
                    if buffer.len() < end + 2 {
                        return Ok(None);
                    }
                    self.arguments.push((self.position as u32, end as u32));
                    self.position = end + 2;
                    self.state = State::Array { left: left - 1 };
                }
                State::Skip { bytes: 0, left: 0, size, limit } => {
                    self.state = State::Start;
                    return Ok(Some(Incoming::TooLarge { bytes: size, limit }));
                }
                State::Skip { bytes: 0, left, size, limit } => {
                    let Some(length) = self.bulk_length(buffer)? else { return Ok(None) };
                    buffer.advance(std::mem::take(&mut self.position));
                    let bytes = length as u64 + 2;
                    self.state = State::Skip { bytes, left: left - 1, size, limit };
                }
                State::Skip { bytes, left, size, limit } => {
                    let now = buffer.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
                    if now == 0 {
                        return Ok(None);
                    }
                    buffer.advance(now);
                    self.state = State::Skip { bytes: bytes - now as u64, left, size, limit };
                }
            }
        }
    }

    /// Drops what was read of the request so far.
    fn discard(&mut self, buffer: &mut BytesMut) {
        buffer.advance(std::mem::take(&mut self.position));
        self.arguments = Vec::new();
        self.state = State::Start;
    }

    fn skip(&mut self, buffer: &mut BytesMut, length: usize, left: u32, size: u64, limit: usize) {
        self.discard(buffer);
        self.state = State::Skip { bytes: length as u64 + 2, left: left - 1, size, limit };
    }

    /// The line from `position` on, if it has ended: where it starts and ends, `position` behind it.
    fn line(&mut self, buffer: &BytesMut, too_long: &str) -> Result<Option<(usize, usize)>, ProtocolError> {
        let rest = &buffer[self.position..];
        let window = &rest[..rest.len().min(LINE_BYTES_MAX)];
        match window.iter().position(|byte| *byte == b'\r') {
            None if rest.len() > LINE_BYTES_MAX => ProtocolError::new(too_long),
            Some(end) if end + 1 < rest.len() => {
                let start = self.position;
                self.position += end + 2;
                Ok(Some((start, start + end)))
            }
            _ => Ok(None),
        }
    }

    /// The length of the next argument.
    fn bulk_length(&mut self, buffer: &BytesMut) -> Result<Option<usize>, ProtocolError> {
        let Some((start, end)) = self.line(buffer, "too big bulk count string")? else { return Ok(None) };
        if buffer[start] != b'$' {
            // shown as Redis shows it, with line ends as blanks, for the error is a line of its own
            let got = buffer[start];
            let shown = if matches!(got, b'\r' | b'\n') { ' ' } else { got as char };
            return ProtocolError::new(format!("expected '$', got '{shown}'"));
        }
        match parse_integer(&buffer[start + 1..end]) {
            Some(length @ 0..=BULK_BYTES_MAX) => Ok(Some(length as usize)),
            _ => ProtocolError::new("invalid bulk length"),
        }
    }

    fn inline(&mut self, buffer: &mut BytesMut) -> Result<Inline, ProtocolError> {
        let window = &buffer[..buffer.len().min(LINE_BYTES_MAX)];
        let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
            return if buffer.len() > LINE_BYTES_MAX {
                ProtocolError::new("too big inline request")
            } else {
                Ok(Inline::Incomplete)
            };
        };
        let line = buffer.split_to(end + 1);
        let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
        match split_words(line) {
            None => ProtocolError::new("unbalanced quotes in request"),
            Some(words) if words.is_empty() => Ok(Inline::Empty),
            Some(words) => Ok(Inline::Request(Request::from_arguments(words))),
        }
    }
}

enum Inline {
    Incomplete,
    Empty,
    Request(Request),
}

/// The words of an inline command: split at blanks; `"..."` with escapes, `'...'` with `\'` alone; nothing when a
/// quote is not closed, or closed before anything but a blank.
fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let blank = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        while let [byte, tail @ ..] = rest
            && blank(*byte)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        loop {
            match rest {
                [] => break,
                [byte, ..] if blank(*byte) => break,
                [b'"', tail @ ..] => {
                    rest = double_quoted(tail, &mut word)?;
                    if !rest.first().is_none_or(|byte| blank(*byte)) {
                        return None;
                    }
                }
                [b'\'', tail @ ..] => {
                    rest = single_quoted(tail, &mut word)?;
                    if !rest.first().is_none_or(|byte| blank(*byte)) {
                        return None;
                    }
                }
                [byte, tail @ ..] => {
                    word.push(*byte);
                    rest = tail;
                }
            }
        }
        words.push(word);
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    let hex = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    loop {
        match rest {
            [] => return None,
            [b'"', tail @ ..] => return Some(tail),
            [b'\\', b'x', high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                word.push(hex(*high)? << 4 | hex(*low)?);
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = tail;
            }
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'\'', tail @ ..] => return Some(tail),
            [b'\\', b'\'', tail @ ..] => {
                word.push(b'\'');
                rest = tail;
            }
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

/// Writes replies in one version of the protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    bytes: Vec<u8>,
    version: Version,
    overflowed: bool,
}

impl Reply {
    /// An empty reply.
    #[must_use]
    pub fn new(version: Version) -> Self {
        Self { bytes: Vec::new(), version, overflowed: false }
    }

    /// The reply of a single `write`.
    #[must_use]
    pub fn of(version: Version, write: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut reply = Self::new(version);
        write(&mut reply);
        reply.bytes
    }

    /// The bytes written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How many bytes are written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Were strings left out, because the reply was too long? Then it is no reply.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    fn head(&mut self, mark: u8, number: i64) {
        self.bytes.push(mark);
        write_integer(&mut self.bytes, number);
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn by_version(&mut self, two: &[u8], three: &[u8]) {
        self.bytes.extend_from_slice(if self.version == Version::Two { two } else { three });
    }

    /// Bytes that are a reply already.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// `+text`, a line.
    pub fn simple(&mut self, text: &str) {
        self.bytes.push(b'+');
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.simple("OK");
    }

    /// `-text`: the first word is the error's code. Line ends in the text become blanks, as in Redis.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.bytes.push(b'-');
        let text = text.as_ref().iter();
        self.bytes.extend(text.map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// `:number`.
    pub fn integer(&mut self, number: i64) {
        self.head(b':', number);
    }

    /// `:length`.
    pub fn count(&mut self, length: usize) {
        self.integer(i64::try_from(length).unwrap_or(i64::MAX));
    }

    /// A bulk string; left out beyond [`REPLY_BYTES_MAX`].
    pub fn bulk(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > REPLY_BYTES_MAX {
            self.overflowed = true;
            return;
        }
        self.bytes.reserve(bytes.len() + 16);
        self.head(b'$', bytes.len() as i64);
        self.bytes.extend_from_slice(bytes);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// A bulk string, or null.
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// A text that tools show as it stands: `=` with its format in version 3, a bulk string in version 2.
    pub fn verbatim(&mut self, text: &str) {
        if self.version == Version::Two {
            return self.bulk(text.as_bytes());
        }
        self.head(b'=', text.len() as i64 + 4);
        self.bytes.extend_from_slice(b"txt:");
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// No value.
    pub fn null(&mut self) {
        self.by_version(b"$-1\r\n", b"_\r\n");
    }

    /// No array.
    pub fn null_array(&mut self) {
        self.by_version(b"*-1\r\n", b"_\r\n");
    }

    /// So many replies follow.
    pub fn array(&mut self, length: usize) {
        self.head(b'*', length as i64);
    }

    /// So many pairs of replies follow.
    pub fn map(&mut self, pairs: usize) {
        match self.version {
            Version::Two => self.head(b'*', 2 * pairs as i64),
            Version::Three => self.head(b'%', pairs as i64),
        }
    }

    /// So many distinct replies follow.
    pub fn set(&mut self, length: usize) {
        self.head(if self.version == Version::Two { b'*' } else { b'~' }, length as i64);
    }

    /// A double, with seventeen significant digits.
    pub fn double(&mut self, value: f64) {
        let mut text = Vec::with_capacity(24);
        write_double(&mut text, value);
        match self.version {
            Version::Two => self.bulk(&text),
            Version::Three => {
                self.bytes.push(b',');
                self.bytes.extend_from_slice(&text);
                self.bytes.extend_from_slice(b"\r\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { argument: 32, request: 100 };

    fn decode(input: &[u8]) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
        decode_pieces([input])
    }

    fn decode_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
        let mut decoder = Decoder::new(LIMITS);
        let mut buffer = BytesMut::new();
        let mut requests = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.next(&mut buffer) {
                    Ok(Some(Incoming::Request(request))) => {
                        requests.push(request.arguments().map(<[u8]>::to_vec).collect());
                    }
                    Ok(Some(Incoming::TooLarge { bytes, .. })) => {
                        requests.push(vec![b"too large".to_vec(), bytes.to_string().into_bytes()]);
                    }
                    Ok(None) => break,
                    Err(error) => return (requests, Some(error)),
                }
            }
        }
        (requests, None)
    }

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    const CONVERSATION: &[u8] =
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\r\nPING \"a b\" c\r\n*0\r\n*-1\r\n*1\r\n$4\r\nQUIT\r\n\
        *3\r\n$3\r\nSET\r\n$40\r\n0123456789012345678901234567890123456789\r\n$1\r\nv\r\n*2\r\n$1\r\n\r\r\n$0\r\n\r\n";

    fn conversation() -> Vec<Vec<Vec<u8>>> {
        vec![
            words(&["GET", "k"]),
            words(&["PING", "a b", "c"]),
            words(&["QUIT"]),
            words(&["too large", "40"]),
            words(&["\r", ""]),
        ]
    }

    #[test]
    fn requests_come_out_whole_wherever_the_input_is_cut() {
        let input = CONVERSATION;
        assert_eq!(decode(input), (conversation(), None));
        for cut in 0..input.len() {
            let (front, back) = input.split_at(cut);
            assert_eq!(decode_pieces([front, back]), (conversation(), None), "cut at {cut}");
        }
        assert_eq!(decode_pieces(input.chunks(1)), (conversation(), None), "byte by byte");
    }

    #[test]
    fn inline_commands_know_quotes_and_escapes() {
        for (line, expected) in [
            (r#"set k "a\tb\x41\"c""#, words(&["set", "k", "a\tbA\"c"])),
            (r"set 'it\'s' x", words(&["set", "it's", "x"])),
            (r#"get """#, words(&["get", ""])),
            (r#"get a"b""#, words(&["get", "ab"])),
            (r#"get "\xzz""#, words(&["get", "xzz"])),
            ("  a   b  ", words(&["a", "b"])),
        ] {
            assert_eq!(decode(format!("{line}\n").as_bytes()), (vec![expected], None), "{line}");
        }
        for line in ["get \"a", "get 'a", "get \"a\"b", "get 'a'b", "get \"a\\"] {
            let (_, error) = decode(format!("{line}\r\n").as_bytes());
            assert_eq!(error.unwrap().to_string(), "ERR Protocol error: unbalanced quotes in request", "{line}");
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_named_as_redis_names_it() {
        for (input, expected) in [
            ("*x\r\n", "invalid multibulk length"),
            ("*01\r\n", "invalid multibulk length"),
            ("*1048577\r\n", "invalid multibulk length"),
            ("*2147483648\r\n", "invalid multibulk length"),
            ("*1\r\n+PING\r\n", "expected '$', got '+'"),
            ("*1\r\n\r\n", "expected '$', got ' '"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("*1\r\n$abc\r\n", "invalid bulk length"),
            ("*1\r\n$536870913\r\n", "invalid bulk length"),
            ("*1\r\n$9223372036854775808\r\n", "invalid bulk length"),
        ] {
            let (requests, error) = decode(input.as_bytes());
            assert_eq!((requests.len(), error.unwrap().0.as_str()), (0, expected), "{input:?}");
        }
        for (start, expected) in [
            ("PING ", "too big inline request"),
            ("*1", "too big mbulk count string"),
            ("*1\r\n$1", "too big bulk count string"),
        ] {
            let input = [start.as_bytes(), &vec![b'1'; LINE_BYTES_MAX + 1]].concat();
            assert_eq!(decode(&input).1.unwrap().0, expected);
        }
    }

    #[test]
    fn an_argument_above_the_limit_is_skipped_without_being_kept() {
        let mut decoder = Decoder::new(LIMITS);
        let mut buffer = BytesMut::from(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n".as_slice());
        assert_eq!(decoder.next(&mut buffer), Ok(None));
        for _ in 0..1000 {
            buffer.extend_from_slice(&[b'v'; 1000]);
            assert_eq!(decoder.next(&mut buffer), Ok(None));
            assert!(buffer.is_empty(), "nothing of a value that is too large stays");
        }
        buffer.extend_from_slice(b"\r\nPING\r\n");
        assert_eq!(decoder.next(&mut buffer), Ok(Some(Incoming::TooLarge { bytes: 1_000_000, limit: 32 })));
        assert_eq!(decoder.next(&mut buffer), Ok(Some(Incoming::Request(Request::from_arguments(["PING"])))));
    }

    #[test]
    fn many_arguments_that_are_too_large_together_are_skipped() {
        let mut input = b"*10\r\n".to_vec();
        (0..10).for_each(|_| input.extend_from_slice(b"$20\r\n01234567890123456789\r\n"));
        input.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
        let (requests, error) = decode(&input);
        assert_eq!(error, None);
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0][0], b"too large");
        assert_eq!(requests[1], words(&["PING"]));
    }

    #[test]
    fn a_million_announced_arguments_cost_nothing_before_they_come() {
        let mut decoder = Decoder::new(LIMITS);
        let mut buffer = BytesMut::from(b"*1048576\r\n$0\r\n\r\n".as_slice());
        assert_eq!(decoder.next(&mut buffer), Ok(None));
        assert!(decoder.arguments.capacity() < 16);
    }

    #[test]
    fn replies_differ_between_the_versions_where_they_should() {
        let write = |reply: &mut Reply| {
            reply.null();
            reply.null_array();
            reply.map(1);
            reply.set(1);
            reply.double(0.1);
            reply.verbatim("x");
        };
        assert_eq!(
            Reply::of(Version::Two, write),
            b"$-1\r\n*-1\r\n*2\r\n*1\r\n$19\r\n0.10000000000000001\r\n$1\r\nx\r\n"
        );
        assert_eq!(Reply::of(Version::Three, write), b"_\r\n_\r\n%1\r\n~1\r\n,0.10000000000000001\r\n=5\r\ntxt:x\r\n");
    }

    #[test]
    fn an_error_stays_on_its_line() {
        assert_eq!(Reply::of(Version::Two, |reply| reply.error("ERR a\r\n+OK")), b"-ERR a  +OK\r\n");
    }

    proptest::proptest! {
        /// Whatever comes, in whatever pieces: no panic, and the pieces make no difference.
        #[test]
        fn hostile_input_never_panics(input in "[*$0-9a\"'\\\\\r\n -]{0,200}", piece in 1usize..10) {
            proptest::prop_assert_eq!(decode(input.as_bytes()), decode_pieces(input.as_bytes().chunks(piece)));
        }

        #[test]
        fn what_is_sent_as_an_array_is_what_comes_out(arguments in proptest::collection::vec(proptest::collection::vec(0u8.., 0..9), 1..5)) {
            let mut input = format!("*{}\r\n", arguments.len()).into_bytes();
            for argument in &arguments {
                input.extend(format!("${}\r\n", argument.len()).bytes());
                input.extend(argument);
                input.extend(b"\r\n");
            }
            proptest::prop_assert_eq!(decode(&input), (vec![arguments], None));
        }
    }
}
