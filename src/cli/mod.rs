//! The commands.

pub mod prompt;
pub mod user;
