//! Power cuts: what can be on a disk after the power failed at some moment of a program's run.
//!
//! The run is a trace of strace(1), the disk a small model of what POSIX promises and no more: fsync(2) of a file saves its
//! bytes, owner, mode and attributes; fsync of a directory saves the names in it; of what was done since then any part may
//! be lost, whatever the order it was done in. Lost bytes are zeros, or missing at the end. That is less than any
//! journal gives, so what survives here survives there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How many steps can be lost in every combination; of more, the combinations are chosen.
const ALL_COMBINATIONS: usize = 8;

/// A change of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A name for something new.
    Make(PathBuf, Node),
    Remove(PathBuf),
    /// From, to, and what it is a name for.
    Rename(PathBuf, PathBuf, Node),
    /// Bytes at the end of a file.
    Write(usize, Vec<u8>),
    /// Owner, mode or an attribute of a file: the call, and its arguments.
    Change(usize, String, String),
    /// fsync of a file.
    Flush(usize),
    /// fsync of a directory.
    FlushNames(PathBuf),
}

/// What a name stands for. Files have numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    File(usize),
    Directory,
    Link(PathBuf),
}

/// A file, as far as the trace tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    pub changes: BTreeMap<String, String>,
}

/// What is there.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    root: PathBuf,
    names: BTreeMap<PathBuf, Node>,
    files: BTreeMap<usize, File>,
}

impl Disk {
    /// A directory with nothing in it.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), ..Self::default() }
    }

    /// Adds what was there before, and is safe.
    pub fn with(mut self, path: &Path, node: Node, bytes: &[u8]) -> Self {
        if let Node::File(number) = node {
            self.files.insert(number, File { bytes: bytes.to_owned(), ..File::default() });
        }
        self.names.insert(path.to_owned(), node);
        self
    }

    /// The file at this path, through links and directories that must all be there.
    pub fn file(&self, path: &Path) -> Option<&File> {
        let mut at = self.root.clone();
        let mut found = &Node::Directory;
        for part in path.strip_prefix(&self.root).ok()? {
            if *found != Node::Directory {
                return None;
            }
            at.push(part);
            found = self.names.get(&at)?;
            if let Node::Link(target) = found {
                at.set_file_name(target);
                found = self.names.get(&at)?;
            }
        }
        match found {
            Node::File(number) => self.files.get(number),
            Node::Directory | Node::Link(_) => None,
        }
    }

    /// `gaps` are lost bytes that no later byte stands behind so far.
    fn apply(&mut self, step: &Step, gaps: &mut BTreeMap<usize, usize>) {
        match step {
            Step::Make(path, node) => {
                self.names.insert(path.clone(), node.clone());
            }
            Step::Remove(path) => {
                self.names.remove(path);
            }
            Step::Rename(from, to, node) => {
                self.names.remove(from);
                self.names.insert(to.clone(), node.clone());
            }
            Step::Write(file, bytes) => {
                let file_bytes = &mut self.files.entry(*file).or_default().bytes;
                let gap = gaps.remove(file).unwrap_or_default();
                file_bytes.resize(file_bytes.len() + gap, 0);
                file_bytes.extend(bytes);
            }
            Step::Change(file, call, arguments) => {
                self.files.entry(*file).or_default().changes.insert(call.clone(), arguments.clone());
            }
            Step::Flush(_) | Step::FlushNames(_) => {}
        }
    }
}

impl Step {
    /// Whether this step, done later, makes `earlier` safe.
    fn saves(&self, earlier: &Self) -> bool {
        let directory = |path: &Path, of: &Path| of.parent() == Some(path);
        match (self, earlier) {
            (Self::Flush(file), Self::Write(of, _) | Self::Change(of, ..)) => file == of,
            (Self::FlushNames(path), Self::Make(of, _) | Self::Remove(of)) => directory(path, of),
            (Self::FlushNames(path), Self::Rename(from, to, _)) => {
                directory(path, from) && directory(path, to)
            }
            _ => false,
        }
    }

    pub fn is_flush(&self) -> bool {
        matches!(self, Self::Flush(_) | Self::FlushNames(_))
    }
}

/// Every disk that a power cut may leave, and after how many of the steps; says how many they were.
pub fn cut_everywhere(before: &Disk, steps: &[Step], mut judge: impl FnMut(usize, &Disk)) -> usize {
    let mut cuts = 0;
    for done in 0..=steps.len() {
        let steps = &steps[..done];
        let may_be_lost: Vec<usize> = (0..done)
            .filter(|&index| !steps[index].is_flush())
            .filter(|&index| !steps[index + 1..].iter().any(|later| later.saves(&steps[index])))
            .collect();
        for lost in combinations(may_be_lost.len()) {
            let lost: Vec<usize> =
                may_be_lost.iter().zip(lost).filter(|(_, lost)| *lost).map(|(index, _)| *index).collect();
            let has_lost_bytes = lost.iter().any(|&index| matches!(steps[index], Step::Write(..)));
            for grown in if has_lost_bytes { &[false, true][..] } else { &[false] } {
                judge(done, &without(before, steps, &lost, *grown));
                cuts += 1;
            }
        }
    }
    cuts
}

/// The disk with every step.
pub fn after(before: &Disk, steps: &[Step]) -> Disk {
    without(before, steps, &[], false)
}

/// The disk without the lost steps. If files have `grown`, lost bytes at the end are zeros.
fn without(before: &Disk, steps: &[Step], lost: &[usize], grown: bool) -> Disk {
    let mut disk = before.clone();
    let mut gaps = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Write(file, bytes) if lost.contains(&index) => {
                *gaps.entry(*file).or_default() += bytes.len();
            }
            _ if lost.contains(&index) => {}
            step => disk.apply(step, &mut gaps),
        }
    }
    if grown {
        for (file, gap) in gaps {
            let bytes = &mut disk.files.entry(file).or_default().bytes;
            bytes.resize(bytes.len() + gap, 0);
        }
    }
    disk
}

/// Which of so many steps are lost: in every combination; or, when those are too many, all from one on, all up to one,
/// each alone, and some by chance.
fn combinations(count: usize) -> Vec<Vec<bool>> {
    let chosen = |lost: &dyn Fn(usize) -> bool| (0..count).map(lost).collect::<Vec<bool>>();
    if count <= ALL_COMBINATIONS {
        return (0..1usize << count).map(|bits| chosen(&|index| bits >> index & 1 == 1)).collect();
    }
    let mut all = vec![chosen(&|_| false)];
    for at in 0..count {
        all.extend([
            chosen(&|index| index >= at),
            chosen(&|index| index <= at),
            chosen(&|index| index == at),
        ]);
    }
    let mut chance = 1u64;
    for _ in 0..32 {
        all.push(chosen(&|_| false));
        for lost in all.last_mut().unwrap() {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *lost = chance >> 63 == 1;
        }
    }
    all
}

/// The steps below `root` in a trace of one thread, taken with [`OPTIONS`]. `before` names what was there.
///
/// # Panics
/// About a call that the model does not know.
pub fn steps(trace: &str, before: &Disk) -> Vec<Step> {
    let mut names = before.names.clone();
    let mut opened: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut files = before.files.len();
    let mut steps = Vec::new();
    for line in trace.lines() {
        let Some((name, rest)) = line.split_once('(') else { continue };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { continue };
        if result.starts_with('-') {
            continue;
        }
        let arguments = arguments.trim_end().trim_end_matches(')');
        let words: Vec<&str> = arguments.split(", ").collect();
        let path = |at: usize| PathBuf::from(String::from_utf8(bytes(words[at])).unwrap());
        // A path, or one in the directory of an open descriptor.
        let path_at = |at: usize| match opened.get(words[at]) {
            Some(directory) => directory.join(path(at + 1)),
            None => path(at + 1),
        };
        let inside = |path: &Path| path.starts_with(&before.root);
        let file_of = |descriptor: &str| match opened.get(descriptor).map(|path| &names[path]) {
            Some(Node::File(number)) => Some(*number),
            _ => None,
        };
        let step = match name {
            "openat" => {
                let path = path_at(0);
                let is_new = words[2].contains("O_CREAT") && !names.contains_key(&path);
                opened.remove(result);
                if !inside(&path) {
                    continue;
                }
                assert!(!words[2].contains("O_TRUNC"), "not in the model: {line}");
                if is_new {
                    names.insert(path.clone(), Node::File(files));
                    steps.push(Step::Make(path.clone(), Node::File(files)));
                    files += 1;
                }
                names.entry(path.clone()).or_insert(Node::Directory);
                opened.insert(result.to_owned(), path);
                continue;
            }
            "close" => {
                opened.remove(words[0]);
                continue;
            }
            "mkdir" | "symlink" => {
                let made = if name == "mkdir" { Node::Directory } else { Node::Link(path(0)) };
                let path = path(usize::from(name == "symlink"));
                names.insert(path.clone(), made.clone());
                Step::Make(path, made)
            }
            "unlink" | "rmdir" | "unlinkat" => {
                let path = if name == "unlinkat" { path_at(0) } else { path(0) };
                names.remove(&path);
                Step::Remove(path)
            }
            "rename" => {
                let (from, to) = (path(0), path(1));
                let node = names.remove(&from).expect("a known name");
                names.insert(to.clone(), node.clone());
                // Descriptors stay with what they are open to.
                for path in opened.values_mut().filter(|path| **path == from) {
                    path.clone_from(&to);
                }
                Step::Rename(from, to, node)
            }
            "write" => match file_of(words[0]) {
                Some(file) => Step::Write(file, bytes(words[1])),
                None => continue,
            },
            "fchmod" | "fchown" | "fsetxattr" | "fremovexattr" => {
                let file = file_of(words[0]).expect("a known file");
                Step::Change(file, name.to_owned(), words[1..].join(", "))
            }
            "fsync" => match file_of(words[0]) {
                Some(file) => Step::Flush(file),
                None => Step::FlushNames(opened[words[0]].clone()),
            },
            _ => panic!("not in the model: {line}"),
        };
        steps.push(step);
    }
    steps
}

/// A trace for [`steps`]: what changes a disk, and strings in hexadecimal.
pub const OPTIONS: [&str; 5] = [
    "-xx",
    "-s",
    "1000000",
    "-e",
    "trace=openat,open,creat,close,mkdir,mkdirat,symlink,symlinkat,link,linkat,unlink,unlinkat,rmdir,rename,renameat,\
     renameat2,write,writev,pwrite64,pwritev,pwritev2,sendfile,copy_file_range,truncate,ftruncate,fallocate,chmod,fchmod,\
     fchmodat,chown,fchown,fchownat,setxattr,fsetxattr,fremovexattr,fsync,fdatasync",
];

/// A string of strace's.
fn bytes(word: &str) -> Vec<u8> {
    let digits = word.trim_matches('"').split("\\x").skip(1);
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{word}"))).collect()
}
