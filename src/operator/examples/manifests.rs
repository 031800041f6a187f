//! Writes what `deploy/` holds beside the definitions: `cargo run -p peerpods-operator --example manifests -- deploy`.

use std::path::PathBuf;

use peerpods_operator::deploy::{chart, files};

/// What stands around the table of rights in the README.
const MARKS: [&str; 2] = ["<!-- rights: made by `make manifests` -->\n", "<!-- end of rights -->\n"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place: PathBuf = std::env::args_os().nth(1).ok_or("which directory?")?.into();
    for file in files::all() {
        let path = place.join(file.path);
        std::fs::create_dir_all(path.parent().ok_or("a file without a directory")?)?;
        std::fs::write(path, file.yaml()?)?;
    }
    for (path, text) in chart::all()? {
        let path = place.join("chart").join(path);
        std::fs::create_dir_all(path.parent().ok_or("a file without a directory")?)?;
        std::fs::write(path, text)?;
    }
    let readme = place.join("README.md");
    let text = std::fs::read_to_string(&readme)?;
    let lacks = || format!("{} lacks {MARKS:?}", readme.display());
    let (before, rest) = text.split_once(MARKS[0]).ok_or_else(lacks)?;
    let (_, after) = rest.split_once(MARKS[1]).ok_or_else(lacks)?;
    std::fs::write(&readme, [before, MARKS[0], &files::rights(), MARKS[1], after].concat())?;
    Ok(())
}
