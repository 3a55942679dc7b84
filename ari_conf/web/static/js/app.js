// Dashboard: the account's sections, and the state of the connection.
import { loadSession } from "./api.js";
import { Callbacks } from "./callbacks.js";
import { html } from "./dom.js";
import { EndedConference } from "./ended_conference.js";
import { live, monitorStream, openStream } from "./event_stream.js";
import { start } from "./frame.js";
import { History } from "./history.js";
import { Live } from "./live.js";
import { Problems } from "./problems.js";
import { Recording } from "./recording.js";
import { Recordings } from "./recordings.js";
import { useStore } from "./store.js";

const SECTIONS = [
  ["live", "Live", "live", Live],
  ["history", "History", "history", History],
  ["recordings", "Recordings", "recordings", Recordings],
  ["callbacks", "Callbacks", "callbacks", Callbacks],
  ["problems", "Problems", "warning", Problems],
];

const CONNECTION = {
  connecting: ["warn", "Connecting…"],
  live: ["good", "Connected"],
  lost: ["bad", "Reconnecting…"],
};

function Connection() {
  const { state } = useStore(live);
  const [kind, words] = CONNECTION[state];
  return html`<p class=${`connection ${kind}`} role="status"><span class="unseen">Connection: </span>${words}</p>`;
}

await start(async () => {
  const account = await loadSession();
  openStream();
  monitorStream();
  return {
    sections: SECTIONS,
    details: { history: EndedConference, recordings: Recording },
    who: html`<${Connection} />
        <span class="account" title="The account that you are logged in to">${account}</span>`,
    logout: { path: "/logout", title: `Log out of ${account}` },
    login: "/login",
    titleOf: (words) => words,
  };
});
