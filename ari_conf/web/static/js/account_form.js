// Forms about an account: its fields, its token, and its removal.
import { patch, remove } from "./api.js";
import { Actions } from "./dialog.js";
import { html, useState } from "./dom.js";
import { showError, showSuccess } from "./toasts.js";
import { store } from "./store.js";

export const PATH = "/v1/Account/";
export const pathOf = (authId) => `${PATH}${encodeURIComponent(authId)}/`;

/** A new token, {auth_id, token}: it is shown once, until the user leaves the account. */
export const freshToken = store(null);
export const showToken = (authId, token) => freshToken.set({ auth_id: authId, token });

const METHODS = ["POST", "GET"];
/** [field, label, choices or null, hint] */
export const FIELDS = [
  ["answer_url", "Answer URL", null, "Returns the document of a new call."],
  ["answer_method", "Method of the answer URL", METHODS],
  ["fallback_url", "Fallback URL", null, "Is asked if another URL fails or returns no valid document."],
  ["fallback_method", "Method of the fallback URL", METHODS],
  ["hangup_url", "Hangup URL", null, "Is told when a call has ended."],
  ["hangup_method", "Method of the hangup URL", METHODS],
  ["max_members", "Members of a conference", null, "Maximum, and default of maxMembers."],
  ["transcription_rate", "Price of a transcribed minute"],
  ["transcription_language", "Spoken language", null, "A code such as de, or auto."],
  ["recording_auth", "Login for RecordUrl", ["none", "basic"]],
  ["dial_prefixes", "Destinations that it may call", null, "Separated by commas: countries (DE), beginnings of numbers (+49), sip:HOST; ! denies. Empty: none."],
  ["dial_special", "Blocked numbers that it may call", null, "Premium, unassigned, short and emergency numbers: +49900, 112, 10*."],
  ["dial_caller_ids", "Caller IDs that it may show", null, "Numbers, or the beginning of a block: +4930123*. Empty: none."],
  ["dial_calls", "Placed calls at the same time"],
  ["dial_calls_per_minute", "Placed calls per minute"],
  ["dial_minutes_per_day", "Minutes of placed calls per day"],
];
/** Fields with a list, which may be empty. */
const LISTS = ["dial_prefixes", "dial_special", "dial_caller_ids", "prefixes", "caller_ids", "hosts"];

const DEFAULTS = { answer_method: "POST", fallback_method: "POST", hangup_method: "POST", max_members: 20, transcription_rate: "0", transcription_language: "en", recording_auth: "none", dial_calls: 10, dial_calls_per_minute: 30, dial_minutes_per_day: 300 };
export const text = (value) => (value === null || value === undefined ? "" : String(value));

/** Return the body of a request: the fields that differ from `before`. An empty URL removes it. */
export function changes(values, before) {
  const body = {};
  for (const [name, value] of Object.entries(values)) {
    if (value.trim() !== text(before[name])) body[name] = value.trim() || (LISTS.includes(name) ? "" : null);
  }
  return body;
}

export const accountForm = (parts) => html`<${AccountForm} ...${parts} />`;

function AccountForm({ close, account, verb, send, done }) {
  const before = account ?? DEFAULTS;
  const [values, setValues] = useState(Object.fromEntries([...(account ? [] : ["auth_id", "auth_token"]), ...FIELDS.map(([name]) => name)].map((name) => [name, text(before[name])])));
  const [refused, setRefused] = useState("");
  const act = async () => {
    const body = changes(values, before);
    if (account && !Object.keys(body).length) {
      setRefused("Nothing was changed.");
      return false;
    }
    return submit(() => send(body), done, setRefused);
  };
  const set = (name) => (event) => setValues({ ...values, [name]: event.target.value });
  return html`
    ${!account && html`
      <${Field} name="auth_id" label="Auth ID" value=${values.auth_id} onInput=${set("auth_id")} hint="1 to 40 letters and digits. Empty: a generated one." first />
      <${Field} name="auth_token" label="Auth token" value=${values.auth_token} onInput=${set("auth_token")} hint="16 to 100 letters and digits. Empty: a generated one." />`}
    ${FIELDS.map(([name, label, choices, hint]) => html`<${Field} key=${name} name=${name} label=${label} choices=${choices} hint=${hint} value=${values[name]} onInput=${set(name)} />`)}
    <p class="refused" role="alert">${refused}</p>
    <${Actions} close=${close} verb=${verb} act=${act} />`;
}

/** Send a request of a form. The form stays open if the request is refused, and shows why. */
export async function submit(send, done, setRefused) {
  try {
    const reply = await send();
    done(reply);
    return true;
  } catch (error) {
    setRefused(withLabel(error.message));
    return false;
  }
}

/** "Answer_url: … is not allowed" -> "Answer URL: … is not allowed". */
const withLabel = (message) => message.replace(/^(\w+)(?=:)/, (name) => FIELDS.find(([field]) => field === name.toLowerCase())?.[1] ?? name);

export function Field({ name, label, value, onInput, hint, choices, first = false }) {
  const id = `field-${name}`;
  const about = hint ? `${id}-hint` : undefined;
  return html`<div class="field"><label for=${id}>${label}</label>
    ${choices ? html`<select id=${id} value=${value} onChange=${onInput}>${choices.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select>`
      : html`<input id=${id} type="text" value=${value} onInput=${onInput} aria-describedby=${about} autocapitalize="none" autocomplete="off" spellcheck="false" autofocus=${first} />`}
    ${hint && html`<p class="hint" id=${about}>${hint}</p>`}
  </div>`;
}

export const rotationForm = (parts) => html`<${RotationForm} ...${parts} />`;

function RotationForm({ close, authId, done }) {
  const [token, setToken] = useState("");
  const [hours, setHours] = useState("24");
  const [refused, setRefused] = useState("");
  const act = () => {
    const body = { old_token_hours: hours.trim(), ...(token.trim() ? { auth_token: token.trim() } : { rotate_token: true }) };
    return submit(() => patch(pathOf(authId), body), done, setRefused);
  };
  return html`
    <${Field} name="new_token" label="New token" value=${token} onInput=${(event) => setToken(event.target.value)} hint="16 to 100 letters and digits. Empty: a generated one." first />
    <${Field} name="hours" label="Hours for which the old token stays valid" value=${hours} onInput=${(event) => setHours(event.target.value)} hint="Both sign until then, so that receivers have time to change theirs. 0: it ends now." />
    <p class="refused" role="alert">${refused}</p>
    <${Actions} close=${close} verb="Rotate" act=${act} />`;
}

export const removalForm = (parts) => html`<${RemovalForm} ...${parts} />`;

function RemovalForm({ close, authId, done }) {
  const [calls, setCalls] = useState("keep");
  const [purge, setPurge] = useState(false);
  const [typed, setTyped] = useState("");
  const [refused, setRefused] = useState("");
  const act = () => {
    if (purge && typed.trim() !== authId) {
      setRefused(`Enter ${authId} to confirm that its data is to be deleted.`);
      return false;
    }
    return submit(() => remove(pathOf(authId), { calls, purge }), done, setRefused);
  };
  return html`
    <p>New calls are refused immediately, and its API and dashboard are closed. Its last callbacks are still delivered.</p>
    <fieldset class="choices"><legend>Its live calls</legend>
      <label class="choice"><input type="radio" name="calls" checked=${calls === "keep"} onChange=${() => setCalls("keep")} />continue until they end</label>
      <label class="choice"><input type="radio" name="calls" checked=${calls === "end"} onChange=${() => setCalls("end")} />are hung up</label>
    </fieldset>
    <label class="choice"><input type="checkbox" checked=${purge} onChange=${(event) => setPurge(event.target.checked)} />Delete everything that is stored of it, also its recordings</label>
    ${purge && html`<${Field} name="confirm" label="Auth ID, to confirm the deletion" value=${typed} onInput=${(event) => setTyped(event.target.value)} />`}
    <p class="refused" role="alert">${refused}</p>
    <${Actions} close=${close} verb="Remove" danger act=${act} />`;
}

/** Change the removal of an account that is in progress. Return true if it succeeded. */
export async function changeRemoval(authId, query, success) {
  try {
    await remove(pathOf(authId), query);
    showSuccess(success);
    return true;
  } catch (error) {
    showError(error);
    return false;
  }
}
