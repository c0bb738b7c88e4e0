//! A page of `docs/` as a manual page.
//!
//! Headings become sections, code bold, tables lists (a manual page is too narrow for four columns): the first column
//! is what the entry is about, the others follow with their headings. A link keeps its text and names the page it leads
//! to, if that is another one. Whatever else Markdown has, the pages do not use it, and a test would see it missing.

use super::roff::{Roff, bold, escape};
use super::{DOCUMENTS, Document};
use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// Other pages, by the name of their file.
const OTHER_PAGES: [(&str, &str); 1] = [("pam.md", "sasld-pam(8)")];

/// `text`, which is the file that `document` names, as a man(7) source.
pub fn manual_page(document: &Document, text: &str) -> String {
    let mut page = Page {
        roff: Roff::page(document.name, document.section, document.about),
        inline: String::new(),
        fonts: vec!['R'],
        links: Vec::new(),
        lists: Vec::new(),
        code_block: None,
        table: None,
        document,
    };
    page.roff.section("DESCRIPTION");
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        page.event(event);
    }
    page.roff.section("SEE ALSO");
    let mut others: Vec<String> =
        vec![bold("sasld") + "(8)", bold("sasld-check") + "(8)", bold("sasld-user") + "(8)"];
    others.extend(DOCUMENTS.iter().filter(|other| other.name != document.name).map(reference));
    others.push(bold("sasld-pam") + "(8)");
    page.roff.text(&others.join(", "));
    page.roff.finish()
}

fn reference(document: &Document) -> String {
    format!("{}({})", bold(document.name), document.section)
}

struct Page<'a> {
    roff: Roff,
    /// The paragraph, heading or cell under construction.
    inline: String,
    /// The font in force, last, and those around it.
    fonts: Vec<char>,
    links: Vec<String>,
    /// The number of the next item for each list that is open; none for bullets.
    lists: Vec<Option<u64>>,
    code_block: Option<String>,
    table: Option<Table>,
    document: &'a Document,
}

#[derive(Default)]
struct Table {
    headings: Vec<String>,
    row: Vec<String>,
}

impl Page<'_> {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code_block {
                Some(block) => block.push_str(&text),
                None => self.inline.push_str(&plain(&text)),
            },
            Event::Code(code) => {
                self.font('B');
                self.inline.push_str(&escape(&code));
                self.unfont();
            }
            Event::SoftBreak | Event::HardBreak => self.inline.push(' '),
            other => panic!("{}: no manual page can have {other:?}", self.document.file),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented) => {
                self.code_block = Some(String::new());
            }
            Tag::List(first) => {
                self.flush_item();
                if !self.lists.is_empty() {
                    self.roff.line(".RS");
                }
                self.lists.push(first);
            }
            Tag::Item => match self.lists.last_mut() {
                Some(Some(number)) => {
                    let line = format!(".IP {number}. 4");
                    *number += 1;
                    self.roff.line(&line);
                }
                _ => self.roff.line(".IP \\(bu 2"),
            },
            Tag::Table(_) => self.table = Some(Table::default()),
            Tag::Emphasis => self.font('I'),
            Tag::Strong => self.font('B'),
            Tag::Link { dest_url, .. } => self.links.push(dest_url.into_string()),
            Tag::Paragraph | Tag::Heading { .. } | Tag::TableHead | Tag::TableRow | Tag::TableCell => {}
            other => panic!("{}: no manual page can have {other:?}", self.document.file),
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(HeadingLevel::H1) => self.inline.clear(), // NAME says it
            TagEnd::Heading(HeadingLevel::H2) => {
                let title = upper_case(&std::mem::take(&mut self.inline));
                self.roff.section(&title);
            }
            TagEnd::Heading(_) => {
                let title = std::mem::take(&mut self.inline);
                self.roff.subsection(&title);
            }
            TagEnd::Paragraph if self.lists.is_empty() => {
                self.roff.paragraph();
                self.flush_item();
            }
            TagEnd::Paragraph | TagEnd::Item => self.flush_item(),
            TagEnd::List(_) => {
                self.lists.pop();
                if !self.lists.is_empty() {
                    self.roff.line(".RE");
                }
            }
            TagEnd::CodeBlock => {
                let block = self.code_block.take().unwrap_or_default();
                self.roff.verbatim(&block);
            }
            TagEnd::Emphasis | TagEnd::Strong => self.unfont(),
            TagEnd::Link => self.end_link(),
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.inline);
                self.table.get_or_insert_default().row.push(cell);
            }
            TagEnd::TableHead => {
                let table = self.table.get_or_insert_default();
                table.headings = std::mem::take(&mut table.row);
            }
            TagEnd::TableRow => self.end_row(),
            TagEnd::Table => self.table = None,
            _ => {}
        }
    }

    /// The text of a list's item may stand in a paragraph of its own, or not.
    fn flush_item(&mut self) {
        let text = std::mem::take(&mut self.inline);
        if !text.is_empty() {
            self.roff.text(&text);
        }
    }

    fn end_link(&mut self) {
        let target = self.links.pop().unwrap_or_default();
        let file = target.split('#').next().unwrap_or_default();
        let name = file.rsplit('/').next().unwrap_or_default();
        if let Some(document) = DOCUMENTS.iter().find(|document| document.file == name) {
            self.inline.push_str(&format!(" ({})", reference(document)));
        } else if let Some((_, page)) = OTHER_PAGES.iter().find(|(file, _)| *file == name) {
            self.inline.push_str(&format!(" ({})", escape(page)));
        } else if !file.is_empty() {
            self.inline.push_str(&format!(" ({})", escape(file)));
        }
    }

    fn end_row(&mut self) {
        let table = self.table.get_or_insert_default();
        let row = std::mem::take(&mut table.row);
        let mut cells = row.iter().zip(&table.headings);
        let Some((tag, _)) = cells.next() else { return };
        let rest: Vec<_> = cells.filter(|(cell, _)| !cell.is_empty()).collect();
        let lines: Vec<String> = match rest.as_slice() {
            [(only, _)] if row.len() == 2 => vec![(*only).clone()],
            several => several.iter().map(|(cell, heading)| format!("\\fI{heading}:\\fR {cell}")).collect(),
        };
        self.roff.entry(tag, &lines.join("\n.br\n"));
    }

    fn font(&mut self, font: char) {
        self.fonts.push(font);
        self.inline.push_str(&format!("\\f{font}"));
    }

    fn unfont(&mut self) {
        self.fonts.pop();
        let before = self.fonts.last().copied().unwrap_or('R');
        self.inline.push_str(&format!("\\f{before}"));
    }
}

/// Text of a sentence: a dash in it is a dash.
fn plain(text: &str) -> String {
    escape(text).replace("\\-", "-")
}

/// A heading in capitals, but not the code in it.
fn upper_case(heading: &str) -> String {
    let mut parts = heading.split("\\fB");
    let mut all = parts.next().unwrap_or_default().to_uppercase();
    for part in parts {
        let (code, text) = part.split_once("\\fR").unwrap_or((part, ""));
        all += &format!("\\fB{code}\\fR{}", text.to_uppercase());
    }
    all
}
