// One callback: of what it tells, how it stands, each try; and the button that sends it again.
import { place, post } from "./api.js";
import { html, useState } from "./dom.js";
import { icon } from "./icons.js";
import { doing } from "./notes.js";
import { moment } from "./words.js";

const STATES = {
  waiting: ["warn", "Waiting"],
  trying: ["info", "Being sent"],
  delivered: ["good", "Delivered"],
  dead: ["bad", "Given up"],
};

/** `changed()` is called when it was sent again. `linked`: its conference leads to that conference's callbacks. */
export function Entry({ entry, changed, linked = false }) {
  const { state, params, tries, time } = entry;
  const [kind, words] = STATES[state];
  const event = params.ConferenceAction ?? params.Event ?? "callback";
  const name = params.ConferenceName;
  const uuid = params.ConferenceUUID;
  return html`<li class="entry" data-state=${state}>
    <div class="line1"><span class=${`tag ${kind}`}>${words}</span>
      <span class="what">${event}${name && html`, ${linked && uuid ? html`<a href=${`#/callbacks/${encodeURIComponent(uuid)}`}>${name}</a>` : name}`}</span>
      ${entry.dead_letter_id && html`<${Resend} id=${entry.dead_letter_id} what=${name ? `${event}, ${name}` : event} time=${time} changed=${changed} />`}</div>
    <p class="where">${params.From && `${params.From}, `}${moment(time)}${became(entry)}. ${entry.method} ${entry.url}</p>
    <details><summary>${tries.length ? "Tries and parameters" : "Parameters"}</summary>
      <ol class="tries">${tries.map((each, place) => html`<li key=${place}>${place + 1}. ${moment(each.time)}: ${outcome(each)}, after ${each.ms} ms</li>`)}</ol>
      <dl class="params">${Object.entries(params).map(([key, value]) => html`<dt key=${key}>${key}</dt><dd>${value}</dd>`)}</dl>
    </details>
  </li>`;
}

const outcome = (one) => (one.status ? `answered ${one.status}` : one.error);

/** ", after 3 tries: the last one was answered 503; next try today, 14:05:02" */
function became({ state, tries, reason, next_try: next }) {
  const last = tries.at(-1);
  const how = tries.length ? `, ${tries.length === 1 ? "1 try" : `${tries.length} tries`}` : "";
  const why = reason ?? (last && state !== "delivered" ? (last.error || `the last one was answered ${last.status}`) : "");
  return `${how}${why ? `: ${why}` : ""}${next ? `; next try ${moment(next)}` : ""}`;
}

function Resend({ id, what, time, changed }) {
  const [busy, setBusy] = useState(false);
  const resend = async () => {
    if (busy) return;
    setBusy(true);
    await doing(() => post(place("DeadLetter", id, "Resend")), `${what} is sent again.`);
    await changed();
    setBusy(false);
  };
  return html`<button class="end" aria-label=${`Resend ${what} of ${moment(time)}`} aria-disabled=${busy} onClick=${resend}>${icon("again")}Resend</button>`;
}
