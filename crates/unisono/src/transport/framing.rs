//! `u32` little-endian length, then the message. The length is held against a hard maximum before anything is
//! allocated, and the buffer grows with what has come, never with what was announced.

use super::{Inlet, LinkError, LinkEvent, Outbox};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsStream;

/// Room kept ready for reading; a TLS record holds at most 16 KiB.
const READ_BYTES: usize = 16 << 10;

/// Messages up to this size are copied out of the read buffer, so that one that is kept does not keep the buffer alive.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// A message that was begun must be complete after this time: 24 MiB at 1 MiB/s.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(30);

/// A link whose other end takes nothing for this long is given up, so that it can be dialed anew.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// A message with its length in front, for those who write to a [`Link`] themselves.
#[must_use]
pub fn frame_message(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(4 + message.len());
    framed.put_u32_le(u32::try_from(message.len()).expect("messages are bounded far below 4 GiB"));
    framed.put_slice(message);
    framed.freeze()
}

/// The first complete message of `buffer`, taken out of it.
pub(super) fn next_message(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, LinkError> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > limit {
        return Err(LinkError::Oversized { length, limit });
    }
    if buffer.len() - 4 < length {
        return Ok(None);
    }
    buffer.advance(4);
    if length <= COPIED_BYTES_MAX {
        let message = Bytes::copy_from_slice(&buffer[..length]);
        buffer.advance(length);
        Ok(Some(message))
    } else {
        Ok(Some(buffer.split_to(length).freeze()))
    }
}

/// An authenticated link.
#[derive(Debug)]
pub struct Link {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
    limit: usize,
}

impl Link {
    pub(super) fn new(stream: TlsStream<TcpStream>, limit: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), limit }
    }

    /// Changes the hard maximum, once it is known whose link it is.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The next message.
    ///
    /// # Errors
    /// [`LinkError`] when the link breaks, closes or announces too much.
    pub async fn read(&mut self) -> Result<Bytes, LinkError> {
        let mut reader = Reader { input: &mut self.stream, buffer: &mut self.buffer, limit: self.limit };
        reader.next().await
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`LinkError`] when the link breaks, or the other end takes nothing.
    pub async fn write(&mut self, message: &[u8]) -> Result<(), LinkError> {
        write_piece(&mut self.stream, &frame_message(message)).await
    }

    /// [`run`](Self::run), and tells the inlet when it is over.
    pub async fn serve<T: Clone>(self, outbox: &Outbox, inlet: &Inlet<T>) {
        let reason = self.run(outbox, inlet).await;
        outbox.close();
        inlet.send(LinkEvent::Down(reason)).await;
    }

    /// Sends what comes into `outbox` and passes on what is received, until the link ends; says why it did.
    pub async fn run<T: Clone>(self, outbox: &Outbox, inlet: &Inlet<T>) -> LinkError {
        let Self { stream, mut buffer, limit } = self;
        let (mut input, mut output) = tokio::io::split(stream);
        let read = async {
            let mut reader = Reader { input: &mut input, buffer: &mut buffer, limit };
            loop {
                let message = match reader.next().await {
                    Ok(message) => message,
                    Err(error) => return error,
                };
                let message = inlet.budget.admit(message).await;
                if !inlet.send(LinkEvent::Message(message)).await {
                    return LinkError::ClosedHere;
                }
            }
        };
        let write = async {
            while let Some(pieces) = outbox.take().await {
                for piece in pieces {
                    if let Err(error) = write_all(&mut output, &piece).await {
                        return error;
                    }
                }
                if let Err(error) = flush(&mut output).await {
                    return error;
                }
            }
            LinkError::ClosedHere
        };
        // Both in one task: no hand-over between reading and writing, and neither can hold up the other.
        let reason = tokio::select! { reason = read => reason, reason = write => reason };
        // Best effort: whoever does not take our farewell finds the connection closed.
        let _ = timeout(Duration::from_millis(100), input.unsplit(output).shutdown()).await;
        reason
    }
}

struct Reader<'a, R> {
    input: &'a mut R,
    buffer: &'a mut BytesMut,
    limit: usize,
}

impl<R: AsyncRead + Unpin> Reader<'_, R> {
    async fn next(&mut self) -> Result<Bytes, LinkError> {
        let mut deadline = None;
        loop {
            if let Some(message) = next_message(self.buffer, self.limit)? {
                return Ok(message);
            }
            self.buffer.reserve(READ_BYTES);
            let read = if self.buffer.is_empty() {
                self.input.read_buf(self.buffer).await
            } else {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + MESSAGE_DEADLINE);
                timeout_at(deadline, self.input.read_buf(self.buffer)).await.map_err(|_| LinkError::Stalled)?
            };
            // A connection that ends without TLS's farewell is only that: closed.
            match read {
                Ok(0) => return Err(LinkError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(LinkError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

async fn write_piece(output: &mut (impl AsyncWrite + Unpin), piece: &[u8]) -> Result<(), LinkError> {
    write_all(output, piece).await?;
    flush(output).await
}

async fn write_all(output: &mut (impl AsyncWrite + Unpin), mut piece: &[u8]) -> Result<(), LinkError> {
    while !piece.is_empty() {
        // Progress counts, not completion: a large message over a slow line is no fault.
        let written = timeout(WRITE_DEADLINE, output.write(piece)).await.map_err(|_| LinkError::NotReading)??;
        if written == 0 {
            return Err(LinkError::Closed);
        }
        piece = &piece[written..];
    }
    Ok(())
}

async fn flush(output: &mut (impl AsyncWrite + Unpin)) -> Result<(), LinkError> {
    Ok(timeout(WRITE_DEADLINE, output.flush()).await.map_err(|_| LinkError::NotReading)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_and_in_order_however_they_were_cut() {
        let stream: Vec<u8> =
            [&b"first"[..], b"", &[7; COPIED_BYTES_MAX + 1]].iter().flat_map(|m| frame_message(m)).collect();
        for step in [1, 3, 1000, stream.len()] {
            let (mut buffer, mut messages) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(message) = next_message(&mut buffer, 1 << 20).unwrap() {
                    messages.push(message.len());
                }
            }
            assert_eq!(messages, [5, 0, COPIED_BYTES_MAX + 1], "in pieces of {step}");
        }
    }

    #[test]
    fn an_announced_length_is_checked_before_anything_is_kept_for_it() {
        let mut buffer = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        let capacity = buffer.capacity();
        let error = next_message(&mut buffer, 1 << 20).unwrap_err();
        assert!(matches!(error, LinkError::Oversized { length: 0xffff_ffff, limit: 0x10_0000 }));
        let mut buffer = BytesMut::from(&(1u32 << 20).to_le_bytes()[..]);
        assert!(next_message(&mut buffer, 1 << 20).unwrap().is_none());
        assert_eq!(buffer.capacity(), capacity, "announced, not come: nothing allocated");
    }
}
