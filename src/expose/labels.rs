//! Label values as the text formats want them.
//!
//! A value may hold any UTF-8; the formats escape backslash, double quote and
//! line feed and know no other escape. Control characters would be legal as
//! they are, but a cgroup or an interface can be named by whoever runs in a
//! container, and the text ends up in terminals: they are shown as `\x1b`, the
//! way systemd shows them in unit names.

use crate::snapshot::Identity;

/// Bytes that one byte of a value can grow to: a control character becomes
/// `\\x1b`, five bytes.
pub const WORST_GROWTH: usize = 5;

const HEX: [&str; 16] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"];

/// Whether a byte stands for itself. 0xc2 leads the control characters U+0080
/// to U+009F, so it needs a closer look.
#[inline]
const fn plain(byte: u8) -> bool {
    byte >= 0x20 && byte != 0x7f && byte != b'"' && byte != b'\\' && byte != 0xc2
}

/// Hands `value` to `put` in pieces, escaped.
#[inline]
pub fn escape(value: &str, mut put: impl FnMut(&str)) {
    if value.bytes().all(plain) {
        return put(value);
    }
    let mut copied = 0;
    for (at, c) in value.char_indices() {
        if !matches!(c, '\\' | '"' | '\n') && !c.is_control() {
            continue;
        }
        put(value.get(copied..at).unwrap_or(""));
        copied = at + c.len_utf8();
        match c {
            '\\' => put("\\\\"),
            '"' => put("\\\""),
            '\n' => put("\\n"),
            _ => {
                for &byte in c.encode_utf8(&mut [0; 4]).as_bytes() {
                    put("\\\\x");
                    for digit in [byte >> 4, byte & 0xf] {
                        put(HEX.get(usize::from(digit)).copied().unwrap_or(""));
                    }
                }
            }
        }
    }
    put(value.get(copied..).unwrap_or(""));
}

/// Appends `name="value"`, after a comma unless it is the first.
pub fn append(labels: &mut String, name: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    labels.push_str(name);
    labels.push_str("=\"");
    escape(value, |piece| labels.push_str(piece));
    labels.push('"');
}

/// The base labels of a cgroup, as they stand between `{` and `}` on each of
/// its lines: `id` always, `image` and `name` where they are known.
pub fn base_labels(path: &str, identity: &Identity) -> String {
    let mut labels = String::new();
    append(&mut labels, "id", path);
    for (name, value) in [("image", &identity.image), ("name", &identity.name)] {
        match value {
            // An empty label is the same as none, and costs bytes on each line.
            Some(value) if !value.is_empty() => append(&mut labels, name, value),
            _ => {}
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: &str) {
        let mut escaped = String::new();
        escape(value, |piece| escaped.push_str(piece));
        assert_eq!(escaped, expected, "{value:?}");
        assert!(escaped.len() <= value.len() * WORST_GROWTH);
    }

    #[test]
    fn values_are_escaped() {
        check("", "");
        check("/system.slice/ssh.service", "/system.slice/ssh.service");
        check(r"/system.slice/system-getty\x2d.slice", r"/system.slice/system-getty\\x2d.slice");
        check("a\"b\\c\nd", r#"a\"b\\c\nd"#);
        check("\x1b[2J\r\t\0\x7f", r"\\x1b[2J\\x0d\\x09\\x00\\x7f");
        check("\u{9b}x", r"\\xc2\\x9bx");
        check("Ünïcode © ÿ 名", "Ünïcode © ÿ 名");
        check("\n", r"\n");
    }

    #[test]
    fn base_labels_leave_out_what_is_unknown() {
        let identity = |name: Option<&str>, image: Option<&str>| Identity {
            name: name.map(str::to_owned),
            image: image.map(str::to_owned),
            ..Identity::default()
        };
        assert_eq!(base_labels("/", &Identity::default()), r#"id="/""#);
        assert_eq!(base_labels("", &identity(Some(""), Some(""))), r#"id="""#);
        assert_eq!(
            base_labels("/docker/0a\"", &identity(Some("web"), Some("nginx:1"))),
            r#"id="/docker/0a\"",image="nginx:1",name="web""#
        );
        assert_eq!(base_labels("/a", &identity(Some("web"), None)), r#"id="/a",name="web""#);
    }
}
