// Event stream of the live conferences: a snapshot, then changes, as server-sent events.
//
// A change has the snapshot's shape and holds only differences. null means that a conference or member is gone.
import { apiPath, loadSession } from "./api.js";
import { store } from "./store.js";

const TRY_AGAIN_MS = [500, 1000, 2000, 5000];
const QUIET_MS = 20_000;
const UNSEEN_MS = 60_000;

/** {state: "connecting" | "live" | "lost", conferences: {uuid: conference} | null, calls: {uuid: call}}; null until the
 * first snapshot. `calls`: those on their way into conferences. */
export const live = store({ state: "connecting", conferences: null, calls: {} });

/** Return the view after the change. Unchanged parts stay the same objects and need not be rendered again. */
export function applyChange(view, change) {
  return merged(view, change, (was = { members: {} }, fields) => ({
    ...was,
    ...fields,
    members: merged(was.members, fields.members ?? {}, (old, member) => ({ ...old, ...member })),
  }));
}

function merged(old, change, inside) {
  const now = { ...old };
  for (const [key, value] of Object.entries(change)) {
    if (value === null) delete now[key];
    else now[key] = inside(old[key], value);
  }
  return now;
}

function put(fields) {
  live.set({ ...live.get(), ...fields });
}

let source = null;
let tries = 0;
let lastMessageMs = 0;

export function openStream() {
  source?.close();
  source = new EventSource(apiPath("Events"));
  const on = (event, then) =>
    source.addEventListener(event, ({ data }) => {
      lastMessageMs = Date.now();
      then(JSON.parse(data));
    });
  on("snapshot", (conferences) => {
    tries = 0;
    // The calls on their way follow, if there are any.
    put({ state: "live", conferences, calls: {} });
  });
  on("change", (change) => put({ conferences: applyChange(live.get().conferences, change) }));
  on("calls", (calls) => put({ calls }));
  // The web process can't receive changes at the moment. It sends a snapshot as soon as it can.
  on("away", () => put({ state: "lost" }));
  source.addEventListener("error", lost);
}

function lost() {
  if (!source) return;
  put({ state: "lost" });
  // The browser retries automatically, but not after a response such as 503, and it would not notice the end of a
  // session.
  source.close();
  setTimeout(reconnect, TRY_AGAIN_MS[Math.min(tries++, TRY_AGAIN_MS.length - 1)]);
}

async function reconnect() {
  try {
    await loadSession();
    if (source) openStream();
  } catch {
    lost();
  }
}

/** Check a silent connection: one that broke without notice (a laptop slept, a new network) stays silent forever. */
export function monitorStream() {
  setInterval(async () => {
    if (live.get().state !== "live" || document.hidden || Date.now() - lastMessageMs < QUIET_MS) return;
    lastMessageMs = Date.now();
    await loadSession().catch(lost);
  }, QUIET_MS / 4);
  addEventListener("online", () => live.get().state === "live" && lost());
  closeWhenHidden();
}

/** Close the stream of a hidden tab: a browser allows six connections to a server across all tabs, and none is left for
 * the buttons when six streams are open. It also ends talk detection in Asterisk if nothing else needs it. */
function closeWhenHidden() {
  let timer = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(sleep, UNSEEN_MS);
    else if (!source) openStream();
  });
}

function sleep() {
  source.close();
  source = null;
  put({ state: "connecting" });
}
