//! The client token: by it EC2 knows a repeated `RunInstances` for the one before. Pure.
//!
//! It is made from cluster, sandbox and a number. The number is raised only when EC2 definitely refused what was asked for under it,
//! or when the VM made under it is dead; never when an answer was lost, or a second VM would be made. The same token with other
//! parameters is an error at AWS, so whoever asks again under a number asks for the same ([`crate::births`]). The number is also a
//! tag of the VM: a process that knows nothing goes on after the numbers of the dead.

use peerpods_provider::VmKey;
use sha2::{Digest, Sha256};

/// The longest token EC2 takes.
#[cfg(test)]
const LONGEST: usize = 64;
/// How much of the hash goes in: 240 bits leave room for the prefix.
const HASH_BYTES: usize = 30;

/// The token of an attempt.
pub(crate) fn of(key: &VmKey, attempt: u32) -> String {
    let mut hash = Sha256::new();
    for part in [key.cluster.as_str(), key.sandbox.as_str()] {
        // A NUL cannot be in an id: no two keys have the same text.
        hash.update(part);
        hash.update([0]);
    }
    hash.update(attempt.to_be_bytes());
    format!("pp-{}", hex::encode(&hash.finalize()[..HASH_BYTES]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cluster: &str, sandbox: &str) -> VmKey {
        VmKey { cluster: cluster.parse().unwrap(), sandbox: sandbox.parse().unwrap() }
    }

    #[test]
    fn a_token_fits_and_is_the_same_for_the_same_attempt_only() {
        let token = of(&key("c", "s"), 0);
        assert!(token.len() <= LONGEST && token.is_ascii(), "{token}");
        assert_eq!(token, of(&key("c", "s"), 0));
        for other in
            [of(&key("c", "s"), 1), of(&key("c", "t"), 0), of(&key("d", "s"), 0), of(&key("cs", "s"), 0)]
        {
            assert_ne!(token, other);
        }
        assert_ne!(of(&key("ab", "c"), 0), of(&key("a", "bc"), 0));
    }
}
