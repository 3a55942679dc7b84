// Audit log: what administrators have changed, the newest first.
import { get } from "./api.js";
import { html, useState } from "./dom.js";
import { count, formatTime } from "./format.js";
import { icon } from "./icons.js";
import { EmptyState, ErrorBanner, Loading, Pager, useFetched } from "./use_fetched.js";

const PAGE = 20;
const REFRESH_MS = 10_000;
const VIA = { api: "API", page: "this page", cli: "command line", worker: "worker" };

export function AuditLog({ id }) {
  const [offset, setOffset] = useState(0);
  const query = { limit: PAGE, offset, ...(id ? { auth_id: id } : {}) };
  const { found, error, reload } = useFetched(() => get("/v1/Audit/", query), [offset, id], REFRESH_MS);
  const total = found?.meta.total_count ?? 0;
  return html`
    ${id && html`<p class="up"><a href="#/audit">${icon("back")}All entries</a></p>`}
    <div class="heading"><h1 tabindex="-1">${id ? `Audit log of ${id}` : "Audit log"}</h1><p role="status">${found ? (total === 1 ? "1 entry" : `${total} entries`) : ""}</p></div>
    <${ErrorBanner} error=${error} reload=${reload} />
    ${!found && !error && html`<${Loading} what="the audit log" />`}
    ${found && !total && html`<${EmptyState} picture="audit" title="No entries" text="Every change of an account or trunk, by the API, this page or a command, is listed here." />`}
    ${total > 0 && html`<ul class="card list" aria-label="Audit log">${found.objects.map((one, place) => html`<${Entry} key=${`${one.time} ${place}`} one=${one} />`)}</ul>`}
    <${Pager} page=${PAGE} offset=${offset} total=${total} go=${setOffset} />`;
}

function Entry({ one }) {
  const details = Object.entries(one.details);
  return html`<li class="entry">
    <p class="line1"><a class="what" href=${one.auth_id ? `#/accounts/${one.auth_id}` : "#/trunks"}>${one.auth_id || one.details.trunk}</a><span>${one.action}</span></p>
    <p class="where">${formatTime(one.time)}, ${one.who}, by ${VIA[one.via]}</p>
    ${details.length > 0 && html`<details><summary>${count(details.length, "detail")}</summary>
      <dl class="params">${details.map(([name, text]) => html`<dt key=${name}>${name}</dt><dd>${text}</dd>`)}</dl></details>`}
  </li>`;
}
