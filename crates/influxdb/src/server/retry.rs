//! When to try again: pure arithmetic.

use std::time::Duration;

/// The first pause, doubled each time up to the longest.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(60);
/// What a server asks for is believed up to here.
const ASKED_LONGEST: Duration = Duration::from_secs(600);
/// A server that refuses a setting is asked again after these times, then each minute.
const HELD: [u64; 3] = [1, 5, 15];

/// Pauses between tries: full jitter over a doubling bound, for ever.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    tries: u32,
    dice: u64,
    /// Pauses are so many times shorter: for tests.
    hurry: u32,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self { tries: 0, dice: seed | 1, hurry: 1 }
    }

    pub(crate) fn hurried(mut self, times: u32) -> Self {
        self.hurry = times.max(1);
        self
    }

    /// It went well.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next pause; what the server asked for counts, unless that is next to nothing: then it would be asked without end.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.tries.min(16)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        let pause = match asked {
            Some(time) if time >= FIRST => time.min(ASKED_LONGEST),
            _ => bound.mul_f64(self.roll()).max(FIRST / 8),
        };
        pause / self.hurry
    }

    /// The pause after a refusal that somebody must mend.
    pub(crate) fn held(&mut self) -> Duration {
        let seconds = HELD.get(self.tries as usize).copied().unwrap_or(60);
        self.tries = self.tries.saturating_add(1);
        Duration::from_secs(seconds) / self.hurry
    }

    /// One of two, by chance.
    pub(crate) fn coin(&mut self) -> bool {
        self.roll() < 0.5
    }

    /// From 0 to 1.
    fn roll(&mut self) -> f64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What a `Retry-After` header asks for: seconds, or a date (RFC 9110, section 10.2.3). What cannot be read, and what is
/// past, asks for nothing.
pub(crate) fn retry_after(text: &str, now_unix: i64) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        let usable = seconds.is_finite() && seconds >= 0.0;
        return usable.then(|| Duration::from_secs_f64(seconds.min(ASKED_LONGEST.as_secs_f64())));
    }
    let until = http_date(text)?;
    let left = until.saturating_sub(now_unix);
    u64::try_from(left).ok().map(|s| Duration::from_secs(s).min(ASKED_LONGEST))
}

/// Seconds since the epoch of `Sun, 06 Nov 1994 08:49:37 GMT`, and of the two older forms.
pub(crate) fn http_date(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split([' ', ',', '-']).filter(|w| !w.is_empty()).collect();
    let month = |w: &str| {
        let names = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        names.iter().position(|n| w.to_ascii_lowercase() == *n).map(|i| i as i64 + 1)
    };
    let number = |w: &str| w.parse::<i64>().ok();
    let (day, month, year, time) = match words[..] {
        // IMF-fixdate, and RFC 850 with its two digits of a year.
        [_, d, m, y, t, zone] if zone == "GMT" || zone == "UTC" => {
            let y = number(y)?;
            (
                number(d)?,
                month(m)?,
                if y < 70 {
                    y + 2000
                } else if y < 100 {
                    y + 1900
                } else {
                    y
                },
                t,
            )
        }
        // asctime
        [_, m, d, t, y] => (number(d)?, month(m)?, number(y)?, t),
        _ => return None,
    };
    let clock: Vec<i64> = time.split(':').map(number).collect::<Option<_>>()?;
    let [hour, minute, second] = clock[..] else { return None };
    let fits = (1..=31).contains(&day)
        && (1970..=9999).contains(&year)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    // Days since the epoch of a date of the Gregorian calendar, counted in years that begin in March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    fits.then_some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        const NOW: i64 = 784_111_777;
        let seconds = |n| Some(Duration::from_secs(n));
        let cases = [
            ("0", seconds(0)),
            ("120", seconds(120)),
            (" 7 ", seconds(7)),
            ("1.5", Some(Duration::from_millis(1500))),
            ("1e9", seconds(600)),
            ("99999999999999999999", seconds(600)),
            ("-5", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", seconds(30)),
            ("Sunday, 06-Nov-94 08:50:07 GMT", seconds(30)),
            ("Sun Nov  6 08:50:07 1994", seconds(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None),
            ("Sun, 06 Nov 2094 08:49:37 GMT", seconds(600)),
            ("Sun, 99 Nov 1994 08:49:37 GMT", None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ];
        for (text, expected) in cases {
            assert_eq!(retry_after(text, NOW), expected, "{text:?}");
        }
        assert_eq!(http_date("Thu, 29 Feb 2024 23:59:60 GMT"), Some(1_709_251_200));
    }

    #[test]
    fn pauses_grow_to_a_minute_and_never_end() {
        let mut backoff = Backoff::new(7);
        let mut longest = Duration::ZERO;
        for i in 0..10_000 {
            let pause = backoff.next(None);
            assert!(pause <= FIRST.saturating_mul(1 << i.min(16)) && pause <= LONGEST && !pause.is_zero());
            longest = longest.max(pause);
        }
        assert!(longest > LONGEST * 9 / 10);
        assert_eq!(backoff.next(Some(Duration::from_secs(9))), Duration::from_secs(9));
        for soon in [Duration::ZERO, Duration::from_millis(1)] {
            assert!((0..100).all(|_| backoff.next(Some(soon)) >= FIRST / 8), "a pause of next to nothing");
        }
        backoff.reset();
        assert!(backoff.next(None) <= FIRST);
        backoff.reset();
        let held: Vec<u64> = (0..5).map(|_| backoff.held().as_secs()).collect();
        assert_eq!(held, [1, 5, 15, 60, 60]);
    }
}
