// First what needs a person, then the health of the fleet, then the last hour.
import { get } from "../api.js";
import { ago, bytes, facts, h, link, mono, number, redraw, section, shape, span, state, table } from "../dom.js";
import { columns, meter } from "../charts.js";
import { follow, live } from "../live.js";
import { t } from "../text.js";
import { runState } from "./runs.js";

const EVERY_MS = 5000;
const known = (promise, otherwise) => promise.catch((error) => { if (error.status === 403 || error.status === 501) return otherwise; throw error; });

// A placeholder until commands are counted, which is slow when there are very many.
const uncounted = () => ({ counting: true, complete: true, total: 0, counts: {}, failures: [], stretches: Array.from({ length: 60 }, (_, place) => ({ at: new Date(Date.now() - (60 - place) * 60000).toISOString(), completed: 0, failed: 0, open: 0 })) });

async function load(first) {
  const counted = get("api/commands/summary");
  counted.catch(() => null);
  const [agents, runs, server] = await Promise.all([get("api/agents", { limit: 1 }), known(get("api/runs", { limit: 8 }), { runs: [] }), known(asked(), null)]);
  first?.({ agents, summary: uncounted(), runs: runs.runs, server });
  return { agents, summary: await counted, runs: runs.runs, server };
}
// The offset of this browser's clock, applied to every "ago" on the page.
async function asked() {
  const began = Date.now(), server = await get("api/server");
  return { ...server, ahead: ((began + Date.now()) / 2 - new Date(server.time)) / 1000 };
}
export default async function overview() {
  const root = h("div", { class: "stack" });
  let timer = null, gone = false, changed = false;
  const draw = (data) => redraw(root, data.agents.total ? body(data) : first());
  await new Promise((shown, failed) => {
    load((data) => { draw(data); shown(); }).then((data) => { if (!gone) draw(data); }, failed);
  });
  const unfollow = follow(() => { changed = true; });
  let quiet = 0;
  async function again() {
    quiet += 1;
    // Without changes only relative times are updated.
    if (!live.paused && !document.hidden && (changed || quiet % 4 === 0)) { changed = false; try { draw(await load()); } catch { changed = true; } }
    if (!gone) timer = setTimeout(again, EVERY_MS);
  }
  timer = setTimeout(again, EVERY_MS);
  return { title: t("nav.overview"), leave: () => { gone = true; clearTimeout(timer); unfollow(); }, body: [h("h1", { class: "sr" }, t("nav.overview")), root] };
}
const AGENT = `from lightlink.commands import Agent

agent = Agent("greenhouse")


@agent.command("open")
def open_(window: str) -> str:
    return f"{window} is open"
`;

function first() {
  return [h("h2", {}, t("start")), h("ol", { class: "steps" },
    h("li", {}, h("h3", {}, t("start.1")), h("pre", { class: "code-line" }, "pip install 'lightlink[cli]'")),
    h("li", {}, h("h3", {}, t("start.2")), h("pre", { class: "code-line" }, AGENT), h("p", { class: "quiet" }, t("start.2.more"))),
    h("li", {}, h("h3", {}, t("start.3")), h("pre", { class: "code-line" }, "lightlink agent run greenhouse:agent --url nats://this-server:4222")),
    h("li", {}, h("h3", {}, state("running", t("start.4"))), h("p", { class: "quiet" }, t("start.4.more"))))];
}
const FULL = 0.8, APART_SECONDS = 2;
const filled = (stream) => (stream.max_bytes ? stream.bytes / stream.max_bytes : 0);

function health(server) {
  const clock = (seconds, name) => (Math.abs(seconds) < APART_SECONDS ? state("completed", t("server.level")) : state("warn", t(`server.${seconds > 0 ? "ahead" : "behind"}`, { x: span(Math.abs(seconds)), name: t(name) })));
  return h("div", { class: "two" },
    section(t("server"), null, facts([[t("server.answer"), state("online", t("server.in", { x: span(server.round_trip) }))], [t("server.address"), mono(server.server)], [t("server.clock"), clock(-server.clock_behind, "server.this")], [t("server.yours"), clock(server.ahead, "server.browser")]])),
    section(t("server.streams"), null, table(t("server.streams"), [{ head: t("col.stream"), cell: (each) => mono(each.name) }, { head: t("col.messages"), num: true, min: "m", cell: (each) => number(each.messages) }, { head: t("col.size"), num: true, cell: (each) => bytes(each.bytes) },
      { head: t("col.fill"), num: true, cell: (each) => (each.max_bytes ? meter(filled(each), t("streams.fill", { name: each.name })) : t("server.unlimited")) }], server.streams)));
}
function body({ agents, summary, runs, server }) {
  const counts = summary.counts, failed = (counts.failed ?? 0) + (counts.timeout ?? 0), ended = failed + (counts.completed ?? 0);
  const waiting = runs.filter((run) => run.state === "waiting" || run.attention_total);
  const full = (server?.streams ?? []).filter((each) => filled(each) > FULL);
  const kpi = (name, value, more, to, kind = "quiet") => h("li", {}, h("a", { href: `#/${to}` }, h("span", {}, name), h("b", {}, value), h("span", { class: kind }, more)));
  const told = (value) => (summary.counting ? "–" : number(value));
  const offline = agents.total - agents.online;
  return [
    waiting.length + full.length ? section(t("needs", { n: waiting.length + full.length }), null, h("ul", { class: "needs" }, full.map((each) =>
      h("li", {}, shape("warn"), h("div", {}, h("strong", {}, t("needs.full", { name: each.name, p: Math.round(filled(each) * 100) })), " ", h("span", { class: "quiet" }, t("needs.full.more"))))), waiting.map((run) =>
      h("li", {}, shape("waits"), h("div", {}, h("strong", {}, run.plan), " ", h("span", { class: "quiet" }, t("needs.run", { n: number(run.targets), by: run.started_by }))), link(`run/${run.run_id}`, t("needs.look"), "btn small")))))
      : h("p", { class: "quiet" }, t("needs.none")),
    h("ul", { class: "kpis" },
      kpi(t("kpi.online"), [number(agents.online), h("small", {}, ` / ${number(agents.total)}`)], offline ? t("kpi.offline", { n: number(offline) }) : t("kpi.all"), offline ? "agents?online=false" : "agents"),
      kpi(t("kpi.running"), told(counts.executing ?? 0), t("kpi.hour"), "commands?status=executing"),
      kpi(t("kpi.pending"), told(counts.pending ?? 0), t("kpi.hour"), "commands?status=pending"),
      kpi(t("kpi.failed"), told(failed), failed ? t("kpi.share", { p: ((failed / ended) * 100).toFixed(1) }) : summary.counting ? t("kpi.counting") : t("kpi.none"), "commands?status=failed&last=3600", failed ? "bad" : "quiet")),
    columns(t("chart"), summary.stretches),
    summary.complete ? null : h("p", { class: "quiet" }, t("chart.part", { n: number(summary.total) })),
    h("div", { class: "two" },
      section(t("failures"), link("commands?status=failed&last=3600", t("failures.all"), "quiet"), summary.failures.length ? table(t("failures"), [
        { head: t("col.error"), cell: (each) => link(`commands?status=${each.status}&last=3600&command_type=${encodeURIComponent(each.command_type)}`, each.error || t(`state.${each.status}`)) },
        { head: t("col.type"), cell: (each) => mono(each.command_type) }, { head: t("col.count"), num: true, cell: (each) => number(each.count) }], summary.failures) : h("p", { class: "quiet" }, t(summary.counting ? "kpi.counting" : "failures.none"))),
      section(t("nav.runs"), link("runs", t("runs.all"), "quiet"), runs.length ? table(t("nav.runs"), [
        { head: t("col.run"), cell: (run) => link(`run/${run.run_id}`, run.plan, "strong") }, { head: t("col.state"), cell: (run) => runState(run.state) },
        { head: t("col.targets"), num: true, cell: (run) => number(run.targets) }, { head: t("col.changed"), num: true, cell: (run) => ago(run.at) }], runs.slice(0, 5)) : h("p", { class: "quiet" }, t("runs.none")))),
    server && health(server)];
}
