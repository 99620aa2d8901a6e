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

/// While others wait, all of a message must have come at this rate since it began, after a first [`GRACE`]: pieces alone
/// could be drawn out, and the largest message would keep its room for minutes.
const CONTENDED_BYTES_PER_SECOND: usize = 2_000_000;
const GRACE: Duration = Duration::from_secs(1);

/// A link whose other end takes nothing for this long is given up, so that it can be dialed anew.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Progress of a large message is told this often at most.
const PROGRESS_PAUSE: Duration = Duration::from_micros(unisono_node::PROGRESS_PAUSE);

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
            match reader.next(|_| false).await? {
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
        let message = match reader.next(|total| inlet.budget.contended(total)).await? {
            Step::Whole(message) => inlet.budget.admit(message).await,
            Step::Complete(bytes) => Inbound { bytes, share: std::mem::take(&mut reserved) },
            Step::Begins(total) => {
                reserved = inlet.budget.take(total).await;
                // Not before: nothing was read while it waited for its room.
                reader.begun = Instant::now();
                told = Some(reader.begun);
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
    /// Since when the large message under way has had its room.
    begun: Instant,
}

impl<'a, R: AsyncRead + Unpin> Reader<'a, R> {
    fn new(input: &'a mut R, buffer: &'a mut BytesMut, assembler: &'a mut Assembler) -> Self {
        Self { input, buffer, assembler, since: None, begun: Instant::now() }
    }

    /// The next step that is one: never [`Step::Wanting`]. `contended` says whether others wait for the room that a
    /// message of so many bytes takes.
    async fn next(&mut self, contended: impl Fn(usize) -> bool) -> Result<Step, LinkError> {
        self.since = None;
        loop {
            match self.assembler.step(self.buffer)? {
                Step::Wanting => self.fill(&contended).await?,
                step => return Ok(step),
            }
        }
    }

    async fn fill(&mut self, contended: &impl Fn(usize) -> bool) -> Result<(), LinkError> {
        if self.is_slow() && self.in_the_way(contended) {
            return Err(LinkError::Stalled);
        }
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

    /// The large message under way has come too slowly for a time in which others wait.
    fn is_slow(&self) -> bool {
        let received = self.assembler.under_way().map_or(0, |(received, _)| received);
        self.begun.elapsed() > GRACE + Duration::from_secs(received as u64) / CONTENDED_BYTES_PER_SECOND as u32
    }

    fn in_the_way(&self, contended: &impl Fn(usize) -> bool) -> bool {
        self.assembler.under_way().is_some_and(|(_, total)| contended(total))
    }

    async fn read_in_time(&mut self, contended: &impl Fn(usize) -> bool) -> Result<std::io::Result<usize>, LinkError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let mut patience = PIECE_DEADLINE_CONTENDED;
        loop {
            match timeout_at(since + patience, self.input.read_buf(self.buffer)).await {
                Ok(read) => return Ok(read),
                Err(_) if patience >= PIECE_DEADLINE || self.in_the_way(contended) => return Err(LinkError::Stalled),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Budget;
    use crate::transport::pieces::{PIECE_BYTES, put_piece, put_whole};
    use tokio::sync::mpsc;

    const LARGEST: usize = 20 << 20;

    /// Sends what `next` gives, one every 0.8 s, until somebody waits for the same room; whether it has it then.
    async fn gives_way(mut next: impl FnMut(&mut BytesMut)) -> bool {
        let budget = Budget::new(1 << 20, LARGEST);
        let (mut here, mut there) = tokio::io::duplex(4 * PIECE_BYTES);
        let (sender, mut events) = mpsc::channel(1024);
        let inlet = Inlet { tag: (), sender, budget: budget.part(1 << 20, LARGEST) };
        let reading = tokio::spawn(async move {
            let (mut buffer, mut assembler) = (BytesMut::new(), Assembler::new(LARGEST));
            receive(Reader::new(&mut there, &mut buffer, &mut assembler), &inlet).await
        });
        let mut waiting = None;
        for round in 0..10 {
            let mut bytes = BytesMut::new();
            next(&mut bytes);
            let _ = here.write_all(&bytes).await; // the link may have ended
            events.recv().await;
            tokio::time::advance(Duration::from_millis(800)).await;
            if round == 5 {
                assert!(!reading.is_finished(), "slow, but in nobody's way");
                let own = budget.clone();
                waiting = Some(tokio::spawn(async move { own.take(LARGEST).await }));
            }
        }
        reading.is_finished()
            && matches!(reading.await, Ok(Err(LinkError::Stalled)))
            && waiting.is_some_and(|waiting| waiting.is_finished())
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_message_that_is_drawn_out_gives_way_to_one_that_waits_for_its_room() {
        let message = vec![0; LARGEST];
        let mut at = 0;
        assert!(gives_way(|out| at = put_piece(out, &message, at)).await, "piece by piece");
        at = 0;
        let small = |out: &mut BytesMut| match at {
            0 => at = put_piece(out, &message, 0),
            _ => put_whole(out, b"small"),
        };
        assert!(gives_way(small).await, "small ones in place of the next piece");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_fast_enough_is_finished_although_others_wait() {
        let message = vec![0; LARGEST];
        let mut at = 0;
        let next = |out: &mut BytesMut| {
            let end = LARGEST.min(at + 26 * PIECE_BYTES); // 2.1 MB/s
            while at < end {
                at = put_piece(out, &message, at);
            }
        };
        assert!(!gives_way(next).await);
    }
}
