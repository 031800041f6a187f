//! The `AdmissionReview`: what a webhook is asked, and what its answer means. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::hooks::Hook;
use crate::refusal::Refusal;
use crate::write::Call;

/// What a webhook is asked about.
pub(super) struct Question<'a> {
    pub(super) call: &'a Call,
    pub(super) operation: &'static str,
    pub(super) user: &'a str,
    pub(super) name: &'a str,
    pub(super) object: Option<Value>,
    pub(super) before: Option<Value>,
}

impl Question<'_> {
    /// The review to send.
    pub(super) fn review(&self, uid: &str) -> Value {
        let kind = &self.call.kind;
        let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let gvr = json!({"group": kind.group, "version": kind.version, "resource": kind.plural});
        // The name of an object that is still to be named is not known yet.
        let unnamed = self.object.as_ref().is_some_and(|object| crate::object::name(object).is_empty());
        let mut request = json!({
            "uid": uid, "kind": gvk, "resource": gvr, "requestKind": gvk, "requestResource": gvr,
            "operation": self.operation, "userInfo": {"username": self.user, "groups": ["system:authenticated"]},
            "object": self.object, "oldObject": self.before, "dryRun": self.call.dry_run,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": self.options()},
        });
        if !unnamed {
            request["name"] = self.name.into();
        }
        if kind.is_namespaced() {
            request["namespace"] = self.call.namespace.clone().into();
        }
        if !self.call.subresource.is_empty() {
            request["subResource"] = self.call.subresource.clone().into();
            request["requestSubResource"] = self.call.subresource.clone().into();
        }
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
    }

    fn options(&self) -> &'static str {
        match self.operation {
            "CREATE" => "CreateOptions",
            "UPDATE" => "UpdateOptions",
            _ => "DeleteOptions",
        }
    }
}

/// What an answer says.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Allowed,
    /// With these changes.
    Patched(json_patch::Patch),
    Denied(Refusal),
    /// It is no answer to what was asked.
    Unusable(String),
}

/// Reads an answer.
pub(super) fn verdict(hook: &Hook, uid: &str, answer: &Value) -> Verdict {
    let response = &answer["response"];
    if answer["kind"] != "AdmissionReview" || response["uid"] != uid {
        return Verdict::Unusable(format!("expected a response with uid {uid:?}, got {answer}"));
    }
    if response["allowed"] != true {
        return Verdict::Denied(denied(hook, &response["status"]));
    }
    let Some(patch) = response["patch"].as_str() else { return Verdict::Allowed };
    if response["patchType"] != "JSONPatch" {
        return Verdict::Unusable("the patch is of no known type".into());
    }
    let decoded = STANDARD.decode(patch).map_err(|error| error.to_string());
    match decoded.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string())) {
        Ok(patch) => Verdict::Patched(patch),
        Err(error) => Verdict::Unusable(format!("the patch cannot be read: {error}")),
    }
}

fn denied(hook: &Hook, status: &Value) -> Refusal {
    let said = |field: &str| status[field].as_str().filter(|text| !text.is_empty());
    let why = said("message")
        .or_else(|| said("reason"))
        .map_or_else(|| " without explanation".into(), |why| format!(": {why}"));
    let code = status["code"]
        .as_u64()
        .and_then(|code| u16::try_from(code).ok())
        .filter(|code| *code >= 400)
        .unwrap_or(400);
    let reason = match said("reason") {
        Some("Forbidden") => "Forbidden",
        Some("Invalid") => "Invalid",
        Some("BadRequest") => "BadRequest",
        Some("Conflict") => "Conflict",
        _ => "",
    };
    Refusal::new(code, reason, format!("admission webhook {:?} denied the request{why}", hook.name))
}

/// Applies a webhook's patch. False when it changed nothing.
pub(super) fn patched(hook: &Hook, object: &mut Value, patch: &json_patch::Patch) -> Result<bool, Refusal> {
    let before = object.clone();
    json_patch::patch(object, patch).map_err(|error| {
        Refusal::internal(format!("failed to apply the patch of admission webhook {:?}: {error}", hook.name))
    })?;
    Ok(before != *object)
}
