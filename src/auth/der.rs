//! The two things we ask of a certificate that the TLS library does not tell:
//! whom it names, and when it ends.
//!
//! Only certificates that are ours, or that the library has verified against
//! the client CA, come here. Layout: RFC 5280 section 4.1, in DER (X.690).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;

/// UTF8String, PrintableString and IA5String: the ones that are text as they are.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];

/// `id-at-commonName` and `id-at-organizationName`.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

/// What a certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// The last common name; `None` when there is none, or it is not text.
    pub(super) common_name: Option<String>,
    /// Organisations in the order they are written.
    pub(super) organizations: Vec<String>,
}

/// What is left to be read.
#[derive(Debug, Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and its content.
    fn next(&mut self) -> Option<(u8, Der<'a>)> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // One to four bytes of length; the indefinite form is not DER.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (
                    bytes
                        .iter()
                        .try_fold(0_usize, |n, b| n.checked_mul(256)?.checked_add(usize::from(*b)))?,
                    rest,
                )
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, Der(content)))
    }

    /// The next element, if it has this tag.
    fn expect(&mut self, tag: u8) -> Option<Der<'a>> {
        let mut ahead = *self;
        let (found, content) = ahead.next()?;
        if found != tag {
            return None;
        }
        *self = ahead;
        Some(content)
    }
}

/// Validity and subject: what follows the issuer.
fn from_validity(certificate: &[u8]) -> Option<Der<'_>> {
    let mut tbs = Der(certificate).expect(SEQUENCE)?.expect(SEQUENCE)?;
    // Left out in certificates of version 1.
    let _ = tbs.expect(VERSION);
    tbs.expect(INTEGER)?;
    tbs.expect(SEQUENCE)?;
    tbs.expect(SEQUENCE)?;
    Some(tbs)
}

/// Whom the certificate names; `None` if it is none.
pub(super) fn subject(certificate: &[u8]) -> Option<Subject> {
    let mut tbs = from_validity(certificate)?;
    tbs.expect(SEQUENCE)?;
    let mut names = tbs.expect(SEQUENCE)?;
    let mut subject = Subject { common_name: None, organizations: Vec::new() };
    while let Some(mut set) = names.expect(SET) {
        while let Some(mut pair) = set.expect(SEQUENCE) {
            let kind = pair.expect(OID)?;
            let (tag, value) = pair.next()?;
            let text = TEXTS.contains(&tag).then(|| std::str::from_utf8(value.0).ok()).flatten();
            match (kind.0, text) {
                (COMMON_NAME, text) => subject.common_name = text.map(str::to_owned),
                (ORGANIZATION, Some(text)) => subject.organizations.push(text.to_owned()),
                _ => {}
            }
        }
    }
    Some(subject)
}

/// When the certificate ends; `None` if it is none.
pub(super) fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let mut validity = from_validity(certificate)?.expect(SEQUENCE)?;
    validity.next()?;
    let (tag, text) = validity.next()?;
    time(tag, text.0)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = digits.get(from..to)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    let (year, at) = match tag {
        // RFC 5280: two digits below 50 are of this century.
        UTC_TIME => (number(0, 2).map(|y| if y < 50 { 2000 + y } else { 1900 + y })?, 2),
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let field = |index: usize| number(at + 2 * index, at + 2 * index + 2);
    let (month, day) = (field(0)?, field(1)?);
    if digits.len() != at + 10 || !(1..=12).contains(&month) || !(1970..=9999).contains(&year) {
        return None;
    }
    let days = days_before(year, month)? + day.checked_sub(1)?;
    let seconds = ((days * 24 + field(2)?) * 60 + field(3)?) * 60 + field(4)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Days from 1970 to the first of a month, by the Gregorian calendar.
fn days_before(year: u64, month: u64) -> Option<u64> {
    const DAYS: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let in_year = *DAYS.get(usize::try_from(month).ok()?.checked_sub(1)?)? + u64::from(leap && month > 2);
    Some((year - 1970) * 365 + leaps(year - 1) - leaps(1969) + in_year)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(build: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        build(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_groups() {
        let der = certificate(|params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CountryName, "DE");
            params.distinguished_name.push(DnType::OrganizationName, "system:masters");
            params.distinguished_name.push(DnType::CommonName, "prometheus");
        });
        let expected = Subject {
            common_name: Some("prometheus".to_owned()),
            organizations: vec!["system:masters".to_owned()],
        };
        assert_eq!(subject(&der), Some(expected));
        let nobody = certificate(|params| params.distinguished_name = rcgen::DistinguishedName::new());
        assert_eq!(subject(&nobody), Some(Subject { common_name: None, organizations: Vec::new() }));
    }

    #[test]
    fn ends() {
        let check = |year: i32, month: u8, day: u8, expected: u64| {
            let der = certificate(|params| params.not_after = rcgen::date_time_ymd(year, month, day));
            assert_eq!(not_after(&der), Some(UNIX_EPOCH + Duration::from_secs(expected)), "{year}");
        };
        check(2026, 11, 21, 1_795_219_200);
        check(2024, 2, 29, 1_709_164_800);
        check(2000, 3, 1, 951_868_800);
        // From 2050 on the other form of time is used.
        check(2050, 1, 1, 2_524_608_000);
        check(2100, 3, 1, 4_107_542_400);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..400) {
            let _ = (subject(&bytes), not_after(&bytes), time(UTC_TIME, &bytes), time(GENERALIZED_TIME, &bytes));
            static WHOLE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| certificate(|_| {}));
            let part = WHOLE.get(..cut.min(WHOLE.len())).unwrap_or_default();
            let _ = (subject(part), not_after(part));
        }
    }
}
