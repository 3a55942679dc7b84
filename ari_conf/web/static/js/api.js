// Client of the REST API, of an account or of administrators. It works like any API client, but authenticates with the
// session cookie.
//
// Every request carries a header that a form of another site can't send, so the server can reject forged requests.
const HEADERS = { "X-Requested-With": "ari_conf", Accept: "application/json" };
const UNREACHABLE = "The server is unreachable. Check your connection, then try again.";
const PATIENCE_MS = 15_000;

let account = "";
let loginPage = "/login";
let ahead = 0;

/** Milliseconds by which the server's clock is ahead of this machine's, which may be wrong by minutes. */
export const clockSkew = () => ahead;

/** True if recordings can be transcribed. */
export let transcribes = true;

/** Failure of a request. The message is a sentence for the user. */
export class ApiError extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** Return the account of the session. Go to the login page if no session exists. */
export async function loadSession() {
  const { auth_id, now_ms, transcribes: does } = await request("GET", "/login/me");
  transcribes = does;
  setClock(now_ms);
  account = `/v1/Account/${encodeURIComponent(auth_id)}/`;
  return auth_id;
}

/** Return the name of the administrator's key of the session. Go to the login page if no session exists. */
export async function loadAdminSession() {
  loginPage = "/admin/login";
  const { name, now_ms } = await request("GET", "/admin/me");
  setClock(now_ms);
  return name;
}

function setClock(now_ms) {
  // A smaller difference may be the transfer time of the response.
  ahead = Math.abs(now_ms - Date.now()) > 1000 ? now_ms - Date.now() : 0;
}

/** Return the path of an API resource of the account, with a slash at the end: apiPath("Conference", name). */
export function apiPath(...parts) {
  // Browsers remove "." and ".." from every path, even if they are encoded. The path would then name another resource.
  if (parts.some((part) => part === "." || part === "..")) throw new ApiError(0, "The dashboard can't open a conference with this name. Use another name.");
  return account + parts.map((part) => `${encodeURIComponent(part)}/`).join("");
}

export const get = (where, query) => request("GET", query ? `${where}?${new URLSearchParams(query)}` : where);
/** `more`: further headers. */
export const post = (where, body = {}, more = {}) => request("POST", where, body, more);
export const patch = (where, body) => request("PATCH", where, body);
export const remove = (where, query) => request("DELETE", query ? `${where}?${new URLSearchParams(query)}` : where);

async function request(method, where, body, more = {}) {
  const headers = { ...HEADERS, ...more, ...(body ? { "Content-Type": "application/json" } : {}) };
  let reply;
  try {
    reply = await fetch(where, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch {
    throw new ApiError(0, UNREACHABLE);
  }
  if (reply.status === 401) return logIn();
  if (reply.status === 204) return null;
  const content = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new ApiError(reply.status, sentence(content.error ?? `the server responded with status ${reply.status}`));
  return content;
}

function logIn() {
  location.assign(`${loginPage}?error=ended`);
  // The browser leaves the page, so code that awaits this response must not continue.
  return new Promise(() => {});
}

/** "conference not found" -> "Conference not found." */
function sentence(text) {
  const said = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(said) ? said : `${said}.`;
}
