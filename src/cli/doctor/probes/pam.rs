//! The system's users: the PAM service, `sasld-pam` behind its socket, and the mechanism that PAM can never serve.
//!
//! `sasld-pam` is asked about a user whom no system has, which takes a worker and no password of anybody. One that sasld
//! has started itself has no socket: then sasld asks it for us, over its control socket.

use super::mechanisms;
use super::users::has_secrets_file;
use crate::cli::doctor::facts::{Facts, command_line};
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::shell::quote;
use crate::config::Config;
use crate::control::reply::PassdbState;
use crate::control::{self, PamCheck};
use crate::credential::Password;
use crate::pam::SERVICE_FOLDERS;
use crate::pam::frame::FormatError;
use crate::pam::request::{Answer, FrameBuffer, Hello, Lane, Outcome, Request};
use crate::passdb::pam::{NOBODY, Settings, trouble};
use crate::sasl::Mechanism;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// sasld itself waits as long for the greeting.
const PATIENCE: Duration = Duration::from_secs(5);

/// What comes of it when there is no verdict.
const OUTAGE: &str = "Users of PAM hear 454.";

pub fn cram_md5(facts: &Facts) -> Vec<Finding> {
    if facts.pam().is_none() || !has_secrets_file(facts) || !facts.users_meet(Mechanism::CramMd5) {
        return Vec::new();
    }
    let finding = Finding::warning("CRAM-MD5 is offered, and users of PAM cannot use it").why(
        "PAM never tells a stored password, which CRAM-MD5 needs. Many mail programs take CRAM-MD5 whenever they see it \
         and then try nothing else. If no device needs it, which is for you to decide, offer it no more:",
    );
    // Postfix first: it must not be left without a mechanism for a moment.
    let finding = mechanisms::without_cram_md5(facts).into_iter().fold(finding, Finding::fix);
    vec![finding.fix(facts.configure("mechanisms", "[PLAIN, LOGIN]"))]
}

pub fn service(facts: &Facts) -> Vec<Finding> {
    let Some(settings) = facts.pam() else { return Vec::new() };
    let service = &settings.worker.service;
    let below = |folder: &str| facts.root.join(folder.trim_start_matches('/')).join(service);
    if SERVICE_FOLDERS.iter().any(|folder| below(folder).is_file()) {
        return Vec::new();
    }
    let file = below(SERVICE_FOLDERS[0]);
    let file = file.display();
    let what = format!("{file} does not exist");
    vec![Finding::error(what).why("Users of PAM hear 454: nobody can check their passwords.").fix(format!(
        "printf '@include common-auth\\n@include common-account\\n' >{}",
        quote(&file.to_string())
    ))]
}

pub fn worker(facts: &Facts) -> Vec<Finding> {
    let (Some(settings), Ok(config)) = (facts.pam(), &facts.config) else { return Vec::new() };
    let known = facts.status.iter().flat_map(|status| &status.passdbs).find_map(|passdb| match passdb {
        PassdbState::Pam(pam) => Some(pam),
        PassdbState::SecretsFile(_) => None,
    });
    let connected = known.is_some_and(|pam| pam.connected);
    let finding = match ask(&settings.socket, config.deadline) {
        // Without systemd sasld starts it, over a descriptor that nobody else sees.
        Err(silence)
            if silence.listener.is_none() && (connected || known.is_none() && facts.runs("sasld-pam")) =>
        {
            through_sasld(facts, settings, config)
        }
        Err(silence) if silence.error.kind() == io::ErrorKind::PermissionDenied && !facts.is_root() => {
            Some(Finding::skipped("only root and sasld can connect to sasld-pam"))
        }
        // It hangs up on strangers; but somebody is there.
        Err(silence) if silence.error.kind() == io::ErrorKind::UnexpectedEof && !facts.is_root() => None,
        Err(silence) => {
            let trouble = match silence.error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    format!("not within the deadline of {:?}", config.deadline)
                }
                _ => known.and_then(|pam| pam.trouble.clone()).unwrap_or_else(|| silence.error.to_string()),
            };
            let finding = Finding::error(format!("sasld-pam does not answer: {trouble}")).why(OUTAGE);
            Some(match silence.listener {
                Some(pid) => started_anew(facts, settings, pid, finding),
                None => finding.fix(start(facts)),
            })
        }
        Ok(heard) if heard.settings != settings.worker.to_string() => {
            let finding =
                Finding::warning(format!("sasld-pam was started with other settings: {}", heard.settings))
                    .why(format!("Its own count, not those of the configuration: {}", settings.worker));
            Some(started_anew(facts, settings, heard.listener, finding))
        }
        Ok(heard) => late(facts, settings, heard.took, trouble(&heard.outcome), config.deadline),
    };
    finding.map(|finding| finding.at(settings.socket.display())).into_iter().collect()
}

/// What sasld hears from the one that it has started.
fn through_sasld(facts: &Facts, settings: &Settings, config: &Config) -> Option<Finding> {
    let Some(socket) = &config.control else {
        return Some(Finding::skipped(
            "sasld has started sasld-pam itself, and tells nobody how it is (control: off)",
        ));
    };
    match control::ask::<PamCheck>(socket, &control::Request::Pam) {
        Ok(PamCheck { answered: false, trouble, .. }) => {
            let trouble = trouble.unwrap_or_default();
            let finding = Finding::error(format!("sasld-pam does not answer: {trouble}")).why(OUTAGE);
            Some(finding.fix(start(facts)))
        }
        Ok(PamCheck { trouble, ms, .. }) => {
            let took = Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or_default();
            late(facts, settings, took, trouble, config.deadline)
        }
        Err(error) => Some(Finding::skipped(error)),
    }
}

/// A finding about an answer about nobody that took so long, or was none for this reason.
fn late(
    facts: &Facts,
    settings: &Settings,
    took: Duration,
    trouble: Option<String>,
    deadline: Duration,
) -> Option<Finding> {
    let finding = slow(took, trouble, deadline)?;
    let below = |folder: &str| facts.root.join(folder.trim_start_matches('/')).join(&settings.worker.service);
    let files = SERVICE_FOLDERS.map(below);
    let [own, vendors] = files.map(|file| (file.is_file(), quote(&file.display().to_string())));
    // The next upgrade of its package would take back what is changed in the vendor's.
    let copy = match (&own, &vendors) {
        ((false, own), (true, vendors)) => format!("cp {vendors} {own} && "),
        _ => String::new(),
    };
    Some(finding.fix(format!("{copy}${{EDITOR:-editor}} {}", own.1)))
}

/// What is wrong with an answer about nobody that took so long.
fn slow(took: Duration, trouble: Option<String>, deadline: Duration) -> Option<Finding> {
    let stack = "What in the PAM service's stack, or in the user database (/etc/nsswitch.conf), takes so long or fails \
                 is for you to find out (docs/pam.md); this opens the stack:";
    let too_long = format!("a worker of sasld-pam took {took:.1?}, and the deadline is {deadline:?}");
    match trouble {
        Some(trouble) => Some(
            Finding::error(format!("a worker of sasld-pam has no verdict about a user: {trouble}"))
                .why(format!("{OUTAGE} {stack}")),
        ),
        None if took >= deadline => Some(Finding::error(too_long).why(format!("{OUTAGE} {stack}"))),
        None if took >= deadline / 2 => Some(
            Finding::warning(too_long)
                .why(format!("When more users log in at a time, some of them hear 454. {stack}")),
        ),
        None => None,
    }
}

/// The command that starts it, where nobody has.
fn start(facts: &Facts) -> String {
    match &facts.units {
        Some(units) if units.has("sasld-pam.socket") => "systemctl enable --now sasld-pam.socket".to_owned(),
        _ => match (&facts.units, facts.daemon()) {
            // sasld starts it, but only when it starts itself.
            (Some(units), Some(_)) if units.has("sasld.service") => {
                "systemctl restart sasld.service".to_owned()
            }
            (_, Some(pid)) => format!("kill {pid}; sleep 1; {}", facts.start_sasld()),
            (_, None) => facts.start_sasld(),
        },
    }
}

/// With the command that starts it anew, with the settings of the configuration.
fn started_anew(facts: &Facts, settings: &Settings, listener: i32, finding: Finding) -> Finding {
    let arguments = settings.worker.to_arguments();
    if facts.units.as_ref().is_some_and(|units| units.has("sasld-pam.service")) {
        let folder = facts.root.join("etc/systemd/system/sasld-pam.service.d").display().to_string();
        let folder = quote(&folder);
        let mut unit = String::from("[Service]\\nExecStart=\\nExecStart=/usr/sbin/sasld-pam");
        for argument in &arguments {
            let _ = write!(unit, " {argument}");
        }
        return finding.fix(format!(
            "mkdir -p {folder} && printf {} >{folder}/zz-settings.conf && systemctl daemon-reload && systemctl restart \
             sasld-pam.service",
            quote(&(unit + "\\n"))
        ));
    }
    let words = command_line(listener);
    let is_setting = |word: &String| {
        let name = word.split('=').next().unwrap_or_default();
        ["--service", "--workers", "--min-uid", "--prompts", "--group", "--login-shell"].contains(&name)
    };
    match words.first() {
        Some(program) if program.ends_with("sasld-pam") => {
            let kept = words.iter().filter(|word| !is_setting(word)).chain(&arguments);
            let kept: Vec<String> = kept.map(|word| quote(word)).collect();
            finding.fix(format!("kill -KILL {listener}; sleep 1; {} &", kept.join(" ")))
        }
        _ => finding,
    }
}

/// What came of asking.
struct Heard {
    listener: i32,
    settings: String,
    outcome: Outcome,
    took: Duration,
}

/// Why there was no answer.
struct Silence {
    /// Who would have had to give it.
    listener: Option<i32>,
    error: io::Error,
}

fn ask(socket: &Path, deadline: Duration) -> Result<Heard, Silence> {
    let silence = |listener| move |error| Silence { listener, error };
    let stream = UnixStream::connect(socket).map_err(silence(None))?;
    let listener = getsockopt(&stream, PeerCredentials).map(|peer| peer.pid()).ok();
    let mut conversation = Conversation { stream, buffer: FrameBuffer::default() };
    conversation.hear_about_nobody(deadline, listener.unwrap_or_default()).map_err(silence(listener))
}

struct Conversation {
    stream: UnixStream,
    buffer: FrameBuffer,
}

impl Conversation {
    fn hear_about_nobody(&mut self, deadline: Duration, listener: i32) -> io::Result<Heard> {
        self.stream.set_read_timeout(Some(PATIENCE.min(deadline)))?;
        let hello = Hello::decode(&self.frame()?).map_err(invalid)?;
        let request = Request {
            id: 1,
            lane: Lane::Ordinary,
            patience: deadline,
            user: NOBODY.to_owned(),
            password: Arc::new(Password::new(b"none")),
            rhost: String::new(),
            tty: "doctor".to_owned(),
        };
        // It enforces the time itself, and answers that it is over.
        self.stream.set_read_timeout(Some(deadline + Duration::from_secs(1)))?;
        let asked = Instant::now();
        self.stream.write_all(&request.encode().map_err(invalid)?)?;
        let answer = Answer::decode(&self.frame()?).map_err(invalid)?;
        Ok(Heard { listener, settings: hello.settings, outcome: answer.outcome, took: asked.elapsed() })
    }

    fn frame(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = [0; 1_024];
        loop {
            if let Some(frame) = self.buffer.next_frame().map_err(invalid)? {
                return Ok(frame.to_vec());
            }
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.buffer.extend(&bytes[..length]),
            }
        }
    }
}

fn invalid(error: FormatError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    #[test]
    fn an_answer_counts_by_what_it_says_and_how_long_it_took() {
        for (milliseconds, trouble, expected) in [
            (3, None, None),
            (3_999, None, None),
            (4_000, None, Some(Level::Warning)),
            (8_000, None, Some(Level::Error)),
            (3, Some("timeout: killed".to_owned()), Some(Level::Error)),
        ] {
            let found = slow(Duration::from_millis(milliseconds), trouble, Duration::from_secs(8));
            assert_eq!(found.map(|finding| finding.level), expected, "{milliseconds}");
        }
    }

    #[test]
    fn the_user_asked_about_can_be_asked_about_and_is_nobody() {
        assert!(crate::pam::request::is_user(NOBODY));
        assert_eq!(nix::unistd::User::from_name(NOBODY), Ok(None));
    }
}
