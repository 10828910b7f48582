//! The path grammar: every form a kubelet, runtime or machine manager makes.

use nodegauge::identity::path::{Driver, Level, PathIdentity, PodUid, Qos, Runtime, parse};
use proptest::prelude::*;

const UID: &str = "0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d";
const UID_: &str = "0d1c2b3a_4f5e_4a7b_8c9d_0e1f2a3b4c5d";
const STATIC: &str = "9c0f2f3b1a2d4e5f60718293a4b5c6d7";
const ID: &str = "4f2e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e";
const NODE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// What is expected of a path; unnamed fields are expected to be absent.
#[derive(Default)]
struct Want {
    level: Level,
    qos: Option<Qos>,
    pod: Option<&'static str>,
    container: Option<&'static str>,
    within: Option<&'static str>,
    podman_pod: Option<&'static str>,
    runtime: Option<Runtime>,
    driver: Option<Driver>,
}

/// `{U}`, `{U_}`, `{S}`, `{ID}` and `{NODE}` stand for the constants above.
fn check(path: &str, want: Want) {
    let path = path
        .replace("{U}", UID)
        .replace("{U_}", UID_)
        .replace("{S}", STATIC)
        .replace("{ID}", ID)
        .replace("{NODE}", NODE);
    let want = PathIdentity {
        level: want.level,
        qos: want.qos,
        pod: want.pod.map(|uid| PodUid::parse(uid).unwrap()),
        container: want.container,
        within: want.within,
        podman_pod: want.podman_pod,
        runtime: want.runtime,
        driver: want.driver,
    };
    assert_eq!(parse(&path), want, "{path}");
}

fn pod(qos: Qos, driver: Driver) -> Want {
    Want { level: Level::Pod, qos: Some(qos), pod: Some(UID), driver: Some(driver), ..Want::default() }
}

fn container(runtime: Option<Runtime>, driver: Driver) -> Want {
    Want { level: Level::Container, container: Some(ID), runtime, driver: Some(driver), ..Want::default() }
}

fn in_pod(qos: Qos, want: Want) -> Want {
    Want { qos: Some(qos), pod: Some(UID), ..want }
}

#[test]
fn kubelet_levels_with_the_cgroupfs_driver() {
    let fs = Driver::Cgroupfs;
    let root = || Want { level: Level::PodsRoot, driver: Some(fs), ..Want::default() };
    let class = |qos| Want { level: Level::Qos, qos: Some(qos), driver: Some(fs), ..Want::default() };
    check("/kubepods", root());
    check("/kubepods/burstable", class(Qos::Burstable));
    check("/kubepods/besteffort", class(Qos::BestEffort));
    check("/kubepods/pod{U}", pod(Qos::Guaranteed, fs));
    check("/kubepods/burstable/pod{U}", pod(Qos::Burstable, fs));
    check("/kubepods/besteffort/pod{U}", pod(Qos::BestEffort, fs));
    check("/kubepods/burstable/pod{S}", Want { pod: Some(STATIC), ..pod(Qos::Burstable, fs) });
    check("/x-y/kubepods", root());
    check("/x-y/kubepods/burstable/pod{U}", pod(Qos::Burstable, fs));
    check("/kubelet/kubepods/besteffort", class(Qos::BestEffort));
}

#[test]
fn kubelet_levels_with_the_systemd_driver() {
    let systemd = Driver::Systemd;
    let root = || Want { level: Level::PodsRoot, driver: Some(systemd), ..Want::default() };
    let burstable =
        || Want { level: Level::Qos, qos: Some(Qos::Burstable), driver: Some(systemd), ..Want::default() };
    check("/kubepods.slice", root());
    check("/kubepods.slice/kubepods-burstable.slice", burstable());
    check("/kubepods.slice/kubepods-pod{U_}.slice", pod(Qos::Guaranteed, systemd));
    check(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U_}.slice",
        pod(Qos::Burstable, systemd),
    );
    check(
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{U_}.slice",
        pod(Qos::BestEffort, systemd),
    );
    check(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{S}.slice",
        Want { pod: Some(STATIC), ..pod(Qos::Burstable, systemd) },
    );
    check("/x_y.slice/x_y-kubepods.slice", root());
    check("/x_y.slice/x_y-kubepods.slice/x_y-kubepods-burstable.slice", burstable());
    check(
        "/x_y.slice/x_y-kubepods.slice/x_y-kubepods-burstable.slice/x_y-kubepods-burstable-pod{U_}.slice",
        pod(Qos::Burstable, systemd),
    );
    check("/x_y.slice/x_y-kubepods.slice/x_y-kubepods-pod{U_}.slice", pod(Qos::Guaranteed, systemd));
    check(
        "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{U_}.slice",
        pod(Qos::BestEffort, systemd),
    );
}

#[test]
fn containers_of_pods() {
    let (fs, systemd) = (Driver::Cgroupfs, Driver::Systemd);
    let slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U_}.slice";
    let at = |name: &str| format!("{slice}/{name}");
    let of = |runtime, driver| in_pod(Qos::Burstable, container(runtime, driver));
    check(&at("cri-containerd-{ID}.scope"), of(Some(Runtime::Containerd), systemd));
    check(&at("crio-{ID}.scope"), of(Some(Runtime::Crio), systemd));
    check(&at("docker-{ID}.scope"), of(Some(Runtime::Docker), systemd));
    check(&at("crio-conmon-{ID}.scope"), Want { level: Level::Monitor, ..of(Some(Runtime::Crio), systemd) });
    // What CRI-O leaves of a pause container it did not start.
    check(&at("crio-{ID}"), Want { level: Level::EmptySandbox, ..of(Some(Runtime::Crio), fs) });
    // Below a pod a bare id may be containerd's or, by cri-dockerd, Docker's.
    check("/kubepods/burstable/pod{U}/{ID}", of(None, fs));
    check("/kubepods/burstable/pod{U}/crio-{ID}", of(Some(Runtime::Crio), fs));
    check(
        "/kubepods/burstable/pod{U}/crio-conmon-{ID}",
        Want { level: Level::Monitor, ..of(Some(Runtime::Crio), fs) },
    );
    check("/kubepods/pod{U}/kata_{ID}", in_pod(Qos::Guaranteed, container(Some(Runtime::Kata), fs)));
}

#[test]
fn containers_without_kubelet_levels() {
    let (fs, systemd) = (Driver::Cgroupfs, Driver::Systemd);
    let monitor = |want| Want { level: Level::Monitor, ..want };
    check("/crio-{ID}", container(Some(Runtime::Crio), fs));
    check("/crio-conmon-{ID}", monitor(container(Some(Runtime::Crio), fs)));
    check("/system.slice/crio-conmon-{ID}.scope", monitor(container(Some(Runtime::Crio), systemd)));
    check("/docker/{ID}", container(Some(Runtime::Docker), fs));
    check("/k8s.io/{ID}", container(Some(Runtime::Containerd), fs));
    check("/system.slice/docker-{ID}.scope", container(Some(Runtime::Docker), systemd));
    check("/my.slice/my-own.slice/docker-{ID}.scope", container(Some(Runtime::Docker), systemd));
    check("/machine.slice/libpod-{ID}.scope", container(Some(Runtime::Podman), systemd));
    check("/machine.slice/libpod-conmon-{ID}.scope", monitor(container(Some(Runtime::Podman), systemd)));
    check("/libpod_parent/libpod-{ID}", container(Some(Runtime::Podman), fs));
    check("/libpod_parent/libpod-conmon-{ID}", monitor(container(Some(Runtime::Podman), fs)));
    check(
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope",
        container(Some(Runtime::Podman), systemd),
    );
    check("/system.slice/nerdctl-{ID}.scope", container(Some(Runtime::Nerdctl), systemd));
    check(
        "/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-{ID}.scope",
        container(Some(Runtime::Nerdctl), systemd),
    );
    check("/default/{ID}", container(Some(Runtime::Containerd), fs));
    check("/kata_overhead/{ID}", monitor(container(Some(Runtime::Kata), fs)));
    check("/kata_{ID}", container(Some(Runtime::Kata), fs));
    check("/ecs/0123456789abcdef0123456789abcdef/{ID}", container(Some(Runtime::Docker), fs));
    check(
        "/ecstasks.slice/ecstasks-0123456789abcdef.slice/docker-{ID}.scope",
        container(Some(Runtime::Docker), systemd),
    );
    check("/actions_job/{ID}", container(Some(Runtime::Docker), fs));
    check("/somebody/elses/{ID}", container(None, fs));
}

#[test]
fn containers_with_names() {
    let named = |id, runtime, driver| Want { container: Some(id), ..container(Some(runtime), driver) };
    let monitor = |want| Want { level: Level::Monitor, ..want };
    let below = |want| Want { level: Level::Below, ..want };
    let (fs, systemd) = (Driver::Cgroupfs, Driver::Systemd);
    check("/default/redis", named("redis", Runtime::Containerd, fs));
    check("/k8s.io/by-hand", named("by-hand", Runtime::Containerd, fs));
    check("/lxc.payload.web-1", named("web-1", Runtime::Lxc, fs));
    check("/lxc.monitor.web-1", monitor(named("web-1", Runtime::Lxc, fs)));
    check("/lxc/web-1", named("web-1", Runtime::Lxc, fs));
    check("/lxc/web-1/system.slice", below(named("web-1", Runtime::Lxc, fs)));
    check("/machine.slice/systemd-nspawn@deb.service", named("deb", Runtime::Nspawn, systemd));
    check("/machine.slice/systemd-nspawn@deb.service/payload", below(named("deb", Runtime::Nspawn, systemd)));
    check("/machine.slice/machine-deb.scope", named("deb", Runtime::Nspawn, systemd));
    let guid = "6a6ed0e4-2c4a-4b7b-6d3a-0b1c";
    check(&format!("/garden/{guid}"), named(guid, Runtime::Garden, fs));
    check("/buildkit/rz4x3l0bq", named("rz4x3l0bq", Runtime::Buildkit, fs));
    check("/ecs/0123456789abcdef/0123456789abcdef-77", named("0123456789abcdef-77", Runtime::Ecs, fs));
}

#[test]
fn podman_pods() {
    let (fs, systemd) = (Driver::Cgroupfs, Driver::Systemd);
    let group = || Want { level: Level::PodmanPod, podman_pod: Some(NODE), ..Want::default() };
    let member = |driver| Want { podman_pod: Some(NODE), ..container(Some(Runtime::Podman), driver) };
    check("/machine.slice/machine-libpod_pod_{NODE}.slice", group());
    check("/machine.slice/machine-libpod_pod_{NODE}.slice/libpod-{ID}.scope", member(systemd));
    check("/libpod_parent/{NODE}", group());
    check("/libpod_parent/{NODE}/libpod-{ID}", member(fs));
}

#[test]
fn below_a_container_belongs_to_it() {
    let (fs, systemd) = (Driver::Cgroupfs, Driver::Systemd);
    let below = |want| Want { level: Level::Below, ..want };
    let slice = "/kubepods.slice/kubepods-pod{U_}.slice";
    // crun's inner cgroups.
    for inner in ["container", "exec"] {
        check(
            &format!("{slice}/crio-{{ID}}.scope/{inner}"),
            below(in_pod(Qos::Guaranteed, container(Some(Runtime::Crio), systemd))),
        );
    }
    check("/machine.slice/libpod-{ID}.scope/container", below(container(Some(Runtime::Podman), systemd)));
    check(
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
        below(container(Some(Runtime::Podman), systemd)),
    );
    // systemd inside a container.
    check("/docker/{ID}/system.slice/cron.service", below(container(Some(Runtime::Docker), fs)));
    check("/docker/{ID}/init.scope", below(container(Some(Runtime::Docker), fs)));
    // A node's kubelet levels are the node container's own.
    check("/docker/{ID}/kubelet/kubepods/burstable", below(container(Some(Runtime::Docker), fs)));
    // Something in a pod that is no container we know of.
    check("/kubepods/pod{U}/helper", below(pod(Qos::Guaranteed, fs)));
    check(
        "/system.slice/crio-conmon-{ID}.scope/inner",
        Want { level: Level::Monitor, ..container(Some(Runtime::Crio), systemd) },
    );
}

#[test]
fn innermost_wins() {
    let (fs, systemd) = (Driver::Cgroupfs, Driver::Systemd);
    let inside = |want| Want { within: Some(NODE), ..want };
    // kind, by each driver and from each host runtime.
    for node in [
        "/docker/{NODE}",
        "/system.slice/docker-{NODE}.scope",
        "/machine.slice/libpod-{NODE}.scope/container",
    ] {
        check(&format!("{node}/kubelet/kubepods/besteffort/pod{{U}}"), inside(pod(Qos::BestEffort, fs)));
        check(
            &format!("{node}/kubelet/kubepods/besteffort/pod{{U}}/{{ID}}"),
            inside(in_pod(Qos::BestEffort, container(None, fs))),
        );
        let slice = format!("{node}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{{U_}}.slice");
        check(&slice, inside(pod(Qos::Guaranteed, systemd)));
        check(
            &format!("{slice}/cri-containerd-{{ID}}.scope"),
            inside(in_pod(Qos::Guaranteed, container(Some(Runtime::Containerd), systemd))),
        );
    }
    // Docker in a pod's container, and in plain Docker.
    let nested = |want| Want { level: Level::Nested, ..inside(want) };
    check(
        "/kubepods/pod{U}/{NODE}/docker/{ID}",
        nested(in_pod(Qos::Guaranteed, container(Some(Runtime::Docker), fs))),
    );
    check("/docker/{NODE}/docker/{ID}", nested(container(Some(Runtime::Docker), fs)));
    check(
        "/docker/{NODE}/docker/{ID}/deeper",
        Want { level: Level::Below, ..inside(container(Some(Runtime::Docker), fs)) },
    );
}

#[test]
fn mismatched_drivers() {
    let of = |want: Want| Want { driver: Some(Driver::Mismatched), ..want };
    let pods = "kubepods-burstable-pod{U_}.slice:cri-containerd:{ID}";
    let want = || of(in_pod(Qos::Burstable, container(Some(Runtime::Containerd), Driver::Mismatched)));
    check(&format!("/{pods}"), want());
    check(&format!("/system.slice/containerd.service/{pods}"), want());
    check(
        "/kubepods-pod{U_}.slice:crio:{ID}",
        of(in_pod(Qos::Guaranteed, container(Some(Runtime::Crio), Driver::Mismatched))),
    );
    check("/system.slice:docker:{ID}", of(container(Some(Runtime::Docker), Driver::Mismatched)));
    check("/user.slice:libpod:{ID}", of(container(Some(Runtime::Podman), Driver::Mismatched)));
}

#[test]
fn what_is_neither_pod_nor_container() {
    for path in [
        "",
        "/",
        "//",
        "/system.slice",
        "/system.slice/ssh.service",
        "/user.slice",
        "/init.scope",
        "/user.slice/user-0.slice/session-1.scope",
        "/kubelet.slice",
        "/runtime.slice",
        "/podruntime.slice",
        "/reserved.slice",
        "/kube.slice",
        "/azure.slice",
        "/machine.slice",
        "/init",
        "/system",
        "/podruntime",
        "/default",
        "/docker",
        "/lxc",
        "/lxc.payload.",
        "/burstable",
        "/system.slice/kubepods-x.service",
        // Nearly a UID, nearly an id.
        "/kubepods/pod0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5",
        "/kubepods/pod0D1C2B3A-4F5E-4A7B-8C9D-0E1F2A3B4C5D",
        "/kubepods/pod0d1c2b3a4-f5e-4a7b-8c9d-0e1f2a3b4c5d",
        "/x/4f2e9a0c1b3d5f7e",
        "/x/gf2e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e",
        "/x/a4f2e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e",
        "/system.slice/default/thing",
    ] {
        check(path, Want::default());
    }
    for path in ["/system.slice/tmp.mount", "/dev-sda2.swap", "/system.slice/dbus.socket"] {
        check(path, Want { level: Level::Ignored, ..Want::default() });
    }
}

#[test]
fn uids_print_as_they_came() {
    for uid in [UID, STATIC, "00000000-0000-0000-0000-000000000000", "00000000000000000000000000000001"] {
        let parsed = PodUid::parse(uid).unwrap();
        assert_eq!(parsed.to_string(), uid);
        assert_eq!(parsed.is_static(), uid.len() == 32);
    }
    assert_eq!(PodUid::parse(UID_).unwrap().to_string(), UID);
    // The same digits with and without dashes are two pods.
    assert_ne!(PodUid::parse(UID), PodUid::parse(&UID.replace('-', "")));
    assert_eq!(PodUid::parse("0d1c2b3aé4f5e-4a7b-8c9d-0e1f2a3b4c5"), None);
}

/// A path as the kubelet and a runtime make it, the slow and obvious way.
#[derive(Debug, Clone)]
struct Made {
    root: Vec<String>,
    systemd: bool,
    qos: Qos,
    uid: String,
    /// Prefix of the scope, runtime, id.
    container: Option<(&'static str, Option<Runtime>, String)>,
}

impl Made {
    fn path(&self) -> String {
        let mut parts: Vec<String> = self.root.clone();
        parts.push("kubepods".into());
        match self.qos {
            Qos::Guaranteed => {}
            Qos::Burstable => parts.push("burstable".into()),
            Qos::BestEffort => parts.push("besteffort".into()),
        }
        parts.push(format!("pod{}", self.uid));
        let mut path = String::new();
        if self.systemd {
            let mut unit = String::new();
            for part in &parts {
                if !unit.is_empty() {
                    unit.push('-');
                }
                unit.push_str(&part.replace('-', "_"));
                path.push_str(&format!("/{unit}.slice"));
            }
        } else {
            path = format!("/{}", parts.join("/"));
        }
        if let Some((prefix, _, id)) = &self.container {
            let dash = if prefix.is_empty() { "" } else { "-" };
            let scope = if self.systemd { ".scope" } else { "" };
            path.push_str(&format!("/{prefix}{dash}{id}{scope}"));
        }
        path
    }
}

fn made() -> impl Strategy<Value = Made> {
    let uid = prop_oneof!["[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[0-9a-f]{32}",];
    let qos = prop_oneof![Just(Qos::Guaranteed), Just(Qos::Burstable), Just(Qos::BestEffort)];
    let prefix = prop_oneof![
        Just(("cri-containerd", Some(Runtime::Containerd))),
        Just(("crio", Some(Runtime::Crio))),
        Just(("docker", Some(Runtime::Docker))),
        Just(("", None)),
    ];
    let container = proptest::option::of((prefix, "[0-9a-f]{64}").prop_map(|((p, r), id)| (p, r, id)));
    (
        proptest::collection::vec("[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,4})?", 0..3),
        any::<bool>(),
        qos,
        uid,
        container,
    )
        .prop_map(|(root, systemd, qos, uid, container)| Made { root, systemd, qos, uid, container })
}

proptest! {
    #[test]
    fn reads_back_what_a_kubelet_makes(made in made()) {
        let path = made.path();
        let found = parse(&path);
        prop_assert_eq!(found.pod.unwrap().to_string(), made.uid);
        prop_assert_eq!(found.qos, Some(made.qos));
        let driver = if made.systemd { Driver::Systemd } else { Driver::Cgroupfs };
        prop_assert_eq!(found.driver, Some(driver));
        match &made.container {
            Some((_, runtime, id)) => {
                prop_assert_eq!(found.level, Level::Container);
                prop_assert_eq!(found.container, Some(id.as_str()));
                prop_assert_eq!(found.runtime, *runtime);
            }
            None => {
                prop_assert_eq!(found.level, Level::Pod);
                prop_assert_eq!(found.container, None);
            }
        }
    }

    #[test]
    fn never_panics(path in "\\PC{0,300}", pieces in proptest::collection::vec(piece(), 0..8)) {
        parse(&path);
        parse(&pieces.concat());
    }
}

/// Bits of real paths, to be put together wrongly.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "[/:_.-]",
        Just(ID.to_owned()),
        Just(UID.to_owned()),
        Just(format!("pod{UID_}.slice")),
        Just("kubepods".to_owned()),
        Just("kubepods-burstable-".to_owned()),
        Just("crio-conmon-".to_owned()),
        Just("libpod_parent/".to_owned()),
        Just("lxc.payload.".to_owned()),
        Just("machine-.scope".to_owned()),
        "\\PC{0,3}",
    ]
}
