//! A child: reads one request, runs the PAM stack, answers, and reads the next.
//!
//! This is where modules run. The process serves nobody else meanwhile, has no threads, an empty environment, no
//! access to its neighbours once they have settled in, and can be killed at any time. Its channel is out of reach of
//! standard input and output, which lead nowhere.
//!
//! After each request it looks at itself: a child whose user id, groups or memory are not what they were, or that
//! holds too many descriptors, says that this was its last answer. Anything wrong with the channel ends it; the
//! supervisor starts another one.

use crate::cgroup::Cgroup;
use crate::conversation::Conversation;
use crate::stack::{self, Stack};
use crate::{ffi, guard};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, ResGid, ResUid, getgroups, getresgid, getresuid, setpgid};
use pam::{Context, Flag};
use sasld::pam::code::Code;
use sasld::pam::request::{
    Answer, Checked, Exclusion, FrameBuffer, Lane, MAX_FRAME_BYTES, Outcome, Ready, Request, Stage, Trouble,
};
use sasld::pam::{SERVICE_FOLDERS, Settings};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// With more memory than this in use after a request, a child is replaced: modules leak. The `MemoryMax=` of the unit has
/// room for the 24 children of the default pool with it; `docs/pam.md` has the sum.
const MAX_RESIDENT_BYTES: u64 = 40 << 20;

/// The most memory that a child can have for data, and a helper that it starts; see setrlimit(2). A module that wants more
/// gets none and should say `PAM_BUF_ERR`, and one that takes no for no answer crashes; both are no verdict. But when
/// `unix_chkpwd` gets none for a hash, the password is wrong, and nobody can tell. So it is that much: the dearest hash
/// worth checking, yescrypt of cost 9, takes 256 MiB for a moment.
const MAX_DATA_BYTES: u64 = 512 << 20;

/// Who dies first when there is no memory left: a child, rather than the supervisor. See proc(5).
const OOM_SCORE_ADJ: &str = "500";

/// With this many more descriptors than it started with, a child is replaced.
const MAX_LEAKED_DESCRIPTORS: usize = 32;

/// How much nicer than others the children of the ordinary lane are, in steps of nice(2).
const ORDINARY_NICE: i32 = 10;

/// Answers requests until the channel, which is standard input, ends.
pub fn run(settings: &Settings, lane: Lane, folder: Option<PathBuf>) -> io::Result<()> {
    let mut channel = settle_in(lane)?;
    let mut worker = Worker { settings, folder, cgroup: Cgroup::own(), baseline: Baseline::now() };
    channel.write_all(&Ready { complaint: worker.complaint() }.encode())?;
    let mut buffer = FrameBuffer::default();
    let mut chunk = Zeroizing::new([0; MAX_FRAME_BYTES]);
    loop {
        let read = channel.read(&mut chunk[..])?;
        if read == 0 {
            return Ok(());
        }
        buffer.extend(&chunk[..read]);
        chunk.zeroize();
        while let Some(frame) = buffer.next_frame().map_err(io::Error::other)? {
            let request = Request::decode(&frame).map_err(io::Error::other)?;
            let answer = worker.answer(&request);
            channel.write_all(&answer.encode())?;
        }
    }
}

/// Takes the channel from standard input, and makes the process what modules may run in.
fn settle_in(lane: Lane) -> io::Result<UnixStream> {
    let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // A group to be killed by. Not a session: where the kernel schedules by session (autogroup), our priority would count
    // for nothing beside the other children.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    // Before the files in /proc become root's. That is also why everybody may read the program: a process that may not
    // read its own is not dumpable even in the moment up to here, and could not write this. Without /proc the kernel
    // chooses by size, which is as good a guess.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (_, most) = getrlimit(Resource::RLIMIT_DATA)?;
    let data = most.min(MAX_DATA_BYTES);
    setrlimit(Resource::RLIMIT_DATA, data, data)?;
    // In process lists; a program run through /proc is called "exe".
    nix::sys::prctl::set_name(c"sasld-pam")?;
    // A module that hangs would not notice the supervisor's end. It is the end of the thread that has started us; that is
    // the supervisor's first one, which ends with the process.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The supervisor's mask is inherited, and modules wait for their own children.
    SigSet::empty().thread_set_mask()?;
    umask(Mode::from_bits_truncate(0o077));
    if lane == Lane::Ordinary {
        // Strangers get what the others leave. Without it they merely compete.
        let _ = rustix::process::setpriority_process(None, ORDINARY_NICE);
    }
    Ok(channel)
}

struct Worker<'a> {
    settings: &'a Settings,
    folder: Option<PathBuf>,
    cgroup: Option<Cgroup>,
    baseline: Baseline,
}

impl Worker<'_> {
    fn answer(&mut self, request: &Request) -> Answer {
        let mut outcome = self.check(request);
        let now = Baseline::now();
        let mut last = now.resident > MAX_RESIDENT_BYTES
            || now.descriptors > self.baseline.descriptors + MAX_LEAKED_DESCRIPTORS
            // What has leaked comes back in no other way.
            || matches!(&outcome, Outcome::Checked(checked) if checked.code == Code::BUF_ERR)
            // A new child says when the service is good again.
            || matches!(outcome, Outcome::Undecided(Trouble::NoService, _));
        if now.rights != self.baseline.rights {
            let text = "a module changed the user or group of the process".to_owned();
            outcome = Outcome::Undecided(Trouble::Rights, text);
            last = true;
        }
        Answer { id: request.id, outcome, last }
    }

    fn check(&self, request: &Request) -> Outcome {
        if let Err(outcome) = guard::admit(self.settings, &request.user) {
            return outcome;
        }
        let stack = match self.stack() {
            Ok(stack) => stack,
            Err(reason) => return Outcome::Undecided(Trouble::NoService, reason),
        };
        let denials = || self.cgroup.as_ref().map(Cgroup::denials);
        let before = denials();
        let checked = self.ask(request);
        if checked.code == Code::AUTH_ERR
            && let (Some(before), Some(after)) = (before, denials())
            && let Some(setting) = after.since(before)
        {
            let text =
                format!("memory or processes ran out meanwhile, so a no means nothing; raise {setting}");
            return Outcome::Undecided(Trouble::Exhausted, text);
        }
        if checked.code == Code::AUTH_ERR && stack.lacks_shadow() {
            let text = "pam_unix.so may not read /etc/shadow, so its no means nothing".to_owned();
            return Outcome::Undecided(Trouble::Rights, text);
        }
        if checked.code == Code::SUCCESS && checked.user != request.user.as_bytes() {
            // Somebody else logs in, so the rails are there for him.
            let other = String::from_utf8_lossy(&checked.user);
            match guard::admit(self.settings, &other) {
                Ok(()) => {}
                Err(Outcome::Excluded(_)) => return Outcome::Excluded(Exclusion::NewName),
                Err(outcome) => return outcome,
            }
        }
        Outcome::Checked(checked)
    }

    /// Runs the stack: pam_start, pam_authenticate, pam_acct_mgmt, pam_end. No session, no credentials.
    fn ask(&self, request: &Request) -> Checked {
        const FLAGS: Flag = Flag::SILENT.union(Flag::DISALLOW_NULL_AUTHTOK);
        let conversation = Conversation::new(&request.user, &request.password, self.settings.prompts);
        let mut context = match Context::new(&self.settings.service, Some(&request.user), conversation) {
            Ok(context) => context,
            Err(error) => return not_started(request, error.code()),
        };
        let mut asked = false;
        let (stage, result) = match self.prepare(&mut context, request) {
            Err(code) => (Stage::Start, Err(code)),
            Ok(()) => {
                let authenticated = context.authenticate(FLAGS).map_err(|error| error.code());
                // What the account phase asks for proves nothing: it does not look at passwords.
                asked = context.conversation().asked;
                match authenticated {
                    Err(code) => (Stage::Authenticate, Err(code)),
                    Ok(()) => (Stage::Account, context.acct_mgmt(FLAGS).map_err(|error| error.code())),
                }
            }
        };
        let user = ffi::user(&context);
        let conversation = context.conversation();
        Checked {
            stage,
            code: result.map_or_else(to_code, |()| Code::SUCCESS),
            asked,
            asked_more: conversation.asked_more,
            user,
            text: conversation.text.clone(),
        }
    }

    fn prepare(
        &self,
        context: &mut Context<Conversation<'_>>,
        request: &Request,
    ) -> Result<(), pam::ErrorCode> {
        let code = |error: pam::Error| error.code();
        if let Some(folder) = &self.folder {
            // libpam takes a service that begins with a slash for the path of its file.
            let path = folder.join(&self.settings.service);
            context.set_service(path.to_str()).map_err(code)?;
        }
        if !request.rhost.is_empty() {
            context.set_rhost(Some(&request.rhost)).map_err(code)?;
        }
        context.set_tty(Some(&request.tty)).map_err(code)?;
        context.set_ruser(Some(&request.user)).map_err(code)?;
        ffi::refuse_delays(context)
    }

    /// The service as it is configured now, or what keeps it from being one.
    fn stack(&self) -> Result<Stack, String> {
        let Settings { service, .. } = self.settings;
        let Some(file) = stack::file_of(service, self.folder.as_deref()) else {
            let folder = self.folder.as_deref().unwrap_or(Path::new(SERVICE_FOLDERS[0]));
            return Err(format!(
                "{} does not exist; docs/pam.md has what belongs into it",
                folder.join(service).display()
            ));
        };
        let stack = Stack::read(&file);
        match stack.lacks_phase() {
            None => Ok(stack),
            Some(phase) => Err(format!(
                "{} has no module for {phase}, and libpam would take that of the service \"other\"; add a line that \
                 begins with \"{phase}\"",
                file.display()
            )),
        }
    }

    fn complaint(&self) -> String {
        self.stack().map_or_else(|reason| reason, |stack| stack.complaint())
    }
}

fn not_started(request: &Request, code: pam::ErrorCode) -> Checked {
    Checked {
        stage: Stage::Start,
        code: to_code(code),
        asked: false,
        asked_more: false,
        user: request.user.clone().into_bytes(),
        text: String::new(),
    }
}

fn to_code(code: pam::ErrorCode) -> Code {
    u8::try_from(code.repr()).map_or(Code::ABORT, Code)
}

/// What a child compares itself with.
struct Baseline {
    rights: Option<(ResUid, ResGid, Vec<nix::unistd::Gid>)>,
    descriptors: usize,
    resident: u64,
}

impl Baseline {
    fn now() -> Self {
        let rights = || Some((getresuid().ok()?, getresgid().ok()?, getgroups().ok()?));
        Self { rights: rights(), descriptors: descriptors(), resident: resident_bytes().unwrap_or(0) }
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sasld::credential::Password;
    use std::sync::Arc;
    use std::time::Duration;

    /// What comes of a check whose stack runs this shell command, and then says that the password is wrong.
    fn check_while(command: &str, folder: &Path, cgroup: Option<Cgroup>) -> Outcome {
        let script = folder.join("script");
        fs::write(&script, command).unwrap();
        let script = script.display();
        let stack = format!(
            "auth optional pam_exec.so /bin/sh {script}\nauth required pam_deny.so\naccount required pam_deny.so\n"
        );
        fs::write(folder.join("sasld"), stack).unwrap();
        let settings = Settings { min_uid: 0, ..Settings::default() };
        let folder = Some(folder.to_owned());
        let worker = Worker { settings: &settings, folder, cgroup, baseline: Baseline::now() };
        worker.check(&Request {
            id: 1,
            lane: Lane::Ordinary,
            patience: Duration::from_secs(8),
            user: "alice".to_owned(),
            password: Arc::new(Password::new("s3cret")),
            rhost: String::new(),
            tty: "sasld".to_owned(),
        })
    }

    #[test]
    fn a_no_while_something_was_denied_is_no_verdict() {
        // libpam folds capitals in a service's path.
        let folder = tempfile::Builder::new()
            .prefix("sasldt")
            .rand_bytes(0)
            .suffix(&std::process::id().to_string())
            .tempdir()
            .unwrap();
        let folder = folder.path();
        let events = folder.join("pids.events");
        for (meanwhile, denied) in [("max 1", false), ("max 2", true)] {
            fs::write(&events, "max 1\n").unwrap();
            let command = format!("echo '{meanwhile}' >{}", events.display());
            let outcome = check_while(&command, folder, Some(Cgroup::at(folder)));
            match outcome {
                Outcome::Undecided(Trouble::Exhausted, text) => {
                    assert!(denied && text.ends_with("raise TasksMax="), "{text}");
                }
                Outcome::Checked(checked) => {
                    assert!(!denied && checked.code == Code::AUTH_ERR, "{checked:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        // Without such a group nobody knows better.
        assert!(matches!(check_while("true", folder, None), Outcome::Checked(_)));
    }
}
