// Transcript: speaker turns. The current turn follows playback, and a click on a turn seeks to it.
import { transcribes } from "./api.js";
import { html, useEffect, useRef } from "./dom.js";
import { formatClock } from "./format.js";

const whyNot = (state) => ({
  none: transcribes
    ? "No transcript was requested. Select “Transcribe the recording” when you start a recording, or set transcriptionType in the document."
    : "No transcript was requested, and no transcription engine is installed. Ask the operator to install an engine.",
  waiting: "The transcript is being made. It appears here automatically as soon as it is ready.",
})[state];

export function Transcript({ transcript, whose, player }) {
  const state = transcript?.state ?? "none";
  return html`<section class="transcript" aria-labelledby="transcript">
    <h2 id="transcript">Transcript</h2>
    ${state === "done" && transcript.turns.length > 0 && html`<${Turns} turns=${transcript.turns} whose=${whose} player=${player} />`}
    ${state === "done" && !transcript.turns.length && html`<p class="hint">No words were recognized.</p>`}
    ${state === "failed" && html`<p class="hint">The recording could not be transcribed: ${transcript.error}.</p>`}
    ${whyNot(state) && html`<p class="hint" role="status">${whyNot(state)}</p>`}
  </section>`;
}

function Turns({ turns, whose, player }) {
  // The last turn that has started: during a pause, the turn before it.
  const current = turns.findLastIndex((turn) => turn.start_ms <= player.at);
  const marked = player.playing || player.at > 0 ? current : -1;
  const list = useRef(null);
  useEffect(() => {
    // Scroll only during playback, so that a user who reads ahead is not pulled back.
    if (player.playing && marked >= 0) list.current.children[marked]?.scrollIntoView({ block: "nearest" });
  }, [marked, player.playing]);
  return html`<ol class="card turns" ref=${list}>${turns.map((turn, place) => html`<li key=${place}>
    <button class=${`turn tone${whose.get(turn.member_id)?.tone ?? "none"}`} aria-current=${place === marked ? "true" : undefined} onClick=${() => player.seek(turn.start_ms)}>
      <span class="clock">${formatClock(turn.start_ms)}</span>
      <span class="name">${whose.get(turn.member_id)?.name ?? (turn.from || "Unknown speaker")}</span>
      <span class="said">${turn.text}</span>
    </button>
  </li>`)}</ol>`;
}
