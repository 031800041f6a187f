//! The Helm chart: the same files, with what an installation chooses in their places.
//!
//! `deploy/chart` has `Chart.yaml` and `values.yaml` written by hand; its templates and definitions are made here. With the values that stand
//! there the chart is what `deploy/` is.

use super::files::{self, File};
use super::workload;
use crate::names;

/// A text of the files, and what stands for it in templates.
const CHOICES: [(&str, &str); 4] = [
    (names::NAMESPACE, "{{ .Release.Namespace }}"),
    (workload::IMAGE, "{{ .Values.image }}"),
    ("replicas: 2\n", "replicas: {{ .Values.replicas }}\n"),
    ("value: sandboxed-containers\n", "value: {{ .Values.extension }}\n"),
];
/// How a template begins that is only for some, by the beginning of its path.
const CONDITIONS: [(&str, &str); 2] = [
    ("operator/00-namespace", "{{- if .Values.namespace }}\n"),
    ("openshift/", "{{- if .Values.openshift }}\n"),
];
const END: &str = "{{- end }}\n";

/// Files below `deploy/chart` with their contents.
///
/// # Errors
/// None in practice: objects can be written.
pub fn all() -> Result<Vec<(String, String)>, serde_saphyr::ser::Error> {
    let mut all = Vec::new();
    for file in files::all() {
        all.push((format!("templates/{}", file.path.replace('/', "-")), template(&file)?));
    }
    for definition in peerpods_crds::all() {
        all.push((format!("crds/{}.yaml", definition.name()), definition.yaml()?));
    }
    Ok(all)
}

fn template(file: &File) -> Result<String, serde_saphyr::ser::Error> {
    // Grafana's own braces are none of Helm's.
    let mut text = file.yaml()?.replace("{{", r#"{{ "{{" }}"#);
    for (chosen, place) in CHOICES {
        text = text.replace(chosen, place);
    }
    let condition = CONDITIONS.iter().find(|(path, _)| file.path.starts_with(path));
    Ok(match condition {
        Some((_, begin)) => format!("{begin}{text}{END}"),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use serde_json::Value;

    use super::*;

    fn chart() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/chart")
    }

    #[test]
    fn the_files_of_the_chart_are_these() {
        for (path, text) in all().unwrap() {
            let there = std::fs::read_to_string(chart().join(&path)).unwrap_or_default();
            assert_eq!(there, text, "make manifests writes {path}");
        }
        for place in ["templates", "crds"] {
            let made = all().unwrap().iter().filter(|(path, _)| path.starts_with(place)).count();
            assert_eq!(std::fs::read_dir(chart().join(place)).unwrap().count(), made, "a file nobody makes");
        }
    }

    #[test]
    fn with_its_values_the_chart_is_what_deploy_is() {
        let values = std::fs::read_to_string(chart().join("values.yaml")).unwrap();
        let values: Value = serde_saphyr::from_str(&values).unwrap();
        for file in files::all() {
            let mut text = template(&file).unwrap();
            for (_, begin) in CONDITIONS {
                text = text.replace(begin, "").replace(END, "");
            }
            text = text.replace("{{ .Release.Namespace }}", names::NAMESPACE);
            for value in ["image", "replicas", "extension"] {
                let said = values[value].as_str().map_or(values[value].to_string(), str::to_owned);
                text = text.replace(&format!("{{{{ .Values.{value} }}}}"), &said);
            }
            text = text.replace(r#"{{ "{{" }}"#, "{{");
            assert_eq!(text, file.yaml().unwrap(), "{}", file.path);
        }
        assert!(values["namespace"].is_boolean() && values["openshift"].is_boolean());
    }
}
