// What the page says by itself: what was done, what went wrong, who came and went.
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

/** An error stays until it is closed: who looked elsewhere must still find it. */
export function failed(error) {
  add({ text: error.message, bad: true });
}

/** For screen readers alone: what the others see by themselves. */
export function say(text) {
  spoken.set(text);
}

function add(note) {
  // The same again is no second note.
  notes.set([...notes.get().filter((other) => other.text !== note.text).slice(-3), { ...note, id: next++ }]);
}

const close = (id) => notes.set(notes.get().filter((note) => note.id !== id));

/** Does it, and tells of it: `told` when it is done, the error when it is not. */
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

/** Both regions are always there: a screen reader tells only what comes into one that it knows. */
export function Notes() {
  const all = useStore(notes);
  const those = (bad) => all.filter((note) => note.bad === bad).map((note) => html`<${Note} key=${note.id} note=${note} />`);
  return html`<div class="notes">
    <div role="alert">${those(true)}</div>
    <div role="status">${those(false)}</div>
    <div class="unseen" role="status" id="spoken">${useStore(spoken)}</div>
  </div>`;
}
