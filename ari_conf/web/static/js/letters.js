// Dead letters: callbacks that were given up, with all their tries, to be sent again.
import { get, place, post } from "./api.js";
import { ask } from "./dialog.js";
import { html } from "./dom.js";
import { Entry } from "./entry.js";
import { Trouble, useFetched } from "./fetched.js";
import { icon } from "./icons.js";
import { doing } from "./notes.js";
import { count } from "./words.js";

const MOST = 50;

export const useLetters = (every) => useFetched(() => get(place("DeadLetter"), { limit: MOST }), [], every);

/** `changed()` is called when some were sent again. */
export function Letters({ letters: { found, error, again }, changed }) {
  const all = found?.dead_letters ?? [];
  const resendAll = () =>
    ask("Resend all of them?", "Each is put at the end of its lane and tried anew, the oldest first.", "Resend all", async () => {
      const sent = await doing(() => post(place("DeadLetter", "Resend")), "They are sent again, one after another.");
      await changed();
      return sent;
    });
  return html`<section class="section" aria-labelledby="letters" data-home>
    <div class="heading"><h2 id="letters" tabindex="-1" data-focus>Given up</h2><p>${found ? count(all.length, "callback") : ""}${all.length === MOST ? ", the newest" : ""}</p>
      ${all.length > 1 && html`<button class="end" onClick=${resendAll}>${icon("again")}Resend all</button>`}</div>
    <${Trouble} error=${error} again=${again} />
    ${found && !all.length && html`<p class="hint">None. A callback that its receiver refuses for good, or never answers, is kept here and can be sent again.</p>`}
    ${all.length > 0 && html`<ul class="card list" aria-label="Given up">${all.map((each) => html`<${Entry} key=${each.id} entry=${asEntry(each)} changed=${changed} />`)}</ul>`}
  </section>`;
}

const asEntry = (letter) => ({ ...letter, state: "dead", dead_letter_id: letter.id });
