//! The report: tables in Markdown, on the terminal and between two markers in `docs/performance.md`.
//!
//! What stands outside the markers is written by hand and left alone. A page without markers is an error, and then
//! nothing is written; the terminal has shown the tables by then.

use std::{fs, path::Path};

use crate::Outcome;

const BEGIN: &str = "<!-- measured: begin (written by `make bench`) -->";
const END: &str = "<!-- measured: end -->";

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

/// Puts `machine` and the tables between the markers of the page.
pub fn write_page(page: &Path, machine: &[String], tables: &[Table]) -> Outcome<()> {
    let text = fs::read_to_string(page).map_err(|e| format!("{}: {e}", page.display()))?;
    let parts = text.split_once(BEGIN).zip(text.split_once(END));
    let Some(((before, _), (_, after))) = parts else {
        return Err(format!("{}: no line {BEGIN:?} followed by {END:?}", page.display()).into());
    };
    let machine: String = machine.iter().map(|line| format!("- {line}\n")).collect();
    let tables: Vec<String> = tables.iter().map(Table::to_markdown).collect();
    let tables = tables.join("\n");
    Ok(fs::write(page, format!("{before}{BEGIN}\n\n{machine}\n{tables}\n{END}{after}"))?)
}
