//! What the kernel has denied the service for want of memory or of processes.
//!
//! pam_unix has passwords checked by a helper, and when that one cannot be started or is killed, it says that the password
//! was wrong. The kernel counts what it has killed and which forks it has refused, for each control group (version 2, see
//! cgroups(7)): a count that has grown during a check makes its no worthless. Where the counts cannot be read, nothing
//! is known, and a no is a no.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the hierarchy of control groups is mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// The control group of a process.
pub struct Cgroup(PathBuf);

/// How often the kernel has denied something, since the control group was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denials {
    killed_for_memory: Option<u64>,
    forks_refused: Option<u64>,
}

impl Cgroup {
    /// Ours; `None` if it is none of version 2.
    pub fn own() -> Option<Self> {
        Self::read(&fs::read_to_string("/proc/self/cgroup").ok()?, Path::new(ROOT))
    }

    /// The one that `/proc/PID/cgroup` names.
    fn read(text: &str, root: &Path) -> Option<Self> {
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let folder = root.join(path);
        folder.is_dir().then_some(Self(folder))
    }

    /// The one with this folder.
    #[cfg(test)]
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// What has been denied up to now.
    pub fn denials(&self) -> Denials {
        Denials {
            killed_for_memory: self.count("memory.events", "oom_kill"),
            forks_refused: self.count("pids.events", "max"),
        }
    }

    fn count(&self, file: &str, event: &str) -> Option<u64> {
        let text = fs::read_to_string(self.0.join(file)).ok()?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == event)?.1.trim().parse().ok()
    }
}

impl Denials {
    /// The setting of the unit that is too small, if something was denied between the two.
    pub fn since(self, before: Self) -> Option<&'static str> {
        if self.killed_for_memory > before.killed_for_memory {
            Some("MemoryMax=")
        } else if self.forks_refused > before.forks_refused {
            Some("TasksMax=")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, killed: u32, refused: u32) {
        let memory = format!("low 0\nhigh 7\nmax 9\noom 3\noom_kill {killed}\noom_group_kill 5\n");
        fs::write(folder.join("memory.events"), memory).unwrap();
        fs::write(folder.join("pids.events"), format!("max {refused}\n")).unwrap();
    }

    #[test]
    fn what_was_denied_meanwhile_names_the_setting_and_what_was_before_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let group = Cgroup::at(folder.path());
        let nothing_known = group.denials();
        assert_eq!(nothing_known.since(nothing_known), None);
        write(folder.path(), 4, 2);
        let before = group.denials();
        assert_eq!(group.denials().since(before), None);
        write(folder.path(), 5, 2);
        assert_eq!(group.denials().since(before), Some("MemoryMax="));
        write(folder.path(), 4, 3);
        assert_eq!(group.denials().since(before), Some("TasksMax="));
    }

    #[test]
    fn only_a_group_of_version_2_is_found() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("system.slice/sasld-pam.service")).unwrap();
        let found = |text: &str| Cgroup::read(text, root.path()).map(|group| group.0);
        let service = root.path().join("system.slice/sasld-pam.service");
        assert_eq!(found("0::/system.slice/sasld-pam.service\n"), Some(service.clone()));
        assert_eq!(found("3:pids:/\n0::/system.slice/sasld-pam.service\n"), Some(service));
        assert_eq!(found("0::/\n"), Some(root.path().join("")));
        for none in ["", "3:pids:/system.slice/sasld-pam.service\n", "0::/nowhere\n"] {
            assert_eq!(found(none), None, "{none}");
        }
    }
}
