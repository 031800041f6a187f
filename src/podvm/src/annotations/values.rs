//! How single annotation values are read. Every function says in its error what is wanted; the value itself is shown by the caller.

/// Longest pod name Kubernetes allows.
pub(super) const MAX_POD_NAME: usize = 253;
/// Longest namespace name Kubernetes allows.
pub(super) const MAX_NAMESPACE: usize = 63;

/// Far above any machine on offer; what exceeds it is a mistake, not a wish.
const MAX_VCPUS: u32 = 4096;
/// 64 TiB, for the same reason.
const MAX_MEMORY_MIB: u64 = 64 << 20;
/// For the same reason.
const MAX_GPUS: u32 = 256;
/// An Azure image id has some 300 characters.
const MAX_TEXT: usize = 1024;
/// As much of a value as a message shows, in characters.
const SHOWN: usize = 60;

/// A yes or no.
pub(super) fn flag(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| "want true or false".to_owned())
}

const MIB: f64 = 1_048_576.0;

/// The value, fit for a message.
pub(super) fn shorten(value: &str) -> String {
    let mut chars = value.chars();
    let mut shown: String = chars.by_ref().take(SHOWN).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

pub(super) fn shorten_to(text: String, max: usize) -> String {
    if text.chars().count() <= max { text } else { text.chars().take(max).chain(['…']).collect() }
}

/// Pod and namespace of CRI-O's `k8s_<pod>_<namespace>_<uid>_<attempt>`. Pod names have no `_`, so any other text is not that form.
pub(super) fn crio_name(value: &str) -> Option<(&str, &str)> {
    let mut fields = value.split('_');
    if fields.next() != Some("k8s") {
        return None;
    }
    Some((fields.next()?, fields.next().unwrap_or_default())).filter(|(pod, _)| !pod.is_empty())
}

/// Names from Kubernetes end up in VM names, tags and file contents.
pub(super) fn kubernetes_name(value: &str, max: usize) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !value.is_empty() && value.len() <= max && value.chars().all(allowed) {
        Ok(())
    } else {
        Err(format!("1 to {max} letters, digits, '-', '.' and '_'"))
    }
}

/// Any text of a sensible length on one line.
pub(super) fn text(value: &str) -> Result<String, String> {
    if value.len() <= MAX_TEXT && !value.chars().any(char::is_control) {
        Ok(value.to_owned())
    } else {
        Err(format!("want at most {MAX_TEXT} bytes without control characters"))
    }
}

/// Processors, rounded up to whole ones; `None` for zero.
pub(super) fn vcpus(value: &str) -> Result<Option<u32>, String> {
    let want =
        || format!("want a number of virtual processors from 0 (unset) to {MAX_VCPUS}, as in 2 or 1.5");
    let asked = decimal(value).filter(|n| *n <= f64::from(MAX_VCPUS)).ok_or_else(want)?;
    // runtime-rs adds up f32 values: 1.0000001 is one processor. Kubernetes' smallest unit is a thousandth.
    let rounded = ((asked * 1000.0).round() / 1000.0).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and MAX_VCPUS, checked above"
    )]
    let whole = rounded as u32;
    Ok(if asked == 0.0 { None } else { Some(whole.max(1)) })
}

/// Memory rounded up to whole MiB; `None` for zero.
pub(super) fn memory_mib(value: &str) -> Result<Option<u64>, String> {
    let want = || {
        format!(
            "want memory from 0 (unset) to {MAX_MEMORY_MIB} in MiB, or with a unit (B, kB, KiB, MB, MiB, GB, GiB, TB, TiB), as in 2048 or 2GiB"
        )
    };
    let split = value.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(value.len());
    let (number, unit) = value.split_at(split);
    let bytes_each = unit_bytes(unit).ok_or_else(want)?;
    let asked = decimal(number.trim_end()).ok_or_else(want)?;
    let mib = (asked * bytes_each / MIB).ceil();
    #[expect(clippy::cast_precision_loss, reason = "MAX_MEMORY_MIB is far below 2^53")]
    if mib > MAX_MEMORY_MIB as f64 {
        return Err(want());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and MAX_MEMORY_MIB, checked above"
    )]
    let whole = mib as u64;
    Ok(Some(whole).filter(|n| *n > 0))
}

/// Bytes in one of a unit; powers of ten without `i`, powers of two with it, as Kubernetes and runtime-rs read them.
fn unit_bytes(unit: &str) -> Option<f64> {
    let lower = unit.to_ascii_lowercase();
    Some(match lower.strip_suffix('b').unwrap_or(&lower) {
        "" if unit.is_empty() => MIB,
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "ki" => 1024.0,
        "mi" => MIB,
        "gi" => 1024.0 * MIB,
        "ti" => MIB * MIB,
        _ => return None,
    })
}

/// Number of GPUs.
pub(super) fn gpus(value: &str) -> Result<u32, String> {
    Some(value)
        .filter(|v| v.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|v| v.parse().ok())
        .filter(|n| *n <= MAX_GPUS)
        .ok_or_else(|| format!("want a whole number of GPUs from 0 to {MAX_GPUS}"))
}

/// A non-negative decimal number in plain notation: no sign, exponent, `inf` or `nan`.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    Some(text).filter(|_| plain)?.parse().ok().filter(|n: &f64| n.is_finite())
}
