// Form for an announcement to all members of a conference: a text to speak, or a sound file.
import { apiPath, post } from "./api.js";
import { Actions, show } from "./dialog.js";
import { html, useState } from "./dom.js";
import { runAction } from "./toasts.js";

const MOST = 3000;

export function announce(name) {
  show(`Announce to ${name}`, ({ close }) => html`<${Form} name=${name} close=${close} />`);
}

function Form({ name, close }) {
  const [kind, setKind] = useState("text");
  const [text, setText] = useState("");
  const [url, setUrl] = useState("");
  const [voice, setVoice] = useState("WOMAN");
  const [missing, setMissing] = useState("");
  const send = async () => {
    const given = kind === "text" ? text.trim() : url.trim();
    if (!given) {
      setMissing(kind === "text" ? "Enter the text to announce." : "Enter the address of a sound file.");
      return false;
    }
    const body = kind === "text" ? { text: given, voice } : { url: given };
    return runAction(() => post(apiPath("Conference", name, "Announce"), body), `The announcement was sent to ${name}.`);
  };
  return html`
    <fieldset class="choices"><legend class="unseen">Kind of announcement</legend>
      <label class="choice"><input type="radio" name="kind" checked=${kind === "text"} onChange=${() => setKind("text")} />Spoken text</label>
      <label class="choice"><input type="radio" name="kind" checked=${kind === "url"} onChange=${() => setKind("url")} />Sound file</label>
    </fieldset>
    ${kind === "text" ? html`
      <div class="field"><label for="announced">Text</label>
        <textarea id="announced" maxlength=${MOST} autofocus placeholder="Five minutes left." value=${text} onInput=${(event) => setText(event.target.value)} aria-describedby="missing"></textarea></div>
      <div class="field"><label for="voice">Voice</label>
        <select id="voice" value=${voice} onChange=${(event) => setVoice(event.target.value)}><option value="WOMAN">Woman</option><option value="MAN">Man</option></select></div>` : html`
      <div class="field"><label for="sound">Address (http or https) of an mp3 or wav file</label>
        <input id="sound" type="url" placeholder="https://" value=${url} onInput=${(event) => setUrl(event.target.value)} aria-describedby="missing" /></div>`}
    <p class="refused" role="alert" id="missing">${missing}</p>
    <${Actions} close=${close} verb="Announce" act=${send} />`;
}
