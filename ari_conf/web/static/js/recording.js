// Recording view: player, timeline (who spoke when) and transcript, synchronized with each other.
import { apiPath, get, remove } from "./api.js";
import { confirm } from "./dialog.js";
import { html } from "./dom.js";
import { formatClock, formatSize, formatTime, recordingTitle } from "./format.js";
import { icon } from "./icons.js";
import { Controls, usePlayer } from "./player.js";
import { Timeline } from "./timeline.js";
import { runAction } from "./toasts.js";
import { Transcript } from "./transcript.js";
import { ErrorBanner, Loading, useFetched } from "./use_fetched.js";

const ANEW_MS = 5000;

export function Recording({ id }) {
  const at = apiPath("Recording", id);
  const { found, error, reload } = useFetched(async () => {
    const [recording, { document }] = await Promise.all([get(at), get(apiPath("Recording", id, "Document"))]);
    return { recording, document };
  }, [id]);
  // Poll only until the transcript exists, so that nothing moves while the user reads it.
  const waits = found?.document.transcript?.state === "waiting";
  useFetched(async () => waits && reload(), [waits], waits ? ANEW_MS : 0);
  return html`
    <p class="up"><a href="#/recordings">${icon("back")}All recordings</a></p>
    <${ErrorBanner} error=${error} reload=${reload} />
    ${!found && !error && html`<${Loading} what="the recording" />`}
    ${!found && error && html`<h1 tabindex="-1">Recording</h1>`}
    ${found && html`<${RecordingView} recording=${found.recording} document=${found.document} at=${at} />`}`;
}

function RecordingView({ recording, document: about, at }) {
  // Fetch the file from this origin, whatever RecordUrl is: the session cookie and the content security policy need it.
  const source = `${at.slice(0, -1)}.${recording.recording_format}/`;
  const player = usePlayer(source, about.duration_ms);
  const whose = speakers(about);
  const deleteRecording = () =>
    confirm(`Delete this recording of ${recordingTitle(recording)}?`, "The file, its timeline and its transcript are deleted permanently, also for applications that have its URL.", "Delete", async () => {
      const gone = await runAction(() => remove(at), "The recording was deleted.");
      if (gone) location.hash = "#/recordings";
      return gone;
    });
  return html`
    <div class="heading">
      <h1 tabindex="-1">${recordingTitle(recording)}</h1>
      <p>${formatTime(about.start_ms)}, ${formatClock(about.duration_ms)}, ${recording.recording_format}, ${formatSize(recording.size)}</p>
      <div class="commands end">
        <a class="button" href=${`${source}?download`}>${icon("download")}Download</a>
        <button class="danger" onClick=${deleteRecording}>${icon("bin")}Delete</button>
      </div>
    </div>
    <section class="card player" aria-label="Player">
      <${Controls} player=${player} />
      <${Timeline} document=${about} whose=${whose} player=${player} />
    </section>
    <${Transcript} transcript=${about.transcript} whose=${whose} player=${player} />`;
}

/** Return member id -> {name, tone}. Calls from the same number get different names; the six colors repeat. */
function speakers(about) {
  const whose = new Map();
  about.members.forEach((member, place) => {
    const same = about.members.filter((other) => other.from === member.from);
    const name = member.from || "Unknown number";
    whose.set(member.member_id, { name: same.length > 1 ? `${name} (${same.indexOf(member) + 1})` : name, tone: place % 6 });
  });
  return whose;
}
