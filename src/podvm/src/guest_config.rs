//! `apf.json`: what the guest daemon is told about its pod, its network and its TLS identity.
//!
//! The wire form is stock's (cloud-api-adaptor's agent-protocol-forwarder), and a superset may grow here: keys a part does not know
//! are ignored by it, on both sides. None of this is measured by attestation; only [`crate::initdata`] is.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::network::PodNetwork;
pub use crate::secret::SecretText;
pub use crate::token::AdmissionToken;

/// In place of a key and a certificate, for a guest of ours, which makes its key itself (`peerpods_agentlink::admission`). A stock guest
/// ignores this key and has then no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Admission {
    /// Of what the guest has to do with it; [`Admission::VERSION`].
    pub version: u32,
    /// What it proves itself with, once.
    pub token: AdmissionToken,
    /// For so many seconds the token can be used, counted by the guest from when it read it.
    pub valid_seconds: u64,
}

impl Admission {
    /// The version written, and the only one there is.
    pub const VERSION: u32 = 1;
}

/// The document. Absent parts are left out of the JSON, except the network, which stock writes as `null`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ApfConfig {
    /// The pod's interface and the tunnel that carries it.
    #[serde(default)]
    pub pod_network: Option<PodNetwork>,
    /// The pod's Kubernetes namespace (not a network namespace).
    #[serde(default)]
    pub pod_namespace: String,
    /// The pod's name.
    #[serde(default)]
    pub pod_name: String,
    /// Private key of the guest's server certificate, PEM. Absent when the image carries its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_key: Option<SecretText>,
    /// The guest's server certificate, PEM; its name is the VM's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_cert: Option<String>,
    /// The certificate clients must come with or be signed by, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client_ca: Option<String>,
    /// Ours: by what a guest without the two above is admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,
    /// `VersionTLS12` or `VersionTLS13`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_min_version: Option<String>,
    /// IANA names of the cipher suites to offer; empty means the default ones.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub tls_cipher_suites: Vec<String>,
    /// Addresses the pod is kept from but for DNS, so that the guest tells a program at once. Our own key: a stock guest ignores it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_addresses: Vec<IpAddr>,
}

/// A text that is no `apf.json`.
#[derive(Debug, thiserror::Error)]
#[error("apf.json cannot be read: {0}")]
pub struct ApfError(String);

/// As much of a reason as is told, in characters: it quotes what was read.
const SHOWN: usize = 300;

fn null_as_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(from)?.unwrap_or_default())
}

impl ApfConfig {
    /// The document as JSON, indented by four spaces and ended by a line feed. Holds the private key.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        let indented = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        #[expect(
            clippy::expect_used,
            reason = "every key is a text and every value plain data, and a Vec takes every write"
        )]
        self.serialize(&mut serde_json::Serializer::with_formatter(&mut out, indented))
            .expect("plain data is serialisable");
        out.push(b'\n');
        String::from_utf8(out).unwrap_or_default()
    }

    /// Reads the document, ours or stock's.
    ///
    /// # Errors
    /// When it is no JSON, a value has another type, or a route has a protocol or scope stock does not know.
    pub fn from_json(text: &str) -> Result<Self, ApfError> {
        serde_json::from_str(text).map_err(|error| ApfError(error.to_string().chars().take(SHOWN).collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::hostile::any_text;

    /// What a stock daemon writes for a Flannel-like pod.
    const STOCK: &str = include_str!("../tests/golden/apf-stock.json");
    /// What we write for the same pod.
    const OURS: &str = include_str!("../tests/golden/apf.json");

    #[test]
    fn what_a_stock_daemon_writes_is_read() {
        let config = ApfConfig::from_json(STOCK).unwrap();
        assert_eq!((config.pod_namespace.as_str(), config.pod_name.as_str()), ("default", "nginx"));
        let network = config.pod_network.unwrap();
        assert_eq!(network.podip.to_string(), "10.244.1.7/24");
        assert_eq!((network.vxlan_port, network.vxlan_id, network.mtu), (4789, 555_000, 1450));
        assert_eq!((network.routes.len(), network.neighbors.len()), (3, 0));
        assert!(config.tls_server_key.unwrap().expose().starts_with("-----BEGIN PRIVATE KEY"));
        assert!(config.tls_cipher_suites.is_empty() && config.tls_min_version.is_none());
    }

    #[test]
    fn what_we_write_is_the_golden_file_and_differs_from_stock_only_in_an_empty_list() {
        let written = ApfConfig::from_json(STOCK).unwrap().to_json();
        assert_eq!(written, OURS);
        let mut ours: Value = serde_json::from_str(&written).unwrap();
        let neighbors = &mut ours["pod-network"]["neighbors"];
        assert_eq!(neighbors.take(), Value::Array(Vec::new()), "stock writes null, and reads both");
        assert_eq!(ours, serde_json::from_str::<Value>(STOCK).unwrap());
        assert_eq!(ApfConfig::from_json(&written).unwrap(), ApfConfig::from_json(STOCK).unwrap());
    }

    #[test]
    fn absent_parts_are_left_out_except_the_network() {
        let json =
            ApfConfig { pod_name: "p".into(), pod_namespace: "n".into(), ..ApfConfig::default() }.to_json();
        assert_eq!(
            json,
            "{\n    \"pod-network\": null,\n    \"pod-namespace\": \"n\",\n    \"pod-name\": \"p\"\n}\n"
        );
        assert!(ApfConfig::from_json(&json).unwrap().pod_network.is_none());
    }

    #[test]
    fn unknown_keys_are_ignored_at_every_level() {
        let newer = STOCK
            .replacen("\"pod-network\": {", "\"pod-network\": {\"x-mtu\": [1],", 1)
            .replacen('{', "{\"sc-pp-prv\": \"AAAA\", \"x\": {\"y\": null},", 1)
            .replacen("\"dst\"", "\"x\": 1, \"dst\"", 1);
        assert_eq!(ApfConfig::from_json(&newer).unwrap(), ApfConfig::from_json(STOCK).unwrap());
    }

    #[test]
    fn the_tls_profile_is_carried() {
        let config = ApfConfig {
            tls_min_version: Some("VersionTLS12".into()),
            tls_cipher_suites: vec!["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384".into()],
            ..ApfConfig::default()
        };
        assert_eq!(ApfConfig::from_json(&config.to_json()).unwrap(), config);
        assert!(ApfConfig::from_json("{\"tls-cipher-suites\": null}").unwrap().tls_cipher_suites.is_empty());
    }

    #[test]
    fn blocked_addresses_are_carried_and_left_out_when_there_are_none() {
        let blocked_addresses = crate::metadata::SERVICES.to_vec();
        let config = ApfConfig { blocked_addresses, ..ApfConfig::default() };
        assert!(config.to_json().contains("\"blocked-addresses\": ["));
        assert_eq!(ApfConfig::from_json(&config.to_json()).unwrap(), config);
        assert!(!ApfConfig::default().to_json().contains("blocked"));
    }

    #[test]
    fn debug_does_not_show_the_key() {
        let shown = format!("{:?}", ApfConfig::from_json(STOCK).unwrap());
        assert!(!shown.contains("PRIVATE") && shown.contains("tls_server_key: Some(..)"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(
            text in any_text(), at in 0_usize..1200, junk in "[\\[\\]{}\",:0-9a-z\\\\]{0,4}",
        ) {
            let _ = ApfConfig::from_json(&text);
            let at = (0..=at.min(STOCK.len())).rev().find(|i| STOCK.is_char_boundary(*i)).unwrap_or(0);
            let (before, after) = STOCK.split_at(at);
            let _ = ApfConfig::from_json(&format!("{before}{junk}{after}"));
            prop_assert!(at == 0 || at >= STOCK.trim_end().len() || ApfConfig::from_json(before).is_err());
        }
    }
}
