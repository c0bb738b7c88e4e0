//! Tables: comma-separated values (RFC 4180) with a header line that names at least `user` and `password`.
//!
//! The columns may stand in any order, others are not looked at. A cell of the column `scheme` says what the password
//! is; without one it is read as in a list.

use csv::{ByteRecord, ReaderBuilder, Trim};

use super::{Foreign, Found, Stored, list};
use crate::credential::Scheme;

const NAMES: [&str; 4] = ["user", "username", "login", "name"];
const PASSWORDS: [&str; 2] = ["password", "passwd"];

/// Where the columns are.
struct Columns {
    name: usize,
    password: usize,
    scheme: Option<usize>,
}

impl Columns {
    fn of(header: &ByteRecord) -> Option<Self> {
        let find = |names: &[&str]| {
            header.iter().position(|cell| {
                let cell = cell.strip_prefix(b"\xef\xbb\xbf").unwrap_or(cell).trim_ascii();
                names.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(cell))
            })
        };
        Some(Self { name: find(&NAMES)?, password: find(&PASSWORDS)?, scheme: find(&["scheme"]) })
    }
}

/// Whether a file that begins like this is such a table.
pub(super) fn is_table(text: &[u8]) -> bool {
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
    let mut header = ByteRecord::new();
    matches!(reader.read_byte_record(&mut header), Ok(true)) && Columns::of(&header).is_some()
}

/// Reads the whole table.
///
/// # Errors
/// If the header or the quotes make no sense. A row that makes none is a user who cannot be taken over.
pub(super) fn parse(text: &[u8], default_scheme: Option<Scheme>) -> Result<Found, String> {
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).trim(Trim::None).from_reader(text);
    let mut record = ByteRecord::new();
    let mut columns = None;
    let mut lines = Lines { text, counted: 0, line: 1 };
    let mut found = Found::default();
    while reader.read_byte_record(&mut record).map_err(|error| error.to_string())? {
        let Some(columns) = &columns else {
            columns = Some(
                Columns::of(&record).ok_or("the first line does not name the columns user and password")?,
            );
            continue;
        };
        let line = record.position().and_then(|position| lines.at(position.byte()));
        let name = record.get(columns.name).unwrap_or_default().to_vec();
        found.users.push(Foreign {
            line,
            name,
            stored: stored(&record, columns, default_scheme),
            rest: None,
        });
    }
    Ok(found)
}

/// Counts lines as an editor does. (The reader takes the second half of a CRLF for the beginning of the next record.)
struct Lines<'a> {
    text: &'a [u8],
    counted: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line of the record that begins here or behind the line ends here. Offsets must grow.
    fn at(&mut self, offset: u64) -> Option<usize> {
        let offset = usize::try_from(offset).ok()?;
        let ends = self.text.get(offset..)?.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let start = offset + ends;
        self.line += self.text.get(self.counted..start)?.iter().filter(|byte| **byte == b'\n').count();
        self.counted = start;
        Some(self.line)
    }
}

fn stored(record: &ByteRecord, columns: &Columns, default_scheme: Option<Scheme>) -> Result<Stored, String> {
    let password = record.get(columns.password).ok_or("the row has no password column")?;
    let scheme = columns.scheme.and_then(|column| record.get(column)).unwrap_or_default().trim_ascii();
    if scheme.is_empty() {
        return list::interpret(password, default_scheme);
    }
    let name = scheme.strip_prefix(b"{").and_then(|name| name.strip_suffix(b"}")).unwrap_or(scheme);
    match Scheme::from_name(name) {
        Some(scheme) => Stored::of_scheme(scheme, password),
        None => Err(format!("unknown scheme {{{}}}", crate::secrets::escape(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let text = b"Scheme,full name,Password,USER\r\nPLAIN,\"A, B\",\"p\"\"w\n2\",alice\r\n,,x,bob\r\n";
        assert!(is_table(text));
        let found = parse(text, None).unwrap().users;
        assert_eq!((found[0].line, found[0].name.as_slice()), (Some(2), &b"alice"[..]));
        assert!(matches!(&found[0].stored, Ok(Stored::Plain(password)) if password.as_bytes() == b"p\"w\n2"));
        assert_eq!(found[1].line, Some(4));
        assert!(found[1].stored.is_err());
    }

    #[test]
    fn rows_that_make_no_sense_cost_that_user_only() {
        let found = parse(b"user,password,scheme\na\nb,x,SSHA\nc,x,{plain}\n", None).unwrap().users;
        assert_eq!(found[0].stored.as_ref().unwrap_err(), "the row has no password column");
        assert_eq!(found[1].stored.as_ref().unwrap_err(), "unknown scheme {SSHA}");
        assert!(found[2].stored.is_ok());
    }

    #[test]
    fn without_a_header_it_is_no_table() {
        for text in [&b""[..], b"alice,secret\n", b"alice:secret\n", b"user\n"] {
            assert!(!is_table(text) && (text.is_empty() || parse(text, None).is_err()));
        }
    }
}
