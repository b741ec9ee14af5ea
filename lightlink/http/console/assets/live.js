// One event stream for all tabs, as browsers allow six connections per host: one tab holds it and relays events.
// Tabs hidden for half a minute do not hold it; when all are hidden, there is no stream.
import { look as lookAtHealth, tell } from "./api.js";

const NAME = `lightlink ${location.pathname}`;
const HIDDEN_MS = 30000;
const EVERY_MS = 200;
const AGAIN_MS = 3000;
export const live = { paused: false };
const subscribers = new Set();
let channel = null, stream = null, asking = null, hiding = null, retrying = null, timer = null, retired = false;
let waiting = { commands: new Map(), runs: new Map() };

// Call `listener` with changed commands and runs; returns a function that unsubscribes.
export function follow(listener) {
  subscribers.add(listener);
  return () => subscribers.delete(listener);
}
function flush() {
  const { commands, runs } = waiting;
  timer = null;
  waiting = { commands: new Map(), runs: new Map() };
  if (!live.paused) subscribers.forEach((listener) => listener([...commands.values()], [...runs.values()]));
}
function hear(kind, data) {
  if (kind === "command") waiting.commands.set(data.command_id, data);
  else if (kind === "run") waiting.runs.set(data.run_id, data);
  // The response tells whether the stream ended, or NATS or the server is unreachable.
  else if (kind === "look") lookAtHealth();
  else tell("again");
  if (kind === "command" || kind === "run") timer ??= setTimeout(flush, EVERY_MS);
}
function emit(kind, data) {
  hear(kind, data);
  channel?.postMessage([kind, data]);
}
// `missed`: changes may have been lost before this stream.
function open(missed) {
  stream = new EventSource("api/events");
  const on = (event, kind) => stream.addEventListener(event, (heard) => emit(kind, JSON.parse(heard.data)));
  on("command", "command");
  on("progress", "command");
  on("run", "run");
  on("link", "look");
  stream.onopen = () => {
    emit("look");
    if (missed) emit("again");
    missed = false;
  };
  stream.onerror = () => {
    emit("look");
    // EventSource does not retry a refused stream.
    if (stream?.readyState !== EventSource.CLOSED) return;
    stream = null;
    retrying = setTimeout(() => open(true), AGAIN_MS);
  };
}
function close() {
  clearTimeout(retrying);
  stream?.close();
  stream = null;
}
// Hold the stream until `asking` is aborted, once no other tab holds it.
function hold(missed, options) {
  const { signal } = asking;
  return navigator.locks.request(NAME, options, (lock) => (lock && !signal.aborted ? new Promise((done) => {
    open(missed);
    signal.addEventListener("abort", () => { close(); done(); });
  }) : lock));
}
async function ask() {
  if (asking) return;
  asking = new AbortController();
  const { signal } = asking, missed = retired;
  retired = false;
  // Web Locks need a secure context; without them each tab has its own stream.
  if (!navigator.locks) { open(missed); signal.addEventListener("abort", close); return; }
  if (await hold(missed, { ifAvailable: true }) === null && !signal.aborted) await hold(true, { signal }).catch(() => null);
}
function retire() {
  asking?.abort();
  asking = null;
  // No events while no tab is visible.
  retired = true;
}
function look() {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(retire, HIDDEN_MS);
  else ask();
}
export function startLive() {
  if (!channel) {
    channel = new BroadcastChannel(NAME);
    channel.onmessage = (event) => hear(...event.data);
    document.addEventListener("visibilitychange", look);
  }
  look();
  if (document.hidden) ask();
}
export function stopLive() {
  retire();
  channel?.close();
  channel = null;
  document.removeEventListener("visibilitychange", look);
}
