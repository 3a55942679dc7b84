// The live conferences: a snapshot, then changes, over server-sent events.
//
// A change has the snapshot's shape and holds only what is different: null says that a conference or a member is gone.
import { begin, place } from "./api.js";
import { store } from "./store.js";

const TRY_AGAIN_MS = [500, 1000, 2000, 5000];
const QUIET_MS = 20_000;
const UNSEEN_MS = 60_000;

/** {state: "connecting" | "live" | "lost", conferences: {uuid: conference} | null}; null: none are known yet. */
export const live = store({ state: "connecting", conferences: null });

/** What the view is after the change. What did not change stays the same object: it need not be drawn anew. */
export function applied(view, change) {
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
let heard = 0;

export function watch() {
  source?.close();
  source = new EventSource(place("Events"));
  const on = (event, then) =>
    source.addEventListener(event, ({ data }) => {
      heard = Date.now();
      then(JSON.parse(data));
    });
  on("snapshot", (conferences) => {
    tries = 0;
    put({ state: "live", conferences });
  });
  on("change", (change) => put({ conferences: applied(live.get().conferences, change) }));
  // The server itself knows nothing new for a while: a snapshot comes when it does.
  on("away", () => put({ state: "lost" }));
  source.addEventListener("error", lost);
}

function lost() {
  if (!source) return;
  put({ state: "lost" });
  // The browser would try again by itself, but not after an answer such as 503, and never would it see a log-in that has ended.
  source.close();
  setTimeout(again, TRY_AGAIN_MS[Math.min(tries++, TRY_AGAIN_MS.length - 1)]);
}

async function again() {
  try {
    await begin();
    if (source) watch();
  } catch {
    lost();
  }
}

/** A connection that died without a word (a laptop that slept, a new network) is silent for ever: so after a silence it is asked. */
export function keepWatch() {
  setInterval(async () => {
    if (live.get().state !== "live" || document.hidden || Date.now() - heard < QUIET_MS) return;
    heard = Date.now();
    await begin().catch(lost);
  }, QUIET_MS / 4);
  addEventListener("online", () => live.get().state === "live" && lost());
  sleepUnseen();
}

/** A tab that nobody looks at lets go: a browser has six connections to a server for all of its tabs together, and none is left
 * for the buttons when six are open. It also tells Asterisk that it need not find out who talks. */
function sleepUnseen() {
  let timer = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(sleep, UNSEEN_MS);
    else if (!source) watch();
  });
}

function sleep() {
  source.close();
  source = null;
  put({ state: "connecting" });
}
