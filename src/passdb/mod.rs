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
pub mod trail;

pub use hash_pool::HashPool;
pub use pam::Pam;
pub use secrets_file::SecretsFile;
pub use trail::Trail;

use crate::sasl::{Answer, Outage, Question, Refusal};
use crate::secrets::Closed;
use crate::session::{Moment, Origin};
use std::sync::Arc;
use trail::{Passed, Said};

/// The configured passdbs, in order.
pub struct Chain {
    passdbs: Vec<Link>,
    /// What they are called in a [`Trail`].
    names: Arc<[Box<str>]>,
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
    /// It has the user, nobody can log in with the entry, and this is the answer.
    Closed(Closed, Answer),
    /// It does not have the user.
    NotFound,
    /// It cannot have the user, or not say: for the answer the same as not having him.
    Passed(Passed),
    /// It does not work.
    Out(Outage),
}

impl Chain {
    /// A chain of these, in this order.
    #[must_use]
    pub fn new(passdbs: Vec<Link>) -> Self {
        let names = passdbs.iter().map(|link| link.source.name()).collect();
        Self { passdbs, names }
    }

    /// A trail for one question to [`answer`](Self::answer).
    #[must_use]
    pub fn trail(&self) -> Trail {
        Trail::new(Arc::clone(&self.names))
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

    /// Answers a mechanism's question, and leaves in `trail` what each passdb said.
    ///
    /// # Errors
    /// [`Outage`]: there is no verdict.
    pub async fn answer(
        &self,
        question: &Question,
        origin: &Origin,
        now: Moment,
        trail: &Trail,
    ) -> Result<Answer, Outage> {
        let mut refused = None;
        let mut out = None;
        for (place, Link { source, continue_on_refusal }) in self.passdbs.iter().enumerate() {
            trail.note(place, Said::Nothing);
            let finding = match source {
                Source::SecretsFile(file) => file.find(question, origin, now).await,
                // Apart, so that who never asks it carries no room for it about.
                Source::Pam(pam) => Box::pin(pam.find(question, origin, now)).await,
            };
            trail.note(place, Said::from(&finding));
            match finding {
                Finding::Found(answer) | Finding::Closed(_, answer) if answer.is_refusal() => {
                    refused = Some(answer);
                    if !continue_on_refusal {
                        break;
                    }
                }
                Finding::Found(answer) | Finding::Closed(_, answer) => return Ok(answer),
                Finding::NotFound | Finding::Passed(_) => {}
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

impl Source {
    /// What it is called where an operator reads it: its key in the configuration, and which one.
    #[must_use]
    pub fn name(&self) -> Box<str> {
        match self {
            Self::SecretsFile(file) => format!("secrets_file {}", file.path().display()).into(),
            Self::Pam(pam) => format!("pam {}", pam.settings().worker.service).into(),
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

#[cfg(test)]
mod tests;
