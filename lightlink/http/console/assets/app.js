// The shell: session, routing, keyboard shortcuts, and the connection state of NATS.
import { call, get, may, on, session } from "./api.js";
import { button, dialog, h, icon, link, redraw, shape, utc } from "./dom.js";
import { live, startLive, stopLive } from "./live.js";
import { language, t } from "./text.js";
import agents, { agent } from "./pages/agents.js";
import audit from "./pages/audit.js";
import events from "./pages/events.js";
import files from "./pages/files.js";
import fleet from "./pages/fleet.js";
import commands, { command } from "./pages/commands.js";
import login from "./pages/login.js";
import overview from "./pages/overview.js";
import runs, { run } from "./pages/runs.js";
import send from "./pages/send.js";
import services from "./pages/services.js";
import start from "./pages/start.js";
import state, { bucket, key } from "./pages/state.js";

const PAGES = { overview, agents, agent, commands, command, send, runs, run, start, services, state, bucket, key, events, files, fleet, audit };
const NAVIGATION = [["overview", "agents", "commands", "send", "runs"], ["services", "state", "files", "events"], ["fleet", "audit"]];
const KEYS = { o: "overview", a: "agents", c: "commands", s: "send", r: "runs", v: "services", k: "state", f: "files", e: "events", t: "fleet", l: "audit" };
const PARENTS = { agent: "agents", command: "commands", run: "runs", start: "runs", bucket: "state", key: "state" };
// Hide what the token does not permit.
const NEEDS = { state: "data", files: "data", events: "data", fleet: "fleet" };
const offered = (name) => !NEEDS[name] || may(NEEDS[name]);

const root = document.querySelector("#app");
let leave = null, keep = false, started = false, drawing = 0;

document.documentElement.lang = language === "zh" ? "zh-CN" : "en";

const navigation = () => h("nav", { "aria-label": t("nav") }, NAVIGATION.map((group) =>
  h("ul", {}, group.filter(offered).map((name) => h("li", {}, h("a", { href: `#/${name}`, "data-nav": name }, icon(name), t(`nav.${name}`)))))));

function side() {
  return h("div", { class: "side" }, h("div", { class: "side-in" },
    h("a", { class: "brand", href: "#/overview" }, h("span", { class: "mark", "aria-hidden": "true" }, h("span"), h("span")), "LightLink"),
    navigation(),
    h("div", { class: "nav-foot" }, session.name && h("p", {}, h("strong", {}, session.name), h("span", { class: "sub" }, session.scope.join(" "))),
      session.log_in && button(t("logout"), logOut, "small"), h("p", { class: "sub" }, `LightLink ${session.version}`))));
}
function shell() {
  const pause = h("button", { type: "button", class: "btn ghost", id: "pause", onclick: togglePause });
  root.replaceChildren(
    h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); document.querySelector("main").focus(); } }, t("skip")),
    h("div", { class: "shell" }, side(),
      h("header", { class: "top" },
        h("button", { type: "button", class: "btn ghost icon-only only-s", "aria-label": t("menu"), onclick: drawer }, icon("menu")),
        h("p", { class: "crumbs" }),
        h("div", { class: "top-right" },
          h("button", { type: "button", class: "btn find", onclick: palette }, icon("search"), h("span", { class: "from-m" }, t("find")), h("kbd", { class: "from-m" }, "/")),
          pause,
          h("button", { type: "button", class: "btn ghost icon-only", "aria-label": t("theme"), title: t("theme"), onclick: theme }, icon("theme")),
          h("button", { type: "button", class: "btn ghost icon-only", "aria-label": t("keys"), title: t("keys"), onclick: keys }, icon("keys")))),
      h("div", { class: "away", role: "status", hidden: true }),
      h("main", { id: "main", tabindex: "-1" })));
  drawPause();
}
function drawPause() {
  const box = document.querySelector("#pause");
  if (!box) return;
  box.setAttribute("aria-pressed", String(live.paused));
  box.replaceChildren(icon(live.paused ? "play" : "pause"), h("span", { class: "from-m" }, live.paused ? t("live.off") : t("live.on")), h("span", { class: "sr only-s" }, live.paused ? t("live.off") : t("live.on")));
}
function togglePause() {
  live.paused = !live.paused;
  drawPause();
  if (!live.paused) refresh();
}
let awaySince = null;
function drawAway(reason) {
  const box = document.querySelector(".away");
  if (!box) return;
  const back = awaySince && !reason;
  awaySince = reason ? awaySince ?? new Date() : null;
  hold(reason);
  box.hidden = !reason;
  root.classList.toggle("stale", Boolean(reason));
  if (reason) box.replaceChildren(shape("warn"), h("p", { title: utc(awaySince) }, h("strong", {}, t("away")), ` ${t("away.since", { at: awaySince.toLocaleTimeString("en-GB"), why: reason })}`));
  if (back && !live.paused) refresh();
}
// Disable what is unavailable now, with the reason.
function hold(reason) {
  for (const each of document.querySelectorAll("main button.btn")) {
    if (reason && !each.disabled) {
      each.dataset.held = each.title;
      each.title = t("away");
      each.disabled = true;
    } else if (!reason && "held" in each.dataset) {
      each.title = each.dataset.held;
      each.disabled = false;
      delete each.dataset.held;
    }
  }
}
async function logOut() {
  await call("DELETE", "console/session");
  stopLive();
  location.hash = "";
  location.reload();
}
function theme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
}
function drawer() {
  const box = dialog(t("nav"), navigation(), null, "drawer");
  box.addEventListener("click", (event) => { if (event.target.closest("a")) box.close(); });
  mark(box);
}
function keys() {
  const rows = [["/", t("find")], ["p", t("live.pause")], ["?", t("keys")], ...Object.entries(KEYS).filter(([, page]) => offered(page)).map(([letter, page]) => [`g ${letter}`, t(`nav.${page}`)])];
  dialog(t("keys"), h("dl", { class: "keys" }, rows.map(([key, text]) => h("div", {}, h("dt", {}, key.split(" ").map((each) => h("kbd", {}, each))), h("dd", {}, text)))));
}
// Search: pages at once, agents as results arrive, a command by its id.
function palette() {
  const list = h("ul", { class: "hits", role: "listbox", id: "hits", "aria-label": t("find") });
  const input = h("input", { type: "search", role: "combobox", "aria-expanded": "true", "aria-controls": "hits", "aria-label": t("find"), autocomplete: "off", spellcheck: "false", oninput: look });
  let hits = [], chosen = 0, asked = 0;
  const go = (hit) => { box.close(); location.hash = `#/${hit[0]}`; };
  function draw() {
    list.replaceChildren(...hits.map((hit, place) => h("li", { role: "option", id: `hit-${place}`, "aria-selected": String(place === chosen), onclick: () => go(hit) }, h("span", {}, hit[1]), h("span", { class: "quiet" }, hit[2]))));
    input.setAttribute("aria-activedescendant", hits.length ? `hit-${chosen}` : "");
  }
  async function look() {
    const text = input.value.trim().toLowerCase(), mine = ++asked;
    hits = NAVIGATION.flat().filter(offered).map((name) => [name, t(`nav.${name}`), t("page")]).filter(([, title]) => title.toLowerCase().includes(text));
    if (/^[0-9a-f-]{36}$/.test(text)) hits.unshift([`command/${text}`, text, t("command")]);
    chosen = 0;
    draw();
    if (text.length < 2) return;
    const found = await get("api/agents", { find: text, limit: 8 }).catch(() => ({ agents: [] }));
    if (mine !== asked) return;
    hits.push(...found.agents.map((each) => [`agent/${each.client_id}`, each.client_id, t(each.online ? "state.online" : "state.offline")]));
    draw();
  }
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && hits.length) { event.preventDefault(); chosen = (chosen + step + hits.length) % hits.length; draw(); }
    if (event.key === "Enter" && hits[chosen]) { event.preventDefault(); go(hits[chosen]); }
  });
  const box = dialog(t("find"), [input, list], null, "palette");
  input.focus();
  look();
}
let prefix = false;
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !started) return;
  const page = prefix && KEYS[event.key];
  prefix = event.key === "g";
  if (page) location.hash = `#/${page}`;
  else if (event.key === "/") { event.preventDefault(); palette(); }
  else if (event.key === "?") keys();
  else if (event.key === "p") togglePause();
});

// Pages ---------------------------------------------------------------------------------------------------------------
function mark(where) {
  const [name] = address();
  for (const each of where.querySelectorAll("[data-nav]")) {
    if (each.dataset.nav === (PARENTS[name] ?? name)) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
}
function address() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decodeURIComponent);
  return [name || "overview", rest.join("/"), new URLSearchParams(query ?? "")];
}
let shown = "";
async function show() {
  if (!started) return;
  const [name, rest, query] = address();
  const page = PAGES[name] ?? PAGES.overview, mine = ++drawing, main = document.querySelector("main");
  mark(root);
  const place = `${name}/${rest}`;
  let made;
  try { made = await page({ rest, query }); } catch (error) {
    // While NATS or the server is unreachable the last data stays; the banner says since when.
    if ([0, 503].includes(error.status) && place === shown) return;
    made = { title: t(`nav.${PARENTS[name] ?? name}`), body: [h("h1", {}, t(`nav.${PARENTS[name] ?? name}`)), problem(error)] };
  }
  if (mine !== drawing) { made.leave?.(); return; }
  leave?.();
  leave = made.leave ?? null;
  keep = made.keep ?? false;
  document.title = `${made.title} · LightLink`;
  const parent = made.parent ?? PARENTS[name];
  document.querySelector(".crumbs").replaceChildren(...(parent ? [link(parent, t(`nav.${parent}`)), h("span", { "aria-hidden": "true" }, "/")] : []), h("span", { "aria-current": "page" }, made.title));
  redraw(main, made.body);
  if (place !== shown) {
    window.scrollTo(0, 0);
    const title = main.querySelector("h1");
    if (shown && title) { title.tabIndex = -1; title.focus({ preventScroll: true }); }
  }
  shown = place;
}
// Reload what was missed, but never redraw a form that is being filled in.
const refresh = () => (keep ? null : show());
function problem(error) {
  if (error.status === 403) return h("div", { class: "empty" }, h("h2", {}, t("denied")), h("p", {}, t("denied.text", { name: session.name, scope: session.scope.join(" ") })), h("p", { class: "quiet" }, error.message));
  return h("div", { class: "empty" }, h("h2", {}, t(error.status === 404 ? "gone" : "unread")), h("p", {}, error.message));
}
async function begin() {
  Object.assign(session, await get("console/session"));
  if (session.log_in && !session.name) { started = false; stopLive(); root.replaceChildren(login(begin)); return; }
  started = true;
  shell();
  startLive();
  await show();
}
const saved = localStorage.getItem("theme");
if (saved === "dark" || saved === "light") document.documentElement.dataset.theme = saved;
window.addEventListener("hashchange", show);
on("away", drawAway);
on("again", () => { if (!live.paused) refresh(); });
on("login", () => { if (started) begin(); });
begin().catch((error) => root.replaceChildren(h("main", {}, problem(error))));
