//! What tests of the built daemon share: starting it in a private directory, reading its log, counting.

pub mod log;
pub mod sasld;
pub mod skip;
pub mod soak;
