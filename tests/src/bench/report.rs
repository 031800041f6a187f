//! What one benchmark found: printed for whoever ran it, and kept as a JSON fragment for the table of all.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::machine::{Machine, load};
use super::row::{Row, rounded};

/// The directory for fragments; without it they are only printed.
pub const DIRECTORY: &str = "BENCH_DIR";

/// What one benchmark found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The benchmark: the name of its file, and what `ONLY=` takes.
    pub name: String,
    /// Where, and when it began.
    pub machine: Machine,
    /// Load average of the last minute, when it ended.
    pub load_after: String,
    /// What it found.
    pub rows: Vec<Row>,
    /// What a reader must know of how it was measured, a sentence each.
    pub notes: Vec<String>,
}

impl Report {
    /// A benchmark that begins now.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let machine = Machine::observe();
        Self {
            name: name.to_owned(),
            machine,
            load_after: String::new(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a line, and prints it.
    pub fn row(&mut self, row: Row) {
        println!("{}", line(&row));
        self.rows.push(row);
    }

    /// Adds a sentence on how it was measured.
    pub fn note(&mut self, sentence: impl Into<String>) {
        self.notes.push(sentence.into());
    }

    /// Ends it: prints the table and, when [`DIRECTORY`] is set, writes `NAME.json` there.
    ///
    /// # Panics
    /// When the fragment cannot be written.
    pub fn finish(mut self) {
        self.load_after = load();
        self.print();
        if let Some(dir) = std::env::var_os(DIRECTORY).map(PathBuf::from) {
            fs::create_dir_all(&dir).unwrap();
            fs::write(Self::fragment(&dir, &self.name), serde_json::to_vec_pretty(&self).unwrap()).unwrap();
        }
    }

    /// What benchmark `name` left in `dir`; none when it did not run.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn read(dir: &Path, name: &str) -> Result<Option<Self>, String> {
        let path = Self::fragment(dir, name);
        let Ok(text) = fs::read(&path) else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn fragment(dir: &Path, name: &str) -> PathBuf {
        dir.join(format!("{name}.json"))
    }

    fn print(&self) {
        let machine = &self.machine;
        println!(
            "\n{}: {}, {} cores, load {} to {}",
            self.name, machine.cpu, machine.cores, machine.load, self.load_after
        );
        let mut group = "";
        for row in &self.rows {
            if row.group != group {
                group = &row.group;
                println!("\n{group}");
            }
            println!("{}", line(row));
        }
        for note in &self.notes {
            println!("  {note}");
        }
    }
}

fn line(row: &Row) -> String {
    let mut line = format!("  {:<56} {:<44}", row.what, row.value.to_string());
    if let Some((peer, value)) = &row.peer {
        line += &format!(" {peer}: {value}");
    }
    if let Some(ratio) = row.ratio() {
        line += &format!(", ratio {}", rounded(ratio));
    }
    if let Some(aim) = &row.aim {
        line += &format!(" [{}: {}]", aim.text, if aim.met { "met" } else { "MISSED" });
    }
    line
}
