// Rendering functions: the only module that imports the libraries. All other modules import from here.
import { h, render } from "../vendor/preact.mjs";
import htm from "../vendor/htm.mjs";

export { render };
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/hooks.mjs";
export const html = htm.bind(h);
