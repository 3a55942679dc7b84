// Player: the browser's audio element, with controls for mouse, touch and keyboard.
import { html, useEffect, useRef, useState } from "./dom.js";
import { formatClock, formatDuration } from "./format.js";
import { icon } from "./icons.js";
import { showError } from "./toasts.js";

const STEP_MS = 10_000;
const SPEEDS = [1, 1.25, 1.5, 2];

/** Return the state (at, playing, length, speed), the actions (toggle(), seek(ms), setSpeed(n)) and the audio element
 * (sound). Times are in ms. */
export function usePlayer(source, length) {
  const sound = useRef(null);
  const [at, setAt] = useState(0);
  const [playing, setPlaying] = useState(false);
  const [speed, setSpeed] = useState(1);
  useEffect(() => {
    const audio = sound.current;
    const now = () => setAt(audio.currentTime * 1000);
    const state = () => setPlaying(!audio.paused);
    const broken = () => showError(new Error("The recording's file could not be fetched. Try again in a moment."));
    const listeners = [["timeupdate", now], ["seeked", now], ["play", state], ["pause", state], ["ended", state], ["error", broken]];
    for (const [event, listen] of listeners) audio.addEventListener(event, listen);
    return () => {
      for (const [event, listen] of listeners) audio.removeEventListener(event, listen);
      audio.pause();
    };
  }, [source]);
  useSmooth(sound, playing, setAt);
  return {
    sound: html`<audio ref=${sound} preload="metadata" src=${source}></audio>`,
    at: Math.min(at, length),
    playing,
    length,
    speed,
    toggle: () => (playing ? sound.current.pause() : sound.current.play().catch(() => {})),
    seek: (ms) => {
      const audio = sound.current;
      audio.currentTime = Math.max(0, Math.min(ms, length)) / 1000;
      setAt(audio.currentTime * 1000);
    },
    setSpeed: (value) => {
      sound.current.playbackRate = value;
      setSpeed(value);
    },
  };
}

/** Update the position in every frame: the browser reports it four times a second, too rarely for a moving line. */
function useSmooth(sound, playing, setAt) {
  useEffect(() => {
    if (!playing) return undefined;
    let frame = requestAnimationFrame(function next() {
      setAt(sound.current.currentTime * 1000);
      frame = requestAnimationFrame(next);
    });
    return () => cancelAnimationFrame(frame);
  }, [playing]);
}

export function Controls({ player }) {
  const { at, playing, length, speed, toggle, seek, setSpeed } = player;
  return html`<div class="controls">
    ${player.sound}
    <button class="main round" aria-label=${playing ? "Pause" : "Play"} onClick=${toggle}>${icon(playing ? "pause" : "play")}</button>
    <button class="bare" aria-label="10 seconds back" title="10 seconds back" onClick=${() => seek(at - STEP_MS)}>${icon("earlier")}</button>
    <button class="bare" aria-label="10 seconds forward" title="10 seconds forward" onClick=${() => seek(at + STEP_MS)}>${icon("later")}</button>
    <${Position} at=${at} length=${length} seek=${seek} />
    <span class="clock" aria-hidden="true">${formatClock(at)} / ${formatClock(length)}</span>
    <label class="speed"><span class="unseen">Speed</span>
      <select value=${speed} onChange=${(event) => setSpeed(Number(event.target.value))}>${SPEEDS.map((each) => html`<option key=${each} value=${each}>${each}×</option>`)}</select></label>
  </div>`;
}

function Position({ at, length, seek }) {
  const bar = useRef(null);
  const part = length ? at / length : 0;
  useEffect(() => bar.current.style.setProperty("--part", part), [part]);
  // Touch moves the slider in steps of 0.1 s, arrow keys in steps of 1 s.
  const keys = (event) => {
    const by = { ArrowLeft: -1000, ArrowDown: -1000, ArrowRight: 1000, ArrowUp: 1000 }[event.key];
    if (!by) return;
    event.preventDefault();
    seek(at + by);
  };
  return html`<input ref=${bar} type="range" class="position" aria-label="Position" min="0" max=${Math.max(1, length)} step="100" value=${at}
    aria-valuetext=${`${formatDuration(at)} of ${formatDuration(length)}`} onInput=${(event) => seek(Number(event.target.value))} onKeyDown=${keys} />`;
}
