//! What names and labels of Kubernetes look like. Every function says in its error what is wanted; the value is shown by the caller.

/// Longest name of an object, and longest prefix of a label.
const MAX_SUBDOMAIN: usize = 253;
/// Longest part of a label behind its prefix, longest label value.
const MAX_PART: usize = 63;

/// The name of a Secret, a ConfigMap or a runtime class: a DNS subdomain.
///
/// # Errors
/// What is wanted.
pub fn subdomain(value: &str) -> Result<(), String> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(|c| plain(*c))
            && bytes.last().is_some_and(|c| plain(*c))
            && bytes.iter().all(|c| plain(*c) || *c == b'-')
    };
    if value.len() <= MAX_SUBDOMAIN && value.split('.').all(part) {
        Ok(())
    } else {
        Err(format!(
            "want at most {MAX_SUBDOMAIN} lower case letters, digits, '-' and '.', with a letter or digit at either end of each part"
        ))
    }
}

/// The key of a label: a name, or a prefix, `/` and a name.
///
/// # Errors
/// What is wanted.
pub fn label_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        subdomain(prefix).map_err(|wanted| format!("before the '/' {wanted}"))?;
    }
    if !name.is_empty() && label_text(name) {
        Ok(())
    } else {
        Err(format!(
            "want 1 to {MAX_PART} letters, digits, '-', '_' and '.' with a letter or digit at either end, behind an optional domain and '/'"
        ))
    }
}

/// The value of a label.
///
/// # Errors
/// What is wanted.
pub fn label_value(value: &str) -> Result<(), String> {
    if value.is_empty() || label_text(value) {
        Ok(())
    } else {
        Err(format!(
            "want nothing, or at most {MAX_PART} letters, digits, '-', '_' and '.' with a letter or digit at either end"
        ))
    }
}

/// The name of a resource that nodes advertise and that is not Kubernetes' own: a domain, `/` and a name.
///
/// # Errors
/// What is wanted.
pub fn extended_resource(name: &str) -> Result<(), String> {
    let wanted = || "want a domain of your own, '/' and a name, as in kata.peerpods.io/vm".to_owned();
    let (domain, _) = name.split_once('/').ok_or_else(wanted)?;
    let kubernetes = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    if kubernetes { Err(wanted()) } else { label_key(name) }
}

fn label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    bytes.len() <= MAX_PART
        && ends.into_iter().all(|c| c.is_some_and(u8::is_ascii_alphanumeric))
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_and_refused_as_kubernetes_does() {
        for good in ["peer-pods-secret", "a", "a.b-c.d", "0", &"a".repeat(253)] {
            assert!(subdomain(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "-a", "a-", "A", "a_b", "a..b", "é", "a b", &"a".repeat(254)] {
            assert!(subdomain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_are_taken_and_refused_as_kubernetes_does() {
        for good in ["a", "node-role.kubernetes.io/worker", "A_b.c", "example.com/X", &"a".repeat(63)] {
            assert!(label_key(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "a/b/c", "Example.com/a", "-a", "a-", "a b", &"a".repeat(64)] {
            assert!(label_key(bad).is_err(), "{bad}");
        }
        for good in ["", "x", "A.b_c-d", &"1".repeat(63)] {
            assert!(label_value(good).is_ok(), "{good}");
        }
        for bad in [" ", "-x", "x.", "a/b", "é", &"1".repeat(64)] {
            assert!(label_value(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_extended_resource_has_a_domain_that_is_not_kubernetes_own() {
        assert!(extended_resource("kata.peerpods.io/vm").is_ok());
        for bad in ["cpu", "vm", "kubernetes.io/vm", "x.kubernetes.io/vm", "a/b/c", "example.com/"] {
            assert!(extended_resource(bad).is_err(), "{bad}");
        }
    }
}
