//! The few macros of man(7) that the pages need, and the escaping that keeps text from being one.

use std::fmt::Write as _;

/// A page under construction.
#[derive(Default)]
pub struct Roff {
    source: String,
    /// Nothing stands below the last heading yet; a paragraph begins by itself there.
    fresh: bool,
}

impl Roff {
    /// A page that begins with its title and its line for `whatis`.
    pub fn page(name: &str, section: u8, about: &str) -> Self {
        let mut page = Self::default();
        let version = env!("CARGO_PKG_VERSION");
        page.line(&format!(".TH \"{}\" {section} {} \"sasld {version}\"", escape(name), super::date()));
        page.section("NAME");
        page.line(&format!("{} \\- {}", escape(name), escape(about)));
        page
    }

    /// A line that is roff already.
    pub fn line(&mut self, roff: &str) {
        self.source.push_str(roff);
        self.source.push('\n');
        self.fresh = false;
    }

    /// A line of roff that is text, even if it begins like a macro.
    pub fn text(&mut self, roff: &str) {
        let roff = roff.trim();
        if roff.starts_with(['.', '\'']) {
            self.source.push_str("\\&");
        }
        self.line(roff);
    }

    pub fn section(&mut self, title: &str) {
        self.heading("SH", title);
    }

    pub fn subsection(&mut self, title: &str) {
        self.heading("SS", title);
    }

    fn heading(&mut self, name: &str, title: &str) {
        let _ = writeln!(self.source, ".{name} \"{}\"", title.replace('"', "\\(dq"));
        self.fresh = true;
    }

    /// What follows stands apart from what is there.
    pub fn paragraph(&mut self) {
        if !self.fresh {
            self.line(".PP");
        }
    }

    /// An entry of a list: what it is about, and what there is to say.
    pub fn entry(&mut self, tag: &str, body: &str) {
        self.line(".TP");
        self.text(tag);
        self.text(body);
    }

    /// Lines as they are.
    pub fn verbatim(&mut self, lines: &str) {
        self.paragraph();
        self.line(".RS 4");
        self.line(".nf");
        for line in lines.lines() {
            // A line of its own for an empty one: a blank line is a warning.
            if line.is_empty() { self.line(".sp") } else { self.text_kept(line) }
        }
        self.line(".fi");
        self.line(".RE");
    }

    fn text_kept(&mut self, line: &str) {
        if line.starts_with(['.', '\'']) {
            self.source.push_str("\\&");
        }
        self.line(&escape(line));
    }

    pub fn finish(self) -> String {
        self.source
    }
}

/// Text in which nothing is markup, and quotes and dashes can be copied.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '`' => escaped.push_str("\\(ga"),
            '^' => escaped.push_str("\\(ha"),
            '~' => escaped.push_str("\\(ti"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The same in bold.
pub fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escape(text))
}
