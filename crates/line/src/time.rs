//! Times: nanoseconds since the epoch, and the units in which protocols send them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// An instant: nanoseconds since 1970-01-01T00:00:00Z.
///
/// Not every value can be stored: InfluxDB takes [`Timestamp::MIN`] to [`Timestamp::MAX`] (`models/time.go` of 2.8).
///
/// ```
/// use graylogic_line::Timestamp;
/// assert_eq!(Timestamp::from_nanos(1_700_000_000_500_000_000).to_string(), "2023-11-14T22:13:20.5Z");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant that can be stored, 1677-09-21T00:12:43.145224194Z.
    pub const MIN: Self = Self(-9_223_372_036_854_775_806);
    /// The latest instant that can be stored, 2262-04-11T23:47:16.854775806Z.
    pub const MAX: Self = Self(9_223_372_036_854_775_806);

    /// The instant so many nanoseconds after the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// The present by the system's clock, which may step.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Whether the instant can be stored.
    #[must_use]
    pub fn is_storable(self) -> bool {
        (Self::MIN..=Self::MAX).contains(&self)
    }

    /// The start of the unit that holds the instant, towards zero as InfluxDB cuts it.
    #[must_use]
    pub fn truncated(self, precision: Precision) -> Self {
        let unit = precision.nanos();
        Self(self.0 / unit * unit)
    }
}

impl From<SystemTime> for Timestamp {
    /// The same instant; one outside of what can be stored becomes the nearest that can.
    fn from(time: SystemTime) -> Self {
        let nanos = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
        };
        Self(nanos).clamp(Self::MIN, Self::MAX)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with as many digits as needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.div_euclid(1_000_000_000), self.0.rem_euclid(1_000_000_000));
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60
        )?;
        if nanos > 0 {
            let digits = format!("{nanos:09}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// Year, month and day of a day since the epoch, in the proleptic Gregorian calendar: counted in eras of 400 years
/// that begin on a first of March, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Unit of the times in line protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Precision {
    /// Nanoseconds, the default everywhere.
    #[default]
    Nanoseconds,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Minutes; only the 1.x endpoint knows them.
    Minutes,
    /// Hours; only the 1.x endpoint knows them.
    Hours,
}

impl Precision {
    /// The unit that `/api/v2/write` means by this text: `ns`, `us`, `ms`, `s`.
    #[must_use]
    pub fn parse_v2(text: &str) -> Option<Self> {
        Some(match text {
            "ns" => Self::Nanoseconds,
            "us" => Self::Microseconds,
            "ms" => Self::Milliseconds,
            "s" => Self::Seconds,
            _ => return None,
        })
    }

    /// The unit that the 1.x `/write` means by this text: those of 2.x and `n`, `u`, `m`, `h`.
    #[must_use]
    pub fn parse_v1(text: &str) -> Option<Self> {
        Some(match text {
            "n" => Self::Nanoseconds,
            "u" => Self::Microseconds,
            "m" => Self::Minutes,
            "h" => Self::Hours,
            other => return Self::parse_v2(other),
        })
    }

    /// Nanoseconds in one unit.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        match self {
            Self::Nanoseconds => 1,
            Self::Microseconds => 1_000,
            Self::Milliseconds => 1_000_000,
            Self::Seconds => 1_000_000_000,
            Self::Minutes => 60_000_000_000,
            Self::Hours => 3_600_000_000_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_shown_in_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (1_709_251_199_120_000_000, "2024-02-29T23:59:59.12Z"),
            (Timestamp::MIN.as_nanos(), "1677-09-21T00:12:43.145224194Z"),
            (Timestamp::MAX.as_nanos(), "2262-04-11T23:47:16.854775806Z"),
        ];
        for (nanos, text) in cases {
            assert_eq!(Timestamp::from_nanos(nanos).to_string(), text);
        }
    }

    #[test]
    fn a_clock_before_1970_or_far_away_is_an_instant_all_the_same() {
        let before = UNIX_EPOCH - std::time::Duration::from_nanos(5);
        assert_eq!(Timestamp::from(before).as_nanos(), -5);
        let far = UNIX_EPOCH + std::time::Duration::from_secs(1 << 40);
        assert_eq!(Timestamp::from(far), Timestamp::MAX);
    }
}
