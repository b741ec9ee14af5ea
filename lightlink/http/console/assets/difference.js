// A line diff (longest common subsequence), marked with signs and not by colour alone.
import { h } from "./dom.js";

const MOST = 500;

export function difference(before, after) {
  const a = before.split("\n").slice(0, MOST), b = after.split("\n").slice(0, MOST);
  const length = Array.from({ length: a.length + 1 }, () => new Array(b.length + 1).fill(0));
  for (let i = a.length - 1; i >= 0; i -= 1) for (let j = b.length - 1; j >= 0; j -= 1) length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
  const lines = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { lines.push(["same", `  ${a[i]}`]); i += 1; j += 1; }
    else if (j >= b.length || (i < a.length && length[i + 1][j] >= length[i][j + 1])) { lines.push(["del", `- ${a[i]}`]); i += 1; }
    else { lines.push(["ins", `+ ${b[j]}`]); j += 1; }
  }
  return h("pre", { class: "json difference", tabindex: "0" }, lines.map(([kind, line]) => h(kind === "same" ? "span" : kind, {}, `${line}\n`)));
}
