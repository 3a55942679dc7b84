// One member: number and name, state, time in the conference, and commands.
import { apiPath, post, remove } from "./api.js";
import { confirm } from "./dialog.js";
import { html, useState } from "./dom.js";
import { detailsOf, ElapsedTime, numberOf } from "./format.js";
import { icon } from "./icons.js";
import { runAction } from "./toasts.js";

export function Member({ id, member, conference }) {
  const { talking } = member;
  const who = numberOf(member);
  return html`<li class=${`member ${talking ? "talking" : ""}`} data-member=${id}>
    <span class="face" aria-hidden="true">${icon(member.state === "held" ? "hold" : member.muted ? "micOff" : "mic")}</span>
    <div class="person">
      <p class="number">${who}</p>
      <p class="hint">${detailsOf(member)}</p>
    </div>
    <p class="tags"><${StatusTags} member=${member} /><${Line} quality=${member.quality} /></p>
    <${ElapsedTime} ms=${member.joined_ms} label="Time in the conference" />
    <${Commands} id=${id} who=${who} member=${member} name=${conference.conference_name} />
  </li>`;
}

function StatusTags({ member }) {
  const { state, muted, deaf, talking, floor } = member;
  return html`
    ${talking && html`<span class="tag good"><span class="bars"><i></i><i></i><i></i></span>Talking</span>`}
    ${floor && html`<span class="tag info">${icon("floor")}Has the floor</span>`}
    ${state === "waiting" && html`<span class="tag warn">${icon("wait")}Waiting</span>`}
    ${(state === "held" || member.held) && html`<span class="tag warn">${icon("hold")}On hold</span>`}
    ${muted && html`<span class="tag">${icon("micOff")}Muted</span>`}
    ${deaf && html`<span class="tag">${icon("earOff")}Deaf</span>`}`;
}

/** MOS from which a line is good: docs/operations/monitoring.md. */
const GOOD_MOS = 3.6;

/** The quality of the member's line. A good one is only a small picture, with its figures as title and for screen readers. */
function Line({ quality }) {
  if (!quality) return null;
  const { bad, current } = quality;
  const [word, picture] = bad ? ["Bad", "signalBad"] : current.mos < GOOD_MOS ? ["Fair", "signalFair"] : ["Good", "signalGood"];
  const figures = [
    `MOS ${current.mos.toFixed(1)}`,
    ...[
      [current.loss_in, "packets lost from the phone: ", " %"],
      [current.loss_out, "packets lost to the phone: ", " %"],
      [current.jitter_in_ms, "jitter from the phone: ", " ms"],
      [current.jitter_out_ms, "jitter to the phone: ", " ms"],
      [current.round_trip_ms, "round trip: ", " ms"],
    ].flatMap(([value, before, unit]) => (value === null ? [] : [before + value + unit])),
  ].join(", ");
  return html`<span class=${`signal ${bad ? "tag bad" : ""}`} title=${`${word} line: ${figures}`}>
    ${icon(picture)}<span class=${bad ? "" : "unseen"}>${word} line</span><span class="unseen">, ${figures}</span>
  </span>`;
}

/** [verb, icon, title] of each switch, for the field's present value. */
const SWITCHES = [
  { field: "muted", path: "Mute", off: ["Mute", "micOff", "The others no longer hear this member"], on: ["Unmute", "mic", "The others hear this member again"] },
  { field: "deaf", path: "Deaf", off: ["Deafen", "earOff", "This member no longer hears the conference"], on: ["Undeafen", "ear", "This member hears the conference again"] },
  { field: "held", path: "Hold", off: ["Hold", "hold", "Take this member out of the conference for a while, with music"], on: ["Resume", "resume", "Return this member to the conference"] },
];

function Commands({ id, who, member, name }) {
  const at = (...more) => apiPath("Conference", name, "Member", id, ...more);
  const kick = () =>
    confirm(`Kick ${who}?`, `This member leaves ${name}; the call continues with what follows the conference in its document.`, "Kick", () => runAction(() => post(at("Kick"))));
  const hangUp = () => confirm(`Hang up ${who}?`, "The call ends immediately.", "Hang up", () => runAction(() => remove(at())));
  return html`<div class="commands small" role="group" aria-label=${`Member ${who}`}>
    ${SWITCHES.map((each) => html`<${Switch} key=${each.field} each=${each} isOn=${member[each.field]} who=${who} where=${() => at(each.path)} />`)}
    <button aria-label=${`Kick ${who}`} title="Take this member out of the conference; the call continues" onClick=${kick}>${icon("kick")}<span>Kick</span></button>
    <button class="danger" aria-label=${`Hang up ${who}`} title="End this call" onClick=${hangUp}>${icon("hangUp")}<span>Hang up</span></button>
  </div>`;
}

/** The button names its action. It changes when the conference has changed, not when it is pressed. */
function Switch({ each, isOn, who, where }) {
  const [busy, setBusy] = useState(false);
  const [verb, picture, title] = isOn ? each.on : each.off;
  const press = async () => {
    if (busy) return;
    setBusy(true);
    await runAction(() => (isOn ? remove : post)(where()));
    setBusy(false);
  };
  return html`<button class=${isOn ? "on" : ""} aria-label=${`${verb} ${who}`} aria-disabled=${busy} title=${title} onClick=${press}>${icon(picture)}<span>${verb}</span></button>`;
}
