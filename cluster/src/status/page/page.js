// Shows /status.json, which is asked for each second. All of it is untrusted: it only ever becomes
// text (`textContent`) and numbers, never markup.
"use strict";

const PERIOD = 1000;
const SPAN = 300_000;
const byId = (id) => document.getElementById(id);

let points = []; // { at, submitted, ended, lost }, by this machine's monotonic clock
let shown = null; // the last snapshot
let shownAt = 0; // when it came
let failed = null; // why the last request failed

// Characters that are not seen, or that turn the text around them: they are shown as their numbers.
const HARMFUL = /[\p{Cc}\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu;

function printable(value) {
  if (typeof value === "string") return value.replace(HARMFUL, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
  if (Array.isArray(value)) return value.map(printable);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, printable(part)]));
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Writes only what has changed, so that selections stay and screen readers are not disturbed.
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Makes the children of `parent` follow `items`: an item keeps its element as long as its key.
function follow(parent, items, keyOf, create, update) {
  const known = new Map();
  for (const child of parent.children) known.set(child.dataset.key, child);
  let place = parent.firstElementChild;
  items.forEach((item, index) => {
    const key = keyOf(item, index);
    let element = known.get(key);
    known.delete(key);
    if (!element) {
      element = create(item);
      element.dataset.key = key;
    }
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
    update(element, item);
  });
  for (const child of known.values()) child.remove();
}

// The end of a job's id tells it from others of its submitter.
const shortId = (id) => (id.length > 20 ? `job …${id.slice(-10)}` : `job ${id}`);
const number = (value) => Math.round(value).toLocaleString("en");
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

function rate(value) {
  if (value === null || value === undefined) return "–";
  return value > 0 && value < 9.95 ? value.toFixed(1) : number(value);
}

function duration(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 1) return `${Math.max(0, Math.round(ms))} ms`;
  if (s < 10) return `${(Math.floor(ms / 100) / 10).toFixed(1)} s`;
  if (s < 60) return `${s} s`;
  if (s < 3600) return s % 60 === 0 ? `${s / 60} min` : `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function bytes(value) {
  if (value < 1024) return `${value} B`;
  const units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  let unit = -1;
  do { value /= 1024; unit += 1; } while (value >= 1023.95 && unit + 1 < units.length);
  return `${value.toFixed(1)} ${units[unit]}`;
}

const age = (snapshot, ms) => (snapshot.exact_ages ? "" : "≥ ") + duration(ms);

function tiles(snapshot) {
  const alive = snapshot.workers.filter((worker) => worker.life === "alive");
  const busy = alive.reduce((sum, worker) => sum + worker.busy, 0);
  const slots = alive.reduce((sum, worker) => sum + worker.slots, 0);
  const jobs = snapshot.stores.find((store) => store.name === "jobs");
  const { rates, totals } = snapshot;
  const perSecond = (value) => ` ${rate(value)}/s`;
  const list = [
    ["Jobs", jobs ? number(jobs.messages) : "–", ""],
    ["Slots busy", number(busy), ` of ${number(slots)}`],
    ["Submitted", rate(rates.submitted), " /s"],
    ["Ended", rate(rates.ended), " /s"],
    ["Failed", number(totals.failed), perSecond(rates.failed)],
    ["Lost", number(totals.lost), perSecond(rates.lost), totals.lost > 0],
    ["Retried", number(totals.retried), perSecond(rates.retried)],
    ["Detached", snapshot.detached === null ? "–" : number(snapshot.detached), ""],
  ];
  follow(byId("tiles"), list, ([name]) => name, ([name]) => {
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

function stateOf(snapshot, worker) {
  switch (worker.life) {
    case "dead": return [`dead, last seen ${duration(worker.silent_ms)} ago`, "bad"];
    case "left": return [`left ${duration(worker.silent_ms)} ago`, ""];
    case "silent": return [`silent for ${age(snapshot, worker.silent_ms)}`, "warn"];
  }
  const kinds = { running: "good", draining: "warn" };
  return [worker.state, Object.hasOwn(kinds, worker.state) ? kinds[worker.state] : "bad"];
}

// Any other address could run something.
const isWebAddress = (text) => typeof text === "string" && /^https?:\/\//.test(text);

function lane() {
  const item = make("li");
  const head = make("div", "lane-head");
  head.append(make("h3"), make("span", "pill"), make("span", "queue faint"), make("a", "console", "console"), make("span", "counts"));
  item.append(head, make("p", "lane-problem"), make("p", "lane-tasks"), make("ul", "slots"));
  return item;
}

function updateLane(snapshot, item, worker) {
  const gone = worker.life === "dead" || worker.life === "left";
  item.className = gone ? "gone" : worker.life;
  write(item.querySelector("h3"), worker.name || worker.id);
  const [state, kind] = stateOf(snapshot, worker);
  const pill = item.querySelector(".pill");
  pill.className = `pill ${kind}`;
  write(pill, state);
  const use = `${worker.busy} of ${plural(worker.slots, "slot")} busy, ${worker.held} held`;
  write(item.querySelector(".queue"), `queue ${worker.queue}${gone ? "" : `, ${use}`}`);
  const link = item.querySelector(".console");
  link.hidden = gone || !isWebAddress(worker.console);
  if (!link.hidden && link.href !== worker.console) {
    link.href = worker.console;
    link.title = worker.console;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  const counts = item.querySelector(".counts");
  const { done, failed: errors, lost, retried } = worker.totals;
  const parts = [`${number(done)} done, ${number(errors)} failed, `, `${number(lost)} lost`, `, ${number(retried)} retried`];
  if (counts.textContent !== parts.join("")) {
    counts.replaceChildren(parts[0], make(lost > 0 ? "b" : "span", "", parts[1]), parts[2]);
  }
  const problem = item.querySelector(".lane-problem");
  problem.hidden = !worker.problem;
  write(problem, worker.problem || "");
  const tasks = worker.tasks.map((task) => (task.version === 1 ? task.name : `${task.name} v${task.version}`));
  write(item.querySelector(".lane-tasks"), tasks.join(", "));
  const slots = item.querySelector(".slots");
  slots.setAttribute("aria-label", `Slots of ${worker.name || worker.id}`);
  slots.hidden = gone || worker.slots === 0;
  // A lane shows each job that runs, and what is free in one box if there is much of it.
  const boxes = worker.running.map((run) => ({ key: `run ${run.job}`, run }));
  const free = gone ? 0 : Math.max(0, worker.slots - worker.running.length);
  const word = worker.state === "running" ? "free" : "closed";
  if (free > 4) boxes.push({ key: "free", text: `${number(free)} ${word} slots` });
  else for (let slot = 0; slot < free; slot += 1) boxes.push({ key: `free ${slot}`, text: word });
  follow(slots, boxes, (box) => box.key, (box) => {
    const element = make("li", box.run ? "" : "free");
    if (box.run) element.append(make("span", "task"), make("span", "label"), make("span", "time"));
    return element;
  }, (element, { run, text }) => {
    if (!run) return write(element, text);
    element.title = `${run.task}\n${run.label || ""}\n${run.job}`;
    write(element.querySelector(".task"), run.task);
    write(element.querySelector(".time"), age(snapshot, run.for_ms));
    write(element.querySelector(".label"), run.label || shortId(run.job));
  });
}

function workers(snapshot) {
  follow(byId("lanes"), snapshot.workers, (worker) => worker.id, lane, (item, worker) => updateLane(snapshot, item, worker));
  byId("no-workers").hidden = snapshot.workers.length > 0;
  const alive = snapshot.workers.filter((worker) => worker.life === "alive").length;
  write(byId("workers-count"), `${alive} alive`);
}

// A row of a table: the first cell is its head. The labels and roles are for narrow pages, where a
// row is laid out as a card.
function row(table) {
  const columns = [...byId(table).parentElement.querySelectorAll("thead th")];
  return () => {
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
  };
}

function cells(element, texts) {
  texts.forEach((text, index) => write(element.children[index].firstElementChild, text));
}

function queues(snapshot) {
  const most = snapshot.queues.reduce((max, queue) => Math.max(max, queue.waiting), 1);
  const create = () => {
    const element = row("queues")();
    element.children[2].append(make("i", "bar"));
    return element;
  };
  follow(byId("queues"), snapshot.queues, (queue) => JSON.stringify([queue.queue, queue.task, queue.version]), create, (element, queue) => {
    const has = queue.waiting + queue.delivered > 0;
    element.className = has ? (queue.workers === 0 ? "bad" : "") : "idle";
    cells(element, [
      queue.version === 1 ? queue.task : `${queue.task} v${queue.version}`,
      queue.queue,
      number(queue.waiting),
      number(queue.delivered),
      queue.oldest_ms === null ? "–" : age(snapshot, queue.oldest_ms),
      number(queue.workers),
      number(queue.pulls),
    ]);
    const bar = element.querySelector(".bar");
    bar.hidden = queue.waiting === 0;
    bar.style.width = `max(3px, ${(100 * queue.waiting) / most}%)`;
  });
  byId("no-queues").hidden = snapshot.queues.length > 0;
}

function submitters(snapshot) {
  follow(byId("submitters"), snapshot.submitters, (submitter) => submitter.id, row("submitters"), (element, submitter) => {
    element.className = submitter.life === "alive" ? "" : "idle";
    cells(element, [
      submitter.name || submitter.id,
      submitter.life === "silent" ? `silent for ${age(snapshot, submitter.silent_ms)}` : submitter.life,
      number(submitter.pending),
      number(submitter.window),
      number(submitter.submitted),
      number(submitter.lost),
    ]);
  });
  byId("no-submitters").hidden = snapshot.submitters.length > 0;
  write(byId("submitters-count"), `${snapshot.submitters.filter((s) => s.life === "alive").length} alive`);
}

function stores(snapshot) {
  follow(byId("stores"), snapshot.stores, (store) => store.name, row("stores"), (element, store) => {
    element.className = isFull(store) ? "bad" : "";
    const size = store.limit === null ? bytes(store.bytes) : `${bytes(store.bytes)} of ${bytes(store.limit)}`;
    cells(element, [store.name, number(store.messages), size]);
  });
}

const isFull = (store) => store.limit !== null && store.bytes > 0.9 * store.limit;

function attention(snapshot) {
  const list = snapshot.problems.map((text) => ["bad", text]);
  for (const worker of snapshot.workers) {
    const name = worker.name || worker.id;
    if (worker.life === "dead") list.push(["bad", `Worker ${name} is dead. Default jobs that it ran are lost; idempotent ones run elsewhere.`]);
    else if (worker.life === "alive" && worker.state === "broken") list.push(["bad", `Worker ${name} is broken: ${worker.problem || "it does not say why"}`]);
    else if (worker.life === "silent") list.push(["warn", `Worker ${name} is silent. Its jobs are taken from it if it stays so.`]);
  }
  for (const queue of snapshot.queues) {
    if (queue.workers === 0 && queue.waiting + queue.delivered > 0) {
      list.push(["bad", `${plural(queue.waiting + queue.delivered, "job")} of ${queue.task} v${queue.version} in queue ${queue.queue}: no living worker has this task and version.`]);
    }
  }
  if (snapshot.jobs_without_consumer > 0) list.push(["bad", `${plural(snapshot.jobs_without_consumer, "job")} of tasks, or versions, that no worker has ever had.`]);
  for (const store of snapshot.stores) {
    if (isFull(store)) list.push(["bad", `The store ${store.name} is nearly full: ${bytes(store.bytes)} of ${bytes(store.limit)}. Submitters wait when it is.`]);
  }
  byId("attention").hidden = list.length === 0;
  follow(byId("notices"), list, ([kind, text]) => kind + text, () => make("li"), (element, [kind, text]) => {
    element.className = `notice ${kind}`;
    write(element, text);
  });
}

function graph() {
  const now = performance.now();
  points = points.filter((point) => now - point.at <= SPAN + 5000);
  let top = 1;
  for (const point of points) top = Math.max(top, point.submitted, point.ended);
  const digits = 10 ** Math.floor(Math.log10(top));
  top = [1, 1.2, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * digits).find((step) => step >= top);
  // The graph grows with the figures, minute by minute.
  const minutes = points.length ? Math.ceil((now - points[0].at) / 60_000) : 1;
  const span = Math.min(SPAN, Math.max(1, minutes) * 60_000);
  const x = (point) => (300 * (1 - (now - point.at) / span)).toFixed(2);
  write(byId("time-first"), `${duration(span)} ago`);
  const y = (value) => (100 - (99 * value) / top).toFixed(2);
  const line = (name) => {
    let path = "";
    points.forEach((point, index) => {
      // A gap in the figures is a gap in the line.
      const gap = index === 0 || point.at - points[index - 1].at > 15_000;
      path += `${gap ? "M" : "L"}${x(point)} ${y(point[name])}`;
    });
    return path;
  };
  byId("line-submitted").setAttribute("d", line("submitted"));
  byId("line-ended").setAttribute("d", line("ended"));
  const first = points[0];
  const last = points[points.length - 1];
  const gaps = points.some((point, index) => index > 0 && point.at - points[index - 1].at > 15_000);
  byId("area-ended").setAttribute("d", first && !gaps ? `${line("ended")}L${x(last)} 100L${x(first)} 100Z` : "");
  byId("marks-lost").setAttribute("d", points.filter((point) => point.lost > 0).map((point) => `M${x(point)} 100V82`).join(""));
  write(byId("scale-top"), top < 10 && top % 1 !== 0 ? top.toFixed(1) : number(top));
  write(byId("scale-middle"), top < 10 ? (top / 2).toFixed(1) : number(top / 2));
  const most = (name) => points.reduce((max, point) => Math.max(max, point[name]), 0);
  const label = last
    ? `The last ${duration(span)}. Submitted: now ${rate(last.submitted)}, at most ${rate(most("submitted"))} a second. Ended: now ${rate(last.ended)}, at most ${rate(most("ended"))} a second. ${most("lost") > 0 ? "Jobs were lost." : "No job was lost."}`
    : "No figures yet";
  byId("plot").setAttribute("aria-label", label);
}

function banner() {
  const since = shown ? shownAt && performance.now() - shownAt : 0;
  const old = shown && shown.age_ms !== null ? shown.age_ms + since : null;
  const data = old === null ? "There are no figures yet." : `The figures below are ${duration(old)} old.`;
  let text = "";
  if (failed) text = `This page cannot reach the program that serves it (${failed}). ${data}`;
  else if (shown && !shown.connection.connected) text = `The server cannot be reached${shown.connection.error ? `: ${shown.connection.error}` : ""}. ${data}`;
  else if (old !== null && old > 10_000) text = `The server does not answer. ${data}`;
  const element = byId("banner");
  element.hidden = text === "";
  document.body.classList.toggle("stale", text !== "");
  if (!element.firstElementChild) element.append(make("p"));
  // The clock in it must not make a screen reader say it again each second.
  const spoken = text.replace(data, "");
  if (element.dataset.spoken !== spoken) {
    element.dataset.spoken = spoken;
    const age = make("span");
    age.setAttribute("aria-live", "off");
    element.firstElementChild.replaceChildren(spoken, age);
  }
  const clock = element.firstElementChild.lastElementChild;
  if (clock) write(clock, text === "" ? "" : data);
  const pill = byId("connection");
  const up = text === "" && shown;
  pill.className = `pill ${up ? "good" : "bad"}`;
  write(pill, up ? "connected" : shown || failed ? "not connected" : "connecting");
  write(byId("age"), old === null ? "" : old < 3000 ? "Updated just now." : `Updated ${duration(old)} ago.`);
}

function show(snapshot) {
  shown = snapshot;
  shownAt = performance.now();
  write(byId("namespace"), snapshot.namespace);
  write(byId("server"), snapshot.server);
  const jobs = snapshot.stores.find((store) => store.name === "jobs");
  document.title = `${snapshot.namespace}: ${jobs ? plural(jobs.messages, "job") : "no figures"}`;
  const { settings } = snapshot;
  write(byId("settings"), settings ? `Lease ${duration(settings.lease_ms)}, ${plural(settings.replicas, "replica")}.` : "");
  attention(snapshot);
  tiles(snapshot);
  workers(snapshot);
  queues(snapshot);
  submitters(snapshot);
  stores(snapshot);
}

async function get(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  return printable(await answer.json());
}

async function loadHistory() {
  const now = performance.now();
  points = (await get("history.json")).map((point) => ({ ...point, at: now - point.ago_ms }));
}

let seen = -Infinity; // when the last point was added

async function update() {
  try {
    const snapshot = await get("status.json");
    // After a pause (a hidden tab, a laptop that slept) the points between are fetched.
    if (failed || performance.now() - seen > 10_000) await loadHistory();
    else if (snapshot.connection.connected && snapshot.rates.submitted !== null && snapshot.age_ms < 3000) {
      points.push({ at: performance.now() - snapshot.age_ms, submitted: snapshot.rates.submitted, ended: snapshot.rates.ended, lost: snapshot.rates.lost || 0 });
    }
    seen = performance.now();
    failed = null;
    show(snapshot);
  } catch (error) {
    failed = error instanceof Error ? error.message : "no answer";
  }
  banner();
  graph();
}

async function run() {
  for (;;) {
    if (!document.hidden) await update();
    await new Promise((done) => setTimeout(done, PERIOD));
  }
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
run();
