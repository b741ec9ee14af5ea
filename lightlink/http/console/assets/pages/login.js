import { call, get } from "../api.js";
import { field, h } from "../dom.js";
import { t } from "../text.js";

export default function login(done) {
  const input = h("input", { type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
  const go = h("button", { type: "submit", class: "btn primary wide" }, t("login"));
  async function submit(event) {
    event.preventDefault();
    if (!input.value.trim()) { input.problem(t("login.empty")); input.focus(); return; }
    go.disabled = true;
    try {
      await call("POST", "console/session", { token: input.value.trim() });
      const found = await get("console/session");
      // Browsers drop Secure cookies on plain HTTP.
      if (!found.name) throw new Error(t("login.cookie"));
      input.value = "";
      await done();
    } catch (error) {
      input.problem(error.status === 401 ? t("login.wrong") : error.message);
      input.focus();
    } finally { go.disabled = false; }
  }
  return h("div", { class: "login" }, h("main", {},
    h("span", { class: "mark", "aria-hidden": "true" }, h("span"), h("span")), h("h1", {}, t("login.title")),
    h("form", { onsubmit: submit, novalidate: true }, field(t("login.token"), input, t("login.hint")), go),
    h("details", {}, h("summary", {}, t("login.help")), h("p", {}, t("login.help.text")))));
}
