// A run: what waits for somebody first, then the steps as counts, then the targets, failed ones first.
import { get, may, post } from "../api.js";
import { ago, button, complain, confirm, empty, facts, h, link, mono, note, number, redraw, section, state, table, toast, field } from "../dom.js";
import { follow } from "../live.js";
import { t } from "../text.js";
import { goer } from "./agents.js";

const LOOK_MS = 1000;
const SHAPES = { waiting: "waits", held: "waits", queued: "pending", stopping: "running", rollback_incomplete: "unknown", running: "running", paused: "paused", completed: "completed", failed: "failed", cancelled: "cancelled", rolled_back: "undone", rolling_back: "running", soaking: "pending" };
export const runState = (name) => state(SHAPES[name] ?? "unknown", t(`run.${name}`) === `run.${name}` ? name.replaceAll("_", " ") : t(`run.${name}`));
const PAUSABLE = new Set(["queued", "running", "soaking", "waiting", "held"]);
const ENDED = new Set(["completed", "failed", "cancelled", "rolled_back", "rollback_incomplete"]);

export default async function runs({ query }) {
  const go = goer("runs", query), plan = query.get("plan") ?? "";
  const [page, schedules] = await Promise.all([get("api/runs", { plan, limit: 100 }), get("api/schedules").catch(() => ({ schedules: [] }))]);
  const search = h("input", { type: "search", value: plan, placeholder: t("col.plan"), "aria-label": t("col.plan"), onchange: () => go({ plan: search.value.trim() }) });
  return { title: t("nav.runs"), body: [h("div", { class: "page-head" }, h("h1", {}, t("nav.runs")), may("plan") && link("start", t("start.run"), "btn primary")), h("div", { class: "filters" }, search),
    page.runs.length ? table(t("nav.runs"), [
      { head: t("col.state"), cell: (run) => runState(run.state) }, { head: t("col.plan"), cell: (run) => [link(`run/${run.run_id}`, run.plan, "strong"), run.reason && h("span", { class: "sub" }, run.reason)] },
      { head: t("col.targets"), num: true, cell: (run) => number(run.targets) }, { head: t("col.failed"), num: true, min: "m", cell: (run) => number(run.counts.failed ?? 0) },
      { head: t("col.by"), min: "m", cell: (run) => run.started_by }, { head: t("col.changed"), num: true, cell: (run) => ago(run.at) }], page.runs)
      : plan ? empty(t("runs.nomatch"), t("commands.none.more"), link("runs", t("filter.clear"), "btn")) : empty(t("runs.0"), t("runs.0.more"), h("pre", { class: "code-line" }, "lightlink plan start plan.yaml")),
    schedules.schedules.length ? section(t("schedules"), null, table(t("schedules"), [
      { head: t("col.name"), cell: (each) => h("strong", {}, each.name) }, { head: t("col.plan"), cell: (each) => each.plan }, { head: "cron", cell: (each) => mono(`${each.cron} ${each.tz}`) },
      { head: t("col.next"), num: true, cell: (each) => h("time", { datetime: each.next, title: new Date(each.next).toUTCString() }, new Date(each.next).toLocaleString()) }], schedules.schedules)) : null] };
}
export async function run({ rest }) {
  let data = await get(`api/runs/${rest}`), timer = null, gone = false;
  const root = h("div", { class: "stack" }), comment = h("textarea", { rows: 2 });
  const draw = () => redraw(root, body(data, act, comment));
  async function act(verb, sent, word) {
    try { await post(`api/runs/${rest}/${verb}`, sent); toast(word); data = await get(`api/runs/${rest}`); draw(); } catch (error) { complain(error); throw error; }
  }
  draw();
  async function look() {
    timer = null;
    try {
      const next = await get(`api/runs/${rest}`);
      if (!gone && JSON.stringify(next) !== JSON.stringify(data)) { data = next; draw(); }
    } catch { /* the band says so */ }
  }
  // Its state is told as it comes; the targets' steps are commands.
  const stop = follow((commands, runs) => {
    if (runs.some((each) => each.run_id === rest)) { clearTimeout(timer); look(); } else if (commands.length && !ENDED.has(data.run.state)) timer ??= setTimeout(look, LOOK_MS);
  });
  return { title: data.run.plan, leave: () => { gone = true; clearTimeout(timer); stop(); }, body: [root] };
}
function body(data, act, comment) {
  const one = data.run, asks = (verb, danger) => button(t(`run.do.${verb}`), () => confirm(t(`run.do.${verb}`), t(`run.do.${verb}.more`), t(`run.do.${verb}`), (reason) => act(verb, { reason }, t("done")), danger));
  const open = !ENDED.has(one.state);
  return [
    h("div", { class: "page-head" }, h("div", {}, h("h1", {}, one.plan), h("p", { class: "under" }, runState(one.state), h("span", { class: "quiet" }, t("by", { x: one.started_by })), h("span", { class: "quiet" }, ago(one.started_at)))),
      may("plan") && h("div", { class: "row" }, PAUSABLE.has(one.state) && asks("pause"), one.state === "paused" && button(t("run.do.resume"), () => act("resume", undefined, t("done")).catch(() => null)), open && asks("cancel", true), !open && asks("rollback", true), ["failed", "cancelled"].includes(one.state) && button(t("run.do.retry"), () => act("retry", undefined, t("done")).catch(() => null)))),
    one.state === "waiting" && h("section", { class: "gate", "aria-label": t("gate") }, h("h2", {}, state("waits", t("gate"))), h("p", {}, t("gate.more", { n: number(one.wave) })),
      may("approve") ? [field(t("gate.comment"), comment, t("gate.comment.hint")), h("div", { class: "row" }, button(t("gate.approve"), () => act("approve", { comment: comment.value, digest: one.digest }, t("gate.approved")).catch(() => null), "primary"), button(t("gate.reject"), () => act("reject", { comment: comment.value, digest: one.digest }, t("gate.rejected")).catch(() => null)))] : h("p", { class: "quiet" }, t("gate.scope"))),
    one.reason && ENDED.has(one.state) && note(one.state === "completed" ? "completed" : "failed", h("strong", {}, one.event), h("p", {}, one.reason)),
    h("div", { class: "cols" }, h("div", { class: "stack" }, steps(data), targets(data)), h("aside", { class: "rail", "aria-label": t("facts") }, facts([["ID", mono(one.run_id)], [t("col.targets"), number(one.targets)], [t("wave"), number(one.wave)], [t("run.digest"), mono(one.digest)], Object.keys(data.params).length && [t("run.params"), mono(JSON.stringify(data.params))]])))];
}
function steps(data) {
  const outcomes = [...new Set(Object.values(data.steps).flatMap(Object.keys))];
  const rows = Object.entries(data.steps);
  return section(t("steps"), null, rows.length ? table(t("steps"), [{ head: t("step"), cell: ([name]) => h("strong", {}, name) }, ...outcomes.map((name) => ({ head: name, num: true, cell: ([, counts]) => number(counts[name] ?? 0) }))], rows) : h("p", { class: "quiet" }, t("steps.0")));
}
function targets(data) {
  const bad = (each) => (/fail|unknown|timeout/.test(each.outcome) ? 0 : 1);
  const rows = [...data.targets].sort((a, b) => bad(a) - bad(b)).slice(0, 200);
  const kind = (each) => ({ ok: "completed", done: "completed", completed: "completed", failed: "failed", unknown: "unknown" })[each.outcome] ?? "pending";
  return section(t("col.targets"), null, table(t("col.targets"), [
    { head: t("col.state"), cell: (each) => state(kind(each), each.outcome || t("state.pending")) }, { head: t("col.agent"), cell: (each) => [link(`agent/${each.client_id}`, each.client_id), each.error && h("span", { class: "sub bad" }, each.error)] },
    { head: t("step"), cell: (each) => each.step }, { head: t("wave"), num: true, cell: (each) => number(each.wave + 1) }], rows));
}
