// The agent's page: this machine, its pods and containers, and one of them in charts.

import { $, add, ask, bytes, card, cores, count, element, keys, link, list, percent, place, Pulse, rate, Refused, say, span, tabs, theme, TreeTable } from "./common.js";
import { Charts } from "./charts.js";

const CPU_LEAST = 10, MEMORY_LEAST = 1 << 20;

let names = null; // the generation of `rows`
let rows = [];
let now = {}; // the columns of the last answer
let times = [];
let past = new Map(); // by id: {cpu: [], memory: []}, as long as `times`
let view = null;
let machine = {};
let clock = Date.now();

// === answers ===

async function overview() {
  const first = names == null;
  const answer = await ask(first ? "api/page/node?past=1" : `api/page/node?names=${names}`);
  if (answer.rows) rows = answer.rows;
  names = answer.names;
  now = answer.columns;
  machine = answer;
  clock = answer.time;
  remember(answer, first);
  head(answer);
  if (view == null) choose(rows.some((row) => row.kind === "p") ? "pods" : rows.some((row) => row.kind === "c") ? "containers" : "tree");
  if (!$("overview").hidden) { cards(answer); show(); }
}

// All rows share the times; sums of rows are sums of their lines.
function remember({ time, window, past: told }, first) {
  if (first && told) {
    const points = told.cpu[0]?.length || 0;
    times = Array.from({ length: points }, (_, i) => time - (points - 1 - i) * told.step);
    past = new Map(rows.map((row, i) => [row.id, { cpu: told.cpu[i], memory: told.memory[i] }]));
  } else if (time > (times[times.length - 1] || 0)) {
    times.push(time);
    const known = past;
    past = new Map(rows.map((row, i) => {
      const line = known.get(row.id) || { cpu: new Array(times.length - 1).fill(null), memory: new Array(times.length - 1).fill(null) };
      line.cpu.push(now.cpu?.[i] ?? null);
      line.memory.push(now.memory?.[i] ?? null);
      return [row.id, line];
    }));
  }
  let old = 0;
  while (times.length - old > 2 && times[old] < time - Math.max(window, 60000)) old++;
  if (old) {
    times.splice(0, old);
    for (const line of past.values()) { line.cpu.splice(0, old); line.memory.splice(0, old); }
  }
}

function head({ node, hierarchy, machine: told, version }) {
  say($("who"), node);
  document.title = `${node} – nodegauge`;
  const cgroups = { v1: "cgroup v1", v2: "cgroup v2", hybrid: "cgroup v1 + v2" }[hierarchy];
  say($("facts"), [told.os_version, told.kernel_version && `Linux ${told.kernel_version}`, cgroups, told.boot_time && `up ${span(clock / 1000 - told.boot_time)}`].filter(Boolean).join("  ·  "));
  say($("version"), `nodegauge ${version}`);
}

// === cards ===

const shown = {};

function cards({ machine: told, load, tasks, filesystems }) {
  if (!shown.cpu) {
    shown.cpu = card("CPU", { line: "blue" });
    shown.memory = card("Memory", { line: "violet" });
    shown.load = card("Load");
    shown.pressure = card("Pressure");
    shown.io = card("Network and disks", {});
    shown.space = card("Filesystems");
    $("cards").append(...Object.values(shown).map((one) => one.box));
  }
  const at = (name) => now[name]?.[0];
  const line = past.get("/");
  const all = (told.cores || 0) * 1000;
  shown.cpu.set(all && at("cpu") != null ? percent((at("cpu") / all) * 100) : cores(at("cpu")), at("cpu") == null ? "" : `${(at("cpu") / 1000).toFixed(2)} of ${told.cores ?? "?"} cores`);
  shown.cpu.draw(line?.cpu || [], Math.max(all / 10, CPU_LEAST));
  const memory = at("memory");
  shown.memory.set(bytes(memory), told.memory_bytes ? `of ${bytes(told.memory_bytes)}` : "", told.memory_bytes && memory != null ? percent((memory / told.memory_bytes) * 100) : "");
  shown.memory.draw(line?.memory || [], told.memory_bytes || MEMORY_LEAST);
  const loads = (load || []).map((one) => one / 100);
  shown.load.set(loads.length ? loads[0].toFixed(2) : "–", loads.length ? "in the last minute" : "");
  const each = told.cores || 1;
  shown.load.list(loads.length ? [["5 min", loads[1] / each, loads[1].toFixed(2)], ["15 min", loads[2] / each, loads[2].toFixed(2)], ["tasks", null, count(tasks)]] : []);
  const pressures = [["CPU", at("cpu_pressure")], ["memory", at("memory_pressure")], ["I/O", at("io_pressure")]];
  const worst = Math.max(...pressures.map(([, value]) => value ?? -1));
  shown.pressure.set(worst < 0 ? "–" : percent(worst), worst < 0 ? "not told here" : "waiting");
  shown.pressure.list(worst < 0 ? [] : pressures.map(([name, value]) => [name, value == null ? null : value / 100, percent(value)]));
  shown.io.list([["received", null, rate(at("received"))], ["sent", null, rate(at("sent"))], ["read", null, rate(at("read"))], ["written", null, rate(at("written"))], ["containers", null, count(rows.filter((row) => row.kind === "c").length)]], false);
  const disks = (filesystems.mounts || []).filter((one) => one.space && one.space.capacity_bytes > 0);
  const real = disks.filter((one) => !/^(tmpfs|devtmpfs|ramfs|overlay|squashfs)$/.test(one.fs_type));
  const fullest = (real.length ? real : disks).map((one) => [one.mount_point, one.space.usage_bytes / Math.max(one.space.usage_bytes + one.space.available_bytes, 1), `${bytes(one.space.available_bytes)} free`]);
  fullest.sort((a, b) => b[1] - a[1]);
  shown.space.list(fullest.slice(0, 4), false);
  if (!fullest.length) shown.space.list([["none told", null, ""]], false);
}

// === the table ===

const FIGURES = ["cpu", "memory", "received", "sent", "read", "written", "disk", "oom_kills", "threads"];
const PRESSURES = ["cpu_pressure", "memory_pressure", "io_pressure"];

const tone = (value, warn, bad) => (value >= bad ? "bad" : value >= warn ? "warn" : "");
const waits = (node) => PRESSURES.reduce((worst, name) => (node[name] == null ? worst : Math.max(worst ?? 0, node[name])), null);
const share = (node) => (node.memory_limit && node.memory != null ? node.memory / node.memory_limit : null);

const COLUMNS = [
  { key: "cpu_line", title: "", class: "line", spark: { colour: "blue", values: (n) => lineOf(n, "cpu"), least: CPU_LEAST } },
  { key: "cpu", title: "CPU", hint: "thousandths of a core, mean since the update before", text: (n) => cores(n.cpu), sort: (n) => n.cpu },
  { key: "throttled", title: "Throttled", hint: "share of CPU periods in which it was held back by its limit", class: "p2", text: (n) => (n.throttled == null ? "–" : percent(n.throttled)), sort: (n) => n.throttled, tone: (n) => tone(n.throttled, 5, 25) },
  { key: "memory_line", title: "", class: "line p1", spark: { colour: "violet", values: (n) => lineOf(n, "memory"), least: MEMORY_LEAST } },
  { key: "memory", title: "Memory", hint: "working set: in use and not to be had back without effort", text: (n) => bytes(n.memory), sort: (n) => n.memory },
  { key: "share", title: "Of limit", hint: "working set as a share of the memory limit", class: "p1", text: (n) => (share(n) == null ? "–" : percent(share(n) * 100)), bar: share, sort: share, tone: (n) => tone(share(n), 0.8, 0.95) },
  { key: "received", title: "Net in", class: "p1", text: (n) => rate(n.received), sort: (n) => n.received },
  { key: "sent", title: "Net out", class: "p1", text: (n) => rate(n.sent), sort: (n) => n.sent },
  { key: "read", title: "Read", hint: "from disks", class: "p2", text: (n) => rate(n.read), sort: (n) => n.read },
  { key: "written", title: "Written", hint: "to disks", class: "p2", text: (n) => rate(n.written), sort: (n) => n.written },
  { key: "waits", title: "Pressure", hint: "time in which something waited for CPU, memory or I/O: the worst of the three", class: "p2", text: (n) => percent(waits(n)), sort: waits, tone: (n) => tone(waits(n), 20, 50) },
  { key: "disk", title: "Disk", hint: "writable layer, logs and volumes", class: "p3", text: (n) => bytes(n.disk), sort: (n) => n.disk },
  { key: "oom_kills", title: "OOM", hint: "processes killed for want of memory", class: "p3", text: (n) => (n.oom_kills ? String(n.oom_kills) : n.oom_kills == null ? "–" : "0"), sort: (n) => n.oom_kills, tone: (n) => tone(n.oom_kills, 1, 1) },
  { key: "age", title: "Age", class: "p3", text: (n) => span(n.created && clock / 1000 - n.created), sort: (n) => (n.created ? -n.created : null) },
];

function lineOf(node, name) {
  if (node.line) return past.get(node.line)?.[name];
  const lines = node.children.map((child) => lineOf(child, name)).filter(Boolean);
  return times.map((_, i) => lines.reduce((sum, line) => add(sum, line[i]), null));
}

let table;

function choose(chosen) {
  view = chosen;
  tabs($("view"), [["pods", "Pods"], ["containers", "Containers"], ["tree", "Cgroups"]], view, (key) => { choose(key); show(); });
  $("grouping").hidden = view === "tree";
  table = new TreeTable($("list"), { columns: COLUMNS, first: { pods: "Pod", containers: "Container", tree: "Cgroup" }[view], open: (node) => { location.hash = link("cgroup", node.target); }, sort: table?.sort ?? (view === "tree" ? "name" : "cpu"), label: "Pods and containers with what they use" });
  if (table.sort === "name") table.down = false;
  table.mark();
  table.filter = $("find").value.trim().toLowerCase();
}

function nodeOf(row, i) {
  const node = { key: row.id, target: row.id, line: row.id, created: row.created, hint: [row.id, row.image].filter(Boolean).join("\n"), children: [], row };
  for (const name of [...FIGURES, ...PRESSURES, "throttled", "memory_limit", "cpu_limit"]) node[name] = now[name]?.[i] ?? null;
  return node;
}

const leaf = (id) => id.slice(id.lastIndexOf("/") + 1) || "/";
const cut = (id) => (/^[0-9a-f]{20,}$/.test(id) ? id.slice(0, 12) : id);
const plain = (id) => cut(leaf(id).replace(/^(cri-containerd-|crio-|docker-|libpod-)/, "").replace(/\.(scope|slice|service)$/, (end) => (end === ".scope" ? "" : end)));

function containerNode(row, i) {
  const node = nodeOf(row, i);
  node.name = row.container || row.name || plain(row.id);
  node.note = row.image ? row.image.replace(/^.*\//, "").replace(/@sha256:.*/, "") : "";
  return node;
}

const podKey = (row) => row.uid || (row.pod && `${row.namespace}/${row.pod}`);

function pods() {
  const found = new Map();
  rows.forEach((row, i) => {
    const key = podKey(row);
    if (key == null || row.kind === "g") return;
    if (!found.has(key)) found.set(key, { key: `pod ${key}`, name: row.pod || key, namespace: row.namespace || "", children: [], hint: "", target: null });
    const pod = found.get(key);
    if (row.pod) { pod.name = row.pod; pod.namespace = row.namespace || ""; }
    if (row.kind === "p") { const own = nodeOf(row, i); Object.assign(pod, own, { key: pod.key, children: pod.children, received: add(pod.received, own.received), sent: add(pod.sent, own.sent) }); }
    else {
      const one = containerNode(row, i);
      if (row.kind === "c") pod.children.push(one);
      // A pod's network is counted on one row, often its sandbox's.
      pod.received = add(pod.received, one.received);
      pod.sent = add(pod.sent, one.sent);
    }
  });
  for (const pod of found.values()) {
    if (!pod.line) sum(pod);
    pod.note = pod.children.length > 1 ? `${pod.children.length} containers` : pod.children[0]?.name ?? "";
    pod.words = [pod.name, pod.namespace, pod.hint, ...pod.children.map((one) => `${one.name} ${one.hint}`)].join(" ").toLowerCase();
  }
  const others = [];
  rows.forEach((row, i) => { if (row.kind === "c" && podKey(row) == null) others.push(containerNode(row, i)); });
  return [...found.values(), ...others];
}

function sum(node) {
  for (const name of FIGURES) node[name] = node.children.reduce((total, child) => add(total, child[name]), null);
  for (const name of PRESSURES) node[name] = null;
  node.throttled = null;
}

function grouped(nodes) {
  const groups = new Map();
  for (const node of nodes) {
    const name = node.namespace || "";
    if (!groups.has(name)) groups.set(name, { key: `namespace ${name}`, name: name || "outside pods", group: true, open: true, target: null, children: [] });
    groups.get(name).children.push(node);
  }
  if (groups.size === 1 && groups.has("")) return nodes;
  for (const group of groups.values()) {
    sum(group);
    group.note = `${group.children.length}`;
    group.words = group.name.toLowerCase();
  }
  return [...groups.values()];
}

function tree() {
  const found = new Map(), roots = [];
  rows.forEach((row, i) => {
    const node = nodeOf(row, i);
    node.name = row.id === "/" ? "/" : leaf(row.id);
    node.note = row.container ? `${row.namespace ?? ""}/${row.pod ?? ""}/${row.container}` : row.pod ? `${row.namespace}/${row.pod}` : row.name && row.name !== node.name ? row.name : "";
    node.open = row.id.split("/").length < 3;
    found.set(row.id, node);
    let parent = row.id, up = null;
    while (parent !== "/" && !up) { parent = parent.slice(0, parent.lastIndexOf("/")) || "/"; up = parent === row.id ? null : found.get(parent); }
    (up ? up.children : roots).push(node);
  });
  return roots;
}

function show() {
  let nodes;
  if (view === "tree") nodes = tree();
  else if (view === "pods") nodes = pods();
  else nodes = rows.map((row, i) => [row, i]).filter(([row]) => row.kind === "c").map(([row, i]) => {
    const node = containerNode(row, i);
    node.namespace = row.namespace || "";
    node.note = row.pod || node.note;
    node.words = `${node.name} ${node.note} ${node.namespace} ${node.hint}`.toLowerCase();
    return node;
  });
  if (view !== "tree" && $("group").checked) nodes = grouped(nodes);
  table.set(nodes);
  const all = view === "tree" && !table.filter ? rows.length : table.matched;
  say($("count"), `${all} ${{ pods: "pods", containers: "containers", tree: "cgroups" }[view]}${machine.more ? `, ${machine.more} cgroups are not shown` : ""}`);
}

// === one cgroup ===

let open = null; // {path, charts, series, at, …}

async function detail(path) {
  if (open?.path !== path) begin(path);
  const here = open;
  const since = here.at == null ? "" : `&since=${here.at}`;
  let answer;
  try {
    answer = await ask(`api/page/cgroup?path=${encodeURIComponent(path)}${since}`);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) { here.note.hidden = false; say(here.note, `${path} is gone.`); return; }
    throw error;
  }
  if (open !== here) return;
  here.note.hidden = true;
  here.at = answer.at;
  for (const [name, values] of Object.entries(answer.series)) (here.series[name] ??= []).push(...values);
  const times = here.series.time || [];
  let old = 0;
  while (times.length - old > 2 && times[old] < answer.time - Math.max(answer.window, 60000)) old++;
  if (old) for (const values of Object.values(here.series)) values.splice(0, old);
  titles(here, answer);
  here.charts.times = here.series.time;
  for (const [key, chart] of Object.entries(here.named)) {
    chart.data = here.series;
    chart.limit = { cpu: answer.cpu_limit, memory: answer.memory_limit, processes: answer.spec.threads_max?.value ?? null }[key] ?? null;
    const told = chart.keys.some((name) => (here.series[name] || []).some((value) => value != null));
    chart.box.hidden = !told;
    if (told) chart.draw();
  }
  here.waiting.hidden = times.length > 0;
  facts(here, answer);
}

function begin(path) {
  open?.charts.close();
  const host = element("div", { class: "charts" });
  const here = (open = { path, series: {}, at: null, charts: new Charts(host), crumbs: element("nav", { class: "crumbs", "aria-label": "Where this is" }), title: element("h1", { class: "title", tabindex: "-1" }), sub: element("p", { class: "sub" }), note: element("p", { class: "note", hidden: true }), waiting: element("p", { class: "quiet" }, "Waiting for the second sample…"), facts: element("div", { class: "facts" }), named: {} });
  const chart = (key, options) => { here.named[key] = here.charts.add(options); here.named[key].keys = options.kinds.map((kind) => kind.key); };
  const lines = (...kinds) => kinds.map(([name, colour, key]) => ({ name, colour, key }));
  chart("cpu", { title: "CPU", format: cores, least: CPU_LEAST, kinds: lines(["total", "blue", "cpu"], ["user", "teal", "cpu_user"], ["system", "orange", "cpu_system"]) });
  chart("throttled", { title: "Throttled", note: "share of periods", format: percent, least: 5, kinds: lines(["throttled", "red", "throttled"]) });
  chart("memory", { title: "Memory", format: bytes, base: 1024, least: MEMORY_LEAST, kinds: lines(["working set", "violet", "working_set"], ["rss", "blue", "rss"], ["cache", "teal", "cache"], ["swap", "red", "swap"]) });
  chart("faults", { title: "Page faults", note: "a second", format: count, least: 10, kinds: lines(["all", "grey", "faults"], ["major", "red", "major_faults"]) });
  chart("network", { title: "Network", format: rate, base: 1024, least: 1024, kinds: lines(["received", "green", "received"], ["sent", "orange", "sent"]) });
  chart("packets", { title: "Packets", note: "a second", format: count, least: 5, kinds: lines(["received", "green", "received_packets"], ["sent", "orange", "sent_packets"], ["lost", "red", "lost"]) });
  chart("io", { title: "Disk I/O", format: rate, base: 1024, least: 4096, kinds: lines(["read", "teal", "read"], ["written", "orange", "written"]) });
  chart("operations", { title: "Disk operations", note: "a second", format: count, least: 5, kinds: lines(["reads", "teal", "reads"], ["writes", "orange", "writes"]) });
  chart("pressure", { title: "Pressure", note: "time in which some task waits", format: percent, least: 5, kinds: lines(["CPU", "blue", "cpu_some"], ["memory", "violet", "memory_some"], ["I/O", "orange", "io_some"]) });
  chart("stalled", { title: "Stalled", note: "time in which all tasks wait", format: percent, least: 5, kinds: lines(["CPU", "blue", "cpu_full"], ["memory", "violet", "memory_full"], ["I/O", "orange", "io_full"]) });
  chart("processes", { title: "Processes", format: count, least: 4, kinds: lines(["threads", "blue", "threads"], ["processes", "violet", "processes"]) });
  chart("descriptors", { title: "Descriptors", format: count, least: 8, kinds: lines(["open files", "teal", "descriptors"], ["sockets", "green", "sockets"]) });
  Object.values(here.named).forEach((one) => { one.box.hidden = true; });
  $("detail").replaceChildren(here.crumbs, here.title, here.sub, here.note, here.waiting, host, here.facts);
  here.title.textContent = plain(path);
}

function titles(here, { id, kind, identity, uid, container_id: own, runtime, created }) {
  say(here.title, identity.container || (kind === "p" && identity.pod) || identity.name || (kind === "n" ? "The whole machine" : plain(id)));
  const what = { n: "machine", p: "pod", c: "container", s: "pod sandbox", g: "cgroup" }[kind];
  say(here.sub, [what, identity.image, runtime, created && `${span(clock / 1000 - created)} old`, identity.health && `health: ${identity.health}`].filter(Boolean).join("  ·  "));
  const crumbs = [element("a", { href: "#/" }, "← all")];
  if (identity.namespace) crumbs.push(element("span", {}, identity.namespace));
  const parts = id.split("/").filter(Boolean);
  const pod = identity.pod && kind !== "p" && rows.find((row) => row.kind === "p" && (uid ? row.uid === uid : row.pod === identity.pod && row.namespace === identity.namespace));
  if (pod) crumbs.push(element("a", { href: link("cgroup", pod.id) }, identity.pod));
  else if (identity.pod && kind !== "p") crumbs.push(element("span", {}, identity.pod));
  if (!identity.pod && parts.length > 1) parts.slice(0, -1).forEach((part, n) => crumbs.push(element("a", { href: link("cgroup", `/${parts.slice(0, n + 1).join("/")}`) }, cut(part))));
  const key = crumbs.map((crumb) => crumb.textContent).join("\n");
  if (here.crumbed !== key) {
    here.crumbed = key;
    here.crumbs.replaceChildren(...crumbs.flatMap((crumb, n) => (n ? [element("span", { "aria-hidden": "true" }, "/"), crumb] : [crumb])));
  }
}

const limit = (told, text) => (told == null ? null : told === "max" ? "none" : text(told.value));

function facts(here, answer) {
  const { spec, identity, disk, interfaces, devices } = answer;
  const key = JSON.stringify([spec, identity, disk, interfaces.length, devices.length, answer.oom_kills]);
  if (here.known === key) return;
  here.known = key;
  const box = (title, pairs) => { const made = list(pairs); return made.children.length ? element("article", { class: "card" }, element("h2", {}, title), made) : null; };
  const inside = rows.map((row, i) => [row, i]).filter(([row]) => row.id !== answer.id && row.id.startsWith(answer.id === "/" ? "/" : `${answer.id}/`) && (answer.kind !== "n" || row.kind === "c"));
  const below = inside.slice(0, 40).map(([row, i]) => [element("a", { href: link("cgroup", row.id) }, row.container || row.name || plain(row.id)), `${cores(now.cpu?.[i])}, ${bytes(now.memory?.[i])}`]);
  const contents = below.length ? element("article", { class: "card" }, element("h2", {}, "Inside", element("span", {}, inside.length > below.length ? `${below.length} of ${inside.length}` : "")), element("dl", {}, ...below.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]))) : null;
  const part = (one) => one && `${bytes(one.used_bytes)}${one.inodes == null ? "" : `, ${count(one.inodes)} inodes`}`;
  here.facts.replaceChildren(...[
    contents,
    box("Limits", [["CPU", answer.cpu_limit == null ? limit(spec.cpu_quota_usec, String) : cores(answer.cpu_limit)], ["CPU weight", spec.cpu_weight], ["CPU shares", spec.cpu_shares], ["memory", limit(spec.memory_limit, bytes)], ["memory, throttled above", limit(spec.memory_high, bytes)], ["memory, protected", spec.memory_reservation && limit(spec.memory_reservation, bytes)], ["swap", limit(spec.memory_swap_limit, bytes)], ["threads", limit(spec.threads_max, count)], ["OOM kills", answer.oom_kills]]),
    box("On disk", disk ? [["writable layer", part(disk.layer)], ["logs", part(disk.logs)], ...(disk.volumes || []).map((one) => [`volume ${one.name}`, part(one.usage)])] : []),
    box("Identity", [["namespace", identity.namespace], ["pod", identity.pod], ["container", identity.container], ["image", identity.image], ["pod UID", answer.uid], ["id", answer.container_id && answer.container_id.slice(0, 12)], ["interfaces", interfaces.map((one) => one.name).join(", ")], ["devices", devices.map((one) => one.name || `${one.major}:${one.minor}`).join(", ")], ["cgroup", element("code", {}, answer.id)]]),
  ].filter(Boolean));
}

// === where we are ===

function route() {
  const [what, path] = place();
  const one = what === "cgroup" && path;
  $("overview").hidden = Boolean(one);
  $("detail").hidden = !one;
  if (one) { if (open?.path !== path) { begin(path); scrollTo(0, 0); open.title.focus({ preventScroll: true }); } }
  else if (open) { open.charts.close(); open = null; }
  pulse.now();
}

const pulse = new Pulse(async () => {
  const [what, path] = place();
  if (what === "cgroup" && path) {
    if (names == null) await overview();
    await detail(path);
    clock = Date.now();
  } else await overview();
});

theme();
keys(() => table ?? { find() {} });
$("find").addEventListener("input", () => names && show());
$("group").addEventListener("change", () => names && show());
addEventListener("hashchange", route);
route();
