// Questions: the browser's own <dialog> keeps the focus inside, closes by Escape and gives the focus back.
import { html, useLayoutEffect, useRef, useState } from "./dom.js";
import { store, useStore } from "./store.js";

const open = store(null);

/** Shows what `draw({ close })` returns; one at a time. */
export function show(title, draw) {
  open.set({ title, draw, from: document.activeElement });
}

/** Asks before something that can't be undone. `consequence`, a text or a component, says what will happen, `verb` is the button. */
export function ask(title, consequence, verb, act) {
  show(title, ({ close }) => html`
    <p id="consequence">${consequence}</p>
    <${Actions} close=${close} verb=${verb} danger act=${act} />`);
}

/** The two buttons at a dialog's end. `act` returns whether it was done: the dialog stays open with what was typed if not. */
export function Actions({ close, verb, danger = false, act }) {
  const [busy, setBusy] = useState(false);
  const run = async (event) => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    const isDone = await act();
    setBusy(false);
    if (isDone !== false) close();
  };
  // Where it can't be undone, Enter right away does nothing: the focus begins on Cancel.
  return html`<div class="actions">
    <button type="button" onClick=${close} autofocus=${danger}>Cancel</button>
    <button type="submit" class=${danger ? "main danger" : "main"} aria-disabled=${busy} onClick=${run}>${verb}</button>
  </div>`;
}

export function Dialog() {
  const shown = useStore(open);
  const element = useRef(null);
  // At once: the next key that somebody presses is meant for it.
  useLayoutEffect(() => {
    if (shown) element.current.showModal();
  }, [shown]);
  if (!shown) return null;
  const close = () => element.current?.close();
  const closed = () => {
    open.set(null);
    // What opened it may have gone meanwhile; then focus.js finds a home.
    if (shown.from?.isConnected) shown.from.focus();
  };
  return html`<dialog ref=${element} aria-labelledby="dialog-title" onClose=${closed}>
    <form class="stack" onSubmit=${(event) => event.preventDefault()}>
      <h2 id="dialog-title">${shown.title}</h2>
      ${shown.draw({ close })}
    </form>
  </dialog>`;
}
