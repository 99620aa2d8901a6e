//! A bank and a queue under many schedules: equal replies and roots whatever runs first; and a service that cheats is
//! found out.
#![allow(missing_docs)]

mod common;

use common::{Bench, Local, block_on, decode, sequential, value};
use unisono_execution::borsh::{BorshDeserialize, BorshSerialize};
use unisono_execution::testing::{self, Execution};
use unisono_execution::{Context, LockError, Mutex, RwLock, Table};
use unisono_macros::{Input, State, service};
use unisono_scheduler::uds::{Planted, Uds};
use unisono_scheduler::{Parameters, Scheduler};

#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_execution::borsh")]
enum Refused {
    Funds,
    Lock(LockError),
}

impl From<LockError> for Refused {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_execution::borsh")]
struct Account {
    balance: u64,
    moves: u32,
}

#[derive(Clone, Debug, Input)]
#[input(crate = unisono_execution)]
struct Amount {
    amount: u64,
}

impl Account {
    fn withdraw(&mut self, Amount { amount }: Amount) -> Result<(), Refused> {
        self.balance = self.balance.checked_sub(amount).ok_or(Refused::Funds)?;
        self.moves += 1;
        Ok(())
    }

    fn deposit(&mut self, Amount { amount }: Amount) -> u64 {
        self.balance += amount;
        self.moves += 1;
        self.balance
    }
}

#[derive(State)]
#[state(crate = unisono_execution)]
struct Books {
    entries: Mutex<Vec<u64>>,
    total: RwLock<u64>,
}

#[derive(State)]
#[state(crate = unisono_execution)]
struct Bank {
    accounts: Table<u64, Account>,
    books: Books,
    shards: [Mutex<u64>; 3],
}

#[service(crate = unisono_execution)]
impl Bank {
    /// Puts money in and tells the new balance.
    async fn deposit(&self, cx: &Context, to: u64, amount: u64) -> u64 {
        let mut account = self.accounts.lock(cx, to).await;
        let balance = account.with_mut(Amount { amount }, Account::deposit);
        account.notify_all(0);
        drop(account);
        self.books.total.write(cx).await.with_mut(amount, |total, amount| *total += amount);
        balance
    }

    async fn transfer(&self, cx: &Context, from: u64, to: u64, amount: u64) -> Result<(), Refused> {
        let [mut from, mut to] = self.accounts.lock_all(cx, [from, to]).await?;
        from.with_mut(Amount { amount }, Account::withdraw)?;
        to.with_mut(Amount { amount }, Account::deposit);
        to.notify_one(0);
        Ok(())
    }

    async fn withdraw_when_possible(&self, cx: &Context, from: u64, amount: u64) -> u64 {
        let mut account = self.accounts.lock(cx, from).await;
        while account.with_mut(Amount { amount }, Account::withdraw).is_err() {
            account = account.wait(0).await;
        }
        account.with((), |account, ()| account.balance)
    }

    async fn withdraw_within(&self, cx: &Context, from: u64, amount: u64, microseconds: u64) -> bool {
        let mut account = self.accounts.lock(cx, from).await;
        loop {
            if account.with_mut(Amount { amount }, Account::withdraw).is_ok() {
                return true;
            }
            let (again, late) = account.wait_for(0, microseconds).await;
            if late {
                return false;
            }
            account = again;
        }
    }

    async fn close(&self, cx: &Context, account: u64) -> bool {
        self.accounts.lock(cx, account).await.remove()
    }

    /// Reads, computes, sleeps, yields, draws numbers: everything a Context has.
    async fn audit(&self, cx: &Context, name: &str, bytes: &[u8]) -> (u64, u64, u64) {
        let total = self.books.total.read(cx).await.with((), |total, ()| *total);
        let number = cx.random();
        let mut shard = self.shards[(number % 3) as usize].lock(cx).await;
        shard.with_mut((bytes, name), |shard, (bytes, name)| *shard += (bytes.len() + name.len()) as u64);
        drop(shard);
        cx.yield_now().await;
        cx.sleep(1_500).await;
        let entry = cx.now().0 ^ cx.random() ^ cx.session().0 ^ cx.number().0;
        let mut entries = self.books.entries.lock(cx).await;
        entries.with_mut(entry, |entries, entry| entries.push(entry));
        (total, entry, cx.position().0)
    }

    async fn patient(&self, cx: &Context, shard: u8, microseconds: u64) -> Option<LockError> {
        let shard = &self.shards[usize::from(shard % 3)];
        match shard.lock_for(cx, microseconds).await {
            Ok(mut guard) => {
                cx.sleep(microseconds).await;
                guard.with_mut((), |value, ()| *value += 1);
                None
            }
            Err(error) => Some(error),
        }
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        let (from, to, amount) = ((seed >> 8) % 4, (seed >> 16) % 4, (seed >> 24) % 50);
        match seed % 10 {
            0..=2 => BankOperation::deposit(to, amount),
            3..=4 => BankOperation::transfer(from, to, amount),
            5 => BankOperation::withdraw_when_possible(from, amount),
            6 => BankOperation::withdraw_within(from, amount, 1 + amount * 100),
            7 => BankOperation::patient((seed >> 32) as u8, 1 + (seed >> 40) % 3_000),
            8 if seed & 1024 == 0 => BankOperation::close(from),
            _ => BankOperation::audit("name", &seed.to_le_bytes()),
        }
    }
}

#[test]
fn the_sequential_policy_gives_one_result() {
    let operations = testing::samples::<Bank>(60, 1);
    testing::check::<Bank>(sequential, &operations, 0..12).unwrap();
}

#[test]
fn each_policy_gives_one_result() {
    for sample in 0..3 {
        let operations = testing::samples::<Bank>(50, 100 + sample);
        for recording in testing::check_all::<Bank>(&operations, 0..3).unwrap() {
            assert!(recording.trace.outcomes.len() > 25, "most handlers end: {}", recording.trace.outcomes.len());
            assert!(recording.trace.leaves.iter().any(|(name, _)| name.starts_with("accounts[")));
        }
    }
}

#[test]
fn a_replay_of_the_log_with_one_entry_less_is_different() {
    let operations = testing::samples::<Bank>(30, 9);
    let recording = testing::record::<Bank>(sequential(), &operations, 3);
    let shorter = &recording.log[1..];
    assert_ne!(testing::replay::<Bank>(sequential(), shorter, Execution::InLine), recording.trace);
}

#[test]
fn money_is_neither_made_nor_lost() {
    let bank = BankClient::new(Local(std::sync::Mutex::new(Bench::new::<Bank>())));
    block_on(async {
        assert_eq!(value(bank.deposit(1, 100).await), Ok(100));
        assert_eq!(value(bank.transfer(1, 2, 30).await), Ok(Ok(())));
        assert_eq!(value(bank.transfer(1, 2, 71).await), Ok(Err(Refused::Funds)));
        assert_eq!(value(bank.transfer(1, 1, 1).await), Ok(Err(Refused::Lock(LockError::EqualKeys))));
        assert_eq!(value(bank.withdraw_when_possible(2, 30).await), Ok(0));
        assert_eq!(value(bank.close(2).await), Ok(true));
        assert_eq!(value(bank.close(2).await), Ok(false));
    });
}

#[test]
fn a_blocked_withdrawal_is_served_by_a_later_deposit_and_not_before() {
    let mut bench = Bench::new::<Bank>();
    let waiting = bench.request(BankOperation::withdraw_when_possible(7, 50));
    assert_eq!(bench.run(), []);
    let early = bench.request(BankOperation::deposit(7, 49));
    assert_eq!(bench.run().iter().map(|(ended, _)| *ended).collect::<Vec<_>>(), [early]);
    bench.request(BankOperation::deposit(7, 11));
    let mut ended = bench.run();
    ended.sort_by_key(|(sequence, _)| *sequence);
    assert_eq!((ended[0].0, decode::<u64>(&ended[0].1)), (waiting, 10));
}

#[test]
fn a_timed_wait_ends_with_agreed_time() {
    let mut bench = Bench::new::<Bank>();
    let waiting = bench.request(BankOperation::withdraw_within(7, 50, 2_000));
    assert_eq!(bench.run(), []);
    assert_eq!(bench.starved, [(false, Some(bench.timestamp + 2_000))]);
    bench.tick(1_999);
    assert_eq!(bench.run(), []);
    bench.tick(1);
    let ended = bench.run();
    assert_eq!((ended[0].0, decode::<bool>(&ended[0].1)), (waiting, false));
}

#[test]
fn malformed_replies_are_told_apart() {
    struct Broken;
    impl unisono_execution::Invoke for Broken {
        type Error = std::convert::Infallible;
        async fn invoke(&self, _: Vec<u8>) -> Result<Vec<u8>, Self::Error> {
            Ok(vec![1])
        }
    }
    let call = block_on(async { BankClient::new(&Broken).deposit(1, 2).await });
    assert_eq!(call, Err(unisono_execution::InvokeError::Malformed));
}

#[test]
fn a_policy_that_grants_in_the_order_of_arrival_is_found() {
    let parameters = Parameters { primaries: 8, steps: 4, ..Parameters::uds() };
    let planted = || Box::new(Uds::planted(parameters.clone(), Planted::ArrivalOrder)) as Box<dyn Scheduler>;
    let operations = testing::samples::<Bank>(60, 1);
    let difference = testing::check::<Bank>(planted, &operations, 0..5).unwrap_err();
    assert!(matches!(difference.execution, Execution::Stepped(_)), "within the first steps: {difference}");
    assert_eq!(difference.culprit, None, "no handler did it");
    assert!(difference.to_string().contains("is the scheduler at fault?"), "{difference}");
}
