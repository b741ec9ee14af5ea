// The JSON API and its event stream. URLs are relative, so that the console works below any prefix.
import { t } from "./text.js";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}
export const session = { log_in: false, name: "", scope: [], version: "" };
export const may = (scope) => session.scope.includes(scope);

const listeners = { away: new Set(), login: new Set(), again: new Set() };
export const on = (what, listener) => listeners[what].add(listener);
export const tell = (what, value) => listeners[what].forEach((listener) => listener(value));

// A browser reads larger integers as the nearest number that it has, and would send that.
const exact = (value) => typeof value === "number" ? !Number.isInteger(value) || Number.isSafeInteger(value) : typeof value !== "object" || value === null || Object.values(value).every(exact);

// Only `health` tells whether NATS is connected: other calls may fail for reasons of their own.
let away = false;
const judge = (reason) => { away = Boolean(reason); tell("away", reason); };
export const look = () => call("GET", "health").catch(() => null);

export async function call(method, path, body) {
  if (!exact(body)) throw new ApiError(0, t("number.beyond"));
  const options = { method, headers: {} };
  if (method !== "GET") {
    options.headers["Content-Type"] = "application/json";
    options.body = body === undefined ? undefined : JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    judge(t("away.http"));
    throw new ApiError(0, t("away.http"));
  }
  const answer = await response.json().catch(() => ({}));
  if (path === "health") judge(response.ok ? "" : answer.error);
  else if (response.ok ? away : response.status === 503) look();
  if (response.ok) return answer;
  if (response.status === 401 && path !== "console/session") tell("login");
  throw new ApiError(response.status, answer.error ?? response.statusText);
}
export const get = (path, query = {}) => {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return call("GET", given.length ? `${path}?${new URLSearchParams(given)}` : path);
};
export const post = (path, body) => call("POST", path, body);
export const put = (path, body) => call("PUT", path, body);
