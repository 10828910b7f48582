// The aggregator's page: the cluster, its nodes, namespaces and pods, and one of them in charts.

import { $, add, ask, bytes, card, cores, count, element, keys, link, list, percent, place, Pulse, rate, Refused, say, span, tabs, theme, TreeTable } from "./common.js";
import { Charts, meter } from "./charts.js";

const CPU_LEAST = 10, MEMORY_LEAST = 1 << 20;

let cluster = null;
let table = null, view = "nodes";

let allPods = null; // pods told for the view of that name

const part = (value, whole) => (value != null && whole ? value / whole : null);
const tone = (value, warn, bad) => (value >= bad ? "bad" : value >= warn ? "warn" : "");

// === columns: nodes have a capacity, namespaces and pods have requests ===

const line = (key, colour, name, least, more = "") => ({ key, title: "", class: `line${more}`, spark: { colour, values: (n) => n.lines?.[name], least } });
const figure = (key, title, text, more = {}) => ({ key, title, text: (n) => text(n[key]), sort: (n) => n[key], ...more });
const of = (key, title, hint, get, warn, bad, level = "p1") => ({ key, title, hint, class: level, text: (n) => (get(n) == null ? "–" : percent(get(n) * 100)), bar: get, sort: get, tone: (n) => tone(get(n), warn, bad) });

const CPU = [line("cpu_line", "blue", "cpu", CPU_LEAST), figure("cpu", "CPU", cores)];
const MEMORY = [line("memory_line", "violet", "memory", MEMORY_LEAST, " p1"), figure("memory", "Memory", bytes, { hint: "working set" })];
const NET = [figure("received", "Net in", rate, { class: "p2" }), figure("sent", "Net out", rate, { class: "p2" })];

const NODES = [
  ...CPU, of("cpu_share", "Of node", "CPU as a share of the node's cores", (n) => part(n.cpu, n.cpu_capacity), 0.8, 0.95),
  of("cpu_asked", "Requested", "CPU requested as a share of the node's cores", (n) => part(n.cpu_request, n.cpu_capacity), 0.9, 1, "p2"),
  ...MEMORY, of("memory_share", "Of node", "working set as a share of the node's memory", (n) => part(n.memory, n.memory_capacity), 0.8, 0.92),
  of("memory_asked", "Requested", "memory requested as a share of the node's", (n) => part(n.memory_request, n.memory_capacity), 0.9, 1, "p2"),
  ...NET, figure("pods", "Pods", count, { class: "p1" }),
  { key: "heard", title: "Heard", hint: "time since its last push", class: "p2", text: (n) => `${span(Math.max(cluster.time - n.heard, 0) / 1000)} ago`, sort: (n) => -n.heard, tone: (n) => (n.silent ? "bad" : "") },
];
const REQUESTS = [
  ...CPU, figure("cpu_request", "Requested", cores, { class: "p2" }), of("cpu_used", "Used of it", "CPU as a share of what is requested", (n) => part(n.cpu, n.cpu_request), 1.5, 3),
  ...MEMORY, figure("memory_request", "Requested", bytes, { class: "p2" }), of("memory_used", "Used of it", "working set as a share of what is requested", (n) => part(n.memory, n.memory_request), 1.2, 2),
];
const NAMESPACES = [...REQUESTS, ...NET, figure("pods", "Pods", count, { class: "p1" })];
const PODS = [...REQUESTS, of("memory_of_limit", "Of limit", "working set as a share of the limit", (n) => part(n.memory, n.memory_limit), 0.8, 0.95, "p2"), ...NET, figure("restarts", "Restarts", count, { class: "p3", tone: (n) => tone(n.restarts, 1, 10) })];
const CONTAINERS = [...CPU, ...MEMORY];

const nodeOf = (key, name, target, told, more = {}) => ({ ...told, key, name, target, children: [], ...more });
const nodeRow = (one) => nodeOf(one.name, one.name, link("node", one.name), one, { note: one.silent ? "silent" : Math.abs(one.ahead) > 2000 ? `clock ${one.ahead > 0 ? "ahead" : "behind"} ${span(Math.abs(one.ahead) / 1000)}` : "" });
const namespaceRow = (one) => nodeOf(one.name, one.name, link("namespace", one.name), one);
const podRow = (one) => nodeOf(`${one.namespace}/${one.pod}/${one.node}`, one.pod, link("pod", one.namespace, one.pod), one, { note: one.namespace, hint: `${one.namespace}/${one.pod} on ${one.node}` });

const make = (host, columns, first, label) => new TreeTable(host, { columns, first, open: (node) => { location.hash = node.target; }, sort: "cpu", label });

// === the cluster ===

const shown = {};

async function overview() {
  cluster = await ask("api/page/cluster");
  say($("who"), "cluster");
  const { nodes, slot, resolution, time, version } = cluster;
  document.title = `cluster of ${nodes.length} – nodegauge`;
  say($("facts"), slot == null ? "no step yet" : `step of ${new Date(slot).toLocaleTimeString([], { hour12: false })}, ${span((time - slot) / 1000)} ago  ·  every ${span(resolution / 1000)}`);
  say($("version"), `nodegauge ${version}`);
  $("note").hidden = slot != null;
  say($("note"), `The first step closes when its ${span(resolution / 1000)} are over and agents have pushed.`);
  if ($("overview").hidden) return;
  cards();
  tops();
  if (view === "pods" && cluster.slot !== allPods?.slot) allPods = { slot: cluster.slot, ...(await ask("api/page/pods")) };
  show();
}

const total = (name) => cluster.nodes.reduce((sum, node) => add(sum, node[name]), null);

function cards() {
  if (!shown.cpu) {
    shown.cpu = card("CPU", { line: "blue" });
    shown.memory = card("Memory", { line: "violet" });
    shown.asked = card("Requests");
    shown.network = card("Network");
    shown.nodes = card("Nodes");
    $("cards").append(...Object.values(shown).map((one) => one.box));
  }
  const { used, lines, nodes, namespaces } = cluster;
  const [cpus, memory] = [total("cpu_capacity"), total("memory_capacity")];
  shown.cpu.set(cpus ? percent(part(used.cpu, cpus) * 100) : cores(used.cpu), used.cpu == null ? "" : `${(used.cpu / 1000).toFixed(1)} of ${cpus ? (cpus / 1000).toFixed(0) : "?"} cores`);
  shown.cpu.draw(lines.cpu, CPU_LEAST);
  shown.memory.set(bytes(used.memory), memory ? `of ${bytes(memory)}` : "", memory ? percent(part(used.memory, memory) * 100) : "");
  shown.memory.draw(lines.memory, MEMORY_LEAST);
  const share = (value, whole) => (part(value, whole) == null ? "–" : percent(part(value, whole) * 100));
  shown.asked.list([
    ["CPU requested", part(used.cpu_request, cpus), share(used.cpu_request, cpus)], ["CPU used", part(used.cpu, cpus), share(used.cpu, cpus)],
    ["mem. requested", part(used.memory_request, memory), share(used.memory_request, memory)], ["mem. used", part(used.memory, memory), share(used.memory, memory)],
  ], false);
  shown.network.list([["received", null, rate(used.received)], ["sent", null, rate(used.sent)], ["namespaces", null, count(namespaces.length)], ["pods", null, count(cluster.pods)]], false);
  const silent = nodes.filter((node) => node.silent);
  shown.nodes.set(count(nodes.length - silent.length), `of ${nodes.length} report`);
  const odd = silent.map((node) => [node.name, null, `silent ${span((cluster.time - node.heard) / 1000)}`]).concat(nodes.filter((node) => !node.silent && Math.abs(node.ahead) > 2000).map((node) => [node.name, null, `clock off ${span(Math.abs(node.ahead) / 1000)}`]));
  shown.nodes.list(odd.length > 4 ? [...odd.slice(0, 3), ["and more", null, String(odd.length - 3)]] : odd);
}

function top(host, title, key, rows, text) {
  const most = Math.max(...rows.map((row) => row[key] || 0), 1e-9);
  const items = rows.slice(0, 8).map((row) => {
    const bar = meter();
    bar.set((row[key] || 0) / most);
    // The most is no alarm here.
    bar.element.classList.remove("bad", "warn");
    return element("li", {}, element("a", { href: link("pod", row.namespace, row.pod), title: `${row.namespace}/${row.pod} on ${row.node}` }, row.pod), bar.element, element("span", {}, text(row[key])));
  });
  host.replaceChildren(element("h2", {}, title), element("ul", { class: "top" }, ...items));
}

let sinks = { at: 0, rows: [] };

async function tops() {
  if (!shown.tops) {
    shown.tops = [0, 1, 2].map(() => element("article", { class: "card" }));
    $("split").append(...shown.tops);
  }
  if (shown.topped !== cluster.slot) {
    shown.topped = cluster.slot;
    top(shown.tops[0], "Most CPU", "cpu", cluster.top_cpu, cores);
    top(shown.tops[1], "Most memory", "memory", cluster.top_memory, bytes);
  }
  shown.tops[0].hidden = shown.tops[1].hidden = !cluster.pods;
  if (Date.now() - sinks.at > 15000) sinks = { at: Date.now(), rows: await sinkStates().catch(() => []) };
  shown.tops[2].hidden = !sinks.rows.length;
  shown.tops[2].replaceChildren(element("h2", {}, "Sinks"), element("dl", {}, ...sinks.rows.flatMap(({ name, ok, text }) => [element("dt", {}, name), element("dd", {}, element("span", { class: `pill ${ok ? "ok" : "bad"}` }, text))])));
}

// What the aggregator's own metrics say of where it sends: nodegauge_push_*{sink="…"}.
async function sinkStates() {
  const answer = await fetch("metrics", { signal: AbortSignal.timeout(10000) });
  const found = new Map();
  for (const line of (await answer.text()).split("\n")) {
    const told = /^nodegauge_push_(\w+)\{(.*)\} ([0-9.e+-]+)$/.exec(line);
    const name = told && /(?:^|,)sink="((?:[^"\\]|\\.)*)"/.exec(told[2]);
    if (!name) continue;
    const sink = found.get(name[1]) ?? found.set(name[1], {}).get(name[1]);
    sink[told[1]] = (sink[told[1]] || 0) + Number(told[3]);
  }
  return [...found].map(([name, told]) => {
    const { queue_steps: waiting, queue_oldest_age_seconds: age, sent_steps_total: sent, dropped_steps_total: dropped, dropped_values_total: refused } = told;
    const late = age > 3 * (cluster.resolution / 1000);
    const failing = told.last_error_timestamp_seconds > (told.last_success_timestamp_seconds ?? 0);
    return { name, ok: !late && !failing && !dropped && !refused, text: [failing && "failing", sent && `${count(sent)} steps sent`, waiting && `${count(waiting)} wait`, late && `${span(age)} behind`, dropped && `${count(dropped)} dropped`, refused && `${count(refused)} values refused`].filter(Boolean).join(", ") || "nothing sent yet" };
  });
}

function choose(chosen) {
  view = chosen;
  tabs($("view"), [["nodes", "Nodes"], ["namespaces", "Namespaces"], ["pods", "Pods"]], view, async (key) => { choose(key); if (cluster) { show(); pulse.now(); } });
  const columns = { nodes: NODES, namespaces: NAMESPACES, pods: PODS }[view];
  table = make($("list"), columns, { nodes: "Node", namespaces: "Namespace", pods: "Pod" }[view], "What the cluster's parts use");
  table.filter = $("find").value.trim().toLowerCase();
}

function show() {
  const rows = { nodes: () => cluster.nodes.map(nodeRow), namespaces: () => cluster.namespaces.map(namespaceRow), pods: () => (allPods?.pods || []).map(podRow) }[view]();
  table.set(rows);
  say($("count"), `${table.matched} ${view}${view === "pods" && allPods?.more ? ` with most CPU, ${count(allPods.more)} more` : ""}`);
}

// === one node, namespace, pod or container ===

let open = null;

const question = ([what, ...names]) => {
  const fields = { node: ["node"], namespace: ["namespace"], pod: ["namespace", "pod"], container: ["namespace", "pod", "container"] }[what] || [];
  return fields.map((field, n) => `${field}=${encodeURIComponent(names[n] ?? "")}`).join("&");
};

async function detail(path) {
  const key = path.join("\n");
  if (open?.key !== key) begin(path, key);
  const here = open;
  let answer, pods;
  try {
    answer = await ask(`api/page/series?${question(path)}`);
    if (path[0] === "node" || path[0] === "namespace") pods = await ask(`api/page/pods?${question(path)}`);
  } catch (error) {
    if (error instanceof Refused && (error.status === 404 || error.status === 503)) { here.note.hidden = false; say(here.note, error.message); return; }
    throw error;
  }
  if (open !== here) return;
  here.note.hidden = true;
  const { series, times } = answer;
  here.charts.times = times;
  const last = (name) => series[name]?.findLast((value) => value != null);
  for (const chart of here.named) {
    chart.data = series;
    chart.limit = chart.limitOf ? last(chart.limitOf) : null;
    const told = chart.keys.some((name) => series[name]?.some((value) => value != null));
    chart.box.hidden = !told;
    if (told) chart.draw();
  }
  say(here.sub, [path[0], answer.image, answer.started && `up ${span((Date.now() - answer.started) / 1000)}`].filter(Boolean).join("  ·  "));
  const rows = pods ? pods.pods.map(podRow) : answer.containers.map((one) => nodeOf(one.name, one.name, link("container", path[1], path[2], one.name), { lines: one.lines, cpu: one.lines.cpu.at(-1), memory: one.lines.memory.at(-1) }));
  here.table.host.hidden = !rows.length;
  if (rows.length) here.table.set(rows);
  const labels = JSON.stringify(answer.labels);
  if (here.labels !== labels) {
    here.labels = labels;
    here.facts.replaceChildren(...(answer.labels.length ? [element("article", { class: "card" }, element("h2", {}, "Labels"), list(answer.labels))] : []));
  }
}

function begin(path, key) {
  open?.charts.close();
  const host = element("div", { class: "charts" }), rows = element("div", { class: "list", hidden: true });
  const crumbs = [element("a", { href: "#/" }, "← cluster")];
  if (path[0] === "pod" || path[0] === "container") crumbs.push(element("a", { href: link("namespace", path[1]) }, path[1]));
  if (path[0] === "container") crumbs.push(element("a", { href: link("pod", path[1], path[2]) }, path[2]));
  const here = (open = {
    key, charts: new Charts(host), named: [], facts: element("div", { class: "facts" }), sub: element("p", { class: "sub" }), note: element("p", { class: "note", hidden: true }),
    title: element("h1", { class: "title", tabindex: "-1" }, path.at(-1) || "?"),
    table: path[0] === "pod" || path[0] === "container" ? make(rows, CONTAINERS, "Container", "Containers of this pod") : make(rows, PODS, "Pod", "Pods here"),
  });
  const chart = (title, format, base, least, kinds, limitOf, note) => {
    const made = here.charts.add({ title, format, base, least, note, kinds: kinds.map(([name, colour, metric]) => ({ name, colour, key: metric })) });
    made.keys = kinds.map(([, , metric]) => metric);
    made.limitOf = limitOf;
    made.box.hidden = true;
    here.named.push(made);
  };
  const node = path[0] === "node";
  chart("CPU", cores, 10, CPU_LEAST, [["used", "blue", "cpu/usage_rate"], ["requested", "grey", "cpu/request"]], node ? "cpu/node_capacity" : "cpu/limit");
  chart("Memory", bytes, 1024, MEMORY_LEAST, [["working set", "violet", "memory/working_set"], ["usage", "teal", "memory/usage"], ["rss", "blue", "memory/rss"], ["requested", "grey", "memory/request"]], node ? "memory/node_capacity" : "memory/limit");
  chart("Network", rate, 1024, 1024, [["received", "green", "network/rx_rate"], ["sent", "orange", "network/tx_rate"]]);
  chart("Page faults", count, 10, 10, [["all", "grey", "memory/page_faults_rate"], ["major", "red", "memory/major_page_faults_rate"]], null, "a second");
  chart("Throttled", (ns) => percent(ns / 1e7), 10, 5e7, [["throttled", "red", "cpu/throttled_rate"]], null, "share of time");
  chart("Pressure", (usec) => percent(usec / 1e4), 10, 5e4, [["CPU", "blue", "cpu/pressure_some_rate"], ["memory", "violet", "memory/pressure_some_rate"], ["I/O", "orange", "io/pressure_some_rate"]], null, "time in which some task waits");
  chart("Processes", count, 10, 4, [["threads", "blue", "process/threads"], ["processes", "violet", "process/count"]]);
  chart("Ephemeral storage", bytes, 1024, MEMORY_LEAST, [["used", "teal", "ephemeral_storage/usage"]], "ephemeral_storage/limit");
  $("detail").replaceChildren(element("nav", { class: "crumbs", "aria-label": "Where this is" }, ...crumbs.flatMap((crumb, n) => (n ? [element("span", { "aria-hidden": "true" }, "/"), crumb] : [crumb]))), here.title, here.sub, here.note, host, element("p"), rows, here.facts);
}

const inside = () => ["node", "namespace", "pod", "container"].includes(place()[0]);

function route() {
  $("overview").hidden = inside();
  $("detail").hidden = !inside();
  if (inside()) { const path = place(); if (open?.key !== path.join("\n")) { begin(path, path.join("\n")); scrollTo(0, 0); open.title.focus({ preventScroll: true }); } }
  else if (open) { open.charts.close(); open = null; }
  pulse.now();
}

const pulse = new Pulse(async () => {
  if (!inside()) return overview();
  if (!cluster) await overview();
  await detail(place());
});

theme();
choose("nodes");
keys(() => table);
$("find").addEventListener("input", () => cluster && show());
addEventListener("hashchange", route);
route();
