//! What tests of the built daemon share: starting it in a private directory, and reading its log.

pub mod log;
pub mod sasld;
pub mod skip;
