//! What the gateway has the cluster execute, as bytes.
//!
//! ```text
//!   Batch        0  command*                                    -> replies, then how many ran (u32)
//!   Transaction  1  version  n  (key, version of key)*  command*  -> one reply
//!   Watch        2  n  key*                                     -> a version (u64) per key
//!   Block        3  token  command                              -> one reply
//!   Cancel       4  token                                       -> nothing
//!
//!   command = number (highest bit: RESP3), count, count x (length, bytes)       numbers: LEB128
//!   the number 127 is a literal: its one argument is a reply the gateway knew already
//! ```
//! A gateway is trusted by its own applications only: every byte is checked here, counts are bounded by the bytes
//! that are there, and what does not decode exactly is no operation.

use crate::command::Command;
use crate::resp::{Request, Version};
use unisono::UnknownOperation;
use unisono::gateway::Bytes;

/// Stands in place of a command's number before a reply that is known already.
const LITERAL: u8 = 127;
/// Marks a command whose reply is in version 3.
const THREE: u8 = 128;

/// Names one blocked pop, so that it can be cancelled. Chosen by the gateway, different from every other.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    borsh::BorshSerialize,
    borsh::BorshDeserialize,
    unisono::Input,
)]
pub struct Token(pub [u8; 16]);

/// Which operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Commands of one connection that came together.
    Batch,
    /// The commands between MULTI and EXEC.
    Transaction,
    /// Versions of keys.
    Watch,
    /// A pop that waits.
    Block,
    /// The end of a pop that waits.
    Cancel,
}

impl Kind {
    /// The kind that an operation's first byte names.
    #[must_use]
    pub fn of(operation: &[u8]) -> Option<Self> {
        match operation.first()? {
            0 => Some(Self::Batch),
            1 => Some(Self::Transaction),
            2 => Some(Self::Watch),
            3 => Some(Self::Block),
            4 => Some(Self::Cancel),
            _ => None,
        }
    }

    /// Its name in faults and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Transaction => "transaction",
            Self::Watch => "watch",
            Self::Block => "block",
            Self::Cancel => "cancel",
        }
    }
}

/// Builds an operation.
#[derive(Debug)]
pub struct Encoder {
    bytes: Vec<u8>,
    commands: usize,
}

impl Encoder {
    fn of(kind: Kind) -> Self {
        Self { bytes: vec![kind as u8], commands: 0 }
    }

    /// An empty batch.
    #[must_use]
    pub fn batch() -> Self {
        Self::of(Kind::Batch)
    }

    /// A transaction that takes place if the keys still have these versions.
    pub fn transaction<'a>(version: Version, watched: impl ExactSizeIterator<Item = (&'a [u8], u64)>) -> Self {
        let mut encoder = Self::of(Kind::Transaction);
        encoder.bytes.push(u8::from(version == Version::Three));
        encoder.number(watched.len());
        for (key, seen) in watched {
            encoder.string(key);
            encoder.bytes.extend_from_slice(&seen.to_le_bytes());
        }
        encoder
    }

    /// A question for the versions of `keys`.
    pub fn watch<'a>(keys: impl ExactSizeIterator<Item = &'a [u8]>) -> Bytes {
        let mut encoder = Self::of(Kind::Watch);
        encoder.number(keys.len());
        keys.for_each(|key| encoder.string(key));
        encoder.finish()
    }

    /// A pop that waits.
    #[must_use]
    pub fn block(token: Token, command: Command, request: &Request, version: Version) -> Bytes {
        let mut encoder = Self::of(Kind::Block);
        encoder.bytes.extend_from_slice(&token.0);
        encoder.command(command, request, version);
        encoder.finish()
    }

    /// The end of a pop that waits.
    #[must_use]
    pub fn cancel(token: Token) -> Bytes {
        let mut encoder = Self::of(Kind::Cancel);
        encoder.bytes.extend_from_slice(&token.0);
        encoder.finish()
    }

    /// Adds a command; the first argument of `request` is its name and does not travel.
    pub fn command(&mut self, command: Command, request: &Request, version: Version) {
        self.head(command.number(), version, request.len() - 1);
        request.arguments().skip(1).for_each(|argument| self.string(argument));
    }

    /// Adds a command with one argument of the gateway's own.
    pub fn command_with(&mut self, command: Command, argument: &[u8], version: Version) {
        self.head(command.number(), version, 1);
        self.string(argument);
    }

    /// Adds a reply that is known already.
    pub fn literal(&mut self, reply: &[u8]) {
        self.head(LITERAL, Version::Two, 1);
        self.string(reply);
    }

    /// How many commands were added.
    #[must_use]
    pub fn commands(&self) -> usize {
        self.commands
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// No command was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands == 0
    }

    /// The operation's bytes.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.bytes.into()
    }

    fn head(&mut self, number: u8, version: Version, count: usize) {
        self.commands += 1;
        self.bytes.push(if version == Version::Three { number | THREE } else { number });
        self.number(count);
    }

    fn number(&mut self, mut number: usize) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn string(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }
}

/// A batch without its first `done` commands, of which the gateway has the replies.
#[must_use]
pub fn rest_of_batch(operation: &Bytes, done: usize) -> Option<Bytes> {
    let mut reader = Reader(operation.get(1..)?);
    for _ in 0..done {
        reader.skip_command().ok()?;
    }
    Some([&operation[..1], reader.0].concat().into())
}

/// One command of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call<'a> {
    /// Which; nothing for a literal.
    pub command: Option<Command>,
    /// The version its reply is in.
    pub version: Version,
    /// Its arguments, without its name.
    pub arguments: &'a [&'a [u8]],
}

/// Commands as they stand in an operation, arguments borrowed from it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Calls<'a> {
    heads: Vec<(Option<Command>, Version, usize)>,
    arguments: Vec<&'a [u8]>,
}

impl<'a> Calls<'a> {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// None.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// One after the other.
    pub fn iter<'b>(&'b self) -> impl Iterator<Item = Call<'b>>
    where
        'a: 'b,
    {
        let mut start = 0;
        self.heads.iter().map(move |(command, version, end)| {
            let arguments = &self.arguments[start..*end];
            start = *end;
            Call { command: *command, version: *version, arguments }
        })
    }
}

/// An operation, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation<'a> {
    /// See [`Kind::Batch`].
    Batch(Calls<'a>),
    /// See [`Kind::Transaction`].
    Transaction {
        /// The version of the reply that holds the others.
        version: Version,
        /// Keys and the versions they must still have.
        watched: Vec<(&'a [u8], u64)>,
        /// What to do.
        calls: Calls<'a>,
    },
    /// See [`Kind::Watch`].
    Watch(Vec<&'a [u8]>),
    /// See [`Kind::Block`].
    Block {
        /// Its name.
        token: Token,
        /// The one command.
        calls: Calls<'a>,
    },
    /// See [`Kind::Cancel`].
    Cancel(Token),
}

impl<'a> Operation<'a> {
    /// The operation that `bytes` are.
    ///
    /// # Errors
    /// [`UnknownOperation`] when they are none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, UnknownOperation> {
        let kind = Kind::of(bytes).ok_or(UnknownOperation)?;
        let mut reader = Reader(&bytes[1..]);
        let operation = match kind {
            Kind::Batch => Self::Batch(reader.calls()?),
            Kind::Transaction => {
                let version = reader.version()?;
                let count = reader.number()?;
                let mut watched = Vec::new();
                for _ in 0..count {
                    let key = reader.string()?;
                    watched.push((key, u64::from_le_bytes(reader.array()?)));
                }
                Self::Transaction { version, watched, calls: reader.calls()? }
            }
            Kind::Watch => {
                let count = reader.number()?;
                let mut keys = Vec::new();
                for _ in 0..count {
                    keys.push(reader.string()?);
                }
                Self::Watch(keys)
            }
            Kind::Block => {
                let token = Token(reader.array()?);
                let calls = reader.calls()?;
                let one_that_blocks = calls.heads.len() == 1 && calls.heads[0].0.is_some_and(Command::blocks);
                if !one_that_blocks {
                    return Err(UnknownOperation);
                }
                Self::Block { token, calls }
            }
            Kind::Cancel => Self::Cancel(Token(reader.array()?)),
        };
        if reader.0.is_empty() { Ok(operation) } else { Err(UnknownOperation) }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], UnknownOperation> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(UnknownOperation)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, UnknownOperation> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], UnknownOperation> {
        self.take(N)?.try_into().map_err(|_| UnknownOperation)
    }

    /// At most four bytes, shortest form: so one number has one encoding, and none overflows.
    fn number(&mut self) -> Result<usize, UnknownOperation> {
        let mut number = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if byte == 0 && shift > 0 { Err(UnknownOperation) } else { Ok(number) };
            }
        }
        Err(UnknownOperation)
    }

    fn string(&mut self) -> Result<&'a [u8], UnknownOperation> {
        let length = self.number()?;
        self.take(length)
    }

    fn version(&mut self) -> Result<Version, UnknownOperation> {
        match self.byte()? {
            0 => Ok(Version::Two),
            1 => Ok(Version::Three),
            _ => Err(UnknownOperation),
        }
    }

    fn calls(&mut self) -> Result<Calls<'a>, UnknownOperation> {
        let mut calls = Calls::default();
        while !self.0.is_empty() {
            let head = self.byte()?;
            let version = if head & THREE == 0 { Version::Two } else { Version::Three };
            let count = self.number()?;
            let command = match head & !THREE {
                LITERAL if count == 1 => None,
                number => {
                    let command = Command::numbered(number).filter(|command| command.takes(count + 1));
                    Some(command.ok_or(UnknownOperation)?)
                }
            };
            for _ in 0..count {
                let argument = self.string()?;
                calls.arguments.push(argument);
            }
            calls.heads.push((command, version, calls.arguments.len()));
        }
        Ok(calls)
    }

    fn skip_command(&mut self) -> Result<(), UnknownOperation> {
        self.byte()?;
        let count = self.number()?;
        (0..count).try_for_each(|_| self.string().map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> Request {
        Request::from_arguments(words)
    }

    fn batch() -> Bytes {
        let mut encoder = Encoder::batch();
        encoder.command(Command::Get, &request(&["GET", "k"]), Version::Two);
        encoder.literal(b"+PONG\r\n");
        encoder.command(Command::Set, &request(&["SET", "k", &"v".repeat(300)]), Version::Three);
        encoder.finish()
    }

    #[test]
    fn a_batch_comes_out_as_it_went_in() {
        let bytes = batch();
        let Ok(Operation::Batch(calls)) = Operation::decode(&bytes) else { panic!("no batch") };
        let calls: Vec<_> = calls.iter().collect();
        assert_eq!(calls[0], Call { command: Some(Command::Get), version: Version::Two, arguments: &[b"k"] });
        assert_eq!(calls[1], Call { command: None, version: Version::Two, arguments: &[b"+PONG\r\n"] });
        assert_eq!((calls[2].command, calls[2].version), (Some(Command::Set), Version::Three));
        assert_eq!(calls[2].arguments[1].len(), 300);
    }

    #[test]
    fn the_rest_of_a_batch_is_a_batch() {
        let bytes = batch();
        let rest = rest_of_batch(&bytes, 2).unwrap();
        let Ok(Operation::Batch(calls)) = Operation::decode(&rest) else { panic!("no batch") };
        assert_eq!(calls.len(), 1);
        assert_eq!(rest_of_batch(&bytes, 4), None);
    }

    #[test]
    fn the_other_operations_come_out_as_they_went_in() {
        let mut transaction = Encoder::transaction(Version::Three, [(b"w".as_slice(), 7)].into_iter());
        transaction.command(Command::Get, &request(&["GET", "k"]), Version::Three);
        let bytes = transaction.finish();
        let Ok(Operation::Transaction { version: Version::Three, watched, calls }) = Operation::decode(&bytes) else {
            panic!("no transaction")
        };
        assert_eq!((watched, calls.len()), (vec![(b"w".as_slice(), 7)], 1));

        let bytes = Encoder::watch([b"a".as_slice(), b"b"].into_iter());
        assert_eq!(Operation::decode(&bytes), Ok(Operation::Watch(vec![b"a", b"b"])));

        let token = Token([7; 16]);
        let bytes = Encoder::block(token, Command::BlockingPopLeft, &request(&["BLPOP", "q", "0"]), Version::Two);
        assert!(matches!(Operation::decode(&bytes), Ok(Operation::Block { token: Token([7, ..]), .. })));

        assert_eq!(Operation::decode(&Encoder::cancel(token)), Ok(Operation::Cancel(token)));
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_no_operation() {
        let whole = Encoder::cancel(Token([7; 16]));
        assert_eq!(Operation::decode(&whole[..16]), Err(UnknownOperation));
        assert_eq!(Operation::decode(&[&whole[..], b"x"].concat()), Err(UnknownOperation));
        let bytes = batch();
        let whole_calls = [1, 5, 15, 16].map(|length| Operation::decode(&bytes[..length]).is_ok());
        assert_eq!(whole_calls, [true, true, true, false], "a batch may end behind any of its commands only");
    }

    #[test]
    fn a_command_with_the_wrong_number_of_arguments_is_no_operation() {
        let mut encoder = Encoder::batch();
        encoder.command(Command::Get, &request(&["GET", "k", "x"]), Version::Two);
        assert_eq!(Operation::decode(&encoder.finish()), Err(UnknownOperation));
    }

    #[test]
    fn a_command_that_does_not_block_cannot_be_sent_to_block() {
        let bytes = Encoder::block(Token::default(), Command::Get, &request(&["GET", "k"]), Version::Two);
        assert_eq!(Operation::decode(&bytes), Err(UnknownOperation));
    }

    #[test]
    fn a_number_has_one_encoding() {
        assert_eq!(Operation::decode(&[2, 0]), Ok(Operation::Watch(vec![])));
        assert_eq!(Operation::decode(&[2, 0x80, 0]), Err(UnknownOperation));
        assert_eq!(Operation::decode(&[2, 0xff, 0xff, 0xff, 0xff, 1]), Err(UnknownOperation));
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(kind in 0u8..6, bytes: Vec<u8>) {
            let operation = [&[kind], &bytes[..]].concat();
            let _ = Operation::decode(&operation);
            let _ = rest_of_batch(&operation.into(), 3);
        }
    }
}
