//! Memory by NUMA node: `memory.numa_stat` of either version.

use super::{ReadError, digits, lines, malformed, words};

/// Calls `each` with key, node and value. v1 counts pages and gives each key its sum, v2
/// counts bytes:
///
/// ```text
/// file=677 N0=677
/// hierarchical_file=2148094 N0=2148000 N1=94
/// ```
/// ```text
/// anon N0=843776 N1=0
/// ```
pub fn by_node(text: &[u8], mut each: impl FnMut(&[u8], u32, u64)) -> Result<(), ReadError> {
    for (number, line) in lines(text) {
        let bad = || malformed(number);
        let mut words = words(line);
        let key = words.next().ok_or_else(bad)?;
        let key = key.split(|b| *b == b'=').next().unwrap_or(key);
        for word in words {
            let (node, value) = pair(word).ok_or_else(bad)?;
            each(key, node, value);
        }
    }
    Ok(())
}

/// `N0=677`.
fn pair(word: &[u8]) -> Option<(u32, u64)> {
    let equals = word.iter().position(|b| *b == b'=')?;
    let node = digits(word.get(..equals)?.strip_prefix(b"N")?)?;
    Some((u32::try_from(node).ok()?, digits(word.get(equals + 1..)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Vec<String>, ReadError> {
        let mut found = Vec::new();
        by_node(text, |key, node, value| found.push(format!("{} {node} {value}", key.escape_ascii())))
            .map(|()| found)
    }

    #[test]
    fn both_versions() {
        assert_eq!(
            read(b"total=7 N0=5 N1=2\nfile=1 N0=1\n").unwrap(),
            ["total 0 5", "total 1 2", "file 0 1"]
        );
        assert_eq!(read(b"anon N0=4096 N12=0\n").unwrap(), ["anon 0 4096", "anon 12 0"]);
        assert_eq!(read(b"anon N0=\n"), Err(ReadError::Malformed { line: 1 }));
        assert_eq!(read(b"a=1\nanon 0=1\n"), Err(ReadError::Malformed { line: 2 }));
    }
}
