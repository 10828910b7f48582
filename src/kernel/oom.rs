//! Records of the kernel's log → processes killed for want of memory.
//!
//! Pure: bytes in, kills out, nothing opened, no panic on any bytes. A record is
//! what one read of `/dev/kmsg` gives (Documentation/ABI/testing/dev-kmsg):
//!
//! ```text
//! 6,501,12773889,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c1,mems_allowed=0,oom_memcg=/a/c1,task_memcg=/a/c1,task=dd,pid=422,uid=0
//! 3,502,12781664,-;Memory cgroup out of memory: Killed process 422 (dd) total-vm:67796kB, anon-rss:32400kB, …
//! ```
//!
//! The kernel writes one `Killed process` line for each kill it counts, whatever
//! came before it, so that line is the kill; the other lines tell whose it was:
//!
//! - from 5.0 on the `oom-kill:` line, by pid; `global_oom` in the place of
//!   `oom_memcg=` when the whole machine ran short. It is limited to ten in five
//!   seconds, while kills are not;
//! - before, `Task in A killed as a result of limit of B`, for limits only;
//! - with `memory.oom.group` set, `Tasks in A are going to be killed due to
//!   memory.oom.group set`, after the first victim and before the others.
//!
//! Anyone who may write to the log can write such lines too, but only the kernel
//! has facility 0. A process chooses its own name, up to 15 bytes of anything,
//! and the names of the cgroups it may make; neither moves a kill elsewhere.

use super::{lossless_text, parse};

/// Longest line put together from fragments.
const MAX_LINE: usize = 16 << 10;

/// Bytes of a process name.
const MAX_NAME: usize = 15;

/// Victims of a group kill follow at once; what comes later is another kill.
const GROUP_LASTS_USEC: u64 = 10_000_000;

const SUMMARY: &[u8] = b"oom-kill:constraint=";
const VICTIM: &[u8] = b"Task in ";
const VICTIM_LIMIT: &[u8] = b" killed as a result of limit of ";
const GROUP: &[u8] = b"Tasks in ";
const GROUP_END: &[u8] = b" are going to be killed due to memory.oom.group set";
const INVOKED: &[u8] = b" invoked oom-killer: ";
const KILLED: &[u8] = b"Killed process ";
/// What stands before [`KILLED`], from 5.3 on on the same line.
const REASONS: [&[u8]; 3] =
    [b"Memory cgroup out of memory: ", b"Out of memory: ", b"Out of memory (oom_kill_allocating_task): "];

/// One record of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Who wrote it: 0 is the kernel.
    pub facility: u64,
    /// Counts up by one a record.
    pub sequence: u64,
    /// When it was written, microseconds of the kernel's log clock.
    pub usec: u64,
    /// Whether it is a piece of a line that came in several.
    pub fragment: bool,
    /// The line, with everything but printable ASCII as `\xHH`.
    pub text: &'a [u8],
}

/// One process the kernel killed because memory ran short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// The process, in the host's PID namespace.
    pub pid: u32,
    /// The cgroup it was in, as the `id` label has it; `None` where the log does not tell.
    pub cgroup: Option<String>,
    /// Whether that is its own cgroup; otherwise it may be one above it.
    pub certain: bool,
    /// What it called itself.
    pub process: String,
    /// The cgroup whose limit was hit; `None` where it was the machine's memory that
    /// was short, or where the log does not tell.
    pub limit: Option<String>,
    /// What was short, in the kernel's word: `CONSTRAINT_MEMCG`, `CONSTRAINT_NONE`; from
    /// 5.0 on.
    pub constraint: Option<String>,
}

/// Takes one record apart; `None` for what is none.
pub fn record(bytes: &[u8]) -> Option<Record<'_>> {
    let (prefix, text) = split_once(bytes, b";")?;
    let mut fields = prefix.split(|b| *b == b',');
    let priority = parse::digits(fields.next()?)?;
    let sequence = parse::digits(fields.next()?)?;
    let usec = parse::digits(fields.next()?)?;
    let fragment = matches!(fields.next()?, b"c" | b"+");
    // Lines that follow are `KEY=value` pairs of the device that logged.
    let text = text.split(|b| *b == b'\n').next().unwrap_or_default();
    Some(Record { facility: priority >> 3, sequence, usec, fragment, text })
}

/// Finds kills in records as they come.
#[derive(Debug, Default)]
pub struct Parser {
    /// The last line of interest, as it was before the log escaped it.
    line: Vec<u8>,
    /// Pieces of it may follow.
    open: bool,
    /// The victim the last summary named.
    named: Option<Named>,
    /// The cgroup of the next victim and that of the limit, before 5.0.
    next: Option<(String, Option<String>)>,
    /// The cgroup that is killed as a whole, and since when.
    group: Option<(String, u64)>,
}

/// What a summary says.
#[derive(Debug)]
struct Named {
    pid: u32,
    cgroup: String,
    process: String,
    limit: Option<String>,
    constraint: String,
}

/// What a line says.
#[derive(Debug)]
enum Line {
    Invoked,
    Summary(Named),
    Victim(String, Option<String>),
    Group(String),
    /// Its name where the line has it whole.
    Killed(u32, Option<String>),
    /// Begins like one of these.
    Unfinished,
    Other,
}

impl Parser {
    /// Takes the next record and gives the kill it tells of, if it does.
    pub fn push(&mut self, record: &Record<'_>) -> Option<Kill> {
        if record.facility != 0 {
            return None;
        }
        if record.fragment && self.open && !is_opening(record.text) {
            unescape(record.text, &mut self.line);
        } else if is_of_interest(record.text) {
            self.line.clear();
            unescape(record.text, &mut self.line);
        } else {
            return None;
        }
        if self.line.len() > MAX_LINE {
            self.open = false;
            return None;
        }
        let line = read_line(&self.line);
        self.open = matches!(line, Line::Unfinished);
        match line {
            Line::Invoked => {
                (self.named, self.next, self.group) = (None, None, None);
                None
            }
            Line::Summary(named) => {
                self.named = Some(named);
                self.group = None;
                None
            }
            Line::Victim(cgroup, limit) => {
                self.next = Some((cgroup, limit));
                None
            }
            Line::Group(cgroup) => {
                self.group = Some((cgroup, record.usec));
                None
            }
            Line::Killed(pid, process) => Some(self.kill(pid, process, record.usec)),
            Line::Unfinished | Line::Other => None,
        }
    }

    fn kill(&mut self, pid: u32, process: Option<String>, usec: u64) -> Kill {
        if let Some(named) = self.named.take_if(|named| named.pid == pid) {
            let (process, limit) = (process.unwrap_or(named.process), named.limit);
            let (cgroup, constraint) = (Some(named.cgroup), Some(named.constraint));
            return Kill { pid, cgroup, certain: true, process, limit, constraint };
        }
        let process = process.unwrap_or_default();
        if let Some((cgroup, limit)) = self.next.take() {
            return Kill { pid, cgroup: Some(cgroup), certain: true, process, limit, constraint: None };
        }
        let young = |since: u64| usec.saturating_sub(since) <= GROUP_LASTS_USEC;
        let group = self.group.as_ref().filter(|(_, since)| young(*since)).map(|(group, _)| group.clone());
        Kill { pid, cgroup: group, certain: false, process, limit: None, constraint: None }
    }
}

/// The cgroup of a process that has the memory controller, from
/// `/proc/<pid>/cgroup`, as the `id` label has it. `None` also for one outside
/// of what this process may see, and for the root, where v1 puts the dead.
///
/// ```text
/// 5:memory:/kubepods/pod1/c1
/// 0::/kubepods/pod1/c1
/// ```
pub fn memory_cgroup(text: &[u8]) -> Option<String> {
    let mut unified = None;
    let mut memory = None;
    for line in text.split(|b| *b == b'\n') {
        let Some((number, rest)) = split_once(line, b":") else { continue };
        let Some((controllers, path)) = split_once(rest, b":") else { continue };
        if controllers.split(|b| *b == b',').any(|c| c == b"memory") {
            memory = Some(path);
        } else if number == b"0" && controllers.is_empty() {
            unified = Some(path);
        }
    }
    let path = memory.or(unified)?;
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let inside = path.starts_with(b"/") && path != b"/" && !path.starts_with(b"/..");
    inside.then(|| lossless_text(path))
}

fn is_opening(text: &[u8]) -> bool {
    [SUMMARY, VICTIM, GROUP, KILLED].iter().chain(&REASONS).any(|word| text.starts_with(word))
}

fn is_of_interest(text: &[u8]) -> bool {
    is_opening(text) || find(text, INVOKED).is_some()
}

fn read_line(line: &[u8]) -> Line {
    if line.starts_with(SUMMARY) {
        return summary(line).unwrap_or(Line::Unfinished);
    }
    if let Some(rest) = line.strip_prefix(VICTIM) {
        let parts = find_last(rest, VICTIM_LIMIT).and_then(|at| rest.split_at_checked(at));
        return match parts {
            Some((cgroup, after)) => {
                let limit = after.strip_prefix(VICTIM_LIMIT).and_then(path);
                path(cgroup).map_or(Line::Other, |cgroup| Line::Victim(cgroup, limit))
            }
            None => Line::Unfinished,
        };
    }
    if let Some(rest) = line.strip_prefix(GROUP) {
        return match rest.strip_suffix(GROUP_END) {
            Some(cgroup) => path(cgroup).map_or(Line::Other, Line::Group),
            None => Line::Unfinished,
        };
    }
    let message = REASONS.iter().find_map(|reason| line.strip_prefix(*reason)).unwrap_or(line);
    if let Some(rest) = message.strip_prefix(KILLED) {
        // A name in brackets must follow, so that no other line is taken for it.
        let found = split_once(rest, b" (").and_then(|(pid, rest)| Some((number(pid)?, name(rest))));
        return found.map_or(Line::Other, |(pid, name)| Line::Killed(pid, name));
    }
    if find(line, INVOKED).is_some() { Line::Invoked } else { Line::Other }
}

/// `oom-kill:…,task_memcg=<path>,task=<name>,pid=<pid>,uid=<uid>`, from the end,
/// where the numbers are.
fn summary(line: &[u8]) -> Option<Line> {
    let at = find_last(line, b",uid=")?;
    parse::digits(line.get(at + b",uid=".len()..)?)?;
    let line = line.get(..at)?;
    let at = find_last(line, b",pid=")?;
    let pid = number(line.get(at + b",pid=".len()..)?)?;
    let line = line.get(..at)?;
    // The first that leaves no more than a name: the name may hold the word itself.
    const TASK: &[u8] = b",task=";
    let longest = line.len().saturating_sub(TASK.len() + MAX_NAME);
    let at = longest + find(line.get(longest..)?, TASK)?;
    let process = lossless_text(line.get(at + TASK.len()..)?);
    let line = line.get(..at)?;
    let (before, cgroup) = split_once(line, b",task_memcg=")?;
    let limit = split_once(before, b",oom_memcg=").and_then(|(_, limit)| path(limit));
    let constraint = before.strip_prefix(SUMMARY)?.split(|b| *b == b',').next().unwrap_or_default();
    let constraint = lossless_text(constraint);
    Some(Line::Summary(Named { pid, cgroup: path(cgroup)?, process, limit, constraint }))
}

/// What stands before the last bracket that can end a name: `dd) total-vm:1kB`. The name
/// may hold brackets itself.
fn name(rest: &[u8]) -> Option<String> {
    let ends = |at: &usize| rest.get(*at) == Some(&b')') && matches!(rest.get(at + 1), Some(b' ' | b','));
    let end = (0..=MAX_NAME).rev().find(ends)?;
    rest.get(..end).map(lossless_text)
}

fn path(bytes: &[u8]) -> Option<String> {
    bytes.starts_with(b"/").then(|| lossless_text(bytes))
}

fn number(text: &[u8]) -> Option<u32> {
    parse::digits(text).and_then(|n| u32::try_from(n).ok())
}

/// Appends the text with its `\xHH` undone.
fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match (byte, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                digit(*high).zip(digit(*low)).map(|(high, low)| (high << 4 | low, after))
            }
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((byte, after));
        out.push(byte);
        rest = after;
    }
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|w| w == word)
}

fn find_last(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).rposition(|w| w == word)
}

fn split_once<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = find(text, separator)?;
    Some((text.get(..at)?, text.get(at + separator.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kills in lines as the kernel writes them, one record each; a line
    /// that begins with `+` is a fragment, one with `!` is not the kernel's.
    fn kills(lines: &[&str]) -> Vec<(u32, Option<String>, bool)> {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        for (sequence, line) in lines.iter().enumerate() {
            let (prefix, line) = match line.split_at_checked(1) {
                Some(("+", rest)) => ("6,{},77,c", rest),
                Some(("!", rest)) => ("14,{},77,-", rest),
                _ => ("6,{},77,-", *line),
            };
            let text = format!("{};{line}\n SUBSYSTEM=x\n", prefix.replace("{}", &sequence.to_string()));
            let record = record(text.as_bytes()).unwrap();
            assert_eq!(record.sequence, sequence as u64);
            found.extend(parser.push(&record).map(|k| (k.pid, k.cgroup, k.certain)));
        }
        found
    }

    fn check(lines: &[&str], expected: &[(u32, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|(pid, cgroup)| (*pid, Some((*cgroup).to_owned()), true)).collect();
        assert_eq!(kills(lines), expected, "{lines:?}");
    }

    const HEAD: &str = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c1,mems_allowed=0";

    fn summary(limit: &str, cgroup: &str, name: &str, pid: u32) -> String {
        format!("{HEAD},{limit},task_memcg={cgroup},task={name},pid={pid},uid=0")
    }

    fn killed(name: &str, pid: u32) -> String {
        format!("Memory cgroup out of memory: Killed process {pid} ({name}) total-vm:67796kB, anon-rss:1kB")
    }

    #[test]
    fn records() {
        let got = record(b"6,339,5140900,-,caller=T12;NET: a;b\n SUBSYSTEM=acpi\n").unwrap();
        let want = Record { facility: 0, sequence: 339, usec: 5_140_900, fragment: false, text: b"NET: a;b" };
        assert_eq!(got, want);
        assert!(record(b"14,340,1,c;x").is_some_and(|r| r.facility == 1 && r.fragment));
        assert!(record(b"6,340,1,+;x").is_some_and(|r| r.fragment));
        for none in [&b""[..], b";", b"6;x", b"6,1,2;x", b"x,1,2,-;x", b"6,1,2,-", b" SUBSYSTEM=acpi"] {
            assert_eq!(record(none), None, "{none:?}");
        }
    }

    #[test]
    fn limits_from_5_3_on() {
        check(&[&summary("oom_memcg=/a", "/a/c1", "dd", 7), &killed("dd", 7)], &[(7, "/a/c1")]);
        // The victim's cgroup is the root's.
        check(&[&summary("oom_memcg=/", "/", "dd", 7), &killed("dd", 7)], &[(7, "/")]);
    }

    #[test]
    fn the_whole_machine() {
        let global = summary("global_oom", "/a/c1", "dd", 7).replace("MEMCG", "NONE");
        check(&[&global, "Out of memory: Killed process 7 (dd) total-vm:1kB"], &[(7, "/a/c1")]);
        let asked = "Out of memory (oom_kill_allocating_task): Killed process 7 (dd) total-vm:1kB";
        check(&[&global, asked], &[(7, "/a/c1")]);
        // 4.x does not say whose it was.
        let old = [
            "Out of memory: Kill process 7 (dd) score 901 or sacrifice child",
            "Killed process 7 (dd) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB",
        ];
        assert_eq!(kills(&old), [(7, None, false)]);
    }

    #[test]
    fn five_0_to_5_2_say_it_twice() {
        let lines = [
            &summary("oom_memcg=/a", "/a/c1", "dd", 7),
            "Memory cgroup out of memory: Killed process 7 (dd) total-vm:1kB",
            "Memory cgroup out of memory: Kill process 8 (dd) score 1 or sacrifice child",
            &summary("oom_memcg=/a", "/a/c2", "dd", 8),
            "Killed process 8 (dd) total-vm:1kB, anon-rss:1kB",
        ];
        check(&lines, &[(7, "/a/c1"), (8, "/a/c2")]);
    }

    #[test]
    fn before_5_0() {
        let lines = [
            "dd invoked oom-killer: gfp_mask=0x14000c0(GFP_KERNEL), nodemask=(null)",
            "Task in /kubepods/pod1/c1 killed as a result of limit of /kubepods/pod1",
            "memory: usage 102400kB, limit 102400kB, failcnt 26",
            "Memory cgroup out of memory: Kill process 7 (java) score 1024 or sacrifice child",
            "Killed process 9 (java), UID 1000, total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB",
        ];
        check(&lines, &[(9, "/kubepods/pod1/c1")]);
        // The same in pieces, as 3.x and 4.x log it.
        let pieces = [
            "+Task in /kubepods",
            "+/pod1/c1",
            "+ killed as a result of limit of ",
            "+/kubepods",
            "Killed process 9 (java) total-vm:1kB",
        ];
        check(&pieces, &[(9, "/kubepods/pod1/c1")]);
    }

    #[test]
    fn a_group_goes_as_a_whole() {
        let lines = [
            &summary("oom_memcg=/a", "/a/b/c1", "dd", 7),
            &killed("dd", 7),
            "Tasks in /a/b are going to be killed due to memory.oom.group set",
            &killed("sh", 8),
            &killed("sh", 9),
        ];
        let of = |pid, cgroup: &str, certain| (pid, Some(cgroup.to_owned()), certain);
        assert_eq!(kills(&lines), [of(7, "/a/b/c1", true), of(8, "/a/b", false), of(9, "/a/b", false)]);
        // Another one after it has nothing to do with it.
        let other = killed("y", 10);
        let after = [&lines[..], &["x invoked oom-killer: gfp_mask=0xcc0", &other]].concat();
        assert_eq!(kills(&after).last(), Some(&(10, None, false)));
    }

    #[test]
    fn a_group_kill_ends() {
        let mut parser = Parser::default();
        let mut push = |usec: u64, text: &str| {
            let text = format!("6,1,{usec},-;{text}");
            parser.push(&record(text.as_bytes()).unwrap())
        };
        assert_eq!(push(1, "Tasks in /a are going to be killed due to memory.oom.group set"), None);
        assert_eq!(push(9_000_000, &killed("a", 1)).unwrap().cgroup.as_deref(), Some("/a"));
        assert_eq!(push(11_000_000, &killed("a", 2)).unwrap().cgroup, None);
    }

    #[test]
    fn kills_without_a_summary_are_kills() {
        // The kernel limits the summary, not the kills.
        let lines = [&summary("oom_memcg=/a", "/a/c1", "dd", 7), &killed("dd", 7), &killed("dd", 8)];
        let found = kills(&lines.map(String::as_str));
        assert_eq!(found, [(7, Some("/a/c1".to_owned()), true), (8, None, false)]);
        assert_eq!(kills(&[&killed("dd", 8)]), [(8, None, false)]);
    }

    #[test]
    fn lines_in_pieces() {
        let pieces = [
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)",
            "eth0: link up",
            "+,cpuset=c1,mems_allowed=0,oom_memcg=/a,task_memcg=/a/very",
            "+/long/c1",
            "+,task=dd,pid=7,uid=0",
            &killed("dd", 7),
        ];
        check(&pieces, &[(7, "/a/very/long/c1")]);
        // A new line is no piece, whatever its flag says.
        let pieces =
            ["Task in /a", "+Task in /b killed as a result of limit of /", "Killed process 3 (x) total"];
        check(&pieces, &[(3, "/b")]);
    }

    #[test]
    fn names_hold_anything() {
        for name in [
            "a,b c",
            "(sd-pam)",
            "a),pid=1,uid=0",
            ",pid=1,uid=0",
            ",task=x",
            "x,task=/b,pid=",
            "",
            ") (",
            "a=b",
        ] {
            assert!(name.len() <= MAX_NAME);
            check(&[&summary("oom_memcg=/a", "/a/c1", name, 7), &killed(name, 7)], &[(7, "/a/c1")]);
        }
        // A line feed in a name stays in its line, escaped.
        check(&[&summary("oom_memcg=/a", "/a/c1", "a\\x0ab", 7), &killed("a\\x0ab", 7)], &[(7, "/a/c1")]);
    }

    #[test]
    fn paths_hold_anything() {
        let cgroup = "/a,task=b/c,pid=3/ uid=(4)/system-x\\x5cx2dy.slice/\\xc3\\xa9/\\xff";
        let lines = [summary(&format!("oom_memcg={cgroup}"), cgroup, "dd", 7), killed("dd", 7)];
        check(
            &lines.each_ref().map(String::as_str),
            &[(7, "/a,task=b/c,pid=3/ uid=(4)/system-x\\x2dy.slice/é/\\xff")],
        );
    }

    #[test]
    fn only_the_kernel_is_believed() {
        let lines =
            [format!("!{}", summary("oom_memcg=/a", "/victim", "dd", 7)), format!("!{}", killed("dd", 7))];
        assert_eq!(kills(&lines.each_ref().map(String::as_str)), []);
        // Nor is its context changed by others.
        let lines = [
            summary("oom_memcg=/a", "/a/c1", "dd", 7),
            format!("!{}", summary("oom_memcg=/a", "/victim", "dd", 7)),
            "!x invoked oom-killer: ".to_owned(),
            killed("dd", 7),
        ];
        check(&lines.each_ref().map(String::as_str), &[(7, "/a/c1")]);
        for none in [
            "Killed process ",
            "Killed process 7",
            "Killed process x (dd) total-vm:1kB",
            "Killed process 99999999999 (dd)",
            "dd: Killed process 7 (dd) total-vm:1kB",
            "Killed process  invoked oom-killer: gfp_mask=0xcc0",
            "oom_reaper: reaped process 7 (dd), now anon-rss:0kB",
            "Kill process 7 (dd) score 1 or sacrifice child",
        ] {
            assert_eq!(kills(&[none]), [], "{none}");
        }
    }

    #[test]
    fn what_else_a_kill_says() {
        let last = |lines: &[&str]| {
            let mut parser = Parser::default();
            let push = |line: &&str| parser.push(&record(format!("6,1,77,-;{line}").as_bytes()).unwrap());
            lines.iter().filter_map(push).last().unwrap()
        };
        let check = |lines: &[&str], process: &str, limit: Option<&str>, constraint: Option<&str>| {
            let kill = last(lines);
            assert_eq!(kill.process, process, "{lines:?}");
            assert_eq!((kill.limit.as_deref(), kill.constraint.as_deref()), (limit, constraint), "{lines:?}");
        };
        for name in ["dd", "(sd-pam)", ") (", "a), UID b", ""] {
            let lines = [summary("oom_memcg=/a", "/a/c1", name, 7), killed(name, 7)];
            let lines = lines.each_ref().map(String::as_str);
            check(&lines, name, Some("/a"), Some("CONSTRAINT_MEMCG"));
        }
        let global = summary("global_oom", "/a/c1", "dd", 7).replace("MEMCG", "NONE");
        check(&[&global, "Out of memory: Killed process 7 (dd"], "dd", None, Some("CONSTRAINT_NONE"));
        let old = [
            "Task in /kubepods/pod1/c1 killed as a result of limit of /kubepods/pod1",
            "Killed process 9 (java), UID 1000, total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB",
        ];
        check(&old, "java", Some("/kubepods/pod1"), None);
        check(&[&killed("dd", 8)], "dd", None, None);
    }

    #[test]
    fn the_cgroup_of_a_process() {
        let check = |text: &str, want: Option<&str>| {
            assert_eq!(memory_cgroup(text.as_bytes()).as_deref(), want, "{text:?}");
        };
        check("0::/a/b\n", Some("/a/b"));
        check("5:cpu,cpuacct:/x\n4:memory:/a:b\n0::/u\n", Some("/a:b"));
        check("4:hugetlb,memory:/a (deleted)\n", Some("/a"));
        check("4:memory:/\n0::/a\n", None);
        check("0::/../../a\n", None);
        check("1:name=systemd:/a\n", None);
        check("", None);
    }
}
