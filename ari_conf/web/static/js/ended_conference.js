// One ended conference: its members on a timeline, why they left, its recordings, callbacks and problems.
import { ADVICE } from "./advice.js";
import { apiPath, get } from "./api.js";
import { html } from "./dom.js";
import { count, formatClock, formatDuration, formatRange, formatTime } from "./format.js";
import { icon } from "./icons.js";
import { END, MemberTimeline } from "./member_timeline.js";
import { ErrorBanner, Loading, useFetched } from "./use_fetched.js";

export function EndedConference({ id }) {
  const at = apiPath("ConferenceHistory", id);
  const { found, error, reload } = useFetched(() => get(at), [id]);
  return html`
    <p class="up"><a href="#/history">${icon("back")}All ended conferences</a></p>
    <${ErrorBanner} error=${error} reload=${reload} />
    ${!found && !error && html`<${Loading} what="the conference" />`}
    ${!found && error && html`<h1 tabindex="-1">Ended conference</h1>`}
    ${found && html`<${ConferenceView} conference=${found} at=${at} />`}`;
}

function ConferenceView({ conference, at }) {
  const { conference_name: name, start_time: start, end_time: end, duration } = conference;
  return html`
    <div class="heading past">
      <h1 tabindex="-1">${name}</h1>
      <p>${formatRange(start, end)}: ${formatDuration(duration * 1000)}, ${count(conference.member_count, "member")}, at most ${conference.peak_member_count} at the same time. ${END[conference.end_reason] ?? ""}</p>
      <div class="commands end"><a class="button" href=${`${at}?format=csv`} download>${icon("download")}CSV</a></div>
    </div>
    <${MemberTimeline} conference=${conference} />
    <${Recordings} recordings=${conference.recordings} />
    <${Callbacks} conference=${conference} />
    <${Problems} problems=${conference.problems} />`;
}

function Recordings({ recordings }) {
  if (!recordings.length) return null;
  return html`<section class="section" aria-labelledby="its-recordings">
    <div class="heading"><h2 id="its-recordings">Recordings</h2></div>
    <ul class="card list">${recordings.map((one) => html`<li key=${one.recording_id}><a class="row" href=${`#/recordings/${encodeURIComponent(one.recording_id)}`}>
      <span class="name">${formatTime(one.start_time)}</span>
      <span class="hint">starts after ${formatDuration(Math.max(0, one.start_ms))}, ${one.recording_format}</span>
      <span class="clock"><span aria-hidden="true">${formatClock(one.duration_ms)}</span><span class="unseen">${formatDuration(one.duration_ms)}</span></span>
    </a></li>`)}</ul>
  </section>`;
}

function Callbacks({ conference }) {
  const { delivered, dead } = conference.callbacks;
  return html`<section class="section" aria-labelledby="its-callbacks">
    <div class="heading"><h2 id="its-callbacks">Callbacks</h2></div>
    ${!delivered && !dead && html`<p class="hint">None: the conference had none, or they are no longer kept.</p>`}
    <p class="tags">
      ${delivered > 0 && html`<span class="tag good">${icon("check")}${delivered} delivered</span>`}
      ${dead > 0 && html`<span class="tag bad">${count(dead, "dead letter")}</span>`}
    </p>
    <p class="hint"><a href=${`#/callbacks/${encodeURIComponent(conference.conference_uuid)}`}>Callbacks of this conference</a>, with each attempt</p>
  </section>`;
}

function Problems({ problems }) {
  if (!problems.length) return null;
  return html`<section class="section" aria-labelledby="its-problems">
    <div class="heading"><h2 id="its-problems">Problems</h2><p>${count(problems.length, "problem")}</p></div>
    <ul class="card list">${problems.map((one, place) => html`<li key=${place} class="entry">
      <p class="what">${one.text}</p>
      <p class="where">${formatTime(one.time)}${one.code ? `, code ${one.code}` : ""}</p>
      ${ADVICE[one.kind] && html`<p class="advice">${icon("advice")}<span>${ADVICE[one.kind]}</span></p>`}
    </li>`)}</ul>
  </section>`;
}
