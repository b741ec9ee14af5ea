// Small charts: totals in grey, failures coloured at the base. A text readout follows pointer and keys.
import { h, number, svg, utc } from "./dom.js";
import { t } from "./text.js";

const clock = (text) => new Date(text).toLocaleTimeString("en-GB").slice(0, 5);

export function columns(title, stretches) {
  const most = Math.max(4, ...stretches.map((each) => each.completed + each.failed + each.open));
  const sum = (name) => stretches.reduce((total, each) => total + each[name], 0);
  const total = t("chart.all", { a: number(sum("completed")), b: number(sum("failed")), c: number(sum("open")) });
  const readout = h("output", {}, total);
  const bars = stretches.map((each, place) => {
    let top = 100;
    const part = (name, kind) => {
      const height = each[name] ? Math.max(3, (each[name] / most) * 96) : 0;
      top -= height;
      return height ? svg("rect", { class: kind, x: place * 10 + 1.2, width: 7.6, y: top, height }) : null;
    };
    return [svg("rect", { class: "hit", x: place * 10, y: 0, width: 10, height: 100 }), part("failed", "wrong"), part("completed", "good"), part("open", "open")];
  });
  let chosen = stretches.length;
  const show = (place) => {
    chosen = Math.max(0, Math.min(stretches.length - 1, place));
    const each = stretches[chosen];
    readout.title = utc(new Date(each.at));
    readout.textContent = `${clock(each.at)}  ${t("chart.all", { a: number(each.completed), b: number(each.failed), c: number(each.open) })}`;
    bars.forEach(([hit], at) => hit.classList.toggle("on", at === chosen));
  };
  const rest = () => { readout.textContent = total; bars.forEach(([hit]) => hit.classList.remove("on")); chosen = stretches.length; };
  const plot = h("div", {
    class: "plot", tabindex: "0", role: "img", "aria-label": `${title}. ${total}`, onblur: rest, onpointerleave: rest,
    onpointermove: (event) => { const box = plot.getBoundingClientRect(); show(Math.floor(((event.clientX - box.left) / box.width) * stretches.length)); },
    onkeydown: (event) => { const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key]; if (step) { event.preventDefault(); show(chosen + step); } },
  }, svg("svg", { viewBox: `0 0 ${stretches.length * 10} 100`, preserveAspectRatio: "none", "aria-hidden": "true" },
    [4, 52, 99.5].map((y) => svg("line", { class: "grid", x1: 0, x2: stretches.length * 10, y1: y, y2: y })), bars));
  return h("figure", { class: "chart" }, h("figcaption", {}, h("h2", {}, title), readout), plot,
    h("div", { class: "xaxis", "aria-hidden": "true" }, h("span", { title: utc(new Date(stretches[0].at)) }, clock(stretches[0].at)), h("span", {}, t("chart.most", { n: number(most) })), h("span", {}, t("now"))));
}
// A progress bar: done, then failed, of a total.
export function stacked(done, wrong, label) {
  return svg("svg", { class: "stacked", viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("rect", { class: "all", width: 100, height: 8 }), svg("rect", { class: "good", width: done * 100, height: 8 }), svg("rect", { class: "wrong", x: done * 100, width: wrong * 100, height: 8 }));
}
// A usage meter: amber above 80 %.
export function meter(fraction, label) {
  const share = Math.max(0, Math.min(1, fraction));
  return h("span", { class: "fill" }, svg("svg", { class: `meter${share > 0.8 ? " warm" : ""}`, viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("rect", { class: "all", width: 100, height: 6 }), svg("rect", { class: "part", width: share * 100, height: 6 })), h("span", {}, `${Math.round(share * 100)} %`));
}
export function progress(fraction, label) {
  return svg("svg", { class: "progress", viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("rect", { class: "all", width: 100, height: 8 }), svg("rect", { class: "part", width: Math.max(0, Math.min(1, fraction)) * 100, height: 8 }));
}
