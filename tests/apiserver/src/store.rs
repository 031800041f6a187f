//! The objects, the one version counter, and what changed since when. Pure state: no clock, no lock, no idea of HTTP or of kinds.
//!
//! Invariant: every change takes the next version, is written into the object's `resourceVersion`, and stays in the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::object;

/// Where an object is kept. Ordered as lists are answered: by resource, namespace, name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// `plural.group`, or the plural alone in the core group.
    pub(crate) resource: String,
    /// Empty for objects of the whole cluster.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(
        resource: impl Into<String>,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }
}

/// One change. A watch event is made of it: which one depends on what the watch selects.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) key: Key,
    /// The object before, if there was one.
    pub(crate) before: Option<Arc<Value>>,
    /// The object after; of a deleted one its last state, with the deletion's version.
    pub(crate) object: Arc<Value>,
    pub(crate) deleted: bool,
}

/// Everything the server knows.
#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    version: u64,
    log: Vec<Change>,
    /// No new watch may start before this version.
    compacted: u64,
}

impl Store {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// All objects of a resource, in one namespace or (empty) in all, in order.
    pub(crate) fn list<'a>(
        &'a self,
        resource: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        self.objects
            .range(Key::new(resource, namespace, "")..)
            .take_while(move |(key, _)| key.resource == resource)
            .filter(move |(key, _)| namespace.is_empty() || key.namespace == namespace)
    }

    /// Every object there is.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// Stores an object under the next version.
    pub(crate) fn put(&mut self, key: Key, object: Value) -> Arc<Value> {
        let object = self.stamped(object);
        let before = self.objects.insert(key.clone(), object.clone());
        self.log.push(Change { version: self.version, key, before, object: object.clone(), deleted: false });
        object
    }

    /// Removes an object. The answer is its last state.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        let object = self.stamped(Value::clone(&before));
        self.log.push(Change {
            version: self.version,
            key: key.clone(),
            before: Some(before),
            object: object.clone(),
            deleted: true,
        });
        Some(object)
    }

    /// The changes after `version`, oldest first.
    pub(crate) fn since(&self, version: u64) -> &[Change] {
        let from = self.log.partition_point(|change| change.version <= version);
        &self.log[from..]
    }

    /// From now on nobody may start from before this moment, as after etcd's compaction. Watches that run are not disturbed: they have
    /// their events in hand.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.version;
    }

    /// The oldest version from which a watch may start.
    pub(crate) fn oldest(&self) -> u64 {
        self.compacted
    }

    fn stamped(&mut self, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object::metadata(&mut object).insert("resourceVersion".into(), self.version.to_string().into());
        Arc::new(object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new("pods", "ns", name)
    }

    #[test]
    fn every_change_takes_the_next_version_and_is_logged() {
        let mut store = Store::default();
        store.put(key("a"), json!({}));
        let second = store.put(key("b"), json!({"x": 1}));
        assert_eq!(object::version(&second), "2");
        let gone = store.remove(&key("a")).unwrap();
        assert_eq!(object::version(&gone), "3");
        let log: Vec<_> = store.since(1).iter().map(|c| (c.key.name.as_str(), c.deleted)).collect();
        assert_eq!(log, [("b", false), ("a", true)]);
        assert!(store.remove(&key("a")).is_none());
        assert_eq!(store.version(), 3, "removing nothing is no change");
    }

    #[test]
    fn a_compaction_moves_the_oldest_version_and_keeps_the_log() {
        let mut store = Store::default();
        store.put(key("a"), json!({}));
        store.compact();
        store.put(key("b"), json!({}));
        assert_eq!(store.oldest(), 1);
        assert_eq!(store.since(0).len(), 2);
    }

    #[test]
    fn lists_are_of_one_resource_and_one_namespace_or_all() {
        let mut store = Store::default();
        for (resource, namespace, name) in
            [("pods", "b", "x"), ("pods", "a", "y"), ("podsx", "a", "z"), ("nodes", "", "n")]
        {
            store.put(Key::new(resource, namespace, name), json!({}));
        }
        let names = |resource, namespace| -> Vec<String> {
            store.list(resource, namespace).map(|(key, _)| key.name.clone()).collect()
        };
        assert_eq!(names("pods", ""), ["y", "x"]);
        assert_eq!(names("pods", "b"), ["x"]);
        assert_eq!(names("nodes", ""), ["n"]);
    }
}
