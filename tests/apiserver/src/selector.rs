//! Label and field selectors: which objects a list or watch is about.

use serde_json::Value;

use crate::kinds::Kind;
use crate::object;
use crate::refusal::Refusal;

/// What an object must be like to be seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

/// One term. For a field the key is its path.
#[derive(Debug, Clone, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    In(Vec<String>),
    /// Holds for what has no such key as well.
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let among = |list: &[String]| value.is_some_and(|value| list.iter().any(|one| one == value));
        match &self.test {
            Test::In(list) => among(list),
            Test::NotIn(list) => !among(list),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
        }
    }
}

impl Selector {
    /// Reads the two query parameters. A field that the kind cannot be selected by is refused.
    pub(crate) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Refusal> {
        let fields = terms(fields).into_iter().map(|term| field(kind, term)).collect::<Result<_, _>>()?;
        Ok(Self { labels: parse_labels(labels)?, fields })
    }

    /// A `LabelSelector` object, as webhooks and disruption budgets have it. Absent and empty ones select everything.
    pub(crate) fn of_labels(selector: &Value) -> Self {
        let equal = selector["matchLabels"].as_object().into_iter().flatten();
        let mut labels: Vec<_> = equal
            .map(|(key, value)| Requirement {
                key: key.clone(),
                test: Test::In(vec![value.as_str().unwrap_or_default().into()]),
            })
            .collect();
        for expression in object::items(selector, "/matchExpressions") {
            let values = object::strings(expression, "/values").into_iter().map(Into::into).collect();
            let test = match object::text(expression, "/operator") {
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                "Exists" => Test::Exists,
                _ => Test::Absent,
            };
            labels.push(Requirement { key: object::text(expression, "/key").into(), test });
        }
        Self { labels, fields: Vec::new() }
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|one| one.holds(labels.get(&one.key).and_then(Value::as_str)))
            && self.fields.iter().all(|one| one.holds(Some(&field_value(object, &one.key))))
    }

    /// The one name that is selected, when it is just that: RBAC takes it as the object's name.
    pub(crate) fn only_name(&self) -> Option<&str> {
        self.fields.iter().find(|one| one.key == "metadata.name").and_then(|one| match &one.test {
            Test::In(names) if names.len() == 1 => names.first().map(String::as_str),
            _ => None,
        })
    }
}

/// The terms between commas, where a comma inside parentheses is none.
fn terms(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut list) = (0_i32, 0, Vec::new());
    for (at, sign) in text.char_indices() {
        match sign {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                list.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    list.push(&text[start..]);
    list.into_iter().map(str::trim).filter(|term| !term.is_empty()).collect()
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, Refusal> {
    let bad = |term: &str| Refusal::bad_request(format!("unable to parse requirement: {term:?}"));
    let requirement = |term: &str| {
        if let Some(found) = equality(term) {
            return Ok(found);
        }
        if let Some(key) = term.strip_prefix('!') {
            return Ok(Requirement { key: key.trim().into(), test: Test::Absent });
        }
        let Some((head, list)) = term.split_once('(') else {
            let word = !term.contains(char::is_whitespace);
            return if word {
                Ok(Requirement { key: term.into(), test: Test::Exists })
            } else {
                Err(bad(term))
            };
        };
        let values = list.strip_suffix(')').ok_or_else(|| bad(term))?.split(',');
        let values = values.map(|value| value.trim().to_owned()).collect();
        match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => Ok(Requirement { key: (*key).into(), test: Test::In(values) }),
            [key, "notin"] => Ok(Requirement { key: (*key).into(), test: Test::NotIn(values) }),
            _ => Err(bad(term)),
        }
    };
    terms(text).into_iter().map(requirement).collect()
}

fn equality(term: &str) -> Option<Requirement> {
    let make = |key: &str, test| Some(Requirement { key: key.trim().into(), test });
    if term.contains('(') {
        return None;
    }
    if let Some((key, value)) = term.split_once("!=") {
        return make(key, Test::NotIn(vec![value.trim().into()]));
    }
    let (key, value) = term.split_once("==").or_else(|| term.split_once('='))?;
    make(key, Test::In(vec![value.trim().into()]))
}

fn field(kind: &Kind, term: &str) -> Result<Requirement, Refusal> {
    let requirement = equality(term)
        .ok_or_else(|| Refusal::bad_request(format!("invalid selector: {term:?}; can't understand it")))?;
    let known = ["metadata.name", "metadata.namespace"].contains(&requirement.key.as_str())
        || selectable(kind).contains(&requirement.key.as_str());
    if known {
        return Ok(requirement);
    }
    Err(Refusal::bad_request(format!("field label not supported: {}", requirement.key)))
}

fn selectable(kind: &Kind) -> Vec<&str> {
    if let Some(custom) = &kind.custom {
        return custom.selectable.iter().map(String::as_str).collect();
    }
    let list: &[&str] = match kind.kind.as_str() {
        "Pod" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "Node" => &["spec.unschedulable"],
        "Secret" => &["type"],
        "Namespace" => &["status.phase"],
        "Job" => &["status.successful"],
        "Event" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        _ => &[],
    };
    list.to_vec()
}

/// The field as text; what is not there is empty, booleans are `false`.
fn field_value(object: &Value, path: &str) -> String {
    let pointer = format!("/{}", path.replace('.', "/"));
    match object.pointer(&pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None if ["spec.unschedulable", "spec.hostNetwork"].contains(&path) => {
            "false".into()
        }
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::by_path;
    use crate::store::Store;

    fn selects(labels: &str, fields: &str, object: &Value) -> bool {
        let pods = by_path(&Store::default(), "", "v1", "pods").unwrap();
        Selector::parse(&pods, labels, fields).unwrap().matches(object)
    }

    #[test]
    fn label_terms() {
        let object = json!({"metadata": {"labels": {"a": "1", "b": ""}}});
        for (selector, expected) in [
            ("", true),
            ("a=1", true),
            ("a==1,b", true),
            ("a!=1", false),
            ("c!=1", true),
            ("a in (1, 2),!c", true),
            ("a notin (1,2)", false),
            ("c notin (1)", true),
            ("b=", true),
            ("c", false),
        ] {
            assert_eq!(selects(selector, "", &object), expected, "{selector}");
        }
    }

    #[test]
    fn fields_only_where_kubernetes_has_them() {
        let object =
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "runtimeClassName": "kata"}});
        assert!(selects("", "spec.nodeName=n,metadata.name!=q", &object));
        assert!(!selects("", "spec.nodeName=", &object));
        let pods = by_path(&Store::default(), "", "v1", "pods").unwrap();
        let refusal = Selector::parse(&pods, "", "spec.runtimeClassName=kata").unwrap_err();
        assert_eq!(refusal.message, "field label not supported: spec.runtimeClassName");
    }

    #[test]
    fn a_label_selector_object() {
        let selector = Selector::of_labels(&json!({
            "matchLabels": {"a": "1"},
            "matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["x"]}, {"key": "c", "operator": "DoesNotExist"}],
        }));
        assert!(selector.matches(&json!({"metadata": {"labels": {"a": "1"}}})));
        assert!(!selector.matches(&json!({"metadata": {"labels": {"a": "1", "b": "x"}}})));
        assert!(!selector.matches(&json!({"metadata": {"labels": {"a": "1", "c": ""}}})));
    }
}
