//! A print shop: orders that wait for a clerk, a clerk who waits for orders, two presses, and a price from outside.
//!
//! ```text
//!   place ──> inbox ──(condition variable)──> serve ── asks "rates" outside, at most 300 ms
//!                                               │ ── a child per sheet, at most two at a press (semaphore)
//!   receipt <──(condition variable of its row)──┘ ── joins them, files the receipt
//! ```
//! Run it: `cargo run -p unisono --example workflow -- dev`.

use std::collections::VecDeque;
use unisono::borsh::{BorshDeserialize, BorshSerialize};
use unisono::oracle::{Call, Said};
use unisono::{Bytes, CallError, Context, Input, Mutex, Semaphore, State, Table, service};

/// Microseconds that a sheet takes.
const SHEET: u64 = 500;

/// Microseconds that an order may wait for the rate of its currency.
const PATIENCE: u64 = 300_000;

/// Sheets to be printed, paid in some currency.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Input)]
#[borsh(crate = "unisono::borsh")]
pub(crate) struct Order {
    pub(crate) number: u64,
    pub(crate) sheets: u8,
    pub(crate) currency: String,
}

/// What became of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Input)]
#[borsh(crate = "unisono::borsh")]
pub(crate) enum Receipt {
    /// Nobody has served it yet.
    #[default]
    Open,
    /// Printed, for so much.
    Paid(u64),
    /// Sent away, and why.
    Refused(String),
}

#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono::borsh")]
struct Inbox {
    placed: u64,
    waiting: VecDeque<Order>,
}

impl Inbox {
    fn place(&mut self, mut order: Order) -> u64 {
        self.placed += 1;
        order.number = self.placed;
        self.waiting.push_back(order);
        self.placed
    }

    fn next(&mut self, (): ()) -> Option<Order> {
        self.waiting.pop_front()
    }
}

#[derive(State)]
pub(crate) struct Shop {
    inbox: Mutex<Inbox>,
    presses: Semaphore<2>,
    receipts: Table<u64, Receipt>,
}

#[service]
impl Shop {
    /// Places an order; its number.
    async fn place(&self, cx: &Context, sheets: u8, currency: String) -> u64 {
        let mut inbox = self.inbox.lock(cx).await;
        let number = inbox.with_mut(Order { number: 0, sheets, currency }, Inbox::place);
        inbox.notify_one(0);
        number
    }

    /// A clerk serves the next order; who has waited for one for `patience` microseconds goes home.
    async fn serve(&self, cx: &Context, patience: u64) -> Option<u64> {
        let mut inbox = self.inbox.lock(cx).await;
        let order = loop {
            if let Some(order) = inbox.with_mut((), Inbox::next) {
                break order;
            }
            let (again, late) = inbox.wait_for(0, patience).await;
            if late {
                return None;
            }
            inbox = again;
        };
        drop(inbox); // others place and serve meanwhile
        let receipt = match cx.call("rates", order.currency.clone().into_bytes(), Some(PATIENCE)).await {
            Ok(rate) => self.print(cx, order.sheets, &rate).await,
            Err(CallError::TimedOut) => Receipt::Refused("nobody tells the rate".into()),
            Err(CallError::Refused(reason)) => Receipt::Refused(reason.to_string()),
        };
        let mut row = self.receipts.lock(cx, order.number).await;
        row.with_mut(receipt, |row, receipt| *row = receipt);
        row.notify_all(0);
        Some(order.number)
    }

    /// Waits until the order is served.
    async fn receipt(&self, cx: &Context, number: u64) -> Receipt {
        let mut row = self.receipts.lock(cx, number).await;
        loop {
            match row.with((), |row, ()| row.clone()) {
                Receipt::Open => row = row.wait(0).await,
                receipt => return receipt,
            }
        }
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        let currency = ["EUR", "USD"][(seed >> 8) as usize % 2].to_owned();
        if seed.is_multiple_of(2) {
            ShopOperation::place((seed >> 16) as u8 % 5, currency)
        } else {
            ShopOperation::serve(1_000)
        }
    }
}

impl Shop {
    /// Prints all sheets, two at a time.
    async fn print(&self, cx: &Context, sheets: u8, rate: &[u8]) -> Receipt {
        let Some(rate) = std::str::from_utf8(rate).ok().and_then(|text| text.parse::<u64>().ok()) else {
            return Receipt::Refused("a rate that is no number".into());
        };
        let mut printing = Vec::new();
        for _ in 0..sheets {
            let presses = self.presses.clone();
            let sheet = cx.spawn(move |cx| async move {
                presses.acquire(&cx).await;
                cx.sleep(SHEET).await;
                presses.release(&cx).await;
                1u64
            });
            printing.push(sheet.await.expect("an order has at most 255 sheets"));
        }
        let mut printed = 0;
        for sheet in printing {
            printed += sheet.join().await;
        }
        Receipt::Paid(printed * rate)
    }
}

/// What a sheet costs, in cents of a currency. Every replica asks; all must be told the same, so a real one rounds.
pub(crate) async fn rate(_call: Call, currency: Bytes) -> Said {
    match &currency[..] {
        b"EUR" => Ok(b"10".to_vec()),
        b"USD" => Ok(b"12".to_vec()),
        b"SLOW" => std::future::pending().await, // an exchange that does not answer
        _ => Err("no such currency".into()),
    }
}

fn main() {
    unisono::main_with::<Shop>(|replica| {
        replica.oracle("rates", rate);
    });
}
