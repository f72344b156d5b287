//! What is read of an X.509 certificate beside what the TLS library checks: its validity, and the common name of its subject.
//! Pure; must not know who trusts it.

/// Seconds since 1970, the common name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    /// `None` when the subject has none.
    pub(crate) common_name: Option<String>,
}

/// Tags of DER.
const INTEGER: u8 = 0x02;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The version of a certificate, which the first version leaves out.
const VERSION: u8 = 0xa0;
/// `2.5.4.3`.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

impl Certificate {
    /// Reads a certificate in DER; `None` when it is none.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let mut whole = Elements(Elements(der).expect(SEQUENCE)?);
        let mut signed = Elements(whole.expect(SEQUENCE)?);
        if signed.0.first() == Some(&VERSION) {
            signed.next()?;
        }
        signed.expect(INTEGER)?;
        let (_algorithm, _issuer) = (signed.expect(SEQUENCE)?, signed.expect(SEQUENCE)?);
        let mut validity = Elements(signed.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let subject = Elements(signed.expect(SEQUENCE)?);
        Some(Self { not_before, not_after, common_name: common_name(subject) })
    }
}

/// The first common name of a subject.
fn common_name(mut subject: Elements<'_>) -> Option<String> {
    while let Some((SET, set)) = subject.next() {
        let mut attributes = Elements(set);
        while let Some((SEQUENCE, attribute)) = attributes.next() {
            let mut pair = Elements(attribute);
            if pair.next() == Some((OBJECT_ID, &COMMON_NAME[..])) {
                let (_kind_of_text, text) = pair.next()?;
                return std::str::from_utf8(text).ok().map(str::to_owned);
            }
        }
    }
    None
}

/// Seconds since 1970 of a time, which is in UTC; nought for one before.
fn time((tag, text): (u8, &[u8])) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = match tag {
        // Two digits of a year are of 1950 to 2049 (RFC 5280, section 4.1.2.5.1).
        UTC_TIME if text.len() == 12 => format!("{}{text}", if text < "5" { "20" } else { "19" }),
        GENERALIZED_TIME if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    let number = |range: std::ops::Range<usize>| digits[range].parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(8..10)?, number(10..12)?, number(12..14)?);
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(u64::try_from(seconds).unwrap_or(0))
}

/// Days since 1970 of a date of the Gregorian calendar, counted in years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468
}

/// Elements of DER, one behind the other.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// The contents of the next element, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, contents)| contents)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    /// The next element, tag and contents; `None` at the end, and where there is none.
    fn next(&mut self) -> Option<Self::Item> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            // No certificate has more than four bytes of length.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, contents))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    fn made(name: Option<&str>, years: (i32, i32)) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "house");
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        (params.not_before, params.not_after) =
            (date_time_ymd(years.0, 3, 1), date_time_ymd(years.1, 12, 31));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn validity_and_common_name_are_read() {
        for (name, years, not_before, not_after) in [
            (Some("server.example"), (2024, 2049), 1_709_251_200, 2_524_521_600),
            (Some("127.0.0.1"), (1999, 2051), 920_246_400, 2_587_593_600),
            (None, (1960, 2000), 0, 978_220_800),
        ] {
            let found = Certificate::read(&made(name, years)).unwrap();
            let common_name = name.map(str::to_owned);
            assert_eq!(found, Certificate { not_before, not_after, common_name });
        }
    }

    #[test]
    fn what_is_damaged_is_no_certificate_and_no_panic() {
        let good = made(Some("server.example"), (2024, 2049));
        for end in 0..good.len() {
            assert_eq!(Certificate::read(&good[..end]), None, "cut at {end}");
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut damaged = good.clone();
                damaged[at] ^= 1 << bit;
                let _whatever_it_is = Certificate::read(&damaged);
            }
        }
    }
}
