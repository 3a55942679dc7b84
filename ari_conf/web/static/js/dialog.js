// Dialogs: the browser's <dialog> keeps the focus inside, closes with Escape and returns the focus.
import { html, useLayoutEffect, useRef, useState } from "./dom.js";
import { store, useStore } from "./store.js";

const open = store(null);

/** Show a dialog with the result of `draw({ close })`, one at a time. */
export function show(title, draw) {
  open.set({ title, draw, from: document.activeElement });
}

/** Ask for confirmation of an action that can't be undone. `consequence`: text or component that describes the result.
 * `verb`: text of the button. */
export function confirm(title, consequence, verb, act) {
  show(title, ({ close }) => html`
    <p id="consequence">${consequence}</p>
    <${Actions} close=${close} verb=${verb} danger act=${act} />`);
}

/** The two buttons of a dialog. If `act` returns false, the dialog stays open and keeps the input. */
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
  // For an action that can't be undone, the focus starts on Cancel, so that Enter does no harm.
  return html`<div class="actions">
    <button type="button" onClick=${close} autofocus=${danger}>Cancel</button>
    <button type="submit" class=${danger ? "main danger" : "main"} aria-disabled=${busy} onClick=${run}>${verb}</button>
  </div>`;
}

export function Dialog() {
  const shown = useStore(open);
  const element = useRef(null);
  // In a layout effect, so that the dialog opens before the user's next key press.
  useLayoutEffect(() => {
    if (shown) element.current.showModal();
  }, [shown]);
  if (!shown) return null;
  const close = () => element.current?.close();
  const closed = () => {
    open.set(null);
    // The element that opened the dialog may have been removed; focus_restore.js then moves the focus.
    if (shown.from?.isConnected) shown.from.focus();
  };
  return html`<dialog ref=${element} aria-labelledby="dialog-title" onClose=${closed}>
    <form class="stack" onSubmit=${(event) => event.preventDefault()}>
      <h2 id="dialog-title">${shown.title}</h2>
      ${shown.draw({ close })}
    </form>
  </dialog>`;
}
