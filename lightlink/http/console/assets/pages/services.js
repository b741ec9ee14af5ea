import { get, may, post } from "../api.js";
import { button, dialog, empty, h, json, mono, note, number, section, span, table } from "../dom.js";
import { payloadForm } from "../form.js";
import { t } from "../text.js";

export default async function services() {
  const { services: found } = await get("api/services");
  const errors = (method) => (method.errors ? h("span", { class: "bad" }, number(method.errors)) : "0");
  const body = found.map((service) => section(service.name, h("span", { class: "quiet" }, t("services.instances", { n: number(service.instances.length) })),
    service.text && h("p", { class: "quiet" }, service.text),
    table(service.name, [
      { head: t("col.method"), cell: (method) => [h("strong", {}, mono(method.name)), h("span", { class: "sub" }, method.text), method.last_error && h("span", { class: "sub bad" }, t("services.last", { x: method.last_error.slice(0, 200) })), Object.keys(method.arguments).length ? h("details", {}, h("summary", {}, t("services.arguments")), json(method.arguments)) : null] },
      { head: t("col.requests"), num: true, min: "m", cell: (method) => number(method.requests) }, { head: t("col.rate"), num: true, min: "m", cell: (method) => (method.requests ? rate(method.rate) : "–") }, { head: t("col.errors"), num: true, cell: errors },
      { head: t("col.average"), num: true, min: "m", cell: (method) => (method.requests ? time(method.average) : "–") }, { head: "p99", num: true, cell: (method) => (method.p99 === null ? "–" : h("span", { title: t("services.p99") }, time(method.p99))) },
      may("call") && { head: t("col.do"), cell: (method) => button(t("services.call"), () => ask(service, method), "small", { "aria-label": `${t("services.call")} ${method.name}` }) }].filter(Boolean), service.methods),
    table(t("services.instances.title"), [{ head: "ID", cell: (each) => mono(each.id) }, { head: t("col.version"), cell: (each) => each.version || "–" }, { head: t("col.host"), cell: (each) => each.host || "–" }], service.instances)));
  return { title: t("nav.services"), body: [h("h1", {}, t("nav.services")), ...(body.length ? body : [empty(t("services.0"), t("services.0.more"), h("pre", { class: "code-line" }, "lightlink run shop:service"))])] };
}
// Small values are shown as less than a limit: 0.0 would read as none.
const time = (seconds) => (seconds < 0.0001 ? "< 0.1 ms" : seconds < 1 ? `${(seconds * 1000).toFixed(1)} ms` : span(seconds));
const rate = (each) => (each > 0 && each < 0.1 ? "< 0.1 /s" : `${number(Math.round(each * 10) / 10)} /s`);
// A form with the response below it; it can be submitted repeatedly.
function ask(service, method) {
  const form = payloadForm(method.arguments), answer = h("div", { role: "status" });
  const go = button(t("services.call"), async () => {
    const given = form.read();
    if (!given) return;
    go.disabled = true;
    try {
      const found = await post(`api/services/${encodeURIComponent(service.name)}/${encodeURIComponent(method.name)}`, { arguments: given.value });
      answer.replaceChildren(h("p", { class: "quiet" }, t("services.took", { x: span(found.seconds) })), json(found.result));
    } catch (error) { answer.replaceChildren(note("failed", h("p", {}, error.message))); } finally { go.disabled = false; }
  }, "primary");
  const box = dialog(`${service.name}.${method.name}`, [method.text && h("p", { class: "quiet" }, method.text), form.body, answer], [button(t("close"), () => box.close(), "ghost"), go]);
}
