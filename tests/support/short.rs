//! Reads and writes that move a single byte: a library that takes the place of the C library's read(2) and write(2).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The library, built once. `LD_PRELOAD` takes it, `SHORT` and `SHORT_COUNT` are what its source says.
pub fn library() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/short.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (new, built) = (folder.join(format!("{}.so", std::process::id())), folder.join("short.so"));
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-Wall", "-O", "-o"]).arg(&new).arg(source);
        assert!(cc.status().expect("cc").success(), "the library does not build");
        std::fs::rename(new, &built).unwrap();
        built
    });
    &LIBRARY
}

/// Whether a line of strace(1) is a read or a write of a file or pipe that moves at most one byte, or wanted to move
/// more; `None` for other calls. It takes a trace with the paths of descriptors (`-y`).
pub fn is_short(line: &str) -> Option<bool> {
    const MOVES: [&str; 12] = [
        "read(",
        "write(",
        "pread64(",
        "pwrite64(",
        "readv(",
        "writev(",
        "preadv(",
        "pwritev(",
        "preadv2(",
        "pwritev2(",
        "sendfile(",
        "copy_file_range(",
    ];
    let rest = MOVES.iter().find_map(|call| line.strip_prefix(call))?;
    let (_, file) = rest.split_once('<')?;
    if !file.starts_with('/') && !file.starts_with("pipe:") {
        return None;
    }
    let (call, _) = rest.rsplit_once(" = ")?;
    let wanted = call.trim_end().trim_end_matches(')').rsplit(", ").next()?;
    Some(wanted == "1" || wanted == "0")
}
