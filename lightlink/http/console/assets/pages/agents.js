import { get, may } from "../api.js";
import { ago, button, chips, empty, facts, h, link, mono, number, section, segments, state, table } from "../dom.js";
import { t } from "../text.js";
import { commandTable } from "./commands.js";
import { runTable } from "./runs.js";

const SIZE = 50;

// Filters are kept in the URL, so that a view can be shared.
export function goer(page, query) {
  return (changes) => {
    // Read the current URL: the page of an earlier change may not be drawn yet.
    const [where, asked] = location.hash.slice(2).split("?");
    const next = new URLSearchParams(where === page ? asked : query);
    for (const [name, value] of Object.entries({ skip: "", after: "", ...changes })) if (value) next.set(name, value); else next.delete(name);
    location.hash = `#/${page}${[...next].length ? `?${next}` : ""}`;
  };
}
export default async function agents({ query }) {
  const go = goer("agents", query), wanted = Object.fromEntries(["find", "label", "command_type", "online"].map((name) => [name, query.get(name) ?? ""]));
  const skip = Number(query.get("skip")) || 0;
  const page = await get("api/agents", { ...wanted, queue: true, limit: SIZE, skip });
  const filtered = Object.values(wanted).some(Boolean);
  const search = h("input", { type: "search", value: wanted.find, placeholder: t("agents.find"), "aria-label": t("agents.find"), autocomplete: "off", onchange: () => go({ find: search.value.trim() }) });
  const label = h("input", { type: "search", value: wanted.label, placeholder: "site=berlin", "aria-label": t("agents.label"), autocomplete: "off", onchange: () => go({ label: label.value.replace(/\s/g, "") }) });
  const types = [...new Set([wanted.command_type, ...page.command_types].filter(Boolean))];
  const type = h("select", { "aria-label": t("agents.type"), onchange: () => go({ command_type: type.value }) }, h("option", { value: "" }, t("agents.type.any")), types.map((each) => h("option", { value: each, selected: each === wanted.command_type }, each)));
  const sendTo = wanted.label ? `send?labels=${encodeURIComponent(wanted.label)}` : "send";
  const head = h("div", { class: "page-head" }, h("div", {}, h("h1", {}, t("nav.agents")), h("p", { class: "under quiet" }, t("agents.count", { a: number(page.online), n: number(page.total) }))), may("send") && link(sendTo, t("agents.send"), "btn primary"));
  const rows = page.agents.length ? table(t("nav.agents"), [
    { head: t("col.state"), cell: (each) => state(each.online ? "online" : "offline") },
    { head: t("col.agent"), cell: (each) => [link(`agent/${each.client_id}`, each.client_id, "strong"), h("span", { class: "sub only-s" }, Object.entries(each.labels).map(([name, value]) => `${name}=${value}`).join(" "))] },
    { head: t("col.queue"), num: true, cell: queue },
    { head: t("col.labels"), min: "m", cell: (each) => chips(each.labels) }, { head: t("col.version"), min: "l", cell: (each) => mono(each.version || "–") },
    { head: t("col.types"), num: true, min: "l", cell: (each) => number(each.command_types.length) }, { head: t("col.seen"), num: true, cell: (each) => ago(each.last_seen) }], page.agents)
    : filtered ? empty(t("agents.none"), t("agents.none.more"), link("agents", t("filter.clear"), "btn")) : empty(t("agents.0"), t("agents.0.more"), h("pre", { class: "code-line" }, "lightlink agent run greenhouse:agent --url nats://this-server:4222"));
  return { title: t("nav.agents"), body: [head,
    h("div", { class: "filters" }, search, label, type, segments(t("col.state"), [["", t("all")], ["true", t("state.online")], ["false", t("state.offline")]], wanted.online, (value) => go({ online: value }))),
    rows, pager(skip, page.total, (to) => go({ skip: to ? String(to) : "" }))] };
}
// The number of waiting commands, with a link to them.
const queue = (each) => (each.queue ? link(`commands?client_id=${each.client_id}&status=pending`, number(each.queue)) : "0");
function pager(skip, total, go) {
  if (total <= SIZE) return null;
  return h("div", { class: "pager" }, h("span", { class: "quiet" }, t("pager", { a: number(skip + 1), b: number(Math.min(skip + SIZE, total)), n: number(total) })),
    button(t("previous"), () => go(Math.max(0, skip - SIZE)), "small", { disabled: skip === 0 }), button(t("next"), () => go(skip + SIZE), "small", { disabled: skip + SIZE >= total }));
}
export async function agent({ rest }) {
  // A token for some agents only may not read runs, and a server may have none: both leave the section out.
  const part = get("api/runs", { client_id: rest, limit: 20 }).then((answer) => answer.runs, () => []);
  const [found, latest, runs] = await Promise.all([get("api/agents", { find: rest, queue: true, limit: 1000 }), get("api/commands", { client_id: rest, limit: 10 }), part]);
  const each = found.agents.find((one) => one.client_id === rest);
  if (!each) return { title: rest, body: [h("h1", {}, rest), empty(t("agent.0"), t("agent.0.more"), link("agents", t("nav.agents"), "btn"))] };
  const types = each.online ? await get(`api/agents/${rest}/types`).then((answer) => answer.types, () => []) : [];
  const told = Object.fromEntries(types.map((one) => [one.name, one.text]));
  return { title: rest, body: [
    h("div", { class: "page-head" }, h("div", {}, h("h1", {}, rest), h("p", { class: "under" }, state(each.online ? "online" : "offline"), h("span", { class: "quiet" }, t("agent.seen"), " ", ago(each.last_seen)))), may("send") && link(`send?to=${rest}`, t("agents.send"), "btn primary")),
    h("div", { class: "cols" }, h("div", { class: "stack" },
      section(t("agent.commands"), link(`commands?client_id=${rest}`, t("commands.all"), "quiet"), latest.commands.length ? commandTable(latest.commands) : h("p", { class: "quiet" }, t("agent.commands.0"))),
      runs.length ? section(t("agent.runs"), link("runs", t("runs.all"), "quiet"), runTable(runs)) : null,
      section(t("agent.types"), null, each.command_types.length ? table(t("agent.types"), [{ head: t("col.type"), cell: (name) => link(`send?to=${rest}&type=${encodeURIComponent(name)}`, mono(name)) }, { head: t("col.text"), cell: (name) => told[name] ?? "" }], each.command_types) : h("p", { class: "quiet" }, t("agent.types.0")))),
    h("aside", { class: "rail", "aria-label": t("facts") }, facts([[t("col.queue"), queue(each)], [t("col.labels"), Object.keys(each.labels).length ? chips(each.labels) : "–"], [t("col.version"), mono(each.version || "–")], [t("agent.platform"), each.platform || "–"], [t("agent.first"), ago(each.first_seen)]])))] };
}
