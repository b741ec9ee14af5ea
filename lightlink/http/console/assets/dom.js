// Elements, states, tables, dialogs and times. Text becomes text nodes only: agents' results are untrusted.
import { language, t } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (["value", "checked", "selected", "disabled"].includes(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(5)) if (child !== undefined && child !== null && child !== false) node.append(child);
  return node;
}
export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

// Icons of states on a 16 px grid: shape and word repeat what the colour says.
const RING = "M8 13a5 5 0 1 0 0-10 5 5 0 0 0 0 10z";
const SHAPES = {
  completed: [["M8 14.2A6.2 6.2 0 1 0 8 1.800a6.200 6.200 0 0 0 0 12.400z", "full"], ["M5 8.300l2.200 2.200L11 6", "cut"]],
  failed: [["M2.300 2.300h11.400v11.400H2.300z", "full"], ["M5.500 5.500l5 5m0-5l-5 5", "cut"]],
  running: [[RING, "faint"], ["M8 3a5 5 0 0 1 5 5", "turn"]],
  executing: [[RING, "faint"], ["M8 3a5 5 0 0 1 5 5", "turn"]],
  pending: [[RING, "dash"]],
  timeout: [[RING], ["M8 5.200V8l2 1.500"]],
  cancelled: [[RING], ["M4.600 11.400l6.800-6.800"]],
  waits: [["M8 1l7 7-7 7-7-7z", "full"], ["M8 4.800v4M8 11v.1", "cut"]],
  paused: [["M4 3h3v10H4zM9 3h3v10H9z", "full"]],
  undone: [["M5.500 3l-3 3 3 3M3 6h6a3.500 3.500 0 0 1 0 7H6.500"]],
  unknown: [["M8 1.500L14.500 8 8 14.500 1.500 8z"], ["M8 5v3.500M8 11v.1"]],
  online: [["M8 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8z", "full"]],
  offline: [["M8 11.600a3.600 3.600 0 1 0 0-7.200 3.600 3.600 0 0 0 0 7.200z"]],
  warn: [["M8 2l7 12H1z", "full"], ["M8 6.500v3.300M8 12v.1", "cut"]],
};
const drawing = (kind, paths) =>
  svg("svg", { class: kind, viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" },
    paths.map(([d, style]) => svg("path", { d, class: style })));
export const shape = (name) => drawing(`shape is-${name}`, SHAPES[name] ?? SHAPES.unknown);
export const state = (name, word) =>
  h("span", { class: `state is-${name}` }, shape(name), h("span", {}, word ?? t(`state.${name}`)));

const ICONS = {
  overview: "M2 13V8m4 5V3m4 10V6m4 7v-3", agents: "M2.500 3h11v4h-11zm0 6h11v4h-11zM5 5h.1M5 11h.1",
  commands: "M3 4l4 4-4 4m5.500 0H13", send: "M2.500 8h10m-4-4l4 4-4 4", runs: "M2 4h5M2 8h9M2 12h12",
  services: "M8 2v4m0 4v4M3 6h10v4H3z", audit: "M4 2h8v12H4zm2.500 3.500h3m-3 2.500h3m-3 2.500h3",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zm3.700-1.300L14 14", close: "M4 4l8 8m0-8l-8 8",
  menu: "M2 4h12M2 8h12M2 12h12", pause: "M5.500 3.500v9m5-9v9", play: "M5 3.500L12 8l-7 4.500z",
  events: "M2 8h3l2-5 2 10 2-5h3", state: "M3 4c0-2.600 10-2.600 10 0v8c0 2.600-10 2.600-10 0zm0 0c0 2.600 10 2.600 10 0M3 8c0 2.600 10 2.600 10 0",
  files: "M4 2h5l3 3v9H4zm5 0v3h3", fleet: "M8 2l5 2v4c0 3-2 5-5 6-3-1-5-3-5-6V4z",
  theme: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zm0-12v12", keys: "M2 4h12v8H2zm2.500 2.500h.1m3.400 0h.1m3.400 0h.1M5 9.500h6",
};
export const icon = (name) => drawing("icon", [[ICONS[name]]]);

// Numbers and times ---------------------------------------------------------------------------------------------------
const locale = language === "zh" ? "zh-CN" : "en-GB";
export const number = (value) => value.toLocaleString(locale);
export function span(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000) || "< 1"} ms`;
  const units = [[90, 1, "s"], [5400, 60, "min"], [129600, 3600, "h"], [Infinity, 86400, "d"]];
  const [, size, unit] = units.find(([limit]) => seconds < limit);
  const value = seconds / size;
  return t(`unit.${unit}`, { n: value < 10 && unit === "s" && !Number.isInteger(value) ? value.toFixed(1) : Math.round(value) });
}
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let place = 0, left = value;
  while (left >= 1000 && place < units.length - 1) { left /= 1000; place += 1; }
  return `${place && left < 10 ? left.toFixed(1) : Math.round(left)} ${units[place]}`;
}
export const utc = (date) => `${date.toISOString().replace("T", " ").slice(0, 19)} UTC`;
export function ago(text) {
  if (!text) return h("span", { class: "quiet" }, "–");
  const date = new Date(text);
  const seconds = Math.max(0, (Date.now() - date.getTime()) / 1000);
  return h("time", { datetime: text, title: utc(date) }, t("ago", { x: span(Math.max(1, Math.floor(seconds))) }));
}
export function at(text) {
  const date = new Date(text);
  const day = date.toDateString() === new Date().toDateString() ? "" : `${date.toLocaleDateString(locale)} `;
  return h("time", { datetime: text, title: utc(date) }, day + date.toLocaleTimeString("en-GB"));
}

// A future time, to the minute.
export function moment(text) {
  const date = new Date(text);
  return h("time", { datetime: text, title: utc(date) }, `${date.toLocaleDateString(locale)} ${date.toLocaleTimeString("en-GB").slice(0, 5)}`);
}

// Pieces --------------------------------------------------------------------------------------------------------------
export const link = (to, content, kind) => h("a", { href: `#/${to}`, class: kind }, content);
export const mono = (text, kind = "") => h("code", { class: kind }, text);
export const button = (text, onclick, kind = "", more = {}) =>
  h("button", { type: "button", class: `btn ${kind}`, onclick, ...more }, text);
export const note = (kind, ...content) =>
  h("div", { class: `note is-${kind}`, role: kind === "failed" ? "alert" : "status" }, shape(kind), h("div", {}, content));
export const empty = (title, text, ...more) =>
  h("div", { class: "empty" }, h("h2", {}, title), h("p", {}, text), more);
export const facts = (rows) =>
  h("dl", { class: "facts" }, rows.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
export function section(title, side, ...content) {
  return h("section", { class: "sec", "aria-label": title }, h("div", { class: "sec-head" }, h("h2", {}, title), side), content);
}
export const chips = (labels) =>
  h("span", { class: "chips" }, Object.entries(labels).map(([name, value]) =>
    link(`agents?label=${encodeURIComponent(`${name}=${value}`)}`, `${name}=${value}`, "chip")));

// Columns: {head, cell(row), num, min}; `min` "m" or "l" is the width below which a column is hidden.
export function table(caption, columns, rows, key) {
  const kind = (column) => [column.num && "num", column.min && `from-${column.min}`].filter(Boolean).join(" ") || null;
  const box = h("div", { class: "scroll" }, h("table", {},
    h("caption", { class: "sr" }, caption),
    h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: kind(column) }, column.head)))),
    h("tbody", {}, rows.map((row) => h("tr", { "data-key": key?.(row) }, columns.map((column) => h("td", { class: kind(column) }, column.cell(row))))))));
  // Only scrollable regions are focusable by keyboard.
  new ResizeObserver(() => {
    const scrolls = box.scrollWidth > box.clientWidth;
    for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", caption]])
      if (scrolls) box.setAttribute(name, value); else box.removeAttribute(name);
  }).observe(box);
  return box;
}
export function segments(label, choices, chosen, choose) {
  return h("div", { class: "seg", role: "group", "aria-label": label }, choices.map(([value, text]) =>
    h("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => choose(value) }, text)));
}
export function json(value) {
  return h("pre", { class: "json", tabindex: "0", "aria-label": "JSON" }, JSON.stringify(value, null, 2) ?? "");
}
let ids = 0;
export function field(label, control, hint) {
  control.id = `field-${++ids}`;
  const problem = h("p", { class: "err", id: `${control.id}-e`, hidden: true });
  control.setAttribute("aria-describedby", `${control.id}-e ${control.id}-h`);
  control.problem = (text) => {
    problem.hidden = !text;
    problem.textContent = text ?? "";
    control.setAttribute("aria-invalid", text ? "true" : "false");
  };
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, problem, h("p", { class: "hint", id: `${control.id}-h` }, hint));
}

// Dialogs and toasts --------------------------------------------------------------------------------------------------
export function dialog(title, body, foot, kind = "") {
  const close = h("button", { type: "button", class: "btn ghost icon-only", "aria-label": t("close"), onclick: () => box.close() }, icon("close"));
  const before = document.activeElement;
  const box = h("dialog", { class: `dialog ${kind}`, "aria-label": title },
    h("div", { class: "dialog-head" }, h("h2", {}, title), close), h("div", { class: "dialog-body" }, body), foot && h("div", { class: "dialog-foot" }, foot));
  box.addEventListener("close", () => { box.remove(); if (before?.isConnected) before.focus(); });
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
  document.body.append(box);
  box.showModal();
  return box;
}
// Errors appear above the page, and are announced to screen readers.
export function complain(error) {
  const main = document.querySelector("main");
  main.querySelector(".complaint")?.remove();
  main.prepend(h("div", { class: "complaint" }, note("failed", h("p", {}, error.message))));
}
export function toast(text) {
  const box = h("div", { class: "toast" }, text);
  document.querySelector("#toasts").replaceChildren(box);
  setTimeout(() => box.remove(), 5000);
}
// Confirm an audited change: what, how many, and the reason.
// No reason is asked for a change that leaves no audit entry.
export function confirm(title, text, verb, act, danger = false, answered = true) {
  const reason = h("textarea", { rows: 2, required: true });
  const row = field(t("reason"), reason, t("reason.hint"));
  row.classList.toggle("only-problem", !answered);
  const go = button(verb, async () => {
    if (answered && !reason.value.trim()) { reason.problem(t("reason.needed")); reason.focus(); return; }
    go.disabled = true;
    try { await act(reason.value.trim()); box.close(); } catch (error) { reason.problem(error.message); go.disabled = false; }
  }, danger ? "danger" : "primary");
  const box = dialog(title, [h("p", {}, text), row], [button(t("back"), () => box.close(), "ghost"), go]);
  if (answered) reason.focus(); else go.focus();
}
// Redraw while keeping focus, scroll positions and open details.
export function redraw(root, content) {
  const held = document.activeElement;
  const inside = held !== root && root.contains(held);
  // Rows may have equal links: the row's key tells them apart.
  const name = (each) => `${each.closest("[data-key]")?.dataset.key} ${each.getAttribute("aria-label") ?? each.getAttribute("href") ?? each.textContent}`;
  const tag = held?.tagName, same = inside ? name(held) : "";
  const boxes = () => [...root.querySelectorAll(".scroll, pre, details")];
  const before = boxes().map((each) => [each.scrollLeft, each.scrollTop, each.open]);
  root.replaceChildren(...[content].flat(5).filter(Boolean));
  const after = boxes();
  if (after.length === before.length) after.forEach((each, place) => { [each.scrollLeft, each.scrollTop, each.open] = before[place]; });
  if (inside) [...root.querySelectorAll(tag)].find((each) => name(each) === same)?.focus({ preventScroll: true });
}
