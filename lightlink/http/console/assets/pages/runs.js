// A run: pending approvals first, then steps as counts, then targets, failed ones first.
import { call, get, may, post } from "../api.js";
import { ago, at, button, complain, confirm, empty, facts, h, link, moment, mono, note, number, redraw, section, shape, state, table, toast, field } from "../dom.js";
import { stacked } from "../charts.js";
import { follow } from "../live.js";
import { t } from "../text.js";
import { goer } from "./agents.js";

const LOOK_MS = 1000;
const SHAPES = { waiting: "waits", held: "waits", queued: "pending", stopping: "running", rollback_incomplete: "unknown", running: "running", paused: "paused", completed: "completed", failed: "failed", cancelled: "cancelled", rolled_back: "undone", rolling_back: "running", soaking: "pending" };
export const runState = (name) => state(SHAPES[name] ?? "unknown", t(`run.${name}`) === `run.${name}` ? name.replaceAll("_", " ") : t(`run.${name}`));
const PAUSABLE = new Set(["queued", "running", "soaking", "waiting", "held"]);
const BAD = /fail|unknown|left/;
const ENDED = new Set(["completed", "failed", "cancelled", "rolled_back", "rollback_incomplete"]);

export const runTable = (list) => table(t("nav.runs"), [
  { head: t("col.state"), cell: (run) => runState(run.state) }, { head: t("col.plan"), cell: (run) => [link(`run/${run.run_id}`, run.plan, "strong"), run.reason && h("span", { class: "sub" }, run.reason)] },
  { head: t("col.targets"), num: true, cell: (run) => number(run.targets) }, { head: t("col.failed"), num: true, min: "m", cell: (run) => number(run.counts.failed ?? 0) },
  { head: t("col.by"), min: "m", cell: (run) => run.started_by }, { head: t("col.changed"), num: true, cell: (run) => ago(run.at) }], list);

export default async function runs({ query }) {
  const go = goer("runs", query), plan = query.get("plan") ?? "";
  const [page, schedules] = await Promise.all([get("api/runs", { plan, limit: 100 }), get("api/schedules").catch(() => ({ schedules: [] }))]);
  const search = h("input", { type: "search", value: plan, placeholder: t("col.plan"), "aria-label": t("col.plan"), onchange: () => go({ plan: search.value.trim() }) });
  return { title: t("nav.runs"), body: [h("div", { class: "page-head" }, h("h1", {}, t("nav.runs")), may("plan") && link("start", t("start.run"), "btn primary")), h("div", { class: "filters" }, search),
    page.runs.length ? runTable(page.runs)
      : plan ? empty(t("runs.nomatch"), t("commands.none.more"), link("runs", t("filter.clear"), "btn")) : empty(t("runs.0"), t("runs.0.more"), h("pre", { class: "code-line" }, "lightlink plan start plan.yaml")),
    scheduled(schedules.schedules)] };
}
function scheduled(list) {
  const remove = (each) => confirm(t("schedule.remove.n", { name: each.name }), t("schedule.remove.more"), t("schedule.remove"), async () => {
    await call("DELETE", `api/schedules/${encodeURIComponent(each.name)}`);
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  }, true, false);
  const add = may("plan") && link("start?by=clock", t("schedule.add"), "btn small");
  return section(t("schedules"), add, list.length ? table(t("schedules"), [
    { head: t("col.name"), cell: (each) => [h("strong", {}, each.name), each.error && h("span", { class: "sub bad" }, each.error)] }, { head: t("col.plan"), cell: (each) => each.plan }, { head: "cron", cell: (each) => mono(`${each.cron} ${each.tz}`) },
    { head: t("schedule.last"), num: true, min: "m", cell: (each) => (each.run_id ? link(`run/${each.run_id}`, each.last ? ago(each.last) : t("col.run")) : "–") }, { head: t("col.next"), num: true, cell: (each) => moment(each.next) },
    may("plan") && { head: t("col.do"), cell: (each) => button(t("schedule.remove"), () => remove(each), "small ghost", { "aria-label": `${t("schedule.remove")} ${each.name}` }) }].filter(Boolean), list) : h("p", { class: "quiet" }, t("schedules.none")));
}
export async function run({ rest }) {
  const load = async () => {
    const [found, { states }] = await Promise.all([get(`api/runs/${rest}`), get(`api/runs/${rest}/history`)]);
    entries = states;
    return found;
  };
  let entries = [], data = await load(), timer = null, gone = false;
  const root = h("div", { class: "stack" }), comment = h("textarea", { rows: 2 });
  const draw = () => redraw(root, body(data, act, comment, entries));
  async function act(verb, sent, word) {
    try { await post(`api/runs/${rest}/${verb}`, sent); toast(word); data = await load(); draw(); } catch (error) { complain(error); throw error; }
  }
  draw();
  async function look() {
    timer = null;
    try {
      const next = await load();
      if (!gone && JSON.stringify(next) !== JSON.stringify(data)) { data = next; draw(); }
    } catch { /* the banner says so */ }
  }
  // The run's state arrives as events; its targets' steps are commands.
  const stop = follow((commands, runs) => {
    if (runs.some((each) => each.run_id === rest)) { clearTimeout(timer); look(); } else if (commands.length && !ENDED.has(data.run.state)) timer ??= setTimeout(look, LOOK_MS);
  });
  return { title: data.run.plan, leave: () => { gone = true; clearTimeout(timer); stop(); }, body: [root] };
}
function body(data, act, comment, entries) {
  const one = data.run, asks = (verb, danger) => button(t(`run.do.${verb}`), () => confirm(t(`run.do.${verb}`), t(`run.do.${verb}.more`), t(`run.do.${verb}`), (reason) => act(verb, { reason }, t("done")), danger));
  const open = !ENDED.has(one.state);
  return [
    h("div", { class: "page-head" }, h("div", {}, h("h1", {}, one.plan), h("p", { class: "under" }, runState(one.state), h("span", { class: "quiet" }, t("by", { x: one.started_by })), h("span", { class: "quiet" }, ago(one.started_at)))),
      may("plan") && h("div", { class: "row" }, PAUSABLE.has(one.state) && asks("pause"), one.state === "paused" && button(t("run.do.resume"), () => act("resume", undefined, t("done")).catch(() => null)), open && asks("cancel", true), !open && asks("rollback", true), ["failed", "cancelled"].includes(one.state) && button(t("run.do.retry"), () => act("retry", undefined, t("done")).catch(() => null)))),
    one.state === "waiting" && h("section", { class: "gate", "aria-label": t("gate") }, h("h2", {}, state("waits", t("gate"))), h("p", {}, t("gate.more", { n: number(one.wave) })),
      may("approve") ? [field(t("gate.comment"), comment, t("gate.comment.hint")), h("div", { class: "row" }, button(t("gate.approve"), () => act("approve", { comment: comment.value, digest: one.digest }, t("gate.approved")).catch(() => null), "primary"), button(t("gate.reject"), () => act("reject", { comment: comment.value, digest: one.digest }, t("gate.rejected")).catch(() => null)))] : h("p", { class: "quiet" }, t("gate.scope"))),
    one.reason && ENDED.has(one.state) && note(one.state === "completed" ? "completed" : "failed", h("strong", {}, one.event), h("p", {}, one.reason)),
    h("div", { class: "cols" }, h("div", { class: "stack" }, waves(data), steps(data), targets(data), happened(entries)), h("aside", { class: "rail", "aria-label": t("facts") }, facts([["ID", mono(one.run_id)], [t("col.targets"), number(one.targets)], [t("wave"), number(one.wave)], [t("run.digest"), mono(one.digest)], Object.keys(data.params).length && [t("run.params"), mono(JSON.stringify(data.params))]])))];
}
const outcome = (name) => (t(`outcome.${name}`) === `outcome.${name}` ? name.replaceAll("_", " ") : t(`outcome.${name}`));

// One bar per wave, never a node per target.
function waves(data) {
  const found = new Map();
  for (const each of data.targets) {
    const wave = found.get(each.wave) ?? { done: 0, wrong: 0, all: 0 };
    wave.all += 1;
    if (each.outcome === "done") wave.done += 1;
    else if (BAD.test(each.outcome)) wave.wrong += 1;
    found.set(each.wave, wave);
  }
  const words = (wave) => t("waves.said", { a: number(wave.done), b: number(wave.wrong), n: number(wave.all) });
  return section(t("waves"), null, h("ol", { class: "waves" }, [...found.entries()].sort(([a], [b]) => a - b).map(([place, wave]) =>
    h("li", {}, h("span", {}, `${t("wave")} ${number(place + 1)}`), stacked(wave.done / wave.all, wave.wrong / wave.all, words(wave)), h("span", { class: "num quiet" }, words(wave))))));
}
function happened(states) {
  const event = (each) => (t(`event.${each.event}`) === `event.${each.event}` ? each.event.replaceAll("_", " ") : t(`event.${each.event}`));
  return section(t("command.timeline"), null, h("ol", { class: "timeline" }, [...states].reverse().slice(0, 100).map((each) =>
    h("li", {}, h("span", { class: `is-${SHAPES[each.state] ?? "unknown"}` }, shape(SHAPES[each.state] ?? "unknown")), h("div", {}, h("strong", {}, event(each)), h("span", { class: "sub" }, [each.by && t("by", { x: each.by }), each.reason].filter(Boolean).join(" · "))), at(each.at)))));
}
function steps(data) {
  const outcomes = [...new Set(Object.values(data.steps).flatMap(Object.keys))];
  const rows = Object.entries(data.steps);
  return section(t("steps"), null, rows.length ? table(t("steps"), [{ head: t("step"), cell: ([name]) => h("strong", {}, name) }, ...outcomes.map((name) => ({ head: outcome(name), num: true, cell: ([, counts]) => number(counts[name] ?? 0) }))], rows) : h("p", { class: "quiet" }, t("steps.0")));
}
function targets(data) {
  const bad = (each) => (BAD.test(each.outcome) ? 0 : 1);
  const rows = [...data.targets].sort((a, b) => bad(a) - bad(b)).slice(0, 200);
  const kind = (each) => ({ ok: "completed", done: "completed", completed: "completed", failed: "failed", unknown: "unknown" })[each.outcome] ?? "pending";
  return section(t("col.targets"), null, table(t("col.targets"), [
    { head: t("col.state"), cell: (each) => state(kind(each), outcome(each.outcome)) }, { head: t("col.agent"), cell: (each) => [link(`agent/${each.client_id}`, each.client_id), each.error && h("span", { class: "sub bad" }, each.error)] },
    { head: t("step"), cell: (each) => each.step }, { head: t("wave"), num: true, cell: (each) => number(each.wave + 1) }], rows));
}
