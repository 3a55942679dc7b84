import { html } from "./dom.js";
import { Letters } from "./letters.js";

export function Callbacks() {
  return html`<div class="heading"><h1 tabindex="-1">Callbacks</h1></div><${Letters} />`;
}
