//! The declared lane: requests that say beforehand what they lock, beside others that do not.
#![allow(missing_docs)]

mod common;

use common::{Bench, decode, sequential, uds};
use std::collections::BTreeSet;
use unisono_execution::testing;
use unisono_execution::{
    Context, Declaration, DeclaredContext, DeclaredLock, Fault, Lane, Mode, Mutex, RwLock, Service, Settings, State,
    Table, UnknownOperation,
};
use unisono_macros::{State, service};
use unisono_scheduler::{Operation, Order};

#[derive(State)]
#[state(crate = unisono_execution)]
struct Bank {
    accounts: Table<u64, u64>,
    rates: Table<String, u64>,
    total: RwLock<u64>,
    shards: [Mutex<u64>; 3],
    log: Mutex<Vec<u64>>,
}

fn add(value: &mut u64, by: u64) -> u64 {
    *value += by;
    *value
}

impl Bank {
    fn all(&self, accounts: &[u64]) -> Vec<DeclaredLock> {
        accounts.iter().map(|account| self.accounts.declared(account)).collect()
    }
}

#[service(crate = unisono_execution)]
impl Bank {
    #[locks(self.accounts[from], self.accounts[to])]
    async fn transfer(&self, cx: &DeclaredContext<'_>, from: u64, to: u64, amount: u64) -> bool {
        let Ok([mut from, mut to]) = self.accounts.lock_all(cx, [from, to]).await else { return false };
        let amount = from.with_mut(amount, |balance, amount| {
            let amount = amount.min(*balance);
            *balance -= amount;
            amount
        });
        to.with_mut(amount, add);
        to.notify_all(0);
        amount > 0
    }

    #[locks(self.accounts[to], self.total; 2, self.shards[shard as usize])]
    #[class(2)]
    async fn deposit(&self, cx: &DeclaredContext<'_>, to: u64, shard: u8, amount: u64) -> (u64, u64) {
        let balance = self.accounts.lock(cx, to).await.with_mut(amount, add);
        self.total.write(cx).await.with_mut(amount, add);
        if let Some(shard) = self.shards.get(usize::from(shard)) {
            shard.lock(cx).await.with_mut(1, add);
        }
        let again = self.total.write(cx).await.with((), |total, ()| *total);
        (balance, again ^ cx.random() ^ cx.now().0 ^ cx.session().0 ^ cx.number().0 ^ cx.position().0)
    }

    /// Only reads: side by side with others that read.
    #[locks(read self.total, read self.rates[name.to_owned()])]
    async fn rate(&self, cx: &DeclaredContext<'_>, name: &str) -> (u64, u64) {
        let total = self.total.read(cx).await.with((), |total, ()| *total);
        (total, self.rates.read(cx, name.to_owned()).await.with((), |rate, ()| *rate))
    }

    #[locks(in self.all(&arguments))]
    async fn sum(&self, cx: &DeclaredContext<'_>, arguments: Vec<u64>) -> u64 {
        let mut sum = 0;
        for account in self.accounts.lock_many(cx, arguments).await.unwrap_or_default() {
            sum += account.with((), |balance, ()| *balance);
        }
        sum
    }

    #[locks()]
    async fn echo(&self, _cx: &DeclaredContext<'_>, number: u64) -> u64 {
        number
    }

    /// The mistake: declares one row and locks another.
    #[locks(self.accounts[1])]
    async fn lie(&self, cx: &DeclaredContext<'_>) -> u64 {
        self.accounts.lock(cx, 1).await.with_mut(100, add);
        self.accounts.lock(cx, 2).await.with_mut(100, add)
    }

    /// The mistake: uses a lock more often than it declared.
    #[locks(self.log)]
    async fn insist(&self, cx: &DeclaredContext<'_>) {
        for entry in 0..2 {
            self.log.lock(cx).await.with_mut(entry, |log, entry| log.push(entry));
        }
    }

    /// In rounds. What it says of its locks is foreknowledge.
    #[locks(self.accounts[from], self.total)]
    #[class(1)]
    async fn withdraw(&self, cx: &Context, from: u64, amount: u64) -> bool {
        let mut account = self.accounts.lock(cx, from).await;
        while !account.with_mut(amount, |balance, amount| {
            let enough = *balance >= amount;
            *balance -= if enough { amount } else { 0 };
            enough
        }) {
            let (again, late) = account.wait_for(0, 2_000).await;
            if late {
                return false;
            }
            account = again;
        }
        let total = self.total.try_write(cx).await;
        if let Some(mut total) = total {
            total.with_mut(amount, |total, amount| *total = total.saturating_sub(amount));
        }
        true
    }

    /// In rounds, and slowly: keeps what others have tickets for.
    async fn audit(&self, cx: &Context, account: u64) -> u64 {
        let balance = self.accounts.lock(cx, account).await;
        cx.sleep(500).await;
        let mut log = self.log.lock(cx).await;
        cx.yield_now().await;
        let seen = balance.with((), |balance, ()| *balance);
        log.with_mut(seen, |log, seen| log.push(seen));
        seen
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        let (one, two, amount) = ((seed >> 8) % 4, (seed >> 16) % 4, (seed >> 24) % 50);
        match seed % 12 {
            0..=2 => BankOperation::deposit(one, (seed >> 32) as u8 % 4, amount),
            3 | 4 => BankOperation::transfer(one, two, amount),
            5 => BankOperation::rate("euro"),
            6 => BankOperation::sum(vec![one, two]),
            7 => BankOperation::echo(seed),
            8 if seed & 1024 == 0 => BankOperation::insist(),
            8 | 9 => BankOperation::withdraw(one, amount),
            10 => BankOperation::lie(),
            _ => BankOperation::audit(two),
        }
    }
}

fn benches() -> Vec<Bench> {
    [sequential(), uds(1, u32::MAX, Order::RoundRobin), uds(8, 2, Order::RoundRobin)]
        .into_iter()
        .map(|scheduler| Bench::with::<Bank>(scheduler, Settings::default()))
        .collect()
}

#[test]
fn a_declaration_follows_from_the_operation() {
    let bank = {
        let mut bench = Bench::new::<Bank>();
        bench.call(BankOperation::echo(1)).unwrap();
        // The same objects have the same locks in every instance.
        Locks(bench)
    };
    let declared = |operation: Vec<u8>| bank.declaration(&operation);
    let deposit = declared(BankOperation::deposit(7, 1, 5));
    assert_eq!((deposit.class, deposit.lane), (2, Lane::Declared));
    let uses: Vec<_> = deposit.locks.iter().map(|lock| (lock.mode, lock.uses)).collect();
    assert_eq!(uses, [(Mode::Write, 1), (Mode::Write, 2), (Mode::Write, 1)]);
    assert_eq!(declared(BankOperation::deposit(7, 3, 5)).locks.len(), 2, "there is no fourth shard");
    let rate = declared(BankOperation::rate("euro"));
    assert!(rate.locks.iter().all(|lock| lock.mode == Mode::Read));
    let accounts = |from: u64| declared(BankOperation::sum(vec![from, from + 1])).locks;
    assert_eq!(accounts(3)[1], accounts(4)[0]);
    assert_eq!(declared(BankOperation::echo(1)).lane, Lane::Declared);
    let withdraw = declared(BankOperation::withdraw(7, 1));
    assert_eq!((withdraw.class, withdraw.lane, withdraw.locks.len()), (1, Lane::Undeclared, 2));
    assert_eq!(withdraw.locks[0], deposit.locks[0], "row 7");
    assert_eq!(declared(BankOperation::audit(1)), Declaration::default());
    assert_eq!(declared(vec![0, 1]), Declaration::default(), "arguments that are none declare nothing");
    assert_eq!(declared(Vec::new()), Declaration::default());
}

/// Asks a service for declarations through a second instance of its objects.
struct Locks(Bench);

impl Locks {
    fn declaration(&self, operation: &[u8]) -> Declaration {
        self.0.executor.declaration(operation)
    }
}

#[test]
fn a_handler_that_declares_runs_and_one_that_lies_is_a_fault_that_names_it() {
    for mut bench in benches() {
        assert_eq!(decode::<(u64, u64)>(&bench.call(BankOperation::deposit(1, 0, 30))).0, 30);
        assert!(decode::<bool>(&bench.call(BankOperation::transfer(1, 2, 10))));
        assert_eq!(decode::<u64>(&bench.call(BankOperation::sum(vec![2, 1]))), 30);
        assert_eq!(bench.call(BankOperation::lie()), Err(Fault::NotDeclared { handler: "lie".into() }));
        assert_eq!(bench.call(BankOperation::insist()), Err(Fault::NotDeclared { handler: "insist".into() }));
        assert_eq!(decode::<u64>(&bench.call(BankOperation::sum(vec![2, 1]))), 130, "what it wrote before stays");
        assert!(!decode::<bool>(&bench.call(BankOperation::transfer(1, 1, 10))), "equal keys are an error as always");
        bench.mark();
    }
}

#[test]
fn declared_requests_need_no_flush_and_wait_for_nobody_but_those_before_them() {
    let mut bench = Bench::with::<Bank>(uds(8, 2, Order::RoundRobin), Settings::default());
    let one = bench.request(BankOperation::deposit(1, 0, 30));
    let two = bench.request(BankOperation::deposit(1, 0, 12));
    let other = bench.request(BankOperation::transfer(5, 6, 1));
    let ended: BTreeSet<_> = bench.run().into_iter().map(|(sequence, _)| sequence).collect();
    assert_eq!(ended, BTreeSet::from([one, two, other]), "and no entry was added");
    let steps = bench.take_operations();
    assert!(steps.iter().any(|operation| matches!(operation, Operation::Lock { .. })));
}

#[test]
fn a_declared_request_waits_behind_a_lock_that_a_sleeper_holds_and_wakes_who_waits() {
    for mut bench in benches() {
        let sleeper = bench.request(BankOperation::audit(1));
        let rest = |bench: &mut Bench| {
            bench.flush();
            bench.run().into_iter().map(|(sequence, _)| sequence).collect::<Vec<_>>()
        };
        assert_eq!(rest(&mut bench), []);
        let behind = bench.request(BankOperation::deposit(1, 0, 5));
        let beside = bench.request(BankOperation::transfer(2, 3, 5));
        assert_eq!(rest(&mut bench), [beside]);
        bench.tick(500);
        let mut ended = BTreeSet::new();
        for _ in 0..4 {
            ended.extend(rest(&mut bench));
        }
        assert_eq!(ended, BTreeSet::from([sleeper, behind]));
    }
}

#[test]
fn every_policy_and_schedule_gives_one_result() {
    for sample in 0..4 {
        let operations = testing::samples::<Bank>(60, 50 + sample);
        for recording in testing::check_all::<Bank>(&operations, 0..4).unwrap() {
            assert!(recording.log.len() < 500, "no livelock: {}", recording.log.len());
            let outcomes = &recording.trace.outcomes;
            assert!(outcomes.len() > 40, "most handlers end: {}", outcomes.len());
            assert!(outcomes.values().any(|outcome| matches!(outcome, Err(Fault::NotDeclared { .. }))));
        }
    }
}

#[test]
fn declared_requests_alone_give_one_result() {
    let mut operations = testing::samples::<Bank>(120, 3);
    let bank = Locks(Bench::new::<Bank>());
    operations.retain(|operation| bank.declaration(operation).lane == Lane::Declared);
    assert!(operations.len() > 60);
    testing::check_all::<Bank>(&operations, 0..3).unwrap();
}

/// Without macros, and careless: it declares, and then uses the whole Context.
struct Careless {
    value: Mutex<u64>,
}

impl State for Careless {
    fn create(objects: &mut unisono_execution::Objects, name: &str) -> Self {
        Self { value: Mutex::create(objects, &unisono_execution::Objects::path(name, "value")) }
    }
}

impl Service for Careless {
    async fn execute<'a>(&'a self, cx: &'a Context, operation: &'a [u8]) -> Result<Vec<u8>, UnknownOperation> {
        let mut value = self.value.lock(cx).await;
        value.with_mut(1, add);
        match operation {
            b"sleep" => cx.sleep(1).await,
            b"yield" => cx.yield_now().await,
            b"wait" => drop(value.wait(0).await),
            b"call" => drop(cx.call("somebody", Vec::new(), None).await),
            b"spawn" => drop(cx.spawn(|_| async {}).await),
            b"reconfigure" => cx.reconfigure(unisono_execution::Change::default()).await,
            b"try" => drop(self.value.try_lock(cx).await),
            b"time" => drop(self.value.lock_for(cx, 5).await),
            b"twice" => drop(self.value.lock_or(cx).await),
            _ => {}
        }
        Ok(Vec::new())
    }

    fn declare(&self, operation: &[u8]) -> Declaration {
        assert!(operation != b"panic", "deliberate: in declare");
        Declaration { lane: Lane::Declared, locks: vec![self.value.declared()], ..Declaration::default() }
    }

    fn handler(_: &[u8]) -> &'static str {
        "careless"
    }
}

#[test]
fn whatever_is_not_for_the_declared_lane_is_the_same_fault() {
    common::quiet();
    for scheduler in [sequential(), uds(8, 2, Order::RoundRobin)] {
        let mut bench = Bench::with::<Careless>(scheduler, Settings::default());
        for operation in ["sleep", "yield", "wait", "call", "spawn", "reconfigure", "try", "time"] {
            let outcome = bench.call(operation.into());
            assert_eq!(outcome, Err(Fault::NotDeclared { handler: "careless".into() }), "{operation}");
        }
        bench.call(b"twice".into()).expect("an error for the handler to deal with");
        bench.call(b"nothing".into()).expect("the lock is free again");
        bench.call(b"panic".into()).expect("one that declared nothing runs in rounds");
        bench.mark();
        assert_eq!((bench.executor.status().threads, bench.called.len()), (0, 0));
    }
}

/// Found by the random schedules: the round in which it was woken had no primary, and every Flush passed it over.
#[test]
fn who_is_woken_by_a_deferred_request_goes_on_with_a_flush() {
    let mut bench = Bench::with::<Bank>(uds(4, 2, Order::Quantum(2)), Settings::default());
    bench.call(BankOperation::deposit(0, 0, 10)).unwrap();
    let waiting = bench.request(BankOperation::withdraw(3, 10));
    bench.request(BankOperation::audit(1));
    bench.run();
    bench.tick(500); // the sleeper is a primary of this round, so what comes now is deferred
    bench.run();
    let notifying = bench.request(BankOperation::transfer(0, 3, 10));
    bench.run();
    let mut ended = Vec::new();
    for _ in 0..4 {
        bench.flush();
        ended.extend(bench.run().into_iter().map(|(sequence, _)| sequence));
    }
    assert_eq!(ended, [notifying, waiting]);
}

/// Found by the random schedules: everybody is parked, and the one who waits for the lock goes on at the end of the round.
#[test]
fn a_lock_that_was_released_for_a_parked_thread_says_that_a_flush_is_needed() {
    let mut bench = Bench::with::<Bank>(uds(4, 2, Order::Quantum(2)), Settings::default());
    bench.request(BankOperation::audit(3));
    let blocked = bench.request(BankOperation::withdraw(3, 0));
    bench.run();
    bench.flush();
    bench.run();
    bench.starved.clear();
    bench.tick(500);
    bench.run();
    assert_eq!(bench.starved, [(true, None)]);
    bench.flush();
    assert_eq!(bench.run().into_iter().map(|(sequence, _)| sequence).collect::<Vec<_>>(), [blocked]);
}
