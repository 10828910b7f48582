//! Paths as they are compared: who decides about a request and who answers it
//! must read the same in it.

use std::borrow::Cow;

/// A path without doubled slashes and without one at its end. Nothing is decoded:
/// `%2F` is part of a segment.
pub fn tidied(path: &str) -> Cow<'_, str> {
    let doubled = path.contains("//");
    if !doubled && (path.len() < 2 || !path.ends_with('/')) {
        return Cow::Borrowed(path);
    }
    let mut tidy = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        tidy.push('/');
        tidy.push_str(segment);
    }
    if tidy.is_empty() {
        tidy.push('/');
    }
    Cow::Owned(tidy)
}

/// The segments of a path that are not empty, decoded; `None` if one is not UTF-8.
pub fn segments(path: &str) -> Option<Vec<String>> {
    path.split('/').filter(|segment| !segment.is_empty()).map(|segment| decode(segment, false)).collect()
}

/// The names and values of a query, decoded; `None` if one is not UTF-8.
pub fn query(query: &str) -> Option<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let decoded = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(name, true)?, decode(value, true)?))
    };
    pairs.map(decoded).collect()
}

/// Undoes percent encoding; in queries `+` is a space. `None` for what is not UTF-8.
pub fn decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        let (byte, left) = match (first, hex) {
            (b'%', Some(byte)) => (byte, after.get(2..).unwrap_or_default()),
            (b'+', _) if plus => (b' ', after),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes() {
        let check = |path: &str, expected: &str| assert_eq!(tidied(path), expected, "{path}");
        for same in ["", "*", "/", "/a", "/a/b", "/a/../b", "/%2F%2f/a", "a/b"] {
            check(same, same);
        }
        check("//", "/");
        check("///", "/");
        check("/a/", "/a");
        check("//api/v1/model//metrics/", "/api/v1/model/metrics");
        check("/a/..//b", "/a/../b");
        check("/a%2F/", "/a%2F");
    }

    #[test]
    fn queries_are_read() {
        let found = query("x=1&&y&name%5B%5D=a%3Ab+c%2bd&bad=%zz").unwrap();
        let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, [("x", "1"), ("y", ""), ("name[]", "a:b c+d"), ("bad", "%zz")]);
        assert_eq!(query("x=%ff"), None);
        assert_eq!(decode("a+b", false).as_deref(), Some("a+b"));
    }
}
