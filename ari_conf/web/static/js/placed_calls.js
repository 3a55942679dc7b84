// Calls on their way into conferences, no matter who placed them: their states, until they are members or have ended.
//
// The event stream says which calls are on their way. Of a call that it does not name, because it was placed a moment
// ago or is no longer on its way, the page asks the API every second, until it is a member or it is known how it ended.
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
const MOST = 200;
/** How long the end of a call is shown. */
const END_SHOWN_MS = 10_000;
/** How long the page waits for the record of an ended call, which says why it ended. */
const RECORD_MS = 15_000;
/** How long an answered call may take to become a member. Afterwards it is elsewhere, or has left already. */
const ENTRY_MS = 5000;

/** [{uuid, to, from, conference, state, code, asked, isCanceled, endedMs, answeredMs, goneMs}] */
const placed = store([]);
/** UUIDs that are shown no more, though the event stream may still name them for a moment. */
let settled = new Set();
let timer = 0;

const isMember = (uuid) => Object.values(live.get().conferences ?? {}).some((each) => Object.values(each.members).some((member) => member.call_uuid === uuid));
const isNamed = (uuid) => uuid in live.get().calls;
const asksFor = (call) => !call.goneMs && !isNamed(call.uuid);

const added = (uuid, { to, from, conference_name: conference, state }) => ({ uuid, to, from, conference, state, code: null, asked: state === "confirming", isCanceled: false, endedMs: 0, answeredMs: 0, goneMs: 0 });

/** Show calls of the API's reply to `POST Conference/{name}/Member/`, which the event stream names a moment later. */
export function follow(conference, calls) {
  const known = new Set(placed.get().map((call) => call.uuid));
  const number = (text) => text.replace(/^\+/, "");
  const fresh = calls.filter(({ call_uuid: uuid }) => !known.has(uuid) && !isMember(uuid));
  put([...placed.get(), ...fresh.map(({ call_uuid: uuid, to, from }) => added(uuid, { to: number(to), from: number(from), conference_name: conference, state: "calling" }))]);
}

// A call is a member as soon as the event stream says so.
live.watch(({ calls }) => {
  const known = new Set(placed.get().map((call) => call.uuid));
  const fresh = Object.entries(calls).filter(([uuid]) => !known.has(uuid) && !settled.has(uuid) && !isMember(uuid));
  if (known.size || fresh.length) put([...placed.get().map((call) => moved(call, calls[call.uuid])), ...fresh.map(([uuid, call]) => added(uuid, call))]);
  settled = new Set([...settled].filter((uuid) => uuid in calls));
});

/** Return the call in the state that the stream or the API has told. */
function moved(call, told) {
  if (!told || call.goneMs || (told.state === call.state && told.state !== "ended" && told.state !== "answered")) return call;
  const now = Date.now();
  const { state, hangup_cause_code: code = null } = told;
  const endedMs = state === "ended" ? call.endedMs || now : 0;
  const answeredMs = state === "answered" ? call.answeredMs || now : 0;
  const isKnown = endedMs && (code !== null || call.isCanceled || now - endedMs > RECORD_MS);
  const goneMs = isKnown ? now + END_SHOWN_MS : answeredMs && now - answeredMs > ENTRY_MS ? now : 0;
  return { ...call, asked: call.asked || state === "confirming", state, code, endedMs, answeredMs, goneMs };
}

/** Show these calls, unless they are members or have been shown long enough, and say what is new to screen readers. */
function put(calls) {
  const now = Date.now();
  const isOver = (call) => isMember(call.uuid) || (call.goneMs && now >= call.goneMs);
  for (const call of calls) if (isOver(call)) settled.add(call.uuid);
  const next = calls.filter((call) => !isOver(call)).slice(-MOST);
  const before = placed.get();
  timer ||= next.length ? setTimeout(poll, 0) : 0;
  if (next.length === before.length && next.every((call, place) => call === before[place])) return;
  const was = new Map(before.map((call) => [call.uuid, wording(call)[0]]));
  const said = next.filter((call) => was.get(call.uuid) !== wording(call)[0]).map((call) => `${call.to}: ${wording(call)[0]}`);
  placed.set(next);
  if (said.length) announceToScreenReader(said.join(". "));
}

async function poll() {
  let wait = EVERY_MS;
  const told = new Map();
  if (!document.hidden) {
    try {
      const asked = placed.get().filter(asksFor).map((call) => call.uuid);
      for (let first = 0; first < asked.length; first += BATCH) {
        const { calls } = await get(apiPath("CallState"), { call_uuid: asked.slice(first, first + BATCH).join(",") });
        for (const one of calls) told.set(one.call_uuid, one);
      }
    } catch {
      // The page says by itself that the connection is lost.
      wait = AFTER_ERROR_MS;
    }
  }
  put(placed.get().map((call) => moved(call, told.get(call.uuid))));
  timer = placed.get().length ? setTimeout(poll, wait) : 0;
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

/** The calls into conferences that nobody is in yet. `live`: the names of the others. */
export function CallsBeforeMembers({ live: names }) {
  const calls = useStore(placed);
  const waiting = [...new Set(calls.map((call) => call.conference))].filter((name) => !names.has(name));
  const isOver = (name) => calls.every((call) => call.conference !== name || call.state === "ended");
  return waiting.map((name) => html`<section key=${name} class="conference" aria-label=${name} data-conference=${name}>
    <div class="top"><div class="title">
      <h2>${name}</h2>
      <p class="hint">${isOver(name) ? "Nobody is in." : "Nobody is in yet. The conference starts with the first who answers."}</p>
    </div></div>
    <ul class="members" aria-label=${`Calls into ${name}`}><${PlacedCalls} name=${name} /></ul>
  </section>`);
}

/** Return whether calls are shown. */
export const useHasPlacedCalls = () => useStore(placed).length > 0;

function PlacedCall({ call }) {
  const [text, tone] = wording(call);
  const isOver = call.state === "ended";
  return html`<li class="member placed" data-call=${call.uuid}>
    <span class="face" aria-hidden="true">${icon(isOver ? "hangUp" : "call")}</span>
    <div class="person">
      <p class="number">${call.to}</p>
      <p class="hint">${call.from && `called from ${call.from}`}</p>
    </div>
    <p class="tags"><span class=${`tag ${tone}`}>${text}</span></p>
    ${!isOver && html`<div class="commands" role="group" aria-label=${`Call to ${call.to}`}>
      <button class="danger" aria-label=${`Cancel the call to ${call.to}`} onClick=${() => cancel(call.uuid)}>${icon("hangUp")}Cancel</button>
    </div>`}
  </li>`;
}

async function cancel(uuid) {
  const mark = (isCanceled) => placed.set(placed.get().map((call) => (call.uuid === uuid ? { ...call, isCanceled } : call)));
  // The event stream may be faster than the reply: the end is "Canceled" in any case.
  mark(true);
  if (!(await runAction(() => remove(apiPath("Call", uuid))))) mark(false);
}
