//! Reads and writes that move less than they were asked to: one of them in each run, and all of them in one; and those
//! that stay short, because the file may not grow.

use std::fs;
use std::process::{Command, Output};

use super::faults::{self, Access, Change, access_after, can_trace, judge, program, put};
use super::place::{Place, code, err, feed, shell};
use super::support::short::{is_short, library};

/// The command with the chosen read or write short, or with all of them, under strace(1) or by itself.
pub fn run(place: &Place, change: &Change, chosen: usize, tracer: Option<Command>) -> Output {
    let program = program(place, change);
    let mut command = match tracer {
        Some(mut tracer) => {
            // The tracer itself is let alone.
            tracer.arg("-E").arg(format!("LD_PRELOAD={}", library().display()));
            tracer.arg("--").arg(program.get_program());
            tracer
        }
        None => {
            let mut command = Command::new(program.get_program());
            command.env("LD_PRELOAD", library()).env("SHORT_COUNT", place.directory.path().join("count"));
            command
        }
    };
    command
        .args(program.get_args())
        .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("SHORT", chosen.to_string());
    feed(command, change.input.as_bytes())
}

/// Nothing is wrong about a short read or write: the command does what it always does.
fn must_succeed(place: &Place, what: &str, output: &Output, change: &Change, expected: &Access) {
    judge(place, what, output, change, expected);
    assert_eq!(code(output), 0, "{what}: {}", err(output));
    assert!(place.has_no_temporary(), "{what}");
}

#[test]
fn no_short_read_or_write_loses_anything() {
    let mut runs = 0;
    for change in faults::all() {
        let place = Place::empty();
        let expected = access_after(&place, &change);
        let mut count = 1;
        let mut chosen = 1;
        while chosen <= count {
            put(&place, change.old.as_deref());
            let what = format!("{:?}, read or write {chosen}", change.arguments);
            let output = run(&place, &change, chosen, None);
            must_succeed(&place, &what, &output, &change, &expected);
            // One that was short makes another one after it.
            count = fs::read_to_string(place.directory.path().join("count")).unwrap().parse().unwrap();
            runs += 1;
            chosen += 1;
        }
    }
    assert!(runs > 50, "{runs}");
    eprintln!("{runs} short reads and writes");
}

#[test]
fn every_read_and_write_may_be_short_at_once() {
    if !can_trace() {
        return;
    }
    for change in faults::all() {
        let place = Place::empty();
        let expected = access_after(&place, &change);
        put(&place, change.old.as_deref());
        let trace = place.directory.path().join("trace");
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-y", "-o"]).arg(&trace);
        let output = run(&place, &change, 0, Some(strace));
        must_succeed(&place, &format!("{:?}", change.arguments), &output, &change, &expected);
        // Of what went through the kernel under the lock nothing was longer, so nothing passes the library by.
        let trace = fs::read_to_string(trace).unwrap();
        let (_, locked) = trace.split_once(".secrets.lock").expect("the lock is in the trace");
        let moves: Vec<(&str, bool)> =
            locked.lines().filter_map(|line| Some((line, is_short(line)?))).collect();
        let bytes = change.old.as_ref().map_or(0, String::len) + change.new.len();
        assert!(moves.len() >= bytes, "{} of {bytes}", moves.len());
        assert!(moves.iter().all(|(_, is_short)| *is_short), "{moves:?}");
    }
}

#[test]
fn a_write_that_stays_short_at_any_byte_is_named_and_the_old_file_stays() {
    // Of `edit` the editor would be limited as well.
    for change in faults::all().into_iter().filter(|change| change.arguments != ["edit"]) {
        let place = Place::empty();
        let expected = access_after(&place, &change);
        for limit in 0..=change.new.len() {
            put(&place, change.old.as_deref());
            // A limit of so many bytes, and no signal about it: write(2) is short, then it fails as on a full disk.
            let script = format!("trap '' XFSZ; exec prlimit --fsize={limit} -- \"$@\"");
            let output = feed(shell(&script, &program(&place, &change)), change.input.as_bytes());
            let what = format!("{:?}, at most {limit} bytes", change.arguments);
            judge(&place, &what, &output, &change, &expected);
            if limit == change.new.len() {
                assert_eq!(code(&output), 0, "{what}: {}", err(&output));
                continue;
            }
            assert_eq!(code(&output), 75, "{what}: {}", err(&output));
            assert!(err(&output).contains(".secrets.new: write: "), "{what}: {}", err(&output));
            assert!(place.has_no_temporary(), "{what}");
        }
    }
}
