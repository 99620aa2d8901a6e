//! A lock service with leases: who acquires a name holds it until its lease lapses, whatever becomes of the client.
//!
//! ```text
//!   acquire ── free, or the lease has lapsed? ──yes──> a lease with the next fencing token
//!                 ^           │ no
//!                 └── waits until it is notified, at most until the lease lapses
//!   renew, release ── only by the token of the lease in force
//! ```
//! A client that is slow may still believe in a lease that has lapsed. So whatever the lock protects compares fencing
//! tokens and refuses one that is smaller than the greatest it has seen.
//!
//! Run it: `cargo run -p unisono --example leases -- dev`.

use unisono::borsh::{BorshDeserialize, BorshSerialize};
use unisono::{Context, State, Table, Timestamp, service};

/// Microseconds of the longest lease, and of the longest wait: an hour.
const LONGEST: u64 = 3_600_000_000;

/// A lock that somebody holds until a time.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono::borsh")]
pub(crate) struct Lease {
    /// Fencing token: greater than that of every lease before it on the same name.
    pub(crate) token: u64,
    /// The session that holds it.
    pub(crate) holder: u64,
    /// When it was granted or last renewed.
    pub(crate) since: Timestamp,
    /// It has lapsed at this time and later.
    pub(crate) until: Timestamp,
}

/// Why a lease was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono::borsh")]
pub(crate) enum Refused {
    /// Others held it as long as the client was willing to wait.
    Busy,
    /// The token is not that of the lease in force: it has lapsed, or was released.
    Lapsed,
    /// A lease of no time, or of more than an hour.
    Duration,
}

#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono::borsh")]
struct Lock {
    tokens: u64,
    lease: Option<Lease>,
}

impl Lock {
    /// The lease that is in force at this time.
    fn in_force(&self, now: Timestamp) -> Option<Lease> {
        self.lease.clone().filter(|lease| now < lease.until)
    }

    /// A new lease, or the one that stands against it.
    fn grant(&mut self, (holder, now, microseconds): (u64, Timestamp, u64)) -> Result<Lease, Lease> {
        if let Some(lease) = self.in_force(now) {
            return Err(lease);
        }
        self.tokens += 1;
        let lease = Lease { token: self.tokens, holder, since: now, until: now.after(microseconds) };
        self.lease = Some(lease.clone());
        Ok(lease)
    }

    fn renew(&mut self, (token, now, microseconds): (u64, Timestamp, u64)) -> Result<Lease, Refused> {
        let lease = self.lease.as_mut().filter(|lease| lease.token == token && now < lease.until);
        let lease = lease.ok_or(Refused::Lapsed)?;
        (lease.since, lease.until) = (now, now.after(microseconds));
        Ok(lease.clone())
    }

    /// Ends the lease in force; what it was.
    fn release(&mut self, (token, now): (u64, Timestamp)) -> Result<Lease, Refused> {
        let lease = self.in_force(now).filter(|lease| lease.token == token).ok_or(Refused::Lapsed)?;
        self.lease = None;
        Ok(Lease { until: now, ..lease })
    }
}

#[derive(State)]
pub(crate) struct Leases {
    locks: Table<String, Lock>,
}

#[service]
impl Leases {
    /// Holds `name` for so many microseconds, as soon as nobody else does; waits for at most `patience` microseconds.
    async fn acquire(&self, cx: &Context, name: String, microseconds: u64, patience: u64) -> Result<Lease, Refused> {
        if !(1..=LONGEST).contains(&microseconds) {
            return Err(Refused::Duration);
        }
        let mut lock = self.locks.lock(cx, name).await;
        let deadline = cx.now().after(patience.min(LONGEST));
        loop {
            // The time is read where it is used: after each wait it is another.
            let standing = match lock.with_mut((cx.session().0, cx.now(), microseconds), Lock::grant) {
                Ok(lease) => return Ok(lease),
                Err(standing) => standing,
            };
            let now = cx.now();
            if deadline <= now {
                return Err(Refused::Busy);
            }
            lock = lock.wait_for(0, standing.until.min(deadline).0 - now.0).await.0;
        }
    }

    /// Holds it for so many microseconds from now on.
    async fn renew(&self, cx: &Context, name: String, token: u64, microseconds: u64) -> Result<Lease, Refused> {
        if !(1..=LONGEST).contains(&microseconds) {
            return Err(Refused::Duration);
        }
        let mut lock = self.locks.lock(cx, name).await;
        let renewed = lock.with_mut((token, cx.now(), microseconds), Lock::renew);
        lock.notify_all(0); // it may be a shorter lease
        renewed
    }

    /// Ends the lease before its time; what it was.
    async fn release(&self, cx: &Context, name: String, token: u64) -> Result<Lease, Refused> {
        let mut lock = self.locks.lock(cx, name).await;
        let released = lock.with_mut((token, cx.now()), Lock::release);
        lock.notify_all(0);
        released
    }

    /// Who holds it, and until when.
    async fn holder(&self, cx: &Context, name: String) -> Option<Lease> {
        let lock = self.locks.read(cx, name).await;
        lock.with(cx.now(), |lock, now| lock.in_force(now))
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        let name = ["door", "gate", "till"][(seed >> 8) as usize % 3].to_owned();
        let (microseconds, token) = (1 + (seed >> 16) % 20_000, 1 + (seed >> 32) % 12);
        match seed % 8 {
            0..=3 => LeasesOperation::acquire(name, microseconds, (seed >> 40) % 60_000),
            4 => LeasesOperation::renew(name, token, microseconds),
            5 | 6 => LeasesOperation::release(name, token),
            _ => LeasesOperation::holder(name),
        }
    }
}

fn main() {
    unisono::main::<Leases>();
}
