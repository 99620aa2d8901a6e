//! An authenticated link: messages over a socket, cut as [`super::pieces`] says, under deadlines that follow progress.

use super::budget::Share;
use super::pieces::{Assembler, Step, put_message};
use super::{Inbound, Inlet, LinkError, LinkEvent, Outbox};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsStream;

/// Room kept ready for reading; a TLS record holds at most 16 KiB.
const READ_BYTES: usize = 16 << 10;

/// The next piece of a message that was begun must be complete after this time, however long the whole takes: 64 KiB
/// at less than 7 KiB/s.
const PIECE_DEADLINE: Duration = Duration::from_secs(10);

/// The same while others wait for the room that the message takes: whoever is slow may be, but not at their expense.
const PIECE_DEADLINE_CONTENDED: Duration = Duration::from_secs(1);

/// A link whose other end takes nothing for this long is given up, so that it can be dialed anew.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Progress of a large message is told this often at most.
const PROGRESS_PAUSE: Duration = Duration::from_millis(50);

/// An authenticated link.
#[derive(Debug)]
pub struct Link {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
    assembler: Assembler,
}

impl Link {
    pub(super) fn new(stream: TlsStream<TcpStream>, limit: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), assembler: Assembler::new(limit) }
    }

    /// Changes the hard maximum, once it is known whose link it is.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.assembler.set_limit(limit);
    }

    /// The next message.
    ///
    /// # Errors
    /// [`LinkError`] when the link breaks, closes or announces too much.
    pub async fn read(&mut self) -> Result<Bytes, LinkError> {
        let mut reader = Reader::new(&mut self.stream, &mut self.buffer, &mut self.assembler);
        loop {
            match reader.next(|| false).await? {
                Step::Whole(message) | Step::Complete(message) => return Ok(message),
                Step::Wanting | Step::Begins(_) | Step::Came => {}
            }
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`LinkError`] when the link breaks, or the other end takes nothing.
    pub async fn write(&mut self, message: &[u8]) -> Result<(), LinkError> {
        let mut framed = BytesMut::new();
        put_message(&mut framed, message);
        write_all(&mut self.stream, &framed).await
    }

    /// [`run`](Self::run), and tells the inlet when it is over.
    pub async fn serve<T: Clone>(self, outbox: &Outbox, inlet: &Inlet<T>) {
        let reason = self.run(outbox, inlet).await;
        outbox.close();
        inlet.send(LinkEvent::Down(reason)).await;
    }

    /// Sends what comes into `outbox` and passes on what is received, until the link ends; says why it did.
    pub async fn run<T: Clone>(self, outbox: &Outbox, inlet: &Inlet<T>) -> LinkError {
        let Self { stream, mut buffer, mut assembler } = self;
        let (mut input, mut output) = tokio::io::split(stream);
        let read = async {
            let reader = Reader::new(&mut input, &mut buffer, &mut assembler);
            match receive(reader, inlet).await {
                Ok(()) => LinkError::ClosedHere,
                Err(reason) => reason,
            }
        };
        let write = async {
            while let Some(bytes) = outbox.take().await {
                if let Err(error) = write_all(&mut output, &bytes).await {
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

/// Passes on what comes, until nobody wants it any more.
async fn receive<R: AsyncRead + Unpin, T: Clone>(mut reader: Reader<'_, R>, inlet: &Inlet<T>) -> Result<(), LinkError> {
    let mut reserved = Share::default();
    let mut told: Option<Instant> = None;
    loop {
        let message = match reader.next(|| inlet.budget.contended()).await? {
            Step::Whole(message) => inlet.budget.admit(message).await,
            Step::Complete(bytes) => Inbound { bytes, share: std::mem::take(&mut reserved) },
            Step::Begins(total) => {
                reserved = inlet.budget.take(total).await;
                told = Some(Instant::now());
                inlet.offer(LinkEvent::Progress { received: 0, total });
                continue;
            }
            Step::Came => {
                if told.is_none_or(|at| at.elapsed() >= PROGRESS_PAUSE) {
                    told = Some(Instant::now());
                    let (received, total) = reader.assembler.under_way().unwrap_or_default();
                    inlet.offer(LinkEvent::Progress { received, total });
                }
                continue;
            }
            Step::Wanting => continue,
        };
        if !inlet.send(LinkEvent::Message(message)).await {
            return Ok(());
        }
    }
}

struct Reader<'a, R> {
    input: &'a mut R,
    buffer: &'a mut BytesMut,
    assembler: &'a mut Assembler,
    /// Since when the next step has been waited for, while something is unfinished.
    since: Option<Instant>,
}

impl<'a, R: AsyncRead + Unpin> Reader<'a, R> {
    const fn new(input: &'a mut R, buffer: &'a mut BytesMut, assembler: &'a mut Assembler) -> Self {
        Self { input, buffer, assembler, since: None }
    }

    /// The next step that is one: never [`Step::Wanting`].
    async fn next(&mut self, contended: impl Fn() -> bool) -> Result<Step, LinkError> {
        self.since = None;
        loop {
            match self.assembler.step(self.buffer)? {
                Step::Wanting => self.fill(&contended).await?,
                step => return Ok(step),
            }
        }
    }

    async fn fill(&mut self, contended: &impl Fn() -> bool) -> Result<(), LinkError> {
        self.buffer.reserve(READ_BYTES);
        let idle = self.buffer.is_empty() && self.assembler.under_way().is_none();
        let read = if idle { self.input.read_buf(self.buffer).await } else { self.read_in_time(contended).await? };
        // A connection that ends without TLS's farewell is only that: closed.
        match read {
            Ok(0) => Err(LinkError::Closed),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(LinkError::Closed),
            Err(error) => Err(error.into()),
        }
    }

    async fn read_in_time(&mut self, contended: &impl Fn() -> bool) -> Result<std::io::Result<usize>, LinkError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let mut patience = PIECE_DEADLINE_CONTENDED;
        loop {
            match timeout_at(since + patience, self.input.read_buf(self.buffer)).await {
                Ok(read) => return Ok(read),
                Err(_) if patience >= PIECE_DEADLINE || contended() => return Err(LinkError::Stalled),
                Err(_) => patience += PIECE_DEADLINE_CONTENDED,
            }
        }
    }
}

async fn write_all(output: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> Result<(), LinkError> {
    while !bytes.is_empty() {
        // Progress counts, not completion: a large message over a slow line is no fault.
        let written = timeout(WRITE_DEADLINE, output.write(bytes)).await.map_err(|_| LinkError::NotReading)??;
        if written == 0 {
            return Err(LinkError::Closed);
        }
        bytes = &bytes[written..];
    }
    Ok(timeout(WRITE_DEADLINE, output.flush()).await.map_err(|_| LinkError::NotReading)??)
}
