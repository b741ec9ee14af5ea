// A form from a JSON Schema, one control per property; `read()` returns the values, or null after showing errors.
import { field, h } from "./dom.js";
import { t } from "./text.js";

export function payloadForm(schema, values = {}) {
  const properties = Object.entries(schema?.properties ?? {});
  const required = new Set(schema?.required ?? []);
  const plain = (each) => ["string", "integer", "number", "boolean"].includes(each.type) || Array.isArray(each.enum);
  // Without a schema, or with nested values, edit as JSON.
  return properties.length && properties.every(([, each]) => plain(each)) ? controls(properties, required, values) : raw(values, schema);
}
function controls(properties, required, values) {
  const made = properties.map(([name, each]) => {
    const given = values[name] ?? each.default ?? "";
    let control;
    if (each.enum) control = h("select", {}, required.has(name) ? null : h("option", { value: "" }, "–"), each.enum.map((value) => h("option", { value: String(value), selected: value === given }, String(value))));
    else if (each.type === "boolean") control = h("select", {}, required.has(name) ? null : h("option", { value: "" }, "–"), ["true", "false"].map((value) => h("option", { value, selected: value === String(given) }, value)));
    else control = h("input", { type: "text", value: String(given), spellcheck: "false", autocomplete: "off", inputmode: each.type === "string" ? "text" : "decimal" });
    control.addEventListener("input", () => read(name, each, control));
    const hint = [each.type ?? "", each.minimum !== undefined && `≥ ${each.minimum}`, each.maximum !== undefined && `≤ ${each.maximum}`, required.has(name) ? "" : t("form.optional"), each.description].filter(Boolean).join(" · ");
    return [name, each, control, field(name, control, hint)];
  });
  function read(name, each, control) {
    const text = control.value;
    const complain = (problem) => { control.problem(problem); return undefined; };
    control.problem("");
    if (text === "" && each.type !== "string") return required.has(name) ? complain(t("form.required")) : null;
    if (text === "" && !required.has(name)) return null;
    if (each.enum) return each.enum.find((value) => String(value) === text);
    if (each.type === "boolean") return text === "true";
    if (each.type === "string") return text;
    const number = Number(text);
    if (Number.isNaN(number) || (each.type === "integer" && !Number.isInteger(number))) return complain(t(`form.${each.type}`));
    if (number < (each.minimum ?? -Infinity) || number > (each.maximum ?? Infinity)) return complain(t("form.range"));
    return number;
  }
  return {
    body: h("div", { class: "fields" }, made.map(([, , , row]) => row)),
    read() {
      const found = {};
      let wrong = null;
      for (const [name, each, control] of made) {
        const value = read(name, each, control);
        if (value === undefined) wrong ??= control;
        else if (value !== null) found[name] = value;
      }
      wrong?.focus();
      return wrong ? null : { value: found };
    },
  };
}
function raw(values, schema) {
  const area = h("textarea", { rows: 6, class: "code", spellcheck: "false" });
  area.value = JSON.stringify(values ?? {}, null, 2);
  const read = () => {
    try { const value = JSON.parse(area.value); area.problem(""); return { value }; } catch (error) { area.problem(error.message); return null; }
  };
  area.addEventListener("input", read);
  return { body: h("div", { class: "fields" }, field(t("payload"), area, schema ? t("form.json") : t("form.unknown"))), read() { const found = read(); if (!found) area.focus(); return found; } };
}
