//! What a path and its query ask for. Parsing only: whether the kind exists is not known here.

use std::collections::BTreeMap;

/// A path below `/api` or `/apis` that names objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty: of the whole cluster, or of all namespaces.
    pub(crate) namespace: String,
    pub(crate) plural: String,
    /// Empty for a collection.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
}

impl Target {
    /// `None` when the path names no resource, such as `/apis/apps/v1`.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let segments: Vec<_> = path.split('/').filter(|s| !s.is_empty()).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let at = |namespace: &str, plural: &str, name: &str, subresource: &str| Self {
            group: group.into(),
            version: version.into(),
            namespace: namespace.into(),
            plural: plural.into(),
            name: name.into(),
            subresource: subresource.into(),
        };
        Some(match *rest {
            // A namespace is itself an object, with subresources that are no kinds.
            ["namespaces", name, sub @ ("status" | "finalize")] => at("", "namespaces", name, sub),
            ["namespaces", namespace, plural] => at(namespace, plural, "", ""),
            ["namespaces", namespace, plural, name] => at(namespace, plural, name, ""),
            ["namespaces", namespace, plural, name, sub] => at(namespace, plural, name, sub),
            [plural] => at("", plural, "", ""),
            [plural, name] => at("", plural, name, ""),
            [plural, name, sub] => at("", plural, name, sub),
            _ => return None,
        })
    }
}

/// The query's pairs. Of a repeated one the last counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// Empty when absent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> [String; 6] {
        let t = Target::parse(path).unwrap();
        [t.group, t.version, t.namespace, t.plural, t.name, t.subresource]
    }

    #[test]
    fn paths_of_objects_collections_and_subresources() {
        for (path, expected) in [
            ("/api/v1/nodes", ["", "v1", "", "nodes", "", ""]),
            ("/api/v1/nodes/a/status", ["", "v1", "", "nodes", "a", "status"]),
            ("/api/v1/namespaces", ["", "v1", "", "namespaces", "", ""]),
            ("/api/v1/namespaces/a", ["", "v1", "", "namespaces", "a", ""]),
            ("/api/v1/namespaces/a/status", ["", "v1", "", "namespaces", "a", "status"]),
            ("/api/v1/namespaces/a/pods", ["", "v1", "a", "pods", "", ""]),
            ("/api/v1/namespaces/a/pods/p/eviction", ["", "v1", "a", "pods", "p", "eviction"]),
            ("/apis/apps/v1/namespaces/a/daemonsets/d", ["apps", "v1", "a", "daemonsets", "d", ""]),
            ("/apis/x.io/v1alpha1/things/t/status", ["x.io", "v1alpha1", "", "things", "t", "status"]),
        ] {
            assert_eq!(parsed(path), expected, "{path}");
        }
    }

    #[test]
    fn paths_that_name_no_resource() {
        for path in ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version"] {
            assert_eq!(Target::parse(path), None, "{path}");
        }
    }
}
