//! Printing: short lines and tables for people, JSON for programs.

use std::io::{self, BufWriter, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde_json::Value as Json;

use crate::args::Format;
use crate::value::visible;

/// Blanks between two columns.
const GAP: u16 = 2;

/// Narrower than this no column is made, and one that is no wider is not wrapped.
const NARROWEST: u16 = 12;

/// Where answers go, and in which form.
pub struct Output<W: Write> {
    pub format: Format,
    /// Columns of the terminal; None if it is none, where lines have any length.
    width: Option<u16>,
    to: BufWriter<W>,
}

impl<W: Write> Output<W> {
    pub fn new(format: Format, width: Option<u16>, to: W) -> Self {
        Self { format, width, to: BufWriter::new(to) }
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
        self.fields(&flatten(record))?;
        for (name, list) in record.as_object().into_iter().flatten() {
            for (title, entries) in split(name, list.as_array().map(Vec::as_slice).unwrap_or_default()) {
                let rows: Vec<_> = entries.iter().map(flatten).collect();
                let header: Vec<_> = rows.iter().take(1).flatten().map(|(name, _)| name.to_uppercase()).collect();
                let header: Vec<_> = header.iter().map(String::as_str).collect();
                let cells = |row: &Vec<(String, String)>| row.iter().map(|(_, value)| value.clone()).collect();
                let rows: Vec<_> = rows.iter().map(cells).collect();
                writeln!(self.to, "\n{title}:")?;
                Grid::new(&header).print(self, &rows)?;
            }
        }
        Ok(())
    }

    /// Names and values, one below the other. A terminal breaks what is too long, and copies it in one piece.
    fn fields<N: AsRef<str>>(&mut self, fields: &[(N, String)]) -> io::Result<()> {
        let name_width = fields.iter().map(|(name, _)| name.as_ref().len()).max().unwrap_or_default();
        fields.iter().try_for_each(|(name, value)| {
            let line = format!("{:name_width$}  {value}", name.as_ref());
            writeln!(self.to, "{}", line.trim_end())
        })
    }
}

/// Columns of the terminal, if stdout is one.
pub fn terminal_width() -> Option<u16> {
    // One that does not know says 0.
    Table::new().width().filter(|width| *width > 0)
}

/// A table that is printed piece by piece. Without borders, so that `awk` and `cut` can read it too.
struct Grid<'a> {
    header: &'a [&'a str],
    /// How wide each column has been with its gap, so that it does not get narrower with the next piece.
    widths: Vec<u16>,
    state: State,
}

/// What has been printed: decides how it goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    Table,
    /// The terminal is too narrow for a table: each row is a block of lines.
    Blocks,
}

/// How a piece is to be printed.
enum Layout {
    Whole,
    /// With those columns wrapped, where true.
    Wrapped(Vec<bool>),
    Blocks,
}

impl<'a> Grid<'a> {
    fn new(header: &'a [&'a str]) -> Self {
        Self { header, widths: vec![0; header.len()], state: State::Empty }
    }

    fn print<W: Write>(&mut self, output: &mut Output<W>, rows: &[Vec<String>]) -> io::Result<()> {
        if rows.is_empty() && self.state != State::Empty {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.state == State::Empty {
            table.set_header(self.header);
        }
        table.add_rows(rows);
        table.column_iter_mut().for_each(|column| _ = column.set_padding((0, GAP)));
        for (width, now) in self.widths.iter_mut().zip(table.column_max_content_widths()) {
            *width = (*width).max(now.saturating_add(GAP));
        }
        let wrapped = match self.layout(output.width, rows) {
            Layout::Blocks => return self.blocks(output, rows),
            Layout::Whole => vec![false; self.widths.len()],
            Layout::Wrapped(wrapped) => {
                table.set_content_arrangement(ContentArrangement::Dynamic);
                // The last column's gap is trimmed.
                table.set_width(output.width.unwrap_or_default().saturating_add(GAP));
                wrapped
            }
        };
        for ((column, width), wrapped) in table.column_iter_mut().zip(&self.widths).zip(wrapped) {
            let least = if wrapped { NARROWEST + GAP } else { *width };
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
        }
        self.state = State::Table;
        table.lines().try_for_each(|line| writeln!(output.to, "{}", line.trim_end()))
    }

    /// Numbers are never broken: who copies one wants all of it.
    fn layout(&self, terminal: Option<u16>, rows: &[Vec<String>]) -> Layout {
        let fits = |widths: &mut dyn Iterator<Item = u16>| {
            let all = widths.fold(0_u16, u16::saturating_add).saturating_sub(GAP);
            terminal.is_none_or(|terminal| all <= terminal)
        };
        let number = |cell: &String| cell.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let numbers = |column: usize| rows.iter().filter_map(|row| row.get(column)).all(number);
        let wrapped: Vec<_> =
            (0_usize..).zip(&self.widths).map(|(i, width)| *width > NARROWEST + GAP && !numbers(i)).collect();
        let least = |(width, wrapped): (&u16, &bool)| if *wrapped { NARROWEST + GAP } else { *width };
        match self.state {
            State::Blocks => Layout::Blocks,
            _ if fits(&mut self.widths.iter().copied()) => Layout::Whole,
            _ if fits(&mut self.widths.iter().zip(&wrapped).map(least)) => Layout::Wrapped(wrapped),
            State::Empty if !rows.is_empty() => Layout::Blocks,
            State::Empty | State::Table => Layout::Whole,
        }
    }

    fn blocks<W: Write>(&mut self, output: &mut Output<W>, rows: &[Vec<String>]) -> io::Result<()> {
        let names: Vec<_> = self.header.iter().map(|name| name.to_lowercase()).collect();
        for row in rows {
            if self.state == State::Blocks {
                writeln!(output.to)?;
            }
            self.state = State::Blocks;
            output.fields(&names.iter().zip(row.iter().cloned()).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// A listing that is printed while its pages come in, so that it may be of any length.
pub struct Listing<'a, W: Write> {
    output: &'a mut Output<W>,
    grid: Grid<'static>,
    any: bool,
}

impl<'a, W: Write> Listing<'a, W> {
    pub fn new(output: &'a mut Output<W>, header: &'static [&'static str]) -> Self {
        Self { output, grid: Grid::new(header), any: false }
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
            Format::Table => self.grid.print(self.output, &page.iter().map(&cells).collect::<Vec<_>>())?,
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
