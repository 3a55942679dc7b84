// Timeline: one line per member, with a bar for each speech interval. A click seeks to that position.
import { html, useEffect, useRef } from "./dom.js";
import { formatDuration } from "./format.js";

export function Timeline({ document: about, whose, player }) {
  const length = about.duration_ms || 1;
  const lines = about.members.map((member) => ({
    ...whose.get(member.member_id),
    id: member.member_id,
    spans: about.talk.filter((one) => one.member_id === member.member_id),
  }));
  if (!lines.length) return null;
  const seek = (event) => {
    const { left, width } = event.currentTarget.getBoundingClientRect();
    player.seek(((event.clientX - left) / width) * length);
  };
  // Keyboard users seek with the position slider above and the turns below; a click here is an additional way.
  return html`<div class="timeline">
    <h2 class="unseen">Who spoke when</h2>
    <ul>${lines.map((line) => html`<li key=${line.id} class=${`line tone${line.tone}`}>
      <span class="name">${line.name}</span>
      <span class="hint">${spoke(line.spans, length)}</span>
      <${Track} spans=${line.spans} length=${length} seek=${seek} at=${player.at} />
    </li>`)}</ul>
  </div>`;
}

function spoke(spans, length) {
  const ms = spans.reduce((sum, one) => sum + one.end_ms - one.start_ms, 0);
  if (!ms) return "did not speak";
  return html`<span aria-hidden="true">${Math.round((ms / length) * 100)} %</span><span class="unseen">spoke for ${formatDuration(ms)}, starting at ${formatDuration(spans[0].start_ms)}</span>`;
}

function Track({ spans, length, seek, at }) {
  const percent = (ms) => `${(ms / length) * 100}%`;
  const head = useRef(null);
  useEffect(() => head.current.style.setProperty("left", percent(at)), [at, length]);
  return html`<div class="track" aria-hidden="true" onClick=${seek}>
    ${spans.map((one) => html`<i key=${one.start_ms} class="span" style=${{ left: percent(one.start_ms), width: percent(one.end_ms - one.start_ms) }}></i>`)}
    <b class="head" ref=${head}></b>
  </div>`;
}
