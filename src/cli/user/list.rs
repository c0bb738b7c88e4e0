//! `sasld user list`: who is in the file and what each can use, as a table or as JSON, never a secret.
//!
//! It shows a file that the daemon would refuse, too, and says so below the table. Names come from a file that others
//! may have written, so both forms spell out everything that could mislead a terminal.

use std::io::{BufWriter, Write};

use super::{UserError, UserSettings, warn_if_unloadable};
use crate::credential::Verifiers;
use crate::secrets::{self, Entry, LoadOptions, Problem, Secrets, StoreError};

pub(super) fn run(json: bool, settings: &UserSettings<'_>, out: &mut dyn Write) -> Result<(), UserError> {
    let options = LoadOptions { names: settings.names, trust: None, previous: None };
    let secrets = secrets::load(settings.path, &options).map_err(StoreError::from)?.secrets;
    let mut out = BufWriter::new(out);
    if json {
        list_json(&secrets, &mut out)?;
    } else {
        list_text(&secrets, &mut out)?;
        warn_if_unloadable(&mut out, settings)?;
    }
    out.flush()?;
    Ok(())
}

fn list_text(secrets: &Secrets, out: &mut dyn Write) -> Result<(), UserError> {
    let name_width = secrets.names().map(|name| name.chars().count()).max().unwrap_or_default().clamp(4, 40);
    if !secrets.is_empty() {
        writeln!(out, "{:name_width$}  {:24}  MECHANISMS", "NAME", "SCHEMES")?;
    }
    for entry in secrets.names().filter_map(|name| secrets.lookup(name)) {
        let usable = match entry.closed {
            Some(closed) => format!("none: {closed}"),
            None => mechanisms(&entry).join(" "),
        };
        let name = secrets::escape(entry.name.as_bytes());
        writeln!(out, "{name:name_width$}  {:24}  {usable}", schemes(&entry).join(" "))?;
    }
    let problems = secrets.problems();
    for problem in problems.listed() {
        writeln!(out, "{problem}")?;
    }
    match problems.total() - problems.listed().len() {
        0 => {}
        more => writeln!(out, "and {more} problems more")?,
    }
    Ok(())
}

fn list_json(secrets: &Secrets, out: &mut dyn Write) -> Result<(), UserError> {
    write!(out, "{{\"users\":[")?;
    for (index, entry) in secrets.names().filter_map(|name| secrets.lookup(name)).enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let (name, schemes, mechanisms) = (&entry.name, schemes(&entry), mechanisms(&entry));
        let closed = entry.closed.map_or("null".to_owned(), |closed| json_string(&closed.to_string()));
        write!(out, "{comma}\n{{\"name\":{},\"schemes\":{},", json_string(name), json_strings(&schemes))?;
        write!(out, "\"mechanisms\":{},\"closed\":{closed}}}", json_strings(&mechanisms))?;
    }
    write!(out, "],\n\"problems\":[")?;
    for (index, Problem { line, name, reason }) in secrets.problems().listed().iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let name = name.as_deref().map_or("null".to_owned(), json_string);
        write!(out, "{comma}\n{{\"line\":{line},\"name\":{name},\"reason\":{}}}", json_string(reason))?;
    }
    writeln!(out, "],\n\"problem_count\":{}}}", secrets.problems().total())?;
    Ok(())
}

/// The schemes a user's password is stored in.
fn schemes(entry: &Entry) -> Vec<&'static str> {
    entry.verifiers.iter().flat_map(Verifiers::iter).map(|verifier| verifier.scheme().name()).collect()
}

/// The mechanisms that let this user in, given the right password.
fn mechanisms(entry: &Entry) -> Vec<&'static str> {
    match &entry.verifiers {
        Some(verifiers) if entry.closed.is_none() => {
            ["PLAIN", "LOGIN"].into_iter().chain(verifiers.cram_md5().map(|_| "CRAM-MD5")).collect()
        }
        _ => Vec::new(),
    }
}

fn json_strings(texts: &[&str]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| json_string(text)).collect();
    format!("[{}]", texts.join(","))
}

/// A JSON string in ASCII, so that no terminal and no log is misled by it.
fn json_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out + "\""
}
