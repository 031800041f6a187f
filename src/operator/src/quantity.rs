//! Kubernetes' quantities, exactly: `500m`, `1.5Gi`, `1e3`, `2E`. No floating point, so that sums round once and in the open.
//!
//! The smallest unit is a billionth, as in Kubernetes; what is finer is rounded up. Negative amounts are refused: nothing can be asked for
//! less than not at all.

use std::fmt;

/// Parts of one.
const NANO: u128 = 1_000_000_000;
/// As Kubernetes has it: what 63 bits hold.
const MAX: u128 = (1 << 63) * NANO;
/// Digits that a number may have; Kubernetes' own numbers have 19.
const MAX_DIGITS: usize = 30;
/// Zeros that an exponent may add; an exabyte has 18.
const MAX_EXPONENT: i32 = 30;

/// An amount, 0 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Quantity {
    nano: u128,
}

/// Why a text is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of a quantity's form.
    #[error("want a quantity such as 2, 500m, 1.5Gi or 1e3")]
    Form,
    /// Less than nothing.
    #[error("want a quantity of 0 or more")]
    Negative,
    /// More than can be counted.
    #[error("want a quantity below 8Ei")]
    TooLarge,
}

impl Quantity {
    /// Reads a quantity.
    ///
    /// # Errors
    /// When it is none, is negative, or is beyond what Kubernetes counts with.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        if let Some(positive) = unsigned.strip_prefix('-') {
            return Self::parse_unsigned(positive)
                .and_then(|value| if value.nano == 0 { Ok(value) } else { Err(QuantityError::Negative) });
        }
        Self::parse_unsigned(unsigned)
    }

    fn parse_unsigned(text: &str) -> Result<Self, QuantityError> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Form);
        }
        let Scale { factor, exponent } = Scale::of(suffix)?;
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Ok(Self::default());
        }
        if digits.len() > MAX_DIGITS {
            return Err(QuantityError::TooLarge);
        }
        let digits: u128 = digits.parse().map_err(|_| QuantityError::Form)?;
        let places = i32::try_from(fraction.len()).map_err(|_| QuantityError::TooLarge)?;
        let scaled = digits.checked_mul(factor).ok_or(QuantityError::TooLarge)?;
        let nano = shift(scaled, exponent.saturating_add(9 - places)).ok_or(QuantityError::TooLarge)?;
        if nano > MAX { Err(QuantityError::TooLarge) } else { Ok(Self { nano }) }
    }

    /// As many whole units of `size` as hold it.
    #[must_use]
    pub fn units_of(self, size: u64) -> u128 {
        self.nano.div_ceil(NANO * u128::from(size.max(1)))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { nano: self.nano.saturating_add(other.nano) }
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }
}

impl From<u32> for Quantity {
    fn from(number: u32) -> Self {
        Self { nano: u128::from(number) * NANO }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.nano / NANO, self.nano % NANO)
    }
}

/// What stands behind the number.
struct Scale {
    factor: u128,
    exponent: i32,
}

impl Scale {
    fn of(suffix: &str) -> Result<Self, QuantityError> {
        let ten = |exponent| Ok(Self { factor: 1, exponent });
        let two = |power: u32| Ok(Self { factor: 1 << (10 * power), exponent: 0 });
        match suffix {
            "n" => ten(-9),
            "u" => ten(-6),
            "m" => ten(-3),
            "" => ten(0),
            "k" => ten(3),
            "M" => ten(6),
            "G" => ten(9),
            "T" => ten(12),
            "P" => ten(15),
            "E" => ten(18),
            "Ki" => two(1),
            "Mi" => two(2),
            "Gi" => two(3),
            "Ti" => two(4),
            "Pi" => two(5),
            "Ei" => two(6),
            other => Self::exponent(other),
        }
    }

    /// `e3`, `E-3`.
    fn exponent(suffix: &str) -> Result<Self, QuantityError> {
        let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Form)?;
        let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
        if unsigned.is_empty() || !unsigned.bytes().all(|c| c.is_ascii_digit()) {
            return Err(QuantityError::Form);
        }
        let exponent: i32 = digits.parse().map_err(|_| QuantityError::TooLarge)?;
        if exponent > MAX_EXPONENT { Err(QuantityError::TooLarge) } else { Ok(Self { factor: 1, exponent }) }
    }
}

/// `value` · 10^`places`, rounded up; `None` when it cannot be held.
fn shift(value: u128, places: i32) -> Option<u128> {
    let by = 10_u128.checked_pow(places.unsigned_abs());
    if places >= 0 { value.checked_mul(by?) } else { Some(by.map_or(1, |by| value.div_ceil(by))) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nano(text: &str) -> u128 {
        Quantity::parse(text).unwrap().nano
    }

    #[test]
    fn every_form_that_kubernetes_knows_is_exact() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("1", NANO),
            ("+1", NANO),
            ("500m", NANO / 2),
            ("0.5", NANO / 2),
            (".5", NANO / 2),
            ("5.", 5 * NANO),
            ("1.5Gi", 3 * (1 << 29) * NANO),
            ("1k", 1000 * NANO),
            ("1Ki", 1024 * NANO),
            ("1e3", 1000 * NANO),
            ("1E3", 1000 * NANO),
            ("12e-1", 12 * NANO / 10),
            ("1E", 1_000_000_000_000_000_000 * NANO),
            ("7Ei", 7 * (1 << 60) * NANO),
            ("0.1Ei", ((1_u128 << 60) * NANO).div_ceil(10)),
            ("100n", 100),
            ("3u", 3000),
            ("000001.2300", 1_230_000_000),
        ] {
            assert_eq!(nano(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_finer_than_a_billionth_is_rounded_up() {
        assert_eq!(nano("0.1n"), 1);
        assert_eq!(nano("1.0000000001"), NANO + 1);
        assert_eq!(nano("1e-40"), 1);
    }

    #[test]
    fn what_is_no_quantity_is_refused_for_its_reason() {
        for text in
            ["", ".", "+", "1.2.3", "1 Gi", "Gi", "1gi", "1K", "0x1", "1e", "1e+", "1e1.5", "NaN", "1_000"]
        {
            assert_eq!(Quantity::parse(text), Err(QuantityError::Form), "{text:?}");
        }
        for text in ["-1", "-1m", "-0.5Gi"] {
            assert_eq!(Quantity::parse(text), Err(QuantityError::Negative), "{text:?}");
        }
        for text in ["1e400", "1e99999999999", "9Ei", "9999999999E", &"9".repeat(400)] {
            assert_eq!(Quantity::parse(text), Err(QuantityError::TooLarge), "{text:?}");
        }
    }

    #[test]
    fn units_are_rounded_up() {
        let of = |text| Quantity::parse(text).unwrap();
        assert_eq!(of("1500m").units_of(1), 2);
        assert_eq!(of("2").units_of(1), 2);
        assert_eq!(of("1Mi").units_of(1 << 20), 1);
        assert_eq!(of("1048577").units_of(1 << 20), 2);
        assert_eq!(of("0").units_of(1), 0);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-+]?[0-9]{0,40}\\.?[0-9]{0,40}([eE][-+]?[0-9]{0,12}|[numkMGTPE]i?)?") {
            let _either = Quantity::parse(&text);
        }

        #[test]
        fn millis_add_up_without_loss(a in 0_u64..1 << 50, b in 0_u64..1 << 50) {
            let of = |n: u64| Quantity::parse(&format!("{n}m")).unwrap();
            prop_assert_eq!(of(a).plus(of(b)), of(a + b));
        }
    }
}
