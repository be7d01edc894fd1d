//! Printing: short lines and tables for people, JSON for programs.

use std::io::{self, BufWriter, IsTerminal, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde_json::Value as Json;

use crate::args::Format;
use crate::value::visible;

/// Blanks between two columns.
const GAP: u16 = 2;

/// Where answers go, and in which form.
pub struct Output<W: Write> {
    pub format: Format,
    to: BufWriter<W>,
}

impl<W: Write> Output<W> {
    pub fn new(format: Format, to: W) -> Self {
        Self { format, to: BufWriter::new(to) }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }

    /// What a write answers: `version 12 owner_id 7`.
    pub fn line(&mut self, answer: &Json) -> io::Result<()> {
        match self.format {
            Format::Json => writeln!(self.to, "{answer}"),
            Format::Table => {
                let words: Vec<_> =
                    flatten(answer).into_iter().map(|(name, value)| format!("{name} {value}")).collect();
                writeln!(self.to, "{}", words.join(" "))
            }
        }
    }

    /// A value alone, or in JSON with all that is known about it.
    pub fn value(&mut self, text: &str, answer: &Json) -> io::Result<()> {
        match self.format {
            Format::Json => writeln!(self.to, "{answer}"),
            Format::Table => writeln!(self.to, "{text}"),
        }
    }

    /// One thing with all its fields, one below the other; lists in it follow as tables.
    pub fn record(&mut self, record: &Json) -> io::Result<()> {
        if self.format == Format::Json {
            return writeln!(self.to, "{record:#}");
        }
        let mut table = new_table();
        table.add_rows(flatten(record).into_iter().map(|(name, value)| [name, value]));
        self.table(table)?;
        for (name, list) in record.as_object().into_iter().flatten() {
            for (title, entries) in split(name, list.as_array().map(Vec::as_slice).unwrap_or_default()) {
                let rows: Vec<_> = entries.iter().map(flatten).collect();
                let mut table = new_table();
                table.set_header(rows.iter().take(1).flatten().map(|(name, _)| name.to_uppercase()));
                table.add_rows(rows.iter().map(|row| row.iter().map(|(_, value)| value)));
                writeln!(self.to, "\n{title}:")?;
                self.table(table)?;
            }
        }
        Ok(())
    }

    fn table(&mut self, mut table: Table) -> io::Result<()> {
        table.column_iter_mut().for_each(|column| _ = column.set_padding((0, GAP)));
        table.lines().try_for_each(|line| writeln!(self.to, "{}", line.trim_end()))
    }
}

/// A listing that is printed while its pages come in, so that it may be of any length.
pub struct Listing<'a, W: Write> {
    output: &'a mut Output<W>,
    header: &'static [&'static str],
    /// How wide each column of the table has been, so that it does not get narrower on the next page.
    widths: Vec<u16>,
    any: bool,
}

impl<'a, W: Write> Listing<'a, W> {
    pub fn new(output: &'a mut Output<W>, header: &'static [&'static str]) -> Self {
        Self { output, header, widths: vec![0; header.len()], any: false }
    }

    /// Prints entries, each as the cells of its row and in JSON.
    pub fn page<T>(
        &mut self,
        page: &[T],
        cells: impl Fn(&T) -> Vec<String>,
        json: impl Fn(&T) -> Json,
    ) -> io::Result<()> {
        match self.output.format {
            Format::Json => {
                for entry in page {
                    let before = if self.any { ",\n" } else { "[\n" };
                    write!(self.output.to, "{before}{}", json(entry))?;
                    self.any = true;
                }
            }
            Format::Table if !page.is_empty() || !self.any => {
                let mut table = new_table();
                if !self.any {
                    table.set_header(self.header);
                }
                table.add_rows(page.iter().map(&cells));
                for (width, now) in self.widths.iter_mut().zip(table.column_max_content_widths()) {
                    *width = (*width).max(now.saturating_add(GAP));
                }
                let all = self.widths.iter().fold(0_u16, |all, width| all.saturating_add(*width));
                if table.width().is_none_or(|terminal| all <= terminal) {
                    let widths = self.widths.iter().map(|width| ColumnConstraint::LowerBoundary(Width::Fixed(*width)));
                    table.set_constraints(widths.collect::<Vec<_>>());
                }
                self.output.table(table)?;
                self.any = true;
            }
            Format::Table => {}
        }
        // Whoever watches sees each page as it comes.
        self.output.flush()
    }

    pub fn end(self) -> io::Result<()> {
        match (self.output.format, self.any) {
            (Format::Json, true) => writeln!(self.output.to, "\n]"),
            (Format::Json, false) => writeln!(self.output.to, "[]"),
            (Format::Table, _) => Ok(()),
        }
    }
}

/// Without borders, so that `awk` and `cut` can read it too; as wide as the terminal if there is one.
fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

/// The scalars of an object with their names, those of inner objects as `outer.inner`; lists are left out.
fn flatten(json: &Json) -> Vec<(String, String)> {
    let mut flat = Vec::new();
    for (name, value) in json.as_object().into_iter().flatten() {
        match value {
            Json::Object(_) => {
                flat.extend(flatten(value).into_iter().map(|(inner, value)| (format!("{name}.{inner}"), value)));
            }
            Json::Array(_) => {}
            Json::Null => flat.push((name.clone(), "-".to_owned())),
            Json::String(text) if text.is_empty() => flat.push((name.clone(), "-".to_owned())),
            Json::String(text) => flat.push((name.clone(), visible(text))),
            Json::Bool(_) | Json::Number(_) => flat.push((name.clone(), value.to_string())),
        }
    }
    flat
}

/// A list as tables that are not too wide: if its entries have inner objects, one table for each of those.
fn split(name: &str, entries: &[Json]) -> Vec<(String, Vec<Json>)> {
    let fields = |entry: &Json| entry.as_object().cloned().unwrap_or_default();
    let Some(first) = entries.first().map(fields) else { return Vec::new() };
    let inner: Vec<_> = first.iter().filter(|(_, value)| value.is_object()).map(|(name, _)| name).collect();
    if inner.is_empty() {
        return vec![(name.to_owned(), entries.to_vec())];
    }
    let only = |entry: &Json, kept: &str| {
        let scalars = fields(entry).into_iter().filter(|(_, value)| !value.is_object());
        scalars.chain(fields(&entry[kept])).collect::<Json>()
    };
    inner
        .into_iter()
        .map(|kept| (format!("{name}.{kept}"), entries.iter().map(|entry| only(entry, kept)).collect()))
        .collect()
}

#[cfg(test)]
mod tests;
