// Formatting of counts, dates and durations.
import { clockSkew } from "./api.js";
import { html, useEffect, useState } from "./dom.js";

export const count = (number, one) => `${number} ${one}${number === 1 ? "" : "s"}`;

const two = (number) => String(number).padStart(2, "0");

/** 75000 -> "1:15", 3675000 -> "1:01:15". */
export function formatClock(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** 75000 -> "1 minute 15 seconds", for screen readers. */
export function formatDuration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const parts = [
    [Math.floor(seconds / 3600), "hour"],
    [Math.floor(seconds / 60) % 60, "minute"],
    [seconds % 60, "second"],
  ];
  const said = parts.filter(([number]) => number).map(([number, unit]) => count(number, unit));
  return said.join(" ") || "0 seconds";
}

const dayOf = (date) => date.toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
const timeOf = (date, more = {}) => date.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", ...more });

/** Format an ISO string or epoch ms in the user's time zone: "today, 14:05:02", or "21 Nov 2026, 14:05". */
export function formatTime(when, now = Date.now()) {
  const date = new Date(when);
  const today = new Date(now).toDateString() === date.toDateString();
  return today ? `today, ${timeOf(date, { second: "2-digit" })}` : `${dayOf(date)}, ${timeOf(date)}`;
}

/** Format a range of ISO strings: "today, 14:05:02 to 14:30:10", with the day of the end only if it is another. */
export function formatRange(from, until, now = Date.now()) {
  const [start, end] = [new Date(from), new Date(until)];
  const isSameDay = start.toDateString() === end.toDateString();
  const precise = new Date(now).toDateString() === end.toDateString() ? { second: "2-digit" } : {};
  return `${formatTime(from, now)} to ${isSameDay ? timeOf(end, precise) : formatTime(until, now)}`;
}

export function formatSize(bytes) {
  if (bytes < 1024 * 1024) return `${Math.max(1, Math.round(bytes / 1024))} KB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}

// One timer for all clocks, so that they tick simultaneously.
const ticking = new Set();
let timer = 0;

function tick() {
  for (const each of ticking) each(Date.now());
}

/** Return epoch ms by this machine's clock, updated every second. */
export function useNow() {
  const [now, set] = useState(Date.now());
  useEffect(() => {
    ticking.add(set);
    timer ||= setInterval(tick, 1000);
    return () => {
      ticking.delete(set);
      if (!ticking.size) timer = clearInterval(timer) ?? 0;
    };
  }, []);
  return now;
}

/** Time since `ms`, updated every second. Screen readers do not announce the updates. */
export function ElapsedTime({ ms, label }) {
  return html`<span class="clock">${label && html`<span class="unseen">${label} </span>`}${formatClock(useNow() + clockSkew() - ms)}</span>`;
}

/** Return the number of a member. In a call that the API has placed, it is the destination. */
export const numberOf = (member) => (member.direction === "outbound" ? member.to : member.from) || "Unknown number";

/** Return what is known of a member besides their number: their name, or the number that called them or that they called. */
export function detailsOf({ from, to, caller_name: name, direction }) {
  // The name of a call that was placed is the one that the phone was shown.
  if (direction === "outbound") return from ? `called from ${from}` : "";
  return [name && name !== from && name, to && `called ${to}`].filter(Boolean).join(", ");
}

/** Return the title of a recording: the conference's name, or the numbers of the recorded call. */
export function recordingTitle(recording) {
  return recording.conference_name || `Call from ${recording.from_number || "unknown"} to ${recording.to_number || "unknown"}`;
}
