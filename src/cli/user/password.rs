//! New passwords: where they come from, in which schemes they are stored, and what a thief of the file would have.

use clap::Args;
use zeroize::Zeroizing;

use super::{UserError, UserSettings, generate};
use crate::cli::prompt::PasswordPrompt;
use crate::credential::{self, Password, Scheme, Verifier, Verifiers};
use crate::sasl::Mechanism;
use crate::secrets;

/// Arguments of `add` and `passwd`.
#[derive(Debug, Args)]
pub struct PasswordArgs {
    /// The user
    pub name: String,

    /// Catches a password given as an argument
    #[arg(hide = true)]
    pub surplus: Vec<String>,

    #[command(flatten)]
    pub schemes: SchemeArgs,

    /// Read the password from standard input
    ///
    /// One newline at its end is removed, nothing else.
    #[arg(long, conflicts_with = "generate")]
    pub password_stdin: bool,

    /// Make a random password and print it once
    ///
    /// 80 random bits, as five groups of letters that can be read aloud. With --quiet nothing else is printed.
    #[arg(long)]
    pub generate: bool,
}

/// How passwords are stored.
#[derive(Debug, Args)]
pub struct SchemeArgs {
    /// How to store the password; several schemes side by side if repeated
    ///
    /// From best to worst: ARGON2ID, CRYPT (yescrypt), ARGON2I, BLF-CRYPT, SHA512-CRYPT, SHA256-CRYPT, SSHA512, SSHA256,
    /// CRAM-MD5, PLAIN. PLAIN and LOGIN logins work with each of them, CRAM-MD5 logins only with CRAM-MD5 and PLAIN.
    /// Default: ARGON2ID, and CRAM-MD5 beside it if the configuration offers that mechanism.
    #[arg(long = "scheme", value_name = "SCHEME")]
    pub schemes: Vec<Scheme>,
}

impl SchemeArgs {
    /// Those that were asked for, or those that serve every mechanism.
    pub(super) fn chosen(&self, settings: &UserSettings<'_>) -> Result<Vec<Scheme>, UserError> {
        let schemes = self.schemes.as_slice();
        if let Some(twice) = (1..schemes.len()).find(|at| schemes[..*at].contains(&schemes[*at])) {
            return Err(UserError::Usage(format!("--scheme {} is given twice", schemes[twice])));
        }
        Ok(match schemes {
            [] if settings.mechanisms.contains(&Mechanism::CramMd5) => {
                vec![Scheme::Argon2id, Scheme::CramMd5]
            }
            [] => vec![Scheme::Argon2id],
            chosen => chosen.to_vec(),
        })
    }
}

impl PasswordArgs {
    /// One name and nothing that could be a password.
    pub(super) fn refuse_surplus(&self) -> Result<(), UserError> {
        if self.surplus.is_empty() {
            return Ok(());
        }
        let reason = "one name, please, and no password: arguments can be read by every local user in the process list \
                      and stay in the shell's history; the password is asked for, or read with --password-stdin";
        Err(UserError::Usage(reason.to_owned()))
    }

    /// The new password, and itself as text if it was made here.
    pub(super) fn obtain(
        &self,
        name: &str,
        prompt: &mut dyn PasswordPrompt,
    ) -> Result<(Password, Option<Zeroizing<String>>), UserError> {
        if self.generate {
            let text = generate::password()?;
            return Ok((Password::new(text.as_bytes()), Some(text)));
        }
        let password = if self.password_stdin { prompt.read_stdin()? } else { ask_twice(name, prompt)? };
        if password.is_empty() {
            return Err(UserError::Password("the password is empty"));
        }
        if !password.is_possible() {
            return Err(UserError::Password("the password contains a NUL byte or is longer than 1024 bytes"));
        }
        Ok((password, None))
    }
}

fn ask_twice(name: &str, prompt: &mut dyn PasswordPrompt) -> Result<Password, UserError> {
    let name = secrets::escape(name.as_bytes());
    let first = prompt.ask(&format!("Password for {name}: "))?;
    let second = prompt.ask("The same again: ")?;
    // Both come from one person at one terminal: the time this takes tells nobody anything.
    if first.as_bytes() != second.as_bytes() {
        return Err(UserError::Password("the two passwords differ"));
    }
    Ok(first)
}

/// A verifier in each of these schemes, which are at least one and none twice.
pub(super) fn derive_all(schemes: &[Scheme], password: &Password) -> Result<Verifiers, UserError> {
    let mut verifiers: Option<Verifiers> = None;
    for scheme in schemes {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|error| UserError::Random(error.to_string()))?;
        let verifier = credential::derive(*scheme, password, &salt, None)?;
        match &mut verifiers {
            None => verifiers = Some(verifier.into()),
            Some(verifiers) => verifiers.add(verifier).expect("no scheme is in the list twice"),
        }
    }
    Ok(verifiers.expect("there is at least one scheme"))
}

/// The schemes of a user's verifiers, in the order of the field.
pub(super) fn schemes_of(verifiers: &Verifiers) -> Vec<Scheme> {
    verifiers.iter().map(Verifier::scheme).collect()
}

/// Whether there is a verifier in each of these schemes, and none else.
pub(super) fn are_of(verifiers: &Verifiers, schemes: &[Scheme]) -> bool {
    let stored = schemes_of(verifiers);
    stored.len() == schemes.len() && schemes.iter().all(|scheme| stored.contains(scheme))
}

/// Whether all of them are made of this password. Takes as long as their hashes.
pub(super) fn are_for(verifiers: &Verifiers, password: &Password) -> bool {
    verifiers.iter().all(|verifier| verifier.verify(password).is_some())
}

/// `ARGON2ID and CRAM-MD5`.
pub(super) fn in_words(schemes: &[Scheme]) -> String {
    let names: Vec<&str> = schemes.iter().map(|scheme| scheme.name()).collect();
    names.join(" and ")
}

/// In plain words, what storing passwords like this means.
pub(super) fn notes(schemes: &[Scheme], settings: &UserSettings<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |applies: bool, text: &str| notes.extend(applies.then(|| text.to_owned()));
    let cram_md5 = schemes.contains(&Scheme::CramMd5);
    let plain = schemes.contains(&Scheme::Plain);
    note(plain, "PLAIN stores the password itself: whoever reads the file has it");
    note(schemes.contains(&Scheme::BlfCrypt), "bcrypt looks at the first 72 bytes of a password only");
    note(
        cram_md5,
        "a stolen CRAM-MD5 verifier is not the password, but it is enough to log in by CRAM-MD5 as\n\
         this user, and passwords can be tried against it offline at the full speed of MD5,\n\
         whatever slow hash stands beside it",
    );
    note(
        settings.mechanisms.contains(&Mechanism::CramMd5) && !cram_md5 && !plain,
        "CRAM-MD5 is offered but cannot work for this user; it would with --scheme CRAM-MD5 as well",
    );
    notes
}
