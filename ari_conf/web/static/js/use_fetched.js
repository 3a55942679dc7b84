// Fetching of a view's data: initially, periodically, and after an action.
import { html, useCallback, useEffect, useRef, useState } from "./dom.js";
import { icon } from "./icons.js";

/** Return {found, error, again()} for `fetch()`. `every`: repeat it at this interval, in ms, while the page is visible;
 * 0: don't repeat it. */
export function useFetched(fetch, of, every = 0) {
  const [state, set] = useState({ found: null, error: null });
  const asked = useRef(0);
  const again = useCallback(async () => {
    const mine = ++asked.current;
    // Of two concurrent requests, the later one counts, whichever response arrives first.
    const put = (next) => mine === asked.current && set(next);
    try {
      const found = await fetch();
      put({ found, error: null });
    } catch (error) {
      // Keep the previous data: old data is better than none.
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

/** Reason why there is no data, or no new data. */
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
