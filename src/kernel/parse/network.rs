//! Figures of a network namespace other than its interfaces.

use nonmax::NonMaxI64;

use super::{ReadError, digits, lines, malformed, trim, words};

/// `/proc/<pid>/net/sockstat` and `sockstat6`: calls `each` with protocol, key and value.
///
/// ```text
/// sockets: used 290
/// TCP: inuse 7 orphan 0 tw 2 alloc 11 mem 2
/// UDP: inuse 4 mem 3
/// ```
pub fn sockstat(text: &[u8], mut each: impl FnMut(&[u8], &[u8], u64)) -> Result<(), ReadError> {
    for (number, line) in lines(text) {
        let mut words = words(line);
        let bad = || malformed(number);
        let protocol = words.next().and_then(|w| w.strip_suffix(b":")).ok_or_else(bad)?;
        while let Some(key) = words.next() {
            each(protocol, key, words.next().and_then(digits).ok_or_else(bad)?);
        }
    }
    Ok(())
}

/// One figure of `/proc/<pid>/net/snmp6`; `None` where there is no such line.
///
/// ```text
/// Udp6InDatagrams                    0
/// ```
///
/// In the file a tab comes before the number.
pub fn snmp6(text: &[u8], wanted: &str) -> Result<Option<u64>, ReadError> {
    for (number, line) in lines(text) {
        if let Some(rest @ [b' ' | b'\t', ..]) = line.strip_prefix(wanted.as_bytes()) {
            return digits(trim(rest)).map(Some).ok_or_else(|| malformed(number));
        }
    }
    Ok(None)
}

/// A reader of the lines of one protocol in `/proc/<pid>/net/snmp` or `netstat`, which
/// come in pairs of names and values:
///
/// ```text
/// Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens
/// Tcp: 1 200 120000 -1 7
/// ```
///
/// The names are the same each time, so the reader remembers which of them are wanted.
#[derive(Debug)]
pub struct Columns {
    protocol: &'static [u8],
    wanted: &'static [&'static str],
    names: Vec<u8>,
    /// For each name its position in `wanted`.
    plan: Vec<Option<usize>>,
}

impl Columns {
    /// A reader of `wanted` names of `protocol`, which is written with its colon.
    pub fn new(protocol: &'static str, wanted: &'static [&'static str]) -> Columns {
        Columns { protocol: protocol.as_bytes(), wanted, names: Vec::new(), plan: Vec::new() }
    }

    /// Calls `each` with a position in the wanted list and its value, for those that this
    /// kernel has.
    ///
    /// # Errors
    /// There is no such protocol, or its lines do not fit together or have no numbers.
    pub fn read(&mut self, text: &[u8], mut each: impl FnMut(usize, NonMaxI64)) -> Result<(), ReadError> {
        let mut lines = lines(text)
            .filter_map(|(number, line)| Some((number, line.strip_prefix(self.protocol)?)))
            .filter(|(_, rest)| rest.first() == Some(&b' '));
        let (Some((_, names)), Some((number, values))) = (lines.next(), lines.next()) else {
            return Err(ReadError::Malformed { line: 1 });
        };
        let mut values = words(trim(values));
        if names != self.names {
            self.plan.clear();
            let position = |name: &[u8]| self.wanted.iter().position(|w| w.as_bytes() == name);
            self.plan.extend(words(trim(names)).map(position));
            self.names.clear();
            self.names.extend_from_slice(names);
        }
        for wanted in &self.plan {
            let value = values.next().ok_or_else(|| malformed(number))?;
            if let Some(wanted) = *wanted {
                each(wanted, signed(value).ok_or_else(|| malformed(number))?);
            }
        }
        if values.next().is_some() { Err(malformed(number)) } else { Ok(()) }
    }
}

fn signed(text: &[u8]) -> Option<NonMaxI64> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |text| (true, text));
    let value = i64::try_from(digits(text)?).ok()?;
    NonMaxI64::new(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &[u8] =
        b"Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoMin MaxConn InSegs New\nTcp: 200 -1 7 3\n\
        TcpExt: InSegs\nTcpExt: 9\n";

    fn read(columns: &mut Columns, text: &[u8]) -> Result<Vec<(usize, i64)>, ReadError> {
        let mut found = Vec::new();
        columns.read(text, |at, value| found.push((at, value.get()))).map(|()| found)
    }

    #[test]
    fn pairs_of_lines() {
        let mut columns = Columns::new("Tcp:", &["InSegs", "MaxConn", "OutSegs"]);
        for _ in 0..2 {
            assert_eq!(read(&mut columns, SNMP), Ok(vec![(1, -1), (0, 7)]));
        }
        assert_eq!(read(&mut columns, b"Tcp: InSegs\nTcp: 5\n"), Ok(vec![(0, 5)]), "learns again");
        for damaged in [&b""[..], b"Tcp: InSegs\n", b"Tcp: InSegs\nTcp: x\n", b"Tcp: A B\nTcp: 1\n"] {
            assert!(read(&mut columns, damaged).is_err(), "{damaged:?}");
        }
        assert!(read(&mut columns, b"Tcp: A\nTcp: 1 2\n").is_err());
    }

    #[test]
    fn sockets_by_protocol() {
        let mut found = Vec::new();
        let text = b"sockets: used 290\nTCP: inuse 7 orphan 0\n";
        let mut each =
            |p: &[u8], k: &[u8], v| found.push(format!("{}/{}={v}", p.escape_ascii(), k.escape_ascii()));
        sockstat(text, &mut each).unwrap();
        assert_eq!(sockstat(b"TCP: inuse\n", &mut each), Err(ReadError::Malformed { line: 1 }));
        assert_eq!(sockstat(b"TCP inuse 1\n", &mut each), Err(ReadError::Malformed { line: 1 }));
        assert_eq!(found, ["sockets/used=290", "TCP/inuse=7", "TCP/orphan=0"]);
    }

    #[test]
    fn one_figure_of_ipv6() {
        let text = b"Ip6InReceives                   \t0\nUdp6InErrors                    \t12\n";
        assert_eq!(snmp6(text, "Udp6InErrors"), Ok(Some(12)));
        assert_eq!(snmp6(text, "Udp6"), Ok(None));
        assert_eq!(snmp6(b"Udp6InErrors -\n", "Udp6InErrors"), Err(ReadError::Malformed { line: 1 }));
    }
}
