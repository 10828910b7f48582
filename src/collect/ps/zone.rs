//! The time zone of the host, for times that people read: what `TZ` says, as for any
//! program, else the host's `/etc/localtime`, else UTC. In a container the latter is the
//! host's only where its `/etc` is below the host root, as `ps` in a chroot has it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

// The crate of the Kubernetes types has it anyway.
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;

use crate::kernel::Roots;

/// Where zones are by name.
const ZONES: &str = "/usr/share/zoneinfo";

/// A file of a zone is some hundred bytes, or a few thousand.
const LARGEST: u64 = 64 << 10;

/// A time zone with all its changes.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone of a host, where `tz` is the variable's value.
    pub fn read(roots: &Roots, tz: Option<&OsStr>) -> Zone {
        let said = tz.map(|tz| tz.as_bytes().strip_prefix(b":").unwrap_or(tz.as_bytes()));
        Zone(match said {
            None => file(&followed(roots, Path::new("/etc/localtime"))).unwrap_or(TimeZone::UTC),
            // The C library reads an empty one as UTC, and one that it does not know too.
            Some(said) => named(roots, OsStr::from_bytes(said)).unwrap_or(TimeZone::UTC),
        })
    }

    /// What the clock on the wall is ahead of UTC at a moment, both in seconds.
    pub fn ahead(&self, at: u64) -> i64 {
        let moment = i64::try_from(at).ok().and_then(|at| Timestamp::from_second(at).ok());
        moment.map_or(0, |moment| i64::from(self.0.to_offset(moment).seconds()))
    }
}

fn named(roots: &Roots, name: &OsStr) -> Option<TimeZone> {
    if name.is_empty() {
        return None;
    }
    // An absolute name stays one.
    let path = Path::new(ZONES).join(name);
    let found = file(&followed(roots, &path)).or_else(|| file(&path));
    found.or_else(|| TimeZone::posix(name.to_str()?).ok())
}

/// A path of the host as seen from here, also where it is an absolute link.
fn followed(roots: &Roots, path: &Path) -> PathBuf {
    let seen = roots.in_host(path);
    match std::fs::read_link(&seen) {
        Ok(target) => roots.in_host(&path.parent().unwrap_or(Path::new("/")).join(target)),
        Err(_) => seen,
    }
}

fn file(path: &Path) -> Option<TimeZone> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LARGEST).read_to_end(&mut bytes).ok()?;
    TimeZone::tzif("", &bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A zone file of version 2 without any change of its own: its last line is the rule.
    fn zone_file(rule: &str) -> Vec<u8> {
        let head = |version: u8| {
            let counts: [u32; 6] = [0, 0, 0, 0, 1, 4];
            let mut bytes = [b"TZif".as_slice(), &[version], &[0; 15]].concat();
            counts.into_iter().for_each(|count| bytes.extend(count.to_be_bytes()));
            // One type of local time: UTC, no summer time, name at 0.
            bytes.extend([0, 0, 0, 0, 0, 0]);
            bytes.extend(b"LMT\0");
            bytes
        };
        [head(b'2'), head(b'2'), format!("\n{rule}\n").into_bytes()].concat()
    }

    #[test]
    fn a_hosts_zone() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::new(dir.path());
        let check = |tz: Option<&str>, winter: i64, summer: i64| {
            let zone = Zone::read(&roots, tz.map(OsStr::new));
            // 2026-01-15 and 2026-07-15, both at noon.
            assert_eq!((zone.ahead(1_768_478_400), zone.ahead(1_784_116_800)), (winter, summer), "{tz:?}");
        };
        check(None, 0, 0);
        let zones = dir.path().join("usr/share/zoneinfo/Made");
        std::fs::create_dir_all(&zones).unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::write(zones.join("Up"), zone_file("CET-1CEST,M3.5.0,M10.5.0/3")).unwrap();
        let localtime = dir.path().join("etc/localtime");
        for target in ["/usr/share/zoneinfo/Made/Up", "../usr/share/zoneinfo/Made/Up"] {
            let _ = std::fs::remove_file(&localtime);
            std::os::unix::fs::symlink(target, &localtime).unwrap();
            check(None, 3_600, 7_200);
        }
        check(Some("Made/Up"), 3_600, 7_200);
        check(Some(":Made/Up"), 3_600, 7_200);
        check(Some("XYZ5"), -18_000, -18_000);
        for unknown in ["", "Made/Nowhere", "\u{1}"] {
            check(Some(unknown), 0, 0);
        }
        std::fs::remove_file(&localtime).unwrap();
        std::fs::write(&localtime, "no zone").unwrap();
        check(None, 0, 0);
    }
}
