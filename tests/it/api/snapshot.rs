//! The model on disk: what is taken back answers as what was written down, and what
//! cannot be read is set aside.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodegauge::aggregate::exposition::samples;
use nodegauge::aggregate::model::{Model, Options};
use nodegauge::aggregate::node::Taken;
use nodegauge::aggregate::snapshot::{self, SnapshotError};

use super::cluster::{MINUTE, NOW, minute, model, n1};
use super::get;

const MOST: usize = 10;

fn empty() -> Arc<Model> {
    Arc::new(Model::new(Options::default()))
}

fn save(model: &Model, path: &Path) -> u64 {
    snapshot::save(model, path, NOW, &|| false).unwrap()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// The answers that a model gives to a little of everything.
fn answers(model: &Arc<Model>) -> Vec<Vec<u8>> {
    let mut targets = vec!["/api/v1/model/debug/allkeys".to_owned(), "/api/v1/metric-export".to_owned()];
    for path in ["nodes", "pods", "namespaces/shop/pods/web-0"] {
        targets.push(format!("/apis/metrics.k8s.io/v1beta1/{path}"));
    }
    let subjects = ["", "nodes/n1/", "nodes/n2/", "namespaces/shop/", "namespaces/shop/pods/web-0/"];
    for subject in subjects.into_iter().chain(["namespaces/shop/pods/web-0/containers/main/"]) {
        targets.push(format!("/api/v1/model/{subject}metrics"));
        for metric in [
            "custom/shop/queue",
            "cpu/usage_rate",
            "memory/usage",
            "network/rx_rate",
            "uptime",
            "cpu/request",
        ] {
            targets.push(format!("/api/v1/model/{subject}metrics/{metric}"));
        }
    }
    targets.push("/api/v1/model/nodes/n1/metrics/filesystem/usage?labels=resource_id:/".to_owned());
    targets.iter().map(|target| get(model, target).body).collect()
}

#[test]
fn what_is_taken_back_answers_the_same_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let before = model();
    let pushed = samples("queue{namespace=\"shop\",pod=\"web-0\"} 2.5\nqueue 1\n", 9).unwrap();
    before.take_custom("shop", &pushed, minute(3) - 1).unwrap();
    let bytes = save(&before, &path);
    assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
    let after = empty();
    assert_eq!(snapshot::load(&after, &path, NOW, MOST).unwrap(), Some(2));
    let expected = answers(&before);
    assert_eq!(answers(&after), expected);
    let custom = get(&after, "/api/v1/model/namespaces/shop/pods/web-0/metrics/custom/shop/queue").json();
    assert_eq!(custom["metrics"][0]["floatValue"], 2.5);
    assert!(expected.iter().filter(|answer| answer.len() > 60).count() > 10, "there is something in them");
    assert_eq!(after.nodes(), before.nodes());
    // What agents send once more is known; what is new goes on from there.
    for model in [&before, &after] {
        assert_eq!(model.ingest(&n1(3), NOW + 1), Taken::Duplicate);
        assert_eq!(model.ingest(&n1(4), minute(4) + 1_000), Taken::Slot(minute(4)));
        model.tick(minute(4) + 30_000);
    }
    assert_eq!(answers(&after), answers(&before));
    // And is written down in place of what was.
    save(&after, &path);
    let third = empty();
    snapshot::load(&third, &path, minute(4) + 30_000, MOST).unwrap();
    assert_eq!((third.closed_ms(), answers(&third)), (Some(minute(4)), answers(&after)));
}

#[test]
fn what_is_too_old_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    save(&model(), &path);
    let load = |model: &Arc<Model>, now| snapshot::load(model, &path, now, MOST);
    // n2 was heard last in its second minute.
    let later = empty();
    assert_eq!(load(&later, minute(2) + 15 * MINUTE + 2_000).unwrap(), Some(1));
    for (now, why) in [(NOW + 16 * MINUTE, "older than what is kept"), (NOW - 2 * MINUTE, "later than now")] {
        let error = load(&later, now).unwrap_err();
        assert!(matches!(error, SnapshotError::Useless(_)) && error.to_string().contains(why), "{error}");
    }
    let finer = Options { resolution: std::time::Duration::from_secs(30), ..Options::default() };
    let error = load(&Arc::new(Model::new(finer)), NOW).unwrap_err();
    assert!(error.to_string().contains("another resolution"), "{error}");
    assert!(path.exists(), "it is only not of use now");
    assert_eq!(later.nodes(), [], "of what cannot be read nothing is taken");
    assert_eq!(snapshot::load(&empty(), &dir.path().join("none"), NOW, MOST).unwrap(), None);
    let few = empty();
    assert_eq!(snapshot::load(&few, &path, NOW, 1).unwrap(), Some(1), "no more nodes than may be");
}

#[test]
fn what_is_damaged_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let before = model();
    save(&before, &path);
    let whole = std::fs::read(&path).unwrap();
    let expected = answers(&before);
    let mut refused = 0;
    let mut check = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let _ = std::fs::remove_file(beside(&path, ".damaged"));
        let model = empty();
        match snapshot::load(&model, &path, NOW, MOST) {
            Ok(_) => assert_eq!(answers(&model), expected, "{what}"),
            Err(SnapshotError::Damaged(_) | SnapshotError::Version(_)) => {
                refused += 1;
                assert!(!path.exists() && beside(&path, ".damaged").exists(), "{what}");
                assert_eq!((model.nodes().len(), model.closed_ms()), (0, None), "{what}");
            }
            Err(other) => panic!("{what}: {other}"),
        }
    };
    let lengths = (0..whole.len()).step_by((whole.len() / 40).max(1));
    let cut = lengths.clone().count();
    for length in lengths {
        check(&whole[..length], &format!("cut at {length}"));
    }
    let flipped = (0..whole.len()).step_by((whole.len() / 120).max(1));
    let flips = flipped.clone().count();
    for at in flipped {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x11;
        check(&bytes, &format!("flipped at {at}"));
    }
    for (bytes, what) in [(&b"hello"[..], "text"), (&[0; 4096], "zeros")] {
        check(bytes, what);
    }
    // A bit or two of the compression's own head mean nothing.
    assert!(refused >= cut + flips - 2, "{refused} of {}", cut + flips + 2);
}

#[test]
fn another_version_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    save(&model(), &path);
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[15], snapshot::VERSION);
    for version in [0, snapshot::VERSION + 1] {
        bytes[15] = version;
        std::fs::write(&path, &bytes).unwrap();
        let error = snapshot::load(&empty(), &path, NOW, MOST).unwrap_err();
        assert!(matches!(error, SnapshotError::Version(found) if found == version), "{error}");
        assert!(!path.exists() && beside(&path, ".damaged").exists());
    }
}

#[test]
fn one_that_was_not_finished_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let before = model();
    save(&before, &path);
    let whole = std::fs::read(&path).unwrap();
    // Killed in the middle: half of the next one lies beside it.
    std::fs::write(beside(&path, ".new"), &whole[..whole.len() / 2]).unwrap();
    let after = empty();
    assert_eq!(snapshot::load(&after, &path, NOW, MOST).unwrap(), Some(2));
    assert!(!beside(&path, ".new").exists());
    // Told to end, or without room.
    let given_up = snapshot::save(&before, &path, NOW, &|| true).unwrap_err();
    assert_eq!(given_up.to_string(), "given up: it took too long");
    let nowhere = snapshot::save(&before, &dir.path().join("no/model"), NOW, &|| false).unwrap_err();
    assert!(matches!(nowhere, SnapshotError::Io(_)));
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
}
