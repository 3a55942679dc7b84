// Accounts view: all accounts by auth ID, with a search, and the form for a new one.
import { accountForm, PATH, showToken } from "./account_form.js";
import { get, post } from "./api.js";
import { show } from "./dialog.js";
import { html, useEffect, useState } from "./dom.js";
import { count, formatTime } from "./format.js";
import { icon } from "./icons.js";
import { useDebounced } from "./use_debounced.js";
import { EmptyState, ErrorBanner, Loading, Pager, useFetched } from "./use_fetched.js";

const PAGE = 20;
const REFRESH_MS = 10_000;

export const STATES = {
  "being removed": ["warn", "Being removed"],
  removed: ["bad", "Removed, data left"],
  unreadable: ["bad", "Unreadable"],
};

export function Accounts() {
  const [offset, setOffset] = useState(0);
  const [typed, setTyped] = useState("");
  const search = useDebounced(typed.trim());
  useEffect(() => setOffset(0), [search]);
  const query = { limit: PAGE, offset, ...(search ? { search } : {}) };
  const { found, error, reload } = useFetched(() => get(PATH, query), [offset, search], REFRESH_MS);
  const total = found?.meta.total_count ?? 0;
  return html`
    <div class="heading"><h1 tabindex="-1">Accounts</h1><p role="status">${found ? count(total, "account") : ""}</p>
      <button class="main end" onClick=${create}>${icon("plus")}New account</button></div>
    <${ErrorBanner} error=${error} reload=${reload} />
    <div class="field narrow"><label for="search">Auth ID</label>
      <input id="search" type="search" placeholder="A part of it, or empty for all" autocapitalize="none" value=${typed} onInput=${(event) => setTyped(event.target.value)} /></div>
    ${!found && !error && html`<${Loading} what="accounts" />`}
    ${found && !total && html`<${EmptyState} picture="accounts" title=${search ? `No account with ${search}` : "No accounts"} text=${search ? "Enter a part of an auth ID." : "Without an account, every call is refused. Create one."} />`}
    ${total > 0 && html`<ul class="card list" aria-label="Accounts">${found.objects.map((one) => html`<${Row} key=${one.auth_id} one=${one} />`)}</ul>`}
    <${Pager} page=${PAGE} offset=${offset} total=${total} go=${setOffset} before="Previous" after="Next" />`;
}

function create() {
  show("New account", ({ close }) => accountForm({
    close,
    account: null,
    verb: "Create",
    send: (body) => post(PATH, body),
    done: ({ account, auth_token: token }) => {
      showToken(account.auth_id, token);
      location.hash = `#/accounts/${account.auth_id}`;
    },
  }));
}

function Row({ one }) {
  const state = STATES[one.state];
  return html`<li><a class="row" href=${`#/accounts/${one.auth_id}`}>
    <span class="name">${one.auth_id}</span>
    <span class="hint">${one.created ? formatTime(one.created) : ""}</span>
    <span class="right">${state && html`<span class=${`tag ${state[0]}`}>${state[1]}</span>`}</span>
  </a></li>`;
}
