//! The queue on a disk without room: a small tmpfs that another file fills.
//! Run by `.ci/run` as root: see `main.rs`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nodegauge::push::log::{Log, Options, Order, SinkName};

use crate::agent::Agent;

/// A filesystem of 8 MiB in memory, gone on drop.
struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    fn mount() -> Disk {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "nodegauge-test"]).arg(directory.path());
        assert!(mount.status().unwrap().success(), "root, to mount a filesystem");
        Disk { directory }
    }

    fn queue(&self) -> PathBuf {
        self.directory.path().join("queue")
    }

    fn filler(&self) -> PathBuf {
        self.directory.path().join("filler")
    }

    /// Leaves no block free.
    fn fill(&self) {
        let mut file = fs::File::create(self.filler()).unwrap();
        let block = [1; 4096];
        while file.write_all(&block).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.directory.path()).status();
    }
}

fn until(what: &str, mut test: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !test() {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_costs_the_oldest_steps_and_counts_them() {
    let disk = Disk::mount();
    let sink = SinkName::new("db");
    let open = || {
        let options = Options { max_bytes: 6 << 20, max_memory_bytes: 200_000, ..Options::default() };
        Log::open(Some(&disk.queue()), options, std::slice::from_ref(&sink)).unwrap()
    };
    let payload = |sequence: u64| vec![u8::try_from(sequence % 251).unwrap(); 20_000];
    let (log, _) = open();
    let append = |log: &Log| {
        let sequence = log.next_sequence();
        let appended = log.append(sequence * 1000, &payload(sequence)).unwrap();
        assert_eq!(appended.sequence, sequence);
        appended.durable
    };
    let check = |log: &Log, sent: u64| {
        let found = log.next(&sink, Order::OldestFirst, usize::MAX).unwrap();
        assert!(found.iter().all(|r| r.payload == payload(r.sequence)));
        let dropped = log.status(&sink).unwrap().dropped.iter().map(|(_, count)| count).sum::<u64>();
        let made = log.next_sequence() - 1;
        assert_eq!(
            u64::try_from(found.len()).unwrap() + dropped + sent,
            made,
            "every step waits or is counted"
        );
        (found.iter().map(|r| r.sequence).collect::<Vec<_>>(), dropped)
    };
    for _ in 0..40 {
        assert!(append(&log));
    }
    disk.fill();
    let durable = (0..100).filter(|_| append(&log)).count();
    let (found, dropped) = check(&log, 0);
    // The file has room for itself, so that the newest replace the oldest.
    assert_eq!(durable, 100);
    assert!(found.len() >= 40 && found.iter().copied().eq(dropped + 1..=140), "{found:?}, {dropped} dropped");
    println!("full: {durable} of 100 steps were durable, {} wait, {dropped} dropped", found.len());

    disk.empty();
    assert!(append(&log), "there is room: {:?}", log.trouble());
    let (found, dropped) = check(&log, 0);
    assert_eq!(log.trouble(), None);
    drop(log);
    // Full again, and it starts with all there was.
    disk.fill();
    let (log, opened) = open();
    assert_eq!(check(&log, 0), (found, dropped), "{opened}");
    log.acknowledge(&sink, &[141]).unwrap();
    disk.empty();
    assert!(append(&log));
    check(&log, 1);
}

#[test]
#[ignore = "needs root; takes 30 s"]
fn an_agent_goes_on_while_the_disk_of_its_queue_is_full() {
    let disk = Disk::mount();
    let start = |queue: &Path| {
        let queue = queue.to_str().unwrap();
        // Nobody listens there.
        let uri = "influxdb:http://127.0.0.1:9?resolution=1s&name=db";
        let args = ["--interval", "1s", "--queue-dir", queue, "--queue-max-bytes", "6MiB", "--push", uri];
        Agent::start(&args)
    };
    let waiting = |agent: &Agent| agent.own("nodegauge_push_queue_steps{");
    let dropped = |agent: &Agent| agent.own("nodegauge_push_dropped_steps_total{");
    let made = |agent: &Agent| agent.own("nodegauge_push_steps_total");
    let mut agent = start(&disk.queue());
    until("steps are queued", || waiting(&agent) >= 3.0);
    disk.fill();
    let before = made(&agent);
    until("steps are made on a full disk", || made(&agent) >= before + 8.0);
    assert!(agent.is_running());
    disk.empty();
    let (before, in_memory) = (made(&agent), agent.own("nodegauge_push_steps_in_memory_total"));
    until("steps are made when there is room", || made(&agent) >= before + 3.0);
    assert_eq!(agent.own("nodegauge_push_steps_in_memory_total"), in_memory, "they are durable again");
    // All of it is on the disk now: a kill costs no step, and no count.
    let (queued, lost) = (waiting(&agent), dropped(&agent));
    println!("{queued} steps wait, {lost} dropped, {in_memory} were in memory for a while");
    drop(agent);
    disk.fill();
    let agent = start(&disk.queue());
    until("the queue is looked at", || waiting(&agent) > 0.0);
    let all = waiting(&agent) + dropped(&agent);
    assert!(all >= queued + lost, "{all} steps wait or are counted, after {queued} and {lost}");
}
