//! What is read only when somebody asks for it, apart from ticks and from the thread
//! that makes them: the processes of a cgroup as `ps` shows them, the processors a
//! cgroup may use, and which block device a filesystem is on.
//!
//! `/proc/<pid>/stat` is taken apart by hand (proc_pid_stat(5)): a list of all
//! processes is some thousand files, and the command name in it may hold any byte.

mod zone;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nix::unistd::{SysconfVar, sysconf};

use crate::kernel::cgroup::Layout;
use crate::kernel::file::{Buffer, read_trimmed};
use crate::kernel::{Roots, mounts, parse};
use crate::snapshot::Process;
pub use zone::Zone;

/// Processes that are told at once, those with the lowest numbers.
const MOST: usize = 10_000;

/// Where to look.
#[derive(Debug, Clone)]
pub struct OnDemand {
    roots: Roots,
    /// Where cgroups have `cpuset.cpus`, and its name there.
    cpusets: Option<(PathBuf, &'static str)>,
}

impl OnDemand {
    /// For a host of that layout.
    pub fn new(roots: Roots, layout: &Layout) -> OnDemand {
        let unified = layout.unified().filter(|_| layout.is_v2()).and_then(|id| layout.trees.get(id.index()));
        let cpusets = match unified {
            Some(tree) => Some((tree.path.clone(), "cpuset.cpus.effective")),
            // Not one of the trees that are walked.
            None => mounts::read(&roots, &mut Buffer::new()).ok().and_then(|(mounts, _)| {
                let is_cpuset = |m: &&mounts::Mount| {
                    m.fs_type == "cgroup" && m.super_options.split(',').any(|option| option == "cpuset")
                };
                Some((mounts.iter().find(is_cpuset)?.seen_at(&roots), "cpuset.cpus"))
            }),
        };
        OnDemand { roots, cpusets }
    }

    /// The processors that the cgroup at `path` was given, such as `0-3,8`; empty where
    /// it was given none in particular, `None` where that is not said.
    pub fn cpus(&self, path: &str) -> Option<String> {
        let (root, file) = self.cpusets.as_ref()?;
        read_trimmed(&root.join(path.trim_start_matches('/')).join(file))
    }

    /// The processes of the cgroup at `path` itself, without those below it; of the
    /// root all there are. Those that end meanwhile are left out.
    pub fn processes(&self, path: &str) -> Vec<Process> {
        let proc = &self.roots.proc;
        let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
        let mut pids: Vec<u32> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        let users = users(&self.roots);
        let mut buffer = Buffer::new();
        let clock = Clock::read(proc, &mut buffer);
        let one = |pid: u32| {
            let directory = proc.join(pid.to_string());
            let text = read(&mut buffer, &directory.join("cgroup"))?;
            let cgroup = cgroup(&text, path)?.to_owned();
            let stat = read(&mut buffer, &directory.join("stat"))?;
            let mut process = clock.process(&stat)?;
            let status = read(&mut buffer, &directory.join("status")).unwrap_or_default();
            process.user = user(&status, &users).unwrap_or_default();
            process.descriptors =
                std::fs::read_dir(directory.join("fd")).ok().map(|entries| entries.count() as u64);
            Some(Process { pid, cgroup, ..process })
        };
        pids.into_iter().filter_map(one).take(MOST).collect()
    }

    /// The host's time zone.
    pub fn zone(&self) -> Zone {
        Zone::read(&self.roots, std::env::var_os("TZ").as_deref())
    }

    /// The block device that udev says has a filesystem of that UUID, as `/dev/<name>`,
    /// and its numbers. Needs the host's `/dev/disk`.
    pub fn device(&self, uuid: &str) -> Option<(String, u32, u32)> {
        // As udev writes them: nothing that leads elsewhere.
        if uuid.is_empty() || uuid.len() > 64 || !uuid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return None;
        }
        let link = self.roots.in_host(Path::new("/dev/disk/by-uuid")).join(uuid);
        let device = std::fs::read_link(link).ok()?;
        let name = device.file_name()?.to_str()?;
        let numbers = read_trimmed(&self.roots.sys.join("class/block").join(name).join("dev"))?;
        let (major, minor) = numbers.split_once(':')?;
        Some((format!("/dev/{name}"), major.parse().ok()?, minor.parse().ok()?))
    }
}

fn read(buffer: &mut Buffer, path: &Path) -> Option<String> {
    buffer.read_path(path).ok().map(|text| String::from_utf8_lossy(text).into_owned())
}

/// The cgroup of a process that is to be shown, of `/proc/<pid>/cgroup`:
/// `4:cpu,cpuacct:/docker/abc` or `0::/init.scope`. Where one is wanted, it in
/// whichever tree has it.
fn cgroup<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    let lines = || text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    if wanted != "/" {
        return lines().map(|(_, path)| path).find(|path| *path == wanted);
    }
    let of_cpu = lines().find(|(controllers, _)| controllers.split(',').any(|c| c == "cpu"));
    of_cpu.or_else(|| lines().find(|(controllers, _)| controllers.is_empty())).map(|(_, path)| path)
}

/// Names of the host's users, by number.
fn users(roots: &Roots) -> HashMap<u32, String> {
    let text = std::fs::read_to_string(roots.in_host(Path::new("/etc/passwd"))).unwrap_or_default();
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    text.lines().filter_map(user).collect()
}

/// The effective user, of `Uid:\t0\t0\t0\t0`.
fn user(status: &str, users: &HashMap<u32, String>) -> Option<String> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let id: u32 = ids.split_whitespace().nth(1)?.parse().ok()?;
    Some(users.get(&id).cloned().unwrap_or_else(|| id.to_string()))
}

/// What turns the kernel's ticks and pages into time and bytes.
#[derive(Debug, Clone, Copy)]
struct Clock {
    ticks_a_second: u64,
    page: u64,
    uptime_ticks: u64,
    boot: Option<u64>,
}

impl Clock {
    fn read(proc: &Path, buffer: &mut Buffer) -> Clock {
        let of_system = |which, usual| {
            let value = sysconf(which).ok().flatten().and_then(|v| u64::try_from(v).ok());
            value.filter(|v| *v > 0).unwrap_or(usual)
        };
        let ticks_a_second = of_system(SysconfVar::CLK_TCK, 100);
        let uptime = read(buffer, &proc.join("uptime")).unwrap_or_default();
        let seconds = uptime.split(['.', ' ']).next().and_then(|s| s.parse::<u64>().ok()).unwrap_or(0);
        let stat = read(buffer, &proc.join("stat")).unwrap_or_default();
        Clock {
            ticks_a_second,
            page: of_system(SysconfVar::PAGE_SIZE, 4096),
            uptime_ticks: seconds.saturating_mul(ticks_a_second),
            boot: stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()),
        }
    }

    /// A process of its `stat`: `12 (name) S 1 ...`.
    fn process(&self, stat: &str) -> Option<Process> {
        let (_, rest) = stat.split_once('(')?;
        let (command, rest) = rest.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let figure = |number| field(number).and_then(|text| parse::digits(text.as_bytes()));
        let signed = |number| field(number).and_then(|text| text.parse::<i64>().ok());
        let started = figure(22)?;
        let mut status = field(3)?.to_owned();
        match signed(19) {
            None | Some(0) => {}
            Some(nice) => status.push(if nice < 0 { '<' } else { 'N' }),
        }
        let pid = stat.split(' ').next()?;
        if field(6) == Some(pid) {
            status.push('s');
        }
        if figure(20).is_some_and(|threads| threads > 1) {
            status.push('l');
        }
        if field(5).is_some_and(|group| field(8) == Some(group)) {
            status.push('+');
        }
        Some(Process {
            parent_pid: field(4)?.parse().ok()?,
            started: self.boot.map(|boot| boot.saturating_add(started / self.ticks_a_second)),
            age_seconds: self.uptime_ticks.saturating_sub(started) / self.ticks_a_second,
            cpu_hundredths: figure(14)?.saturating_add(figure(15)?).saturating_mul(100) / self.ticks_a_second,
            rss_bytes: figure(24)?.saturating_mul(self.page),
            virtual_bytes: figure(23)?,
            status,
            command: command.to_owned(),
            processor: field(39).and_then(|number| number.parse().ok()),
            ..Process::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock { ticks_a_second: 100, page: 4096, uptime_ticks: 500_000, boot: Some(1_000) };

    #[test]
    fn a_line_of_stat() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 0 0 20 -5 3 0 100000 8192 2 \
            18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 7 0 0 0 0 0";
        let found = CLOCK.process(line).unwrap();
        assert_eq!((found.command.as_str(), found.status.as_str()), ("a) b (c", "S<sl"));
        assert_eq!((found.parent_pid, found.processor), (1, Some(7)));
        assert_eq!((found.started, found.age_seconds, found.cpu_hundredths), (Some(2_000), 4_000, 300));
        assert_eq!((found.virtual_bytes, found.rss_bytes), (8192, 8192));
        for text in ["", "1", "1 (a", "1 (a)", "1 (a) S", "1 (a) S x 1 1", ") ("] {
            assert_eq!(CLOCK.process(text), None, "{text:?}");
        }
    }

    #[test]
    fn whose_process_it_is() {
        let v1 = "5:memory:/docker/abc\n4:cpu,cpuacct:/other\n0::/\n";
        assert_eq!(cgroup(v1, "/"), Some("/other"));
        assert_eq!(cgroup(v1, "/docker/abc"), Some("/docker/abc"));
        assert_eq!(cgroup(v1, "/docker"), None);
        assert_eq!(cgroup("0::/a:b\n", "/"), Some("/a:b"));
        assert_eq!(cgroup("nonsense\n", "/"), None);
        let users = HashMap::from([(0, "root".to_owned())]);
        assert_eq!(user("Name:\tx\nUid:\t7\t0\t0\t0\n", &users).as_deref(), Some("root"));
        assert_eq!(user("Uid:\t7\t7\t0\t0\n", &users).as_deref(), Some("7"));
        assert_eq!(user("", &users), None);
    }

    #[test]
    fn a_host_with_two_processes() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("etc/passwd", "root:x:0:0::/:\napp:x:7:7::/:\n");
        write("proc/uptime", "5000.12 1.00\n");
        write("proc/stat", "cpu 1\nbtime 1000\n");
        for (pid, cgroup) in [(1, "/"), (9, "/docker/abc")] {
            write(&format!("proc/{pid}/cgroup"), &format!("0::{cgroup}\n"));
            write(&format!("proc/{pid}/status"), "Uid:\t7\t7\t7\t7\n");
            write(
                &format!("proc/{pid}/stat"),
                &format!("{pid} (x) R 1 1 1 0 -1 0 1 2 3 4 1 1 0 0 20 0 1 0 100 8192 2 0"),
            );
            write(&format!("proc/{pid}/fd/0"), "");
        }
        write("sys/class/block/sda1/dev", "8:1\n");
        std::fs::create_dir_all(dir.path().join("dev/disk/by-uuid")).unwrap();
        let link = |uuid: &str, to: &str| {
            std::os::unix::fs::symlink(to, dir.path().join("dev/disk/by-uuid").join(uuid)).unwrap();
        };
        link("0a1B-2c", "../../sda1");
        link("lost", "../../sdz");
        write("cg/docker/abc/cpuset.cpus", "0-1\n");
        write("cg/cpuset.cpus", "\n");
        let on_demand =
            OnDemand { roots: Roots::new(dir.path()), cpusets: Some((dir.path().join("cg"), "cpuset.cpus")) };
        let pids = |path: &str| on_demand.processes(path).into_iter().map(|p| p.pid).collect::<Vec<_>>();
        assert_eq!((pids("/"), pids("/docker/abc"), pids("/docker")), (vec![1, 9], vec![9], Vec::new()));
        let one = on_demand.processes("/docker/abc").remove(0);
        assert_eq!(
            (one.user.as_str(), one.descriptors, one.cgroup.as_str()),
            ("app", Some(1), "/docker/abc")
        );
        assert_eq!(on_demand.cpus("/docker/abc").as_deref(), Some("0-1"));
        assert_eq!((on_demand.cpus("/").as_deref(), on_demand.cpus("/nope")), (Some(""), None));
        assert_eq!(on_demand.device("0a1B-2c"), Some(("/dev/sda1".to_owned(), 8, 1)));
        for uuid in ["lost", "none", "", "../by-uuid/0a1B-2c"] {
            assert_eq!(on_demand.device(uuid), None, "{uuid}");
        }
    }
}
