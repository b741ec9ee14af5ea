// First the targets and their number; the button shows the same number.
import { get, may, post } from "../api.js";
import { button, bytes, confirm, empty, field, h, link, mono, note, number, section, segments, state, toast } from "../dom.js";
import { payloadForm } from "../form.js";
import { t } from "../text.js";

const DELAY_MS = 250;

export default async function send({ query }) {
  if (!may("send")) return { title: t("nav.send"), body: [h("h1", {}, t("nav.send")), empty(t("denied"), t("denied.send"))] };
  const chosen = { mode: query.get("to") ? "ids" : "labels", ids: query.get("to") ?? "", labels: query.get("labels") ?? "", type: query.get("type") ?? "", found: { agents: [], total: 0, online: 0, command_types: [] } };
  const to = h("div", { class: "fields" }), what = h("div", { class: "fields" }), rail = h("aside", { class: "rail", "aria-label": t("send.goes"), "aria-live": "polite" }), verdict = h("div", { role: "status" });
  let form = payloadForm(null), timer = null, asked = 0;
  const timeout = h("input", { type: "text", inputmode: "decimal", value: "30" }), priority = h("input", { type: "text", inputmode: "numeric", value: "0" });
  const able = () => chosen.found.agents.filter((each) => !chosen.type || !each.command_types.length || each.command_types.includes(chosen.type));

  async function look() {
    const mine = ++asked;
    let found = { agents: [], total: 0, online: 0, command_types: [] }, problem = "";
    try {
      if (chosen.mode === "labels" && chosen.labels) found = await everyone(chosen.labels);
      if (chosen.mode === "ids") found = await named(chosen.ids.split(/[\s,]+/).filter(Boolean));
    } catch (error) { problem = error.message; }
    if (mine !== asked) return;
    chosen.found = found;
    to.querySelector("input, textarea").problem(problem || (found.missing?.length ? t("send.missing", { x: found.missing.slice(0, 3).join(", ") }) : ""));
    if (!found.command_types.includes(chosen.type)) chosen.type = chosen.type && !found.total ? chosen.type : found.command_types[0] ?? "";
    await drawWhat();
    drawRail();
  }
  const later = () => { clearTimeout(timer); timer = setTimeout(look, DELAY_MS); };
  function drawTo() {
    const input = h(chosen.mode === "labels" ? "input" : "textarea", { type: chosen.mode === "labels" ? "text" : null, rows: 2, spellcheck: "false", autocomplete: "off", oninput: () => { chosen[chosen.mode] = chosen.mode === "labels" ? input.value.replace(/\s/g, "") : input.value; later(); } });
    input.value = chosen[chosen.mode];
    to.replaceChildren(h("div", {}, segments(t("send.who"), [["labels", t("send.labels")], ["ids", t("send.ids")]], chosen.mode, (mode) => { chosen.mode = mode; drawTo(); look(); to.querySelector("[aria-pressed=true]").focus(); })), field(t(chosen.mode === "labels" ? "col.labels" : "nav.agents"), input, t(chosen.mode === "labels" ? "send.labels.hint" : "send.ids.hint")));
  }
  async function drawWhat() {
    const names = chosen.found.command_types;
    const pick = names.length ? h("select", { onchange: () => { chosen.type = pick.value; drawWhat(); drawRail(); } }, names.map((name) => h("option", { value: name, selected: name === chosen.type }, name)))
      : h("input", { type: "text", value: chosen.type, spellcheck: "false", oninput: () => { chosen.type = pick.value.trim(); drawRail(); } });
    const teller = able().find((each) => each.online && each.command_types.includes(chosen.type));
    const told = teller ? await get(`api/agents/${teller.client_id}/types`).then((answer) => answer.types.find((each) => each.name === chosen.type), () => null) : null;
    form = payloadForm(told?.arguments);
    what.replaceChildren(field(t("col.type"), pick, told?.text ?? ""), h("h3", {}, t("payload")), form.body);
  }
  function drawRail() {
    const targets = able(), online = targets.filter((each) => each.online).length, lacking = chosen.found.agents.length - targets.length;
    const go = h("button", { type: "button", class: "btn primary wide", disabled: !targets.length || !chosen.type, title: targets.length && !chosen.type ? t("send.type") : null, onclick: () => submit(targets) }, targets.length ? t("send.to", { n: number(targets.length) }) : t("send.nobody"));
    rail.replaceChildren(h("h2", {}, t("send.goes")), h("p", { class: "big" }, number(targets.length), h("span", {}, ` ${t(targets.length === 1 ? "send.agent" : "send.agents")}`)),
      h("ul", { class: "tally" }, h("li", {}, state("online"), number(online)), h("li", {}, state("offline", t("send.wait")), number(targets.length - online)), lacking ? h("li", {}, state("cancelled", t("send.lack")), number(lacking)) : ""),
      targets.length ? h("details", {}, h("summary", {}, t("send.list")), h("ul", {}, targets.slice(0, 12).map((each) => h("li", {}, state(each.online ? "online" : "offline", each.client_id)))), targets.length > 12 ? h("p", { class: "quiet" }, t("send.more", { n: number(targets.length - 12) })) : "") : "", go,
      button(t("send.check"), () => check(targets), "wide", { disabled: go.disabled, title: go.title }), verdict);
    verdict.replaceChildren();
  }
  // Validate the input and count the agents that lack the type; nothing is sent.
  function check(targets) {
    const payload = read();
    const lacking = chosen.found.agents.length - targets.length;
    if (payload) verdict.replaceChildren(note(lacking ? "warn" : "completed", h("strong", {}, t("send.ok")), h("p", {}, t("send.ok.more", { n: number(targets.length), b: bytes(new TextEncoder().encode(JSON.stringify(payload.value)).length) })), lacking ? h("p", {}, t("send.ok.lack", { n: number(lacking) })) : null));
  }
  function read() {
    const payload = form.read(), seconds = Number(timeout.value), rank = Number(priority.value);
    timeout.problem(seconds > 0 && seconds <= 604800 ? "" : t("timeout.wrong"));
    priority.problem(Number.isInteger(rank) ? "" : t("form.integer"));
    return payload && [timeout, priority].every((each) => each.getAttribute("aria-invalid") !== "true") ? payload : null;
  }
  async function submit(targets) {
    const payload = read();
    if (!payload) return;
    const common = { command_type: chosen.type, payload: payload.value, timeout: Number(timeout.value) };
    if (targets.length === 1) {
      try { location.hash = `#/command/${(await post("api/command", { ...common, client_id: targets[0].client_id, priority: Number(priority.value) })).command_id}`; } catch (error) { rail.append(note("failed", h("p", {}, error.message))); }
      return;
    }
    confirm(t("send.to", { n: number(targets.length) }), t("send.sure", { type: chosen.type, n: number(targets.length) }), t("send.to", { n: number(targets.length) }), async () => {
      const answer = await post("api/command/multi", { ...common, client_ids: targets.map((each) => each.client_id), wait: false });
      toast(t("send.sent", { n: number(answer.total) }));
      location.hash = `#/commands?batch_id=${answer.batch_id}`;
    });
  }
  drawTo();
  await look();
  return { title: t("nav.send"), keep: true, leave: () => clearTimeout(timer), body: [h("h1", {}, t("send.title")), h("div", { class: "cols send" },
    h("form", { class: "stack", onsubmit: (event) => event.preventDefault() }, section(t("send.who"), null, to), section(t("send.what"), null, what), section(t("send.how"), null, h("div", { class: "fields" }, field(t("timeout"), timeout, t("timeout.hint")), field(t("priority"), priority, t("priority.hint"))))), rail)] };
}
async function everyone(label) {
  const page = await get("api/agents", { label, limit: 1000 });
  while (page.agents.length < page.total) {
    const next = await get("api/agents", { label, limit: 1000, skip: page.agents.length });
    if (!next.agents.length) break;
    page.agents.push(...next.agents);
  }
  return page;
}
async function named(ids) {
  const pages = await Promise.all(ids.slice(0, 100).map((id) => get("api/agents", { find: id, limit: 1000 })));
  const agents = pages.map((page, place) => page.agents.find((each) => each.client_id === ids[place]) ?? null);
  const known = agents.filter(Boolean);
  return { agents: known, total: known.length, online: known.filter((each) => each.online).length, command_types: [...new Set(known.flatMap((each) => each.command_types))].sort(), missing: ids.filter((_, place) => place < 100 && !agents[place]) };
}
