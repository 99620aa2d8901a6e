//! A bank: transfers between accounts that run in parallel, and a withdrawal that waits until there is enough money.
//!
//! ```text
//!   transfer                 both accounts locked, in ascending order: no deadlock whatever the directions
//!   withdraw_when_possible   waits on its account's condition variable; a deposit or a transfer wakes it
//! ```
//! Run it: `cargo run --example bank -- dev`.

use unisono::borsh::{BorshDeserialize, BorshSerialize};
use unisono::{Context, LockError, State, Table, service};

/// Names an account.
type AccountId = u64;

/// Why money did not move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono::borsh")]
enum Refused {
    /// There is less on the account.
    Funds,
    /// The account would hold more than a number can say.
    Full,
    /// From an account to itself.
    SameAccount,
}

impl From<LockError> for Refused {
    /// Locks taken in ascending order meet no deadlock, and nothing else is locked: what is left is equal keys.
    fn from(_: LockError) -> Self {
        Self::SameAccount
    }
}

#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono::borsh")]
struct Account {
    balance: u64,
}

impl Account {
    fn withdraw(&mut self, amount: u64) -> Result<u64, Refused> {
        self.balance = self.balance.checked_sub(amount).ok_or(Refused::Funds)?;
        Ok(self.balance)
    }

    fn deposit(&mut self, amount: u64) -> Result<u64, Refused> {
        self.balance = self.balance.checked_add(amount).ok_or(Refused::Full)?;
        Ok(self.balance)
    }
}

#[derive(State)]
struct Bank {
    accounts: Table<AccountId, Account>,
}

#[service]
impl Bank {
    /// The balance.
    async fn balance(&self, cx: &Context, of: AccountId) -> u64 {
        self.accounts.read(cx, of).await.with((), |account, ()| account.balance)
    }

    /// Puts money in; the new balance.
    async fn deposit(&self, cx: &Context, to: AccountId, amount: u64) -> Result<u64, Refused> {
        let mut to = self.accounts.lock(cx, to).await;
        let balance = to.with_mut(amount, Account::deposit)?;
        to.notify_all(0);
        Ok(balance)
    }

    /// Moves money, wholly or not at all.
    async fn transfer(&self, cx: &Context, from: AccountId, to: AccountId, amount: u64) -> Result<(), Refused> {
        let [mut from, mut to] = self.accounts.lock_all(cx, [from, to]).await?;
        from.with_mut(amount, Account::withdraw)?;
        if let Err(refused) = to.with_mut(amount, Account::deposit) {
            from.with_mut(amount, Account::deposit)?;
            return Err(refused);
        }
        to.notify_all(0);
        Ok(())
    }

    /// Takes money out, as soon as there is enough; the balance that is left.
    async fn withdraw_when_possible(&self, cx: &Context, from: AccountId, amount: u64) -> u64 {
        let mut from = self.accounts.lock(cx, from).await;
        loop {
            if let Ok(left) = from.with_mut(amount, Account::withdraw) {
                return left;
            }
            from = from.wait(0).await;
        }
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        let (from, to, amount) = ((seed >> 8) % 1_000, (seed >> 24) % 1_000, (seed >> 40) % 100);
        match seed % 4 {
            0 => BankOperation::balance(from),
            1 => BankOperation::deposit(to, amount),
            _ => BankOperation::transfer(from, to, amount),
        }
    }
}

fn main() {
    unisono::main::<Bank>();
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono::testing;

    #[test]
    fn a_withdrawal_waits_for_the_transfer_that_makes_it_possible() {
        let operations = [
            BankOperation::withdraw_when_possible(2, 60),
            BankOperation::deposit(1, 100),
            BankOperation::transfer(1, 2, 50),
            BankOperation::balance(2),
            BankOperation::transfer(1, 2, 50),
            BankOperation::transfer(1, 1, 1),
        ];
        for recording in testing::check_all::<Bank>(&operations, 0..5).unwrap() {
            let replies: Vec<_> = recording.trace.outcomes.values().map(|reply| reply.clone().unwrap()).collect();
            assert_eq!(replies.len(), 6, "everyone was answered");
            assert_eq!(*replies[5], [0, 2], "an account and itself");
        }
    }

    #[test]
    fn every_schedule_gives_the_same_balances() {
        let mut operations = testing::samples::<Bank>(60, 7);
        operations.extend((0..10).map(|account| BankOperation::withdraw_when_possible(account, 10)));
        testing::check_all::<Bank>(&operations, 0..4).unwrap();
    }
}
