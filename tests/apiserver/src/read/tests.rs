use super::*;
use crate::kinds::by_path;

fn pods() -> Kind {
    by_path(&Store::default(), "", "v1", "pods").unwrap()
}

fn store(names: &[&str]) -> Store {
    let mut store = Store::default();
    for name in names {
        let pod = json!({"metadata": {"name": name, "namespace": "ns", "labels": {"first": name[..1]}}});
        store.put(pods().key("ns", name), pod);
    }
    store
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(crate::object::name).collect()
}

#[test]
fn pages_follow_each_other_until_there_is_no_token() {
    let store = store(&["a", "b", "c"]);
    let first = list(&store, &pods(), "ns", &Query::parse("limit=2"), Form::Whole).unwrap();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("limit", "2")
        .append_pair("continue", token)
        .finish();
    let second = list(&store, &pods(), "ns", &Query::parse(&query), Form::Whole).unwrap();
    assert_eq!(names(&second), ["c"]);
    assert!(second["metadata"].get("continue").is_none());
}

#[test]
fn a_token_from_before_a_compaction_has_expired() {
    let mut store = store(&["a", "b", "c"]);
    let first = list(&store, &pods(), "ns", &Query::parse("limit=1"), Form::Whole).unwrap();
    store.put(pods().key("ns", "d"), json!({}));
    store.compact();
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("continue", first["metadata"]["continue"].as_str().unwrap())
        .finish();
    let refusal = list(&store, &pods(), "ns", &Query::parse(&query), Form::Whole).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (410, "Expired"));
}

#[test]
fn a_version_that_has_not_been_is_refused() {
    let refusal =
        list(&store(&["a"]), &pods(), "", &Query::parse("resourceVersion=99"), Form::Whole).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (504, "Timeout"));
}

#[test]
fn metadata_alone_has_no_spec() {
    let shown = get(&store(&["a"]), &pods(), "ns", "a", Form::Metadata).unwrap();
    assert_eq!(shown["kind"], "PartialObjectMetadata");
    assert_eq!(shown["metadata"]["name"], "a");
}

#[test]
fn a_watch_sees_objects_come_into_and_leave_its_selection() {
    let mut store = store(&[]);
    let watched = Watched {
        kind: pods(),
        namespace: "ns".into(),
        selector: Selector::parse(&pods(), "on=yes", "").unwrap(),
        form: Form::Whole,
    };
    let labelled = |on: &str| json!({"metadata": {"name": "a", "labels": {"on": on}}});
    for on in ["no", "yes", "yes", "no", "no"] {
        store.put(pods().key("ns", "a"), labelled(on));
    }
    store.put(pods().key("other", "a"), labelled("yes"));
    let words: Vec<_> =
        store.since(0).iter().filter_map(|change| watched.event(change)).map(|e| e["type"].clone()).collect();
    assert_eq!(words, ["ADDED", "MODIFIED", "DELETED"]);
}
