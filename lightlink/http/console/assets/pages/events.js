// Dead letters first, as they need a person; then the lag of consumers; then live events.
import { get, may, post } from "../api.js";
import { ago, bytes, button, complain, confirm, dialog, field, h, json, mono, number, redraw, section, state, table, toast } from "../dom.js";
import { meter } from "../charts.js";
import { live } from "../live.js";
import { t } from "../text.js";

const EVERY_MS = 5000;
const LINES = 200;

export default async function events() {
  const dead = h("div", {}), streams = h("div", {});
  let timer = null, gone = false;
  async function load() {
    const [letters, found] = await Promise.all([get("api/dead-letters"), get("api/streams")]);
    redraw(dead, deadLetters(letters, load));
    redraw(streams, tables(found.streams));
  }
  await load();
  async function again() {
    if (!live.paused && !document.hidden) try { await load(); } catch { /* the banner says so */ }
    if (!gone) timer = setTimeout(again, EVERY_MS);
  }
  timer = setTimeout(again, EVERY_MS);
  const passing = tail();
  return { title: t("nav.events"), keep: true, leave: () => { gone = true; clearTimeout(timer); passing.stop(); }, body: [
    h("div", { class: "page-head" }, h("h1", {}, t("nav.events")), may("call") && button(t("publish"), publish)), dead, streams, passing.body] };
}
function deadLetters({ letters, complete }, load) {
  const where = ({ stream, consumer, number: which }) => ({ stream, consumer, number: which });
  const act = async (what, letter) => { await post(`api/dead-letters/${what}`, where(letter)); await load(); };
  const redeliver = async (letter) => { try { await act("redeliver", letter); toast(t("dead.sent")); } catch (error) { complain(error); } };
  const drop = (letter) => confirm(t("dead.drop.n", { n: letter.number }), t("dead.drop.more"), t("dead.drop"), () => act("drop", letter), true, false);
  const look = (letter) => dialog(`${letter.subject} #${letter.number}`, [h("p", { class: "bad" }, letter.error), content(letter)], [
    may("edit") && button(t("dead.redeliver"), (event) => { event.target.closest("dialog").close(); redeliver(letter); }, "primary")]);
  const all = () => confirm(t("dead.all", { n: number(letters.length) }), t("dead.all.more"), t("dead.all", { n: number(letters.length) }), async () => { for (const letter of letters) await post("api/dead-letters/redeliver", where(letter)); await load(); }, false, false);
  const rows = [
    { head: t("col.subject"), cell: (each) => h("button", { type: "button", class: "as-link", onclick: () => look(each) }, mono(each.subject), ` #${number(each.number)}`) },
    { head: t("col.consumer"), min: "m", cell: (each) => [h("strong", {}, each.consumer), h("span", { class: "sub" }, each.stream)] },
    { head: t("col.error"), cell: (each) => h("span", { class: "bad" }, each.error.slice(0, 200)) },
    { head: t("col.attempts"), num: true, min: "l", cell: (each) => number(each.attempts) }, { head: t("col.time"), num: true, min: "m", cell: (each) => ago(each.at) },
    may("edit") && { head: t("col.do"), cell: (each) => h("span", { class: "row" }, button(t("dead.redeliver"), () => redeliver(each), "small", { "aria-label": `${t("dead.redeliver")} #${each.number}` }), button(t("dead.drop"), () => drop(each), "small ghost", { "aria-label": `${t("dead.drop")} #${each.number}` })) }].filter(Boolean);
  return section(t("dead"), letters.length > 1 && may("edit") ? button(t("dead.all", { n: number(letters.length) }), all, "small") : null,
    letters.length ? table(t("dead"), rows, letters) : h("p", { class: "quiet" }, t("dead.none")), complete ? null : h("p", { class: "quiet" }, t("dead.part")));
}
const content = (each) => ("text" in each ? h("pre", { class: "json", tabindex: "0", "aria-label": t("payload") }, each.text) : json(each.data));

function tables(found) {
  if (!found.length) return section(t("streams"), null, h("p", { class: "quiet" }, t("streams.none")));
  const consumers = found.flatMap((stream) => stream.consumers.map((each) => ({ ...each, stream: stream.name })));
  const fill = (each) => (each.max_bytes ? meter(each.bytes / each.max_bytes, t("streams.fill", { name: each.name })) : "–");
  return h("div", { class: "two" },
    section(t("streams"), null, table(t("streams"), [{ head: t("col.stream"), cell: (each) => [h("strong", {}, mono(each.name)), h("span", { class: "sub" }, each.subjects.join(" "))] }, { head: t("col.messages"), num: true, cell: (each) => number(each.messages) }, { head: t("col.size"), num: true, cell: (each) => bytes(each.bytes) }, { head: t("col.fill"), num: true, min: "m", cell: fill }], found)),
    section(t("consumers"), null, consumers.length ? table(t("consumers"), [{ head: t("col.consumer"), cell: (each) => [h("strong", {}, each.name), h("span", { class: "sub" }, each.stream)] },
      { head: t("col.state"), cell: (each) => (each.paused ? state("paused", t("state.paused")) : each.waiting ? state("warn", t("state.behind")) : state("completed", t("state.level"))) },
      { head: t("col.waiting"), num: true, cell: (each) => number(each.waiting) }, { head: t("col.flight"), num: true, min: "m", cell: (each) => number(each.in_flight) }, { head: t("col.retried"), num: true, min: "l", cell: (each) => number(each.retried) }], consumers) : h("p", { class: "quiet" }, t("consumers.none"))));
}
// A live tail of a subject, the newest 200 lines; only on request, as it takes a connection.
function tail() {
  const subject = h("input", { type: "search", value: ">", spellcheck: "false", autocomplete: "off", "aria-label": t("tail.subject"), onchange: () => { if (source) { stop(); start(); } } });
  const list = h("ol", { class: "tail", tabindex: "0", "aria-label": t("tail") }), said = h("span", { class: "quiet", role: "status" });
  const toggle = button(t("tail.start"), () => (source ? stop() : start()), "small");
  let source = null, seen = 0, skipped = 0;
  const count = () => { said.textContent = t(skipped ? "tail.skipped" : "tail.seen", { n: number(seen), s: number(skipped) }); };
  function heard(event) {
    if (live.paused) return;
    const each = JSON.parse(event.data);
    const text = "text" in each ? each.text : JSON.stringify(each.data);
    list.prepend(h("li", {}, h("time", { datetime: each.at, title: each.at }, new Date(each.at).toLocaleTimeString("en-GB")), h("strong", {}, each.subject), h("span", {}, text.slice(0, 500))));
    while (list.children.length > LINES) list.lastChild.remove();
    seen += 1;
    count();
  }
  function start() {
    source = new EventSource(`api/tail?${new URLSearchParams({ subject: subject.value.trim() || ">" })}`);
    source.onopen = count;
    source.addEventListener("message", heard);
    source.addEventListener("skipped", (event) => { skipped += JSON.parse(event.data).count; count(); });
    source.onerror = () => { if (source?.readyState === EventSource.CLOSED) { stop(); said.textContent = t("tail.refused"); } };
    toggle.textContent = t("tail.stop");
  }
  function stop() {
    source?.close();
    source = null;
    toggle.textContent = t("tail.start");
  }
  return { stop, body: section(t("tail"), said, h("div", { class: "filters" }, subject, toggle), list) };
}
function publish() {
  const subject = h("input", { type: "text", spellcheck: "false", autocomplete: "off" }), data = h("textarea", { rows: 5, class: "code", spellcheck: "false" });
  data.value = "{}";
  const fields = [field(t("col.subject"), subject, t("publish.subject")), field(t("payload"), data, "JSON")];
  const go = button(t("publish"), async () => {
    let value;
    subject.problem(subject.value.trim() ? "" : t("form.required"));
    try { value = JSON.parse(data.value); data.problem(""); } catch (error) { data.problem(error.message); return; }
    if (!subject.value.trim()) return;
    try { await post("api/publish", { subject: subject.value.trim(), data: value }); box.close(); toast(t("publish.done")); } catch (error) { subject.problem(error.message); }
  }, "primary");
  const box = dialog(t("publish"), h("div", { class: "fields" }, fields), [button(t("back"), () => box.close(), "ghost"), go]);
  subject.focus();
}
