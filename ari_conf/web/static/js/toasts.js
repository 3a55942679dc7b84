// Notes: results and errors of actions, and announcements for screen readers.
import { html, useEffect } from "./dom.js";
import { icon } from "./icons.js";
import { store, useStore } from "./store.js";

const DONE_MS = 5000;

const notes = store([]);
const spoken = store("");
let next = 1;

export function done(text) {
  add({ text, bad: false });
}

/** Show an error. It stays until the user closes it, so that it can't be missed. */
export function failed(error) {
  add({ text: error.message, bad: true });
}

/** Announce a text to screen readers only; other users see the change in the view. */
export function say(text) {
  spoken.set(text);
}

function add(note) {
  // A note replaces an earlier one with the same text.
  notes.set([...notes.get().filter((other) => other.text !== note.text).slice(-3), { ...note, id: next++ }]);
}

const close = (id) => notes.set(notes.get().filter((note) => note.id !== id));

/** Run the work, and show the note `told` or the error. Return true if the work succeeded. */
export async function doing(work, told) {
  try {
    await work();
    if (told) done(told);
    return true;
  } catch (error) {
    failed(error);
    return false;
  }
}

function Note({ note }) {
  useEffect(() => {
    if (note.bad) return undefined;
    const timer = setTimeout(() => close(note.id), DONE_MS);
    return () => clearTimeout(timer);
  }, [note]);
  return html`<div class=${note.bad ? "note bad" : "note"}>
    ${icon(note.bad ? "warning" : "check")}
    <p>${note.text}</p>
    <button class="bare" aria-label=${`Close: ${note.text}`} onClick=${() => close(note.id)}>${icon("close")}</button>
  </div>`;
}

/** The live regions always exist: a screen reader announces only additions to a region that it already knows. */
export function Notes() {
  const all = useStore(notes);
  const those = (bad) => all.filter((note) => note.bad === bad).map((note) => html`<${Note} key=${note.id} note=${note} />`);
  return html`<div class="notes">
    <div role="alert">${those(true)}</div>
    <div role="status">${those(false)}</div>
    <div class="unseen" role="status" id="spoken">${useStore(spoken)}</div>
  </div>`;
}
