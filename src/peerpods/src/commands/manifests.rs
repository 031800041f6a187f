//! `peerpods crd` and `peerpods manifests`: what `deploy/` holds, printed.

use std::io::Write as _;

use peerpods_operator::deploy::files;
use serde_json::{Value, json};

use super::Failure;
use crate::exit;
use crate::output::Output;

/// Prints the definitions of our custom resources.
pub(super) fn definitions(output: Output) -> Result<u8, Failure> {
    let definitions = peerpods_crds::all();
    match output {
        Output::Json => list(definitions.iter().map(|one| json!(one.object)).collect()),
        Output::Text => {
            let mut text = String::new();
            for definition in &definitions {
                text.push_str("---\n");
                text.push_str(&definition.yaml()?);
            }
            print(&text)
        }
    }
}

/// Prints what runs the operator, in the order in which it is applied.
pub(super) fn operator(output: Output, openshift: bool) -> Result<u8, Failure> {
    let files = files::all().into_iter().filter(|file| openshift || !file.path.starts_with("openshift/"));
    match output {
        Output::Json => list(files.flat_map(|file| file.objects).collect()),
        Output::Text => {
            let mut text = String::new();
            for file in files {
                text.push_str(&file.yaml()?);
            }
            print(&text)
        }
    }
}

/// One document that kubectl takes.
fn list(items: Vec<Value>) -> Result<u8, Failure> {
    let whole = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    print(&(serde_json::to_string_pretty(&whole)? + "\n"))
}

fn print(text: &str) -> Result<u8, Failure> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(exit::OK)
}
