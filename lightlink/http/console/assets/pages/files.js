// Files of a bucket: upload with progress, download, delete.
import { call, get, may } from "../api.js";
import { ago, button, bytes, confirm, empty, h, number, section, table, toast } from "../dom.js";
import { progress } from "../charts.js";
import { t } from "../text.js";
import { goer } from "./agents.js";

export default async function files({ query }) {
  const bucket = query.get("bucket") ?? "", go = goer("files", query);
  const page = await get("api/files", { bucket });
  const where = (file) => `api/files/${encodeURIComponent(file.id)}?${new URLSearchParams({ bucket: page.bucket })}`;
  const reload = () => window.dispatchEvent(new HashChangeEvent("hashchange"));
  const remove = (file) => confirm(t("files.delete.n", { name: file.name || file.id }), t("files.delete.more"), t("files.delete"), async () => { await call("DELETE", where(file)); reload(); }, true, false);
  const names = [...new Set([page.bucket, ...page.buckets])];
  const pick = h("select", { "aria-label": t("col.bucket"), onchange: () => go({ bucket: pick.value }) }, names.map((name) => h("option", { value: name, selected: name === page.bucket }, name)));
  const upload = may("edit") ? uploader(page.bucket, reload) : null;
  const rows = [
    { head: t("col.name"), cell: (each) => [h("a", { href: where(each), download: each.name || each.id, class: "strong" }, each.name || each.id), h("span", { class: "sub" }, each.id)] },
    { head: t("col.size"), num: true, cell: (each) => bytes(each.size) }, { head: t("col.by"), min: "m", cell: (each) => each.metadata.uploaded_by || "–" }, { head: t("col.time"), num: true, cell: (each) => ago(each.created) },
    may("edit") && { head: t("col.do"), cell: (each) => button(t("files.delete"), () => remove(each), "small ghost", { "aria-label": `${t("files.delete")} ${each.name || each.id}` }) }].filter(Boolean);
  return { title: t("nav.files"), keep: true, leave: upload?.stop, body: [h("h1", {}, t("nav.files")), h("div", { class: "filters" }, pick, h("span", { class: "quiet" }, t("files.count", { n: number(page.total) }))), upload?.body,
    page.files.length ? table(t("nav.files"), rows, page.files) : empty(t("files.0"), t("files.0.more"), h("pre", { class: "code-line" }, "lightlink file upload report.pdf"))] };
}
// XMLHttpRequest, as fetch reports no upload progress.
function uploader(bucket, done) {
  const input = h("input", { type: "file", "aria-label": t("files.choose"), onchange: start });
  const said = h("div", { role: "status" });
  let request = null;
  function start() {
    const [file] = input.files;
    if (!file) return;
    request = new XMLHttpRequest();
    request.open("PUT", `api/files?${new URLSearchParams({ name: file.name, bucket })}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    const show = (loaded) => said.replaceChildren(h("p", {}, t("files.sending", { name: file.name, p: Math.round((100 * loaded) / Math.max(1, file.size)) })), progress(loaded / Math.max(1, file.size), t("command.progress")), button(t("files.stop"), () => request.abort(), "small"));
    request.upload.onprogress = (event) => show(event.loaded);
    request.onload = () => {
      if (request.status === 200) { toast(t("files.sent", { name: file.name })); done(); return; }
      let text = request.statusText;
      try { text = JSON.parse(request.responseText).error; } catch { /* not JSON: show the status text */ }
      said.replaceChildren(h("p", { class: "err", role: "alert" }, text));
    };
    request.onerror = () => said.replaceChildren(h("p", { class: "err", role: "alert" }, t("away.http")));
    request.onabort = () => said.replaceChildren(h("p", {}, t("files.stopped")));
    show(0);
    request.send(file);
  }
  return { stop: () => request?.abort(), body: section(t("files.upload"), null, input, said) };
}
