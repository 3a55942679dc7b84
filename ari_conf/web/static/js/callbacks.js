// What the account's program was told: of all conferences, or of one.
import { get, place } from "./api.js";
import { html, useState } from "./dom.js";
import { Entry } from "./entry.js";
import { Empty, Loading, Pages, Trouble, useFetched } from "./fetched.js";
import { icon } from "./icons.js";
import { Letters, useLetters } from "./letters.js";
import { count } from "./words.js";

const PAGE = 20;
const ANEW_MS = 5000;

/** `id`: of the conference whose callbacks they are. */
export function Callbacks({ id }) {
  const [offset, setOffset] = useState(0);
  const query = { limit: PAGE, offset, ...(id ? { conference_uuid: id } : {}) };
  const { found, error, again } = useFetched(() => get(place("Callback"), query), [id, offset], ANEW_MS);
  const letters = useLetters(ANEW_MS);
  // What was sent again above stands otherwise below.
  const changed = () => Promise.all([again(), letters.again()]);
  const name = id && found?.objects[0]?.conference_name;
  const total = found?.meta.total_count ?? 0;
  return html`
    ${id && html`<p class="up"><a href="#/callbacks">${icon("back")}All callbacks</a></p>`}
    <div class="heading"><h1 tabindex="-1">${name ? `Callbacks of ${name}` : "Callbacks"}</h1>${id && found && html`<p>${count(total, "callback")}</p>`}</div>
    ${!id && html`<${Letters} letters=${letters} changed=${changed} />`}
    <section class="section" aria-labelledby="told">
      <div class="heading"><h2 id="told" class=${id ? "unseen" : ""}>All: those that wait, then the latest</h2>${!id && found && html`<p>${count(total, "callback")}</p>`}</div>
      <${Trouble} error=${error} again=${again} />
      ${!found && !error && html`<${Loading} what="callbacks" />`}
      ${found && !total && html`<${Empty} picture="callbacks" title="No callbacks" text="What a conference with a callbackUrl tells your program shows up here, with each try." />`}
      ${total > 0 && html`<ul class="card list" aria-label="Callbacks">${found.objects.map((each) => html`<${Entry} key=${keyOf(each)} entry=${each} linked=${!id} changed=${changed} />`)}</ul>`}
      <${Pages} page=${PAGE} offset=${offset} total=${total} go=${setOffset} />
    </section>`;
}

const keyOf = ({ time, url, params }) => `${time} ${url} ${params.ConferenceUUID} ${params.ConferenceSequence}`;
