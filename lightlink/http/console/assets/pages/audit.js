import { get } from "../api.js";
import { at, button, empty, h, link, mono, table, toast } from "../dom.js";
import { t } from "../text.js";
import { goer } from "./agents.js";

const COLUMNS = ["at", "by", "kind", "status", "status_detail", "command_type", "client_id", "command_id", "run_id", "event", "error"];
// Prevent CSV injection: spreadsheets execute cells that begin like formulas.
const cell = (value) => `"${String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;

const KNOWN = new Set(["request", "cancel", "late_result"]);
// Use the label of tables and filters if there is one.
const label = (key, name) => (t(key) === key ? name.replaceAll("_", " ") : t(key));
const what = (entry) => (KNOWN.has(entry.kind) ? t(`entry.${entry.kind}`) : entry.status ? label(`${entry.run_id ? "run" : "state"}.${entry.status}`, entry.status) : (entry.event || entry.kind).replaceAll("_", " "));
// Entries about plans and schedules have neither a run nor a command.
function on(entry) {
  if (entry.run_id) return link(`run/${entry.run_id}`, t("col.run"));
  return [entry.command_id && link(`command/${entry.command_id}`, mono(entry.command_id.slice(0, 8), "whole")), h("span", { class: "sub" }, entry.client_id || entry.event)];
}
// Agents' instance ids are long random strings.
const by = (name) => (/^[0-9a-f]{32}$/.test(name) ? h("span", { title: name }, `${t("instance")} ${name.slice(0, 8)}`) : name || "–");
export default async function audit({ query }) {
  const go = goer("audit", query), last = query.get("last") ?? "3600", who = query.get("by") ?? "", sought = (query.get("what") ?? "").toLowerCase();
  const { entries } = await get("api/audit", { last, limit: 1000 });
  const rows = [...entries].reverse().filter((entry) => (!who || entry.by.includes(who)) && (!sought || [what(entry), entry.command_type, entry.error].some((each) => each?.toLowerCase().includes(sought))));
  const save = () => {
    const text = [COLUMNS.join(","), ...rows.map((entry) => COLUMNS.map((name) => cell(entry[name])).join(","))].join("\r\n");
    const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    h("a", { href: address, download: "audit.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
    toast(t("audit.saved"));
  };
  const time = h("select", { "aria-label": t("col.time"), onchange: () => go({ last: time.value }) }, [["3600", "hour"], ["86400", "day"], ["604800", "week"]].map(([value, name]) => h("option", { value, selected: value === last }, t(`time.${name}`))));
  const search = h("input", { type: "search", value: who, placeholder: t("audit.by"), "aria-label": t("audit.by"), onchange: () => go({ by: search.value.trim() }) });
  const word = h("input", { type: "search", value: query.get("what") ?? "", placeholder: t("audit.sought"), "aria-label": t("audit.sought"), onchange: () => go({ what: word.value.trim() }) });
  return { title: t("nav.audit"), body: [h("div", { class: "page-head" }, h("h1", {}, t("nav.audit")), rows.length ? button(t("audit.csv"), save) : null), h("div", { class: "filters" }, search, word, time),
    rows.length ? table(t("nav.audit"), [
      { head: t("col.time"), cell: (entry) => at(entry.at) }, { head: t("col.by"), cell: (entry) => by(entry.by) }, { head: t("audit.what"), cell: (entry) => [h("strong", {}, what(entry)), h("span", { class: "sub only-s" }, entry.command_type), entry.error && h("span", { class: "sub bad" }, entry.error)] },
      { head: t("col.type"), min: "m", cell: (entry) => mono(entry.command_type || "–") }, { head: t("audit.on"), cell: (entry) => on(entry) }], rows)
      : empty(t("audit.0"), t("audit.0.more"))] };
}
