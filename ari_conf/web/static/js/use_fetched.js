// Fetching of a view's data: initially, periodically, and after an action.
import { html, useCallback, useEffect, useRef, useState } from "./dom.js";
import { icon } from "./icons.js";

/** Return {found, error, reload()} for `fetch()`. `every`: repeat it at this interval, in ms, while the page is visible;
 * 0: don't repeat it. */
export function useFetched(fetch, of, every = 0) {
  const [state, set] = useState({ found: null, error: null });
  const asked = useRef(0);
  const reload = useCallback(async () => {
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
    reload();
    if (!every) return undefined;
    const timer = setInterval(() => document.hidden || reload(), every);
    return () => clearInterval(timer);
  }, [reload, every]);
  return { ...state, reload };
}

/** Reason why there is no data, or no new data. */
export function ErrorBanner({ error, reload }) {
  if (!error) return null;
  return html`<div class="banner warn" role="alert">${icon("warning")}<span>${error.message}</span><button onClick=${reload}>${icon("again")}Try again</button></div>`;
}

export function Loading({ what }) {
  return html`<p class="hint" role="status">Loading ${what}…</p>`;
}

export function EmptyState({ picture, title, text }) {
  return html`<div class="empty">${icon(picture)}<h2>${title}</h2><p>${text}</p></div>`;
}

export function Pager({ page, offset, total, go, before = "Newer", after = "Older" }) {
  if (total <= page) return null;
  const last = Math.min(offset + page, total);
  return html`<nav class="pages" aria-label="Pages">
    <button disabled=${offset === 0} onClick=${() => go(Math.max(0, offset - page))}>${before}</button>
    <p class="hint">${offset + 1} to ${last} of ${total}</p>
    <button disabled=${last >= total} onClick=${() => go(offset + page)}>${after}</button>
  </nav>`;
}
