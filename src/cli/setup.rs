//! `sasld setup postfix`: the fewest `postconf` commands that make one service of Postfix ask sasld, and their reverse.
//!
//! It compares what Postfix does with what it should do, so a second run finds nothing to change. Nothing is changed
//! without `--apply`. Each change carries the command that takes it back, made from the values found before. This file
//! says what can be typed, prints and runs; [`which`] finds the service, and [`plan`] decides what changes.

mod plan;
mod which;

use super::doctor;
use super::doctor::postfix::{Instance, instances};
use super::doctor::shell::quote;
use super::prompt::Terminal;
use super::{Exit, Failure, config_path};
use crate::config::{Config, DEFAULT_PATH};
use clap::{Args, FromArgMatches, Subcommand};
use plan::Plan;
use serde_json::{Value, json};
use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Make a mail server ask sasld
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Postfix(PostfixArguments),
}

/// Print the commands that make Postfix ask sasld, or run them
///
/// Without --apply nothing is changed: the commands are printed, and those that take them back. With it they are run,
/// and then `sasld doctor`, whose exit status this has: 0 good, 1 warnings, 2 errors.
#[derive(Debug, Args)]
struct PostfixArguments {
    /// The service where users log in: submission, submissions, or another name in master.cf
    #[arg(long, default_value = "submission", value_parser = service_name)]
    service: String,
    /// sasld's socket, instead of the first listener of its configuration: a path, or host:port
    #[arg(long, value_name = "SOCKET")]
    socket: Option<String>,
    /// A directory with main.cf and master.cf, instead of the default Postfix
    #[arg(long = "postfix-config", value_name = "DIRECTORY")]
    postfix: Option<PathBuf>,
    /// sasld's configuration, instead of /etc/sasld/sasld.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run the commands
    #[arg(long)]
    apply: bool,
    /// Print JSON; with --apply, the doctor's report is in it
    #[arg(long)]
    json: bool,
}

/// What master.cf can have as a name, without what would mean something else to `postconf`.
fn service_name(name: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.:[]".contains(c);
    match !name.is_empty() && name.chars().all(good) {
        true => Ok(name.to_owned()),
        false => Err("expected a name such as submission, or address:port".to_owned()),
    }
}

/// A command, and those that take it back.
#[derive(Debug)]
struct Change {
    command: Vec<String>,
    /// In this order. None when another one's take this back, too.
    undo: Vec<Vec<String>>,
}

impl Change {
    /// The commands that take it back, as one line for a shell.
    fn undo_line(&self) -> Option<String> {
        let lines: Vec<String> = self.undo.iter().map(|command| line(command)).collect();
        (!lines.is_empty()).then(|| lines.join(" && "))
    }
}

pub(super) fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    let What::Postfix(arguments) = arguments.what;
    let config = Config::load(&config_path(arguments.config.as_deref()))?;
    let instance = find_instance(&arguments)?;
    let plan = Plan::make(&instance, &arguments, &config)?;
    if arguments.json {
        return with_json(&plan, &instance, &arguments, out);
    }
    plan.print(&instance, &arguments, out)?;
    if !arguments.apply {
        return Ok(Exit::Yes);
    }
    plan.apply(&instance)?;
    writeln!(out)?;
    doctor::after_setup(arguments.config, arguments.postfix.into_iter().collect(), out)
}

/// The same for programs: one object, also when a command fails, for then it has how to undo those before.
fn with_json(
    plan: &Plan<'_>,
    instance: &Instance,
    arguments: &PostfixArguments,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let shown: Vec<_> = plan
        .changes
        .iter()
        .map(|change| json!({"command": line(&change.command), "undo": change.undo_line()}))
        .collect();
    let done = if arguments.apply { plan.apply(instance) } else { Ok(()) };
    let applied = arguments.apply && done.is_ok();
    let mut answer = json!({"changes": shown, "applied": applied});
    let mut result = done.map(|()| Exit::Yes);
    if applied {
        let (exit, report) = doctors_report(arguments)?;
        answer["doctor"] = report;
        result = Ok(exit);
    }
    writeln!(out, "{answer}")?;
    result
}

/// What `sasld doctor --json` says, and its exit status.
fn doctors_report(arguments: &PostfixArguments) -> Result<(Exit, Value), Failure> {
    let mut words: Vec<OsString> = vec!["doctor".into(), "--json".into()];
    for (option, value) in [("--config", &arguments.config), ("--postfix-config", &arguments.postfix)] {
        words.extend(value.iter().flat_map(|value| [option.into(), value.into()]));
    }
    let nonsense = |error: &dyn Error| Failure::new(Exit::Unavailable, format_args!("sasld doctor: {error}"));
    let command = doctor::Arguments::augment_args(clap::Command::new("doctor"));
    let words = command.try_get_matches_from(words).map_err(|error| nonsense(&error))?;
    let words = doctor::Arguments::from_arg_matches(&words).map_err(|error| nonsense(&error))?;
    let mut report = Vec::new();
    let exit = doctor::run(words, &mut report, &mut Terminal)?;
    Ok((exit, serde_json::from_slice(&report).map_err(|error| nonsense(&error))?))
}

fn find_instance(arguments: &PostfixArguments) -> Result<Instance, Failure> {
    let directories: Vec<PathBuf> = arguments.postfix.iter().cloned().collect();
    let Some(instance) = instances(&directories).into_iter().next() else {
        return Err(Failure::new(Exit::Unavailable, "there is no Postfix here, or postconf is not in PATH"));
    };
    match &instance.trouble {
        Some(trouble) => Err(Failure::new(Exit::Config, trouble)),
        None if !instance.sasl_types.iter().any(|name| name == "dovecot") => {
            Err(Failure::new(Exit::Unavailable, "this Postfix is built without Dovecot's SASL (postconf -a)"))
        }
        None => Ok(instance),
    }
}

impl Plan<'_> {
    fn print(
        &self,
        instance: &Instance,
        arguments: &PostfixArguments,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let (directory, service) = (instance.directory.display(), self.service.id());
        if self.changes.is_empty() {
            writeln!(out, "# Postfix in {directory}, service {service}: nothing to do")?;
            return Ok(());
        }
        let done = if arguments.apply { "changing" } else { "to change" };
        writeln!(out, "# Postfix in {directory}, service {service}: {done}")?;
        for change in &self.changes {
            writeln!(out, "{}", line(&change.command))?;
        }
        if instance.running {
            writeln!(out, "{} reload", instance.command("postfix"))?;
        }
        if !arguments.apply {
            let mut doctor = "sasld doctor".to_owned();
            for (option, path) in [("--config", &arguments.config), ("--postfix-config", &arguments.postfix)]
            {
                if let Some(path) = path.as_ref().filter(|path| path.as_os_str() != DEFAULT_PATH) {
                    doctor = format!("{doctor} {option} {}", quote(&path.display().to_string()));
                }
            }
            writeln!(out, "{doctor}")?;
        }
        writeln!(out, "# To undo:")?;
        for undo in self.changes.iter().rev().filter_map(Change::undo_line) {
            writeln!(out, "# {undo}")?;
        }
        if instance.running {
            writeln!(out, "# {} reload", instance.command("postfix"))?;
        }
        Ok(())
    }

    fn apply(&self, instance: &Instance) -> Result<(), Failure> {
        for change in &self.changes {
            execute(&change.command)?;
        }
        if instance.running && !self.changes.is_empty() {
            let mut reload = vec!["postfix".to_owned()];
            if !instance.default {
                reload.extend(["-c".to_owned(), instance.directory.display().to_string()]);
            }
            reload.push("reload".to_owned());
            execute(&reload)?;
        }
        Ok(())
    }
}

/// Runs a command; what it says on standard error is only shown when it fails.
fn execute(command: &[String]) -> Result<(), Failure> {
    let failed = |why: String| {
        Failure::new(
            Exit::Unavailable,
            format_args!("{}: {why}; the commands before it have been run", line(command)),
        )
    };
    let output = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// The command as it is typed.
fn line(command: &[String]) -> String {
    command.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}
