import { useEffect, useState } from "./dom.js";

const TYPED_MS = 350;

/** Return the text once the user has stopped typing for TYPED_MS. */
export function useDebounced(text) {
  const [settled, set] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => set(text), TYPED_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return settled;
}
