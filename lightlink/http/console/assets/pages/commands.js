// The list keeps its filters in the URL. A command shows its state, then the error, then the timeline.
import { get, may, post } from "../api.js";
import { ago, at, button, complain, confirm, empty, facts, h, json, link, mono, note, number, redraw, section, segments, span, state, shape, table, toast } from "../dom.js";
import { progress, stacked } from "../charts.js";
import { follow, live } from "../live.js";
import { t } from "../text.js";
import { goer } from "./agents.js";

const SIZE = 50;
const STATES = ["", "pending", "executing", "completed", "failed", "timeout"];
const OPEN = new Set(["pending", "executing"]);

// A cancelled command is stored as failed, and shown as cancelled.
const isCancelled = (command) => command.status === "failed" && command.status_detail === "cancelled";
const hasFailed = (command) => (command.status === "failed" || command.status === "timeout") && !isCancelled(command);
export const commandState = (command) => state(isCancelled(command) ? "cancelled" : command.status);
const took = (command) => command.completed_at ? span(Math.max(0, (new Date(command.completed_at) - new Date(command.created_at)) / 1000)) : "–";

export function commandTable(commands) {
  return table(t("nav.commands"), [
    { head: t("col.state"), cell: (each) => commandState(each) },
    { head: t("col.command"), cell: (each) => [link(`command/${each.command_id}`, each.command_type, "strong"), each.error ? h("span", { class: "sub bad" }, each.error.slice(0, 200)) : each.progress && OPEN.has(each.status) ? h("span", { class: "sub" }, `${Math.round(each.progress.fraction * 100)} % ${each.progress.note}`) : null, h("span", { class: "sub only-s" }, link(`agent/${each.client_id}`, each.client_id))] },
    { head: t("col.agent"), min: "m", cell: (each) => link(`agent/${each.client_id}`, each.client_id) },
    { head: t("col.took"), num: true, min: "m", cell: took }, { head: t("col.sent"), num: true, cell: (each) => ago(each.created_at) },
    { head: t("col.by"), min: "m", cell: (each) => each.issued_by }, { head: "ID", min: "l", cell: (each) => mono(each.command_id.slice(0, 8), "quiet") }], commands, (each) => each.command_id);
}
export default async function commands({ query }) {
  const go = goer("commands", query), names = ["client_id", "label", "command_type", "status", "last", "batch_id"];
  const wanted = Object.fromEntries(names.map((name) => [name, query.get(name) ?? ""]));
  const after = query.get("after") ?? "";
  const labelled = wanted.label ? get("api/agents", { label: wanted.label, limit: 1000 }).then((found) => new Set(found.agents.map((each) => each.client_id))) : null;
  const [page, batch, members] = await Promise.all([get("api/commands", { ...wanted, after, limit: SIZE }), wanted.batch_id ? follower(wanted.batch_id) : null, labelled]);
  const rows = h("div", {});
  let failedFirst = query.get("order") === "failed";
  const actions = h("div", { class: "row" });
  const draw = () => {
    redraw(actions, bulk());
    const list = failedFirst ? [...page.commands].sort((a, b) => hasFailed(b) - hasFailed(a)) : page.commands;
    const filtered = names.some((name) => wanted[name]);
    redraw(rows, list.length ? [commandTable(list), footer()] : filtered ? empty(t("commands.none"), t("commands.none.more"), link("commands", t("filter.clear"), "btn")) : empty(t("commands.0"), t("commands.0.more"), link("send", t("nav.send"), "btn primary"), h("pre", { class: "code-line" }, "lightlink command send AGENT TYPE '{}'")));
  };
  const bulk = () => may("send") ? [
    page.commands.some((each) => OPEN.has(each.status)) && button(t("commands.cancel"), () => ask("commands.cancel", ["pending", "executing"], (one, reason) => post(`api/command/${one.command_id}/cancel`, { reason }), true)),
    page.commands.some(hasFailed) && button(t("commands.again"), () => ask("commands.again", ["failed", "timeout"], sendAgain)),
    link("send", t("nav.send"), "btn primary")] : null;
  // All that match the filters, on other pages too; the button shows how many.
  async function ask(what, statuses, act, danger = false) {
    let list;
    try { list = await all(wanted, statuses); } catch (error) { complain(error); return; }
    const verb = t(`${what}.n`, { n: number(list.length) });
    confirm(verb, t(`${what}.more`), verb, async (reason) => toast(t(`${what}.done`, { n: number(await each(list, (one) => act(one, reason))) })), danger);
  }
  const footer = () => page.next || after ? h("div", { class: "pager" }, after && button(t("newest"), () => go({}), "small"), page.next && button(t("older"), () => go({ after: page.next }), "small")) : null;
  draw();
  const matches = (each) => (!wanted.client_id || each.client_id === wanted.client_id) && (!members || members.has(each.client_id)) && (!wanted.command_type || each.command_type === wanted.command_type) && (!wanted.status || each.status === wanted.status) && (!wanted.batch_id || each.batch_id === wanted.batch_id);
  // Rows update in place. New ones are inserted at the top, unless the pointer is over the list.
  let fresh = 0;
  const more = h("button", { type: "button", class: "btn small", hidden: true, onclick: () => { fresh = 0; goer("commands", query)({ after: "" }); window.dispatchEvent(new HashChangeEvent("hashchange")); } });
  const stop = follow((changes) => {
    let touched = false;
    for (const each of changes) {
      const place = page.commands.findIndex((one) => one.command_id === each.command_id);
      if (place >= 0) { page.commands[place] = each; touched = true; }
      else if (!after && matches(each)) {
        if (rows.matches(":hover, :focus-within")) { fresh += 1; more.textContent = t("commands.fresh", { n: number(fresh) }); more.hidden = false; }
        else { page.commands.unshift(each); page.commands.splice(SIZE); touched = true; }
      }
    }
    if (touched) draw();
    if (batch && changes.some((each) => each.batch_id === wanted.batch_id)) batch.look();
  });
  const client = h("input", { type: "search", value: wanted.client_id, placeholder: t("commands.client"), "aria-label": t("commands.client"), autocomplete: "off", onchange: () => go({ client_id: client.value.trim() }) });
  const label = h("input", { type: "search", value: wanted.label, placeholder: "site=berlin", "aria-label": t("commands.label"), autocomplete: "off", onchange: () => go({ label: label.value.replace(/\s/g, "") }) });
  const type = h("input", { type: "search", value: wanted.command_type, placeholder: t("col.type"), "aria-label": t("col.type"), autocomplete: "off", onchange: () => go({ command_type: type.value.trim() }) });
  const last = h("select", { "aria-label": t("col.time"), onchange: () => go({ last: last.value }) }, [["", "any"], ["3600", "hour"], ["86400", "day"], ["604800", "week"]].map(([value, name]) => h("option", { value, selected: value === wanted.last }, t(`time.${name}`))));
  const order = h("input", { type: "checkbox", checked: failedFirst, onchange: () => { failedFirst = order.checked; go({ order: failedFirst ? "failed" : "", after }); } });
  const title = batch ? t("batch.title", { x: wanted.batch_id.slice(0, 8) }) : t("nav.commands");
  return { title, parent: batch && "commands", leave: () => { stop(); batch?.stop(); }, body: [
    h("div", { class: "page-head" }, h("h1", {}, title), actions), batch?.body,
    h("div", { class: "filters" }, client, label, type, last, segments(t("col.state"), STATES.map((each) => [each, each ? t(`state.${each}`) : t("all")]), wanted.status, (status) => go({ status })), h("label", { class: "inline" }, order, t("commands.order")), more), rows] };
}
// The progress of a batch; recounted when one of its commands changes, at most once a second.
const COUNT_MS = 1000;
async function follower(batchId) {
  const root = h("div", { class: "batch" });
  let timer = null, gone = false;
  async function count() {
    const { total, success_count: done, failed_count: wrong } = await get(`api/batch/${encodeURIComponent(batchId)}`, { results: "none" });
    const said = t("batch.said", { a: number(done), b: number(wrong), c: number(total - done - wrong), n: number(total) });
    if (!gone) redraw(root, [stacked(done / total, wrong / total, said), h("p", {}, said)]);
  }
  await count();
  // A failed count is repeated with the next change; the banner tells of an unreachable server.
  const look = () => { timer ??= setTimeout(() => { timer = null; count().catch(() => null); }, COUNT_MS); };
  return { body: root, look, stop: () => { gone = true; clearTimeout(timer); } };
}
const MOST = 1000;
async function all(wanted, statuses) {
  const found = [];
  for (const status of statuses.filter((one) => !wanted.status || one === wanted.status)) {
    let after = "";
    do {
      const page = await get("api/commands", { ...wanted, status, after, limit: MOST });
      found.push(...page.commands.filter((one) => OPEN.has(status) || hasFailed(one)));
      after = page.next ?? "";
    } while (after && found.length < MOST);
  }
  return found.slice(0, MOST);
}
// A few at a time: browsers allow six connections per host. Skip ended ones; wait when rate-limited.
const TOO_FAST_MS = 1000;
async function each(list, act) {
  let done = 0;
  const queue = [...list];
  async function work() {
    for (let one = queue.shift(); one; one = queue.shift()) {
      try { await act(one); done += 1; } catch (error) {
        if (error.status === 429) { queue.unshift(one); await new Promise((go) => { setTimeout(go, TOO_FAST_MS); }); } else if (error.status !== 409) throw error;
      }
    }
  }
  await Promise.all([work(), work(), work()]);
  return done;
}
// By the server, which has the payload as it was sent.
const sendAgain = (each) => post(`api/command/${each.command_id}/resend`, {});

export async function command({ rest }) {
  const read = async () => (await get(`api/command/${rest}`)).command;
  // Changes that arrive while this page loads are not sent again.
  let meanwhile = null;
  const listening = follow((changes) => { meanwhile = changes.find((each) => each.command_id === rest) ?? meanwhile; });
  let one = null, entries = [], timer = null, gone = false;
  const root = h("div", { class: "stack" }), head = h("div", {});
  async function history() { entries = (await get(`api/command/${rest}/history`).catch(() => ({ entries }))).entries; }
  const draw = () => { redraw(head, top(one)); redraw(root, body(one, entries)); };
  try { one = await read(); await history(); } finally { listening(); }
  if (meanwhile && OPEN.has(one.status)) one = { ...meanwhile, undone_by: one.undone_by };
  draw();
  const stop = follow((changes) => {
    // The undo is another command, which only this command's record names.
    if (one.undo && changes.some((each) => each.client_id === one.client_id && each.command_type === one.undo)) read().then((now) => { one = now; if (!gone) draw(); }, () => null);
    const change = changes.find((each) => each.command_id === rest);
    if (!change) return;
    const turned = change.status !== one.status;
    one = { ...change, undone_by: one.undone_by };
    draw();
    // The audit lags a little behind.
    if (turned) { clearTimeout(timer); timer = setTimeout(async () => { await history(); if (!gone && !live.paused) draw(); }, 500); }
  });
  return { title: `${one.command_type} · ${rest.slice(0, 8)}`, leave: () => { gone = true; clearTimeout(timer); stop(); }, body: [head, root] };
}
function top(one) {
  const open = OPEN.has(one.status);
  const again = async () => { try { location.hash = `#/command/${(await sendAgain(one)).command_id}`; } catch (error) { complain(error); } };
  const undo = async () => { try { location.hash = `#/command/${(await post(`api/command/${one.command_id}/undo`, {})).command_id}`; } catch (error) { complain(error); } };
  const cancel = () => confirm(t("command.cancel"), t(one.status === "executing" ? "command.cancel.running" : "command.cancel.pending"), t("command.cancel"), async (reason) => { await post(`api/command/${one.command_id}/cancel`, { reason }); toast(t("command.cancelled")); }, true);
  return h("div", { class: "page-head" }, h("div", {}, h("h1", {}, one.command_type), h("p", { class: "under" }, commandState(one), h("span", { class: "quiet" }, t("on")), link(`agent/${one.client_id}`, one.client_id, "strong"), h("span", { class: "quiet" }, ago(one.created_at)))),
    may("send") && h("div", { class: "row" }, open && button(t("command.cancel"), cancel, "", { disabled: one.cancel_requested }), one.undo && !one.undone_by && button(t("command.undo"), undo, "", { title: t("command.undo.by", { x: one.undo }) }), !open && button(t("command.again"), again, "primary")));
}
function body(one, entries) {
  return h("div", { class: "cols" }, h("div", { class: "stack" }, outcome(one), section(t("command.timeline"), null, timeline(entries))),
    h("aside", { class: "rail", "aria-label": t("facts") }, facts([["ID", mono(one.command_id)], [t("col.by"), one.issued_by], [t("timeout"), span(one.timeout)], [t("priority"), String(one.priority)], one.attempt > 1 && [t("attempt"), String(one.attempt)], one.batch_id && [t("batch"), link(`commands?batch_id=${one.batch_id}`, mono(one.batch_id))], one.instance && [t("instance"), mono(one.instance)]]), h("h2", {}, t("payload")), json(one.payload)));
}
function outcome(one) {
  if (one.status === "pending") return note("pending", h("strong", {}, t("command.pending")), h("p", {}, t("command.pending.more")));
  if (one.status === "executing") {
    const fraction = one.progress?.fraction ?? 0;
    return section(t("command.progress"), null, h("p", { class: "saying" }, h("span", {}, one.progress?.note || t(one.cancel_requested ? "command.stopping" : "command.running")), one.progress && h("b", {}, `${Math.round(fraction * 100)} %`)), one.progress && progress(fraction, t("command.progress")));
  }
  if (one.status === "completed") return [one.undone_by && note("undone", h("p", {}, t("command.undone"), " ", link(`command/${one.undone_by}`, mono(one.undone_by.slice(0, 8))))), section(t("command.result"), null, json(one.result ?? null))];
  const cancelled = one.status_detail === "cancelled";
  return [note(cancelled ? "cancelled" : one.status, h("strong", {}, t(cancelled ? "state.cancelled" : `command.${one.status}`)), h("p", {}, one.error || one.status_detail), one.outcome_unknown && h("p", {}, t("command.unknown"))),
    one.late_result !== undefined && section(t("command.late"), null, json(one.late_result))];
}
function timeline(entries) {
  // Agents' instance ids are long random strings.
  const who = (by) => (/^[0-9a-f]{32}$/.test(by) ? t("by.instance", { x: by.slice(0, 8) }) : t("by", { x: by }));
  const kind = (entry) => (entry.kind === "request" ? "pending" : entry.kind === "cancel" || entry.status_detail === "cancelled" ? "cancelled" : entry.kind === "late_result" ? "warn" : entry.status);
  const word = (entry) => (entry.kind === "status" ? t(`state.${kind(entry)}`) : t(`entry.${entry.kind}`));
  return h("ol", { class: "timeline" }, [...entries].reverse().map((entry) => h("li", {}, h("span", { class: `is-${kind(entry)}` }, shape(kind(entry))), h("div", {}, h("strong", {}, word(entry)), h("span", { class: "sub" }, [entry.by && who(entry.by), entry.attempt > 1 && `${t("attempt")} ${entry.attempt}`, entry.error].filter(Boolean).join(" · "))), at(entry.at))));
}
