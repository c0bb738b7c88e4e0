//! One manual page for each command, from what clap knows, whatever commands there are.
//!
//! A command that [`extras`](super::extras) says nothing about has a page without examples; `tests/manuals.rs` finds it.

use super::roff::{Roff, bold, escape};
use super::{Page, extras};
use clap::Command;
use clap_mangen::Man;

/// Every command with its page's name, the program itself first: `("sasld-user-add", "user add", …)`.
pub fn all() -> Vec<(String, String, Command)> {
    let mut program = sasld::cli::command().disable_help_subcommand(true);
    program.build();
    let mut found = Vec::new();
    collect(&program, "", &mut found);
    found
}

fn collect(command: &Command, path: &str, found: &mut Vec<(String, String, Command)>) {
    let name = format!("sasld {path}").trim_end().replace(' ', "-");
    found.push((name, path.to_owned(), command.clone()));
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set())
    {
        collect(inner, format!("{path} {}", inner.get_name()).trim_start(), found);
    }
}

/// The pages of all commands.
pub fn pages() -> Vec<Page> {
    let commands = all();
    let page = |(name, path, command): &(String, String, Command)| Page {
        name: name.clone(),
        section: 8,
        source: page(name, path, command),
    };
    commands.iter().map(page).collect()
}

fn page(name: &str, path: &str, command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = Roff::page(name, 8, &lower_first(&about));
    page.section("SYNOPSIS");
    let usage = command.clone().render_usage().to_string();
    page.text(&escape(usage.trim_start_matches("Usage: ")));
    page.line(&from_clap(&Man::new(command.clone()), command));
    if command.has_subcommands() {
        page.section("COMMANDS");
        for inner in
            command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set())
        {
            let tag = format!("{}(8)", bold(&format!("{name}-{}", inner.get_name())));
            page.entry(&tag, &escape(&inner.get_about().map(ToString::to_string).unwrap_or_default()));
        }
    }
    let extra = extras::of(path);
    page.section("EXIT STATUS");
    for (status, meaning) in extras::EXIT_STATUS {
        page.entry(&bold(&status.to_string()), &escape(meaning));
    }
    page.section("FILES");
    for file in extra.map_or(&[][..], |extra| extra.files) {
        page.entry(&format!("\\fI{}\\fR", escape(file.path)), &escape(file.about));
    }
    if let Some(extra) = extra {
        page.section("EXAMPLES");
        for example in &extra.examples {
            page.paragraph();
            page.text(&escape(example.about));
            page.verbatim(example.commands);
        }
    }
    page.section("SEE ALSO");
    let others: Vec<String> = see_also(name, path, command).iter().map(|other| reference(other)).collect();
    page.text(&others.join(", "));
    page.finish()
}

/// Description and options, in clap_mangen's words, without what mandoc and groff complain about.
fn from_clap(man: &Man, command: &Command) -> String {
    let mut written = Vec::new();
    let whole =
        man.render_description_section(&mut written).and_then(|()| match command.get_arguments().next() {
            Some(_) => man.render_options_section(&mut written),
            None => Ok(()),
        });
    whole.expect("memory takes everything");
    let roff = String::from_utf8(written).expect("roff is text");
    let mut lines: Vec<String> = Vec::new();
    // clap_mangen writes an empty line between paragraphs, a string of its own for the apostrophe, and a prelude for it.
    for line in roff.lines().filter(|line| !line.starts_with(".ie") && !line.starts_with(".el")) {
        match line.trim() {
            "" if lines.last().is_some_and(|last| !last.starts_with('.')) => lines.push(".sp".to_owned()),
            "" => {}
            ".br" if lines.last().is_some_and(|last| last == ".br") => {}
            text => lines.push(code_in_bold(&text.replace("\\*(Aq", "\\(aq"))),
        }
    }
    while lines.last().is_some_and(|last| last == ".sp") {
        lines.pop();
    }
    lines.join("\n").replace("\n.sp\n.", "\n.")
}

/// What stands in backticks.
fn code_in_bold(line: &str) -> String {
    let parts = line.split('`').enumerate();
    parts
        .map(|(index, part)| if index % 2 == 1 { format!("\\fB{part}\\fR") } else { part.to_owned() })
        .collect()
}

/// The commands above and below this one, and what they all rest on.
fn see_also(name: &str, path: &str, command: &Command) -> Vec<String> {
    let mut others = Vec::new();
    if !path.is_empty() {
        let above =
            path.rsplit_once(' ').map_or(String::new(), |(above, _)| format!("-{}", above.replace(' ', "-")));
        others.push(format!("sasld{above}(8)"));
    }
    let inner = command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set());
    others.extend(inner.map(|inner| format!("{name}-{}(8)", inner.get_name())));
    others.extend(["sasld.yaml(5)", "sasld-secrets(5)", "sasld-log(7)", "sasld-pam(8)"].map(str::to_owned));
    others
}

fn reference(page: &str) -> String {
    let (name, section) = page.split_once('(').unwrap_or((page, ""));
    format!("{}({section}", bold(name))
}

/// `whatis` lines begin small, unless with a name.
fn lower_first(about: &str) -> String {
    let mut characters = about.chars();
    match (characters.next(), characters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(characters).collect()
        }
        _ => about.to_owned(),
    }
}
