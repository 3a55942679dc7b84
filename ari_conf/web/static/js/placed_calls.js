// Calls that this page has placed into conferences: their states, until they are members or have ended.
//
// The server has the states. The page asks for them every second, but only while it shows a call.
import { apiPath, get, remove } from "./api.js";
import { html } from "./dom.js";
import { live } from "./event_stream.js";
import { icon } from "./icons.js";
import { store, useStore } from "./store.js";
import { announceToScreenReader, runAction } from "./toasts.js";

const EVERY_MS = 1000;
const AFTER_ERROR_MS = 5000;
/** Calls in one request. */
const BATCH = 20;
/** Calls that are shown. Of more, the oldest are not. */
const MOST = 40;
/** How long the end of a call is shown. */
const END_SHOWN_MS = 10_000;
/** How long the page waits for the record of an ended call, which says why it ended. */
const RECORD_MS = 15_000;

/** [{uuid, to, conference, state, code, isCanceled, endedMs, goneMs}] */
const placed = store([]);
let timer = 0;

/** Show calls of the API's reply to `POST Conference/{name}/Member/`. */
export function follow(conference, calls) {
  const added = calls.map(({ call_uuid: uuid, to }) => ({ uuid, to, conference, state: "calling", code: null, isCanceled: false, endedMs: 0, goneMs: 0 }));
  placed.set([...placed.get(), ...added].slice(-MOST));
  timer ||= setTimeout(poll, 0);
}

const isMember = (uuid) => Object.values(live.get().conferences ?? {}).some((each) => Object.values(each.members).some((member) => member.call_uuid === uuid));

// A call is a member as soon as the event stream says so.
live.watch(() => {
  const left = placed.get().filter((call) => !isMember(call.uuid));
  if (left.length < placed.get().length) placed.set(left);
});

async function poll() {
  let wait = EVERY_MS;
  if (!document.hidden) {
    try {
      const asked = placed.get().filter((call) => !call.goneMs).map((call) => call.uuid);
      for (let first = 0; first < asked.length; first += BATCH) {
        const { calls } = await get(apiPath("CallState"), { call_uuid: asked.slice(first, first + BATCH).join(",") });
        update(new Map(calls.map((one) => [one.call_uuid, one])));
      }
    } catch {
      // The page says by itself that the connection is lost.
      wait = AFTER_ERROR_MS;
    }
  }
  const left = placed.get().filter((call) => !call.goneMs || Date.now() < call.goneMs);
  if (left.length < placed.get().length) placed.set(left);
  timer = left.length ? setTimeout(poll, wait) : 0;
}

function update(states) {
  const now = Date.now();
  const next = placed.get().filter((call) => !isMember(call.uuid)).map((call) => {
    const found = states.get(call.uuid);
    if (!found || (found.state === call.state && found.state !== "ended")) return call;
    const isOver = found.state === "ended";
    const endedMs = isOver ? call.endedMs || now : 0;
    const isKnown = isOver && (found.hangup_cause_code !== null || call.isCanceled || now - endedMs > RECORD_MS);
    const asked = call.asked || found.state === "confirming";
    return { ...call, asked, state: found.state, code: found.hangup_cause_code, endedMs, goneMs: isKnown ? now + END_SHOWN_MS : 0 };
  });
  const before = new Map(placed.get().map((call) => [call.uuid, wording(call)[0]]));
  const said = next.filter((call) => before.get(call.uuid) !== wording(call)[0]).map((call) => `${call.to}: ${wording(call)[0]}`);
  placed.set(next);
  if (said.length) announceToScreenReader(said.join(". "));
}

/** State -> [text, class of the tag]. */
const STATES = {
  queued: ["Waiting for its turn", "warn"],
  calling: ["Calling", "info"],
  ringing: ["Ringing", "info"],
  answered: ["Answered", "good"],
  confirming: ["Asked for the key", "warn"],
};
/** Hangup code -> text: docs/reference/hangup-codes.md. */
const ENDS = {
  1000: "Canceled",
  2000: "Wrong number",
  2010: "Unreachable",
  3000: "No answer",
  3010: "Busy",
  3020: "Declined",
  6010: "No answer",
  9000: "Another phone answered",
};

function wording(call) {
  if (call.state !== "ended") return STATES[call.state] ?? [call.state, "info"];
  if (call.isCanceled) return ["Canceled", ""];
  if (call.code === 3020 && call.asked) return ["No key pressed", "bad"];
  if (call.code === null && !call.goneMs) return ["Ended", ""];
  return [ENDS[call.code] ?? "Ended", call.code === 9000 || call.code === 1000 ? "" : "bad"];
}

/** The calls into a conference, as items of the list of its members. */
export function PlacedCalls({ name }) {
  const calls = useStore(placed).filter((call) => call.conference === name);
  return calls.map((call) => html`<${PlacedCall} key=${call.uuid} call=${call} />`);
}

function PlacedCall({ call }) {
  const [text, tone] = wording(call);
  const isOver = call.state === "ended";
  return html`<li class="member placed" data-call=${call.uuid}>
    <span class="face" aria-hidden="true">${icon(isOver ? "hangUp" : "call")}</span>
    <div class="person">
      <p class="number">${call.to}</p>
      <p class="hint">Called from this page</p>
    </div>
    <p class="tags"><span class=${`tag ${tone}`}>${text}</span></p>
    ${!isOver && html`<div class="commands" role="group" aria-label=${`Call to ${call.to}`}>
      <button class="danger" aria-label=${`Cancel the call to ${call.to}`} onClick=${() => cancel(call.uuid)}>${icon("hangUp")}Cancel</button>
    </div>`}
  </li>`;
}

async function cancel(uuid) {
  const isDone = await runAction(() => remove(apiPath("Call", uuid)));
  if (isDone) placed.set(placed.get().map((call) => (call.uuid === uuid ? { ...call, isCanceled: true } : call)));
}
