//! The reports of all benchmarks as one Markdown document.

use std::fmt::Write as _;

use super::report::Report;
use super::row::{Row, rounded};

const HEAD: &str =
    "| What | Measured | Compared with | Ratio | Aim | Upstream |\n|---|---|---|---|---|---|\n";

/// The document. `how` says how to repeat it, in Markdown.
#[must_use]
pub fn document(reports: &[Report], how: &str) -> String {
    let mut text = String::from("# Benchmarks\n\n");
    let Some(first) = reports.first() else { return text + "None has run.\n" };
    let machine = &first.machine;
    let _ = write!(
        text,
        "Machine: {}, {} cores, {} GiB, Linux {}, QEMU {}. Begun {}, commit {}.\n\n{how}\n",
        machine.cpu,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        machine.qemu,
        machine.date,
        machine.commit
    );
    for report in reports {
        section(&mut text, report);
    }
    text
}

fn section(text: &mut String, report: &Report) {
    let _ = write!(
        text,
        "\n## {}\n\nLoad average {} to {}.",
        report.name, report.machine.load, report.load_after
    );
    for note in &report.notes {
        let _ = write!(text, " {note}");
    }
    text.push_str("\n\n");
    let mut groups: Vec<&str> = Vec::new();
    for row in &report.rows {
        if !groups.contains(&row.group.as_str()) {
            groups.push(&row.group);
        }
    }
    for group in groups {
        let _ = write!(text, "**{group}**\n\n{HEAD}");
        report.rows.iter().filter(|row| row.group == group).for_each(|row| text.push_str(&line(row)));
        text.push('\n');
    }
}

fn line(row: &Row) -> String {
    let peer = row.peer.as_ref().map(|(name, value)| format!("{name}: {value}"));
    let aim =
        row.aim.as_ref().map(|aim| format!("{}: {}", aim.text, if aim.met { "met" } else { "**missed**" }));
    let cells = [
        row.what.clone(),
        row.value.to_string(),
        peer.unwrap_or_default(),
        row.ratio().map(rounded).unwrap_or_default(),
        aim.unwrap_or_default(),
        row.upstream.clone().unwrap_or_default(),
    ];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

#[cfg(test)]
mod tests {
    use super::super::row::{Aim, Unit, Value};
    use super::*;

    #[test]
    fn a_document_has_every_row_under_its_group() {
        let mut report = Report::new("start");
        let value = |n| Value::single(Unit::Millis, n);
        report.row(Row::new("one", "a|b", value(3.0)).against("alone", value(2.0)));
        report.row(Row::new("two", "c", value(7.0)).aim(Aim::new("none", false)).upstream("much"));
        report.row(Row::new("one", "d", value(4.0)));
        let text = document(&[report], "Run it.");
        let order = ["# Benchmarks", "Run it.", "## start", "**one**", "a\\|b", "| d |", "**two**", "| c |"];
        let places: Vec<_> =
            order.iter().map(|piece| text.find(piece).unwrap_or_else(|| panic!("{piece}"))).collect();
        assert!(places.is_sorted(), "{places:?}\n{text}");
        assert!(text.contains("| a\\|b | 3.00 ms | alone: 2.00 ms | 1.50 |  |  |"), "{text}");
        assert!(text.contains("| c | 7.00 ms |  |  | none: **missed** | much |"), "{text}");
    }
}
