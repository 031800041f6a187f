//! What an error of EC2 means: the one table from AWS's codes to the kinds the node service acts on, and the error text with code and
//! request id. Pure.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId;
use peerpods_provider::{ErrorKind, ProviderError};

/// The same token was used with other parameters.
pub(crate) const TOKEN_MISMATCH: &str = "IdempotentParameterMismatch";
/// What was made under the token is terminated.
pub(crate) const TOKEN_SPENT: &str = "IdempotentInstanceTerminated";
/// There is no such instance, or not yet.
pub(crate) const NO_INSTANCE: &str = "InvalidInstanceID.NotFound";

/// Codes that mean the credentials themselves were not taken: they may have been replaced since they were read.
const NOT_TAKEN: [&str; 7] = [
    "AuthFailure",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "MissingAuthenticationToken",
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
];

/// The longest message that is passed on: EC2 appends kilobytes of encoded detail to some.
const LONGEST_MESSAGE: usize = 400;

/// Codes whose kind their form does not tell.
const CODES: &[(&str, ErrorKind)] = &[
    ("RequestLimitExceeded", ErrorKind::Throttled),
    ("Throttling", ErrorKind::Throttled),
    ("ThrottlingException", ErrorKind::Throttled),
    ("ThrottledException", ErrorKind::Throttled),
    ("EC2ThrottledException", ErrorKind::Throttled),
    ("RequestThrottled", ErrorKind::Throttled),
    ("TooManyRequestsException", ErrorKind::Throttled),
    ("InsufficientInstanceCapacity", ErrorKind::Capacity),
    ("InsufficientHostCapacity", ErrorKind::Capacity),
    ("InsufficientReservedInstanceCapacity", ErrorKind::Capacity),
    ("InsufficientCapacity", ErrorKind::Capacity),
    ("InsufficientFreeAddressesInSubnet", ErrorKind::Capacity),
    ("InsufficientAddressCapacity", ErrorKind::Capacity),
    ("InsufficientVolumeCapacity", ErrorKind::Capacity),
    ("SpotMaxPriceTooLow", ErrorKind::Capacity),
    ("UnfulfillableCapacity", ErrorKind::Capacity),
    ("VcpuLimitExceeded", ErrorKind::Quota),
    ("InstanceLimitExceeded", ErrorKind::Quota),
    ("MaxSpotInstanceCountExceeded", ErrorKind::Quota),
    ("VolumeLimitExceeded", ErrorKind::Quota),
    ("MaxIOPSLimitExceeded", ErrorKind::Quota),
    ("NetworkInterfaceLimitExceeded", ErrorKind::Quota),
    ("AddressLimitExceeded", ErrorKind::Quota),
    ("ResourceLimitExceeded", ErrorKind::Quota),
    ("UnauthorizedOperation", ErrorKind::Denied),
    ("AuthFailure", ErrorKind::Denied),
    ("AccessDenied", ErrorKind::Denied),
    ("AccessDeniedException", ErrorKind::Denied),
    ("InvalidClientTokenId", ErrorKind::Denied),
    ("InvalidIdentityToken", ErrorKind::Denied),
    ("MissingAuthenticationToken", ErrorKind::Denied),
    ("SignatureDoesNotMatch", ErrorKind::Denied),
    ("ExpiredToken", ErrorKind::Denied),
    ("ExpiredTokenException", ErrorKind::Denied),
    ("RequestExpired", ErrorKind::Denied),
    ("OptInRequired", ErrorKind::Denied),
    ("PendingVerification", ErrorKind::Denied),
    ("Blocked", ErrorKind::Denied),
    ("InternalError", ErrorKind::Transient),
    ("InternalFailure", ErrorKind::Transient),
    ("ServiceUnavailable", ErrorKind::Transient),
    ("Unavailable", ErrorKind::Transient),
    ("RequestTimeout", ErrorKind::Transient),
    ("IncorrectInstanceState", ErrorKind::Transient),
    // Something was asked for under the token: whether it was made has to be looked into.
    (TOKEN_MISMATCH, ErrorKind::Transient),
];

/// The kind of an error code that came with this HTTP status.
pub(crate) fn kind_of(code: &str, status: u16) -> ErrorKind {
    if let Some((_, kind)) = CODES.iter().find(|(known, _)| *known == code) {
        return *kind;
    }
    match status {
        429 => ErrorKind::Throttled,
        500.. => ErrorKind::Transient,
        _ if code.ends_with(".NotFound") => ErrorKind::NotFound,
        401 | 403 => ErrorKind::Denied,
        _ => ErrorKind::Invalid,
    }
}

/// Whether what was refused may be had in another subnet, as another type or in another market.
pub(crate) fn elsewhere_may_help(error: &ProviderError) -> bool {
    let by_place = ["Unsupported", "UnsupportedOperation", "MaxSpotInstanceCountExceeded"];
    error.kind == ErrorKind::Capacity || error.code.as_deref().is_some_and(|code| by_place.contains(&code))
}

/// Whether a request that failed so may have been carried out when it was sent before: its answer was lost, or EC2 refused it this time
/// before it looked at the client token. Such a request is only ever repeated as it was.
pub(crate) fn leaves_open(error: &ProviderError) -> bool {
    matches!(error.kind, ErrorKind::Transient | ErrorKind::Throttled | ErrorKind::Denied)
}

/// Whether the credentials may have been replaced, and should be read anew before the next call.
pub(crate) fn credentials_were_not_taken(error: &ProviderError) -> bool {
    error.code.as_deref().is_some_and(|code| NOT_TAKEN.contains(&code))
}

/// An SDK error about `operation`, in the service's words.
pub(crate) fn of<E>(operation: &str, error: SdkError<E, HttpResponse>) -> ProviderError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some(code) => answered(operation, code.to_owned(), error),
        None => unanswered(operation, error),
    }
}

/// EC2 answered with a code.
fn answered<E>(operation: &str, code: String, error: SdkError<E, HttpResponse>) -> ProviderError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let status = error.raw_response().map_or(400, |raw| raw.status().as_u16());
    let message = error.as_service_error().and_then(|e| e.message()).unwrap_or("EC2 gave no reason");
    let mut told = ProviderError::new(kind_of(&code, status), operation, cut(message));
    told.request_id = error.request_id().or_else(|| error.meta().request_id()).map(str::to_owned);
    told.hint = hint(&code).map(str::to_owned);
    told.code(code)
}

/// No answer that could be read: whether the call did its work is not known, except where it was never sent.
fn unanswered<E>(operation: &str, error: SdkError<E, HttpResponse>) -> ProviderError
where
    E: Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|raw| raw.status().as_u16());
    if let Some(reason) = no_credentials(&error) {
        return ProviderError::new(ErrorKind::Denied, operation, format!("there are no usable AWS credentials: {reason}"))
            .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in peer-pods-secret, or give the service account or node a role");
    }
    let (kind, message) = match &error {
        SdkError::ConstructionFailure(_) => (ErrorKind::Invalid, "the request could not be built".to_owned()),
        SdkError::TimeoutError(_) => (ErrorKind::Transient, "EC2 did not answer in time".to_owned()),
        SdkError::DispatchFailure(_) => (ErrorKind::Transient, "EC2 could not be reached".to_owned()),
        _ => {
            let status = status.unwrap_or_default();
            (
                kind_of("", status),
                format!("EC2 answered with HTTP status {status} and nothing that could be read"),
            )
        }
    };
    ProviderError::new(kind, operation, message).caused_by(error)
}

fn no_credentials(error: &dyn Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(this) = cause {
        if this.is::<CredentialsError>() {
            let deeper = this.source().map(|source| format!(": {source}")).unwrap_or_default();
            // The SDK lists what it tried, a line each.
            let told = format!("{this}{deeper}");
            return Some(cut(&told.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        cause = this.source();
    }
    None
}

/// The same failure for another who waits for the same call.
pub(crate) fn again(error: &ProviderError) -> ProviderError {
    let mut copy = ProviderError::new(error.kind, error.operation.clone(), error.message.clone());
    copy.code.clone_from(&error.code);
    copy.request_id.clone_from(&error.request_id);
    copy.hint.clone_from(&error.hint);
    copy.retry_after = error.retry_after;
    copy
}

fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => {
            "allow the credentials this action (`peerpods doctor aws` shows which are missing)"
        }
        "AuthFailure" | "InvalidClientTokenId" | "SignatureDoesNotMatch" => {
            "check the access key, its secret, and this node's clock"
        }
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => {
            "renew the credentials, and check this node's clock"
        }
        "VcpuLimitExceeded" | "InstanceLimitExceeded" | "MaxSpotInstanceCountExceeded" => {
            "ask AWS for a higher quota of running instances, or remove instances"
        }
        "InsufficientFreeAddressesInSubnet" => {
            "add a subnet to AWS_SUBNET_ID, or remove what uses its addresses"
        }
        "InsufficientInstanceCapacity" => {
            "add types to PODVM_INSTANCE_TYPES, or subnets in other zones to AWS_SUBNET_ID"
        }
        "InvalidAMIID.NotFound" | "InvalidAMIID.Unavailable" => {
            "set PODVM_AMI_ID to an AMI of this region and account"
        }
        "InvalidSubnetID.NotFound" => "set AWS_SUBNET_ID to a subnet of this region",
        "InvalidGroup.NotFound" => "set AWS_SG_IDS to security groups of the subnet's VPC",
        "InvalidKeyPair.NotFound" => "set SSH_KP_NAME to a key pair of this region, or unset it",
        _ => return None,
    })
}

fn cut(message: &str) -> String {
    match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_of_codes_has_its_kind() {
        for (code, status, kind) in [
            ("RequestLimitExceeded", 503, ErrorKind::Throttled),
            ("Throttling", 400, ErrorKind::Throttled),
            ("Whatever", 429, ErrorKind::Throttled),
            ("InsufficientInstanceCapacity", 500, ErrorKind::Capacity),
            ("InsufficientFreeAddressesInSubnet", 400, ErrorKind::Capacity),
            ("VcpuLimitExceeded", 400, ErrorKind::Quota),
            ("UnauthorizedOperation", 403, ErrorKind::Denied),
            ("NewDenial", 403, ErrorKind::Denied),
            ("InvalidAMIID.NotFound", 400, ErrorKind::NotFound),
            ("InvalidParameterValue", 400, ErrorKind::Invalid),
            ("InvalidUserData.Malformed", 400, ErrorKind::Invalid),
            ("Unsupported", 400, ErrorKind::Invalid),
            ("InternalError", 500, ErrorKind::Transient),
            ("NobodyKnows", 502, ErrorKind::Transient),
            (TOKEN_MISMATCH, 400, ErrorKind::Transient),
        ] {
            assert_eq!(kind_of(code, status), kind, "{code} {status}");
        }
    }

    #[test]
    fn each_code_stands_in_the_table_once() {
        for (code, _) in CODES {
            assert_eq!(CODES.iter().filter(|(other, _)| other == code).count(), 1, "{code}");
        }
    }

    #[test]
    fn what_another_place_may_mend_is_told_apart() {
        let error = |kind, code: &str| ProviderError::new(kind, "x", "y").code(code);
        assert!(elsewhere_may_help(&error(ErrorKind::Capacity, "InsufficientInstanceCapacity")));
        assert!(elsewhere_may_help(&error(ErrorKind::Invalid, "Unsupported")));
        assert!(elsewhere_may_help(&error(ErrorKind::Quota, "MaxSpotInstanceCountExceeded")));
        assert!(!elsewhere_may_help(&error(ErrorKind::Quota, "VcpuLimitExceeded")));
        assert!(!elsewhere_may_help(&error(ErrorKind::Invalid, "InvalidParameterValue")));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let text = cut(&"ä".repeat(1000));
        assert_eq!(text.chars().count(), LONGEST_MESSAGE + 1);
        assert_eq!(cut("short"), "short");
    }
}
