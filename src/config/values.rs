//! The forms of values: switches, numbers, durations, CPU quantities (spec operations 2).

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Longest duration that is accepted: more cannot be meant, and sums of it with a clock are safe.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Digits after the decimal point that are understood.
const FRACTION_DIGITS_MAX: usize = 9;
/// Nanoseconds of each unit of time; the longer of two that begin alike comes first.
const UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("µs", 1_000),
    ("μs", 1_000),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("mon", 30 * DAY),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("h", 3600 * SECOND),
    ("d", DAY),
    ("w", 7 * DAY),
    ("y", 365 * DAY),
];
const SECOND: u128 = 1_000_000_000;
const DAY: u128 = 24 * 3600 * SECOND;

/// Exactly `true` or `false`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

/// A whole number within a range.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl FnOnce(&str) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    move |text| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("is not a whole number from {} to {}", range.start(), range.end())),
    }
}

/// A duration within a range.
pub(super) fn duration_within(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&str) -> Result<Duration, String> {
    move |text| {
        let found = duration(text)?;
        if range.contains(&found) {
            return Ok(found);
        }
        Err(format!("is not from {:?} to {:?}", range.start(), range.end()))
    }
}

/// A duration: a sum of products of terms. A term is a number and a unit; a bare number is seconds,
/// or, beside a term with a unit in the same product, a factor.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let nanoseconds = sum(text).ok_or("is not a duration such as 90s, 1h30m or 5m")?;
    let seconds = u64::try_from(nanoseconds / SECOND).ok();
    let rest = u32::try_from(nanoseconds % SECOND).ok();
    let total = seconds.zip(rest).map(|(seconds, rest)| Duration::new(seconds, rest));
    total.filter(|total| *total <= DURATION_MAX).ok_or_else(|| "is too long".to_owned())
}

/// Thousandths of a CPU: `2`, `1.5` or `500m`.
pub(super) fn cpu_quantity(text: &str) -> Result<u64, String> {
    let (number, scale) = match text.strip_suffix('m') {
        Some(number) => (number, 1),
        None => (text, 1000),
    };
    let scaled = decimal(number).filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value);
    let milli = scaled.and_then(|value| u64::try_from((value * scale).div_ceil(SECOND)).ok());
    milli.ok_or_else(|| "is not a CPU quantity such as 2, 1.5 or 500m".to_owned())
}

/// Terms that stand beside each other or are joined by `+`.
fn sum(text: &str) -> Option<u128> {
    let mut total: u128 = 0;
    for summand in text.split('+') {
        let mut rest = summand.trim();
        let mut alone = true;
        loop {
            let (value, has_unit, after) = product(rest)?;
            // Without a sign only terms with units may follow each other: `1h30` is a mistake.
            alone &= after.is_empty();
            if !has_unit && !alone {
                return None;
            }
            total = total.checked_add(value)?;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }
    Some(total)
}

/// Factors joined by `*`, at most one of which has a unit: the nanoseconds, whether there was a
/// unit, and what follows.
fn product(text: &str) -> Option<(u128, bool, &str)> {
    let (mut value, mut has_unit, mut rest) = term(text)?;
    while let Some(after) = rest.strip_prefix('*') {
        let (factor, factor_has_unit, after) = term(after.trim_start())?;
        if has_unit && factor_has_unit {
            return None;
        }
        has_unit |= factor_has_unit;
        // Both are scaled by 10^9, be it as nanoseconds or as a fraction.
        value = value.checked_mul(factor)? / SECOND;
        rest = after;
    }
    Some((value, has_unit, rest))
}

/// A number and its unit, if it has one, in nanoseconds; whether it has one; and what follows.
fn term(text: &str) -> Option<(u128, bool, &str)> {
    let (value, rest) = decimal(text)?;
    let rest = rest.trim_start();
    for (unit, nanoseconds) in UNITS {
        if let Some(after) = rest.strip_prefix(unit) {
            // The value is scaled by 10^9, as seconds would be.
            let value = value.checked_mul(*nanoseconds)? / SECOND;
            return Some((value, true, after.trim_start()));
        }
    }
    Some((value, false, rest))
}

/// The decimal number that a text begins with, times 10^9, and what follows.
fn decimal(text: &str) -> Option<(u128, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, mut rest) = text.split_at(digits(text));
    let mut value = whole.parse::<u64>().ok().map(u128::from)? * SECOND;
    if let Some(after) = rest.strip_prefix('.') {
        let (fraction, after) = after.split_at(digits(after));
        if fraction.is_empty() || fraction.len() > FRACTION_DIGITS_MAX {
            return None;
        }
        let padded = format!("{fraction:0<FRACTION_DIGITS_MAX$}");
        value += padded.parse::<u128>().ok()?;
        rest = after;
    }
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_products_of_terms() {
        let check = |text: &str, expected: Option<Duration>| {
            assert_eq!(duration(text).ok(), expected, "{text:?}");
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        check("0", seconds(0));
        check("5", seconds(5));
        check("180s", seconds(180));
        check("5m", seconds(300));
        check("24h", seconds(86_400));
        check("2d", seconds(172_800));
        check("1w", seconds(604_800));
        check("1mon", seconds(2_592_000));
        check("1y", seconds(31_536_000));
        check("1h30m", seconds(5400));
        check("1h + 30m", seconds(5400));
        check("1m*60", seconds(3600));
        check("60*1m", seconds(3600));
        check("2*3+4", seconds(10));
        check("1m*2+5s", seconds(125));
        check("1.5m", seconds(90));
        check("0.5s", Some(Duration::from_millis(500)));
        check("250ms", Some(Duration::from_millis(250)));
        check("7µs", Some(Duration::from_micros(7)));
        check("7μs", Some(Duration::from_micros(7)));
        check("9ns", Some(Duration::from_nanos(9)));
        check(" 5 s ", seconds(5));
        for wrong in [
            "",
            " ",
            "s",
            "-5s",
            "+5s",
            "5s+",
            "5x",
            "5S",
            "1h30",
            "5 5s",
            "1m*2m",
            "1.s",
            ".5s",
            "1.0000000001s",
            "5*",
            "*5",
            "1e3",
            "101y",
            "18446744073709551616",
            "99999999999y",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn cpu_quantities_are_thousandths() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(cpu_quantity(text).ok(), expected, "{text:?}");
        };
        check("2", Some(2000));
        check("1.5", Some(1500));
        check("500m", Some(500));
        check("0", Some(0));
        check("0.0001", Some(1));
        for wrong in ["", "m", "2k", "-1", "1,5", "2 ", "18446744073709551615"] {
            check(wrong, None);
        }
    }

    #[test]
    fn switches_and_numbers_are_exact() {
        assert_eq!(switch("true"), Ok(true));
        assert_eq!(switch("false"), Ok(false));
        for wrong in ["", "True", "1", "yes", " true"] {
            assert!(switch(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(number(1..=9_u16)("9"), Ok(9));
        for wrong in ["", "0", "10", "-1", "1.0", "0x1", "99999999"] {
            assert!(number(1..=9_u16)(wrong).is_err(), "{wrong:?}");
        }
    }
}
