// Frame of a page: its sections, the view that the address names, and the logout.
import { Dialog } from "./dialog.js";
import { html, render, useEffect, useState } from "./dom.js";
import { keepFocus } from "./focus_restore.js";
import { icon } from "./icons.js";
import { showError, Toasts } from "./toasts.js";

function useRoute(currentRoute) {
  const [at, set] = useState(currentRoute());
  useEffect(() => {
    const moved = () => set(currentRoute());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return at;
}

function Sections({ sections, current }) {
  return html`<nav aria-label="Sections"><ul>
    ${sections.map(([name, words, picture]) => html`<li key=${name}>
      <a href=${`#/${name}`} aria-current=${name === current ? "page" : undefined}>${icon(picture)}<span>${words}</span></a>
    </li>`)}
  </ul></nav>`;
}

/**
 * `sections`: [name, words, picture, View] of each, the first one at the start. `details`: the view of one thing, by the
 * section that it is in. `who`: what the header says of the user; `logout`: path, and the title of its button; `login`:
 * path. `titleOf(words, id)`: the page's title.
 */
function Frame({ sections, details, who, logout, login, titleOf }) {
  // "#/recordings/1234" -> ["recordings", "1234"]. The fragment holds it, so that the server serves only one page.
  const [section, id] = useRoute(() => {
    const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    return sections.some(([known]) => known === name) ? [name, rest[0]] : [sections[0][0]];
  });
  const [, words, , Overview] = sections.find(([name]) => name === section);
  const View = (id && details[section]) || Overview;
  const [arrived, setArrived] = useState(false);
  useEffect(() => {
    document.title = `${titleOf(words, id)} · ari_conf`;
    // As after a page load, the view starts at its top and a screen reader reads its heading. The browser does this
    // for the first view.
    if (arrived) document.querySelector("h1")?.focus();
    scrollTo(0, 0);
    setArrived(true);
  }, [section, id]);
  return html`
    <a class="skip" href="#main" onClick=${toMain}>Skip to the content</a>
    <header>
      <a class="brand" href=${`#/${sections[0][0]}`}><img src="/static/mark.svg" alt="" />ari_conf</a>
      <${Sections} sections=${sections} current=${section} />
      <div class="who">
        ${who}
        <form method="post" action=${logout.path} onSubmit=${(event) => logOut(event, logout.path, login)}><button class="bare" aria-label="Log out" title=${logout.title}>${icon("leave")}</button></form>
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

async function logOut(event, path, login) {
  event.preventDefault();
  try {
    await fetch(path, { method: "POST", headers: { "X-Requested-With": "ari_conf" }, redirect: "manual" });
    location.assign(login);
  } catch {
    showError(new Error("The server is unreachable. You are still logged in."));
  }
}

function LoadError({ error }) {
  return html`<main class="broken"><h1>This page could not be loaded</h1><p>${error.message}</p>
    <button class="main" onClick=${() => location.reload()}>${icon("again")}Try again</button></main>`;
}

/** Show the page; `load` returns a promise of the frame's properties. */
export async function start(load) {
  const root = document.getElementById("app");
  try {
    const page = await load();
    keepFocus();
    render(html`<${Frame} ...${page} />`, root);
  } catch (error) {
    render(html`<${LoadError} error=${error} />`, root);
  }
}
