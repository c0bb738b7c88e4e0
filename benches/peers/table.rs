//! The report: tables in Markdown, on the terminal and in `docs/performance.md`, where each scenario has a section of its
//! own between two markers.
//!
//! A run replaces the sections of the scenarios that it ran. What stands outside the markers is written by hand, and that
//! and the other sections are left alone. A page without the markers is an error; the terminal has shown the tables by
//! then.

use std::{fmt::Display, fs, path::Path};

use crate::Outcome;

/// What one scenario has measured.
pub struct Section {
    pub scenario: &'static str,
    /// The command, the day, and how quiet the machine was.
    pub origin: String,
    pub tables: Vec<Table>,
}

pub struct Table {
    title: &'static str,
    note: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// `note` says how the numbers came about; `head` is the first row.
    pub fn new(title: &'static str, note: impl Into<String>, head: &[&str]) -> Self {
        let head = head.iter().map(|&cell| cell.to_owned()).collect();
        Self { title, note: note.into(), rows: vec![head] }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn to_markdown(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(move |row| row.get(column));
            cells.map(|cell: &String| cell.chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();

        let mut text = format!("### {}\n\n{}\n\n", self.title, self.note);
        for (index, row) in self.rows.iter().enumerate() {
            text.push_str(&line(row, &widths));
            if index == 0 {
                let dashes: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
                text.push_str(&line(&dashes, &widths));
            }
        }
        text
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<String> =
        cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
    format!("| {} |\n", padded.join(" | "))
}

impl Section {
    pub fn to_markdown(&self) -> String {
        let tables: Vec<String> = self.tables.iter().map(Table::to_markdown).collect();
        format!("{}\n\n{}", self.origin, tables.join("\n"))
    }

    /// Takes the place of the scenario's last section on this page.
    pub fn write_into(&self, page: &Path) -> Outcome<()> {
        let named = |error: &dyn Display| format!("{}: {error}", page.display());
        let text = fs::read_to_string(page).map_err(|error| named(&error))?;
        let begin = format!("<!-- measured: begin {} (written by `make bench`) -->", self.scenario);
        let end = format!("<!-- measured: end {} -->", self.scenario);
        let parts =
            text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
        let (before, after) =
            parts.ok_or_else(|| named(&format!("no line {begin:?} followed by {end:?}")))?;
        let text = format!("{before}{begin}\n\n{}\n{end}{after}", self.to_markdown());
        Ok(fs::write(page, text).map_err(|error| named(&error))?)
    }
}
