// What a view fetches: as it is asked for, again by itself, and again when something was done.
import { html, useCallback, useEffect, useRef, useState } from "./dom.js";
import { icon } from "./icons.js";

/** {found, error, again()}: what `fetch()` gave; with `every` ms anew while the page is looked at. */
export function useFetched(fetch, of, every = 0) {
  const [state, set] = useState({ found: null, error: null });
  const asked = useRef(0);
  const again = useCallback(async () => {
    const mine = ++asked.current;
    // Of two that are under way the later one counts, whichever comes first.
    const put = (next) => mine === asked.current && set(next);
    try {
      const found = await fetch();
      put({ found, error: null });
    } catch (error) {
      // What was there stays: old is better than nothing.
      put((before) => ({ found: before.found, error }));
    }
  }, of);
  useEffect(() => {
    again();
    if (!every) return undefined;
    const timer = setInterval(() => document.hidden || again(), every);
    return () => clearInterval(timer);
  }, [again, every]);
  return { ...state, again };
}

/** Why there is nothing to see, or nothing new. */
export function Trouble({ error, again }) {
  if (!error) return null;
  return html`<div class="banner warn" role="alert">${icon("warning")}<span>${error.message}</span><button onClick=${again}>${icon("again")}Try again</button></div>`;
}

export function Loading({ what }) {
  return html`<p class="hint" role="status">Loading ${what}…</p>`;
}

export function Empty({ picture, title, text }) {
  return html`<div class="empty">${icon(picture)}<h2>${title}</h2><p>${text}</p></div>`;
}

export function Pages({ page, offset, total, go }) {
  if (total <= page) return null;
  const last = Math.min(offset + page, total);
  return html`<nav class="pages" aria-label="Pages">
    <button disabled=${offset === 0} onClick=${() => go(Math.max(0, offset - page))}>Newer</button>
    <p class="hint">${offset + 1} to ${last} of ${total}</p>
    <button disabled=${last >= total} onClick=${() => go(offset + page)}>Older</button>
  </nav>`;
}
