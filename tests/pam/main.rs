//! The program `sasld-pam` with real PAM stacks: what it answers, what it refuses to be asked, and that nothing a
//! module does costs more than the one login.
//!
//! Services lie in private folders. Tests with real local users need root and make users called `sasldt…`.

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../postfix/postfix.rs"]
mod postfix;

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../postfix/smtp.rs"]
mod smtp;

mod calamities;
mod daemon;
mod harness;
mod machine;
mod mail;
mod program;
mod socket;
mod stacks;
mod valgrind;
