// Shows /snapshot.json, which is asked for twice a second. Names and messages are whatever the
// program says: they only ever become text (`textContent`), never markup.
"use strict";

const PERIOD = 500;
const SPAN = 60_000_000; // of the timeline, in microseconds
const DELAY = 700_000; // the right edge is this old, so that what ends there is known
const byId = (id) => document.getElementById(id);

let shown = null; // the last snapshot
let failed = null; // why the last request failed
let isUpdating = false; // a request is on its way
let answeredAt = -Infinity;
let epoch = 0;
let tick = 0;
let offset = null; // the program's clock minus this page's, in microseconds
let pausedAt = null; // the right edge of the timeline, if it is paused
let pausedSince = 0;
let showAll = false;
const store = new Map(); // per pool: { points, lanes: Map(index → bars) }

// Characters that are not seen, or that turn the text around them: they are shown as their numbers.
const HARMFUL = /[\p{Cc}\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu;
const printable = (text) => text.replace(HARMFUL, (c) => (c === "\n" ? c : `\\u{${c.codePointAt(0).toString(16)}}`));

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) write(element, text);
  return element;
}

// Writes only what has changed, so that selections stay and screen readers are not disturbed.
function write(element, text) {
  const clean = printable(String(text));
  if (element.textContent !== clean) element.textContent = clean;
}

// Makes the children of `parent` follow `items`: an item keeps its element as long as its key. No two
// items have the same key.
function follow(parent, items, keyOf, create, update) {
  const known = new Map();
  for (const child of parent.children) known.set(child.dataset.key, child);
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let element = known.get(key);
    known.delete(key);
    if (!element) {
      element = create(item);
      element.dataset.key = key;
    }
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
    update(element, item);
  }
  for (const child of known.values()) child.remove();
}

const number = (value) => Math.round(value).toLocaleString("en");
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

function rate(value) {
  return value > 0 && value < 9.95 ? value.toFixed(1) : number(value);
}

// Microseconds, with three digits or so.
function duration(us) {
  const three = (value) => (value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : String(Math.round(value)));
  if (us < 0.0005) return "0";
  if (us < 1) return `${three(us * 1000)} ns`;
  if (us < 999.5) return `${three(us)} µs`;
  if (us < 999_500) return `${three(us / 1e3)} ms`;
  const s = us / 1e6;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// For ages that change each second.
function age(us, atLeast) {
  const text = us < 1e6 ? `${Math.max(0, Math.round(us / 1000))} ms` : duration(us);
  return atLeast ? `≥ ${text}` : text;
}

function bytes(value) {
  if (value === 0) return "–";
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let unit = -1;
  do { value /= 1024; unit += 1; } while (value >= 1023.95 && unit + 1 < units.length);
  return `${value.toFixed(1)} ${units[unit]}`;
}

// The last two parts of a path are enough to know a file.
const shortPlace = (place) => place.split(/[\\/]/).slice(-2).join("/");

function whatName(index) {
  const what = index === null || index === undefined ? null : shown.whats[index];
  if (!what) return null;
  return what.label || shortPlace(what.place);
}

// Jobs with the same name have the same colour.
const colors = new Map();
function colorOf(index) {
  const name = whatName(index);
  if (name === null) return 0;
  if (!colors.has(name)) colors.set(name, colors.size % 8);
  return colors.get(name);
}

const serverNow = () => performance.now() * 1000 + offset;
const rightEdge = () => (pausedAt === null ? serverNow() - DELAY : pausedAt);

// ---- figures

function tiles(element, pool) {
  const { rates, totals } = pool;
  const refused = totals.rejected;
  const run = pool.run_time;
  const wait = pool.queue_wait;
  const list = [
    ["Running", number(pool.running), `${plural(pool.workers, "worker")}, at most ${number(pool.max_workers)}`],
    ["Queued", number(pool.queued), pool.oldest ? `the oldest for ${age(pool.oldest.us, pool.oldest.at_least)}` : pool.capacity === null ? "no limit" : `at most ${number(pool.capacity)}`],
    ["Started", rates ? `${rate(rates.started)}/s` : "–", rates ? `${rate(rates.submitted)}/s submitted` : ""],
    ["Run time p50", run ? duration(run.p50_us) : "–", run ? `p99 ${duration(run.p99_us)}` : ""],
    ["Queue wait p50", wait ? duration(wait.p50_us) : "–", wait ? `p99 ${duration(wait.p99_us)}` : ""],
    ["Refused", number(refused), rates && rates.rejected > 0 ? `${rate(rates.rejected)}/s now` : "", rates && rates.rejected > 0],
  ];
  follow(element, list, ([name]) => name, ([name]) => {
    const tile = make("div");
    const value = make("dd");
    value.append(make("span"), make("small"));
    tile.append(make("dt", "", name), value);
    return tile;
  }, (tile, [, value, unit, bad]) => {
    tile.className = bad ? "bad" : "";
    write(tile.querySelector("span"), value);
    write(tile.querySelector("small"), unit);
  });
}

function counts(element, pool) {
  const { totals } = pool;
  const expired = totals.expired > 0 ? ` (${number(totals.expired)} expired)` : "";
  const parts = [
    [`${number(totals.submitted)} submitted`, false],
    [`${number(totals.completed)} completed`, false],
    [`${number(totals.panicked)} panicked`, totals.panicked > 0],
    [`${number(totals.cancelled)} cancelled${expired}`, totals.expired > 0],
  ];
  if (pool.kind === "processes") parts.push([`${number(totals.failed)} failed`, totals.failed > 0]);
  if (totals.spawn_failures > 0) parts.push([`${number(totals.spawn_failures)} starts refused`, true]);
  const text = parts.map(([part]) => part).join(", ");
  if (element.textContent === text) return;
  element.replaceChildren(...parts.flatMap(([part, bad], index) => [index > 0 ? ", " : "", make(bad ? "b" : "span", "", part)]));
}

// What a pool has decided about the number of its workers, and why.
function autoSize(section, pool) {
  const size = pool.auto_size;
  section.querySelector(".auto-size").hidden = size === null;
  section.querySelector(".limits").hidden = size === null;
  if (size === null) return;
  const ago = `${age(size.ago_us, false)} ago`;
  const when = size.changes === 0 ? `No change since the start, ${ago}.` : `Changed ${ago}, ${plural(size.changes, "change")} in all.`;
  const share = pool.totals.submitted > 0 ? ` ${size.cpu_percent} % of the jobs' time is CPU time.` : "";
  write(section.querySelector(".decision"), `allows ${plural(pool.max_workers, "worker")}: ${size.reason}. ${when}${share}`);
  write(section.querySelector(".n-limit"), `${number(pool.max_workers)}, bounds ${number(size.min)} to ${number(size.max)}`);
}

function createLane() {
  const item = make("li", "row lane");
  const who = make("div", "who");
  const name = make("p", "name");
  name.append(make("b"), make("span", "each"));
  const does = make("p", "does");
  const job = make("span", "job");
  job.append(make("i", "swatch"), make("span", "text"));
  does.append(job, make("span", "for"));
  who.append(name, does);
  const canvas = make("canvas");
  canvas.setAttribute("role", "img");
  canvas.addEventListener("mousemove", tip);
  canvas.addEventListener("mouseleave", () => { byId("tip").hidden = true; });
  item.append(who, canvas);
  return item;
}

function updateLane(item, lane) {
  item.dataset.lane = lane.index;
  item.className = `row lane ${lane.state}`;
  write(item.querySelector(".name b"), lane.name);
  const perSecond = lane.jobs_per_second;
  write(item.querySelector(".each"), perSecond > 0 ? `${rate(perSecond)}/s · ${Math.round(100 * lane.busy)} %` : lane.busy > 0.005 ? `${Math.round(100 * lane.busy)} %` : "");
  const isRunning = lane.state === "running";
  const name = isRunning ? whatName(lane.what) : null;
  const swatch = item.querySelector(".swatch");
  swatch.hidden = name === null;
  swatch.className = `swatch w${colorOf(lane.what)}`;
  write(item.querySelector(".text"), isRunning ? name || "many short jobs" : lane.state);
  item.querySelector(".job").title = isRunning && lane.what !== null ? printable(shown.whats[lane.what].place) : "";
  // A job of a few milliseconds is another one at each look.
  const since = isRunning && lane.age && lane.age.us > 50_000 ? age(lane.age.us, lane.age.at_least) : "";
  write(item.querySelector(".for"), since);
  item.querySelector("canvas").setAttribute("aria-label", `${printable(lane.name)}: busy ${Math.round(100 * lane.busy)} % of the last two seconds`);
}

// A row of a table: the first cell is its head. The labels and roles are for narrow pages, where a
// row is laid out as a card.
function row(body) {
  const columns = [...body.parentElement.querySelectorAll("thead th")];
  const element = make("tr");
  element.setAttribute("role", "row");
  columns.forEach((column, index) => {
    const cell = make(index === 0 ? "th" : "td", column.className);
    if (index === 0) cell.scope = "row";
    cell.setAttribute("role", index === 0 ? "rowheader" : "cell");
    cell.dataset.label = column.textContent;
    cell.append(make("span"));
    element.append(cell);
  });
  return element;
}

function cells(element, texts) {
  texts.forEach((text, index) => write(element.children[index].querySelector("span"), text));
}

function jobs(section, pool) {
  section.querySelector(".jobs-part").hidden = pool.jobs.length === 0;
  const body = section.querySelector(".jobs");
  follow(body, pool.jobs, (job) => job.what, () => {
    const element = row(body);
    element.firstElementChild.prepend(make("i", "swatch"));
    element.firstElementChild.append(make("small"));
    return element;
  }, (element, job) => {
    const what = shown.whats[job.what];
    element.querySelector(".swatch").className = `swatch w${colorOf(job.what)}`;
    const share = 100 * job.share;
    const q = (quantiles, name) => (quantiles ? duration(quantiles[name]) : "–");
    cells(element, [
      whatName(job.what),
      share > 0 && share < 0.95 ? "< 1 %" : `${Math.round(share)} %`,
      rate(job.per_second),
      q(job.run_time, "p50_us"), q(job.run_time, "p99_us"),
      q(job.queue_wait, "p50_us"), q(job.queue_wait, "p99_us"),
    ]);
    write(element.querySelector("small"), what.label ? ` ${shortPlace(what.place)}` : "");
    element.firstElementChild.title = printable(what.place);
  });
}

function processes(section, pool) {
  section.querySelector(".processes-part").hidden = pool.kind !== "processes";
  const body = section.querySelector(".processes");
  follow(body, pool.processes, (process) => process.pid, () => row(body), (element, process) => {
    element.className = process.state === "running" ? "" : "idle";
    cells(element, [
      process.pid,
      process.state,
      process.task === null ? "–" : process.label ? `${process.task} (${process.label})` : process.task,
      process.age_us === null ? "–" : age(process.age_us, false),
      bytes(process.memory),
      number(process.jobs_done),
    ]);
  });
}

function createPool() {
  return byId("pool-template").content.firstElementChild.cloneNode(true);
}

function updatePool(section, pool) {
  section.dataset.pool = pool.id;
  section.setAttribute("aria-label", `Pool ${printable(pool.name)}`);
  write(section.querySelector(".name"), pool.name);
  write(section.querySelector(".kind"), pool.kind);
  const state = section.querySelector(".state");
  state.hidden = pool.state === "open";
  state.className = `pill state ${pool.state === "broken" ? "bad" : "warn"}`;
  write(state, pool.state);
  counts(section.querySelector(".counts"), pool);
  tiles(section.querySelector(".tiles"), pool);
  write(section.querySelector(".n-submitted"), pool.rates ? rate(pool.rates.submitted) : "–");
  write(section.querySelector(".n-finished"), pool.rates ? rate(pool.rates.finished) : "–");
  write(section.querySelector(".n-queued"), `${plural(pool.queued, "job")} now`);
  autoSize(section, pool);
  follow(section.querySelector(".lanes"), pool.lanes, (lane) => lane.index, createLane, updateLane);
  section.querySelector(".no-lanes").hidden = pool.lanes.length > 0;
  const more = section.querySelector(".more-lanes");
  more.hidden = pool.more_lanes === 0;
  write(more, `… and ${plural(pool.more_lanes, "more worker")}`);
  section.querySelectorAll(".scroll").forEach((scroll, index) => {
    scroll.setAttribute("aria-label", `${index === 0 ? "Processes" : "Jobs"} of pool ${printable(pool.name)}`);
  });
  processes(section, pool);
  jobs(section, pool);
}

function problems(snapshot) {
  const notices = [];
  for (const pool of snapshot.pools) {
    if (pool.state === "broken") notices.push(["bad", pool.id, `Pool ${pool.name} is broken: it accepts no more jobs.`]);
    if (pool.rates && pool.rates.rejected > 0 && pool.state === "open") notices.push(["warn", pool.id, `Pool ${pool.name} refuses jobs: its queue is full.`]);
  }
  const all = snapshot.incidents;
  byId("problems").hidden = all.length + notices.length === 0;
  write(byId("problems-count"), all.length === 0 ? "" : all.length >= 100 ? "the last 100" : number(all.length));
  const more = byId("more");
  more.hidden = all.length <= 4;
  more.setAttribute("aria-expanded", String(showAll));
  write(more, showAll ? "Show fewer" : "Show all");
  follow(byId("notices"), notices, ([kind, id]) => kind + id, () => make("li"), (element, [kind, , text]) => {
    element.className = `notice ${kind}`;
    write(element, text);
  });
  follow(byId("incidents"), showAll ? all : all.slice(0, 4), (incident) => incident.number, (incident) => {
    const item = make("li");
    item.append(make("span", `pill kind ${incident.kind === "kill" ? "warn" : "bad"}`, incident.kind), make("span", "message", incident.message), make("span", "ago"), make("span", "where"));
    return item;
  }, (item, incident) => {
    const parts = [];
    if (incident.times > 1) parts.push(`${number(incident.times)} times`);
    if (incident.what) parts.push(incident.what);
    if (incident.place) parts.push(incident.place);
    if (incident.pid !== null) parts.push(`process ${incident.pid}`);
    if (incident.pool_name) parts.push(`pool ${incident.pool_name}`);
    if (incident.worker) parts.push(`thread ${incident.worker}`);
    write(item.querySelector(".where"), parts.join(" · "));
    write(item.querySelector(".ago"), `${age(incident.ago_us, false)} ago`);
  });
}

// ---- the timeline

function remember(snapshot) {
  const edge = Math.min(rightEdge(), snapshot.now) - SPAN - 2_000_000;
  const alive = new Set(snapshot.pools.map((pool) => pool.id));
  for (const id of store.keys()) if (!alive.has(id)) store.delete(id);
  for (const pool of snapshot.pools) {
    if (!store.has(pool.id)) store.set(pool.id, { points: [], lanes: new Map() });
    const { points, lanes } = store.get(pool.id);
    points.push(...pool.points);
    let old = points.findIndex((point) => point[0] >= edge);
    if (old > 1) points.splice(0, old - 1);
    for (const bar of pool.bars) {
      if (!lanes.has(bar[0])) lanes.set(bar[0], []);
      lanes.get(bar[0]).push(bar);
    }
    for (const [index, bars] of lanes) {
      old = bars.findIndex((bar) => bar[2] >= edge);
      if (old < 0) lanes.delete(index);
      else if (old > 0) bars.splice(0, old);
    }
  }
}

let palette = {};

function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  palette = { what: [0, 1, 2, 3, 4, 5, 6, 7].map((n) => color(`c${n}`)) };
  for (const name of ["bad", "good", "warn", "warn-soft", "accent", "accent-soft", "rule", "faint"]) palette[name] = color(name);
}

// Returns the canvas's context, with its size in CSS pixels.
function context(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const c = canvas.getContext("2d");
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.clearRect(0, 0, width, height);
  c.strokeStyle = palette.rule;
  c.lineWidth = 1;
  for (let quarter = 1; quarter < 4; quarter += 1) {
    const x = Math.round((width * quarter) / 4) + 0.5;
    c.beginPath();
    c.moveTo(x, 0);
    c.lineTo(x, height);
    c.stroke();
  }
  return { c, width, height };
}

const xOf = (time, edge, width) => width * (1 - (edge - time) / SPAN);

function drawLane(canvas, bars, lane, edge, newest) {
  const { c, width, height } = context(canvas);
  const all = bars ? [...bars] : [];
  // What runs now. After a pause it may have started later than the edge.
  if (lane && lane.state === "running" && lane.age && pausedAt === null) {
    const start = newest - lane.age.us;
    all.push([lane.index, start, Math.max(edge, start), lane.what, 1, 1, lane.age.at_least ? 2 : 0]);
  }
  for (const [, from, to, what, count, busy, flag] of all) {
    const left = xOf(from, edge, width);
    const right = Math.min(width, xOf(to, edge, width));
    if (right < 0 || left > width) continue;
    const single = count === 1;
    const w = Math.max(single ? 1.5 : 0.5, right - left);
    const h = single ? height : Math.max(3, height * busy);
    c.fillStyle = flag === 1 && single ? palette.bad : palette.what[colorOf(what)];
    c.globalAlpha = single ? 1 : 0.75;
    c.fillRect(left, height - h, w, h);
    c.globalAlpha = 1;
    if (flag === 1 && !single) {
      c.fillStyle = palette.bad;
      c.fillRect(left, 0, w, 3);
    }
    // The border between two jobs.
    if (single && w > 4) {
      c.clearRect(right - 0.75, 0, 0.75, height);
    }
  }
}

function niceTop(value) {
  if (value <= 1) return 1;
  const digits = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * digits).find((step) => step >= value);
}

// Rates of a fifth of a second jump: each point becomes the mean of a second.
function smooth(points) {
  return points.map((point, index) => {
    const near = points.slice(Math.max(0, index - 2), index + 3);
    const mean = (at) => near.reduce((sum, one) => sum + one[at], 0) / near.length;
    return [point[0], mean(1), mean(2), mean(3), ...point.slice(4)];
  });
}

function drawLines(canvas, points, edge, series, words) {
  const { c, width, height } = context(canvas);
  const inView = points.filter((point) => point[0] >= edge - SPAN - 1_000_000 && point[0] <= edge + 500_000);
  const top = niceTop(inView.reduce((most, point) => Math.max(most, ...series.map(({ at }) => point[at])), 0));
  const y = (value) => height - 1 - ((height - 4) * value) / top;
  for (const { at, color, dash, fill, steps } of series) {
    c.beginPath();
    inView.forEach((point, index) => {
      const [px, py] = [xOf(point[0], edge, width), y(point[at])];
      if (index === 0) c.moveTo(px, py);
      else if (steps) c.lineTo(px, y(inView[index - 1][at]));
      c.lineTo(px, py);
    });
    if (fill && inView.length > 0) {
      c.lineTo(xOf(inView[inView.length - 1][0], edge, width), height);
      c.lineTo(xOf(inView[0][0], edge, width), height);
      c.fillStyle = palette[fill];
      c.fill();
    }
    c.strokeStyle = palette[color];
    c.lineWidth = 1.5;
    c.setLineDash(dash);
    c.stroke();
    c.setLineDash([]);
  }
  c.fillStyle = palette.faint;
  c.font = "11px system-ui, sans-serif";
  c.textBaseline = "top";
  if (top > 1) c.fillText(number(top), 3, 2);
  const last = inView[inView.length - 1];
  const label = last ? series.map(({ at }, index) => `${words[index]} ${at < 4 ? rate(last[at]) : number(last[at])}`).join(", ") : "no figures yet";
  if (canvas.getAttribute("aria-label") !== label) canvas.setAttribute("aria-label", label);
}

function draw() {
  if (!shown || offset === null) return;
  const edge = rightEdge();
  const newest = shown.now;
  for (const section of byId("pools").children) {
    const id = Number(section.dataset.pool);
    const kept = store.get(id);
    const pool = shown.pools.find((one) => one.id === id);
    if (!kept || !pool) continue;
    // What is not in view need not be drawn.
    const box = section.getBoundingClientRect();
    if (box.bottom < 0 || box.top > innerHeight) continue;
    drawLines(section.querySelector(".rates"), smooth(kept.points), edge, [
      { at: 3, color: "accent", dash: [], fill: "accent-soft" },
      { at: 1, color: "warn", dash: [5, 3] },
    ], ["finished a second:", "submitted a second:"]);
    drawLines(section.querySelector(".queue"), kept.points, edge, [{ at: 4, color: "warn", dash: [], fill: "warn-soft" }], ["queued:"]);
    if (pool.auto_size) drawLines(section.querySelector("canvas.limit"), kept.points, edge, [{ at: 6, color: "good", dash: [], steps: true }], ["worker limit:"]);
    for (const item of section.querySelectorAll(".lane")) {
      const index = Number(item.dataset.lane);
      drawLane(item.querySelector("canvas"), kept.lanes.get(index), pool.lanes.find((lane) => lane.index === index), edge, newest);
    }
  }
}

// Tells what is under the pointer.
function tip(event) {
  const canvas = event.currentTarget;
  const box = canvas.getBoundingClientRect();
  const id = Number(canvas.closest(".pool").dataset.pool);
  const kept = store.get(id);
  const bars = (kept && kept.lanes.get(Number(canvas.closest(".lane").dataset.lane))) || [];
  const edge = rightEdge();
  const time = edge - SPAN * (1 - (event.clientX - box.left) / box.width);
  const slack = (2 * SPAN) / box.width;
  const bar = [...bars].reverse().find((one) => one[1] - slack <= time && time <= one[2] + slack);
  const element = byId("tip");
  element.hidden = !bar;
  if (!bar) return;
  const [, from, to, what, count, busy, flag] = bar;
  const name = whatName(what) || "different jobs";
  const lines = count === 1
    ? [name, `ran ${flag === 2 ? "about " : ""}${duration(to - from)}${flag === 1 ? ", and failed or panicked" : ""}`]
    : [name, `${plural(count, "job")} in ${duration(to - from)}, running ${Math.round(100 * busy)} % of it`];
  lines.push(`${age(Math.max(0, serverNow() - to), false)} ago`);
  write(element, lines.join("\n"));
  element.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - element.offsetWidth - 8))}px`;
  element.style.top = `${event.clientY + 14}px`;
}

// ---- the page

function banner() {
  let text = "";
  if (failed) text = `This page cannot reach the program (${failed}).${shown ? ` The figures are ${age((performance.now() - answeredAt) * 1000, false)} old.` : ""}`;
  const element = byId("banner");
  element.hidden = text === "";
  document.body.classList.toggle("stale", text !== "");
  if (!element.firstElementChild) element.append(make("p"));
  write(element.firstElementChild, text);
  const pill = byId("connection");
  pill.className = `pill ${failed ? "bad" : shown ? "good" : ""}`;
  write(pill, failed ? "not connected" : shown ? "live" : "connecting");
  write(byId("age"), shown && !failed ? "Updated just now." : "");
  write(byId("paused"), pausedAt === null ? "" : `timeline paused ${Math.floor((performance.now() - pausedSince) / 1000)} s ago`);
}

function show(snapshot) {
  if (snapshot.epoch !== epoch) store.clear();
  epoch = snapshot.epoch;
  tick = snapshot.tick;
  // The answer that took least has the best clock.
  const measured = snapshot.now - performance.now() * 1000;
  offset = offset === null || Math.abs(measured - offset) > 2_000_000 ? measured : Math.max(measured, offset - 100);
  shown = snapshot;
  remember(snapshot);
  write(byId("program"), snapshot.program);
  write(byId("pid"), `process ${snapshot.pid}`);
  document.title = `${printable(snapshot.program)}: ${plural(snapshot.pools.reduce((sum, pool) => sum + pool.running, 0), "running job")}`;
  problems(snapshot);
  follow(byId("pools"), snapshot.pools, (pool) => pool.id, createPool, updatePool);
  byId("no-pools").hidden = snapshot.pools.length > 0;
}

async function update() {
  // Two requests at the same time would get the same part of the timeline.
  if (isUpdating) return;
  isUpdating = true;
  try {
    const answer = await fetch(`snapshot.json?epoch=${epoch}&after=${tick}`, { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.status === 401 ? "it wants its token again: open /?token=…" : `${answer.status} ${answer.statusText}`);
    const snapshot = await answer.json();
    failed = null;
    answeredAt = performance.now();
    show(snapshot);
  } catch (error) {
    failed = error instanceof Error ? error.message : "no answer";
  }
  isUpdating = false;
  banner();
  draw();
}

byId("pause").addEventListener("click", () => {
  if (pausedAt === null && offset !== null) {
    pausedAt = rightEdge();
    pausedSince = performance.now();
  } else {
    pausedAt = null;
  }
  const button = byId("pause");
  button.setAttribute("aria-pressed", String(pausedAt !== null));
  write(button, pausedAt === null ? "Pause" : "Resume");
  byId("tip").hidden = true;
  banner();
  draw();
});

byId("more").addEventListener("click", () => {
  showAll = !showAll;
  if (shown) problems(shown);
});

async function run() {
  for (;;) {
    if (!document.hidden) await update();
    await new Promise((done) => setTimeout(done, PERIOD));
  }
}

readPalette();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readPalette(); draw(); });
addEventListener("resize", draw);
addEventListener("scroll", draw, { passive: true });
document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
  setInterval(() => { if (!document.hidden && pausedAt === null) draw(); }, 100);
}
run();
