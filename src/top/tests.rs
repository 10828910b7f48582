//! The whole of it on a screen that is no terminal.

use std::ffi::OsString;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::KeyCode;
use serde_json::{Value, json};

use super::answer::{Detail, Overview};
use super::draw::draw;
use super::keys::press;
use super::look::Look;
use super::state::{Choices, Lost, State};

/// What a container may be called that hurts a terminal.
const HOSTILE: &str = "evil\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}\n\u{9b}H";

fn row(id: &str, kind: char, names: Value) -> Value {
    let mut row = json!({"id": id, "kind": kind.to_string(), "created": 1_000});
    row.as_object_mut().unwrap().extend(names.as_object().unwrap().clone());
    row
}

/// An answer with its names and past: two pods, one of which nothing is told yet, one
/// without a row of its own, a container outside of pods.
pub(crate) fn overview(time: u64) -> Overview {
    let web = json!({"namespace": "shop", "pod": "web-10", "uid": "u1"});
    let with = |names: &Value, container: &str| {
        let mut names = names.clone();
        names["container"] = json!(container);
        names
    };
    let other = json!({"namespace": "shop", "pod": "web-2", "uid": "u2"});
    let dns = json!({"namespace": "kube-system", "pod": "dns", "uid": "u3", "container": "coredns"});
    let rows = json!([
        row("/", 'n', json!({})),
        row("/docker", 'g', json!({})),
        row("/docker/redis1", 'c', json!({"name": "redis", "image": "docker.io/library/redis:7"})),
        row("/kubepods", 'g', json!({})),
        row("/kubepods/pod1", 'p', web.clone()),
        row("/kubepods/pod1/app", 'c', with(&web, "app")),
        row("/kubepods/pod1/pause", 's', with(&web, "POD")),
        row("/kubepods/pod1/sidecar", 'c', with(&web, "sidecar")),
        row("/kubepods/pod2", 'p', other.clone()),
        row("/kubepods/pod2/app", 'c', with(&other, "app")),
        row("/kubepods/pod3/coredns", 'c', dns),
    ]);
    let many = rows.as_array().unwrap().len();
    let cpu = json!([700, 20, 20, 370, 300, 250, 0, 50, null, null, 70]);
    let memory: Vec<Value> =
        (0..many).map(|n| if n == 8 || n == 9 { Value::Null } else { json!((n + 1) << 20) }).collect();
    let mut limits = vec![Value::Null; many];
    limits[4] = json!(6 << 20);
    let mut received = vec![Value::Null; many];
    received[0] = json!(2048);
    received[6] = json!(1000);
    let past = |value: u64| vec![vec![json!(value); 40]; many];
    let answer = json!({
        "node": "node-1", "version": "0.1.0", "hierarchy": "v2",
        "machine": {"os_version": "Debian 12", "kernel_version": "6.1.0", "boot_time": 4, "cores": 4, "memory_bytes": 8_u64 << 30},
        "time": time, "window": 120_000, "load": [52, 40, 30], "tasks": 312, "more": 0, "names": "a",
        "filesystems": {"mounts": [
            {"mount_point": "/", "fs_type": "ext4", "space": {"capacity_bytes": 100, "available_bytes": 19, "usage_bytes": 81}},
            {"mount_point": "/run", "fs_type": "tmpfs", "space": {"capacity_bytes": 100, "available_bytes": 1, "usage_bytes": 99}}]},
        "rows": rows,
        "columns": {"cpu": cpu, "memory": memory, "memory_limit": limits, "received": received, "cpu_pressure": [25.0], "unknown": ["x"]},
        "past": {"step": 3000, "cpu": past(5), "memory": past(1 << 20)},
    });
    serde_json::from_value(answer).unwrap()
}

fn look(variables: &[(&str, &str)]) -> Look {
    Look::of(&|name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value)))
}

fn full() -> Look {
    look(&[("TERM", "xterm-256color"), ("LANG", "C.UTF-8")])
}

fn bare() -> Look {
    look(&[("TERM", "vt220"), ("LANG", "C")])
}

fn state(look: Look, answer: Option<Overview>) -> State {
    let mut state = State::new(look, Duration::from_secs(2), Choices::default());
    if let Some(answer) = answer {
        state.take(answer);
    }
    state
}

/// A state that was told of [`overview`].
pub(crate) fn told() -> State {
    state(full(), Some(overview(300_000_000)))
}

/// Presses letters.
pub(crate) fn type_keys(state: &mut State, keys: &str) {
    for key in keys.chars() {
        press(state, KeyCode::Char(key).into());
    }
}

fn screen(state: &mut State, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(state, frame.area(), frame.buffer_mut())).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width);
    let line = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect::<String>();
    buffer.content.chunks(width).map(line).collect()
}

fn shown(state: &mut State, width: u16, height: u16) -> String {
    text(&screen(state, width, height)).iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn a_wide_screen_has_it_all() {
    let mut state = told();
    let screen = shown(&mut state, 170, 24);
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines[0].starts_with("node-1  Debian 12 · Linux 6.1.0 · cgroup v2 · up 3 d "), "{screen}");
    assert!(lines[0].ends_with("live, every 2s  11:20:00 UTC"), "{screen}");
    assert!(lines[1].starts_with("CPU      18%  0.70 of 4 cores "), "{screen}");
    assert!(
        lines[1].contains("Memory   <0.1%  1.00 MiB of 8.00 GiB ")
            && lines[1].contains("Load     0.52 0.40 0.30  312 tasks"),
        "{screen}"
    );
    assert!(
        lines[2].contains("CPU 25%  memory -  I/O -") && lines[2].contains("2.00 KiB/s in  - out"),
        "{screen}"
    );
    assert_eq!(lines[3], "Space    / 81%  19 B free", "memory is no disk");
    assert!(
        lines[5].starts_with("POD   ") && lines[5].contains(" CPU▼ ") && lines[5].ends_with(" AGE"),
        "{screen}"
    );
    let named = |name: &str| lines.iter().find(|line| line.contains(name)).unwrap();
    assert!(named("shop").starts_with("▾ shop  2"), "{screen}");
    let web = named("web-10");
    assert!(web.starts_with("  ▸ web-10  2 containers"), "{screen}");
    let figures: Vec<&str> =
        web.split_whitespace().skip(4).filter(|word| !word.contains(['▄', '█'])).collect();
    // Absent is not zero.
    assert_eq!(figures.join(" "), "300m - 5.00 MiB 83% 1000 B/s - - - - - - - 3 d", "{screen}");
    let figures: Vec<&str> = named("web-2").split_whitespace().skip(3).collect();
    assert!(
        figures.iter().all(|word| matches!(*word, "-" | "3" | "d") || word.contains(['▄', '█'])),
        "{screen}"
    );
    assert!(lines[23].starts_with("4 pods ") && lines[23].ends_with("q quit"), "{screen}");
}

#[test]
fn any_size_will_do() {
    for keys in ["", "3", "2g", "/web", "?"] {
        let mut state = told();
        type_keys(&mut state, keys);
        for (width, height) in
            [(1, 1), (3, 9), (4, 1), (10, 3), (24, 6), (39, 12), (80, 24), (200, 60), (1000, 2)]
        {
            let buffer = screen(&mut state, width, height);
            assert_eq!(buffer.area.width, width);
        }
    }
    let mut state = told();
    let small = shown(&mut state, 40, 10);
    assert!(small.contains("web-10") && small.contains("300m") && !small.contains("Memory"), "{small}");
}

#[test]
fn a_terminal_without_colours_or_unicode_gets_neither() {
    let mut answer = overview(300_000_000);
    for row in &mut answer.rows.as_mut().unwrap()[4..8] {
        row.pod = Some("größe-日本".to_owned().into());
    }
    let mut state = state(bare(), Some(answer));
    state.filter = "ü".to_owned();
    state.take_loss("über".to_owned());
    state.filter.clear();
    for keys in ["", "?", "?3"] {
        type_keys(&mut state, keys);
        let buffer = screen(&mut state, 120, 40);
        for cell in &buffer.content {
            assert!(cell.symbol().is_ascii(), "{:?}", cell.symbol());
            assert_eq!((cell.fg, cell.bg), (Default::default(), Default::default()));
        }
    }
    type_keys(&mut state, "1");
    assert!(shown(&mut state, 120, 40).contains("gr??e-?"));
    // With colours, figures that are wrong have one.
    let coloured = screen(&mut told(), 120, 40);
    assert!(coloured.content.iter().any(|cell| cell.fg != Default::default()));
}

#[test]
fn hostile_names_stay_in_their_columns() {
    let mut answer = overview(300_000_000);
    let rows = answer.rows.as_mut().unwrap();
    let hostile: Value =
        json!({"id": format!("/kubepods/{HOSTILE}"), "kind": "c", "name": HOSTILE, "image": HOSTILE});
    rows[3] = serde_json::from_value(hostile).unwrap();
    answer.node = HOSTILE.to_owned().into();
    let mut state = state(full(), Some(answer));
    state.take_loss(super::text::clean(HOSTILE));
    for keys in ["", "2", "3"] {
        type_keys(&mut state, keys);
        let buffer = screen(&mut state, 120, 40);
        let all: String = buffer.content.iter().map(|cell| cell.symbol()).collect();
        assert!(!all.chars().any(|c| c.is_control() || c == '\u{202e}'), "{all:?}");
        assert!(all.contains("evil?[2J?]0;owned????H"), "{all}");
    }
}

#[test]
fn lost_answers_are_told_of_until_they_are_back() {
    let mut state = told();
    state.take_loss("connection refused".to_owned());
    state.take_loss("no route".to_owned());
    state.lost = state.lost.map(|lost| Lost { since_ms: 3_600_000, ..lost });
    let screen = shown(&mut state, 120, 20);
    assert!(screen.lines().next().unwrap().contains(" no answer since 01:00:00 UTC ("), "{screen}");
    assert!(screen.contains("no route") && screen.contains("web-10"), "{screen}");
    assert!(shown(&mut state, 40, 20).starts_with("nod"), "the node's name has its place");
    state.take(overview(300_002_000));
    assert!(!shown(&mut state, 120, 20).contains("no answer"));
    let mut never = super::tests::state(full(), None);
    assert!(shown(&mut never, 80, 20).contains("Waiting for the first answer."));
    never.take_loss("connection refused".to_owned());
    assert!(shown(&mut never, 80, 20).contains("connection refused"));
}

#[test]
fn one_cgroup_by_itself() {
    let mut state = told();
    type_keys(&mut state, "/10");
    press(&mut state, KeyCode::Enter.into());
    press(&mut state, KeyCode::Down.into());
    press(&mut state, KeyCode::Enter.into());
    let (number, path) = state.wish().detail.unwrap();
    assert_eq!(path, "/kubepods/pod1");
    let detail = |from: u64, to: u64| -> Detail {
        let times: Vec<u64> = (from..to).map(|second| 300_000_000 + second * 1000).collect();
        let cpu: Vec<u64> = (from..to).collect();
        serde_json::from_value(json!({
            "kind": "p", "identity": {"namespace": "shop", "pod": "web-10", "image": null}, "created": 100,
            "time": 300_000_000 + to * 1000, "at": to, "window": 120_000, "cpu_limit": 500, "memory_limit": null,
            "spec": {"threads_max": "max", "memory_high": {"value": 1 << 30}, "cpu_weight": 10, "memory_limit": null},
            "oom_kills": 0, "series": {"time": times, "cpu": cpu, "swap": vec![Value::Null; times.len()]},
        }))
        .unwrap()
    };
    state.take_detail(number, Some(detail(0, 100)));
    state.take_detail(number, Some(detail(100, 200)));
    state.take_detail(number + 1, None);
    let screen = shown(&mut state, 100, 40);
    assert!(screen.contains("web-10  pod · of shop · 3 d old"), "{screen}");
    assert!(screen.contains("of at most 500m"), "{screen}");
    // The mean and the largest of the window: 120 s of the 200.
    assert!(screen.contains("  total               199m        140m        199m "), "{screen}");
    assert!(
        !screen.contains("Memory") && !screen.contains("swap"),
        "what is not told has no place: {screen}"
    );
    assert!(
        screen.contains("threads               none") && screen.contains("throttled above       1.00 GiB"),
        "{screen}"
    );
    let wide = shown(&mut state, 160, 40);
    assert!(wide.lines().any(|line| line.contains("Limits") || line.contains("Identity")), "{wide}");
    type_keys(&mut state, "jjjj");
    shown(&mut state, 100, 10);
    state.take_detail(number, None);
    assert!(shown(&mut state, 100, 12).contains("It is gone."));
    press(&mut state, KeyCode::Esc.into());
    assert!(shown(&mut state, 100, 20).contains("filter: 10"));
}

#[test]
fn a_table_for_scripts_is_not_cut() {
    let mut state = told();
    type_keys(&mut state, "2");
    let write = |state: &State, width| {
        let mut out = Vec::new();
        super::plain::write(state, width, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let all = write(&state, None);
    assert!(all.starts_with("node-1  11:20:00 UTC  5 containers\nCPU      18%  0.70 of 4 cores\n"), "{all}");
    let lines: Vec<&str> = all.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("CONTAINER ")).unwrap();
    assert_eq!(lines.len() - at, 1 + 8, "five containers in three groups: {all}");
    assert!(lines[at].ends_with(" AGE") && all.contains("    app  web-10 "), "{all}");
    assert!(!all.contains('█') && lines.iter().all(|line| *line == line.trim_end()), "{all}");
    assert!(write(&state, Some(60)).lines().all(|line| line.chars().count() <= 60));
}
