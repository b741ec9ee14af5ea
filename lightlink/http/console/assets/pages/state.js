// Buckets, keys, and values with their history. A write is compare-and-set on the revision shown.
import { call, get, may, put } from "../api.js";
import { ago, button, bytes, complain, confirm, dialog, empty, facts, field, h, json, link, mono, note, number, section, table, toast } from "../dom.js";
import { difference } from "../difference.js";
import { t } from "../text.js";
import { goer } from "./agents.js";

const SIZE = 100;
const path = (...names) => names.map(encodeURIComponent).join("/");

export default async function state() {
  const { buckets } = await get("api/state");
  return { title: t("nav.state"), body: [h("h1", {}, t("nav.state")), buckets.length ? table(t("nav.state"), [
    { head: t("col.bucket"), cell: (each) => link(path("bucket", each.name), mono(each.name), "strong") }, { head: t("col.values"), num: true, cell: (each) => number(each.values) }, { head: t("col.size"), num: true, cell: (each) => bytes(each.bytes) }], buckets)
    : empty(t("state.0"), t("state.0.more"), h("pre", { class: "code-line" }, "lightlink state set greeting '\"hello\"'"))] };
}
export async function bucket({ rest, query }) {
  const go = goer(path("bucket", rest), query), pattern = query.get("pattern") ?? "", skip = Number(query.get("skip")) || 0;
  const page = await get(`api/state/${path(rest)}`, { pattern: pattern || ">", limit: SIZE, skip });
  const search = h("input", { type: "search", value: pattern, placeholder: ">", "aria-label": t("state.pattern"), spellcheck: "false", autocomplete: "off", onchange: () => go({ pattern: search.value.trim() }) });
  const more = page.total > SIZE && h("div", { class: "pager" }, h("span", { class: "quiet" }, t("pager", { a: number(skip + 1), b: number(Math.min(skip + SIZE, page.total)), n: number(page.total) })),
    button(t("previous"), () => go({ skip: String(Math.max(0, skip - SIZE) || "") }), "small", { disabled: !skip }), button(t("next"), () => go({ skip: String(skip + SIZE) }), "small", { disabled: skip + SIZE >= page.total }));
  return { title: rest, body: [h("div", { class: "page-head" }, h("h1", {}, mono(rest)), may("edit") && button(t("state.new"), () => create(rest), "primary")),
    h("div", { class: "filters" }, search, h("span", { class: "quiet" }, t("state.keys", { n: number(page.total) }))),
    page.keys.length ? table(t("state.list"), [{ head: t("col.key"), cell: (key) => link(path("key", rest, key), mono(key)) }], page.keys) : empty(t("state.none"), t("commands.none.more")), more] };
}
function create(name) {
  const key = h("input", { type: "text", spellcheck: "false", autocomplete: "off" }), area = editor(null);
  const go = button(t("state.save"), async () => {
    const given = area.read();
    key.problem(key.value.trim() ? "" : t("form.required"));
    if (!given || !key.value.trim()) return;
    try { await put(`api/state/${path(name, key.value.trim())}`, { value: given.value, revision: 0 }); box.close(); location.hash = `#/${path("key", name, key.value.trim())}`; } catch (error) { key.problem(error.message); }
  }, "primary");
  const box = dialog(t("state.new"), h("div", { class: "fields" }, field(t("col.key"), key, t("state.key.hint")), area.body), [button(t("back"), () => box.close(), "ghost"), go]);
  key.focus();
}
export async function key({ rest }) {
  const [bucketName, ...parts] = rest.split("/"), name = parts.join("/"), where = `api/state/${path(bucketName, name)}`;
  const { revisions } = await get(where);
  const last = revisions[0], root = h("div", { class: "stack" });
  const reload = () => window.dispatchEvent(new HashChangeEvent("hashchange"));
  const edit = () => {
    const area = editor(last.operation === "put" ? last.value : null);
    const save = button(t("state.save"), async () => {
      const given = area.read();
      if (!given) return;
      try { await put(where, { value: given.value, revision: last.revision }); toast(t("state.saved")); reload(); } catch (error) {
        // Revision conflict: keep the input, beside the current value.
        if (error.status === 409) root.replaceChildren(section(t("state.edit"), null, note("warn", h("strong", {}, t("state.conflict")), h("p", {}, t("state.conflict.more"))), area.body, h("div", { class: "row" }, button(t("state.look"), reload)))); else complain(error);
      }
    }, "primary");
    root.replaceChildren(section(t("state.edit"), null, area.body, h("div", { class: "row" }, save, button(t("back"), reload, "ghost"))));
    area.focus();
  };
  const remove = () => confirm(t("state.delete.n", { key: name }), t("state.delete.more"), t("state.delete"), async () => { await call("DELETE", `${where}?revision=${last.revision}`); location.hash = `#/${path("bucket", bucketName)}`; }, true, false);
  root.replaceChildren(section(t("state.value"), null, last.operation === "put" ? value(last) : note("cancelled", h("strong", {}, t("state.removed")))), history(revisions));
  return { title: name, keep: true, body: [
    h("div", { class: "page-head" }, h("div", {}, h("h1", {}, mono(name)), h("p", { class: "under quiet" }, t("state.revision", { n: number(last.revision) }), ago(last.at))), may("edit") && h("div", { class: "row" }, last.operation === "put" && button(t("state.delete"), remove), !("text" in last) && button(t("state.edit"), edit, "primary"))),
    h("div", { class: "cols" }, root, h("aside", { class: "rail", "aria-label": t("facts") }, facts([[t("col.bucket"), link(path("bucket", bucketName), mono(bucketName))], [t("col.revision"), number(last.revision)]])))] };
}
const value = (each) => ("text" in each ? h("pre", { class: "json", tabindex: "0", "aria-label": t("state.value") }, each.text) : json(each.value));

function editor(given) {
  const area = h("textarea", { rows: 12, class: "code", spellcheck: "false" });
  area.value = JSON.stringify(given, null, 2);
  const row = field(t("state.value"), area, "JSON");
  const read = () => { try { const found = JSON.parse(area.value); area.problem(""); return { value: found }; } catch (error) { area.problem(error.message); area.focus(); return null; } };
  area.addEventListener("input", () => { try { JSON.parse(area.value); area.problem(""); } catch (error) { area.problem(error.message); } });
  return { body: row, read, focus: () => area.focus() };
}
function history(revisions) {
  const shown = h("div", {});
  const text = (each) => (each.operation !== "put" ? "" : "text" in each ? each.text : JSON.stringify(each.value, null, 2));
  const compare = (place) => { const older = revisions[place + 1]; shown.replaceChildren(h("h3", {}, t("state.between", { a: number(older.revision), b: number(revisions[place].revision) })), difference(text(older), text(revisions[place]))); };
  return section(t("state.history"), null, table(t("state.history"), [
    { head: t("col.revision"), num: true, cell: (each) => number(each.revision) }, { head: t("audit.what"), cell: (each) => t(`state.op.${each.operation}`) }, { head: t("col.time"), cell: (each) => ago(each.at) },
    { head: t("col.do"), cell: (each) => (revisions.indexOf(each) + 1 < revisions.length ? button(t("state.compare"), () => compare(revisions.indexOf(each)), "small", { "aria-label": `${t("state.compare")} ${each.revision}` }) : "") }], revisions), shown);
}
