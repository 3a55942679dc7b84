// Store: a value that views watch.
import { useEffect, useState } from "./dom.js";

export function store(value) {
  const watching = new Set();
  return {
    get: () => value,
    set(next) {
      value = next;
      for (const watch of watching) watch(value);
    },
    watch(watch) {
      watching.add(watch);
      return () => watching.delete(watch);
    },
  };
}

export function useStore(watched) {
  const [value, set] = useState(watched.get());
  useEffect(() => {
    // The value may have changed since the first render.
    set(watched.get());
    return watched.watch(set);
  }, [watched]);
  return value;
}
