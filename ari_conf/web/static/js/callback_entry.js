// One callback: event, state and attempts, and a button to resend it.
import { apiPath, post } from "./api.js";
import { html, useState } from "./dom.js";
import { count, formatTime } from "./format.js";
import { icon } from "./icons.js";
import { runAction } from "./toasts.js";

const STATES = {
  waiting: ["warn", "Waiting"],
  trying: ["info", "Being sent"],
  delivered: ["good", "Delivered"],
  dead: ["bad", "Dead letter"],
};

/** `changed()` is called after the callback has been resent. `linked`: the conference name links to its callbacks. */
export function CallbackEntry({ entry, changed, linked = false }) {
  const { state, params, tries, time } = entry;
  const [kind, words] = STATES[state];
  const event = params.ConferenceAction ?? params.Event ?? "callback";
  const name = params.ConferenceName;
  const uuid = params.ConferenceUUID;
  return html`<li class="entry" data-state=${state}>
    <div class="line1"><span class=${`tag ${kind}`}>${words}</span>
      <span class="what">${event}${name && html`, ${linked && uuid ? html`<a href=${`#/callbacks/${encodeURIComponent(uuid)}`}>${name}</a>` : name}`}</span>
      ${entry.dead_letter_id && html`<${Resend} id=${entry.dead_letter_id} what=${name ? `${event}, ${name}` : event} time=${time} changed=${changed} />`}</div>
    <p class="where">${params.From && `${params.From}, `}${formatTime(time)}${historyText(entry)}. ${entry.method} ${entry.url}</p>
    <details><summary>${tries.length ? "Attempts and parameters" : "Parameters"}</summary>
      <ol class="tries">${tries.map((each, place) => html`<li key=${place}>${place + 1}. ${formatTime(each.time)}: ${outcome(each)}, after ${each.ms} ms</li>`)}</ol>
      <dl class="params">${Object.entries(params).map(([key, value]) => html`<dt key=${key}>${key}</dt><dd>${value}</dd>`)}</dl>
    </details>
  </li>`;
}

const outcome = (one) => (one.status ? `response with status ${one.status}` : one.error);

/** ", 3 attempts: the last response had status 503; next attempt today, 14:05:02" */
function historyText({ state, tries, reason, next_try: next }) {
  const last = tries.at(-1);
  const how = tries.length ? `, ${count(tries.length, "attempt")}` : "";
  const why = reason ?? (last && state !== "delivered" ? (last.error || `the last response had status ${last.status}`) : "");
  return `${how}${why ? `: ${why}` : ""}${next ? `; next attempt ${formatTime(next)}` : ""}`;
}

function Resend({ id, what, time, changed }) {
  const [busy, setBusy] = useState(false);
  const resend = async () => {
    if (busy) return;
    setBusy(true);
    await runAction(() => post(apiPath("DeadLetter", id, "Resend")), `${what} is being resent.`);
    await changed();
    setBusy(false);
  };
  return html`<button class="end" aria-label=${`Resend ${what} of ${formatTime(time)}`} aria-disabled=${busy} onClick=${resend}>${icon("again")}Resend</button>`;
}
