//! Durations as Go's `time.ParseDuration` writes them, because `peer-pods-cm` has them in that form: `5m`, `1h30m`, `1.5s`.
//! A bare number is refused: nobody can know its unit.

use std::time::Duration;

/// What to write instead of a text that is no duration.
pub const EXPECTED: &str =
    "a duration with units such as \"90s\", \"5m\" or \"1h30m\" (units: ns, us, ms, s, m, h)";

/// Nanoseconds of each unit, longest names first so that `ms` is not read as `m`.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration; `None` when it is none, is negative, or is longer than 292 years (Go's own limit).
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanos: u64 = 0;
    let mut rest = rest;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (part, after) = element(rest)?;
        nanos = nanos.checked_add(part)?;
        rest = after;
    }
    i64::try_from(nanos).ok().map(|_| Duration::from_nanos(nanos))
}

/// One number with its unit, in nanoseconds, and what follows it.
fn element(text: &str) -> Option<(u64, &str)> {
    let (whole, after_whole) = digits(text);
    let (fraction, after_number) = match after_whole.strip_prefix('.') {
        Some(after_point) => digits(after_point),
        None => ("", after_whole),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (name, unit) = UNITS.iter().find(|(name, _)| after_number.starts_with(name))?;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    let nanos = whole.checked_mul(*unit)?.checked_add(scaled(fraction, *unit))?;
    Some((nanos, after_number.get(name.len()..)?))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// The decimal fraction `0.digits` of `unit`, rounded down to a nanosecond. Digits past the eighteenth cannot matter.
fn scaled(fraction: &str, unit: u64) -> u64 {
    let kept = fraction.get(..18).unwrap_or(fraction);
    let digits = kept.parse::<u128>().unwrap_or(0);
    let share = kept.bytes().fold(1_u128, |power, _| power * 10);
    u64::try_from(digits * u128::from(unit) / share).unwrap_or(0)
}

/// Writes a duration so that [`parse`] reads it back (to the millisecond, or to the nanosecond below one second).
#[must_use]
pub fn show(duration: Duration) -> String {
    let millis = duration.as_millis();
    if duration.is_zero() {
        return "0s".to_owned();
    }
    if millis < 1_000 {
        return match duration.subsec_nanos() % 1_000_000 {
            0 => format!("{millis}ms"),
            _ => format!("{}ns", duration.as_nanos()),
        };
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let seconds = millis % 60_000;
    let mut text = String::new();
    for (value, unit) in [(hours, "h"), (minutes, "m")] {
        if value > 0 {
            text.push_str(&format!("{value}{unit}"));
        }
    }
    match (seconds / 1_000, seconds % 1_000) {
        (0, 0) => {}
        (whole, 0) => text.push_str(&format!("{whole}s")),
        (whole, part) => {
            text.push_str(format!("{whole}.{part:03}").trim_end_matches('0'));
            text.push('s');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_writes_is_read() {
        for (text, millis) in [
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            (".5s", 500),
            ("1.s", 1_000),
            ("250ms", 250),
            ("1m0s", 60_000),
            ("0", 0),
            ("+2s", 2_000),
            ("1h1m1s1ms", 3_661_001),
            ("0.1h", 360_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text:?}");
        }
        assert_eq!(parse("3us"), Some(Duration::from_micros(3)));
        assert_eq!(parse("3µs"), Some(Duration::from_micros(3)));
    }

    #[test]
    fn a_bare_number_and_other_slips_are_refused() {
        for text in
            ["", "5", "5 m", "m", "-5m", "5min", "5m ", "1h30", ".s", "5M", "99999999999h", "1e3s", "5d"]
        {
            assert_eq!(parse(text), None, "{text:?} was accepted");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for nanos in [0, 1, 999, 1_000_000, 250_000_000, 1_500_000_000, 90_000_000_000, 5_400_000_000_000] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse(&show(duration)), Some(duration), "{}", show(duration));
        }
        assert_eq!(show(Duration::from_secs(300)), "5m");
        assert_eq!(show(Duration::from_secs(5_400)), "1h30m");
        assert_eq!(show(Duration::from_millis(1_500)), "1.5s");
    }
}
