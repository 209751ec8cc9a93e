//! Points in time as RFC 3339 text, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: i64 = 86_400;

/// `2026-08-20T12:00:00.000000Z`, as log lines carry it (spec operations 8).
pub fn micros(at: SystemTime) -> String {
    let (seconds, micros) = since_epoch(at);
    format!("{}.{micros:06}Z", without_zone(seconds))
}

/// `2026-08-20T12:00:00Z` from seconds since the epoch, as the config dump carries it.
pub(super) fn seconds(since_epoch: i64) -> String {
    format!("{}Z", without_zone(since_epoch))
}

/// Whole seconds since the epoch, as metrics carry them; 0 before it.
pub fn epoch_seconds(at: SystemTime) -> i64 {
    let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

/// Whole seconds since the epoch, rounded down, and the microseconds after them.
fn since_epoch(at: SystemTime) -> (i64, u32) {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_micros()),
        Err(error) => {
            let before = error.duration();
            let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |seconds| -seconds);
            match before.subsec_micros() {
                0 => (seconds, 0),
                micros => (seconds.saturating_sub(1), 1_000_000 - micros),
            }
        }
    }
}

fn without_zone(seconds: i64) -> String {
    let (year, month, day) = civil(seconds.div_euclid(SECONDS_PER_DAY));
    let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a day counted from the epoch, in the proleptic Gregorian calendar.
///
/// Years begin in March and are counted in eras of 400, so that the leap day is a year's last.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    const MARCH_OF_YEAR_ZERO_TO_EPOCH: i64 = 719_468;
    let shifted = days + MARCH_OF_YEAR_ZERO_TO_EPOCH;
    let era = shifted.div_euclid(DAYS_PER_ERA);
    let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seconds_are_dates_of_the_gregorian_calendar() {
        let check = |at: i64, expected: &str| assert_eq!(seconds(at), expected);
        check(0, "1970-01-01T00:00:00Z");
        check(-1, "1969-12-31T23:59:59Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(951_868_800, "2000-03-01T00:00:00Z");
        check(1_709_164_800, "2024-02-29T00:00:00Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        check(1_787_184_000, "2026-08-20T00:00:00Z");
        check(253_402_300_799, "9999-12-31T23:59:59Z");
    }

    #[test]
    fn microseconds_have_six_digits_on_both_sides_of_the_epoch() {
        let check = |at: SystemTime, expected: &str| assert_eq!(micros(at), expected);
        check(UNIX_EPOCH, "1970-01-01T00:00:00.000000Z");
        check(UNIX_EPOCH + Duration::from_nanos(7_999), "1970-01-01T00:00:00.000007Z");
        check(UNIX_EPOCH - Duration::from_micros(1), "1969-12-31T23:59:59.999999Z");
        check(UNIX_EPOCH - Duration::from_secs(1), "1969-12-31T23:59:59.000000Z");
        check(
            UNIX_EPOCH + Duration::from_micros(1_787_229_296_012_345),
            "2026-08-20T12:34:56.012345Z",
        );
    }
}
