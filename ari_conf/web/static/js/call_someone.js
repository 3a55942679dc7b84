// Form for calling people into a conference. What the server refuses is shown in the dialog.
import { apiPath, post } from "./api.js";
import { Actions, show } from "./dialog.js";
import { html, useRef, useState } from "./dom.js";
import { follow } from "./placed_calls.js";

const CONFIRM_KEY = "1";

/** The caller ID of the last call, for the next one. */
let lastFrom = "";

export function callSomeone(name) {
  show(`Call someone into ${name}`, ({ close }) => html`<${Form} name=${name} close=${close} />`);
}

// crypto.randomUUID() exists only on pages with TLS.
const newKey = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join("-");

/** "Caller_id_not_allowed: the account may …" -> "The account may …": the name of the reason is for programs. */
function withoutReasonCode(text) {
  const said = text.replace(/^[A-Za-z]+(_[a-z]+)+: /, "");
  return said.charAt(0).toUpperCase() + said.slice(1);
}

function Form({ name, close }) {
  const [to, setTo] = useState("");
  const [from, setFrom] = useState(lastFrom);
  const [shown, setShown] = useState("");
  const [muted, setMuted] = useState(false);
  const [confirms, setConfirms] = useState(false);
  const [refused, setRefused] = useState("");
  // A request whose reply got lost is repeated with its key, so that nobody is called twice.
  const attempt = useRef({ text: "", key: "" });
  const call = async () => {
    const numbers = to.split(/[,<\n]/).map((each) => each.trim()).filter(Boolean);
    if (!numbers.length || !from.trim()) {
      setRefused(numbers.length ? "Enter the number that the phone shows." : "Enter the number to call.");
      return false;
    }
    const body = { to: numbers.join("<"), from: from.trim(), muted, ...(shown.trim() ? { caller_name: shown.trim() } : {}), ...(confirms ? { confirm_key: CONFIRM_KEY } : {}) };
    const text = JSON.stringify(body);
    if (attempt.current.text !== text) attempt.current = { text, key: newKey() };
    setRefused("");
    try {
      const { calls } = await post(apiPath("Conference", name, "Member"), body, { "Idempotency-Key": attempt.current.key });
      lastFrom = from.trim();
      follow(name, calls);
      return true;
    } catch (error) {
      if (error.status) attempt.current = { text: "", key: "" };
      setRefused(withoutReasonCode(error.message));
      return false;
    }
  };
  return html`
    <div class="field"><label for="call-to">Number to call</label>
      <input id="call-to" type="text" maxlength="2000" autocomplete="off" autofocus placeholder="+49 30 1234567" value=${to} onInput=${(event) => setTo(event.target.value)} aria-describedby="call-to-hint refused" />
      <p class="hint" id="call-to-hint">Of several, separated by commas, the first who answers gets in.</p></div>
    <div class="field"><label for="call-from">Caller ID</label>
      <input id="call-from" type="text" maxlength="200" autocomplete="off" value=${from} onInput=${(event) => setFrom(event.target.value)} aria-describedby="call-from-hint refused" />
      <p class="hint" id="call-from-hint">The number that the phone shows. Your account must be allowed to show it.</p></div>
    <div class="field"><label for="call-name">Name (optional)</label>
      <input id="call-name" type="text" maxlength="50" autocomplete="off" value=${shown} onInput=${(event) => setShown(event.target.value)} aria-describedby="call-name-hint" />
      <p class="hint" id="call-name-hint">The name that the phone shows.</p></div>
    <label class="choice"><input type="checkbox" checked=${muted} onChange=${(event) => setMuted(event.target.checked)} />Mute on entry</label>
    <label class="choice"><input type="checkbox" checked=${confirms} onChange=${(event) => setConfirms(event.target.checked)} />Ask them to press ${CONFIRM_KEY} first, so that no voicemail gets in</label>
    <p class="refused" role="alert" id="refused">${refused}</p>
    <${Actions} close=${close} verb="Call" act=${call} />`;
}
