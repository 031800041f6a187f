//! Which groups, versions and kinds there are, as clients ask for it; and that the server is up.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use serde_json::{Value, json};

use crate::http::{Body, document, with};
use crate::kinds::{self, Kind};
use crate::store::Store;

/// The answer to a path that names no object.
pub(crate) fn answer(store: &Store, path: &str) -> Option<Response<Body>> {
    let segments: Vec<_> = path.split('/').filter(|s| !s.is_empty()).collect();
    let value = match segments.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => {
            let body = Full::new(Bytes::from_static(b"ok")).map_err(|never| match never {}).boxed_unsync();
            return Some(with(200, "text/plain", body));
        }
        ["version"] => json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.0+peerpods.test", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "2026-11-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
        }),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ["apis"] => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(store)}),
        ["api", version] => resources(store, "", version)?,
        ["apis", group] => groups(store).into_iter().find(|found| found["name"] == **group)?,
        ["apis", group, version] => resources(store, group, version)?,
        _ => return None,
    };
    Some(document(200, &value))
}

fn groups(store: &Store) -> Vec<Value> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for kind in kinds::all(store).into_iter().filter(|kind| !kind.group.is_empty()) {
        match groups.iter_mut().find(|(group, _)| *group == kind.group) {
            Some((_, versions)) if versions.contains(&kind.version) => {}
            Some((_, versions)) => versions.push(kind.version),
            None => groups.push((kind.group, vec![kind.version])),
        }
    }
    groups.iter().map(|(group, versions)| described(group, versions)).collect()
}

fn described(group: &str, versions: &[String]) -> Value {
    let versions: Vec<_> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": group,
        "preferredVersion": versions.first(), "versions": versions,
    })
}

fn resources(store: &Store, group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<_> =
        kinds::all(store).into_iter().filter(|kind| kind.group == group && kind.version == version).collect();
    let api_version = kinds.first()?.api_version();
    let resources: Vec<_> = kinds.iter().flat_map(Kind::discovery).collect();
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}),
    )
}
