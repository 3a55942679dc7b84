// Dead letters: callbacks that were given up, with all their tries, to be sent again.
import { get, place, post } from "./api.js";
import { ask } from "./dialog.js";
import { html, useState } from "./dom.js";
import { Trouble, useFetched } from "./fetched.js";
import { icon } from "./icons.js";
import { doing } from "./notes.js";
import { count, moment } from "./words.js";

const MOST = 50;
const ANEW_MS = 5000;

export function Letters() {
  const { found, error, again } = useFetched(() => get(place("DeadLetter"), { limit: MOST }), [], ANEW_MS);
  const all = found?.dead_letters ?? [];
  const resendAll = () =>
    ask("Resend all of them?", "Each is put at the end of its lane and tried anew, the oldest first.", "Resend all", async () => {
      const sent = await doing(() => post(place("DeadLetter", "Resend")), "All of them are sent again.");
      await again();
      return sent;
    });
  return html`<section class="section" aria-labelledby="letters" data-home>
    <div class="heading"><h2 id="letters" tabindex="-1" data-focus>Given up</h2><p>${found ? count(all.length, "callback") : ""}${all.length === MOST ? ", the newest" : ""}</p>
      ${all.length > 1 && html`<button class="end" onClick=${resendAll}>${icon("again")}Resend all</button>`}</div>
    <${Trouble} error=${error} again=${again} />
    ${found && !all.length && html`<p class="hint">None. A callback that its receiver refuses for good, or never answers, is kept here and can be sent again.</p>`}
    ${all.length > 0 && html`<ul class="card list" aria-label="Given up">${all.map((each) => html`<${Letter} key=${each.id} letter=${each} again=${again} />`)}</ul>`}
  </section>`;
}

function Letter({ letter, again }) {
  const [busy, setBusy] = useState(false);
  const { params, tries } = letter;
  const what = nameOf(params);
  const resend = async () => {
    if (busy) return;
    setBusy(true);
    await doing(() => post(place("DeadLetter", letter.id, "Resend")), `${what} is sent again.`);
    await again();
    setBusy(false);
  };
  return html`<li class="entry" data-letter=${letter.id}>
    <div class="line1"><span class="tag bad">Given up</span><span class="what">${what}</span>
      <button class="end" aria-label=${`Resend ${what} of ${moment(letter.time)}`} aria-disabled=${busy} onClick=${resend}>${icon("again")}Resend</button></div>
    <p class="where">${letter.method} ${letter.url}</p>
    <p class="where">${moment(letter.given_up)}, after ${count(tries.length, "try").replace("trys", "tries")}${whyOf(letter)}</p>
    <details><summary>Tries and parameters</summary>
      <${Tries} tries=${tries} />
      <dl class="params">${Object.entries(params).map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${value}</dd>`)}</dl>
    </details>
  </li>`;
}

/** Of what it tells: "enter of stand-up". */
export function nameOf(params) {
  const action = params.ConferenceAction ?? params.Event ?? "Callback";
  return params.ConferenceName ? `${action}, ${params.ConferenceName}` : action;
}

function whyOf({ reason, tries }) {
  const last = tries.at(-1);
  const why = reason ?? (last && (last.error || `the last one was answered ${last.status}`));
  return why ? `: ${why}` : "";
}

export function Tries({ tries }) {
  return html`<ol class="tries">${tries.map((each, place) => html`<li key=${place}>${place + 1}. ${moment(each.time)}: ${each.status ? `answered ${each.status}` : each.error}, after ${each.ms} ms</li>`)}</ol>`;
}
