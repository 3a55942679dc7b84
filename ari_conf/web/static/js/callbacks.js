// Callbacks view: the callbacks of all conferences, or of one.
import { apiPath, get } from "./api.js";
import { CallbackEntry } from "./callback_entry.js";
import { DeadLetters, useDeadLetters } from "./dead_letters.js";
import { html, useState } from "./dom.js";
import { count } from "./format.js";
import { icon } from "./icons.js";
import { EmptyState, ErrorBanner, Loading, Pager, useFetched } from "./use_fetched.js";

const PAGE = 20;
const ANEW_MS = 5000;

/** `id`: UUID of the conference whose callbacks to show; without it, all callbacks. */
export function Callbacks({ id }) {
  const [offset, setOffset] = useState(0);
  const query = { limit: PAGE, offset, ...(id ? { conference_uuid: id } : {}) };
  const { found, error, reload } = useFetched(() => get(apiPath("Callback"), query), [id, offset], ANEW_MS);
  const letters = useDeadLetters(ANEW_MS);
  // Resending a dead letter also changes the list of callbacks.
  const changed = () => Promise.all([reload(), letters.reload()]);
  const name = id && found?.objects[0]?.conference_name;
  const total = found?.meta.total_count ?? 0;
  return html`
    ${id && html`<p class="up"><a href="#/callbacks">${icon("back")}All callbacks</a></p>`}
    <div class="heading"><h1 tabindex="-1">${name ? `Callbacks of ${name}` : "Callbacks"}</h1>${id && found && html`<p>${count(total, "callback")}</p>`}</div>
    ${!id && html`<${DeadLetters} letters=${letters} changed=${changed} />`}
    <section class="section" aria-labelledby="all-callbacks">
      <div class="heading"><h2 id="all-callbacks" class=${id ? "unseen" : ""}>All callbacks: waiting first, then the newest</h2>${!id && found && html`<p>${count(total, "callback")}</p>`}</div>
      <${ErrorBanner} error=${error} reload=${reload} />
      ${!found && !error && html`<${Loading} what="callbacks" />`}
      ${found && !total && html`<${EmptyState} picture="callbacks" title="No callbacks" text="The callbacks of conferences that have a callbackUrl appear here, with each delivery attempt." />`}
      ${total > 0 && html`<ul class="card list" aria-label="Callbacks">${found.objects.map((each) => html`<${CallbackEntry} key=${keyOf(each)} entry=${each} linked=${!id} changed=${changed} />`)}</ul>`}
      <${Pager} page=${PAGE} offset=${offset} total=${total} go=${setOffset} />
    </section>`;
}

const keyOf = ({ time, url, params }) => `${time} ${url} ${params.ConferenceUUID} ${params.ConferenceSequence}`;
