//! Services that are not deterministic, and how `testing` names the handler that went astray, not those that it led
//! astray.
#![allow(missing_docs)]

mod common;

use common::sequential;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use unisono_execution::testing::{self, Difference};
use unisono_execution::{Context, Mutex, Table};
use unisono_macros::{State, service};

/// What differs, by handler and request.
fn named(difference: &Difference) -> (&'static str, String) {
    let culprit = difference.culprit.as_ref().unwrap_or_else(|| panic!("no handler named: {difference}"));
    (culprit.handler, format!("{:?}", culprit.request))
}

#[derive(State)]
#[state(crate = unisono_execution)]
struct Shop {
    stock: Table<String, u64>,
    orders: Mutex<Vec<String>>,
}

#[service(crate = unisono_execution)]
impl Shop {
    async fn restock(&self, cx: &Context, article: String, count: u64) -> u64 {
        self.stock.lock(cx, article).await.with_mut(count, |stock, count| {
            *stock += count;
            *stock
        })
    }

    /// The mistake: articles that occur twice are told by a map, and the map is walked through.
    async fn order(&self, cx: &Context, articles: Vec<String>) -> u64 {
        let mut counts: HashMap<String, u64> = HashMap::new();
        for article in articles {
            *counts.entry(article).or_default() += 1;
        }
        let mut taken = 0;
        for (article, count) in counts {
            taken += self.stock.lock(cx, article).await.with_mut(count, |stock, count| {
                let taken = count.min(*stock);
                *stock -= taken;
                taken
            });
        }
        taken
    }

    /// The same mistake, which only shows in the state.
    async fn note(&self, cx: &Context, articles: Vec<String>) {
        let unique: HashMap<String, ()> = articles.into_iter().map(|article| (article, ())).collect();
        let list: Vec<String> = unique.into_keys().collect();
        self.orders.lock(cx).await.with_mut(list, |orders, list| *orders = list);
    }

    /// Does nothing wrong.
    async fn first(&self, cx: &Context) -> Option<String> {
        self.orders.lock(cx).await.with((), |orders, ()| orders.first().cloned())
    }

    /// Does nothing wrong either, and stands before whoever misleads it.
    async fn first_when_there_is_one(&self, cx: &Context) -> String {
        let mut orders = self.orders.lock(cx).await;
        loop {
            if let Some(first) = orders.with((), |orders, ()| orders.first().cloned()) {
                return first;
            }
            orders = orders.wait_for(0, 1_000).await.0;
        }
    }
}

fn articles() -> Vec<String> {
    (0..30).map(|number| format!("article {number}")).collect()
}

#[test]
fn a_hidden_walk_through_a_hash_map_is_found_and_its_handler_named() {
    let mut operations: Vec<Vec<u8>> =
        articles().into_iter().map(|article| ShopOperation::restock(article, 3)).collect();
    operations.push(ShopOperation::order(articles()));
    operations.push(ShopOperation::first());
    let difference = testing::check::<Shop>(sequential, &operations, 0..1).unwrap_err();
    assert_eq!(named(&difference).0, "order");
    let report = difference.to_string();
    assert!(report.starts_with("handler `order` of request "), "{report}");
    assert!(report.contains("it asked to lock stock[article "), "{report}");
    assert!(report.contains("HashMap") && report.contains("seed 0"), "{report}");
}

#[test]
fn who_reads_what_another_one_wrote_is_not_to_blame_even_if_it_came_earlier() {
    let operations =
        [ShopOperation::first_when_there_is_one(), ShopOperation::note(articles()), ShopOperation::first()];
    for difference in [
        testing::check::<Shop>(sequential, &operations, 0..1).unwrap_err(),
        testing::check_all::<Shop>(&operations, 0..1).unwrap_err(),
    ] {
        assert_eq!(named(&difference).0, "note", "{difference}");
        assert!(difference.what.contains("left another value in orders"), "{difference}");
    }
}

#[test]
fn a_service_that_does_nothing_wrong_is_not_accused() {
    let operations: Vec<Vec<u8>> = articles().into_iter().map(|article| ShopOperation::restock(article, 3)).collect();
    testing::check_all::<Shop>(&operations, 0..2).unwrap();
}

#[derive(State)]
#[state(crate = unisono_execution)]
struct Diary {
    entries: Mutex<Vec<u128>>,
    count: Mutex<u64>,
}

static OUTSIDE: AtomicU64 = AtomicU64::new(0);

#[service(crate = unisono_execution)]
impl Diary {
    /// The mistake: the clock of the machine.
    async fn write(&self, cx: &Context) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        self.entries.lock(cx).await.with_mut(now.to_string(), |entries, now| entries.extend(now.parse::<u128>()));
    }

    /// As it should be.
    async fn count(&self, cx: &Context) -> (u64, u64) {
        let count = self.count.lock(cx).await.with_mut((), |count, ()| {
            *count += 1;
            *count
        });
        (count, cx.now().0)
    }

    /// The mistake: state outside of the service.
    async fn ask(&self, _cx: &Context) -> u64 {
        OUTSIDE.fetch_add(1, Ordering::Relaxed)
    }

    /// The mistake, in a child.
    async fn delegate(&self, cx: &Context) {
        let count = self.count.clone();
        let child = cx.spawn(move |cx| async move {
            let by = OUTSIDE.fetch_add(1, Ordering::Relaxed);
            count.lock(&cx).await.with_mut(by, |count, by| *count += by);
        });
        child.await.expect("few children").join().await;
    }
}

#[test]
fn a_read_of_the_system_clock_is_found_and_its_handler_named() {
    let operations = [DiaryOperation::count(), DiaryOperation::write(), DiaryOperation::count()];
    for seed in 0..3 {
        let difference = testing::check_all::<Diary>(&operations, seed..seed + 1).unwrap_err();
        assert_eq!(named(&difference).0, "write", "{difference}");
        assert!(difference.what.contains("left another value in entries"), "{difference}");
        assert!(difference.hint.contains("does it read a clock"), "{difference}");
        assert!(difference.to_string().contains("policy \"sequential\""), "{difference}");
    }
}

#[test]
fn a_result_that_differs_is_enough() {
    let difference =
        testing::check::<Diary>(sequential, &[DiaryOperation::count(), DiaryOperation::ask()], 0..1).unwrap_err();
    assert_eq!(named(&difference).0, "ask");
    assert!(difference.what.contains("it came to result \""), "{difference}");
}

#[test]
fn a_child_is_named_with_its_path() {
    let difference = testing::check::<Diary>(sequential, &[DiaryOperation::delegate()], 0..1).unwrap_err();
    assert_eq!(named(&difference), ("delegate", "1.0".to_owned()));
    assert_eq!(difference.culprit.unwrap().path, [1]);
}
