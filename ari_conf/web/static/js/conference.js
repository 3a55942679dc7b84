// One conference: state, commands and members.
import { announce } from "./announce.js";
import { apiPath, post, remove } from "./api.js";
import { callSomeone } from "./call_someone.js";
import { confirm, show } from "./dialog.js";
import { html } from "./dom.js";
import { live } from "./event_stream.js";
import { count, ElapsedTime } from "./format.js";
import { icon } from "./icons.js";
import { Member } from "./member.js";
import { PlacedCalls } from "./placed_calls.js";
import { RecordForm } from "./record_form.js";
import { useStore } from "./store.js";
import { runAction } from "./toasts.js";

export function Conference({ conference }) {
  const { conference_uuid: uuid, conference_name: name, members } = conference;
  const all = Object.entries(members).sort(([a, one], [b, other]) => one.joined_ms - other.joined_ms || a - b);
  return html`<section class="conference" aria-labelledby=${`name-${uuid}`} data-home data-conference=${name}>
    <div class="top">
      <div class="title">
        <h2 id=${`name-${uuid}`} tabindex="-1" data-focus>${name}</h2>
        <${Tags} conference=${conference} />
        <p class="hint">${count(all.length, "member")}, for <${ElapsedTime} ms=${conference.created_ms} />. <a href=${`#/callbacks/${encodeURIComponent(uuid)}`}>Callbacks of this conference</a></p>
      </div>
      <${Commands} conference=${conference} />
    </div>
    <ul class="members" aria-label=${`Members of ${name}`}>
      ${all.map(([id, member]) => html`<${Member} key=${id} id=${id} member=${member} conference=${conference} />`)}
      <${PlacedCalls} name=${name} />
    </ul>
  </section>`;
}

function Tags({ conference }) {
  return html`<p class="tags">
    ${conference.started ? html`<span class="tag good">Started</span>` : html`<span class="tag warn">${icon("wait")}Waiting to start</span>`}
    ${conference.locked && html`<span class="tag">${icon("lock")}Locked</span>`}
    ${conference.recording && html`<span class="tag bad recording"><span class="dot"></span>Recording <${ElapsedTime} ms=${conference.recording.since_ms} /></span>`}
  </p>`;
}

/** Number of calls that will end. It is updated while the dialog is open. */
function Ending({ uuid }) {
  const { conferences } = useStore(live);
  return html`${count(Object.keys(conferences?.[uuid]?.members ?? {}).length, "call")} will end immediately.`;
}

function Commands({ conference }) {
  const { conference_uuid: uuid, conference_name: name, started, locked, recording } = conference;
  const lock = () => runAction(() => (locked ? remove : post)(apiPath("Conference", name, "Lock")));
  const record = () => {
    if (recording) return runAction(() => remove(apiPath("Conference", name, "Record")), `The recording of ${name} has stopped. It appears under Recordings as soon as it is stored.`);
    return show(`Record ${name}`, ({ close }) => html`<${RecordForm} name=${name} close=${close} />`);
  };
  const end = () =>
    confirm(`Hang up everyone in ${name}?`, html`<${Ending} uuid=${uuid} />`, "Hang up all", () =>
      runAction(() => remove(apiPath("Conference", name))));
  // Commands that need a started conference are disabled, not hidden, and their titles give the reason.
  const why = started ? undefined : "Available after the conference has started";
  return html`<div class="commands" role="group" aria-label=${`Conference ${name}`}>
    <button onClick=${() => callSomeone(name)}>${icon("call")}Call someone</button>
    <button disabled=${!started} title=${why} onClick=${() => announce(name)}>${icon("announce")}Announce</button>
    <button onClick=${lock} title=${locked ? "Allow new members again" : "Allow no new members"}>${icon(locked ? "unlock" : "lock")}${locked ? "Unlock" : "Lock"}</button>
    <button disabled=${!started && !recording} title=${why} class=${recording ? "on" : ""} onClick=${record}>${icon(recording ? "stop" : "record")}${recording ? "Stop recording" : "Record"}</button>
    <button class="danger" onClick=${end}>${icon("hangUp")}Hang up all</button>
  </div>`;
}
