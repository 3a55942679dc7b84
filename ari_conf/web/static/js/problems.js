// Problems view: the account's problems, with advice.
import { ADVICE } from "./advice.js";
import { apiPath, get } from "./api.js";
import { html } from "./dom.js";
import { count, formatTime } from "./format.js";
import { icon } from "./icons.js";
import { EmptyState, ErrorBanner, Loading, useFetched } from "./use_fetched.js";

const MOST = 100;
const ANEW_MS = 5000;

// Meaning of Plivo's hangup codes.
const CODES = {
  8011: "The answer URL's document could not be run.",
  8012: "The action's document could not be run.",
  8014: "The redirect's document could not be run.",
};

export function Problems() {
  const { found, error, reload } = useFetched(() => get(apiPath("Problem"), { limit: MOST }), [], ANEW_MS);
  const all = groupByText(found?.problems ?? []);
  return html`
    <div class="heading"><h1 tabindex="-1">Problems</h1><p>${found ? count(all.length, "problem") : ""}${found?.problems.length === MOST ? ", the newest" : ""}</p></div>
    <${ErrorBanner} error=${error} reload=${reload} />
    ${!found && !error && html`<${Loading} what="problems" />`}
    ${found && !all.length && html`<${EmptyState} picture="check" title="No problems" text="Documents that could not be run, URLs that did not respond and sounds that are missing are listed here." />`}
    ${all.length > 0 && html`<ul class="card list" aria-label="Problems">${all.map((each) => html`<${Problem} key=${each.text} problem=${each} />`)}</ul>`}`;
}

/** Merge problems with the same text into the newest of them, and count them: {..., times}. */
function groupByText(problems) {
  const known = new Map();
  for (const each of problems) {
    const same = known.get(each.text);
    if (same) same.times += 1;
    else known.set(each.text, { ...each, times: 1 });
  }
  return [...known.values()];
}

function Problem({ problem }) {
  const advice = ADVICE[problem.kind];
  return html`<li class="entry">
    <p class="line1"><span class="what">${sentence(problem.text)}</span>${problem.times > 1 && html`<span class="tag">${problem.times} times</span>`}</p>
    <p class="where">${formatTime(problem.time)}${problem.code && `, code ${problem.code}`}${problem.call_uuid && html`, call <code>${problem.call_uuid}</code>`}</p>
    ${(CODES[problem.code] || advice) && html`<p class="advice">${icon("advice")}<span>${CODES[problem.code]} ${advice}</span></p>`}
  </li>`;
}

// A URL at the start keeps its lower case.
const sentence = (text) => `${/^[a-z]+:\/\//.test(text) ? text.charAt(0) : text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
