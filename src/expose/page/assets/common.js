// What both pages share: numbers as text, the theme, asking again and again, and a table that is a tree.
// Names are only ever set as text.

import { spark, meter } from "./charts.js";

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

export const $ = (id) => document.getElementById(id);

// Sets text only where it differs: nothing flickers, and nothing is laid out again.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// === numbers ===

const digits = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));

export function bytes(value) {
  if (value == null) return "–";
  if (value < 1024) return `${Math.round(value)} B`;
  const units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
  let n = -1;
  do { value /= 1024; n++; } while (value >= 1023.5 && n < units.length - 1);
  return `${digits(value)} ${units[n]}`;
}

export const rate = (value) => (value == null ? "–" : value === 0 ? "0" : `${bytes(value)}/s`);

// Thousandths of a core.
export function cores(milli) {
  if (milli == null) return "–";
  if (milli >= 1000) return `${digits(milli / 1000)} cores`;
  return milli === 0 ? "0" : milli < 0.05 ? "<0.1 m" : `${milli < 10 ? milli.toFixed(1) : Math.round(milli)} m`;
}

export const percent = (value) => (value == null ? "–" : value === 0 ? "0 %" : value < 0.1 ? "<0.1 %" : `${value < 10 ? value.toFixed(1) : Math.round(value)} %`);

export function count(value) {
  if (value == null) return "–";
  if (value >= 1e6) return `${digits(value / 1e6)} M`;
  if (value >= 1e4) return `${digits(value / 1e3)} k`;
  return value >= 10 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

export function span(seconds) {
  if (seconds == null || seconds < 0) return "–";
  const parts = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [length, unit] of parts) if (seconds >= length * 2) return `${Math.floor(seconds / length)} ${unit}`;
  return `${Math.floor(seconds)} s`;
}

export const add = (a, b) => (a == null ? b : b == null ? a : a + b);

// === theme ===

export function theme() {
  const root = document.documentElement;
  const read = () => { try { return localStorage.getItem("nodegauge-theme"); } catch { return null; } };
  const set = (name) => { if (name) root.dataset.theme = name; };
  set(read());
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    set(dark ? "light" : "dark");
    try { localStorage.setItem("nodegauge-theme", root.dataset.theme); } catch { /* private windows forget it */ }
  });
}

// === asking ===

// Calls `update` every so many seconds while the page is seen, one call after the other.
export class Pulse {
  constructor(update) {
    this.update = update;
    this.updates = 0;
    this.answered = null;
    $("pace").addEventListener("change", () => this.now());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.now(); });
    setInterval(() => this.show(), 1000);
  }

  get pace() { return Number($("pace").value) * 1000; }

  now() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.beat(), 0);
  }

  async beat() {
    if (this.busy) { this.again = true; return; }
    this.busy = true;
    const began = performance.now();
    try {
      await this.update();
      this.updates++;
      this.answered = Date.now();
      this.lost = null;
    } catch (error) {
      this.lost = error instanceof Refused ? error.message : "no answer";
      if (!(error instanceof Refused) && !(error instanceof TypeError) && error.name !== "TimeoutError") console.error(error);
    }
    this.busy = false;
    this.show();
    clearTimeout(this.timer);
    if (this.again) { this.again = false; return this.now(); }
    if (this.pace && !document.hidden) this.timer = setTimeout(() => this.beat(), Math.max(this.pace - (performance.now() - began), 100));
  }

  show() {
    const paused = !this.pace;
    const age = this.answered == null ? null : Math.round((Date.now() - this.answered) / 1000);
    $("state").className = `state ${this.lost ? "lost" : paused ? "" : "live"}`;
    const text = this.lost ? `${this.lost}${age == null ? "" : `, ${age} s`}` : paused ? `paused${age == null ? "" : `, ${age} s`}` : "live";
    say($("state").lastElementChild, text);
    document.documentElement.dataset.updates = this.updates;
  }
}

export class Refused extends Error {
  constructor(status, text) { super(text || `refused (${status})`); this.status = status; }
}

export async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(20000) });
  if (!answer.ok) throw new Refused(answer.status, (await answer.text()).slice(0, 120).trim());
  return answer.json();
}

// === places: #/what/name/name ===

export const place = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
export const link = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

// === the table ===

// columns: [{key, title, hint, text(node), sort(node), class, spark: {colour, values(node), least}, bar(node), tone(node)}]
// Nodes: {key, name, note, hint, open: bool, group: bool, words, target, children: []}; the same key is the same row.
export class TreeTable {
  constructor(host, { columns, first, open, sort, label }) {
    Object.assign(this, { columns, open, host });
    this.sort = sort;
    this.down = true;
    this.rows = new Map();
    this.toggled = new Map();
    this.filter = "";
    this.body = element("tbody");
    this.heads = new Map();
    const head = element("tr");
    for (const column of [{ key: "name", title: first, class: "" }, ...columns]) {
      const button = element("button", { type: "button", title: column.hint }, column.title);
      const cell = element("th", { scope: "col", class: column.class || "" }, button);
      button.addEventListener("click", () => this.sortBy(column.key));
      if (column.title) this.heads.set(column.key, cell); else button.disabled = true;
      head.append(cell);
    }
    this.none = element("p", { class: "none-found", hidden: true }, "Nothing matches.");
    host.replaceChildren(element("table", {}, element("caption", { class: "unseen" }, label), element("thead", {}, head), this.body), this.none);
    this.seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        target.row.seen = isIntersecting;
        if (isIntersecting) this.lines(target.row);
      }
    }, { rootMargin: "80px" });
    this.body.addEventListener("click", (event) => this.clicked(event));
    this.body.addEventListener("keydown", (event) => this.pressed(event));
    this.mark();
  }

  sortBy(key) {
    if (this.sort === key) this.down = !this.down;
    else { this.sort = key; this.down = key !== "name"; }
    this.mark();
    this.draw();
  }

  mark() {
    for (const [key, cell] of this.heads) {
      if (key === this.sort) cell.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
  }

  // Shows these nodes from now on.
  set(nodes) { this.nodes = nodes; this.draw(); }

  find(text) { this.filter = text.trim().toLowerCase(); this.draw(); }

  // Nodes in the order they are shown, with their depth.
  flat() {
    const column = this.columns.find((one) => one.key === this.sort);
    const name = (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }) || (a.key < b.key ? -1 : 1);
    const order = (a, b) => {
      if (!column) return this.down ? name(b, a) : name(a, b);
      const [x, y] = [column.sort(a), column.sort(b)];
      if (x == null || y == null) return x == null ? (y == null ? name(a, b) : 1) : -1;
      return x === y ? name(a, b) : (this.down ? y - x : x - y);
    };
    const words = this.filter.split(/\s+/).filter(Boolean);
    const matches = (node) => { const all = node.words ??= `${node.name} ${node.note || ""} ${node.hint || ""}`.toLowerCase(); return words.every((word) => all.includes(word)); };
    const out = [];
    this.matched = 0;
    const walk = (nodes, depth, inside) => {
      const kept = [];
      for (const node of nodes) {
        const own = inside || !words.length || matches(node);
        const below = !own && node.children.length ? some(node.children) : false;
        if (own || below) kept.push([node, own, below]);
      }
      kept.sort(([a], [b]) => order(a, b));
      for (const [node, own, below] of kept) {
        if (own && !node.group) this.matched++;
        const open = this.toggled.get(node.key) ?? (below || node.open);
        out.push({ node, depth, open });
        if (open && node.children.length) walk(node.children, depth + 1, own && words.length > 0);
      }
    };
    const some = (nodes) => nodes.some((node) => matches(node) || some(node.children));
    walk(this.nodes, 0, false);
    return out;
  }

  draw() {
    if (!this.nodes) return;
    const flat = this.flat();
    const shown = new Set();
    let at = this.body.firstChild;
    for (const { node, depth, open } of flat) {
      const row = this.rows.get(node.key) || this.make(node);
      shown.add(node.key);
      this.fill(row, node, depth, open);
      if (row.element === at) at = at.nextSibling;
      else this.body.insertBefore(row.element, at);
    }
    for (const [key, row] of this.rows) {
      if (shown.has(key)) continue;
      this.seen.unobserve(row.element);
      row.element.remove();
      this.rows.delete(key);
    }
    this.none.hidden = flat.length > 0;
    if (!this.body.querySelector("[tabindex='0']") && this.body.firstChild) this.body.firstChild.tabIndex = 0;
  }

  make(node) {
    const twist = element("button", { type: "button", class: "twist", tabindex: "-1", "aria-hidden": "true" });
    const name = element("b"), note = element("em");
    const row = { cells: [], twist, name, note, seen: false, element: element("tr", { tabindex: "-1" }, element("th", { scope: "row" }, element("div", { class: "name" }, twist, name, note))) };
    for (const column of this.columns) {
      const cell = element("td", { class: column.class || "" });
      const made = { cell };
      if (column.spark) cell.append((made.line = spark(column.spark.colour)).element);
      else if (column.bar) cell.append(element("span", { class: "of" }, (made.text = document.createTextNode("")), (made.bar = meter()).element));
      else cell.append((made.text = document.createTextNode("")));
      row.cells.push(made);
      row.element.append(cell);
    }
    row.element.row = row;
    this.seen.observe(row.element);
    this.rows.set(node.key, row);
    return row;
  }

  fill(row, node, depth, open) {
    row.node = node;
    const look = `${node.group ? "group " : ""}d${Math.min(depth, 7)}`;
    if (row.element.className !== look) row.element.className = look;
    say(row.name, node.name);
    say(row.note, node.note || "");
    if (row.hint !== node.hint) { row.hint = node.hint; row.element.firstChild.title = node.hint || ""; }
    const twist = node.children.length ? (open ? "▼" : "▶") : "";
    if (row.mark !== twist) {
      row.mark = twist;
      say(row.twist, twist);
      row.twist.classList.toggle("none", !twist);
      if (twist) row.element.setAttribute("aria-expanded", String(open)); else row.element.removeAttribute("aria-expanded");
    }
    this.columns.forEach((column, n) => {
      const { cell, text, bar } = row.cells[n];
      if (column.spark) return;
      const said = column.text(node);
      if (text.data !== said) text.data = said;
      if (bar) { const share = column.bar(node); bar.element.style.display = share == null ? "none" : ""; bar.set(share); }
      const tone = `${column.class || ""} ${column.tone?.(node) || (said === "–" || said === "0" || said === "0 %" ? "zero" : "")}`.trim();
      if (cell.className !== tone) cell.className = tone;
    });
    if (row.seen) this.lines(row);
  }

  lines(row) {
    this.columns.forEach((column, n) => { if (column.spark) row.cells[n].line.draw(column.spark.values(row.node) || [], column.spark.least); });
  }

  toggle(row, open) {
    if (!row.node.children.length || row.element.getAttribute("aria-expanded") === String(open)) return false;
    this.toggled.set(row.node.key, open);
    this.draw();
    return true;
  }

  clicked(event) {
    const row = event.target.closest("tr")?.row;
    if (!row) return;
    this.focus(row.element, false);
    if (event.target === row.twist || row.node.target == null) this.toggle(row, row.element.getAttribute("aria-expanded") !== "true");
    else if (!String(getSelection())) this.open(row.node);
  }

  focus(next, move = true) {
    if (!next) return;
    this.body.querySelectorAll("[tabindex='0']").forEach((one) => { one.tabIndex = -1; });
    next.tabIndex = 0;
    if (move) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
  }

  pressed(event) {
    const row = event.target.closest("tr")?.row;
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const { element: here } = row;
    const keys = {
      ArrowDown: () => this.focus(here.nextSibling),
      ArrowUp: () => this.focus(here.previousSibling),
      Home: () => this.focus(this.body.firstChild),
      End: () => this.focus(this.body.lastChild),
      ArrowRight: () => this.toggle(row, true) || this.focus(here.nextSibling),
      ArrowLeft: () => this.toggle(row, false),
      Enter: () => (row.node.target == null ? this.toggle(row, here.getAttribute("aria-expanded") !== "true") : this.open(row.node)),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }
}

// The filter, and the keys of the whole page.
export function keys(table) {
  const find = $("find");
  find.addEventListener("input", () => table().find(find.value));
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing) { event.preventDefault(); if ($("overview").hidden) location.hash = "#/"; setTimeout(() => find.focus(), 0); }
    if (event.key === "Escape") {
      if (event.target === find) { if (find.value) { find.value = ""; table().find(""); } else find.blur(); }
      else if (!$("detail").hidden) history.length > 1 ? history.back() : (location.hash = "#/");
    }
  });
}

// Buttons of which one is pressed.
export function tabs(host, choices, chosen, choose) {
  const buttons = choices.map(([key, title]) => {
    const button = element("button", { type: "button", "aria-pressed": String(key === chosen) }, title);
    button.addEventListener("click", () => { buttons.forEach((one) => one.setAttribute("aria-pressed", String(one === button))); choose(key); });
    return button;
  });
  host.replaceChildren(...buttons);
}

// A card with a title, a large figure, and below it a line or pairs.
export function card(title, { line, wide } = {}) {
  const aside = element("span"), number = document.createTextNode("–"), unit = element("small");
  const big = element("p", { class: "big" }, number, unit), pairs = element("div", { class: "pairs", hidden: true });
  const drawn = line && spark(line, 240, 40);
  const box = element("article", { class: `card${wide ? " wide" : ""}` }, element("h2", {}, title, aside), big, pairs, drawn?.element);
  return {
    box,
    set(value, of = "", note = "") { if (number.data !== value) number.data = value; say(unit, of); say(aside, note); },
    draw: (values, least) => drawn?.draw(values, least),
    // [[name, share or null, text]]
    list(rows, large = true) {
      big.hidden = !large;
      pairs.hidden = !rows.length;
      while (pairs.children.length > rows.length * 3) pairs.lastChild.remove();
      while (pairs.children.length < rows.length * 3) { const bar = meter(); bar.element.set = bar.set; pairs.append(element("span"), element("span", {}, bar.element), element("span")); }
      rows.forEach(([name, share, text], n) => {
        say(pairs.children[n * 3], name);
        pairs.children[n * 3].title = name;
        const bar = pairs.children[n * 3 + 1].firstChild;
        bar.style.visibility = share == null ? "hidden" : "";
        bar.set(share);
        say(pairs.children[n * 3 + 2], text);
      });
    },
  };
}

export const list = (pairs) => element("dl", {}, ...pairs.filter(([, value]) => value != null && value !== "").flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value instanceof Node ? value : String(value))]));
