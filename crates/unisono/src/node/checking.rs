//! What links sent, on its way through the checks. Length and kind come first, then whether it is wanted at all, then
//! signatures, on the sender's account (`verify.rs`).

use super::links::Source;
use super::messages::{Algorithm, Checked, Received, check, label, parse};
use crate::transport::{Inbound, Share};
use crate::verify::{self, Class, Cost, Outcome, Panicked, Verifier};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use unisono_replica::Replica;
use unisono_types::{PublicKey, Rejected, ReplicaId, VerifyContext};

/// Who pays for a check: all links of one key are one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Account {
    /// A member.
    Peer(ReplicaId),
    /// A client key.
    Client(PublicKey),
}

/// A link and who pays for what comes on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) source: Source,
    pub(super) account: Account,
}

impl verify::Source for Sender {
    type Account = Account;

    fn account(&self) -> Account {
        self.account
    }

    fn class(account: Account) -> Class {
        match account {
            Account::Peer(_) => Class::Peer,
            Account::Client(_) => Class::Client,
        }
    }
}

/// A message that waits for its check, with its share of the budget.
enum Waiting {
    /// Small enough to be read in the loop.
    Read(Received, Share),
    /// Reading it means hashing it.
    Large(Source, Inbound),
}

/// What a check leaves: its result, and the message's share of the budget, which is free when this is dropped.
type Answer = (Result<Checked, Rejected>, Share);

/// A message behind its check.
pub(super) struct Verdict {
    pub(super) source: Source,
    pub(super) result: Result<Checked, Reason>,
    _share: Share,
}

/// Why a message was not let in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    /// It is wrong.
    Rejected(Rejected),
    /// Its check panicked: a defect of ours, but one that this message alone has shown.
    Panicked,
}

impl Reason {
    /// A short fixed name, for a counter's label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Rejected(reason) => label(reason),
            Self::Panicked => "panicked",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(reason) => reason.fmt(f),
            Self::Panicked => f.write_str("its check panicked, which is a defect of this program"),
        }
    }
}

/// All checks of a replica.
pub(super) struct Checking {
    verifier: Verifier<Sender, Waiting, Answer>,
    context: Arc<VerifyContext>,
    outcomes: Vec<(Sender, Outcome<Answer>)>,
}

impl Checking {
    /// `notify` is called on another thread when there are verdicts.
    pub(super) fn new(
        context: Arc<VerifyContext>,
        workers: usize,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (started, own) = (Instant::now(), Arc::clone(&context));
        let verifier = Verifier::new(workers, move |waiting| answer(waiting, &own), move || started.elapsed(), notify)?;
        Ok(Self { verifier, context, outcomes: Vec::new() })
    }

    /// A message has come. Its verdict, if that could be had at once; nothing comes of one that is not wanted.
    pub(super) fn arrived(
        &mut self,
        sender: Sender,
        mut message: Inbound,
        is_wanted: impl Fn(&Received) -> bool,
    ) -> Option<Verdict> {
        let source = sender.source;
        let (waiting, cost) = if message.is_large() {
            (Waiting::Large(source, message), Cost::Long)
        } else {
            let share = message.take_share();
            match parse(source, message, &self.context) {
                Ok(received) if !is_wanted(&received) => return None,
                Ok(received) => {
                    let cost = Cost::Signatures(signatures(&received));
                    (Waiting::Read(received, share), cost)
                }
                Err(reason) => return Some(verdict(sender, Ok((Err(reason), share)))),
            }
        };
        self.verifier.submit(sender, waiting, cost).map(|outcome| verdict(sender, outcome))
    }

    /// Appends the verdicts on what was queued, each account's in order.
    pub(super) fn take(&mut self, verdicts: &mut Vec<Verdict>) {
        self.verifier.take(&mut self.outcomes);
        verdicts.extend(self.outcomes.drain(..).map(|(sender, outcome)| verdict(sender, outcome)));
    }

    /// Drops what waits and is not wanted any more.
    pub(super) fn forget(&mut self, is_wanted: impl Fn(&Received) -> bool) {
        if self.verifier.outstanding() > 0 {
            self.verifier.retain(|_, waiting| match waiting {
                Waiting::Read(received, _) => is_wanted(received),
                Waiting::Large(..) => true,
            });
        }
    }
}

/// The check itself, on whatever thread.
fn answer(waiting: Waiting, context: &VerifyContext) -> Answer {
    match waiting {
        Waiting::Read(received, share) => (check(received, context), share),
        Waiting::Large(source, mut message) => {
            let share = message.take_share();
            (parse(source, message, context).and_then(|received| check(received, context)), share)
        }
    }
}

fn verdict(sender: Sender, outcome: Outcome<Answer>) -> Verdict {
    let (result, share) = match outcome {
        Ok((result, share)) => (result.map_err(Reason::Rejected), share),
        Err(Panicked) => (Err(Reason::Panicked), Share::default()),
    };
    Verdict { source: sender.source, result, _share: share }
}

/// Signatures that the check of a message verifies.
fn signatures(received: &Received) -> usize {
    match received {
        Received::Client(_) => 1,
        Received::Peer(_, message) => Replica::<Algorithm>::signatures(message),
    }
}
