//! `peerpods crd` and `peerpods manifests`: what `deploy/` holds, printed.

use std::io::Write as _;

use peerpods_operator::deploy::files;
use peerpods_operator::deploy::workload::IMAGE;
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

/// Prints what runs the operator from an image, in the order in which it is applied.
pub(super) fn operator(output: Output, openshift: bool, image: &str) -> Result<u8, Failure> {
    let files = files::all().into_iter().filter(|file| openshift || !file.path.starts_with("openshift/"));
    let files = files.map(|mut file| {
        file.objects.iter_mut().for_each(|object| run_from(object, image));
        file
    });
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

/// Puts an image in the place of ours: of the container, and of what the operator is told.
fn run_from(value: &mut Value, image: &str) {
    match value {
        Value::String(text) if text == IMAGE => image.clone_into(text),
        Value::Array(values) => values.iter_mut().for_each(|value| run_from(value, image)),
        Value::Object(fields) => fields.values_mut().for_each(|value| run_from(value, image)),
        _ => {}
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
