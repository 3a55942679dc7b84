// Callbacks view: the callbacks of all conferences, or of one.
import { get, place } from "./api.js";
import { html, useState } from "./dom.js";
import { Entry } from "./entry.js";
import { Empty, Loading, Pages, Trouble, useFetched } from "./fetched.js";
import { icon } from "./icons.js";
import { Letters, useLetters } from "./letters.js";
import { count } from "./words.js";

const PAGE = 20;
const ANEW_MS = 5000;

/** `id`: UUID of the conference whose callbacks to show; without it, all callbacks. */
export function Callbacks({ id }) {
  const [offset, setOffset] = useState(0);
  const query = { limit: PAGE, offset, ...(id ? { conference_uuid: id } : {}) };
  const { found, error, again } = useFetched(() => get(place("Callback"), query), [id, offset], ANEW_MS);
  const letters = useLetters(ANEW_MS);
  // Resending a dead letter also changes the list of callbacks.
  const changed = () => Promise.all([again(), letters.again()]);
  const name = id && found?.objects[0]?.conference_name;
  const total = found?.meta.total_count ?? 0;
  return html`
    ${id && html`<p class="up"><a href="#/callbacks">${icon("back")}All callbacks</a></p>`}
    <div class="heading"><h1 tabindex="-1">${name ? `Callbacks of ${name}` : "Callbacks"}</h1>${id && found && html`<p>${count(total, "callback")}</p>`}</div>
    ${!id && html`<${Letters} letters=${letters} changed=${changed} />`}
    <section class="section" aria-labelledby="told">
      <div class="heading"><h2 id="told" class=${id ? "unseen" : ""}>All callbacks: waiting first, then the newest</h2>${!id && found && html`<p>${count(total, "callback")}</p>`}</div>
      <${Trouble} error=${error} again=${again} />
      ${!found && !error && html`<${Loading} what="callbacks" />`}
      ${found && !total && html`<${Empty} picture="callbacks" title="No callbacks" text="The callbacks of conferences that have a callbackUrl appear here, with each delivery attempt." />`}
      ${total > 0 && html`<ul class="card list" aria-label="Callbacks">${found.objects.map((each) => html`<${Entry} key=${keyOf(each)} entry=${each} linked=${!id} changed=${changed} />`)}</ul>`}
      <${Pages} page=${PAGE} offset=${offset} total=${total} go=${setOffset} />
    </section>`;
}

const keyOf = ({ time, url, params }) => `${time} ${url} ${params.ConferenceUUID} ${params.ConferenceSequence}`;
