//! Rules of the layout, checked on the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Who may name whom: module → the modules of ours it may import.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("snapshot", &[]),
    ("kernel", &["kernel", "snapshot"]),
    ("aggregate", &["aggregate", "kubernetes", "push", "rate", "identity", "telemetry"]),
    ("api", &["api", "aggregate", "auth", "push", "expose", "gzip"]),
    ("publish", &["snapshot"]),
    ("history", &["snapshot"]),
    ("collect", &["collect", "kernel", "rate", "snapshot"]),
    ("identity", &["identity", "snapshot", "telemetry", "config"]),
    ("rate", &[]),
    ("push", &["push", "identity", "rate", "snapshot", "telemetry", "config", "gzip"]),
    ("kubernetes", &[]),
    ("auth", &["auth", "kubernetes", "telemetry"]),
    (
        "top",
        &[
            "top",
            "agent",
            "cli",
            "collect",
            "config",
            "expose",
            "history",
            "kernel",
            "publish",
            "push",
            "signals",
            "telemetry",
        ],
    ),
    ("gzip", &[]),
    ("expose", &["expose", "auth", "snapshot", "publish", "gzip", "history", "rate", "telemetry", "config"]),
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The code of a file above its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// The top-level modules of ours that a source names.
fn imports(code: &str) -> Vec<String> {
    let mut found: Vec<String> = code
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .flat_map(|l| {
            l.match_indices("crate::").map(|(at, w)| l[at + w.len()..].to_owned()).collect::<Vec<_>>()
        })
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .filter(|module: &String| !module.is_empty())
        .collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn modules_import_only_what_they_may() {
    let src = root().join("src");
    let mut edges = 0;
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        let module = relative.split(['/', '.']).next().unwrap_or_default();
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(m, _)| *m == module) else { continue };
        for import in imports(&code(&path)) {
            edges += 1;
            let own_parts = relative == "expose/connection.rs" || relative == "telemetry.rs";
            assert!(allowed.contains(&import.as_str()) || own_parts, "{relative} may not import {import}");
        }
    }
    assert!(edges > 30, "the test found only {edges} imports");
}

#[test]
fn parsers_take_bytes_and_open_nothing() {
    for file in ["src/kernel/parse.rs", "src/kernel/oom.rs"] {
        let code = code(&root().join(file));
        for word in ["std::fs", "std::path", "File::", "open("] {
            assert!(!code.contains(word), "{file} has {word}");
        }
    }
}

#[test]
fn libraries_are_named_where_they_belong() {
    for path in sources(&root().join("src")) {
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let code = code(&path);
        let places = [
            ("prometheus_client", "src/telemetry"),
            ("Client::try_from", "src/kubernetes.rs"),
            ("procfs_core", "src/collect/process.rs"),
            ("nix::sys::inotify", "src/kernel/"),
        ];
        for (library, place) in places {
            assert!(!code.contains(library) || relative.starts_with(place), "{relative} names {library}");
        }
        assert!(!code.contains("tokio") || !relative.starts_with("src/collect"), "{relative} is async");
    }
}

#[test]
fn long_files_say_why() {
    for dir in ["src", "tests"] {
        for path in sources(&root().join(dir)) {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().count();
            let says_why = text.lines().take(20).any(|l| l.starts_with("//!") && l.contains("one file"));
            assert!(lines <= 600 || says_why, "{} has {lines} lines and does not say why", path.display());
        }
    }
}

#[test]
fn every_source_has_a_head() {
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let head = text.starts_with("//!") || text.starts_with("#![doc");
        assert!(head, "{} does not say what it is for", path.display());
    }
}

#[test]
fn architecture_is_short_and_names_the_dependencies() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(text.lines().count() < 150);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let sections = manifest
        .split("\n[")
        .filter(|s| s.starts_with("dependencies]") || s.starts_with("dev-dependencies]"));
    let mut count = 0;
    for line in sections.flat_map(str::lines).filter(|l| l.contains(" = ")) {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(text.contains(name), "ARCHITECTURE.md does not justify {name}");
        count += 1;
    }
    assert!(count > 20);
}
