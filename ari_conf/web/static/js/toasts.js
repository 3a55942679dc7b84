// Toasts: results and errors of actions, and announcements for screen readers.
import { html, useEffect } from "./dom.js";
import { icon } from "./icons.js";
import { store, useStore } from "./store.js";

const DONE_MS = 5000;

const toasts = store([]);
const spoken = store("");
let next = 1;

export function showSuccess(text) {
  add({ text, bad: false });
}

/** Show an error. It stays until the user closes it, so that it can't be missed. */
export function showError(error) {
  add({ text: error.message, bad: true });
}

/** Announce a text to screen readers only; other users see the change in the view. */
export function announceToScreenReader(text) {
  spoken.set(text);
}

function add(toast) {
  // A toast replaces an earlier one with the same text.
  toasts.set([...toasts.get().filter((other) => other.text !== toast.text).slice(-3), { ...toast, id: next++ }]);
}

const close = (id) => toasts.set(toasts.get().filter((toast) => toast.id !== id));

/** Run the work, and show the toast `success` or the error. Return true if the work succeeded. */
export async function runAction(work, success) {
  try {
    await work();
    if (success) showSuccess(success);
    return true;
  } catch (error) {
    showError(error);
    return false;
  }
}

function Toast({ toast }) {
  useEffect(() => {
    if (toast.bad) return undefined;
    const timer = setTimeout(() => close(toast.id), DONE_MS);
    return () => clearTimeout(timer);
  }, [toast]);
  return html`<div class=${toast.bad ? "note bad" : "note"}>
    ${icon(toast.bad ? "warning" : "check")}
    <p>${toast.text}</p>
    <button class="bare" aria-label=${`Close: ${toast.text}`} onClick=${() => close(toast.id)}>${icon("close")}</button>
  </div>`;
}

/** The live regions always exist: a screen reader announces only additions to a region that it already knows. */
export function Toasts() {
  const all = useStore(toasts);
  const those = (bad) => all.filter((toast) => toast.bad === bad).map((toast) => html`<${Toast} key=${toast.id} toast=${toast} />`);
  return html`<div class="notes">
    <div role="alert">${those(true)}</div>
    <div role="status">${those(false)}</div>
    <div class="unseen" role="status" id="spoken">${useStore(spoken)}</div>
  </div>`;
}
