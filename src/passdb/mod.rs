//! Password databases: who can say whether a password is right.
//!
//! A [`Chain`] asks the configured passdbs in order. Found and right is yes, found and wrong is no (unless that passdb
//! says `continue_on_refusal`), found nowhere is no. But a passdb that does not work could have known better: unless
//! another one says yes, there is no verdict then ([`Outage`]), never a refusal.
//!
//! A user whom nobody knows costs the same work as a known one with a wrong password: the first secrets file picks a decoy.
//!
//! What a passdb reports about itself (loaded, broken lines, out of order) goes to the log under its own path.
#![forbid(unsafe_code)]

pub mod fair_queue;
pub mod hash_pool;
pub mod pam;
pub mod secrets_file;

pub use hash_pool::HashPool;
pub use pam::Pam;
pub use secrets_file::SecretsFile;

use crate::sasl::{Answer, Outage, Question, Refusal};
use crate::session::{Moment, Origin};
use std::sync::Arc;

/// The configured passdbs, in order.
pub struct Chain {
    passdbs: Vec<Link>,
}

/// One passdb and what follows from its refusals.
pub struct Link {
    /// The passdb.
    pub source: Source,
    /// Ask the next one when this one refuses.
    pub continue_on_refusal: bool,
}

/// A passdb.
pub enum Source {
    /// A file of users and their verifiers.
    SecretsFile(Arc<SecretsFile>),
    /// The system's own users.
    Pam(Arc<Pam>),
}

/// What one passdb says.
#[derive(Debug)]
pub enum Finding {
    /// It has the user, and this is the answer.
    Found(Answer),
    /// It does not have the user.
    NotFound,
    /// It does not work.
    Out(Outage),
}

impl Chain {
    /// A chain of these, in this order.
    #[must_use]
    pub fn new(passdbs: Vec<Link>) -> Self {
        Self { passdbs }
    }

    /// Its passdbs, in order.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.passdbs
    }

    /// Its secrets files, in order.
    pub fn files(&self) -> impl Iterator<Item = &Arc<SecretsFile>> {
        self.passdbs.iter().filter_map(|link| match &link.source {
            Source::SecretsFile(file) => Some(file),
            Source::Pam(_) => None,
        })
    }

    /// Answers a mechanism's question.
    ///
    /// # Errors
    /// [`Outage`]: there is no verdict.
    pub async fn answer(&self, question: &Question, origin: &Origin, now: Moment) -> Result<Answer, Outage> {
        let mut refused = None;
        let mut out = None;
        for Link { source, continue_on_refusal } in &self.passdbs {
            let finding = match source {
                Source::SecretsFile(file) => file.find(question, origin, now).await,
                Source::Pam(pam) => pam.find(question, origin, now).await,
            };
            match finding {
                Finding::Found(answer) if answer.is_refusal() => {
                    refused = Some(answer);
                    if !continue_on_refusal {
                        break;
                    }
                }
                Finding::Found(answer) => return Ok(answer),
                Finding::NotFound => {}
                Finding::Out(outage) => out = Some(outage),
            }
        }
        match (out, refused) {
            (Some(outage), _) => Err(outage),
            (None, Some(answer)) => Ok(answer),
            (None, None) => self.decoy(question, origin).await,
        }
    }

    /// The answer about a user whom no passdb has, at the price of one whom one has.
    async fn decoy(&self, question: &Question, origin: &Origin) -> Result<Answer, Outage> {
        match self.files().next() {
            Some(file) => file.decoy(question, origin).await,
            None => Ok(Answer::Verdict(Err(Refusal::UnknownUser))),
        }
    }
}

impl Answer {
    /// Whether it already stands that the user is not let in. (A CRAM-MD5 response has yet to be checked otherwise.)
    fn is_refusal(&self) -> bool {
        match self {
            Self::Verdict(verdict) => verdict.is_err(),
            Self::VouchedAs(..) => false,
            Self::Credential(credential) => credential.refusal.is_some(),
        }
    }
}
