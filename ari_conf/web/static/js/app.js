// Frame of the dashboard: account, current section, state of the connection.
import { loadSession } from "./api.js";
import { Callbacks } from "./callbacks.js";
import { Dialog } from "./dialog.js";
import { html, render, useEffect, useState } from "./dom.js";
import { live, monitorStream, openStream } from "./event_stream.js";
import { keepFocus } from "./focus_restore.js";
import { icon } from "./icons.js";
import { Live } from "./live.js";
import { Problems } from "./problems.js";
import { Recording } from "./recording.js";
import { Recordings } from "./recordings.js";
import { useStore } from "./store.js";
import { showError, Toasts } from "./toasts.js";

const SECTIONS = [
  ["live", "Live", "live", Live],
  ["recordings", "Recordings", "recordings", Recordings],
  ["callbacks", "Callbacks", "callbacks", Callbacks],
  ["problems", "Problems", "warning", Problems],
];

const CONNECTION = {
  connecting: ["warn", "Connecting…"],
  live: ["good", "Connected"],
  lost: ["bad", "Reconnecting…"],
};

/** "#/recordings/1234" -> ["recordings", "1234"]. The fragment holds it, so that the server serves only one page. */
function currentRoute() {
  const [section, id] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  return SECTIONS.some(([name]) => name === section) ? [section, id] : ["live"];
}

function useRoute() {
  const [at, set] = useState(currentRoute());
  useEffect(() => {
    const moved = () => set(currentRoute());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return at;
}

function Connection() {
  const { state } = useStore(live);
  const [kind, words] = CONNECTION[state];
  return html`<p class=${`connection ${kind}`} role="status"><span class="unseen">Connection: </span>${words}</p>`;
}

function Sections({ current }) {
  return html`<nav aria-label="Sections"><ul>
    ${SECTIONS.map(([name, words, picture]) => html`<li key=${name}>
      <a href=${`#/${name}`} aria-current=${name === current ? "page" : undefined}>${icon(picture)}<span>${words}</span></a>
    </li>`)}
  </ul></nav>`;
}

function AppFrame({ account }) {
  const [section, id] = useRoute();
  const View = section === "recordings" && id ? Recording : SECTIONS.find(([name]) => name === section)[3];
  const [arrived, setArrived] = useState(false);
  useEffect(() => {
    const [, words] = SECTIONS.find(([name]) => name === section);
    document.title = `${words} · ari_conf`;
    // As after a page load, the view starts at its top and a screen reader reads its heading. The browser does this
    // for the first view.
    if (arrived) document.querySelector("h1")?.focus();
    scrollTo(0, 0);
    setArrived(true);
  }, [section, id]);
  return html`
    <a class="skip" href="#main" onClick=${toMain}>Skip to the content</a>
    <header>
      <a class="brand" href="#/live"><img src="/static/mark.svg" alt="" />ari_conf</a>
      <${Sections} current=${section} />
      <div class="who">
        <${Connection} />
        <span class="account" title="The account that you are logged in to">${account}</span>
        <form method="post" action="/logout" onSubmit=${logOut}><button class="bare" aria-label="Log out" title=${`Log out of ${account}`}>${icon("leave")}</button></form>
      </div>
    </header>
    <main id="main" tabindex="-1"><${View} key=${id ?? section} id=${id} /></main>
    <${Toasts} />
    <${Dialog} />`;
}

function toMain(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

async function logOut(event) {
  event.preventDefault();
  try {
    await fetch("/logout", { method: "POST", headers: { "X-Requested-With": "ari_conf" }, redirect: "manual" });
    location.assign("/login");
  } catch {
    showError(new Error("The server is unreachable. You are still logged in."));
  }
}

function LoadError({ error }) {
  return html`<main class="broken"><h1>This page could not be loaded</h1><p>${error.message}</p>
    <button class="main" onClick=${() => location.reload()}>${icon("again")}Try again</button></main>`;
}

const root = document.getElementById("app");
try {
  const account = await loadSession();
  openStream();
  monitorStream();
  keepFocus();
  render(html`<${AppFrame} account=${account} />`, root);
} catch (error) {
  render(html`<${LoadError} error=${error} />`, root);
}
