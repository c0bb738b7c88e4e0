//! The program `sasld-pam` with real PAM stacks: what it answers, what it refuses to be asked, and that nothing a
//! module does costs more than the one login.
//!
//! Services lie in private folders. Tests with real local users need root and make users called `sasldt…`.

mod calamities;
mod harness;
mod program;
mod stacks;
