//! What came of it: tables that can be pasted into a document, the same as JSON, and pictures.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::plot::{self, Panel};

/// A column: its title, and the digits behind the point.
pub type Column = (&'static str, usize);

/// A table.
pub struct Table {
    title: String,
    columns: &'static [Column],
    rows: Vec<Row>,
}

struct Row {
    name: String,
    cells: Vec<Option<f64>>,
    /// What the first cell is the median of.
    rounds: Vec<f64>,
}

impl Table {
    pub fn new(title: impl Into<String>, columns: &'static [Column]) -> Table {
        Table { title: title.into(), columns, rows: Vec::new() }
    }

    pub fn row<const N: usize>(&mut self, name: impl Into<String>, cells: [Option<f64>; N]) {
        self.row_of_rounds(name, cells, Vec::new());
    }

    pub fn row_of_rounds<const N: usize>(
        &mut self,
        name: impl Into<String>,
        cells: [Option<f64>; N],
        rounds: Vec<f64>,
    ) {
        assert_eq!(N, self.columns.len(), "a cell for each column");
        self.rows.push(Row { name: name.into(), cells: cells.to_vec(), rounds });
    }

    fn print(&self) {
        println!("\n{}\n", self.title);
        let titles: Vec<_> = self.columns.iter().map(|(title, _)| *title).collect();
        println!("| | {} |", titles.join(" | "));
        println!("|---|{}", "--:|".repeat(titles.len()));
        for Row { name, cells, .. } in &self.rows {
            let cells = cells.iter().zip(self.columns).map(|(cell, (_, digits))| match cell {
                Some(number) if number.is_finite() => format!("{number:.digits$}"),
                _ => "-".to_owned(),
            });
            println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|Row { name, cells, rounds }| {
            let mut object = Map::new();
            object.insert("name".to_owned(), json!(name));
            object.extend(self.columns.iter().zip(cells).map(|((title, _), cell)| ((*title).to_owned(), json!(cell))));
            if !rounds.is_empty() {
                object.insert("rounds".to_owned(), json!(rounds));
            }
            Value::Object(object)
        });
        json!({ "title": self.title, "rows": rows.collect::<Vec<_>>() })
    }
}

/// All that a run has told.
#[derive(Default)]
pub struct Report {
    tables: Vec<Value>,
    panels: Vec<Panel>,
    failures: u64,
    skipped: Vec<String>,
}

impl Report {
    /// Prints a table, and keeps it.
    pub fn tell(&mut self, table: &Table) {
        table.print();
        self.tables.push(table.json());
    }

    pub fn draw(&mut self, panel: Panel) {
        self.panels.push(panel);
    }

    /// Calls that were refused, answered wrongly or not at all, and the first of them: the row they belong to is worth nothing.
    pub fn failed(&mut self, name: &str, failures: u64, first: Option<&str>) {
        if failures > 0 {
            println!("\n{name}: {failures} calls failed, the first: {}", first.unwrap_or("unknown"));
            self.failures += failures;
        }
    }

    /// Says loudly that something is not measured.
    pub fn skip(&mut self, what: &str) {
        println!("\n!!! SKIPPED {what}");
        self.skipped.push(what.to_owned());
    }

    /// Writes the files that are wanted. Says how many calls failed.
    pub fn end(self, about: &[(String, String)], json: Option<&Path>, plot: Option<&Path>) -> Result<u64> {
        if let Some(file) = plot {
            plot::write(file, &self.panels)?;
        }
        if let Some(file) = json {
            let about: Map<_, _> = about.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
            let all =
                json!({ "about": about, "tables": self.tables, "failed": self.failures, "skipped": self.skipped });
            let write =
                || Ok::<_, anyhow::Error>(serde_json::to_writer_pretty(BufWriter::new(File::create(file)?), &all)?);
            write().with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut report = Report::default();
        let mut table = Table::new("calls", &[("rate/s", 0), ("p50 us", 1)]);
        table.row_of_rounds("get", [Some(3.0), None], vec![2.0, 3.0, 4.0]);
        report.tell(&table);
        report.failed("get", 2, Some("refused"));
        report.skip("etcd");
        let folder = tempfile::tempdir().expect("a folder");
        let (json, plot) = (folder.path().join("a.json"), folder.path().join("a.svg"));
        report.draw(Panel::new(
            "calls",
            "connections",
            "calls a second",
            vec![("get".into(), vec![(1.0, 2.0), (10.0, 30.0)])],
        ));
        let failed =
            report.end(&[("processors".into(), "2".into())], Some(&json), Some(&plot)).expect("both are written");
        assert_eq!(failed, 2);
        let read: Value = serde_json::from_reader(File::open(json).expect("it is there")).expect("it is JSON");
        assert_eq!(
            read["tables"][0]["rows"][0],
            json!({ "name": "get", "rate/s": 3.0, "p50 us": null, "rounds": [2.0, 3.0, 4.0] })
        );
        assert_eq!((&read["failed"], &read["skipped"][0]), (&json!(2), &json!("etcd")));
        assert!(std::fs::read_to_string(plot).expect("it is there").starts_with("<svg"));
    }
}
