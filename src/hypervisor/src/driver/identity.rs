//! How a VM will prove itself to its link: with our own guest by a token that works once, with any other by a key in its user data.
//!
//! It decides which, and says why the weaker one was taken. What the token is worth is in `peerpods_agentlink::admission`.

use peerpods_agentlink::{GuestTrust, Opened};
use peerpods_podvm::guest_config::{Admission, ApfConfig, SecretText};
use peerpods_podvm::image::GuestAdmission;
use peerpods_podvm::token::AdmissionToken;
use tokio::time::Instant;
use tracing::warn;

use super::start::Start;
use crate::config::GuestIdentity;
use crate::failure::Failure;
use crate::record::{GuestForm, Record};

/// Which form a VM gets, and for the stock one the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Token,
    Stock(&'static str),
    /// Asked for, and not to be had.
    Impossible(&'static str),
}

/// Pure.
fn choose(wanted: GuestIdentity, image: GuestAdmission, link: Opened) -> Choice {
    const OLD_LINK: &str = "the sandbox's link was started by an older program, which knows no tokens";
    match (wanted, image, link.admits_by_token) {
        (GuestIdentity::Stock, ..) => Choice::Stock("guest-identity is stock"),
        (GuestIdentity::Token, _, false) => Choice::Impossible(OLD_LINK),
        (GuestIdentity::Token, _, true) | (GuestIdentity::Auto, GuestAdmission::Token, true) => Choice::Token,
        (GuestIdentity::Auto, GuestAdmission::Token, false) => Choice::Stock(OLD_LINK),
        (GuestIdentity::Auto, GuestAdmission::Unknown, _) => {
            Choice::Stock("nothing says that the image's guest can be admitted by a token")
        }
    }
}

impl Start {
    /// Decides the form; from here on the record has it.
    pub(super) async fn choose_identity(&mut self, link: Opened) -> Result<(), Failure> {
        let image = self.record.request.image.as_deref().filter(|name| !name.is_empty());
        let image = self.context.parts.provider.guest_admission(image).await;
        let sandbox = &self.record.sandbox;
        match choose(self.context.config.guest_identity, image, link) {
            Choice::Token => {
                self.token =
                    Some(peerpods_agentlink::admission::new_token().map_err(|e| self.certificate(e))?);
                self.record.guest = Some(GuestForm::Token { key: None });
            }
            Choice::Stock(why) => {
                warn!(%sandbox, why, "stock form: the VM's TLS key is in its user data, for as long as the VM lives");
                self.record.guest = Some(GuestForm::Stock);
            }
            Choice::Impossible(why) => {
                return Err(Failure::Invalid(format!(
                    "sandbox {sandbox} cannot be started: guest-identity is token, and {why}; its pod's next sandbox can"
                )));
            }
        }
        Ok(())
    }

    /// The part of the guest's configuration that is about its identity.
    pub(super) fn identify(&self) -> Result<ApfConfig, Failure> {
        let authority = &self.context.authority;
        let apf =
            ApfConfig { tls_client_ca: Some(authority.certificate_pem().to_owned()), ..ApfConfig::default() };
        if let Some(token) = &self.token {
            // The guest counts from when it reads this: never shorter than we try, and we drop ours when the start ends.
            let left = self.deadline.saturating_duration_since(Instant::now());
            let token = token.clone();
            let admission =
                Admission { version: Admission::VERSION, token, valid_seconds: left.as_secs() + 1 };
            return Ok(ApfConfig { admission: Some(admission), ..apf });
        }
        let server = authority.issue_server(&self.record.vm_name).map_err(|e| self.certificate(e))?;
        Ok(ApfConfig {
            tls_server_key: Some(SecretText::new(server.expose_key())),
            tls_server_cert: Some(server.certificate),
            ..apf
        })
    }

    /// How the link is to know the guest this first time.
    pub(super) fn first_trust(&self) -> GuestTrust {
        self.token.clone().map_or(GuestTrust::Authority, GuestTrust::Token)
    }
}

/// How a link is to know the guest of a running pod. A link that admitted it knows its key whatever we say.
pub(super) fn known_trust(record: &Record) -> GuestTrust {
    match record.guest {
        Some(GuestForm::Token { key: Some(key) }) => GuestTrust::Key(key),
        Some(GuestForm::Token { key: None } | GuestForm::Stock) | None => GuestTrust::Authority,
    }
}

/// The words for people.
pub(super) fn form_of(token: Option<&AdmissionToken>) -> &'static str {
    if token.is_some() { "the VM makes its key" } else { "the VM's key is in it" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_only_to_who_is_known_to_take_it_unless_it_is_demanded() {
        use GuestAdmission::{Token as Ours, Unknown};
        let new = Opened { admits_by_token: true };
        let old = Opened { admits_by_token: false };
        let is = |wanted, image, link| match choose(wanted, image, link) {
            Choice::Token => "token",
            Choice::Stock(_) => "stock",
            Choice::Impossible(_) => "impossible",
        };
        for (wanted, image, link, expected) in [
            (GuestIdentity::Auto, Ours, new, "token"),
            (GuestIdentity::Auto, Ours, old, "stock"),
            (GuestIdentity::Auto, Unknown, new, "stock"),
            (GuestIdentity::Auto, Unknown, old, "stock"),
            (GuestIdentity::Token, Ours, new, "token"),
            (GuestIdentity::Token, Unknown, new, "token"),
            (GuestIdentity::Token, Ours, old, "impossible"),
            (GuestIdentity::Stock, Ours, new, "stock"),
            (GuestIdentity::Stock, Unknown, old, "stock"),
        ] {
            assert_eq!(is(wanted, image, link), expected, "{wanted:?} {image:?} {link:?}");
        }
    }
}
