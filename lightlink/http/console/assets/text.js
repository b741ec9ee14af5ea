// Localized strings, one file per language, chosen by the browser's language.
import en from "./en.js";
import zh from "./zh.js";

export const language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
const strings = language === "zh" ? zh : en;

export function t(key, values = {}) {
  // The singular form, if there is one.
  const text = (String(values.n) === "1" ? strings[`${key}.one`] : null) ?? strings[key] ?? en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
