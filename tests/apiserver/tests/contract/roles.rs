//! Clients that may not do everything.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::place::{Place, create, parse, refusal};

fn rules(value: Value) -> Vec<PolicyRule> {
    parse(value)
}

#[tokio::test]
async fn a_client_with_rules_does_what_they_say_and_no_more() {
    let Some((place, server)) =
        Place::with_server("a_client_with_rules_does_what_they_say_and_no_more").await
    else {
        return;
    };
    place.map("a", json!({})).await;
    let client = server
        .client_with_role(
            "reader",
            &rules(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]}])),
        )
        .unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, &place.namespace);
    assert!(maps.get("a").await.is_ok());
    let refused = maps.list(&ListParams::default()).await.unwrap_err();
    let expected = format!(
        "cannot list resource \"configmaps\" in API group \"\" in the namespace {:?}",
        place.namespace
    );
    assert!(refused.to_string().contains(&expected), "{refused}");
}

#[tokio::test]
async fn an_account_has_what_its_bindings_give_it() {
    let Some((place, server)) = Place::with_server("an_account_has_what_its_bindings_give_it").await else {
        return;
    };
    let client = server.client_as(&place.namespace, "operator").unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &place.namespace);
    let elsewhere: Api<ConfigMap> = Api::namespaced(client, "default");
    assert_eq!(refusal(maps.list(&ListParams::default()).await), (403, "Forbidden".into()));
    let subject = json!([{"kind": "ServiceAccount", "name": "operator", "namespace": place.namespace}]);
    let reference =
        |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "maps"});
    let rule =
        |verbs: &[&str]| json!({"rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["configmaps"]}]});
    create(&Api::<ClusterRole>::all(place.client.clone()), "maps", rule(&["list"])).await;
    create(
        &Api::<ClusterRoleBinding>::all(place.client.clone()),
        "maps",
        json!({"subjects": subject, "roleRef": reference("ClusterRole")}),
    )
    .await;
    create(&place.api::<Role>(), "maps", rule(&["patch"])).await;
    create(&place.api::<RoleBinding>(), "maps", json!({"subjects": subject, "roleRef": reference("Role")}))
        .await;
    assert!(maps.list(&ListParams::default()).await.is_ok());
    assert!(elsewhere.list(&ListParams::default()).await.is_ok());
    let apply = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    let refused = maps.patch("a", &PatchParams::apply("x"), &apply).await;
    assert_eq!(refusal(refused).0, 403, "an apply that creates needs the right to create");
    place.map("a", json!({})).await;
    assert!(maps.patch("a", &PatchParams::apply("x"), &apply).await.is_ok());
    assert_eq!(refusal(elsewhere.patch("a", &PatchParams::apply("x"), &apply).await).0, 403);
}
