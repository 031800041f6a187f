//! Why a pod of ours does not get on: what its program said when it ended, or what the kubelet says. Pure; which pods are looked at, and what
//! follows, is others' business.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

/// Where our programs say why they failed; the kubelet hands it on in the pod's status.
pub const REASON_FILE: &str = "/dev/termination-log";

/// Reasons for which a container waits, and which end only when somebody does something.
const STUCK: [&str; 8] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// Whether a pod is ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// Why a pod does not get on; nothing of one that does, and of one that is ready.
#[must_use]
pub fn why(pod: &Pod) -> Option<String> {
    if is_ready(pod) {
        return None;
    }
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    told(container).or_else(|| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().filter(|reason| STUCK.contains(reason))?;
        Some(format!("{reason}: {}", waiting.message.as_deref().unwrap_or("the kubelet says no more")))
    })
}

/// What the program itself said when it ended last.
fn told(container: &ContainerStatus) -> Option<String> {
    let ended = |state: &Option<ContainerState>| {
        let ended = state.as_ref()?.terminated.clone()?;
        let message = ended.message.filter(|message| !message.trim().is_empty());
        (ended.exit_code != 0).then(|| {
            message.map_or(format!("ended with status {}", ended.exit_code), |text| text.trim().to_owned())
        })
    };
    ended(&container.state).or_else(|| ended(&container.last_state))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(ready: &str, state: &Value, last: &Value) -> Pod {
        let container = json!({
            "name": "peerpods", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state, "lastState": last,
        });
        let status = json!({
            "conditions": [{ "type": "Ready", "status": ready }], "containerStatuses": [container],
        });
        serde_json::from_value(json!({ "metadata": {}, "status": status })).unwrap()
    }

    #[test]
    fn why_a_pod_does_not_get_on_is_what_it_said_or_what_the_kubelet_says() {
        let ended = json!({ "terminated": { "exitCode": 1, "message": "no Kata shim\n" } });
        let silent = json!({ "terminated": { "exitCode": 2 } });
        let well = json!({ "terminated": { "exitCode": 0 } });
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason, "message": "back-off" } });
        let running = json!({ "running": {} });
        for (state, last, expected) in [
            (&waiting("CrashLoopBackOff"), &ended, Some("no Kata shim")),
            (&running, &ended, Some("no Kata shim")),
            (&ended, &json!({}), Some("no Kata shim")),
            (&silent, &json!({}), Some("ended with status 2")),
            (&waiting("ImagePullBackOff"), &json!({}), Some("ImagePullBackOff: back-off")),
            (&waiting("ContainerCreating"), &json!({}), None),
            (&running, &well, None),
            (&running, &json!({}), None),
        ] {
            assert_eq!(why(&pod("False", state, last)).as_deref(), expected, "{state} {last}");
        }
        assert_eq!(why(&pod("True", &running, &ended)), None, "it runs again");
    }
}
