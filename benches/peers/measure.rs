//! What the kernel knows about a server: the CPU time and memory of its whole process tree; and where things run.
//!
//! CPU time is each process's own clock, in nanoseconds, threads that have ended included; what a child process used
//! before it was reaped is lost, but no measured server starts and ends processes while it serves. A process that
//! vanished between finding and reading is an error.

use std::{fs, path::Path, process, str::FromStr, thread, time::Duration};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit},
        time::TimeValLike as _,
    },
    time::ClockId,
    unistd::Pid,
};

use crate::Outcome;

/// A process and all its descendants.
pub struct Processes(Vec<Pid>);

impl Processes {
    /// The tree as it is now.
    pub fn below(root: u32) -> Outcome<Self> {
        let mut pids = vec![root];
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            if let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok())
                && let Some(parent) = parent_of(pid)
            {
                parents.push((pid, parent));
            }
        }
        let mut next = 0;
        while next < pids.len() {
            let children = parents.iter().filter(|(_, parent)| *parent == pids[next]);
            let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
            pids.extend(children);
            next += 1;
        }
        let pids = pids.into_iter().map(|pid| Ok(Pid::from_raw(i32::try_from(pid)?)));
        Ok(Self(pids.collect::<Outcome<_>>()?))
    }

    pub fn pids(&self) -> &[Pid] {
        &self.0
    }

    /// CPU time used so far, user and system.
    pub fn cpu(&self) -> Outcome<Duration> {
        let times = self.0.iter().map(|&pid| Ok(Duration::from(ClockId::pid_cpu_clock_id(pid)?.now()?)));
        times.sum()
    }

    /// CPU time used so far by these and by all children they have waited for, in steps of 10 ms for each. For servers
    /// whose processes come and go; whoever vanishes meanwhile is in his parent's account.
    pub fn cpu_with_the_dead(&self) -> Duration {
        let ticks = self.0.iter().map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // What follows the name, which may have blanks: the third field and on. utime is the 14th.
            let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            rest.split_whitespace().skip(11).take(4).flat_map(str::parse::<u64>).sum::<u64>()
        });
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// Resident memory in bytes. `shared_once` divides each shared page among the processes that map it (PSS), which
    /// is fair to a server of several processes; otherwise plain RSS.
    pub fn memory(&self, shared_once: bool) -> Outcome<u64> {
        let (file, key) = if shared_once { ("smaps_rollup", "Pss:") } else { ("status", "VmRSS:") };
        let sizes = self.0.iter().map(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
            let kib: u64 = labelled(&text, key).ok_or_else(|| format!("no {key} in {file}"))?;
            Ok(kib * 1024)
        });
        sizes.sum()
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    labelled(&status, "PPid:")
}

/// The first word after `key` at the start of a line.
fn labelled<T: FromStr>(text: &str, key: &str) -> Option<T> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The cores this run may use: the server gets the first, the client the last.
pub struct Cores(Vec<usize>);

impl Cores {
    pub fn available() -> Outcome<Self> {
        let set = sched_getaffinity(Pid::from_raw(0))?;
        Ok(Self((0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect()))
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn all(&self) -> &[usize] {
        &self.0
    }

    pub fn server(&self) -> &[usize] {
        &self.0[..1]
    }

    pub fn client(&self) -> &[usize] {
        &self.0[self.0.len() - 1..]
    }
}

/// Runs `what` with this thread bound to `cores`. A process started in it inherits the binding.
pub fn bound_to<T>(cores: &[usize], what: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let this_thread = Pid::from_raw(0);
    let before = sched_getaffinity(this_thread)?;
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core)?;
    }
    sched_setaffinity(this_thread, &set)?;
    let result = what();
    sched_setaffinity(this_thread, &before)?;
    result
}

/// Raises the limit of open files to what the system allows this user; servers started later inherit it.
pub fn raise_descriptor_limit() -> Outcome<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// A program beside sasld, and how to ask for its version.
pub struct Peer {
    pub name: &'static str,
    pub program: &'static str,
    pub version: &'static str,
}

/// What the numbers come from, in a few words each: the hardware, the system, the programs.
pub fn machine(sasld: &Path, peers: &[Peer]) -> Outcome<Vec<String>> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown CPU", |(_, name)| name.trim());
    let virtual_machine = if cpuinfo.contains(" hypervisor ") { ", virtual machine" } else { "" };
    let memory: u64 = labelled(&fs::read_to_string("/proc/meminfo")?, "MemTotal:").unwrap_or(0);
    let cores = thread::available_parallelism()?;
    let system = fs::read_to_string("/etc/os-release")?;
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let system = system.unwrap_or("unknown system").trim_matches('"');
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;

    let mut programs = vec![first_line(sasld, &["--version"])?];
    programs.push(first_line("rustc".as_ref(), &["--version"])?);
    for Peer { name, program, version } in peers {
        let line = first_line(program.as_ref(), &[version])?;
        programs.push(format!("{name} {}", line.trim_start_matches(program).trim()));
    }
    Ok(vec![
        format!("{model}, {cores} cores{virtual_machine}, {} GiB", memory.div_ceil(1 << 20)),
        format!("{system}, Linux {}", kernel.trim()),
        programs.join(", "),
    ])
}

/// Today, and the load average of the last minute.
pub fn moment() -> Outcome<String> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or("unknown");
    Ok(format!("{}, load average before it {load}", first_line("date".as_ref(), &["-u", "+%F"])?))
}

/// CPU time that this machine has spent on anything but this benchmark and the servers it has ended, or that its host
/// took away, since some moment in the past. Tells how quiet the machine was.
pub fn foreign_cpu() -> Outcome<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let ticks: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else {
        return Err("/proc/stat has no line for all CPUs".into());
    };
    // The kernel counts in hundredths of a second here, whatever it uses itself.
    let all = Duration::from_millis(10 * (user + nice + system + irq + softirq + steal));
    let mut ours = Duration::ZERO;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            ours += Duration::from_micros(u64::try_from(time.num_microseconds())?);
        }
    }
    Ok(all.saturating_sub(ours))
}

/// The first line a program prints, wherever it prints it.
fn first_line(program: &Path, arguments: &[&str]) -> Outcome<String> {
    let output = process::Command::new(program).args(arguments).output();
    let output = output.map_err(|e| format!("{}: {e}", program.display()))?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
