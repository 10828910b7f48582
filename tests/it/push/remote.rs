//! Delivery by remote write: samples that are refused, and series that end.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nodegauge::push::remote_write::STALE;
use prost::Message as _;

use super::{Run, timing};
use crate::push_encode::prometheus;
use crate::standin::receiver::{Receiver, Reply, Seen};

/// The series of a body of remote write.
fn series(seen: &Seen) -> Vec<prometheus::TimeSeries> {
    assert_eq!(seen.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(seen.header("x-prometheus-remote-write-version"), Some("0.1.0"));
    let plain = snap::raw::Decoder::new().decompress_vec(&seen.body).unwrap();
    prometheus::WriteRequest::decode(plain.as_slice()).unwrap().timeseries
}

#[tokio::test]
async fn samples_out_of_order_are_counted_apart_and_the_others_kept() {
    let taken = Arc::new(Mutex::new(0));
    let count = Arc::clone(&taken);
    // As Prometheus: one bad sample, and none of the request is kept.
    let receiver = Receiver::judging(move |seen| {
        let all = series(seen);
        let bad = |s: &&prometheus::TimeSeries| {
            s.labels.iter().any(|l| l.value == "web-3") && s.labels.iter().any(|l| l.value.contains("_cpu_"))
        };
        if all.iter().any(|s| bad(&s)) {
            return Reply::text(400, "out of order sample\n");
        }
        *count.lock().unwrap() += all.len();
        Reply::text(204, "")
    });
    let (_server, port) = receiver.serve(0).await;
    let run = Run::start(&format!("remote-write:http://127.0.0.1:{port}/w?resolution=1s"), None, timing());
    run.queue(0..1, 100);
    run.sent().await;
    assert_eq!(*taken.lock().unwrap(), 2 + 100 * 3 - 1);
    assert_eq!((run.dropped("too_old"), run.dropped("invalid")), (1.0, 0.0));
}

#[tokio::test]
async fn what_went_while_nobody_ran_becomes_stale() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::judging(|_| Reply::text(204, ""));
    let (_server, port) = receiver.serve(0).await;
    let uri = format!("remote-write:http://127.0.0.1:{port}/w?resolution=1s&name=db");
    for (second, containers) in [(0, 4), (1, 2)] {
        let run = Run::start(&uri, Some(directory.path()), timing());
        run.queue(second..second + 1, containers);
        run.sent().await;
        run.stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(60), run.worker).await.expect("it ends").unwrap();
    }
    let writes = receiver.seen();
    let last = series(writes.last().unwrap());
    let ended = last.iter().filter(|s| s.samples.iter().any(|x| x.value.to_bits() == STALE));
    let pods: BTreeSet<&str> =
        ended.flat_map(|s| s.labels.iter().filter(|l| l.name == "pod").map(|l| l.value.as_str())).collect();
    assert_eq!(pods, BTreeSet::from(["web-2", "web-3"]));
}
