// What went wrong with the account's calls, and what to do.
import { get, place } from "./api.js";
import { html } from "./dom.js";
import { Empty, Loading, Trouble, useFetched } from "./fetched.js";
import { icon } from "./icons.js";
import { count, moment } from "./words.js";

const MOST = 100;
const ANEW_MS = 5000;

// The first whose words are in the problem. A problem's own text names what is wrong and often what is allowed; here stands
// where to go with it.
const ADVICE = [
  [/dead letter/, html`See what the receiver answered, correct it, then resend: <a href="#/callbacks">Callbacks</a>.`],
  [/no request may go there/, html`The address is private or loopback. Use a public one, or have the operator add its network to <code>ARI_CONF_ALLOWED_NETWORKS</code>.`],
  [/is lost/, "The operator finds the reason in the worker's log; Asterisk's disk and the bucket must have room."],
  [/ari-conf account|answer URL/, html`The account needs an answer URL: the operator sets it, by <code>ari-conf account set</code>.`],
  [/^(waitSound|enterSound|exitSound):/, "The conference went on without this sound. Open its URL yourself: it must answer a POST with XML that holds Play, Speak or Wait."],
  [/can't be played/, "Open the address yourself: it must give an mp3 or wav file, without a log-in."],
  [/Speak:/, html`Correct the text in the document that your program answers with.`],
  [/no connection|has no address|status \d|timed out|tries?\)|no TLS/, "Ask the URL yourself, from the server's own machine: it must answer within its time limits, with status 200."],
  [/is used$|ignored|skipped|not allowed|not well-formed|root is|must be/, html`Correct it in the document that your program answers with.`],
];

// What was done instead, by Plivo's hangup codes.
const CODES = {
  8011: "The answer URL's document can't be run.",
  8012: "The action's document can't be run.",
  8014: "The redirect's document can't be run.",
};

export function Problems() {
  const { found, error, again } = useFetched(() => get(place("Problem"), { limit: MOST }), [], ANEW_MS);
  const all = gathered(found?.problems ?? []);
  return html`
    <div class="heading"><h1 tabindex="-1">Problems</h1><p>${found ? count(all.length, "problem") : ""}${found?.problems.length === MOST ? ", the newest" : ""}</p></div>
    <${Trouble} error=${error} again=${again} />
    ${!found && !error && html`<${Loading} what="problems" />`}
    ${found && !all.length && html`<${Empty} picture="check" title="No problems" text="Documents that can't be run, URLs that don't answer and sounds that are missing are told here." />`}
    ${all.length > 0 && html`<ul class="card list" aria-label="Problems">${all.map((each) => html`<${Problem} key=${each.text} problem=${each} />`)}</ul>`}`;
}

/** The same with each call is one problem, where it stood last; {..., times}. */
function gathered(problems) {
  const known = new Map();
  for (const each of problems) {
    const same = known.get(each.text);
    if (same) same.times += 1;
    else known.set(each.text, { ...each, times: 1 });
  }
  return [...known.values()];
}

function Problem({ problem }) {
  const advice = ADVICE.find(([words]) => words.test(problem.text))?.[1];
  return html`<li class="entry">
    <p class="line1"><span class="what">${sentence(problem.text)}</span>${problem.times > 1 && html`<span class="tag">${problem.times} times</span>`}</p>
    <p class="where">${moment(problem.time)}${problem.code && `, code ${problem.code}`}${problem.call_uuid && html`, call <code>${problem.call_uuid}</code>`}</p>
    ${(CODES[problem.code] || advice) && html`<p class="advice">${icon("advice")}<span>${CODES[problem.code]} ${advice}</span></p>`}
  </li>`;
}

// A URL keeps its small letter.
const sentence = (text) => `${/^[a-z]+:\/\//.test(text) ? text.charAt(0) : text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
