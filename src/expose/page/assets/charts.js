// Lines in SVG: small ones for tables and cards, and charts with axes. What is drawn comes from numbers only.

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// A path through points; nothing where a value is null.
function through(values, x, y) {
  let path = "", pen = false;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (value == null) { pen = false; continue; }
    path += `${pen ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = true;
  }
  return path;
}

// A line without axes: draw(values, least) sets it; `least` is the smallest top of its scale.
export function spark(colour, width = 96, height = 22) {
  const area = svg("path", { class: `area s-${colour}` }), line = svg("path", { class: `stroke s-${colour}` });
  const element = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, area, line);
  let last = "";
  const draw = (values, least = 0) => {
    let top = least, first = -1, end = -1;
    values.forEach((value, i) => { if (value != null) { if (first < 0) first = i; end = i; if (value > top) top = value; } });
    const x = (i) => (values.length > 1 ? i / (values.length - 1) : 1) * width;
    const y = (value) => height - 1.5 - (top > 0 ? value / top : 0) * (height - 3);
    const path = through(values, x, y);
    if (path === last) return;
    last = path;
    line.setAttribute("d", path);
    area.setAttribute("d", first < 0 ? "" : `${path.replace(/M/g, (m, at) => (at ? "L" : "M"))}L${x(end).toFixed(1)} ${height}L${x(first).toFixed(1)} ${height}Z`);
  };
  return { element, draw };
}

// A bar from 0 to 1, which warns when it is nearly full.
export function meter() {
  const fill = svg("rect", { x: 0, y: 0, width: 0, height: 6, rx: 3 });
  const element = svg("svg", { class: "meter", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" }, fill);
  const set = (share) => {
    const width = String(Math.round(Math.min(Math.max(share || 0, 0), 1) * 100));
    if (fill.getAttribute("width") !== width) fill.setAttribute("width", width);
    element.classList.toggle("bad", share >= 0.95);
    element.classList.toggle("warn", share >= 0.8 && share < 0.95);
  };
  return { element, set };
}

// Round numbers up to at least `top`.
function ticks(top, base) {
  const rough = top / 3;
  const power = Math.pow(base, Math.floor(Math.log(rough) / Math.log(base)));
  const steps = base === 10 ? [1, 2, 2.5, 5, 10] : [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
  const step = power * steps.find((s) => s * power >= rough * 0.999);
  const found = [0];
  while (found[found.length - 1] < top * 0.999 && found.length < 8) found.push(found.length * step);
  return found;
}

const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

// Charts that share the moment under the pointer.
export class Charts {
  constructor(host) {
    this.host = host;
    this.all = [];
    this.times = [];
    this.watch = new ResizeObserver(() => this.all.forEach((chart) => chart.draw()));
  }

  // kinds: [{name, colour, key}]; format makes text of a value; base 1024 for bytes; least is the smallest top.
  add({ title, note = "", kinds, format, base = 10, least = 0, limit = null }) {
    const plot = svg("svg", { class: "plot", role: "img" });
    const heading = document.createElement("h2");
    const aside = document.createElement("span");
    heading.append(title, aside);
    aside.textContent = note;
    const legend = document.createElement("ul");
    legend.className = "legend";
    const values = kinds.map((kind) => {
      const item = document.createElement("li"), value = document.createElement("b");
      item.append(svg("svg", { viewBox: "0 0 10 10" }, svg("rect", { width: 10, height: 10, rx: 3, class: `s-${kind.colour}` })), kind.name, value);
      legend.append(item);
      return value;
    });
    const box = document.createElement("article");
    box.className = "chart";
    box.append(heading, plot, legend);
    this.host.append(box);
    const chart = { box, data: {}, limit, draw: () => this.draw(chart, plot, kinds, values, format, base, least, title) };
    this.all.push(chart);
    this.watch.observe(plot);
    plot.addEventListener("pointermove", (event) => this.point(event, plot));
    plot.addEventListener("pointerleave", () => { this.at = null; this.all.forEach((one) => one.draw()); });
    return chart;
  }

  point(event, plot) {
    const { left, width } = plot.getBoundingClientRect();
    const share = (event.clientX - left - LEFT) / Math.max(width - LEFT - RIGHT, 1);
    const [from, to] = this.range();
    const moment = from + share * (to - from);
    let best = null;
    this.times.forEach((time, i) => { if (best == null || Math.abs(time - moment) < Math.abs(this.times[best] - moment)) best = i; });
    this.at = best;
    this.all.forEach((one) => one.draw());
  }

  range() {
    const last = this.times[this.times.length - 1] || Date.now();
    return [Math.min(this.times[0] || last - 1, last - 1), last];
  }

  draw(chart, plot, kinds, legend, format, base, least, title) {
    const width = plot.clientWidth, height = plot.clientHeight;
    if (!width) return;
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    let top = Math.max(least, 1e-9);
    for (const { key } of kinds) for (const value of chart.data[key] || []) if (value > top) top = value;
    const limit = chart.limit;
    const near = limit != null && limit < top * 2.5;
    if (near && limit > top) top = limit;
    const marks = ticks(top, base);
    const highest = marks[marks.length - 1];
    const [from, to] = this.range();
    const x = (i) => LEFT + ((this.times[i] - from) / (to - from)) * (width - LEFT - RIGHT);
    const y = (value) => height - BOTTOM - (value / highest) * (height - BOTTOM - TOP);
    const parts = [];
    for (const mark of marks) {
      parts.push(svg("path", { class: "grid", d: `M${LEFT} ${Math.round(y(mark)) + 0.5}H${width - RIGHT}` }));
      const text = svg("text", { x: LEFT - 6, y: y(mark) + 3.5, "text-anchor": "end" });
      text.textContent = format(mark);
      parts.push(text);
    }
    for (const [share, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
      const text = svg("text", { x: LEFT + share * (width - LEFT - RIGHT), y: height - 3, "text-anchor": anchor });
      text.textContent = clock(from + share * (to - from));
      parts.push(text);
    }
    kinds.forEach(({ key, colour }, n) => {
      const values = chart.data[key] || [];
      const path = through(values, x, y);
      if (n === 0 && path) {
        const first = values.findIndex((value) => value != null), last = values.findLastIndex((value) => value != null);
        parts.push(svg("path", { class: `area s-${colour}`, opacity: 0.1, d: `${path.replace(/M/g, (m, at) => (at ? "L" : "M"))}L${x(last)} ${y(0)}L${x(first)} ${y(0)}Z` }));
      }
      parts.push(svg("path", { class: `stroke s-${colour}`, d: path }));
    });
    if (near) {
      const text = svg("text", { x: width - RIGHT, y: y(limit) - 4, "text-anchor": "end" });
      text.textContent = `limit ${format(limit)}`;
      parts.push(svg("path", { class: "limit", d: `M${LEFT} ${y(limit)}H${width - RIGHT}` }), text);
    }
    const at = this.at ?? this.times.length - 1;
    if (this.at != null) parts.push(svg("path", { class: "cross", d: `M${x(at)} ${TOP}V${height - BOTTOM}` }));
    plot.replaceChildren(...parts);
    const said = kinds.map(({ name, key }, n) => {
      const value = (chart.data[key] || [])[at];
      legend[n].textContent = value == null ? "–" : format(value);
      return `${name} ${legend[n].textContent}`;
    });
    plot.setAttribute("aria-label", `${title}: ${said.join(", ")}${this.at == null ? "" : ` at ${clock(this.times[at])}`}`);
  }

  close() { this.watch.disconnect(); }
}

const LEFT = 58, RIGHT = 8, TOP = 12, BOTTOM = 18;
