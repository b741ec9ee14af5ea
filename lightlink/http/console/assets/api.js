// The JSON API and its event stream: addresses are relative, so that the console works below any prefix.
import { t } from "./text.js";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}
export const session = { log_in: false, name: "", scope: [], version: "" };
export const may = (scope) => session.scope.includes(scope);

const listeners = { away: new Set(), login: new Set() };
export const on = (what, listener) => listeners[what].add(listener);
const tell = (what, value) => listeners[what].forEach((listener) => listener(value));

export async function call(method, path, body) {
  const options = { method, headers: {} };
  if (method !== "GET") {
    options.headers["Content-Type"] = "application/json";
    options.body = body === undefined ? undefined : JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    tell("away", t("away.http"));
    throw new ApiError(0, t("away.http"));
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) {
    tell("away", "");
    return answer;
  }
  if (response.status === 401 && path !== "console/session") tell("login");
  if (response.status === 503) tell("away", answer.error);
  throw new ApiError(response.status, answer.error ?? response.statusText);
}
export const get = (path, query = {}) => {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return call("GET", given.length ? `${path}?${new URLSearchParams(given)}` : path);
};
export const post = (path, body) => call("POST", path, body);
export const put = (path, body) => call("PUT", path, body);

// One stream a window; closed while the window has been hidden for half a minute, as a host has six connections only.
const HIDDEN_MS = 30000;
const EVERY_MS = 200;
export const live = { paused: false, subscribers: new Set() };
let stream = null, hiding = null, waiting = new Map(), waitingRuns = new Map(), timer = null;

function flush() {
  timer = null;
  const changes = [...waiting.values()], runs = [...waitingRuns.values()];
  waiting = new Map();
  waitingRuns = new Map();
  if (!live.paused) live.subscribers.forEach((listener) => listener(changes, runs));
}
function heard(event) {
  const command = JSON.parse(event.data);
  waiting.set(command.command_id, command);
  timer ??= setTimeout(flush, EVERY_MS);
}
function heardRun(event) {
  const run = JSON.parse(event.data);
  waitingRuns.set(run.run_id, run);
  timer ??= setTimeout(flush, EVERY_MS);
}
// Whether only a stream has ended, or NATS or the server is away: the answer says so itself.
const look = () => call("GET", "health").catch(() => null);
function open() {
  if (stream) return;
  stream = new EventSource("api/events");
  stream.addEventListener("command", heard);
  stream.addEventListener("progress", heard);
  stream.addEventListener("run", heardRun);
  stream.addEventListener("link", look);
  stream.onopen = look;
  stream.onerror = () => {
    look();
    if (stream?.readyState !== EventSource.CLOSED) return;
    close();
    setTimeout(open, 3000);
  };
}
function close() {
  stream?.close();
  stream = null;
}
export function startLive() {
  open();
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(close, HIDDEN_MS);
    else open();
  });
}
export const stopLive = close;
// Calls `listener` with the commands and the runs that have changed until the function that is returned is called.
export function follow(listener) {
  live.subscribers.add(listener);
  return () => live.subscribers.delete(listener);
}
