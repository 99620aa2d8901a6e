//! A counter on machines of which some may lie: `cargo run -p unisono --example counter -- dev`.
use unisono::{Context, Mutex, State, service};

#[derive(State)]
pub(crate) struct Counter {
    value: Mutex<u64>,
}

#[service]
impl Counter {
    /// Adds, and tells the new value.
    async fn add(&self, cx: &Context, amount: u64) -> u64 {
        let mut value = self.value.lock(cx).await;
        value.with_mut(amount, |value, amount| {
            *value = value.wrapping_add(amount);
            *value
        })
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        CounterOperation::add(seed % 10)
    }
}

fn main() {
    unisono::main::<Counter>();
}
