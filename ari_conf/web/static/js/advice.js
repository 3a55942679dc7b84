// Advice for each kind of problem: how to proceed. The problem's text names the cause, and often the allowed values.
import { html } from "./dom.js";

const IN_DOCUMENT = "Correct it in the document that your application returns.";
const FREE_SPACE = "The operator finds the reason in the worker's log; Asterisk's disk and the bucket must have free space.";
const ASTERISK = "If it happens again, the operator finds the reason in the logs of ari_conf and Asterisk.";
const REDIS = "The operator checks Redis: it must be reachable, with free memory and disk.";

/** Kind -> advice. A kind of a newer server has none. */
export const ADVICE = {
  account_unknown: html`The operator creates the account with <code>ari-conf account add</code>, or corrects the dialplan.`,
  answer_url_missing: html`The operator sets an answer URL with <code>ari-conf account set</code>.`,
  call_not_started: REDIS,
  call_not_dialed: html`Ask the operator whether the trunk is registered and reachable.`,
  dialing_refused: html`Correct the number or caller ID, or ask the operator what the account may dial.`,
  minutes_used_up: html`Wait until midnight (UTC), or ask the operator for more minutes. If your application did not place these calls, ask for a new token.`,
  too_many_calls: html`End calls, or ask the operator to raise <code>ARI_CONF_CALLS_PER_ACCOUNT</code>.`,
  headers_incomplete: "Send fewer or shorter X-PH- headers.",
  too_many_transfers: "Correct the application: it transfers the same call again and again.",
  call_transferred: "Callers must not transfer the call with their phones; switch the function off there.",
  call_ended_by_error: "Report it to the operator, with the call's ID.",
  document_invalid: html`Correct the document that your application returns; <code>ari-conf documents check</code> shows what is wrong.`,
  document_unreachable: "Request the URL yourself, from the server's machine: it must respond within its time limits, with status 200.",
  document_warning: IN_DOCUMENT,
  document_loop: "Add a Wait to the document, or let it lead somewhere else.",
  url_not_allowed: html`Correct the URL. If its address is private or loopback, use a public one, or ask the operator to add its network to <code>ARI_CONF_ALLOWED_NETWORKS</code>.`,
  sound_unreachable: "Open the address yourself, from the server's machine: it must return an mp3 or wav file, without a login.",
  sound_unplayable: "Open the address yourself: it must return an mp3 or wav file, without a login.",
  sound_document_failed: "The conference continued without this sound. Request its URL by POST yourself: it must return XML with Play, Speak or Wait.",
  sounds_dropped: "Use shorter enter and exit sounds, or none in a conference that many callers enter at once.",
  speech_failed: "Correct the text of the Speak in the document that your application returns. The operator installs voices.",
  conference_not_joined: "Let callers of one conference call the same server.",
  conference_split: "End one of the two conferences, and let its callers call again.",
  machine_detection_failed: html`The operator checks that Asterisk loads chan_rtp and reaches <code>ARI_CONF_MEDIA_LISTEN</code>.`,
  asterisk_failed: ASTERISK,
  line_bad: "The member should use a cable instead of Wi-Fi, or another network. If many members are concerned, the operator checks the network.",
  recording_failed: "The operator checks that Asterisk's disk has free space.",
  recording_incomplete: html`Look the recording up under <a href="#/recordings">Recordings</a>, by its ID.`,
  recording_lost: FREE_SPACE,
  recordings_wait: FREE_SPACE,
  transcription_failed: "The text names the reason. The operator can have it transcribed again once that is corrected.",
  callback_dead_lettered: html`Check the receiver's response, correct the receiver, then resend the dead letter under <a href="#/callbacks">Callbacks</a>.`,
  callback_too_long: "Shorten what makes it so long, such as a URL or SIP headers.",
  callbacks_full: html`Check your receivers under <a href="#/callbacks">Callbacks</a>: callbacks are dropped until they respond.`,
  callbacks_lost: REDIS,
  result_lost: "Check whether the call was carried out, and repeat it if it was not.",
};
