// Timeline of an ended conference: for each member, when they were in, when they talked, and why they left.
import { html } from "./dom.js";
import { count, formatClock, formatDuration } from "./format.js";
import { icon } from "./icons.js";

const TONES = 6;

export function MemberTimeline({ conference }) {
  const length = Math.max(1, conference.duration_ms);
  const members = conference.members;
  const missing = conference.member_count - members.length;
  return html`<section class="section" aria-labelledby="its-members">
    <div class="heading"><h2 id="its-members">Members</h2><p aria-hidden="true">A light bar: in the conference. A dark bar: talking.</p></div>
    <div class="card stays">
      <div class="scale" aria-hidden="true"><span>0:00</span><span>${formatClock(length / 2)}</span><span>${formatClock(length)}</span></div>
      <ol>${members.map((member, place) => html`<${Stay} key=${member.member_id} member=${member} tone=${place % TONES} length=${length} />`)}</ol>
      ${missing > 0 && html`<p class="hint">The first ${count(members.length, "member")} of ${conference.member_count}; the CSV file has more.</p>`}
    </div>
  </section>`;
}

function Stay({ member, tone, length }) {
  const { from, caller_name: called, join_ms: joined, exit_ms: left, talk, quality } = member;
  const name = called && called !== from ? called : "";
  return html`<li class=${`stay tone${tone}`} data-member=${member.member_id}>
    <div class="person">
      <p class="name">${from || "Unknown number"}</p>
      ${name && html`<p class="hint">${name}</p>`}
    </div>
    <${Track} joined=${joined} left=${left} talk=${talk} length=${length} />
    <p class="hint words">
      <span aria-hidden="true">${formatClock(joined)} to ${formatClock(left)}</span><span class="unseen">In after ${formatDuration(joined)}, for ${formatDuration(left - joined)}.</span>
      <span>${talked(talk)}</span>
      <span>${member.exit_text}</span>
      ${quality && html`<${Line} quality=${quality} />`}
    </p>
  </li>`;
}

function talked(talk) {
  const ms = talk.reduce((sum, one) => sum + one.end_ms - one.start_ms, 0);
  return ms ? `talked for ${formatDuration(ms)}` : "was not heard talking";
}

function Track({ joined, left, talk, length }) {
  const percent = (ms) => `${(Math.max(0, Math.min(ms, length)) / length) * 100}%`;
  const bar = (from, to) => ({ left: percent(from), width: percent(to - from) });
  return html`<div class="track" aria-hidden="true">
    <i class="presence" style=${bar(joined, left)}></i>
    ${talk.map((one) => html`<i key=${one.start_ms} class="span" style=${bar(one.start_ms, one.end_ms)}></i>`)}
  </div>`;
}

function Line({ quality }) {
  const { bad, average, worst } = quality;
  const title = `Mean opinion score, 1 to 4.4: ${average.mos.toFixed(1)} on average, ${worst.mos.toFixed(1)} at worst`;
  return html`<span class=${`tag ${bad ? "bad" : ""}`} title=${title}>${icon(bad ? "signalBad" : "signalGood")}<span><abbr title="mean opinion score">MOS</abbr> ${average.mos.toFixed(1)}</span></span>`;
}
