//! The dialing side: one attempt, or a link that is kept up.

use super::{Inlet, Link, LinkError, LinkEvent, LinkKind, Outbox, accept, tls};
use crate::config::KeyPair;
use std::{sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_rustls::{TlsConnector, TlsStream};
use unisono_types::{Member, Membership, PublicKey};

/// First pause before a broken link is tried again, then doubled.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// Longest pause: what a cluster that was wholly down waits for at most once it is up again.
const BACKOFF_MAX: Duration = Duration::from_millis(200);

/// Whom to dial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// HOST:PORT.
    pub address: String,
    /// The key that must answer there.
    pub key: PublicKey,
}

impl From<&Member> for Target {
    fn from(member: &Member) -> Self {
        Self { address: member.address.clone(), key: member.host_key }
    }
}

/// Dials members in the name of one key.
#[derive(Clone, Debug)]
pub struct Dialer {
    own: KeyPair,
    kind: LinkKind,
    membership: Membership,
}

impl Dialer {
    /// A dialer of links of one kind.
    #[must_use]
    pub const fn new(own: KeyPair, kind: LinkKind, membership: Membership) -> Self {
        Self { own, kind, membership }
    }

    /// One attempt, within the handshake's deadline.
    ///
    /// # Errors
    /// [`LinkError`]: nobody there, or somebody else.
    pub async fn dial(&self, target: &Target) -> Result<Link, LinkError> {
        let attempt = async {
            let stream = TcpStream::connect(&target.address).await?;
            stream.set_nodelay(true)?;
            let connector = TlsConnector::from(tls::client(&self.own, target.key));
            let stream = connector.connect(tls::server_name(), stream).await.map_err(LinkError::Handshake)?;
            let configuration = self.membership.configuration();
            let limit = self.kind.answer_bytes_max(&configuration.limits);
            let mut link = Link::new(TlsStream::Client(stream), limit);
            link.write(&accept::hello(configuration.cluster, self.kind)).await?;
            Ok(link)
        };
        tokio::time::timeout(accept::HANDSHAKE_DEADLINE, attempt).await.map_err(|_| LinkError::HandshakeTimeout)?
    }

    /// Keeps a link to `target` up until the answer is dropped: what `outbox` holds is sent, events go to `inlet`.
    ///
    /// What was queued for a link that broke is dropped, what is queued while there is none waits for the next.
    #[must_use]
    pub fn keep<T: Clone + Send + Sync + 'static>(&self, target: Target, outbox: Outbox, inlet: Inlet<T>) -> Dialed {
        let nudge = Arc::new(Notify::new());
        let task = tokio::spawn(keep(self.clone(), target, outbox.clone(), inlet, Arc::clone(&nudge)));
        Dialed { outbox, nudge, task: task.abort_handle() }
    }
}

/// A link that is kept up. Dropping it ends it.
#[derive(Debug)]
pub struct Dialed {
    /// What shall be sent on it.
    pub outbox: Outbox,
    nudge: Arc<Notify>,
    task: AbortHandle,
}

impl Dialed {
    /// There is reason to believe that the target is up: try at once.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }
}

impl Drop for Dialed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep<T: Clone>(dialer: Dialer, target: Target, outbox: Outbox, inlet: Inlet<T>, nudge: Arc<Notify>) {
    let mut pause = BACKOFF_FIRST;
    loop {
        let reason = match dialer.dial(&target).await {
            Ok(link) => {
                pause = BACKOFF_FIRST;
                if !inlet.send(LinkEvent::Up).await {
                    return;
                }
                let reason = link.run(&outbox, &inlet).await;
                outbox.clear();
                reason
            }
            Err(error) => error,
        };
        let closed_here = matches!(reason, LinkError::ClosedHere);
        if !inlet.send(LinkEvent::Down(reason)).await || closed_here {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF_MAX),
            () = nudge.notified() => {}
            () = outbox.closed() => return,
        }
    }
}
