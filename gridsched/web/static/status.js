// The status page: asks /v1/status, /v1/nodes and each job's epochs every two seconds and writes them down. No library.
"use strict";

const byId = (id) => document.getElementById(id);
const KEY = "gridsched.token";

/** An element with text or children; text is never parsed as HTML. */
function make(tag, content, className) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (Array.isArray(content)) element.append(...content);
  else if (content !== undefined) element.textContent = content;
  return element;
}

const words = (name) => String(name).replaceAll("_", " ");
const euros = (micro) => (micro / 1e6).toFixed(4) + " EUR";
const wattHours = (joules) => (joules / 3600).toFixed(2) + " Wh";

async function ask(path) {
  const answer = await fetch(path, { headers: { Authorization: "Bearer " + sessionStorage.getItem(KEY) } });
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.detail), { status: answer.status });
  return body;
}

function zoneCard(zone) {
  const gauge = make("meter");
  gauge.max = Math.max(zone.target_w, zone.drawn_w, 1);
  gauge.value = zone.drawn_w;
  gauge.setAttribute("aria-label", "drawn power against target");
  const signals = Object.entries(zone.signals).map(([kind, seen]) =>
    `${words(kind)} ${Number(seen.value).toFixed(seen.unit === "share" ? 2 : 1)} ${seen.unit}${seen.fresh ? "" : " (stale)"}`);
  return make("div", [
    make("h3", zone.zone),
    make("p", [make("span", `${zone.drawn_w.toFixed(0)} W of ${zone.target_w.toFixed(0)} W `, "figure"),
      make("span", (zone.paused ? "paused by the operator, " : "") + words(zone.reason), zone.reason)]),
    gauge,
    make("p", zone.detail, "soft"),
    make("p", signals.join("  ·  "), "soft"),
  ], "card");
}

function nodeRow(node) {
  const unit = node.unit_id ? `${node.unit_id} ${node.step}/${node.steps}` : "";
  const cells = [node.node_id, null, unit, node.drawn_w.toFixed(0), (node.reliability * 100).toFixed(0) + " %", euros(node.earned_micro)];
  return make("tr", cells.map((text) => (text === null ? make("td", words(node.reason), node.reason) : make("td", text))));
}

function jobCard(job, epochs) {
  const last = epochs.filter((epoch) => epoch.ended_at).at(-1);
  const quality = job.accuracy === null ? "not evaluated yet" : `test accuracy ${(job.accuracy * 100).toFixed(2)} %`;
  const energy = last
    ? `epoch ${last.number}: ${wattHours(last.useful_j)} useful, ${wattHours(last.wasted_j)} wasted, ${wattHours(last.idle_j)} idle, reward ${euros(last.reward_micro)}`
    : "no epoch has ended yet";
  return make("div", [
    make("h3", job.job_id),
    make("p", `${job.state}, epoch ${job.epoch}, version ${job.version}, ${quality}`),
    make("p", energy, "soft"),
  ], "card");
}

async function refresh() {
  const [status, nodes] = await Promise.all([ask("/v1/status"), ask("/v1/nodes")]);
  const jobs = await Promise.all(status.jobs.map(async (job) => jobCard(job, await ask(`/v1/jobs/${job.job_id}/epochs`))));
  byId("clock").textContent = status.now.slice(0, 16).replace("T", " ") + " UTC" + (status.clock_speed === 1 ? "" : `, ${status.clock_speed} times as fast`)
    + (status.dry_run ? ", dry run: nothing is granted" : "");
  byId("zones").replaceChildren(...status.zones.map(zoneCard));
  const head = make("tr", ["node", "why", "unit", "W", "reliability", "earned"].map((text) => make("th", text)));
  byId("nodes").replaceChildren(head, ...nodes.map(nodeRow));
  byId("jobs").replaceChildren(...(jobs.length ? jobs : [make("p", "no job yet", "soft")]));
  byId("door").hidden = true;
  byId("house").hidden = false;
}

let timer = 0;

async function watch() {
  clearTimeout(timer);
  try {
    await refresh();
    byId("problem").textContent = "";
  } catch (error) {
    byId("problem").textContent = error.status ? error.message : "the daemon does not answer; trying again";
    if (error.status === 401 || error.status === 403) {
      byId("door").hidden = false;
      byId("house").hidden = true;
      return;
    }
  }
  timer = setTimeout(watch, 2000);
}

byId("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("token").value.trim());
  watch();
});
if (sessionStorage.getItem(KEY)) watch();
