//! Writes the definitions into a directory: `cargo run -p peerpods-crds --example write -- deploy/crds`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place: PathBuf = std::env::args_os().nth(1).ok_or("which directory?")?.into();
    std::fs::create_dir_all(&place)?;
    for definition in peerpods_crds::all() {
        std::fs::write(place.join(format!("{}.yaml", definition.name())), definition.yaml()?)?;
    }
    Ok(())
}
