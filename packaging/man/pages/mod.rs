//! Where each manual page comes from, so that nothing is said in two places.
//!
//! - The pages of commands come from what `--help` prints ([`commands`]), and what that lacks from [`extras`].
//! - `sasld.yaml(5)`, `sasld-secrets(5)` and `sasld-log(7)` are pages of `docs/`, converted by [`markdown`].
//! - `sasld-pam(8)` is written by hand, beside this folder.
//!
//! The date is that of `SOURCE_DATE_EPOCH` if it is set, as Debian's tools do; so one source makes one page.

pub mod commands;
pub mod extras;
mod markdown;
mod roff;

use clap_complete::Shell;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Without `SOURCE_DATE_EPOCH`: when the pages were last reviewed.
const DATE: &str = "2026-11-22";

/// One finished page.
pub struct Page {
    /// Without the section: `sasld-serve`.
    pub name: String,
    pub section: u8,
    pub source: String,
}

/// A page of `docs/` that is a manual page, too.
pub struct Document {
    /// The file in `docs/`.
    pub file: &'static str,
    pub name: &'static str,
    pub section: u8,
    /// The line that `whatis` shows.
    pub about: &'static str,
}

pub const DOCUMENTS: [Document; 3] = [
    Document { file: "configuration.md", name: "sasld.yaml", section: 5, about: "configuration of sasld" },
    Document {
        file: "secrets-file.md",
        name: "sasld-secrets",
        section: 5,
        about: "who may log in through sasld",
    },
    Document {
        file: "log.md",
        name: "sasld-log",
        section: 7,
        about: "what sasld logs, and what to do about it",
    },
];

/// All pages.
///
/// # Errors
/// A source that cannot be read.
pub fn all() -> io::Result<Vec<Page>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = commands::pages();
    for document in &DOCUMENTS {
        let text = fs::read_to_string(root.join("docs").join(document.file))?;
        let source = markdown::manual_page(document, &text);
        pages.push(Page { name: document.name.to_owned(), section: document.section, source });
    }
    let pam = fs::read_to_string(root.join("packaging/man/sasld-pam.8"))?;
    pages.push(Page { name: "sasld-pam".to_owned(), section: 8, source: pam });
    Ok(pages)
}

/// Writes pages and completions into `directory`, which is made.
///
/// # Errors
/// A file that cannot be read or written.
pub fn write_all(directory: &Path) -> io::Result<()> {
    for page in all()? {
        let folder = directory.join(format!("man{}", page.section));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{}.{}", page.name, page.section)), page.source)?;
    }
    for (shell, folder, file) in
        [(Shell::Bash, "bash", "sasld"), (Shell::Zsh, "zsh", "_sasld"), (Shell::Fish, "fish", "sasld.fish")]
    {
        let folder = directory.join("completions").join(folder);
        fs::create_dir_all(&folder)?;
        let mut script = fs::File::create(folder.join(file))?;
        clap_complete::generate(shell, &mut sasld::cli::command(), "sasld", &mut script);
    }
    Ok(())
}

/// The date in the page's footer.
fn date() -> String {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let formatted = epoch.map(|seconds| {
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
    });
    formatted.and_then(|time| Some(time.split_once('T')?.0.to_owned())).unwrap_or_else(|| DATE.to_owned())
}
