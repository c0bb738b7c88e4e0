//! Reading the foreign file, and finding out what it is if nobody says so.
//!
//! sasldb is a database of Berkeley DB, which has a program to read it; that program runs with the path as its only
//! argument and its output is kept in wiped memory. What cannot be told apart is not guessed: the message names
//! `--format`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::{Format, Found, ImportArgs, dovecot, list, sasldb, table};
use crate::cli::user::UserError;

/// Longest foreign file.
const MAX_BYTES: u64 = 1 << 28;

/// Programs that print a Berkeley DB, with and without the version that Debian has in its name.
const DUMPERS: [&str; 2] = ["db5.3_dump", "db_dump"];

/// Everything that can be read from the file.
pub(super) fn read(args: &ImportArgs) -> Result<Found, UserError> {
    let text = read_bytes(&args.source)?;
    let format = match args.format {
        Some(format) => format,
        None => detect(&text).ok_or_else(|| {
            let reason = "cannot tell what this is; say --format dovecot, sasldb, list or csv";
            UserError::Usage(format!("{}: {reason}", args.source.display()))
        })?,
    };
    let nonsense = |reason: String| UserError::Data(format!("{}: {reason}", args.source.display()));
    match format {
        Format::Dovecot => Ok(dovecot::parse(&text, args.default_scheme)),
        Format::List => Ok(list::parse(&text, args.default_scheme)),
        Format::Csv => table::parse(&text, args.default_scheme).map_err(nonsense),
        Format::Sasldb if text.starts_with(sasldb::DUMP_START) => {
            sasldb::parse(&text, args.realm).map_err(nonsense)
        }
        Format::Sasldb if is_berkeley_db(&text) => {
            sasldb::parse(&dump(&args.source)?, args.realm).map_err(nonsense)
        }
        Format::Sasldb => Err(nonsense("this is neither a Berkeley DB nor a dump of one".to_owned())),
    }
}

/// What a file with these contents can only be.
fn detect(text: &[u8]) -> Option<Format> {
    if is_berkeley_db(text) || text.starts_with(sasldb::DUMP_START) {
        return Some(Format::Sasldb);
    }
    if table::is_table(text) {
        return Some(Format::Csv);
    }
    let mut lines =
        text.split(|byte| *byte == b'\n').filter(|line| !matches!(line.first(), None | Some(b'#' | b':')));
    if text.windows(2).any(|pair| pair == b":{") {
        return Some(Format::Dovecot);
    }
    let colons = |line: &[u8]| line.iter().filter(|byte| **byte == b':').count();
    let mut seen = false;
    let two_fields = lines.all(|line| {
        seen = true;
        colons(line) == 1
    });
    (seen && two_fields).then_some(Format::List)
}

/// The magic number of Berkeley DB's hash and btree files, in either byte order.
fn is_berkeley_db(text: &[u8]) -> bool {
    const HASH: u32 = 0x0006_1561;
    const BTREE: u32 = 0x0005_3162;
    let magic = text.get(12..16).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    magic.is_some_and(|magic| {
        [u32::from_le_bytes(magic), u32::from_be_bytes(magic)]
            .iter()
            .any(|magic| [HASH, BTREE].contains(magic))
    })
}

fn read_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, UserError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let failed = |call| move |source| UserError::File { path: path.display().to_string(), call, source };
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed("read"))?;
    } else {
        let file = File::open(path).map_err(failed("open"))?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed("read"))?;
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(UserError::Data(format!("{}: is larger than {MAX_BYTES} bytes", path.display())));
    }
    Ok(bytes)
}

fn dump(path: &Path) -> Result<Zeroizing<Vec<u8>>, UserError> {
    if path == Path::new("-") {
        let reason = "a database cannot be read from standard input, but what db5.3_dump -p prints of it can";
        return Err(UserError::Usage(reason.to_owned()));
    }
    // A path that begins with a hyphen would be an option.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    for program in DUMPERS {
        let output = Command::new(program).arg("-p").arg(&path).stdin(Stdio::null()).output();
        let output = match output {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            output => output.map_err(|error| UserError::Unavailable(format!("{program}: {error}")))?,
        };
        let printed = Zeroizing::new(output.stdout);
        if output.status.success() {
            return Ok(printed);
        }
        let trouble = crate::secrets::escape(output.stderr.trim_ascii());
        return Err(UserError::Unavailable(format!(
            "{program} {}: {}: {trouble}",
            path.display(),
            output.status
        )));
    }
    let reason = "sasldb is a Berkeley DB, and there is no program here to read it: apt install db5.3-util";
    Err(UserError::Unavailable(reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_only_be_one_thing_is_recognised_and_nothing_else() {
        for (text, expected) in [
            ("# x\nalice:{SSHA}x\n", Some(Format::Dovecot)),
            ("alice:{PLAIN}x:1:2::::\n", Some(Format::Dovecot)),
            ("alice:secret\n\n# c\nbob: $6$x$y\n", Some(Format::List)),
            ("user,password\nalice,x\n", Some(Format::Csv)),
            ("VERSION=3\nformat=print\n", Some(Format::Sasldb)),
            ("alice:$6$x$y:19000:0:99999:7:::\n", None),
            ("alice:pass:word\n", None),
            ("alice\n", None),
            ("", None),
            ("# nothing\n", None),
        ] {
            assert_eq!(detect(text.as_bytes()), expected, "{text}");
        }
        let mut database = vec![0; 4096];
        database[12..16].copy_from_slice(&[0x61, 0x15, 0x06, 0]);
        assert_eq!(detect(&database), Some(Format::Sasldb));
    }
}
