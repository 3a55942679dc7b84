// Frame of the administrator's page: accounts, and the audit log.
import { Account } from "./account.js";
import { Accounts } from "./accounts.js";
import { loadAdminSession } from "./api.js";
import { AuditLog } from "./audit.js";
import { Dialog } from "./dialog.js";
import { html, render, useEffect, useState } from "./dom.js";
import { keepFocus } from "./focus_restore.js";
import { icon } from "./icons.js";
import { showError, Toasts } from "./toasts.js";

const SECTIONS = [
  ["accounts", "Accounts", "accounts", Accounts],
  ["audit", "Audit log", "audit", AuditLog],
];

/** "#/accounts/acme" -> ["accounts", "acme"]. */
function currentRoute() {
  const [section, id] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  return SECTIONS.some(([name]) => name === section) ? [section, id] : ["accounts"];
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

function Sections({ current }) {
  return html`<nav aria-label="Sections"><ul>
    ${SECTIONS.map(([name, words, picture]) => html`<li key=${name}>
      <a href=${`#/${name}`} aria-current=${name === current ? "page" : undefined}>${icon(picture)}<span>${words}</span></a>
    </li>`)}
  </ul></nav>`;
}

function AdminFrame({ name }) {
  const [section, id] = useRoute();
  const View = section === "accounts" && id ? Account : SECTIONS.find(([known]) => known === section)[3];
  const [arrived, setArrived] = useState(false);
  useEffect(() => {
    const [, words] = SECTIONS.find(([known]) => known === section);
    document.title = `${id ?? words} · ari_conf`;
    if (arrived) document.querySelector("h1")?.focus();
    scrollTo(0, 0);
    setArrived(true);
  }, [section, id]);
  return html`
    <a class="skip" href="#main" onClick=${toMain}>Skip to the content</a>
    <header>
      <a class="brand" href="#/accounts"><img src="/static/mark.svg" alt="" />ari_conf</a>
      <${Sections} current=${section} />
      <div class="who">
        <span class="account" title="The administrator's key that you are logged in with">${name}</span>
        <form method="post" action="/admin/logout" onSubmit=${logOut}><button class="bare" aria-label="Log out" title="Log out">${icon("leave")}</button></form>
      </div>
    </header>
    <main id="main" tabindex="-1"><${View} key=${`${section}/${id ?? ""}`} id=${id} /></main>
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
    await fetch("/admin/logout", { method: "POST", headers: { "X-Requested-With": "ari_conf" }, redirect: "manual" });
    location.assign("/admin/login");
  } catch {
    showError(new Error("The server is unreachable. You are still logged in."));
  }
}

const root = document.getElementById("app");
try {
  const name = await loadAdminSession();
  keepFocus();
  render(html`<${AdminFrame} name=${name} />`, root);
} catch (error) {
  render(html`<main class="broken"><h1>This page could not be loaded</h1><p>${error.message}</p>
    <button class="main" onClick=${() => location.reload()}>${icon("again")}Try again</button></main>`, root);
}
