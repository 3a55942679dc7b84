// What was said, turn by turn. It follows the sound, and the sound follows a click.
import { transcribes } from "./api.js";
import { html, useEffect, useRef } from "./dom.js";
import { clock } from "./words.js";

const whyNot = (state) => ({
  none: transcribes
    ? "None was asked for. Tick “Write down what is said” when you start a recording, or give transcriptionType in the document."
    : "None was asked for, and nothing that transcribes is installed here: the operator can install it.",
  waiting: "It is being written. This page shows it by itself as soon as it is there.",
})[state];

export function Transcript({ transcript, whose, player }) {
  const state = transcript?.state ?? "none";
  return html`<section class="transcript" aria-labelledby="transcript">
    <h2 id="transcript">Transcript</h2>
    ${state === "done" && transcript.turns.length > 0 && html`<${Turns} turns=${transcript.turns} whose=${whose} player=${player} />`}
    ${state === "done" && !transcript.turns.length && html`<p class="hint">No word was understood.</p>`}
    ${state === "failed" && html`<p class="hint">It could not be written: ${transcript.error}.</p>`}
    ${whyNot(state) && html`<p class="hint" role="status">${whyNot(state)}</p>`}
  </section>`;
}

function Turns({ turns, whose, player }) {
  // The last that has begun: in a pause the one before it.
  const current = turns.findLastIndex((turn) => turn.start_ms <= player.at);
  const marked = player.playing || player.at > 0 ? current : -1;
  const list = useRef(null);
  useEffect(() => {
    // Only while it plays: who reads on by himself isn't pulled back.
    if (player.playing && marked >= 0) list.current.children[marked]?.scrollIntoView({ block: "nearest" });
  }, [marked, player.playing]);
  return html`<ol class="card turns" ref=${list}>${turns.map((turn, place) => html`<li key=${place}>
    <button class=${`turn tone${whose.get(turn.member_id)?.tone ?? "none"}`} aria-current=${place === marked ? "true" : undefined} onClick=${() => player.seek(turn.start_ms)}>
      <span class="clock">${clock(turn.start_ms)}</span>
      <span class="name">${whose.get(turn.member_id)?.name ?? (turn.from || "Somebody")}</span>
      <span class="said">${turn.text}</span>
    </button>
  </li>`)}</ol>`;
}
