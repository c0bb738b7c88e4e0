//! The fuzzer: libFuzzer around the target that `SASLD_FUZZ_TARGET` names. `fuzz/run` builds and starts it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

mod targets;

#[path = "../tests/model/model.rs"]
mod model;
#[allow(dead_code, reason = "the tests roll seeded dice")]
#[path = "../tests/model/schedule.rs"]
mod schedule;
#[path = "../tests/model/world.rs"]
mod world;

static TARGET: OnceLock<targets::Target> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("SASLD_FUZZ_TARGET").expect("SASLD_FUZZ_TARGET names a target");
        let target = targets::TARGETS.iter().find(|(known, _)| *known == name);
        target.unwrap_or_else(|| panic!("there is no target {name}")).1
    });
    target(data);
});
