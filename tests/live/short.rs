//! Containers that come and go between two ticks: they are counted all the same.
//! Run by `.ci/run` as root: see `main.rs`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nodegauge::kernel::Roots;
use nodegauge::kernel::cgroup::Layout;
use nodegauge::kernel::file::Buffer;

use crate::agent::{Agent, Scrape};
use crate::pods::container_id;
use crate::worker::Worker;

const CPU: &str = "container_cpu_usage_seconds_total";

/// Seconds that a process may take on its way out, after the kernel told that it ended.
const LEAVING: f64 = 0.002;

/// No tick but those that are asked for.
const IDLE: [&str; 8] = ["--interval", "1h", "--max-age", "100ms", "--kubelet", "none", "--runtime", "none"];

/// A container's cgroup in every hierarchy, as Docker names it.
struct Container {
    directories: Vec<PathBuf>,
    parents: Vec<PathBuf>,
    id: String,
    unified: bool,
}

impl Container {
    fn make(seed: u32) -> Container {
        let layout = Layout::detect(&Roots::new("/".as_ref()), &mut Buffer::new()).expect("a cgroup mount");
        let top = format!("nglive{}-short{seed}", std::process::id());
        let id = format!("/{top}/docker/{}", container_id(seed));
        let mut container =
            Container { directories: vec![], parents: vec![], unified: layout.unified().is_some(), id };
        for tree in &layout.trees {
            let parent = tree.path.join(&top);
            container.parents.extend([parent.join("docker"), parent]);
        }
        for parent in container.parents.iter().rev() {
            std::fs::create_dir_all(parent).expect("root, to make cgroups");
        }
        for tree in &layout.trees {
            let directory = tree.path.join(&container.id[1..]);
            std::fs::create_dir(&directory).unwrap();
            container.directories.push(directory);
        }
        container
    }

    fn add(&self, pid: u32) {
        for directory in &self.directories {
            std::fs::write(directory.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    }

    /// Seconds of CPU, as the kernel has them.
    fn used(&self) -> f64 {
        let file = |name| self.directories.iter().find_map(|d| std::fs::read_to_string(d.join(name)).ok());
        if let Some(nanoseconds) = file("cpuacct.usage") {
            return nanoseconds.trim().parse::<f64>().unwrap() / 1e9;
        }
        let stat = file("cpu.stat").expect("CPU time");
        let usage = stat.lines().find_map(|l| l.strip_prefix("usage_usec ")).unwrap();
        usage.parse::<f64>().unwrap() / 1e6
    }

    fn remove(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        for directory in self.directories.drain(..) {
            while let Err(error) = std::fs::remove_dir(&directory) {
                assert!(Instant::now() < deadline, "{}: {error}", directory.display());
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for directory in self.directories.iter().chain(&self.parents) {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// Waits until one of the agent's own counts is at least this.
fn until(agent: &Agent, start: &str, least: f64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // The counts are those of the last tick.
        let _ = agent.scrape();
        let found = agent.own(start);
        if found >= least {
            return;
        }
        assert!(Instant::now() < deadline, "{start} is {found}, not {least}");
    }
}

fn gauges(scrape: &Scrape, id: &str) -> usize {
    ["container_memory_usage_bytes", "container_memory_working_set_bytes", "container_spec_cpu_shares"]
        .iter()
        .map(|name| scrape.all(name, id).len())
        .sum()
}

#[test]
#[ignore = "needs root"]
fn made_and_gone_between_two_ticks() {
    let agent = Agent::start(&IDLE);
    std::thread::sleep(Duration::from_millis(200));
    let ticks = agent.own("nodegauge_ticks_total");
    let mut container = Container::make(1);
    let mut worker = Worker::start_outside("burn 0.3", &[]);
    container.add(worker.pid());
    worker.work();
    drop(worker);
    let used = container.used();
    // As long as the fastest runtime takes at least.
    std::thread::sleep(Duration::from_millis(30));
    container.remove();
    let removed = std::time::SystemTime::now();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(agent.own("nodegauge_ticks_total"), ticks, "a tick may have seen it");
    std::thread::sleep(Duration::from_secs(2));

    let scrape = agent.scrape();
    let found = scrape.one(CPU, &container.id).expect("its CPU time");
    assert!(found <= used + 1e-6 && found >= 0.8 * used, "{found} of {used}");
    if container.unified {
        assert!((found - used).abs() < LEAVING, "{found} is not the last figure, {used}");
    }
    let seen = scrape.one("container_last_seen", &container.id).unwrap();
    let removed = removed.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(seen <= removed && seen > removed - 3.0, "seen at {seen}, removed at {removed}");
    assert!(scrape.one("container_start_time_seconds", &container.id).is_some());
    assert_eq!(gauges(&scrape, &container.id), 0, "what is gone uses no memory");
    assert!(agent.own("nodegauge_container_readings_total{when=\"early\"}") >= 1.0);

    // It goes once it was shown, and a second scraper had its time.
    let deadline = Instant::now() + Duration::from_secs(30);
    while agent.scrape().one(CPU, &container.id).is_some() {
        assert!(Instant::now() < deadline, "it stays");
    }
}

#[test]
#[ignore = "needs root"]
fn read_a_last_time_when_the_last_process_has_ended() {
    let mut container = Container::make(2);
    if !container.unified {
        println!("no v2 hierarchy here");
        return;
    }
    let mut worker = Worker::start_outside("burn 0.1", &[]);
    container.add(worker.pid());
    // It was there before the agent: nothing reads it early.
    let agent = Agent::start(&IDLE);
    // Where a source of names is expected to tell of it, its row comes a little later.
    let deadline = Instant::now() + Duration::from_secs(20);
    let before = loop {
        if let Some(before) = agent.scrape().one(CPU, &container.id) {
            break before;
        }
        assert!(Instant::now() < deadline, "no row");
    };
    let last = agent.own("nodegauge_container_readings_total{when=\"last\"}");
    worker.work();
    drop(worker);
    let used = container.used();
    std::thread::sleep(Duration::from_millis(100));
    container.remove();
    until(&agent, "nodegauge_container_readings_total{when=\"last\"}", last + 1.0);
    let scrape = agent.scrape();
    let found = scrape.one(CPU, &container.id).expect("its final total");
    assert!((found - used).abs() < LEAVING && found > before, "{before}, then {found}; the kernel: {used}");
    assert_eq!(gauges(&scrape, &container.id), 0);
}
