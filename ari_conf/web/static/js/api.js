// The account's REST API, asked as any program asks it: only that here the cookie says who asks.
//
// Every request carries a header that a form of another site can't: so none of them is taken for ours.
const HEADERS = { "X-Requested-With": "ari_conf", Accept: "application/json" };
const UNREACHABLE = "The server can't be reached. Check your connection, then try again.";
const PATIENCE_MS = 15_000;

let account = "";
let ahead = 0;

/** By how many ms the server's clock is ahead of this machine's, which may be wrong by minutes: then times in would be too. */
export const skew = () => ahead;

/** What went wrong, as a sentence for whoever looks at the page. */
/** Whether what is said in recordings can be written down here. */
export let transcribes = true;

export class Failed extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** Learns whose page this is. Goes to the log-in page if nobody is logged in (any more). */
export async function begin() {
  const { auth_id, now_ms, transcribes: does } = await ask("GET", "/login/me");
  transcribes = does;
  // Less than that may be the answer's own time on its way.
  ahead = Math.abs(now_ms - Date.now()) > 1000 ? now_ms - Date.now() : 0;
  account = `/v1/Account/${encodeURIComponent(auth_id)}/`;
  return auth_id;
}

/** Of a path's parts below the account: place("Conference", name) -> its address, closed by a slash. */
export function place(...parts) {
  // A browser takes these out of any address, also where they are encoded: the address would be that of something else.
  if (parts.some((part) => part === "." || part === "..")) throw new Failed(0, "A conference of this name can't be reached by the page. Give it another name.");
  return account + parts.map((part) => `${encodeURIComponent(part)}/`).join("");
}

export const get = (where, query) => ask("GET", query ? `${where}?${new URLSearchParams(query)}` : where);
export const post = (where, body = {}) => ask("POST", where, body);
export const remove = (where) => ask("DELETE", where);

async function ask(method, where, body) {
  const headers = body ? { ...HEADERS, "Content-Type": "application/json" } : HEADERS;
  let reply;
  try {
    reply = await fetch(where, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch {
    throw new Failed(0, UNREACHABLE);
  }
  if (reply.status === 401) return logIn();
  if (reply.status === 204) return null;
  const told = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Failed(reply.status, sentence(told.error ?? `the server answered ${reply.status}`));
  return told;
}

function logIn() {
  location.assign("/login?error=ended");
  // The page goes; nothing that waits for this answer may go on.
  return new Promise(() => {});
}

/** "conference not found" -> "Conference not found." */
function sentence(text) {
  const said = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(said) ? said : `${said}.`;
}
