// A run is previewed before it starts: its steps, its targets, and which of them are offline.
import { get, may, post } from "../api.js";
import { button, complain, confirm, dialog, empty, facts, field, h, link, mono, note, number, section, table, toast } from "../dom.js";
import { payloadForm } from "../form.js";
import { t } from "../text.js";

const TYPES = { str: "string", int: "integer", float: "number", bool: "boolean" };

// A plan's parameters each have a type or a default value.
function schemaOf(params) {
  const entries = Object.entries(params ?? {});
  const given = (each) => (typeof each === "object" && each !== null ? each : { type: each });
  const properties = Object.fromEntries(entries.map(([name, each]) => [name, { type: TYPES[given(each).type], default: given(each).default, description: given(each).description }]));
  return { properties, required: entries.filter(([, each]) => given(each).default === undefined).map(([name]) => name) };
}
export default async function start({ query }) {
  if (!may("plan")) return { title: t("start.run"), body: [h("h1", {}, t("start.run")), empty(t("denied"), t("denied.plan"))] };
  const byClock = query.get("by") === "clock", title = t(byClock ? "schedule.add" : "start.run");
  const { plans } = await get("api/stored-plans");
  const wanted = query.get("plan") ?? plans[0]?.name ?? "";
  const own = h("textarea", { rows: 12, class: "code", spellcheck: "false" });
  const pick = h("select", {}, plans.map((each) => h("option", { value: each.name, selected: each.name === wanted }, each.name)), h("option", { value: "" }, t("start.own")));
  const what = h("div", { class: "fields" }), result = h("div", { role: "status" });
  let form = null;
  const stored = () => plans.find((each) => each.name === pick.value);
  function draw() {
    form = payloadForm(schemaOf(stored()?.plan.params));
    result.replaceChildren();
    const params = Object.keys(stored()?.plan.params ?? {}).length || !stored();
    what.replaceChildren(...[stored() ? null : field(t("start.json"), own, t("start.json.hint")), params ? [h("h3", {}, t("run.params")), form.body] : null].flat().filter(Boolean));
  }
  pick.addEventListener("change", draw);
  what.addEventListener("input", () => result.replaceChildren());
  function read() {
    const params = form.read();
    if (!params) return null;
    if (stored()) return { plan: pick.value, params: params.value };
    try { own.problem(""); return { plan: JSON.parse(own.value), params: params.value }; } catch (error) { own.problem(error.message); own.focus(); return null; }
  }
  async function check() {
    const asked = read();
    if (!asked) return;
    try { const found = await post("api/plans/check", asked); result.replaceChildren(checked(found, () => go(asked, found), () => schedule(asked, pick.value), byClock)); } catch (error) { result.replaceChildren(note("failed", h("strong", {}, t("start.refused")), h("p", {}, error.message))); }
  }
  function go(asked, found) {
    const verb = t("start.go", { n: number(found.total) });
    confirm(verb, t("start.sure"), verb, async (reason) => { location.hash = `#/run/${(await post("api/runs", { ...asked, reason })).run.run_id}`; });
  }
  draw();
  return { title, keep: true, body: [h("h1", {}, title), h("form", { class: "stack", onsubmit: (event) => { event.preventDefault(); check().catch(complain); } },
    h("div", { class: "fields" }, field(t("col.plan"), pick, plans.length ? "" : t("start.none"))), what, h("div", { class: "row" }, h("button", { type: "submit", class: "btn" }, t("start.check")), link("runs", t("back"), "btn ghost"))), result] };
}
function checked(found, go, later, byClock) {
  return section(t("start.checked"), null,
    found.offline.length ? note("warn", h("strong", {}, t("start.offline", { n: number(found.offline.length) })), h("p", {}, found.offline.slice(0, 12).join(", "))) : null,
    table(t("start.waves"), [{ head: t("wave"), num: true, cell: ([place]) => number(place + 1) }, { head: t("col.targets"), num: true, cell: ([, names]) => number(names.length) }, { head: t("col.agents"), cell: ([, names]) => names.slice(0, 8).join(", ") + (names.length > 8 ? ` ${t("send.more", { n: number(names.length - 8) })}` : "") }], [...found.waves.entries()]),
    facts([[t("start.allowed"), number(found.failures_allowed)], found.locks.length && [t("start.locks"), mono(found.locks.join(" "))], [t("run.digest"), mono(found.digest)]]),
    h("div", { class: "row" }, button(t("schedule.it"), later, byClock ? "primary" : ""), button(t("start.go", { n: number(found.total) }), go, byClock ? "" : "primary", { disabled: !found.total })));
}
// The server validates times; its message names the error.
function schedule(asked, plan) {
  const text = (value, more = {}) => h("input", { type: "text", value, spellcheck: "false", autocomplete: "off", ...more });
  const choice = (names) => h("select", {}, names.map((name) => h("option", { value: name }, t(`schedule.${name}`))));
  const name = text(plan || asked.plan.name || ""), cron = text("", { placeholder: "30 2 * * *" }), tz = text(Intl.DateTimeFormat().resolvedOptions().timeZone);
  const overlap = choice(["skip", "allow"]), missed = h("select", {}, ["skip", "run"].map((each) => h("option", { value: each }, t(`schedule.missed.${each}`))));
  const add = button(t("schedule.add"), async () => {
    cron.problem(cron.value.trim() ? "" : t("form.required"));
    if (!cron.value.trim()) { cron.focus(); return; }
    add.disabled = true;
    try {
      await post("api/schedules", { ...asked, name: name.value.trim(), cron: cron.value.trim(), tz: tz.value.trim(), overlap: overlap.value, missed: missed.value });
      box.close();
      toast(t("schedule.added", { name: name.value.trim() }));
      location.hash = "#/runs";
    } catch (error) { cron.problem(error.message); cron.focus(); add.disabled = false; }
  }, "primary");
  const box = dialog(t("schedule.it"), h("div", { class: "fields" }, field(t("col.name"), name, t("schedule.name.hint")), field("cron", cron, t("schedule.cron.hint")), field(t("schedule.tz"), tz, t("schedule.tz.hint")), field(t("schedule.overlap"), overlap, ""), field(t("schedule.missed"), missed, "")), [button(t("back"), () => box.close(), "ghost"), add]);
  name.focus();
}
