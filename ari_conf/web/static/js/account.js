// View of one account: its fields, its new token, and its removal with the progress.
import { accountForm, changeRemoval, FIELDS, freshToken, pathOf, removalForm, rotationForm, showToken } from "./account_form.js";
import { STATES } from "./accounts.js";
import { get, patch } from "./api.js";
import { confirm, show } from "./dialog.js";
import { html, useEffect, useRef } from "./dom.js";
import { formatTime } from "./format.js";
import { icon } from "./icons.js";
import { useStore } from "./store.js";
import { showSuccess } from "./toasts.js";
import { EmptyState, ErrorBanner, Loading, useFetched } from "./use_fetched.js";

const REFRESH_MS = 2000;

const PHASES = {
  calls: ({ calls }) => (calls === "end" ? "Its calls are being hung up." : "Its calls continue. The removal waits until they have ended."),
  callbacks: () => "Its last callbacks are being delivered.",
  data: () => "Its data is being deleted.",
  removed: () => "The account is removed. Data of it is left, so its auth ID is not given out again.",
};

export function Account({ id }) {
  const { found, error, reload } = useFetched(() => get(pathOf(id)), [id], REFRESH_MS);
  const account = found?.account;
  const isGone = error?.status === 404;
  const state = account && !isGone && STATES[account.state];
  return html`
    <p class="up"><a href="#/accounts">${icon("back")}All accounts</a></p>
    <div class="heading" data-home><h1 tabindex="-1" data-focus>${id}</h1>
      ${state && html`<span class=${`tag ${state[0]}`}>${state[1]}</span>`}
      <p class="end"><a href=${`#/audit/${id}`}>Its audit log</a></p></div>
    ${!isGone && html`<${ErrorBanner} error=${error} reload=${reload} />`}
    ${!found && !error && html`<${Loading} what="the account" />`}
    ${isGone && html`<${EmptyState} picture="check" title="This account does not exist" text="It was removed, and nothing is left of it; or it was never created." />`}
    ${account && !isGone && html`
      <${Token} authId=${id} />
      ${account.removal ? html`<${RemovalProgress} authId=${id} removal=${account.removal} reload=${reload} />` : html`<${Buttons} account=${account} reload=${reload} />`}
      ${account.created && html`<${Fields} account=${account} />`}`}`;
}

/** The new token, until the user leaves the account. */
function Token({ authId }) {
  const fresh = useStore(freshToken);
  const input = useRef(null);
  useEffect(() => () => freshToken.set(null), []);
  if (fresh?.auth_id !== authId) return null;
  const copy = async () => {
    input.current.select();
    await navigator.clipboard.writeText(fresh.token);
    showSuccess("The token was copied.");
  };
  return html`<section class="section card entry" aria-labelledby="token-title">
    <h2 id="token-title">Auth token</h2>
    <p class="hint" id="token-hint">It is shown only now: store it. Everyone who has it can use the account, and forge its callbacks.</p>
    <div class="commands"><input id="token" ref=${input} type="text" readonly aria-labelledby="token-title" aria-describedby="token-hint" value=${fresh.token} onFocus=${(event) => event.target.select()} />
      ${navigator.clipboard && html`<button onClick=${copy}>${icon("copy")}Copy</button>`}</div>
  </section>`;
}

function Buttons({ account, reload }) {
  const id = account.auth_id;
  const edit = () => show(`Edit ${id}`, ({ close }) => accountForm({
    close, account, verb: "Save", send: (body) => patch(pathOf(id), body),
    done: () => { showSuccess(`${id} was changed. Calls that arrive from now on use it.`); reload(); },
  }));
  const rotate = () => show(`Rotate the token of ${id}`, ({ close }) => rotationForm({
    close, authId: id, done: ({ auth_token: token }) => { showToken(id, token); reload(); },
  }));
  const remove = () => show(`Remove ${id}?`, ({ close }) => removalForm({
    close, authId: id, done: () => { showSuccess(`${id} is being removed.`); reload(); },
  }));
  return html`<div class="commands section">
    ${account.state === "active" && html`<button onClick=${edit}>${icon("edit")}Edit</button><button onClick=${rotate}>${icon("key")}Rotate token</button>`}
    <button class="danger" onClick=${remove}>${icon("bin")}Remove</button>
  </div>`;
}

function RemovalProgress({ authId, removal, reload }) {
  const { phase, total, left } = removal;
  const change = async (query, success) => {
    const isDone = await changeRemoval(authId, query, success);
    await reload();
    return isDone;
  };
  const hangUp = () => confirm(`Hang up the calls of ${authId}?`, "Its live calls end immediately.", "Hang up", () => change({ calls: "end" }, "Its calls are being hung up."));
  const purge = () => confirm(`Delete the data of ${authId}?`, "Its recordings, callbacks, dead letters and problems are deleted. This can't be undone.", "Delete", () => change({ purge: true }, "Its data is being deleted."));
  const kinds = Object.keys({ ...total, ...left });
  return html`<section class="section card entry" aria-labelledby="removal" data-home>
    <h2 id="removal" tabindex="-1" data-focus>Removal</h2>
    <p role="status">${PHASES[phase](removal)}</p>
    ${removal.error && html`<p class="refused">${removal.error}</p>`}
    <p class="where">Begun ${formatTime(removal.began)}${removal.purge ? ", with its data" : ""}.</p>
    ${kinds.length > 0 && html`<dl class="params" aria-label="What is left">${kinds.map((kind) => html`
      <dt key=${kind}>${words(kind)}</dt><dd>${left[kind] ?? 0} left${total[kind] ? html` of ${total[kind]} <progress aria-label=${`${words(kind)} done`} max=${total[kind]} value=${Math.max(0, total[kind] - (left[kind] ?? 0))}></progress>` : ""}</dd>`)}</dl>`}
    <div class="commands">
      ${phase === "calls" && removal.calls === "keep" && html`<button class="danger" onClick=${hangUp}>${icon("hangUp")}Hang up its calls</button>`}
      ${!removal.purge && html`<button class="danger" onClick=${purge}>${icon("bin")}Delete its data</button>`}
    </div>
  </section>`;
}

function Fields({ account }) {
  const known = FIELDS.map(([name, label]) => [label, account[name]]);
  const until = account.old_tokens_until.map(formatTime).join(", ");
  const rows = [["Created", formatTime(account.created)], ...known, ...(until ? [["An older token is valid until", until]] : [])];
  return html`<section class="section card entry" aria-labelledby="fields"><h2 id="fields">Fields</h2>
    <dl class="params">${rows.map(([label, value]) => html`<dt key=${label}>${label}</dt><dd>${value === null || value === "" ? "none" : value}</dd>`)}</dl>
  </section>`;
}

/** "dead_letters" -> "Dead letters". */
const words = (kind) => kind.charAt(0).toUpperCase() + kind.slice(1).replaceAll("_", " ");
