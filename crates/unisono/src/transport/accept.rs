//! The accepting side: handshake and hello under one deadline, then the link goes to whoever serves its kind.

use super::{Link, LinkError, LinkKind, Role, tls};
use crate::config::KeyPair;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::{TlsAcceptor, TlsStream};
use unisono_types::{ClusterId, Membership, PublicKey};

/// From accepting a connection to its hello.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Connections in the middle of their handshake; for one more, the oldest of the network that has most is closed.
pub const UNAUTHENTICATED_MAX: usize = 512;

/// Of these, so many are a member's whatever comes from elsewhere.
const MEMBER_PLACES: usize = 16;

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
        let mut keys: BTreeSet<_> = configuration.client_keys.iter().copied().collect();
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

/// Where a connection comes from, as far as somebody has to own it: an address, or the 64 bits of a network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & u128::MAX << 64).into(),
        address => address,
    }
}

/// Connections in the middle of their handshake, by their numbers: the oldest first.
#[derive(Default)]
struct Unauthenticated {
    places: BTreeMap<u64, (IpAddr, AbortHandle)>,
    next: u64,
    /// Of the members whose addresses are numbers.
    members: BTreeSet<IpAddr>,
}

impl Unauthenticated {
    /// The oldest of the network that has most beyond what is kept for members.
    fn surplus(&self) -> Option<u64> {
        // The first one seen of a network is its oldest.
        let mut networks = BTreeMap::new();
        for (number, (network, _)) in &self.places {
            networks.entry(network).or_insert((0, *number)).0 += 1;
        }
        let beyond = |network, count: usize| count.saturating_sub(self.kept(network));
        let most = networks.iter().max_by_key(|(network, (count, oldest))| (beyond(network, *count), Reverse(*oldest)));
        most.map(|(_, (_, oldest))| *oldest)
    }

    fn kept(&self, network: &IpAddr) -> usize {
        if self.members.contains(network) { MEMBER_PLACES } else { 0 }
    }

    /// Makes room for one more; whether somebody had to go.
    fn make_room(&mut self) -> bool {
        let full = self.places.len() >= UNAUTHENTICATED_MAX;
        let gone = self.surplus().filter(|_| full).and_then(|number| self.places.remove(&number));
        gone.is_some_and(|(_, task)| {
            task.abort();
            true
        })
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
    let members = acceptor.membership.configuration().members.iter();
    let members = members.filter_map(|member| Some(network(member.address.parse::<SocketAddr>().ok()?.ip())));
    let waiting = Unauthenticated { members: members.collect(), ..Unauthenticated::default() };
    let waiting = Arc::new(Mutex::new(waiting));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                handle(Err(error.into())).await;
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if lock(&waiting).make_room() {
            handle(Err(LinkError::Crowded)).await;
        }
        let (acceptor, handle, own) = (acceptor.clone(), handle.clone(), Arc::clone(&waiting));
        let mut waiting = lock(&waiting);
        let number = waiting.next;
        waiting.next += 1;
        let task = tokio::spawn(async move {
            let result = acceptor.accept(stream).await;
            // Whoever lost its place in this moment has been told of.
            if lock(&own).places.remove(&number).is_some() {
                handle(result).await;
            }
        });
        // Still locked: it cannot be over yet.
        waiting.places.insert(number, (network(address.ip()), task.abort_handle()));
    }
}

fn lock(waiting: &Mutex<Unauthenticated>) -> std::sync::MutexGuard<'_, Unauthenticated> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_network_that_has_most_gives_way_and_a_member_keeps_its_places() {
        let [member, flooding, lone] = ["192.0.2.1", "2001:db8::", "192.0.2.2"].map(|text| text.parse().unwrap());
        let mut waiting = Unauthenticated { members: BTreeSet::from([member]), ..Unauthenticated::default() };
        let mut come = |address: IpAddr| {
            let task = tokio::spawn(std::future::pending::<()>());
            waiting.places.insert(waiting.next, (network(address), task.abort_handle()));
            waiting.next += 1;
            waiting.surplus()
        };
        assert_eq!(come(lone), Some(0));
        for number in 1..=16 {
            assert_eq!(come(member), Some(0), "{number} places are its own");
        }
        assert_eq!(come("2001:db8::1".parse().unwrap()), Some(0));
        assert_eq!(come("2001:db8::2:1".parse().unwrap()), Some(17), "one network, whatever its address");
        assert_eq!(come(member), Some(17), "one place beyond its own");
        assert_eq!(network(flooding), flooding);
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), member);
    }
}
