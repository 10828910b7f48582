//! What programs push of themselves, and runs of containers, on their way to sinks.

use std::collections::BTreeMap;

use nodegauge::aggregate::exposition;
use nodegauge::aggregate::model::{Model, Options};
use nodegauge::aggregate::steps::Steps;
use nodegauge::push::batch::Batch;
use nodegauge::push::remote_write::{RemoteWrite, STALE};
use prost::Message as _;

use super::{bodies, lines, made, target};
use crate::api::cluster::{minute, n1_with};
use crate::push_encode::prometheus;

/// What programs push of themselves is sent with the step of its slot, as everything else of
/// its pod is, and again only where more of it came.
#[test]
fn what_programs_push_is_sent_too() {
    let model = Model::new(Options::default());
    let push = |text: &str, at| {
        let samples = exposition::samples(text, 10).unwrap();
        model.take_custom("shop", &samples, at).unwrap();
    };
    let text =
        "queue{namespace=\"shop\",pod=\"web-0\",kind=\"mail\"} 2.5\nload{namespace=\"shop\"} 3\nall 7\n";
    push(text, minute(1) - 5_000);
    model.ingest(&n1_with(1, Some(5)), minute(1) + 1_000);
    model.tick(minute(1) + 20_000);
    let mut steps = Steps::new().unwrap();
    let made_now = |steps: &mut Steps, at: u64| made(steps, &model, minute(1) + at);
    let first = made_now(&mut steps, 20_000);
    let written = lines("influxdb:http://db", &first[&minute(1)]);
    for line in [
        "custom/shop/all,cluster_name=default,type=cluster value=7 ",
        "custom/shop/load,cluster_name=default,namespace_name=shop,type=ns value=3 ",
        "custom/shop/queue,cluster_name=default,labels=app:web\\,instance:web-0,namespace_name=shop,nodename=n1,\
         pod_name=web-0,kind=mail,type=pod value=2.5 ",
    ] {
        assert!(written.contains(line), "no {line} in {written}");
    }
    let mut sink = RemoteWrite::new(&target("remote-write:http://p/w")).unwrap();
    let sent = prometheus::WriteRequest::decode(bodies(&mut sink, &first[&minute(1)]).as_slice()).unwrap();
    let name = |one: &prometheus::TimeSeries| {
        let labels = one.labels.iter().map(|l| format!("{}={}", l.name, l.value)).collect::<Vec<_>>();
        labels.join(",")
    };
    let mut custom: Vec<String> =
        sent.timeseries.iter().map(name).filter(|n| n.contains("custom_")).collect();
    custom.sort();
    let pod = "__name__=custom_shop_queue,id=";
    assert!(
        custom[2].starts_with(pod)
            && custom[2].ends_with("instance=n1,job=nodegauge,kind=mail,namespace=shop,node=n1,pod=web-0"),
        "{custom:?}"
    );
    assert_eq!(
        custom[..2],
        ["__name__=custom_shop_all,job=nodegauge", "__name__=custom_shop_load,job=nodegauge,namespace=shop"]
    );
    assert!(made_now(&mut steps, 30_000).is_empty());
    // It came while the slot was closed: the mean is another now, and is sent, alone.
    push("all 8\n", minute(1) - 1);
    let again = lines("influxdb:http://db", &made_now(&mut steps, 60_000)[&minute(1)]);
    assert!(again.contains("custom/shop/all,cluster_name=default,type=cluster value=7.5 "), "{again}");
    assert!(!again.contains("memory/usage"), "{again}");
    // After a restart nobody knows whether all of it is there.
    let mut next = Steps::new().unwrap();
    assert!(next.resume(&steps.encode()));
    push("all 1\n", minute(1) - 1);
    assert!(made_now(&mut next, 90_000).is_empty());
}

/// A container that was restarted has another id, and the series of the one before end.
#[test]
fn a_run_that_is_over_ends_its_series() {
    let model = Model::new(Options::default());
    for at in 1..=3 {
        let mut message = n1_with(at, Some(5)).message().clone();
        let run = [0xaa, 0xaa, 0xbb][usize::try_from(at).unwrap() - 1];
        let main = message.strings.iter().position(|text| text == "main").unwrap();
        let name = u32::try_from(message.strings.len()).unwrap();
        message.strings.push(format!("{run:02x}").repeat(32));
        for entity in message.entities.iter_mut().filter(|e| usize::try_from(e.container).unwrap() == main) {
            (entity.container_id, entity.name) = (vec![run; 32], name);
        }
        model.ingest(&Batch::new(message).unwrap(), minute(at) + 1_000);
        model.tick(minute(at) + 20_000);
    }
    let made = made(&mut Steps::new().unwrap(), &model, minute(3) + 20_000);
    let mut sink = RemoteWrite::new(&target("remote-write:http://p/w")).unwrap();
    let all = made.values().flatten().cloned().collect::<Vec<_>>();
    let sent = prometheus::WriteRequest::decode(bodies(&mut sink, &all).as_slice()).unwrap().timeseries;
    let mut found: BTreeMap<&str, Vec<(i64, bool)>> = BTreeMap::new();
    for one in &sent {
        let label = |name: &str| one.labels.iter().find(|l| l.name == name).map(|l| l.value.as_str());
        if label("__name__") == Some("container_memory_usage_bytes")
            && label("container") == Some("main")
            && label("pod") == Some("web-0")
        {
            assert_eq!(label("id"), label("name"));
            let samples = one.samples.iter().map(|s| (s.timestamp, s.value.to_bits() == STALE));
            found.entry(label("id").unwrap()).or_default().extend(samples);
        }
    }
    let [first, second, third] = [1, 2, 3].map(|at| minute(at).cast_signed());
    let [old, new] = ["aa", "bb"].map(|byte| byte.repeat(32));
    assert_eq!(found[old.as_str()], [(first, false), (second, false), (third, true)]);
    assert_eq!(found[new.as_str()], [(third, false)]);
}
