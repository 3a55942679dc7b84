// Recordings view: the account's recordings, the newest first.
import { apiPath, get } from "./api.js";
import { html, useEffect, useState } from "./dom.js";
import { count, formatClock, formatDuration, formatSize, formatTime, recordingTitle } from "./format.js";
import { useDebounced } from "./use_debounced.js";
import { EmptyState, ErrorBanner, Loading, Pager, useFetched } from "./use_fetched.js";

const PAGE = 20;
const ANEW_MS = 5000;

export function Recordings() {
  const [offset, setOffset] = useState(0);
  const [typed, setTyped] = useState("");
  const name = useDebounced(typed.trim());
  useEffect(() => setOffset(0), [name]);
  const query = { limit: PAGE, offset, ...(name ? { conference_name: name } : {}) };
  const { found, error, reload } = useFetched(() => get(apiPath("Recording"), query), [offset, name], ANEW_MS);
  const total = found?.meta.total_count ?? 0;
  return html`
    <div class="heading"><h1 tabindex="-1">Recordings</h1><p role="status">${found ? count(total, "recording") : ""}</p></div>
    <${ErrorBanner} error=${error} reload=${reload} />
    <div class="field narrow"><label for="of">Conference name</label>
      <input id="of" type="search" placeholder="Full name, or empty for all" value=${typed} onInput=${(event) => setTyped(event.target.value)} /></div>
    ${!found && !error && html`<${Loading} what="recordings" />`}
    ${found && !total && (name
      ? html`<${EmptyState} picture="recordings" title="No recording of ${name}" text="Enter the full name, with the same upper and lower case." />`
      : html`<${EmptyState} picture="recordings" title="No recordings yet" text="Record a live conference with its Record button, or with record=&quot;true&quot; in its document." />`)}
    ${total > 0 && html`<ul class="card list" aria-label="Recordings">${found.objects.map((one) => html`<${Row} key=${one.recording_id} one=${one} />`)}</ul>`}
    <${Pager} page=${PAGE} offset=${offset} total=${total} go=${setOffset} />`;
}

function Row({ one }) {
  const ms = Number(one.recording_duration_ms);
  return html`<li><a class="row" href=${`#/recordings/${encodeURIComponent(one.recording_id)}`}>
    <span class="name">${recordingTitle(one)}</span>
    <span class="hint">${formatTime(Number(one.recording_start_ms))}</span>
    <span class="clock"><span aria-hidden="true">${formatClock(ms)}</span><span class="unseen">${formatDuration(ms)}</span></span>
    <span class="hint right">${one.recording_format}, ${formatSize(one.size)}</span>
  </a></li>`;
}
