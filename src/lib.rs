//! x
pub mod credential;
