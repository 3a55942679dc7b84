// Timeline of an ended conference: for each member, when they were in, when they talked, and why they left.
import { html } from "./dom.js";
import { count, detailsOf, formatClock, formatDuration, numberOf } from "./format.js";
import { icon } from "./icons.js";

const TONES = 6;

/** Sentences for the reason of an exit, by the API's word. */
const EXIT = {
  hangup: "Hung up",
  star: "Left by pressing *",
  kick: "Kicked with the API",
  api_hangup: "Hung up with the API",
  time_limit: "Left when the time limit passed",
  host_left: "Left when the host left",
  left_alone: "Left because nobody else was in",
  conference_ended: "Left when the conference ended",
};

/** Sentences for the reason why a conference ended for all members. Without one, the last member left. */
export const END = {
  api_hangup: "It was hung up with the API.",
  time_limit: "Its time limit passed.",
  host_left: "It ended when the host left.",
  left_alone: "It ended because one member was left.",
};

export function MemberTimeline({ conference }) {
  const length = Math.max(1, conference.duration_ms);
  const members = conference.members;
  const missing = conference.member_count - members.length;
  return html`<section class="section" aria-labelledby="its-members">
    <div class="heading"><h2 id="its-members">Members</h2><p aria-hidden="true">Pale bar: in the conference. Strong bar: talking.</p></div>
    <div class="card stays">
      <div class="scale" aria-hidden="true"><span>0:00</span><span>${formatClock(length / 2)}</span><span>${formatClock(length)}</span></div>
      <ol>${members.map((member, place) => html`<${Stay} key=${member.member_id} member=${member} tone=${place % TONES} length=${length} />`)}</ol>
      ${missing > 0 && html`<p class="hint">The first ${count(members.length, "member")} of ${conference.member_count}; the CSV file has more.</p>`}
    </div>
  </section>`;
}

function Stay({ member, tone, length }) {
  const { join_ms: joined, exit_ms: left, talk, quality } = member;
  // The number that they called is mostly that of all members.
  const details = detailsOf(member.direction === "outbound" ? member : { ...member, to: "" });
  return html`<li class=${`stay tone${tone}`} data-member=${member.member_id}>
    <div class="person">
      <p class="name">${numberOf(member)}</p>
      ${details && html`<p class="hint">${details}</p>`}
    </div>
    <${Track} joined=${joined} left=${left} talk=${talk} length=${length} />
    <p class="hint words">
      <span aria-hidden="true">${formatClock(joined)} to ${formatClock(left)}</span><span class="unseen">In after ${formatDuration(joined)}, for ${formatDuration(left - joined)}.</span>
      ${talked(member) && html`<span>${talked(member)}</span>`}
      <span>${EXIT[member.exit_reason] ?? member.exit_reason}</span>
      ${quality && html`<${Line} quality=${quality} />`}
    </p>
  </li>`;
}

/** Talking is noted only while something needs to know it, such as a recording or an open Live view. */
function talked({ talk, talk_duration_ms: known }) {
  const ms = known ?? talk.reduce((sum, one) => sum + one.end_ms - one.start_ms, 0);
  if (ms) return `Talked for ${formatDuration(ms)}`;
  return known === null ? "" : "Did not talk";
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
  const { bad, mos, worst_mos: worst } = quality;
  const title = `Mean opinion score of the line, 1 to 4.4: ${mos.toFixed(1)} on average${worst === null ? "" : `, ${worst.toFixed(1)} at worst`}`;
  return html`<span class=${`tag ${bad ? "bad" : ""}`} title=${title}>${icon(bad ? "signalBad" : "signalGood")}${bad ? "Bad line, " : ""}MOS ${mos.toFixed(1)}</span>`;
}
