//! Stories about whole replicas, over a plain total order and a small world.

mod admission;
mod aphousia;
mod instant;
mod marks;
mod outside;
mod sessions;
mod world;

use crate::MarkRule;
use crate::testing::membership;
use world::World;

const MARKS: MarkRule = MarkRule { decisions: 20, microseconds: 5_000_000 };

fn world(seed: u64) -> World<instant::Instant> {
    World::new(seed, membership(3), MARKS)
}
