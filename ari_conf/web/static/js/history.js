// History view: the account's ended conferences, the latest first, with a search.
import { apiPath, get } from "./api.js";
import { html, useEffect, useState } from "./dom.js";
import { count, formatClock, formatDuration, formatTime } from "./format.js";
import { icon } from "./icons.js";
import { useDebounced } from "./use_debounced.js";
import { EmptyState, ErrorBanner, Loading, Pager, useFetched } from "./use_fetched.js";

const PAGE = 20;
const ANEW_MS = 10_000;

export function History() {
  const [offset, setOffset] = useState(0);
  const [typed, setTyped] = useState("");
  const [from, setFrom] = useState("");
  const [until, setUntil] = useState("");
  const search = useDebounced(typed.trim());
  const filters = toFilters(search, from, until);
  const key = new URLSearchParams(filters).toString();
  useEffect(() => setOffset(0), [key]);
  const { found, error, reload } = useFetched(() => get(apiPath("ConferenceHistory"), { ...filters, limit: PAGE, offset }), [offset, key], ANEW_MS);
  const total = found?.meta.total_count ?? 0;
  return html`
    <div class="heading"><h1 tabindex="-1">History</h1><p role="status">${found ? count(total, "ended conference") : ""}</p>
      ${total > 0 && html`<a class="button end" href=${`${apiPath("ConferenceHistory")}?${new URLSearchParams({ ...filters, format: "csv" })}`} download>${icon("download")}CSV</a>`}</div>
    <${ErrorBanner} error=${error} reload=${reload} />
    <form class="search" role="search" onSubmit=${(event) => event.preventDefault()}>
      <div class="field"><label for="part">Name or number</label>
        <input id="part" type="search" placeholder="Any part of it" maxlength="100" value=${typed} onInput=${(event) => setTyped(event.target.value)} /></div>
      <div class="field"><label for="from">From</label>
        <input id="from" type="date" value=${from} max=${until || undefined} onInput=${(event) => setFrom(event.target.value)} /></div>
      <div class="field"><label for="until">Until</label>
        <input id="until" type="date" value=${until} min=${from || undefined} onInput=${(event) => setUntil(event.target.value)} /></div>
    </form>
    ${!found && !error && html`<${Loading} what="ended conferences" />`}
    ${found && !total && (key
      ? html`<${EmptyState} picture="history" title="No conference matches" text="Enter a part of the conference’s name, or of the number of a member, and check the dates." />`
      : html`<${EmptyState} picture="history" title="No ended conferences yet" text="When a conference has ended, it appears here with its members, the times when they talked, its recordings and its callbacks." />`)}
    ${total > 0 && html`<ul class="card list" aria-label="Ended conferences">${found.objects.map((one) => html`<${Row} key=${one.conference_uuid} one=${one} />`)}</ul>`}
    <${Pager} page=${PAGE} offset=${offset} total=${total} go=${setOffset} />`;
}

/** Return the API's filters. Days are the user's, and the API's times are UTC. */
function toFilters(search, from, until) {
  return {
    ...(search ? { search } : {}),
    ...(from ? { end_time__gte: utc(startOfDay(from)) } : {}),
    ...(until ? { end_time__lt: utc(startOfDay(until, 1)) } : {}),
  };
}

function startOfDay(day, later = 0) {
  const [year, month, date] = day.split("-").map(Number);
  return new Date(year, month - 1, date + later);
}

const utc = (date) => date.toISOString().slice(0, 19).replace("T", " ");

function Row({ one }) {
  const ms = one.duration * 1000;
  return html`<li><a class="row" href=${`#/history/${encodeURIComponent(one.conference_uuid)}`}>
    <span><span class="name">${one.conference_name}</span> <${Tags} one=${one} /></span>
    <span class="hint">${formatTime(one.start_time)}</span>
    <span class="clock"><span aria-hidden="true">${formatClock(ms)}</span><span class="unseen">${formatDuration(ms)}</span></span>
    <span class="hint right">${count(one.member_count, "member")}</span>
  </a></li>`;
}

function Tags({ one }) {
  const { recording_count: recordings, problem_count: problems, callbacks } = one;
  return html`${recordings > 0 && html`<span class="tag">${icon("recordings")}${count(recordings, "recording")}</span> `}
    ${callbacks.dead > 0 && html`<span class="tag bad">${count(callbacks.dead, "dead letter")}</span> `}
    ${problems > 0 && html`<span class="tag warn">${count(problems, "problem")}</span>`}`;
}
