// What the console says, in the language of the browser: one file of strings each.
import en from "./en.js";
import zh from "./zh.js";

export const language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
const strings = language === "zh" ? zh : en;

export function t(key, values = {}) {
  // Of one thing some words are others.
  const text = (String(values.n) === "1" ? strings[`${key}.one`] : null) ?? strings[key] ?? en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
