// Form for a new recording: file format and transcription.
import { apiPath, post, transcribes } from "./api.js";
import { Actions } from "./dialog.js";
import { html, useState } from "./dom.js";
import { runAction } from "./toasts.js";

export function RecordForm({ name, close }) {
  const [form, setForm] = useState("mp3");
  const [written, setWritten] = useState(false);
  const start = () => {
    const body = { file_format: form, ...(written ? { transcription_type: "auto" } : {}) };
    return runAction(() => post(apiPath("Conference", name, "Record"), body), `${name} is being recorded.`);
  };
  return html`
    <p class="hint">Everyone in the conference is recorded until you stop the recording or the conference ends. Tell them, for example with an announcement.</p>
    <fieldset class="choices"><legend>File format</legend>
      <label class="choice"><input type="radio" name="form" checked=${form === "mp3"} onChange=${() => setForm("mp3")} />mp3, small</label>
      <label class="choice"><input type="radio" name="form" checked=${form === "wav"} onChange=${() => setForm("wav")} />wav, uncompressed</label>
    </fieldset>
    ${transcribes && html`<label class="choice"><input type="checkbox" checked=${written} onChange=${(event) => setWritten(event.target.checked)} />Transcribe the recording</label>`}
    <${Actions} close=${close} verb="Start recording" act=${start} />`;
}
