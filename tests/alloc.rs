//! What allocates nothing once it is warm, and what hostile input may make us allocate.
//!
//! allocation-counter replaces the allocator of this binary and counts by thread.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop, also in a function that tests share"
)]

mod data;
#[path = "it/ttar.rs"]
mod ttar;

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use data::{all_kinds, cgroup, snapshot};
use nodegauge::agent::naming::Naming;
use nodegauge::collect::sampler::{self, Sampler};
use nodegauge::expose::{Format, Options, Renderer, View};
use nodegauge::history::History;
use nodegauge::identity::enrich::LabelChoice;
use nodegauge::identity::{self, Identities};
use nodegauge::kernel::Roots;
use nodegauge::push::batch::{Assembler, Encoder, MAX_DECOMPRESSED, MetricId, decode, encode, proto};
use nodegauge::push::step::{self, StepBuilder};
use nodegauge::snapshot::{
    Cgroup, CgroupSample, Departed, Hierarchy, Identity, Kind, Kinds, LogDirectory, Origin, Shown, Snapshot,
    Storage, reading,
};

fn render(renderer: &mut Renderer, snapshot: &Snapshot) -> usize {
    let mut bytes = 0;
    let sink = |chunk: &[u8]| {
        bytes += black_box(chunk).len();
        Ok::<(), Infallible>(())
    };
    match renderer.render(snapshot, sink) {
        Ok(()) => bytes,
    }
}

#[test]
fn the_counter_counts() {
    let counted = measure(|| {
        black_box(Vec::<u8>::with_capacity(black_box(100)));
    });
    assert_eq!(counted.count_total, 1);
}

#[test]
fn a_steady_render() {
    for hierarchy in [Hierarchy::V1, Hierarchy::V2, Hierarchy::Hybrid] {
        let mut first = snapshot(hierarchy, 200);
        // Names that need escaping, and a label set longer than the buffer.
        let hostile = Identity {
            name: Some("\"\\\n\u{1b}".into()),
            image: Some("\u{9b}".repeat(20_000)),
            ..Identity::default()
        };
        first.cgroups.insert(1, first.cgroups[1].clone());
        first.cgroups[1].cgroup = cgroup("/hostile", hostile);
        first.cgroups[1].io[0].name = "/dev/\"\u{7f}".into();
        Arc::make_mut(&mut first.filesystems).mounts[1].device = "\\\n".into();
        // Totals of what is gone are written as well.
        let gone = |at: usize| {
            let mut last = first.cgroups[10].clone();
            last.cgroup = cgroup(&format!("/docker/{at:064x}"), Identity::default());
            let (gone, shown) = (first.monotonic, Shown::default());
            Arc::new(Departed { last, seen_ms: 1, gone_ms: 2, gone, whole: true, waits: false, shown })
        };
        first.departed = Arc::new((0..20).map(gone).collect());
        // The tick after: other numbers, the same cgroups and mounts.
        let mut second = first.clone();
        second.wall_ms += 10_000;
        for row in &mut second.cgroups {
            row.cpu.usage_ns = row.cpu.user_ns;
        }
        for format in [Format::Prometheus, Format::OpenMetrics] {
            for timestamps in [false, true] {
                let mut renderer =
                    Renderer::new(Options { format, view: View::All, kinds: all_kinds(), timestamps });
                let warm = render(&mut renderer, &first);
                assert!(warm > 64 * 1024);
                let mut bytes = 0;
                let counted = measure(|| bytes = render(&mut renderer, &second));
                assert_eq!(counted.count_total, 0, "{hierarchy:?} {format:?} {timestamps}: {counted:?}");
                assert!(bytes > 64 * 1024);
            }
        }
    }
}

/// Mounts are looked at again when they change, in the same memory.
#[test]
fn a_render_after_a_mount_was_refreshed() {
    let first = snapshot(Hierarchy::V2, 3);
    let mut second = first.clone();
    second.filesystems = Arc::new((*first.filesystems).clone());
    let mut renderer = Renderer::new(Options {
        format: Format::Prometheus,
        view: View::All,
        kinds: all_kinds(),
        timestamps: false,
    });
    render(&mut renderer, &first);
    let counted = measure(|| {
        render(&mut renderer, &second);
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

/// Ticks as the agent makes them: into two snapshots in turn, each told to be out.
struct Ticks {
    sampler: Sampler,
    last: Arc<Snapshot>,
    spare: Arc<Snapshot>,
}

impl Ticks {
    fn new(sampler: Sampler) -> Ticks {
        let (last, spare) = (Arc::new(sampler.blank()), Arc::new(sampler.blank()));
        Ticks { sampler, last, spare }
    }

    fn pass(&mut self) {
        let snapshot = Arc::get_mut(&mut self.spare).expect("nobody else has it");
        self.sampler.tick(Origin::Grid, snapshot);
        self.sampler.published(&self.spare);
        std::mem::swap(&mut self.last, &mut self.spare);
    }
}

/// Ticks over this host's own cgroups, with all kinds but the one that lists
/// descriptor directories. The tree is as it comes, so a tick in which a cgroup
/// appeared or vanished may allocate; most ticks see none of that.
#[test]
fn a_steady_tick() {
    let options = sampler::Options {
        kinds: Kind::ALL.into_iter().fold(Kinds::NONE, Kinds::with).without(Kind::Process),
        handle_memory: 1 << 20,
        descriptors: 256,
        max_cgroups: 10_000,
        disk_usage: 100_000,
        on_request: Kinds::NONE,
    };
    let describe = Box::new(|path: String, created| {
        let storage = Storage { logs: Some(LogDirectory::Files("/etc".into())), ..Storage::default() };
        Arc::new(Cgroup { labels: path.clone(), path, created, storage, ..Cgroup::default() })
    });
    let Ok(sampler) = Sampler::new(Roots::new("/".as_ref()), options, describe) else {
        println!("no cgroup filesystem here");
        return;
    };
    let mut ticks = Ticks::new(sampler);
    (0..25).for_each(|_| ticks.pass());
    assert!(ticks.last.cgroups[0].cpu.usage_ns.is_some(), "no figures of the root");
    let deadline = Instant::now() + Duration::from_secs(60);
    while ticks.last.cgroups[0].disk.is_none() && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(10));
        ticks.pass();
    }
    assert!(ticks.last.cgroups[0].disk.is_some(), "no disk usage");
    let mut quiet = 0;
    for _ in 0..20 {
        let counted = measure(|| ticks.pass());
        quiet += u32::from(counted.count_total == 0);
    }
    assert!(quiet >= 18, "only {quiet} of 20 ticks allocated nothing");
}

/// A window of ticks in which every figure of every row changes, after as many to
/// get warm.
#[test]
fn a_steady_history() {
    let history = History::new(Duration::from_secs(120));
    let mut snapshot = snapshot(Hierarchy::V1, 20);
    let (began, mut seconds) = (Instant::now(), 0);
    let mut tick = || {
        seconds += 5;
        snapshot.monotonic = began + Duration::from_secs(seconds);
        snapshot.wall_ms += 5_000;
        for row in &mut snapshot.cgroups {
            row.memory.pgfault = reading(seconds * seconds);
            row.memory.usage = reading(seconds * 4096);
            row.cpu.usage_ns = reading(seconds * 1_000_000_007);
        }
        measure(|| history.record(black_box(&snapshot))).count_total
    };
    let warm: u64 = (0..60).map(|_| tick()).sum();
    assert!(warm > 0);
    let steady: u64 = (0..24).map(|_| tick()).sum();
    assert_eq!(steady, 0, "allocations");
}

fn batch_head() -> proto::Batch {
    proto::Batch { boot_id: vec![1; 16], time_ms: 60, resolution_ms: 60, ..proto::Batch::default() }
}

#[test]
fn a_steady_encoding() {
    let mut batch = Assembler::new(batch_head());
    for value in 0..500 {
        batch.entity(proto::Entity { kind: 4, container_id: vec![2; 32], ..proto::Entity::default() });
        batch.integer(MetricId::MemoryUsage, value << 30);
        batch.integer(MetricId::CpuUsage, value);
    }
    let batch = batch.finish().unwrap();
    let mut encoder = Encoder::new().unwrap();
    let warm = encoder.plain(&batch).len();
    let counted = measure(|| assert_eq!(encoder.plain(black_box(&batch)).len(), warm));
    assert_eq!(counted.count_total, 0);
}

/// What is small on the wire and large in memory is bounded by what was granted.
#[test]
fn reading_a_hostile_batch() {
    use prost::Message;

    let head = encode(&Assembler::new(batch_head()).finish().unwrap()).unwrap();
    let empty = |field: u8, count: usize| [0x80 | field << 3 | 2, field >> 4, 0].repeat(count);
    let column =
        |column: proto::Column| proto::Batch { columns: vec![column], ..batch_head() }.encode_to_vec();
    let rows = |rows: proto::Rows| proto::Batch { rows: vec![rows], ..batch_head() }.encode_to_vec();
    let (metric, many) = (MetricId::CpuUsage.into(), 1 << 22);
    for (what, plain) in [
        ("entities", empty(17, 65_536)),
        ("strings", empty(16, 1 << 21)),
        ("integers", column(proto::Column { metric, integers: vec![0; many], ..Default::default() })),
        ("doubles", column(proto::Column { metric, doubles: vec![0.0; many / 8], ..Default::default() })),
        ("rows", rows(proto::Rows { entities: vec![0; many], labels: Vec::new() })),
        ("labels", rows(proto::Rows { entities: Vec::new(), labels: vec![0; many] })),
        ("anything", vec![0x0a; many]),
        ("zeros", vec![0; MAX_DECOMPRESSED * 2]),
    ] {
        let mut payload = head.get(..16).unwrap().to_vec();
        payload.extend(zstd::encode_all(plain.as_slice(), 1).unwrap());
        let counted = measure(|| {
            let read = decode(black_box(&payload), MAX_DECOMPRESSED);
            if let Ok(batch) = read {
                black_box(batch.entities().count());
            }
        });
        let most = plain.len().min(MAX_DECOMPRESSED) as u64 * 16 + (16 << 20);
        assert!(counted.bytes_max < most, "{what}: {} of {most} bytes", counted.bytes_max);
    }
}

/// The same over a captured node with pods, named by a source that knows all of
/// them: names add nothing to a steady tick.
#[test]
fn a_steady_tick_with_names() {
    let tree = ttar::unpack("v2-cgroupfs-6.1");
    let at = |path: &str| tree.path().join(path);
    let options = || sampler::Options {
        kinds: Kinds::DEFAULT,
        handle_memory: 1 << 20,
        descriptors: 512,
        max_cgroups: 10_000,
        on_request: Kinds::NONE,
        disk_usage: 0,
    };
    // Every container of the capture gets the link its kubelet would have made.
    let paths: Vec<String> = {
        let describe = Box::new(|path: String, _| Arc::new(Cgroup { path, ..Cgroup::default() }));
        let mut sampler = Sampler::new(Roots::new(tree.path()), options(), describe).unwrap();
        let mut snapshot = sampler.blank();
        sampler.tick(Origin::Grid, &mut snapshot);
        snapshot.cgroups.iter().map(|row| row.cgroup.path.clone()).collect()
    };
    let mut containers = 0;
    for parsed in paths.iter().map(|path| nodegauge::identity::path::parse(path)) {
        let (Some(uid), Some(id)) = (parsed.pod, parsed.container) else { continue };
        let (pod, log) =
            (format!("pod-{containers}"), format!("var/log/pods/shop_pod-{containers}_{uid}/main"));
        std::fs::create_dir_all(at(&log)).unwrap();
        std::fs::write(at(&log).join("0.log"), "").unwrap();
        std::fs::create_dir_all(at("var/log/containers")).unwrap();
        let link = at(&format!("var/log/containers/{pod}_shop_main-{id}.log"));
        std::os::unix::fs::symlink(format!("/{log}/0.log"), link).unwrap();
        containers += 1;
    }
    assert!(containers > 0, "no container in {paths:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let identities = runtime.block_on(async {
        let identities = Arc::new(Identities::start(&identity::Options::new(tree.path())));
        assert!(identities.settled(Duration::from_secs(20)).await);
        identities
    });
    let naming = Naming::new(Arc::clone(&identities), LabelChoice::default(), "/var/lib/kubelet".as_ref());
    let sampler = Sampler::new(Roots::new(tree.path()), options(), Box::new(naming)).unwrap();
    let mut ticks = Ticks::new(sampler);
    (0..25).for_each(|_| ticks.pass());
    // A container outside pods, which nobody knows, is waited for.
    let deadline = Instant::now() + Duration::from_secs(60);
    while ticks.last.cgroups.len() < paths.len() && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(50));
        ticks.pass();
    }
    assert_eq!(ticks.last.cgroups.len(), paths.len());
    let named = ticks.last.cgroups.iter().filter(|r| r.cgroup.identity.container.is_some()).count();
    assert_eq!(named, containers, "not every container has its name");
    let mut quiet = 0;
    for _ in 0..20 {
        let counted = measure(|| ticks.pass());
        quiet += u32::from(counted.count_total == 0);
    }
    assert!(quiet >= 18, "only {quiet} of 20 ticks allocated nothing");
}

/// A container comes with each step and is gone in the next: what rates start from goes with it.
#[test]
fn steps_hold_nothing_of_what_is_gone() {
    let mut builder = StepBuilder::new(step::Options {
        node: "n1".into(),
        boot_id: [7; 16],
        interval: Duration::from_secs(5),
        resolution: Duration::from_secs(5),
        limits: step::Limits::default(),
    });
    let (zero, directory) = (Instant::now(), identity::Directory::default());
    let mut last: Option<CgroupSample> = None;
    let mut step = |number: u64| {
        let mut this = snapshot(Hierarchy::V2, 2);
        this.wall_ms = 1_700_000_000_000 + number * 5_000;
        this.monotonic = zero + Duration::from_secs(number * 5);
        let pod = format!("/kubepods/pod{number:08x}-0000-4000-8000-000000000000");
        this.cgroups[1].cgroup = cgroup(&format!("{pod}/{number:064x}"), Identity::default());
        let sample = last.replace(this.cgroups[1].clone());
        let gone = sample.iter().map(|sample| step::Departed {
            sample,
            seen_ms: this.wall_ms - 5_000,
            gone: this.monotonic,
        });
        let made = builder.tick(&this, gone, &directory).unwrap().expect("a step");
        assert!(made.batch.entities().count() >= 3 || number == 0);
    };
    (0..20).for_each(&mut step);
    let counted = measure(|| (20..170).for_each(&mut step));
    assert!(counted.bytes_current < 16 << 10, "{counted:?}");
}
