//! The accepting side: handshake and hello under one deadline, then the link goes to whoever serves its kind.

use super::{Link, LinkError, LinkKind, Role, tls};
use crate::config::KeyPair;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::{TlsAcceptor, TlsStream};
use unisono_types::{ClusterId, Membership, PublicKey};

/// From accepting a connection to its hello.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Connections in the middle of their handshake; one more is closed at once.
pub const UNAUTHENTICATED_MAX: usize = 512;

/// When the system has no file descriptor left, wait for others to go.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const HELLO_MAGIC: &[u8; 8] = b"unisono\0";
/// 2: large messages travel in pieces.
const HELLO_VERSION: u8 = 2;
const HELLO_BYTES: usize = 8 + 1 + 1 + 16;

/// The first message of every link.
pub(super) fn hello(cluster: ClusterId, kind: LinkKind) -> Vec<u8> {
    let kind = match kind {
        LinkKind::Peer => 1,
        LinkKind::Client => 2,
        LinkKind::Admin => 3,
    };
    let mut bytes = Vec::with_capacity(HELLO_BYTES);
    bytes.extend_from_slice(HELLO_MAGIC);
    bytes.extend_from_slice(&[HELLO_VERSION, kind]);
    bytes.extend_from_slice(&cluster.0);
    bytes
}

fn read_hello(bytes: &[u8], cluster: ClusterId) -> Option<LinkKind> {
    let rest = bytes.strip_prefix(HELLO_MAGIC)?.strip_prefix(&[HELLO_VERSION])?;
    let (kind, rest) = rest.split_first()?;
    let kind = match kind {
        1 => LinkKind::Peer,
        2 => LinkKind::Client,
        3 => LinkKind::Admin,
        _ => return None,
    };
    (rest == cluster.0).then_some(kind)
}

/// A link that was let in.
#[derive(Debug)]
pub struct Accepted {
    /// Whose it is.
    pub role: Role,
    /// The link.
    pub link: Link,
}

/// Lets in who holds a key of the cluster.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    membership: Membership,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// For the holder of `own`, a member of the cluster.
    #[must_use]
    pub fn new(own: &KeyPair, membership: Membership) -> Self {
        let configuration = membership.configuration();
        let mut keys: std::collections::BTreeSet<_> = configuration.client_keys.iter().copied().collect();
        keys.extend(configuration.members.iter().map(|member| member.host_key));
        keys.insert(configuration.admin_key);
        Self { tls: TlsAcceptor::from(tls::server(own, keys)), membership }
    }

    /// Handshake and hello.
    ///
    /// # Errors
    /// [`LinkError`]: the connection is closed and the reason counted.
    pub async fn accept(&self, stream: TcpStream) -> Result<Accepted, LinkError> {
        tokio::time::timeout(HANDSHAKE_DEADLINE, self.handshake(stream))
            .await
            .map_err(|_| LinkError::HandshakeTimeout)?
    }

    async fn handshake(&self, stream: TcpStream) -> Result<Accepted, LinkError> {
        stream.set_nodelay(true)?;
        let stream = self.tls.accept(stream).await.map_err(LinkError::Handshake)?;
        let key = tls::peer_key(stream.get_ref().1.peer_certificates()).ok_or(LinkError::UnknownKey)?;
        let configuration = self.membership.configuration();
        let mut link = Link::new(TlsStream::Server(stream), HELLO_BYTES);
        let hello = match link.read().await {
            Ok(hello) => hello,
            Err(LinkError::Oversized { .. }) => return Err(LinkError::BadHello),
            Err(other) => return Err(other),
        };
        let kind = read_hello(&hello, configuration.cluster).ok_or(LinkError::BadHello)?;
        let role = self.role(kind, key).ok_or(LinkError::WrongKind)?;
        link.set_limit(kind.message_bytes_max(&configuration.limits));
        Ok(Accepted { role, link })
    }

    fn role(&self, kind: LinkKind, key: PublicKey) -> Option<Role> {
        match kind {
            LinkKind::Peer => self.membership.member_by_host_key(&key).map(|member| Role::Peer(member.id)),
            LinkKind::Client => self.membership.is_client(&key).then_some(Role::Client(key)),
            LinkKind::Admin => (self.membership.configuration().admin_key == key).then_some(Role::Admin),
        }
    }
}

/// Accepts for ever. Each result goes to `handle`, in a task of its own.
pub async fn listen<F>(
    listener: TcpListener,
    acceptor: Acceptor,
    handle: impl Fn(Result<Accepted, LinkError>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(UNAUTHENTICATED_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                handle(Err(error.into())).await;
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            handle(Err(LinkError::HandshakeTimeout)).await;
            continue;
        };
        let (acceptor, handle) = (acceptor.clone(), handle.clone());
        tokio::spawn(async move {
            let result = acceptor.accept(stream).await;
            drop(place);
            handle(result).await;
        });
    }
}
