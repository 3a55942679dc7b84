// Trunks view: over which trunks calls are placed, their form, and a test of a number.
import { changes, Field, submit, text } from "./account_form.js";
import { get, patch, post, remove } from "./api.js";
import { Actions, confirm, show } from "./dialog.js";
import { html, useState } from "./dom.js";
import { count } from "./format.js";
import { icon } from "./icons.js";
import { showSuccess, runAction } from "./toasts.js";
import { EmptyState, ErrorBanner, Loading, useFetched } from "./use_fetched.js";

const PATH = "/v1/Trunk/";
const pathOf = (name) => `${PATH}${encodeURIComponent(name)}/`;
const REFRESH_MS = 10_000;

const YES_NO = ["true", "false"];
/** [field, label, choices or null, hint] */
const FIELDS = [
  ["dial", "Dial template", null, "PJSIP/{number}@ENDPOINT, where ENDPOINT is one of Asterisk's pjsip.conf. {e164} has a plus."],
  ["prefixes", "Prefixes", null, "Separated by commas: +49, + for all numbers, 112 for short ones."],
  ["caller_ids", "Caller IDs", null, "That it may show: +4930123*. Empty: all that accounts may show."],
  ["hosts", "Hosts of SIP URIs", null, "sip.example.com, 10.0.0.5:5070"],
  ["calls", "Calls at the same time", null, "0: no limit."],
  ["per_second", "Calls per second", null, "0: no limit."],
  ["priority", "Priority", null, "Of trunks with equally long prefixes, the lowest is tried first."],
  ["enabled", "Enabled", YES_NO],
];
const DEFAULTS = { name: "", calls: 30, per_second: 5, priority: 0, enabled: true };
const LABELS = new Map([["name", "Name"], ...FIELDS.map(([name, label]) => [name, label])]);

export function Trunks() {
  const { found, error, reload } = useFetched(() => get(PATH), [], REFRESH_MS);
  const trunks = found?.objects ?? [];
  return html`
    <div class="heading"><h1 tabindex="-1">Trunks</h1><p role="status">${found ? count(trunks.length, "trunk") : ""}</p>
      <div class="commands end">${trunks.length > 0 && html`<button onClick=${() => show("Test a number", ({ close }) => html`<${RouteTest} close=${close} />`)}>${icon("wait")}Test a number</button>`}
      <button class="main" onClick=${() => edit(null, reload)}>${icon("plus")}New trunk</button></div></div>
    <${ErrorBanner} error=${error} reload=${reload} />
    ${!found && !error && html`<${Loading} what="trunks" />`}
    ${found && !trunks.length && html`<${EmptyState} picture="trunks" title="No trunks" text="Nothing can be dialed. Create one, and allow accounts to dial." />`}
    ${trunks.length > 0 && html`<ul class="card list" aria-label="Trunks">${trunks.map((one) => html`<${Row} key=${one.name} one=${one} reload=${reload} />`)}</ul>`}`;
}

function Row({ one, reload }) {
  const takeOut = () => confirm(`Remove ${one.name}?`, "No call is placed over it from now on. Its live calls continue.", "Remove", async () => {
    const isDone = await runAction(() => remove(pathOf(one.name)), `${one.name} was removed.`);
    await reload();
    return isDone;
  });
  const limits = [one.calls ? `${count(one.calls, "call")} at the same time` : "", one.per_second ? `${one.per_second} per second` : ""].filter(Boolean).join(", ");
  return html`<li class="entry">
    <p class="line1"><span class="what">${one.name}</span>
      ${!one.enabled && html`<span class="tag warn">Disabled</span>`}${one.in_settings && html`<span class="tag">In the settings</span>`}</p>
    <p>${one.dial}</p>
    <p class="where">${[...one.prefixes, ...one.hosts].join(", ") || "For no number"}${limits ? `; ${limits}` : ""}</p>
    ${!one.in_settings && html`<div class="commands"><button aria-label=${`Edit ${one.name}`} onClick=${() => edit(one, reload)}>${icon("edit")}Edit</button>
      <button class="danger" aria-label=${`Remove ${one.name}`} onClick=${takeOut}>${icon("bin")}Remove</button></div>`}
  </li>`;
}

function edit(trunk, reload) {
  const done = ({ trunk: one }) => { showSuccess(`${one.name} was ${trunk ? "changed" : "created"}. The next call uses it.`); reload(); };
  show(trunk ? `Edit ${trunk.name}` : "New trunk", ({ close }) => html`<${TrunkForm} close=${close} trunk=${trunk} done=${done} />`);
}

const asText = (value) => (Array.isArray(value) ? value.join(", ") : text(value));

function TrunkForm({ close, trunk, done }) {
  const before = Object.fromEntries([...LABELS.keys()].map((name) => [name, asText((trunk ?? DEFAULTS)[name])]));
  const [values, setValues] = useState(before);
  const [refused, setRefused] = useState("");
  const set = (name) => (event) => setValues({ ...values, [name]: event.target.value });
  const act = () => {
    const body = changes(values, before);
    if (trunk && !Object.keys(body).length) {
      setRefused("Nothing was changed.");
      return false;
    }
    return submit(() => (trunk ? patch(pathOf(trunk.name), body) : post(PATH, body)), done, (message) => setRefused(withLabel(message)));
  };
  return html`
    ${!trunk && html`<${Field} name="name" label="Name" value=${values.name} onInput=${set("name")} hint="1 to 40 letters, digits, _ or -." first />`}
    ${FIELDS.map(([name, label, choices, hint]) => html`<${Field} key=${name} name=${name} label=${label} choices=${choices} hint=${hint} value=${values[name]} onInput=${set(name)} />`)}
    <p class="refused" role="alert">${refused}</p>
    <${Actions} close=${close} verb=${trunk ? "Save" : "Create"} act=${act} />`;
}

/** "Dial: … is not allowed" -> "Dial template: … is not allowed". */
const withLabel = (message) => message.replace(/^(\w+)(?=:)/, (name) => LABELS.get(name.toLowerCase()) ?? name);

/** How a number would be dialed for an account, or why it is refused. */
function RouteTest({ close }) {
  const [values, setValues] = useState({ auth_id: "", to: "", from: "" });
  const [found, setFound] = useState(null);
  const [refused, setRefused] = useState("");
  const set = (name) => (event) => setValues({ ...values, [name]: event.target.value });
  const act = async () => {
    setFound(null);
    const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value.trim()));
    await submit(() => get("/v1/Route/", given), (reply) => { setRefused(""); setFound(reply); }, setRefused);
    return false;
  };
  return html`
    <${Field} name="auth_id" label="Account that calls" value=${values.auth_id} onInput=${set("auth_id")} first />
    <${Field} name="to" label="Number" value=${values.to} onInput=${set("to")} hint="As the application gives it. Nothing is dialed." />
    <${Field} name="from" label="Caller ID" value=${values.from} onInput=${set("from")} hint="Empty: the first number that the account may show." />
    <div role="status">${found && html`
      <p>${found.destination ? `${found.destination} ${found.category ? `(${found.category})` : ""} from ${found.caller_id}` : ""}</p>
      ${found.refusal ? html`<p class="refused">${`Refused: ${found.refusal}.`}</p>` : html`<p>Dialed, in this order:</p><ol>${found.dialed.map((each) => html`<li key=${each}>${each}</li>`)}</ol>`}
      <dl class="params">${found.trunks.map((one) => html`<dt key=${one.trunk}>${one.trunk}</dt><dd>${one.refusal || `matches ${one.prefix}`}</dd>`)}</dl>`}</div>
    <p class="refused" role="alert">${refused}</p>
    <${Actions} close=${close} verb="Test" act=${act} />`;
}
