// Enrolment requests, accepted by comparing fingerprints; then members, and certificates that expire soon.
import { get, post } from "../api.js";
import { ago, button, chips, confirm, dialog, empty, field, h, link, moment, mono, section, state, table, toast } from "../dom.js";
import { t } from "../text.js";

const MONTH_MS = 30 * 86400 * 1000;

export default async function fleet() {
  let requests, identities, tokens;
  try {
    [{ requests }, { identities }, { tokens }] = await Promise.all([get("api/fleet/requests"), get("api/fleet/identities"), get("api/fleet/tokens")]);
  } catch (error) {
    if (error.status !== 501 && error.status !== 503) throw error;
    return { title: t("nav.fleet"), body: [h("h1", {}, t("nav.fleet")), empty(t("fleet.not"), t("fleet.not.more"), h("p", { class: "quiet" }, error.message))] };
  }
  const reload = () => window.dispatchEvent(new HashChangeEvent("hashchange"));
  const decide = async (verb, each) => { await post(`api/fleet/${verb}`, { fingerprint: each.fingerprint, id: each.id }); toast(t(`fleet.${verb}.done`, { name: each.name })); reload(); };
  function accept(each) {
    const problem = h("p", { class: "err", role: "alert" });
    const same = button(t("fleet.same"), async () => { try { await decide("accept", each); box.close(); } catch (error) { problem.textContent = error.message; } }, "primary");
    const box = dialog(t("fleet.accept.n", { name: each.name }), [h("p", {}, t("fleet.compare")), h("p", { class: "finger" }, mono(each.fingerprint)), problem], [button(t("back"), () => box.close(), "ghost"), same]);
  }
  const reject = (each) => confirm(t("fleet.reject.n", { name: each.name }), t("fleet.reject.more"), t("fleet.reject"), () => decide("reject", each), true, false);
  const revoke = (each) => confirm(t("fleet.revoke.n", { name: each.name }), t("fleet.revoke.more"), t("fleet.revoke"), async (reason) => { await post("api/fleet/revoke", { name: each.name, reason }); reload(); }, true);
  const soon = (each) => each.not_after && !each.revoked && new Date(each.not_after) - Date.now() < MONTH_MS;
  const rows = [...identities].sort((a, b) => Number(a.revoked) - Number(b.revoked) || (a.not_after ?? "").localeCompare(b.not_after ?? ""));
  return { title: t("nav.fleet"), body: [h("div", { class: "page-head" }, h("h1", {}, t("nav.fleet")), button(t("fleet.token"), () => makeToken(reload), "primary")),
    section(t("fleet.waiting"), null, requests.length ? table(t("fleet.waiting"), [
      { head: t("col.name"), cell: (each) => h("strong", {}, each.name) }, { head: t("fleet.fingerprint"), min: "m", cell: (each) => mono(each.fingerprint) }, { head: t("col.labels"), min: "l", cell: (each) => chips(each.labels) }, { head: t("col.time"), num: true, cell: (each) => ago(each.requested_at) },
      { head: t("col.do"), cell: (each) => h("span", { class: "row" }, button(t("fleet.accept"), () => accept(each), "small", { "aria-label": `${t("fleet.accept")} ${each.name}` }), button(t("fleet.reject"), () => reject(each), "small ghost", { "aria-label": `${t("fleet.reject")} ${each.name}` })) }], requests) : h("p", { class: "quiet" }, t("fleet.waiting.none"))),
    section(t("fleet.tokens"), null, tokens.length ? table(t("fleet.tokens"), [
      { head: t("col.name"), cell: (each) => h("strong", {}, each.name) }, { head: t("fleet.role"), min: "m", cell: (each) => each.role }, { head: t("col.labels"), min: "l", cell: (each) => chips(each.labels) },
      { head: t("fleet.then"), min: "m", cell: (each) => t(each.approve ? "fleet.then.waits" : "fleet.then.in") }, { head: t("fleet.until"), num: true, cell: (each) => moment(each.expires) }], tokens) : h("p", { class: "quiet" }, t("fleet.tokens.none"))),
    section(t("fleet.identities"), null, identities.length ? table(t("fleet.identities"), [
      { head: t("col.state"), cell: (each) => (each.revoked ? state("cancelled", t("fleet.revoked")) : soon(each) ? state("warn", t("fleet.soon")) : state("completed", t("fleet.good"))) },
      { head: t("col.name"), cell: (each) => [each.role === "agent" ? link(`agent/${each.name}`, each.name, "strong") : h("strong", {}, each.name), each.reason && h("span", { class: "sub" }, each.reason)] }, { head: t("fleet.role"), min: "m", cell: (each) => each.role },
      { head: t("col.labels"), min: "l", cell: (each) => chips(each.labels) }, { head: t("fleet.ends"), num: true, cell: (each) => (each.not_after ? moment(each.not_after) : "–") },
      { head: t("col.do"), cell: (each) => (each.revoked ? "" : button(t("fleet.revoke"), () => revoke(each), "small ghost", { "aria-label": `${t("fleet.revoke")} ${each.name}` })) }], rows) : h("p", { class: "quiet" }, t("fleet.none")))] };
}
// A token is shown once; neither the server nor the browser stores it.
function makeToken(reload) {
  const name = h("input", { type: "text", spellcheck: "false", autocomplete: "off" }), hours = h("input", { type: "text", inputmode: "decimal", value: "1" });
  const labels = h("input", { type: "text", spellcheck: "false", autocomplete: "off", placeholder: "site=berlin" }), approve = h("input", { type: "checkbox" });
  const body = h("div", { class: "fields" }, field(t("col.name"), name, t("fleet.token.name")), field(t("fleet.token.hours"), hours, t("fleet.token.hours.hint")), field(t("col.labels"), labels, t("fleet.token.labels")), h("label", { class: "inline" }, approve, t("fleet.token.approve")));
  function read() {
    const life = Number(hours.value), pairs = labels.value.split(",").map((each) => each.trim()).filter(Boolean).map((each) => each.split("=").map((part) => part.trim()));
    name.problem(/^[A-Za-z0-9_-]+$/.test(name.value.trim()) ? "" : t("fleet.token.name.wrong"));
    hours.problem(life > 0 && life <= 720 ? "" : t("fleet.token.hours.wrong"));
    labels.problem(pairs.every((pair) => pair.length === 2 && pair[0]) ? "" : t("fleet.token.labels.wrong"));
    const wrong = [name, hours, labels].find((each) => each.getAttribute("aria-invalid") === "true");
    wrong?.focus();
    return wrong ? null : { name: name.value.trim(), hours: life, labels: Object.fromEntries(pairs), approve: approve.checked };
  }
  const make = button(t("fleet.token.make"), async () => {
    const asked = read();
    if (!asked) return;
    make.disabled = true;
    try { const made = await post("api/fleet/tokens", asked); box.close(); showToken(made); reload(); } catch (error) { name.problem(error.message); name.focus(); make.disabled = false; }
  }, "primary");
  const box = dialog(t("fleet.token"), body, [button(t("back"), () => box.close(), "ghost"), make]);
  name.focus();
}
function showToken({ name, token }) {
  const text = h("pre", { class: "code-line token", tabindex: "0", "aria-label": t("fleet.token.text") }, token);
  const copy = button(t("copy"), () => navigator.clipboard.writeText(token).then(() => toast(t("copied")), () => { getSelection().selectAllChildren(text); }), "primary");
  dialog(t("fleet.token.for", { name }), [h("p", {}, t("fleet.token.once")), text, h("p", { class: "quiet" }, t("fleet.token.use")), h("pre", { class: "code-line" }, "lightlink agent enroll TOKEN")], [copy]);
}
