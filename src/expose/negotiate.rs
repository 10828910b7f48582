//! Which format and which compression a request asks for.

/// A text format for samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// OpenMetrics as drafts named it, version 0.0.1. Older Prometheus asks for
    /// it; the text is that of 1.0.0.
    OpenMetricsDraft,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The `Content-Type` of an answer in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetricsDraft => "application/openmetrics-text; version=0.0.1; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Whether it is OpenMetrics.
    #[inline]
    pub fn is_openmetrics(self) -> bool {
        !matches!(self, Format::Prometheus)
    }
}

/// One element of an `Accept` or `Accept-Encoding` header.
struct Choice<'a> {
    value: &'a str,
    /// `q`, in thousandths.
    quality: u16,
    version: Option<&'a str>,
}

/// The elements of a header. One with a `q` that is no number from 0 to 1 is left out.
fn choices(header: &str) -> impl Iterator<Item = Choice<'_>> {
    header.split(',').filter_map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let mut choice = Choice { value: parts.next()?, quality: 1000, version: None };
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            match name.trim() {
                name if name.eq_ignore_ascii_case("q") => choice.quality = quality(value)?,
                name if name.eq_ignore_ascii_case("version") => choice.version = Some(value),
                _ => {}
            }
        }
        Some(choice)
    })
}

/// `0`, `1` or a decimal between them, in thousandths; further digits are cut.
fn quality(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(3)
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// The format for a request with this `Accept` header; empty where it has none.
///
/// The highest `q` wins, the earlier of equals. OpenMetrics only answers to its
/// own name: browsers and `curl`, which accept `*/*`, get Prometheus text, and
/// so does who accepts nothing that we have, as Prometheus' own libraries do it.
pub fn negotiate(accept: &str) -> Format {
    let mut best = (0, Format::Prometheus);
    for choice in choices(accept) {
        let value = choice.value;
        let format = if value.eq_ignore_ascii_case("application/openmetrics-text") {
            match choice.version {
                None | Some("1.0.0") => Format::OpenMetrics,
                Some("0.0.1") => Format::OpenMetricsDraft,
                Some(_) => continue,
            }
        } else if value.eq_ignore_ascii_case("text/plain") {
            match choice.version {
                None | Some("0.0.4") => Format::Prometheus,
                Some(_) => continue,
            }
        } else if value == "*/*" || value.eq_ignore_ascii_case("text/*") {
            Format::Prometheus
        } else {
            continue;
        };
        if choice.quality > best.0 {
            best = (choice.quality, format);
        }
    }
    best.1
}

/// Whether a request with this `Accept-Encoding` header takes gzip, and would
/// not rather have the text uncompressed; empty where it has none.
pub fn accepts_gzip(accept_encoding: &str) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for choice in choices(accept_encoding) {
        let seen = match choice.value {
            v if v.eq_ignore_ascii_case("gzip") || v.eq_ignore_ascii_case("x-gzip") => &mut gzip,
            v if v.eq_ignore_ascii_case("identity") => &mut identity,
            "*" => &mut any,
            _ => continue,
        };
        *seen = Some(choice.quality);
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let check = |accept: &str, expected: Format| assert_eq!(negotiate(accept), expected, "{accept:?}");
        check("", Format::Prometheus);
        check("*/*", Format::Prometheus);
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Prometheus);
        check("application/json", Format::Prometheus);
        check("application/*", Format::Prometheus);
        check("application/openmetrics-text", Format::OpenMetrics);
        check("Application/OpenMetrics-Text; Version=\"1.0.0\" ; charset=utf-8", Format::OpenMetrics);
        check("application/openmetrics-text; version=0.0.1", Format::OpenMetricsDraft);
        check("application/openmetrics-text; version=2.0.0", Format::Prometheus);
        // Prometheus 2.20, 2.45 and 3.0.
        check(
            "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::OpenMetricsDraft,
        );
        check(
            "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::OpenMetrics,
        );
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            Format::OpenMetrics,
        );
        check("application/openmetrics-text;q=0", Format::Prometheus);
        check("application/openmetrics-text;q=0.2, text/plain;q=0.7", Format::Prometheus);
        check("text/plain, application/openmetrics-text", Format::Prometheus);
        check("application/openmetrics-text, text/plain", Format::OpenMetrics);
        check("application/openmetrics-text;q=0.1", Format::OpenMetrics);
        check("application/openmetrics-text;q=2", Format::Prometheus);
        check("application/openmetrics-text;q=0.x", Format::Prometheus);
        check(";;;=,,q=1;q", Format::Prometheus);
    }

    #[test]
    fn compression() {
        let check = |header: &str, expected: bool| assert_eq!(accepts_gzip(header), expected, "{header:?}");
        check("", false);
        check("gzip", true);
        check("deflate, GZIP;q=0.5", true);
        check("x-gzip", true);
        check("zstd, br", false);
        check("*", true);
        check("*;q=0", false);
        check("gzip;q=0, *", false);
        check("gzip;q=0.000", false);
        check("gzip;q=0.5, identity", false);
        check("identity;q=0.5, gzip;q=1.0", true);
        check("gzip;q=1.001", false);
    }

    #[test]
    fn qualities() {
        let check = |text: &str, expected: Option<u16>| assert_eq!(quality(text), expected, "{text:?}");
        check("1", Some(1000));
        check("1.000", Some(1000));
        check("0.5", Some(500));
        check("0.0009", Some(0));
        check("0.", Some(0));
        check("", None);
        check("-0.5", None);
        check("1.1", None);
        check("0.5e1", None);
    }
}
