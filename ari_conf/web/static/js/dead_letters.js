// Dead letters: callbacks that were given up, with all attempts and buttons to resend them.
import { apiPath, get, post } from "./api.js";
import { CallbackEntry } from "./callback_entry.js";
import { confirm } from "./dialog.js";
import { html } from "./dom.js";
import { count } from "./format.js";
import { icon } from "./icons.js";
import { runAction } from "./toasts.js";
import { ErrorBanner, useFetched } from "./use_fetched.js";

const MOST = 50;

export const useDeadLetters = (every) => useFetched(() => get(apiPath("DeadLetter"), { limit: MOST }), [], every);

/** `changed()` is called after dead letters have been resent. */
export function DeadLetters({ letters: { found, error, reload }, changed }) {
  const all = found?.dead_letters ?? [];
  const resendAll = () =>
    confirm("Resend all dead letters?", "Each is queued behind the other callbacks of its conference and URL, the oldest first, and is sent again.", "Resend all", async () => {
      const sent = await runAction(() => post(apiPath("DeadLetter", "Resend")), "The dead letters are being resent, one after another.");
      await changed();
      return sent;
    });
  return html`<section class="section" aria-labelledby="letters" data-home>
    <div class="heading"><h2 id="letters" tabindex="-1" data-focus>Dead letters</h2><p>${found ? count(all.length, "callback") : ""}${all.length === MOST ? ", the newest" : ""}</p>
      ${all.length > 1 && html`<button class="end" onClick=${resendAll}>${icon("again")}Resend all</button>`}</div>
    <${ErrorBanner} error=${error} reload=${reload} />
    ${found && !all.length && html`<p class="hint">None. A callback that its receiver rejects permanently, or never answers, is kept here, and you can resend it.</p>`}
    ${all.length > 0 && html`<ul class="card list" aria-label="Dead letters">${all.map((each) => html`<${CallbackEntry} key=${each.id} entry=${toEntry(each)} changed=${changed} />`)}</ul>`}
  </section>`;
}

const toEntry = (letter) => ({ ...letter, state: "dead", dead_letter_id: letter.id });
