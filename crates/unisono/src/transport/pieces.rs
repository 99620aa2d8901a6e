//! How messages are cut for the wire and put together again. Pure: no socket, no clock.
//!
//! ```text
//!   head, u32 little-endian   kind (2 bits) | number (30 bits)
//!     0 whole   a message of `number` <= 64 KiB bytes follows
//!     1 begin   a large message of `number` > 64 KiB bytes begins; nothing follows
//!     2 piece   the next `number` bytes of it follow: 64 KiB, or what is missing when that is less
//!     3         never
//! ```
//! Whole messages may stand between the pieces of a large one. At most one large message is under way on a link, so
//! pieces need no name, and a stream has exactly one meaning: every other cut ends the link.
//!
//! Invariant: what an [`Assembler`] holds is at most the limit, has been received, and was never only announced.

use super::LinkError;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A message up to this size travels whole; larger ones in pieces of this size, so that others can pass. The same size
/// decides which share of a budget and of an outbox a message takes.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Bytes in front of each piece and each whole message.
pub(super) const HEAD_BYTES: usize = 4;

/// Messages up to this size are copied out of the read buffer, so that one that is kept does not keep the buffer alive.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// The upper two bits of a head.
const KIND_SHIFT: u32 = 30;

const WHOLE: u32 = 0;
const BEGIN: u32 = 1;
const PIECE: u32 = 2;

fn put_head(out: &mut BytesMut, kind: u32, number: usize) {
    let number = u32::try_from(number).ok().filter(|number| number >> KIND_SHIFT == 0);
    out.put_u32_le(kind << KIND_SHIFT | number.expect("messages are bounded far below 1 GiB"));
}

/// Appends a message of at most [`PIECE_BYTES`].
pub(super) fn put_whole(out: &mut BytesMut, message: &[u8]) {
    debug_assert!(message.len() <= PIECE_BYTES);
    put_head(out, WHOLE, message.len());
    out.put_slice(message);
}

/// Appends the piece of a large message that begins at `at`, and returns where the next one does.
pub(super) fn put_piece(out: &mut BytesMut, message: &[u8], at: usize) -> usize {
    debug_assert!(message.len() > PIECE_BYTES);
    if at == 0 {
        put_head(out, BEGIN, message.len());
    }
    let end = message.len().min(at + PIECE_BYTES);
    put_head(out, PIECE, end - at);
    out.put_slice(&message[at..end]);
    end
}

/// Appends a message of any size, all of it at once.
pub(super) fn put_message(out: &mut BytesMut, message: &[u8]) {
    if message.len() <= PIECE_BYTES {
        return put_whole(out, message);
    }
    let mut at = 0;
    while at < message.len() {
        at = put_piece(out, message, at);
    }
}

/// What the received bytes say next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// More bytes must come first.
    Wanting,
    /// A whole message.
    Whole(Bytes),
    /// A large message of so many bytes begins.
    Begins(usize),
    /// One more piece of it is there.
    Came,
    /// All of it is there.
    Complete(Bytes),
}

#[derive(Debug)]
struct Partial {
    total: usize,
    /// Grows with what comes.
    bytes: BytesMut,
    /// Bytes of the current piece that are missing.
    piece: usize,
}

/// Puts the messages of one link together.
#[derive(Debug)]
pub(super) struct Assembler {
    limit: usize,
    partial: Option<Partial>,
}

impl Assembler {
    /// For messages of at most `limit` bytes.
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, partial: None }
    }

    /// Changes the limit, once it is known whose link it is.
    pub(super) const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Bytes of the large message under way that are there, and bytes that it has.
    pub(super) fn under_way(&self) -> Option<(usize, usize)> {
        self.partial.as_ref().map(|partial| (partial.bytes.len(), partial.total))
    }

    /// Takes from `buffer` what it can.
    ///
    /// # Errors
    /// [`LinkError::Oversized`] before anything is kept of a message above the limit; [`LinkError::BadPiece`].
    pub(super) fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, LinkError> {
        if self.partial.as_ref().is_some_and(|partial| partial.piece > 0) {
            return Ok(self.fill(buffer));
        }
        let Some(head) = buffer.first_chunk::<HEAD_BYTES>() else { return Ok(Step::Wanting) };
        let head = u32::from_le_bytes(*head);
        let number = (head & !(u32::MAX << KIND_SHIFT)) as usize;
        match head >> KIND_SHIFT {
            WHOLE => self.whole(buffer, number),
            BEGIN => {
                self.begin(number)?;
                buffer.advance(HEAD_BYTES);
                Ok(Step::Begins(number))
            }
            PIECE => {
                let partial = self.partial.as_mut().ok_or(LinkError::BadPiece)?;
                // Exactly what the rule gives: nobody can cut finer, to make us pay for each cut.
                if number != PIECE_BYTES.min(partial.total - partial.bytes.len()) {
                    return Err(LinkError::BadPiece);
                }
                partial.piece = number;
                buffer.advance(HEAD_BYTES);
                Ok(self.fill(buffer))
            }
            _ => Err(LinkError::BadPiece),
        }
    }

    fn whole(&self, buffer: &mut BytesMut, length: usize) -> Result<Step, LinkError> {
        let limit = self.limit.min(PIECE_BYTES);
        if length > limit {
            return Err(LinkError::Oversized { length, limit });
        }
        if buffer.len() - HEAD_BYTES < length {
            return Ok(Step::Wanting);
        }
        buffer.advance(HEAD_BYTES);
        if length <= COPIED_BYTES_MAX {
            let message = Bytes::copy_from_slice(&buffer[..length]);
            buffer.advance(length);
            Ok(Step::Whole(message))
        } else {
            Ok(Step::Whole(buffer.split_to(length).freeze()))
        }
    }

    fn begin(&mut self, total: usize) -> Result<(), LinkError> {
        if total > self.limit {
            return Err(LinkError::Oversized { length: total, limit: self.limit });
        }
        if total <= PIECE_BYTES || self.partial.is_some() {
            return Err(LinkError::BadPiece);
        }
        self.partial = Some(Partial { total, bytes: BytesMut::new(), piece: 0 });
        Ok(())
    }

    /// Moves what is there of the current piece.
    fn fill(&mut self, buffer: &mut BytesMut) -> Step {
        let Some(partial) = &mut self.partial else { return Step::Wanting };
        let count = partial.piece.min(buffer.len());
        partial.bytes.extend_from_slice(&buffer[..count]);
        buffer.advance(count);
        partial.piece -= count;
        if partial.piece > 0 {
            return Step::Wanting;
        }
        match self.partial.take_if(|partial| partial.bytes.len() == partial.total) {
            Some(complete) => Step::Complete(complete.bytes.freeze()),
            None => Step::Came,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `stream` in chunks of `chunk` bytes; messages and what they were, in the order in which they were complete.
    fn read(stream: &[u8], chunk: usize, limit: usize) -> Result<Vec<Step>, LinkError> {
        let (mut assembler, mut buffer, mut steps) = (Assembler::new(limit), BytesMut::new(), Vec::new());
        for part in stream.chunks(chunk.max(1)) {
            buffer.extend_from_slice(part);
            loop {
                let step = assembler.step(&mut buffer)?;
                let (held, total) = assembler.under_way().unwrap_or_default();
                assert!(held <= total && total <= limit, "never more than the limit");
                match step {
                    Step::Wanting => break,
                    step => steps.push(step),
                }
            }
            assert!(buffer.len() < HEAD_BYTES + PIECE_BYTES, "what can be taken is taken");
        }
        Ok(steps)
    }

    fn messages(steps: Vec<Step>) -> Vec<Bytes> {
        let message = |step| match step {
            Step::Whole(message) | Step::Complete(message) => Some(message),
            _ => None,
        };
        steps.into_iter().filter_map(message).collect()
    }

    fn head(kind: u32, number: usize) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_head(&mut out, kind, number);
        out.to_vec()
    }

    #[test]
    fn messages_come_out_whole_and_in_order_however_they_were_cut() {
        let sent = [5, 0, COPIED_BYTES_MAX + 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 1];
        let mut stream = BytesMut::new();
        sent.iter().for_each(|length| put_message(&mut stream, &vec![7; *length]));
        for chunk in [1, 3, 1000, stream.len()] {
            let read = messages(read(&stream, chunk, 1 << 20).unwrap());
            assert_eq!(read.iter().map(Bytes::len).collect::<Vec<_>>(), sent, "in chunks of {chunk}");
        }
    }

    #[test]
    fn an_announced_length_is_checked_before_anything_is_kept_for_it() {
        let mut buffer = BytesMut::from(&head(BEGIN, (1 << 20) + 1)[..]);
        let error = Assembler::new(1 << 20).step(&mut buffer).unwrap_err();
        assert!(matches!(error, LinkError::Oversized { length: 0x10_0001, limit: 0x10_0000 }));
        let mut buffer = BytesMut::from(&head(WHOLE, 101)[..]);
        assert!(matches!(Assembler::new(100).step(&mut buffer), Err(LinkError::Oversized { length: 101, limit: 100 })));
        let (mut assembler, mut buffer) = (Assembler::new(1 << 20), BytesMut::from(&head(BEGIN, 1 << 20)[..]));
        assert_eq!(assembler.step(&mut buffer).unwrap(), Step::Begins(1 << 20));
        assert_eq!(assembler.partial.unwrap().bytes.capacity(), 0, "announced, not come: nothing allocated");
    }

    #[test]
    fn every_other_cut_of_a_stream_ends_the_link() {
        let begun = head(BEGIN, PIECE_BYTES + 10);
        let first = [head(PIECE, PIECE_BYTES), vec![0; PIECE_BYTES]].concat();
        let streams = [
            ("a piece of nothing", head(PIECE, 10)),
            ("a second large message within the first", [&begun[..], &begun].concat()),
            ("a large message that is small", head(BEGIN, PIECE_BYTES)),
            ("a whole message that is large", head(WHOLE, PIECE_BYTES + 1)),
            ("an empty piece", [&begun[..], &head(PIECE, 0)].concat()),
            ("a short piece", [&begun[..], &head(PIECE, PIECE_BYTES - 1)].concat()),
            ("a long piece", [&begun[..], &head(PIECE, PIECE_BYTES + 1)].concat()),
            ("more than is missing", [&begun[..], &first, &head(PIECE, 11)].concat()),
            ("less than is missing", [&begun[..], &first, &head(PIECE, 9)].concat()),
            ("a head of no kind", head(3, 0)),
        ];
        for (name, stream) in streams {
            let error = read(&stream, stream.len(), 1 << 20).expect_err(name);
            assert!(matches!(error, LinkError::BadPiece | LinkError::Oversized { .. }), "{name}: {error}");
        }
        let good = [&begun[..], &first, &head(PIECE, 10), &[0; 10]].concat();
        assert_eq!(messages(read(&good, 7, 1 << 20).unwrap())[0].len(), PIECE_BYTES + 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any interleaving of whole messages with the pieces of large ones is read as what was sent.
        #[test]
        fn what_is_put_is_read(
            small in prop::collection::vec(0..3000usize, 0..20),
            large in prop::collection::vec(PIECE_BYTES + 1..4 * PIECE_BYTES, 0..4),
            turns in prop::collection::vec(any::<bool>(), 0..40),
            chunk in 1..200_000usize,
        ) {
            let (mut stream, mut at) = (BytesMut::new(), 0);
            let (mut smalls, mut larges) = (small.iter().peekable(), large.iter().peekable());
            let mut turns = turns.into_iter().chain(std::iter::repeat_with({
                let mut turn = false;
                move || { turn = !turn; turn }
            }));
            while smalls.peek().is_some() || larges.peek().is_some() {
                if turns.next().unwrap() {
                    if let Some(length) = smalls.next() {
                        put_whole(&mut stream, &vec![1; *length]);
                    }
                } else if let Some(length) = larges.peek().copied() {
                    at = put_piece(&mut stream, &vec![2; *length], at);
                    if at == *length {
                        at = 0;
                        larges.next();
                    }
                }
            }
            let (mut wholes, mut completes) = (Vec::new(), Vec::new());
            for step in read(&stream, chunk, 4 * PIECE_BYTES).unwrap() {
                match step {
                    Step::Whole(message) => wholes.push(message.len()),
                    Step::Complete(message) => completes.push(message.len()),
                    _ => {}
                }
            }
            prop_assert_eq!(wholes, small);
            prop_assert_eq!(completes, large);
        }

        /// Bytes of a stranger: an error or messages within the limit, and never more held than the limit (see `read`).
        #[test]
        fn any_bytes_are_read_or_refused(
            heads in prop::collection::vec((0..4u32, prop_oneof![0..200usize, PIECE_BYTES - 2..PIECE_BYTES + 3]), 0..20),
            filler in prop::collection::vec(any::<u8>(), 0..100),
            chunk in 1..10_000usize,
        ) {
            let mut stream = Vec::new();
            for (kind, number) in heads {
                stream.extend(head(kind, number));
                if kind != BEGIN {
                    stream.extend(std::iter::repeat_n(9, number));
                }
            }
            stream.extend(filler);
            if let Ok(steps) = read(&stream, chunk, 2 * PIECE_BYTES) {
                prop_assert!(messages(steps).iter().all(|message| message.len() <= 2 * PIECE_BYTES));
            }
        }
    }
}
