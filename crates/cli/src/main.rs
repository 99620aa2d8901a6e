//! The `unisono` program: the commands of `unisono::cli` over the Redis-compatible service and its gateway.

use unisono::gateway::Setup;
use unisono_redis::{Gateway, Redis, gateway::Settings};

fn main() {
    unisono::cli::run::<Redis, Gateway>(gateway);
}

fn gateway(setup: &Setup) -> Gateway {
    let settings = Settings { operation_bytes: setup.operation_bytes, ..Settings::default() };
    Gateway::new(settings, setup.nonce)
}
