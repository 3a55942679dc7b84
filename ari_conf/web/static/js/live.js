// Live view: the account's live conferences, as they change.
import { Conference } from "./conference.js";
import { html, useEffect, useMemo, useRef } from "./dom.js";
import { live } from "./event_stream.js";
import { count, numberOf } from "./format.js";
import { icon } from "./icons.js";
import { CallsBeforeMembers, useHasPlacedCalls } from "./placed_calls.js";
import { useStore } from "./store.js";
import { announceToScreenReader } from "./toasts.js";

const SAY_AFTER_MS = 800;

export function Live() {
  const { state, conferences } = useStore(live);
  const hasCalls = useHasPlacedCalls();
  useSpokenChanges(conferences);
  if (!conferences) return html`<${Heading} text=${state === "lost" ? "Reconnecting to the server…" : "Loading…"} />`;
  // The oldest comes first, so that a new conference does not move a button that the user is about to click.
  const all = Object.values(conferences).sort((a, b) => a.created_ms - b.created_ms || (a.conference_uuid < b.conference_uuid ? -1 : 1));
  const members = all.reduce((sum, each) => sum + Object.keys(each.members).length, 0);
  return html`
    <${Heading} text=${all.length ? `${count(all.length, "conference")}, ${count(members, "member")}` : ""} />
    ${state === "lost" && html`<p class="banner warn">${icon("warning")}The connection to the server was lost. What you see may be out of date; reconnecting automatically.</p>`}
    ${all.length ? all.map((each) => html`<${MemoConference} key=${each.conference_uuid} conference=${each} />`) : !hasCalls && html`<${NoConferences} />`}
    <${CallsBeforeMembers} live=${new Set(all.map((each) => each.conference_name))} />`;
}

function Heading({ text }) {
  return html`<div class="heading"><h1 tabindex="-1">Live conferences</h1><p>${text}</p></div>`;
}

/** A conference that did not change is the same object and is not rendered again: of a hundred, few are. */
function MemoConference({ conference }) {
  return useMemo(() => html`<${Conference} conference=${conference} />`, [conference]);
}

function NoConferences() {
  return html`<div class="empty">
    ${icon("live")}
    <h2>No live conferences</h2>
    <p>When a call enters a <code>${"<Conference>"}</code> of this account, the conference appears here automatically.</p>
  </div>`;
}

/** Announce joins and leaves to screen readers. They are batched, so that ten simultaneous joins are one message.
 * Talking is not announced, because it changes all the time. */
function useSpokenChanges(conferences) {
  const known = useRef(null);
  const waits = useRef(0);
  useEffect(() => {
    if (!conferences || waits.current) return;
    known.current ??= conferences;
    waits.current = setTimeout(() => {
      waits.current = 0;
      const now = live.get().conferences;
      const text = difference(known.current, now);
      known.current = now;
      if (text) announceToScreenReader(text);
    }, SAY_AFTER_MS);
  }, [conferences]);
  useEffect(() => () => clearTimeout(waits.current), []);
}

function difference(old, now) {
  const names = (conferences) => new Map(Object.values(conferences).flatMap((each) => Object.entries(each.members).map(([id, m]) => [id, [numberOf(m), each.conference_name]])));
  const [was, is] = [names(old), names(now)];
  const sentences = (from, to, verb) => [...from].filter(([id]) => !to.has(id)).map(([, [who, name]]) => `${who} ${verb} ${name}`);
  return [...sentences(is, was, "joined"), ...sentences(was, is, "left")].join(". ");
}
