//! What the tests of the policies share: `story`, scripts of single events.
#![allow(dead_code, unreachable_pub)] // each test file uses a part of it

pub mod story;

use unisono_scheduler::Parameters;

pub fn parameters(primaries: u32, steps: u32) -> Parameters {
    Parameters { primaries, steps, ..Parameters::uds() }
}
