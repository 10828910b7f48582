//! Agent and aggregator about themselves: own metrics, log setup, rate-limited warnings.
//!
//! The agent's own metrics go out on `/metrics/self` only, so that what is said about the
//! machine and what is said about the agent never mix. Collection is not
//! instrumented a second time: its [`Report`] is kept after each tick and put
//! into families when somebody asks.

mod access;
mod collection;
mod ingest;
pub mod lead;
mod limiter;
pub mod logging;
pub mod pull;
pub mod push;
mod sources;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use access::{Decision, HandshakeFailure, Means, Refused, Reload};
use collection::Collection;
pub use limiter::Limiter;
use push::{Push, PushMetrics};
use sources::Sources;

use crate::aggregate::ingest::Ingest;
use crate::collect::Report;
use crate::identity::Identities;
use crate::kernel::own;
use crate::snapshot::Origin;

const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// A tick that begins this long after its moment on the grid counts as late:
/// well above what a busy machine's scheduler takes, well below any interval.
const LATE: Duration = Duration::from_millis(50);

/// Own metrics. One per process, shared behind an `Arc`.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    ticks: Arc<Mutex<Ticks>>,
    tick_seconds: Histogram,
    scrapes: Family<Scrape, Counter>,
    render_seconds: Family<Render, Histogram, fn() -> Histogram>,
    responses: Family<Response, Counter>,
    connections: Gauge,
    connections_lost: Family<Lost, Counter>,
    sources: Sources,
    access: access::Access,
    requests: Family<Request, Counter>,
    push: Arc<PushMetrics>,
    pull: Arc<pull::PullMetrics>,
    leading: Arc<lead::Leading>,
}

/// What the ticks so far came to.
#[derive(Debug, Default)]
struct Ticks {
    grid: u64,
    fresh: u64,
    late: u64,
    missed: u64,
    last: Option<Instant>,
    report: Report,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Scrape {
    path: &'static str,
    format: &'static str,
    encoding: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Render {
    format: &'static str,
    encoding: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Response {
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    handler: &'static str,
    method: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lost {
    reason: &'static str,
}

/// Why a connection was refused or cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostConnection {
    /// As many were open as may be.
    Limit,
    /// No descriptor was left to accept one.
    Descriptors,
    /// It sent or took too little in the time it had.
    Slow,
    /// What came was no request that we accept, or it broke off.
    Protocol,
}

impl LostConnection {
    const ALL: [LostConnection; 4] =
        [LostConnection::Limit, LostConnection::Descriptors, LostConnection::Slow, LostConnection::Protocol];

    fn label(self) -> Lost {
        let reason = match self {
            LostConnection::Limit => "limit",
            LostConnection::Descriptors => "descriptors",
            LostConnection::Slow => "slow",
            LostConnection::Protocol => "protocol",
        };
        Lost { reason }
    }
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn lock(ticks: &Mutex<Ticks>) -> MutexGuard<'_, Ticks> {
    // The numbers stay usable when a thread that held them panicked.
    ticks.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Telemetry {
    /// The agent's families, at zero.
    pub fn new() -> Arc<Self> {
        let (mut registry, telemetry) = Telemetry::listener();
        let t = &telemetry;
        registry.register(
            "nodegauge_tick_duration_seconds",
            "Duration of collections",
            t.tick_seconds.clone(),
        );
        registry.register(
            "nodegauge_render_duration_seconds",
            "Time from the start to the end of writing an answer, for identity including the client's reading",
            t.render_seconds.clone(),
        );
        registry.register_collector(Box::new(t.sources.clone()));
        t.register_push(&mut registry);
        registry.register_collector(Box::new(Collection { ticks: Arc::clone(&t.ticks) }));
        Arc::new(Telemetry { registry, ..telemetry })
    }

    /// The aggregator's families.
    pub fn of_aggregator(ingest: Arc<Ingest>) -> Arc<Self> {
        let (mut registry, telemetry) = Telemetry::listener();
        registry.register_collector(Box::new(ingest::Ingesting(Arc::clone(&ingest))));
        registry.register(
            "nodegauge_pull_duration_seconds",
            "Time from asking a kubelet to the end of its answer",
            telemetry.pull.seconds(),
        );
        let metrics = Arc::clone(&telemetry.pull);
        registry.register_collector(Box::new(pull::Pulling { metrics, ingest }));
        telemetry.register_push(&mut registry);
        registry.register_collector(Box::new(lead::Lead(Arc::clone(&telemetry.leading))));
        // Heapster's name and labels.
        registry.register(
            "http_requests",
            "Requests by handler, method and status",
            telemetry.requests.clone(),
        );
        Arc::new(Telemetry { registry, ..telemetry })
    }

    fn register_push(&self, registry: &mut Registry) {
        registry.register(
            "nodegauge_push_request_duration_seconds",
            "Time from a request to a sink to its answer",
            self.push.seconds(),
        );
        registry.register_collector(Box::new(Push(Arc::clone(&self.push))));
    }

    /// Whether this aggregator is the one that sends.
    pub fn leading(&self) -> &Arc<lead::Leading> {
        &self.leading
    }

    /// What every role with a listener has.
    fn listener() -> (Registry, Telemetry) {
        let ticks = Arc::new(Mutex::new(Ticks::default()));
        let mut registry = Registry::default();
        let telemetry = Telemetry {
            ticks,
            tick_seconds: seconds(),
            scrapes: Family::default(),
            render_seconds: Family::new_with_constructor(seconds),
            responses: Family::default(),
            connections: Gauge::default(),
            connections_lost: Family::default(),
            sources: Sources::default(),
            access: access::Access::default(),
            requests: Family::default(),
            push: Arc::default(),
            pull: Arc::default(),
            leading: Arc::default(),
            registry: Registry::default(),
        };
        for reason in LostConnection::ALL {
            // Shown as zero from the start.
            drop(telemetry.connections_lost.get_or_create(&reason.label()));
        }
        let t = &telemetry;
        registry.register("nodegauge_scrapes", "Answers that carried metrics", t.scrapes.clone());
        registry.register("nodegauge_http_responses", "Answers by status", t.responses.clone());
        registry.register("nodegauge_http_connections", "Connections open now", t.connections.clone());
        registry.register(
            "nodegauge_http_connections_lost",
            "Connections refused or cut",
            t.connections_lost.clone(),
        );
        t.access.register(&mut registry);
        registry.register_collector(Box::new(Process { start: SystemTime::now() }));
        (registry, telemetry)
    }

    /// A tick ended that began `late` after its moment on the grid, `missed`
    /// moments of which before it had none.
    ///
    /// Allocates only when a collector is added.
    pub fn tick(&self, origin: Origin, late: Duration, missed: u64, report: &Report) {
        self.tick_seconds.observe(report.duration.as_secs_f64());
        let mut ticks = lock(&self.ticks);
        match origin {
            Origin::Grid => ticks.grid += 1,
            Origin::Fresh => ticks.fresh += 1,
        }
        ticks.late += u64::from(late >= LATE);
        ticks.missed += missed;
        ticks.last = Some(Instant::now());
        // `clone_from` on the whole would make a new list of collectors each time.
        let Report { collectors, handles, tree, log, between, cgroups, vanished_in_tick, duration } = report;
        ticks.report.collectors.clone_from(collectors);
        ticks.report.handles = *handles;
        ticks.report.tree = *tree;
        ticks.report.log = *log;
        ticks.report.between = *between;
        ticks.report.cgroups = *cgroups;
        ticks.report.vanished_in_tick = *vanished_in_tick;
        ticks.report.duration = *duration;
    }

    /// An answer that carries metrics was begun.
    pub fn scrape(&self, path: &'static str, format: &'static str, encoding: &'static str) {
        self.scrapes.get_or_create(&Scrape { path, format, encoding }).inc();
    }

    /// A body was written from start to end.
    pub fn rendered(&self, format: &'static str, encoding: &'static str, took: Duration) {
        self.render_seconds.get_or_create(&Render { format, encoding }).observe(took.as_secs_f64());
    }

    /// The sources of names were started; asked when somebody asks us.
    pub fn names_come_from(&self, identities: &Arc<Identities>) {
        // They are started once.
        let _ = self.sources.0.set(Arc::clone(identities));
    }

    /// An answer was begun.
    pub fn responded(&self, code: u16) {
        self.responses.get_or_create(&Response { code }).inc();
    }

    /// An answer was begun, of the aggregator.
    pub fn handled(&self, handler: &'static str, method: &str, code: u16) {
        let method = match method {
            "GET" => "get",
            "HEAD" => "head",
            "POST" => "post",
            _ => "other",
        };
        self.requests.get_or_create(&Request { handler, method, code }).inc();
    }

    /// The figures of what is sent.
    pub fn push(&self) -> &Arc<PushMetrics> {
        &self.push
    }

    /// The figures of what is pulled.
    pub fn pull(&self) -> &Arc<pull::PullMetrics> {
        &self.pull
    }

    /// A connection was accepted; it is open until the guard is dropped.
    pub fn connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    /// A connection was refused or cut.
    pub fn lost_connection(&self, reason: LostConnection) {
        self.connections_lost.get_or_create(&reason.label()).inc();
    }

    /// All families, as OpenMetrics 1.0 or as the older text format 0.0.4.
    pub fn encode(&self, openmetrics: bool) -> String {
        let mut text = String::with_capacity(16 << 10);
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            // A `String` takes everything; nothing else fails in there.
            tracing::error!("own metrics cannot be written");
        }
        if openmetrics { text } else { classic(&text) }
    }
}

/// Counts a connection as open while it lives.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// OpenMetrics to text 0.0.4: there a counter's family carries its `_total`, and
/// `# UNIT` and `# EOF` are unknown.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        // HELP precedes the TYPE of the same family.
        let type_line = if line.starts_with("# HELP ") { lines.peek().copied() } else { Some(line) };
        let counter = type_line
            .and_then(|l| l.strip_prefix("# TYPE "))
            .and_then(|l| l.strip_suffix(" counter"))
            .filter(|_| line.starts_with("# "));
        match counter.and_then(|name| line.split_once(name)) {
            Some((before, after)) => {
                out.extend([before, counter.unwrap_or_default(), "_total", after]);
            }
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// How long things of a kind took together, and how many there were.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Took {
    sum_ms: f64,
    count: u64,
}

impl Took {
    /// One more.
    pub fn add(&mut self, took: Duration) {
        *self += Took { sum_ms: took.as_secs_f64() * 1e3, count: 1 };
    }
}

impl std::ops::AddAssign for Took {
    fn add_assign(&mut self, other: Took) {
        self.sum_ms += other.sum_ms;
        self.count += other.count;
    }
}

/// Writes families whose values are known only when asked.
struct Families<'a>(DescriptorEncoder<'a>);

type Written = Result<(), std::fmt::Error>;
type Rows<'r, 'l, V> = &'r mut dyn Iterator<Item = (Vec<(&'static str, &'l str)>, V)>;

impl Families<'_> {
    fn counters(&mut self, name: &str, help: &str, rows: Rows<'_, '_, f64>) -> Written {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges(&mut self, name: &str, help: &str, rows: Rows<'_, '_, f64>) -> Written {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// How long things took. Heapster had summaries, which have a sum and a count under the same names.
    fn durations(&mut self, name: &str, help: &str, rows: Rows<'_, '_, Took>) -> Written {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, took) in rows {
            let all = [(f64::MAX, took.count)];
            let mut encoder = family.encode_family(&labels)?;
            encoder.encode_histogram::<NoLabelSet>(took.sum_ms, took.count, &all, None)?;
        }
        Ok(())
    }

    /// A counter without labels; left out when absent.
    fn counter(&mut self, name: &str, help: &str, value: Option<f64>) -> Written {
        let Some(value) = value else { return Ok(()) };
        let family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(family)
    }

    /// A gauge without labels; left out when absent.
    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) -> Written {
        let Some(value) = value else { return Ok(()) };
        let family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(family)
    }
}

/// As floating point, which holds every count up to 2^53 exactly.
#[allow(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}

/// Build and process families.
#[derive(Debug)]
struct Process {
    start: SystemTime,
}

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let own = own::read();
        let mut f = Families(encoder);
        let build = (vec![("version", env!("CARGO_PKG_VERSION"))], 1.0);
        f.gauges("nodegauge_build_info", "Always 1; the labels say what runs.", &mut std::iter::once(build))?;
        f.counter(
            "process_cpu_seconds",
            "User and system CPU time of the agent.",
            own.cpu.map(|t| t.as_secs_f64()),
        )?;
        f.gauge("process_resident_memory_bytes", "Resident memory.", own.resident_bytes.map(float))?;
        f.gauge("process_virtual_memory_bytes", "Address space.", own.virtual_bytes.map(float))?;
        f.gauge("process_threads", "Threads.", own.threads.map(float))?;
        f.gauge("process_open_fds", "Open descriptors.", own.descriptors.map(float))?;
        f.gauge("process_max_fds", "Soft limit of open descriptors.", own.max_descriptors.map(float))?;
        let start = self.start.duration_since(UNIX_EPOCH).ok().map(|t| t.as_secs_f64());
        f.gauge("process_start_time_seconds", "When this process started, Unix time.", start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::{CollectorReport, ErrorCounts, LogCounts, LogState};
    use crate::kernel::problems::Problem;

    fn value(text: &str, series: &str) -> Option<f64> {
        let mut found = text.lines().filter_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
        let value = found.next()?.parse().ok();
        assert_eq!(found.next(), None, "{series} twice");
        value
    }

    fn after_ticks() -> Arc<Telemetry> {
        let telemetry = Telemetry::new();
        let mut report = Report { cgroups: 7, duration: Duration::from_millis(3), ..Report::default() };
        report.collectors.push(CollectorReport {
            name: "cpu",
            last: Duration::from_millis(2),
            total: Duration::from_millis(250),
            passes: 2,
            errors: ErrorCounts { malformed: 3, ..ErrorCounts::default() },
        });
        report.tree.appeared = 9;
        report.handles.files = 40;
        report.log = LogCounts { state: LogState::Read, records: 12, kills: 3, ..LogCounts::default() };
        report.log.problems[Problem::KernelOops.index()] = 2;
        telemetry.tick(Origin::Fresh, Duration::ZERO, 0, &report);
        telemetry.tick(Origin::Grid, Duration::from_millis(60), 2, &report);
        telemetry
    }

    #[test]
    fn ticks_reports_and_scrapes_come_out() {
        let telemetry = after_ticks();
        telemetry.scrape("/metrics", "text", "gzip");
        telemetry.lost_connection(LostConnection::Limit);
        let open = telemetry.connection();
        let text = telemetry.encode(true);
        let check = |series: &str, expected: f64| {
            assert_eq!(value(&text, series), Some(expected), "{series}\n{text}")
        };
        check("nodegauge_ticks_total{origin=\"grid\"}", 1.0);
        check("nodegauge_ticks_total{origin=\"fresh\"}", 1.0);
        check("nodegauge_ticks_late_total", 1.0);
        check("nodegauge_ticks_missed_total", 2.0);
        check("nodegauge_tick_duration_seconds_count", 2.0);
        check("nodegauge_cgroups", 7.0);
        check("nodegauge_cgroups_appeared_total", 9.0);
        check("nodegauge_kernel_log_readable", 1.0);
        check("nodegauge_kernel_log_records_total", 12.0);
        check("nodegauge_oom_kills_logged_total", 3.0);
        check("nodegauge_oom_kills_unattributed_total", 0.0);
        check("nodegauge_kernel_problems_total{reason=\"KernelOops\"}", 2.0);
        check("nodegauge_kernel_problems_total{reason=\"TaskHung\"}", 0.0);
        check("nodegauge_handles{kind=\"file\"}", 40.0);
        check("nodegauge_collector_seconds_total{collector=\"cpu\"}", 0.25);
        check("nodegauge_collector_errors_total{collector=\"cpu\",reason=\"malformed\"}", 3.0);
        check("nodegauge_scrapes_total{path=\"/metrics\",format=\"text\",encoding=\"gzip\"}", 1.0);
        check("nodegauge_http_connections", 1.0);
        check("nodegauge_http_connections_lost_total{reason=\"limit\"}", 1.0);
        check("nodegauge_http_connections_lost_total{reason=\"slow\"}", 0.0);
        assert!(value(&text, "nodegauge_last_tick_age_seconds").is_some_and(|age| age < 60.0));
        assert!(value(&text, "process_resident_memory_bytes").is_some_and(|b| b > 1e6));
        assert!(text.ends_with("# EOF\n"));
        drop(open);
        assert_eq!(value(&telemetry.encode(true), "nodegauge_http_connections"), Some(0.0));
    }

    #[test]
    fn before_the_first_tick_nothing_is_claimed() {
        let text = Telemetry::new().encode(true);
        assert!(!text.contains("nodegauge_cgroups ") && !text.contains("nodegauge_kernel_log"), "{text}");
        assert!(!text.contains("nodegauge_last_tick_age_seconds "), "{text}");
    }

    #[test]
    fn the_older_format_has_the_same_samples_and_types_by_sample_name() {
        let telemetry = after_ticks();
        let classic = telemetry.encode(false);
        let samples = |text: &str| -> Vec<String> {
            let names = text.lines().filter(|l| !l.starts_with('#'));
            names.map(|l| l.rsplit_once(' ').unwrap().0.to_owned()).collect()
        };
        assert_eq!(samples(&classic), samples(&telemetry.encode(true)));
        assert!(classic.contains("# HELP nodegauge_ticks_total Collections, "), "{classic}");
        assert!(classic.contains("# TYPE nodegauge_ticks_total counter\n"));
        assert!(classic.contains("# TYPE nodegauge_cgroups gauge\n"));
        assert!(!classic.contains("# EOF") && !classic.contains("# UNIT"));
        for line in classic.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
            assert_eq!(line.ends_with(" counter"), line.contains("_total "), "{line}");
        }
    }

    #[test]
    fn a_steady_tick_keeps_its_buffers() {
        let telemetry = after_ticks();
        let place = lock(&telemetry.ticks).report.collectors.as_ptr();
        let mut report = Report::default();
        report.collectors.push(CollectorReport { name: "cpu", ..CollectorReport::default() });
        telemetry.tick(Origin::Grid, Duration::ZERO, 0, &report);
        assert_eq!(lock(&telemetry.ticks).report.collectors.as_ptr(), place);
    }
}
