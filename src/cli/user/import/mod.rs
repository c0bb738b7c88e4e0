//! `sasld user import`: users from Dovecot's passwd-files, Cyrus' sasldb, lists and tables.
//!
//! The parsers ([`dovecot`], [`list`], [`table`], [`sasldb`]) turn bytes into [`Foreign`] users and know nothing of
//! files; [`source`] reads the file or has Berkeley DB's own program read it; [`plan`] decides what becomes of each
//! user. All of them end up in one rewrite, or in none: without `--apply` the plan is only shown. Whoever cannot be
//! taken over is named with the reason, and the exit code is then 1.

mod dovecot;
mod list;
mod plan;
mod sasldb;
mod source;
mod table;

use core::fmt;
use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;
use zeroize::Zeroizing;

use super::password::{SchemeArgs, derive_all, notes, schemes_of};
use super::voice::Report;
use super::{UserError, UserSettings, Voice, rewrite};
use crate::cli::Exit;
use crate::credential::{Password, Scheme, Verifier, VerifierError, Verifiers};
use crate::secrets::{self, LoadError, Missing, NewLine, OldLine, SecretsEditor, StoreError};
use plan::{Fate, Planned};

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file to read, or - for standard input
    #[arg(value_name = "SOURCE")]
    source: PathBuf,

    /// What the file is; found out if it can only be one thing
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// The scheme of passwords without {SCHEME} in front of them
    ///
    /// PLAIN says that they are the passwords themselves, CRYPT that they are what crypt(3) makes, which is Dovecot's
    /// default. There is no default here: a hash taken for a password would let in whoever knows the hash.
    #[arg(long, value_name = "SCHEME")]
    default_scheme: Option<Scheme>,

    #[command(flatten)]
    schemes: SchemeArgs,

    /// What becomes of the realm in sasldb: alice@example.com, or alice
    ///
    /// Default: drop it if the file has only one, keep it otherwise.
    #[arg(long, value_enum)]
    realm: Option<Realm>,

    /// Take users who are there already from this file, too
    #[arg(long)]
    replace: bool,

    /// Do it
    #[arg(long)]
    apply: bool,
}

/// What can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Dovecot's passwd-file: name:{SCHEME}data:uid:gid:gecos:home:shell:extra fields
    Dovecot,
    /// Cyrus SASL's sasldb2, or what db5.3_dump -p makes of it
    Sasldb,
    /// Lines of name:password or name:hash, as Exim, Courier, chpasswd and /etc/shadow have them
    List,
    /// A table with commas and a header line: user,password and maybe scheme
    Csv,
}

/// What to do with realms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Realm {
    /// alice@example.com
    Keep,
    /// alice
    Drop,
}

/// A user of another file.
#[derive(Debug)]
struct Foreign {
    /// Where he stands there, counted from 1.
    line: Option<usize>,
    /// As it is written there.
    name: Vec<u8>,
    /// What is known of his password, or why it is of no use.
    stored: Result<Stored, String>,
    /// What stands behind the password in a passwd-file, beginning with a colon. `None` where there is no such thing.
    rest: Option<Vec<u8>>,
}

/// What a foreign file knows of a password.
enum Stored {
    /// The password itself: it will be stored as new passwords are.
    Plain(Password),
    /// A password field that sasld can read as it is.
    Field(Zeroizing<Vec<u8>>),
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(***)",
            Self::Field(_) => "Field(***)",
        })
    }
}

impl Stored {
    /// A password field, `{SCHEME}` in front.
    fn of_field(field: &[u8]) -> Result<Self, String> {
        let verifiers = Verifiers::parse(field).map_err(|error| {
            let cure = match error {
                VerifierError::UnknownScheme(_) | VerifierError::Unusable { .. } => {
                    "; a new password is needed"
                }
                _ => "",
            };
            format!("{}{cure}", secrets::escape(error.to_string().as_bytes()))
        })?;
        match only(&verifiers).and_then(Verifier::plaintext) {
            Some(password) => Ok(Self::Plain(password)),
            None => Ok(Self::Field(Zeroizing::new(field.to_vec()))),
        }
    }

    /// Data of a scheme that somebody named.
    fn of_scheme(scheme: Scheme, data: &[u8]) -> Result<Self, String> {
        if scheme == Scheme::Plain {
            let password = Password::new(data);
            return if password.is_possible() {
                Ok(Self::Plain(password))
            } else {
                Err("this password is empty, contains a NUL byte or is longer than 1024 bytes".to_owned())
            };
        }
        let mut field = Zeroizing::new(Vec::with_capacity(data.len() + scheme.name().len() + 2));
        [b"{", scheme.name().as_bytes(), b"}", data].iter().for_each(|part| field.extend_from_slice(part));
        Self::of_field(&field)
    }

    /// A string of crypt(3) without `{CRYPT}`, if it is one: good, or of a kind that sasld does not check.
    fn of_crypt(data: &[u8]) -> Option<Result<Self, String>> {
        let id = data.strip_prefix(b"$")?;
        let end = id.iter().take(8).position(|byte| *byte == b'$')?;
        id[..end].iter().all(u8::is_ascii_alphanumeric).then(|| Self::of_scheme(Scheme::Crypt, data))
    }
}

fn only(verifiers: &Verifiers) -> Option<&Verifier> {
    let mut all = verifiers.iter();
    all.next().filter(|_| all.next().is_none())
}

/// What a parser found.
#[derive(Debug, Default)]
struct Found {
    users: Vec<Foreign>,
    notes: Vec<String>,
}

pub(super) fn run(
    args: &ImportArgs,
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
) -> Result<Exit, UserError> {
    let schemes = args.schemes.chosen(settings)?;
    let Found { users, notes: mut remarks } = source::read(args)?;
    let text = match secrets::read_text(settings.path, settings.names.lowercase) {
        Err(StoreError::Load(LoadError::Missing { .. })) => None,
        text => Some(text?),
    };
    let replace = args.replace.then_some(schemes.as_slice());
    let planned = plan::plan(users, text.as_ref(), replace, settings);
    let wanted = planned.iter().filter(|planned| planned.fate.writes()).count();
    let installed =
        if args.apply && wanted > 0 { write(&planned, text.as_ref(), &schemes, settings)? } else { None };
    let left_out = planned.iter().filter(|planned| planned.fate == Fate::LeftOut).count();
    if planned.iter().any(|planned| planned.fate.writes() && matches!(planned.stored, Some(Stored::Plain(_))))
    {
        remarks.extend(notes(&schemes, settings));
    }
    let mut report = Report { installed, notes: remarks, ..Report::default() };
    describe(&planned, args, &schemes, &mut report);
    if voice.quiet && !voice.json {
        for planned in planned.iter().filter(|planned| planned.fate == Fate::LeftOut) {
            writeln!(voice.err, "{}", planned.sentence(args.apply, &schemes))?;
        }
    }
    let followed = report.tell(settings, voice)?;
    Ok(if left_out > 0 { Exit::No } else { followed })
}

/// All of them in one rewrite. What takes time happens before the lock.
fn write(
    planned: &[Planned],
    seen: Option<&SecretsEditor>,
    schemes: &[Scheme],
    settings: &UserSettings<'_>,
) -> Result<Option<secrets::Fingerprint>, UserError> {
    let fields = derive_fields(planned, schemes)?;
    let lines: Vec<NewLine<'_>> = planned
        .iter()
        .zip(&fields)
        .filter_map(|(planned, field)| {
            let field = field.as_deref()?;
            Some(NewLine { name: &planned.name, field, rest: planned.rest.as_deref() })
        })
        .collect();
    let edited = rewrite(settings, Missing::Create, |editor| {
        // The plan is about those lines; what became of others meanwhile stays.
        let (then, now) = (seen.map(SecretsEditor::users).unwrap_or_default(), editor.users());
        let as_planned = |line: &NewLine<'_>| {
            let [then, now] = [&then, &now].map(|users| users.get(line.name.as_bytes()).map(OldLine::text));
            then == now
        };
        if !lines.iter().all(as_planned) {
            return Err(StoreError::Changed { path: settings.path.into() }.into());
        }
        drop(now);
        Ok(editor.merge(&lines)?)
    })?;
    Ok(edited.installed)
}

/// The password fields of those who are written. Slow hashes are made on every processor.
fn derive_fields(
    planned: &[Planned],
    schemes: &[Scheme],
) -> Result<Vec<Option<Zeroizing<Vec<u8>>>>, UserError> {
    let field = |planned: &Planned| match &planned.stored {
        Some(Stored::Plain(password)) if planned.fate.writes() => {
            let field = derive_all(schemes, password)?.encode();
            Ok(Some(Zeroizing::new(field.as_bytes().to_vec())))
        }
        Some(Stored::Field(field)) if planned.fate.writes() => Ok(Some(field.clone())),
        _ => Ok(None),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = planned.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = planned
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(field).collect::<Result<Vec<_>, UserError>>()))
            .collect();
        let mut fields = Vec::with_capacity(planned.len());
        for part in parts {
            // No memory for a hash is the one panic that is known of.
            let ended =
                part.join().map_err(|_| UserError::Unavailable("no memory for the hashes".to_owned()))?;
            fields.extend(ended?);
        }
        Ok(fields)
    })
}

fn describe(planned: &[Planned], args: &ImportArgs, schemes: &[Scheme], report: &mut Report) {
    let mut totals: BTreeMap<&str, usize> = BTreeMap::new();
    for fate in [Fate::Added, Fate::Replaced, Fate::Unchanged, Fate::LeftOut] {
        totals.insert(fate.name(), planned.iter().filter(|planned| planned.fate == fate).count());
    }
    for planned in planned {
        report.users.push((planned.sentence(args.apply, schemes), planned.json(schemes)));
    }
    report.summary.push(format!(
        "{} users in {}: {} {}, {} {}, {} there already, {} left out",
        planned.len(),
        args.source.display(),
        totals["added"],
        if args.apply { "added" } else { "to add" },
        totals["replaced"],
        if args.apply { "replaced" } else { "to replace" },
        totals["unchanged"],
        totals["left_out"],
    ));
    if !args.apply {
        report.summary.push("nothing was written; --apply does it".to_owned());
    }
    report.fields.insert("applied".into(), args.apply.into());
    report.fields.insert("totals".into(), json!(totals));
}

/// In words, how somebody's password is or will be stored.
fn schemes_in_words(stored: &Stored, schemes: &[Scheme]) -> Vec<&'static str> {
    let names = |schemes: &[Scheme]| schemes.iter().map(|scheme| scheme.name()).collect();
    match stored {
        Stored::Plain(_) => names(schemes),
        Stored::Field(field) => {
            Verifiers::parse(field).map(|verifiers| names(&schemes_of(&verifiers))).unwrap_or_default()
        }
    }
}
