//! sasld answers one question for a mail server: is this user who he says?
//!
//! The modules are the path of a request, in this order.
//!
//! - [`server`] accepts the mail server's connections, moves bytes and keeps time.
//! - [`wire`] turns bytes into the Dovecot auth protocol's commands, and replies into bytes.
//! - [`session`] is one connection: its handshake, its open exchanges, one reply for each, under
//!   the rules of a [`policy`].
//! - [`sasl`] holds the mechanisms, each a state machine that ends in a question or a verdict.
//! - [`passdb`] answers the question from the configured password databases.
//! - [`pam`] is what one of them, a client of the program `sasld-pam`, says to it.
//! - [`secrets`] is the file that one of them reads and the admin commands write.
//! - [`credential`] is what is stored for a user, and whether a password matches it.
//!
//! Beside the path, [`tally`] counts and remembers the attempts, and [`control`] answers root's questions about them and
//! about the running daemon.
//!
//! `credential`, `sasl`, `wire`, `policy` and `session` are pure: no sockets, files, clocks or
//! randomness of their own, so that a whole login runs inside a unit test. `docs/flow.md` follows
//! one request hop by hop.

pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod credential;
pub mod daemon;
pub mod pam;
pub mod passdb;
pub mod policy;
pub mod sasl;
pub mod secrets;
pub mod server;
pub mod session;
pub mod tally;
pub mod telemetry;
pub mod wire;
