//! `x-kubernetes-validations`: rules in CEL. A rule that our part of CEL cannot express is **not evaluated**.

use serde_json::Value;

use super::property;
use crate::cel::Program;
use crate::object;
use crate::refusal::Fault;

/// Every rule that does not hold of the object, or of a part of it that changed.
pub(super) fn faults(schema: &Value, before: Option<&Value>, after: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    check(schema, "", before, after, &mut faults);
    faults
}

fn check(schema: &Value, at: &str, before: Option<&Value>, after: &Value, faults: &mut Vec<Fault>) {
    // What did not change was taken by an older definition, and passes.
    if before == Some(after) {
        return;
    }
    let rules = object::items(schema, "/x-kubernetes-validations").iter();
    faults.extend(rules.filter_map(|rule| broken(rule, at, before, after)));
    match after {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(below) = property(schema, name) {
                    let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                    check(below, &path, before.and_then(|before| before.get(name)), value, faults);
                }
            }
        }
        Value::Array(items) => {
            let keys = object::strings(schema, "/x-kubernetes-list-map-keys");
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], &format!("{at}[{index}]"), same(&keys, before, item), item, faults);
            }
        }
        _ => {}
    }
}

/// The item as it was, where a list says by which keys it is the same.
fn same<'a>(keys: &[&str], before: Option<&'a Value>, item: &Value) -> Option<&'a Value> {
    let old = before?.as_array().filter(|_| !keys.is_empty())?;
    old.iter().find(|old| keys.iter().all(|key| old.get(key) == item.get(key)))
}

fn broken(rule: &Value, at: &str, before: Option<&Value>, after: &Value) -> Option<Fault> {
    let text = object::text(rule, "/rule");
    let program = Program::parse(text).ok()?;
    let mut scope = [("self".to_owned(), after.clone())].into_iter().collect::<crate::cel::Scope>();
    // A rule about a change says nothing where there was nothing.
    if text.contains("oldSelf") {
        scope.insert("oldSelf".into(), before?.clone());
    }
    let shown: Value = match after {
        Value::Object(_) => "object".into(),
        Value::Array(_) => "array".into(),
        plain => plain.clone(),
    };
    let why = match program.holds(&scope) {
        Ok(true) => return None,
        Ok(false) => rule["message"].as_str().map_or_else(|| format!("failed rule: {text}"), str::to_owned),
        Err(error) => format!("rule evaluation error: {error} ({text})"),
    };
    Some(Fault::invalid(at, &shown, &why))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(before: Option<Value>, after: Value) -> Vec<(String, String)> {
        let requirement = json!({"type": "object", "x-kubernetes-validations": [{
            "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
            "message": "In needs values",
        }]});
        let schema = json!({"properties": {"spec": {
            "properties": {"list": {"items": requirement}, "fixed": {}},
            "x-kubernetes-validations": [
                {"rule": "self.fixed == oldSelf.fixed", "message": "fixed is fixed"},
                {"rule": "url(self.fixed).isUrl()"},
            ],
        }}});
        let found = faults(&schema, before.as_ref(), &after);
        found.into_iter().map(|fault| (fault.field, fault.says)).collect()
    }

    #[test]
    fn a_broken_rule_is_told_where_it_is_broken() {
        let bad = json!({"spec": {"list": [{"operator": "Exists"}, {"operator": "In", "values": []}]}});
        let expected = ("spec.list[1]".to_owned(), "Invalid value: \"object\": In needs values".to_owned());
        assert_eq!(said(None, bad), [expected]);
    }

    #[test]
    fn a_rule_about_a_change_is_asked_at_a_change_only() {
        let of = |fixed: &str| json!({"spec": {"fixed": fixed}});
        assert!(said(None, of("a")).is_empty());
        assert!(said(Some(of("a")), of("a")).is_empty());
        assert_eq!(said(Some(of("a")), of("b"))[0].1, "Invalid value: \"object\": fixed is fixed");
    }
}
