"""Call: a caller's channel, and the document that the call runs from top to bottom."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Literal

import msgspec

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.account import Account
from ari_conf.core.backoff import retry_delay_ms
from ari_conf.core.bounds import MAX_HEADER_BYTES
from ari_conf.core.calls import call_recording
from ari_conf.core.calls.call_recording import CallRecording
from ari_conf.core.calls.call_state import (
    CONFIRMING,
    DETECTING,
    DIALING,
    EARLY,
    ENDED,
    FETCHING,
    HANGING_UP,
    IDENTIFYING,
    IN_CONFERENCE,
    QUEUED,
    RINGING,
    RUNNING,
    TRANSITIONS,
    UNANSWERED,
    CallState,
)
from ari_conf.core.calls.confirmation import key_element
from ari_conf.core.calls.dial_element import EVENT_NAMES, GRACE_MS, DialRun, LegChange, callback_params
from ari_conf.core.calls.gather import Gather, GatherState
from ari_conf.core.calls.live_media import LIVE, DigitSending, LiveMedia
from ari_conf.core.calls.machine_detection import MachineDetection, Reason
from ari_conf.core.calls.outgoing import MAX_REDIALS, Outgoing
from ari_conf.core.calls.record_element import RecordRun, RecordState
from ari_conf.core.effects import (
    AdmitDial,
    Answer,
    CreateChannel,
    DialChannel,
    Effect,
    FetchDocument,
    FetchSoundDocument,
    HangUp,
    IdentifyCall,
    Params,
    PlayMedia,
    PostCallback,
    ReadCodec,
    RecordDialing,
    ReportProblem,
    Ring,
    SendDigits,
    SendSilence,
    StopPreparing,
    SwitchOffs,
    Target,
    WarmSounds,
)
from ari_conf.core.elements import (
    DTMF,
    Conference,
    Dial,
    Element,
    GetDigits,
    GetInput,
    Hangup,
    Play,
    PreAnswer,
    Prompt,
    Record,
    Redirect,
    Speak,
    Wait,
)
from ari_conf.core.expectations import AsteriskState, Expectation
from ari_conf.core.hangup_codes import (
    CANCELED_CAUSE,
    INVALID_DOCUMENT_CODES,
    LOGIN_STATUSES,
    LOST_RACE_CAUSE,
    NO_ANSWER_CAUSE,
    NO_MEDIA_CAUSE,
    OUT_OF_ORDER_CAUSE,
    TIME_LIMIT_CAUSE,
    UNREACHABLE_CODES,
    HangupCode,
    HangupSource,
    cause_name,
    code_name,
    refusal_code,
    source_of,
    status_of,
)
from ari_conf.core.messages import (
    CallRecordingRequested,
    DepartureRequested,
    DialMusicChanged,
    DialRequested,
    DigitsDue,
    JoinRequested,
    LegChanged,
    LegsMissed,
    LegsPlaced,
    LegsReleased,
    MemberReleased,
    Outputs,
    RaceWon,
)
from ari_conf.core.placing import CallOptions, CallToPlace
from ari_conf.core.playback.player import Player, interrupted
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.queued_sound import QueuedSound
from ari_conf.core.recording import RecordingState
from ari_conf.core.request_params import as_params, format_second, plausible
from ari_conf.core.transitions import checked

Purpose = Literal["answer", "action", "redirect", "transfer"]
MAX_RAPID_DOCUMENTS, RAPID_DOCUMENT_MS = 20, 1000
"""Number of further documents that a call may request immediately, and milliseconds per document on average (decided).
Otherwise a document that leads to itself would be requested as fast as its server responds, forever."""
ANONYMOUS = "anonymous", "Anonymous"
"""From and CallerName of callers who withhold their identity."""
NO_PRICE = "0.00000"
"""BillRate and TotalCost: applications parse them; calls over one's own Asterisk have no price here."""
ANSWERING_ELEMENTS = (Play, Speak, Wait, GetDigits, GetInput, DTMF, Record)
FALLBACK_EVENTS: dict[Purpose, str] = {"redirect": "Redirect", "transfer": "Transfer"}
"""Event of the request to the fallback URL, by what could not be fetched; otherwise StartApp."""
NO_SPEECH: Params = (("Speech", ""), ("SpeechConfidenceScore", ""), ("BilledAmount", "0.00000"))
"""Parameters of GetInput's action that only speech input would fill."""
HangupReason = Literal["normal", "busy", "rejected", "answered_elsewhere"]
HANGUP_CAUSES: dict[HangupReason, int] = {"normal": 16, "busy": 17, "rejected": 21, "answered_elsewhere": 26}
"""Q.850 causes by the reason that ARI receives."""
HANGUP_ATTEMPTS_UNTIL_PROBLEM = 3
"""Number of HangUp requests after which a problem is reported. Asterisk normally confirms the first one immediately."""


class Derived:
    """Attributes that are derived from a call's fields, or belong to the step in progress; never persisted."""

    __slots__ = ("constant_params", "step_reports")

    constant_params: tuple[Params, Params] | None
    """Cache: constant standard parameters, before and after CallStatus. Building them for each callback is half of its
    cost."""
    step_reports: list[Effect]
    """Recording jobs of the step in progress, which `give_up` repeats if the step fails."""


class Call(msgspec.Struct, Derived, tag=True):
    call_uuid: str
    request_uuid: str
    channel_id: str
    auth_id: str
    from_: str
    to: str
    caller_name: str
    direction: str
    started_at: int
    document: str | None = None
    document_method: str = "POST"
    state: CallState = IDENTIFYING
    """Only `change_state` changes it."""
    account: Account | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """The INVITE's X-PH-* headers."""
    wideband: bool = False
    """True if the caller's codec has a sample rate above 8 kHz."""
    answered_at: int | None = None
    ended_at: int | None = None
    """Epoch milliseconds of the end of the channel."""
    hangup_cause: int = 16
    """Q.850 cause, or one of the causes in `hangup_codes` that are not Q.850's."""
    hangup_code: int = HangupCode.NORMAL.value
    """HangupCauseCode."""
    hangup_source: HangupSource | None = None
    """HangupSource. None: the one that the code implies."""
    elements: tuple[Element, ...] = ()
    position: int = 0
    """Index of the next element."""
    pre_answer_end: int = 0
    """Index of the first element after PreAnswer's; those before it run without answering the call."""
    no_element_started: bool = True
    """True until an element of the call has run."""
    fetch_purpose: Purpose | None = None
    pending_fetch: FetchDocument | None = None
    """Pending request for a document; a server that takes over repeats it."""
    fallback_requested: bool = False
    running: Player | Gather | DigitSending | RecordRun | Conference | None = None
    conference_id: str | None = None
    """The conference that the running element has joined."""
    serial: int = 0
    """Number of fetches and players so far: part of their ids."""
    scheduled_hangup_at: int | None = None
    """Epoch milliseconds of the hangup that a Hangup element has scheduled."""
    hangup_retry_at: int | None = None
    """Epoch milliseconds at which HangUp is repeated; None: no hangup is in progress."""
    hangup_attempts: int = 0
    """Number of HangUp requests so far."""
    paced_until: int = 0
    """Epoch milliseconds until which the documents so far last, at RAPID_DOCUMENT_MS each."""
    recent_switch_offs: SwitchOffs = ()
    """Effects that recently switched something off on the channel; a server that takes over repeats them."""
    on_hold: bool = False
    """True while the caller's phone has put the call on hold."""
    stream: int | None = None
    """SSRC of the phone's RTP stream, as last seen."""
    silence: bool = False
    """True if Asterisk was asked to send silence and may still be sending it."""
    outgoing: Outgoing | None = None
    """State of placing the call; None: the call has arrived."""
    live: LiveMedia | None = None
    """Sounds and digits of the API for the call; None: none so far."""
    transfers: int = 0
    """Number of transfers by the API so far."""
    transfer: tuple[str, str] | None = None
    """URL and method of a transfer that waits until the conference has released the call."""
    recordings: dict[str, CallRecording] = msgspec.field(default_factory=dict)
    """Recordings of the call that have not ended, by id."""
    dial: DialRun | None = None
    """Dial element that runs: the policy is asked, or the call is in the conference that its legs meet in."""
    on_dial_answer: CallRecording | None = None
    """Recording that begins when a Dial's second leg is connected."""

    def __post_init__(self) -> None:
        self.constant_params = None
        self.step_reports = []

    def change_state(self, state: CallState) -> None:
        """Change the state. Raises IllegalTransition, before anything has changed, if the table does not have it."""
        self.state = checked(TRANSITIONS, self.state, state)

    # Derived values.

    @property
    def is_ending(self) -> bool:
        """Return True if the channel has hung up or a hangup is in progress."""
        return self.state is HANGING_UP or self.state is ENDED

    @property
    def in_conference(self) -> bool:
        """Return True until the conference has released the call, also if the call is ending."""
        return isinstance(self.running, Conference)

    @property
    def is_finished(self) -> bool:
        """Return True if the call has ended and its conference, if it had joined one, has released it."""
        return self.state is ENDED and not self.in_conference

    @property
    def awaits_channel(self) -> bool:
        """Return True if the call's channel was requested, and Asterisk has not reported it."""
        return self.outgoing is not None and self.state is DIALING and not self.outgoing.created

    @property
    def target(self) -> Target:
        return Target("channel", self.channel_id)

    @property
    def deadline(self) -> int | None:
        running = self.running
        soonest = None if running is None or isinstance(running, Conference) else running.deadline
        if self.outgoing is not None and not self.is_ending:
            ours = self.outgoing.dial_at if self.state is QUEUED else self.outgoing.deadline
            soonest = ours if soonest is None or (ours is not None and ours < soonest) else soonest
        if self.dial is not None and self.dial.gives_up_at is not None:
            soonest = self.dial.gives_up_at if soonest is None else min(soonest, self.dial.gives_up_at)
        has_timers = self.scheduled_hangup_at is not None or self.hangup_retry_at is not None
        if not has_timers and self.live is None and not self.recordings:
            return soonest
        live = self.live.deadline if self.live is not None else None
        recordings = [recording.deadline for recording in self.recordings.values()]
        times = (soonest, live, self.scheduled_hangup_at, self.hangup_retry_at, *recordings)
        return min([t for t in times if t is not None], default=None)

    # Events and messages.

    @classmethod
    def from_arrival(cls, event: ev.CallArrived, now: int) -> tuple[Call, Outputs]:
        call = cls(
            event.call_uuid,
            event.request_uuid,
            event.channel_id,
            event.auth_id,
            event.from_,
            event.to,
            event.caller_name,
            event.direction,
            now,
            event.document,
            event.method,
            answered_at=now if event.answered else None,
        )
        return call, [IdentifyCall(call.call_uuid, call.channel_id, call.auth_id)]

    @classmethod
    def to_place(cls, placed: CallToPlace, options: CallOptions, account: Account, now: int, dial_at: int) -> Call:
        """Return a call that is to be placed at `dial_at`; `start_dialing` follows."""
        urls = {
            "fallback_url": options.fallback_url,
            "fallback_method": options.fallback_method,
            "hangup_url": options.hangup_url,
            "hangup_method": options.hangup_method,
        }
        return cls(
            placed.call_uuid,
            placed.call_uuid,
            ids.channel_id(placed.call_uuid, 1),
            account.auth_id,
            placed.from_,
            placed.to,
            placed.caller_name,
            "outbound",
            now,
            options.answer_url,
            options.answer_method,
            QUEUED,
            # The account's own URLs are for calls that arrive.
            msgspec.structs.replace(account, answer_url=None, **urls),
            dict(options.headers),
            outgoing=Outgoing.of(placed, options, dial_at),
        )

    def handle_event(self, event: ev.Event, now: int) -> Outputs:
        if not self.recordings:
            return self._handle_event(event, now)
        out, ended = call_recording.handle_event(self, event, now)
        run = self.running
        if isinstance(run, RecordRun):
            # Ends at most one: a call runs one element.
            for recording in [r for r in ended if r.recording_id == run.recording_id]:
                out += self._on_record_ended(run, recording, now)
        return out + self._handle_event(event, now)

    def _handle_event(self, event: ev.Event, now: int) -> Outputs:
        if isinstance(event, ev.ChannelHungUp):
            return self._on_hung_up(event.cause, now, event.sip_status)
        if isinstance(event, ev.DeadlineReached) and self.hangup_retry_at is not None and self.hangup_retry_at <= now:
            return self._retry_hangup(now)
        if isinstance(event, ev.EffectFailed) and isinstance(event.effect, HangUp | Answer):
            return self._on_effect_failed(event.effect, event.reason, event.target_gone, now)
        if self.is_ending:
            return []
        if self.outgoing is not None and (out := self._handle_outgoing_event(self.outgoing, event, now)) is not None:
            return out
        return self._handle_live_event(event, now)

    def _handle_live_event(self, event: ev.Event, now: int) -> Outputs:
        match event:
            case ev.DocumentFetched() | ev.DocumentFailed() if self._is_pending(event.fetch_id):
                return self._on_document(event, now)
            case ev.CallIdentified(_, account, headers, wideband, withheld, warnings) if self.account is None:
                self.wideband = wideband
                if withheld:
                    self.from_, self.caller_name, self.constant_params = *ANONYMOUS, None
                incomplete = [self.problem(ProblemKind.HEADERS_INCOMPLETE, w) for w in warnings]
                return [*incomplete, *self._on_identified(account, dict(headers), now)]
            case ev.DeadlineReached() if self.scheduled_hangup_at is not None and self.scheduled_hangup_at <= now:
                return self.hang_up("normal", HangupCode.SCHEDULED, now)
            case ev.DialAdmitted() if self.dial is not None and self.dial.dial_id == event.dial_id:
                return self._on_dial_admitted(self.dial, event, now)
            case ev.DeadlineReached() if self.dial is not None and (self.dial.gives_up_at or now + 1) <= now:
                return [LegsMissed(self.call_uuid)]
            case ev.NothingSent() if self.answered_at is not None:
                self.silence = True
                return [SendSilence(self.channel_id, True)]
            case ev.EffectFailed(IdentifyCall(), reason) if self.account is None:
                self.account = Account(self.auth_id)
                code = UNREACHABLE_CODES["answer"]
                problem = self.problem(ProblemKind.CALL_NOT_STARTED, f"the call could not be started: {reason}", code)
                return [problem, *self.hang_up("normal", code, now)]
        return self._forward_to_running(event, now)

    # Placing a call.

    def start_dialing(self, now: int, not_after: int = 0) -> Outputs:
        """Place the call: its turn has come. `not_after`: see CreateChannel."""
        assert self.outgoing is not None
        self.change_state(DIALING)
        self.outgoing.start(now)
        request = self.outgoing.channel_request(self.call_uuid, self.from_, self.caller_name, not_after)
        music = self.outgoing.options.dial_music
        return [self.dialing_record(), *self._status_callback("CallInitiated"), *self._dial_music(music), request]

    def _status_callback(self, event: str) -> Outputs:
        """Return the callback about a change of the call's state, if the request asked for it."""
        options = self.outgoing.options if self.outgoing is not None else None
        if options is None or options.status_url is None:
            return []
        return [self.callback(options.status_url, options.status_method, event, ())]

    def _dial_music(self, music: str | None) -> Outputs:
        """Let the conference hear that somebody is being called into it, or no longer."""
        options = self.outgoing.options if self.outgoing is not None else None
        if options is None or options.dial_music is None or options.conference is None:
            return []
        room = options.conference
        return [DialMusicChanged(self.call_uuid, room.directory(self.auth_id), room.name, music)]

    def _tell_first_leg(self, change: LegChange) -> Outputs:
        """Tell the call whose Dial element has placed this one."""
        first_leg = self.outgoing.first_leg if self.outgoing is not None else ""
        return [LegChanged(first_leg, self.call_uuid, change)] if first_leg else []

    def dialing_record(self, previous_trunk: str = "") -> RecordDialing:
        """Return the call's place in the dialing limits, as it is now."""
        assert self.outgoing is not None
        trunk, ends_ms, ended_ms = self.outgoing.present.trunk, self.outgoing.lives_until, self.ended_at
        return RecordDialing(self.auth_id, self.call_uuid, trunk, ends_ms, self.answered_at, ended_ms, previous_trunk)

    def _handle_outgoing_event(self, outgoing: Outgoing, event: ev.Event, now: int) -> Outputs | None:
        """Handle an event that only a placed call gets; return None for any other."""
        match event:
            case ev.DeadlineReached():
                return self._on_outgoing_deadline(outgoing, now)
            case ev.CodecRead(_, wideband):
                self.wideband, outgoing.codec_known = wideband, True
                return []
            case ev.SoundDocumentFetched() | ev.SoundDocumentFailed() if self.state is CONFIRMING and not self.running:
                return self._on_confirm_sound(event, now)
            case ev.ListeningEvent() if outgoing.machine is not None:
                return self._on_listening_event(outgoing.machine, event, now)
            case ev.MinutesUsedUp():
                text = "the account's minutes of placed calls for this day (UTC) are used up: the call was hung up"
                end = self._cancel(HangupCode.SCHEDULED, TIME_LIMIT_CAUSE, "Plivo", now)
                return [self.problem(ProblemKind.MINUTES_USED_UP, text), *end]
            case _ if self.state not in UNANSWERED:
                return None
            case ev.ChannelCreated():
                return [] if outgoing.created else [outgoing.dial(self.channel_id, now)]
            case ev.ChannelRinging() | ev.ChannelProgress():
                return self._on_rings(outgoing, isinstance(event, ev.ChannelProgress), now)
            case ev.ChannelAnswered():
                return self._on_phone_answered(outgoing, now)
            case ev.DialUnconfirmed():
                return self._on_unconfirmed(outgoing, now)
            case ev.EffectFailed(CreateChannel() | DialChannel()):
                return self._on_dialing_failed(outgoing, event, now)
        return None

    def _on_outgoing_deadline(self, outgoing: Outgoing, now: int) -> Outputs | None:
        digits = outgoing.digits
        if self.state is QUEUED:
            return self.start_dialing(now) if outgoing.dial_at <= now else []
        if outgoing.rings_until is not None and outgoing.rings_until <= now:
            return self._cancel(HangupCode.RING_TIMEOUT, NO_ANSWER_CAUSE, "Plivo", now)
        if outgoing.stops_ringing_at is not None and outgoing.stops_ringing_at <= now:
            return self._cancel(HangupCode.SCHEDULED, CANCELED_CAUSE, "Plivo", now)
        if outgoing.unconfirmed_until is not None and outgoing.unconfirmed_until <= now:
            return self._redial(outgoing, now)
        if outgoing.ends_at is not None and outgoing.ends_at <= now:
            out = self.hang_up("normal", HangupCode.SCHEDULED, now, "Plivo")
            self.hangup_cause = TIME_LIMIT_CAUSE
            return out
        if digits is not None and digits.next_at is not None and digits.next_at <= now:
            return [*outgoing.send_digits(self.channel_id, now)]
        machine = outgoing.machine
        if machine is not None and machine.deadline is not None and machine.deadline <= now:
            return self._on_listening_event(machine, ev.DeadlineReached(), now)
        return None

    def _on_rings(self, outgoing: Outgoing, is_early: bool, now: int) -> Outputs:
        out: Outputs = []
        is_first, outgoing.unconfirmed_until = outgoing.rang_at is None, None
        if is_first:
            outgoing.rang_at = now
        if is_early and self.state is not EARLY:
            self.change_state(EARLY)
        elif self.state is DIALING:
            self.change_state(RINGING)
        url = outgoing.options.ring_url
        if is_first and url is not None:
            out.append(self.callback(url, outgoing.options.ring_method, "Ring", ()))
        return out + self._status_callback("CallRinging") + self._tell_first_leg("ringing") if is_first else out

    def _on_phone_answered(self, outgoing: Outgoing, now: int) -> Outputs:
        self.answered_at = now
        outgoing.answered(now)
        out: Outputs = [self.dialing_record(), ReadCodec(self.call_uuid, self.channel_id)]
        out += self._status_callback("CallAnswered") + self._tell_first_leg("answered")
        if not outgoing.first_leg:
            # The caller of a Dial hears it until they are connected: nobody else is there to be heard.
            out += self._dial_music(None)
        out += outgoing.send_digits(self.channel_id, now)
        out += outgoing.detect_machine(self.channel_id, self.call_uuid, now)
        if outgoing.holds_document:
            self.change_state(DETECTING)
            return out
        return out + self._on_person_answered(outgoing, now)

    def _on_person_answered(self, outgoing: Outgoing, now: int) -> Outputs:
        """Ask for the key of the confirmation, if there is one. A machine that is not to be hung up counts as well."""
        confirmation = outgoing.options.confirmation
        if confirmation is None:
            return self._begin_document(outgoing, now)
        self.change_state(CONFIRMING)
        outgoing.is_confirming = True
        if confirmation.sound_url is None:
            return self._ask_for_key(outgoing, (), now)
        self.serial += 1
        return self._fetch_confirm_sound(outgoing)

    def _fetch_confirm_sound(self, outgoing: Outgoing) -> Outputs:
        confirmation = outgoing.options.confirmation
        assert confirmation is not None and confirmation.sound_url is not None
        fetch_id, params = ids.for_call(self.call_uuid, self.serial), self.standard_params("ConfirmSound")
        return [FetchSoundDocument(fetch_id, self.auth_id, confirmation.sound_url, params)]

    def _on_confirm_sound(self, event: ev.SoundDocumentFetched | ev.SoundDocumentFailed, now: int) -> Outputs:
        outgoing = self.outgoing
        if outgoing is None or event.fetch_id != ids.for_call(self.call_uuid, self.serial):
            return []
        if isinstance(event, ev.SoundDocumentFailed):
            return [self.problem(event.kind, event.reason), *self._ask_for_key(outgoing, (), now)]
        warnings: Outputs = [self.problem(ProblemKind.DOCUMENT_WARNING, warning) for warning in event.warnings]
        return warnings + self._ask_for_key(outgoing, event.sounds, now)

    def _ask_for_key(self, outgoing: Outgoing, prompt: tuple[Prompt, ...], now: int) -> Outputs:
        assert outgoing.options.confirmation is not None
        element = key_element(outgoing.options.confirmation, prompt)
        self.running = gather = Gather(element, self._next_owner_id(), self.target)
        return [*gather.start(now)]

    def _on_key_gathered(self, gather: Gather, now: int) -> Outputs:
        if self.outgoing is None or gather.state is GatherState.NO_INPUT:
            return self.hang_up("normal", HangupCode.REJECTED, now, "Callee")
        return self._begin_document(self.outgoing, now)

    def lose_race(self, now: int) -> Outputs:
        """End the call because another one, which it competes with, has been answered first."""
        reason: HangupReason = "answered_elsewhere" if self.state in UNANSWERED else "normal"
        out = self.hang_up(reason, HangupCode.LOST_RACE, now, "Plivo")
        if out:
            self.hangup_cause = LOST_RACE_CAUSE
        return out

    def _begin_document(self, outgoing: Outgoing, now: int) -> Outputs:
        """Continue with what the request asks for: the call is answered, and confirmed."""
        won: Outputs = [RaceWon(outgoing.rivals)] if outgoing.rivals else []
        outgoing.rivals, outgoing.is_confirming = (), False
        connected = self._dial_music(None) + self._tell_first_leg("connected")
        return won + connected + self._start_document(outgoing, now)

    def _start_document(self, outgoing: Outgoing, now: int) -> Outputs:
        if outgoing.options.conference is not None:
            self.elements = (outgoing.options.conference,)
            return self._run_elements(now)
        return self._request_document("answer", self.document or "", self.document_method, "StartApp", (), now)

    def _on_listening_event(self, machine: MachineDetection, event: ev.Event, now: int) -> Outputs:
        """Take in what tells whether a machine has answered; once that is known, do what the request says."""
        if machine.is_decided:
            return []
        out: Outputs = [*machine.handle_event(event, now)]
        if not machine.is_decided:
            return out
        settings = machine.settings
        if machine.reason is Reason.NOT_HEARD:
            why = event.reason if isinstance(event, ev.ListeningFailed) else "no audio has arrived"
            text = f"it could not be heard whether a machine has answered, so a person is assumed: {why}"
            out.append(self.problem(ProblemKind.MACHINE_DETECTION_FAILED, text))
        if settings.url is not None:
            out.append(self.callback(settings.url, settings.method, "MachineDetection", machine.params))
        if machine.is_machine and settings.if_machine == "hangup":
            return out + self.hang_up("normal", HangupCode.MACHINE_DETECTED, now, "Plivo")
        outgoing = self.outgoing
        return out + self._on_person_answered(outgoing, now) if outgoing and self.state is DETECTING else out

    def _on_unconfirmed(self, outgoing: Outgoing, now: int) -> Outputs:
        """Wait for a sign of the phone: if there is none, the channel was not dialed."""
        if outgoing.created and self.state is DIALING and outgoing.unconfirmed_until is None:
            outgoing.wait_for_sign(now)
        return []

    def _redial(self, outgoing: Outgoing, now: int) -> Outputs:
        """Replace a channel that was not dialed."""
        if outgoing.redials >= MAX_REDIALS:
            return self._cancel(HangupCode.OUT_OF_SERVICE, OUT_OF_ORDER_CAUSE, "Error", now)
        return [HangUp(self.channel_id), *self._request_next_channel(outgoing, same_way=True)]

    def _request_next_channel(self, outgoing: Outgoing, *, same_way: bool) -> Outputs:
        self.change_state(DIALING)
        before = outgoing.present.trunk
        self.channel_id = outgoing.next_channel(self.call_uuid, same_way=same_way)
        record = self.dialing_record(before if outgoing.present.trunk != before else "")
        return [record, outgoing.channel_request(self.call_uuid, self.from_, self.caller_name)]

    def _on_dialing_failed(self, outgoing: Outgoing, event: ev.EffectFailed, now: int) -> Outputs:
        effect = event.effect
        if isinstance(effect, DialChannel):
            return self._on_hung_up(0, now) if event.target_gone else self._on_unconfirmed(outgoing, now)
        if outgoing.created:
            return []
        assert isinstance(effect, CreateChannel)
        if effect.not_after and effect.not_after < now:
            return self._cancel(HangupCode.UNKNOWN, 0, "Error", now)
        problem = self.problem(ProblemKind.CALL_NOT_DIALED, f"{outgoing.present.trunk}: {event.reason}")
        if outgoing.attempt + 1 < len(outgoing.attempts):
            # If it is not known whether the channel exists: it is not dialed in any case.
            left: Outputs = [] if event.refused else [HangUp(self.channel_id)]
            return [problem, *left, *self._request_next_channel(outgoing, same_way=False)]
        return [problem, *self._cancel(HangupCode.OUT_OF_SERVICE, OUT_OF_ORDER_CAUSE, "Carrier", now)]

    def _cancel(self, code: HangupCode, cause: int, source: HangupSource, now: int) -> Outputs:
        """Hang up with a cause of the server's own. If the call is not answered, its channel may not exist."""
        out = self.hang_up("normal", code, now, source)
        self.hangup_cause = cause
        return out

    def on_admitted(self, now: int) -> Outputs:
        # Spec: "Answer the call if it is not answered."
        return self._answer(now)

    def on_join_skipped(self, now: int) -> Outputs:
        # Spec: "The element and its action are skipped; the next element runs."
        self.running = self.conference_id = None
        return self._continue(now)

    def on_member_released(self, released: MemberReleased, now: int) -> Outputs:
        """Continue after the conference: request the element's action, or run the next element."""
        self.running = self.conference_id = None
        out = self._release_legs()
        if self.transfer is not None:
            # What runs is broken off: the element's action is not requested.
            self.dial = None
            return out + (self._hangup_callback(now) if self.is_ending else self._continue(now))
        if self.dial is not None:
            return out + self._finish_dial(self.dial, now)
        return self._end_element(released.element, released.params, now)

    def _end_element(self, element: Conference | Dial, params: Params, now: int) -> Outputs:
        """Request the action of an element that is over, or run the next element. `params`: empty if there is nothing
        that the action could be told."""
        if self.is_ending or not element.redirect:
            # Spec: the action is also requested if the caller hung up or redirect is false; the reply is then ignored.
            requested: Outputs = []
            if element.action is not None and params:
                requested = [self.callback(element.action, element.method, "Redirect", params)]
            return requested + (self._hangup_callback(now) if self.is_ending else self._continue(now))
        if element.action is None:
            return self._continue(now)
        requested = self._request_document("action", element.action, element.method, "Redirect", params, now)
        return requested + self._play_live(now)

    def _continue(self, now: int) -> Outputs:
        """Begin a transfer that has waited for the end of a membership, or run the next element; and play the sounds
        that the API has queued meanwhile."""
        begins = self.transfer is not None and not self.is_ending
        if self.live is not None and self.live.playback.queue:
            # They are heard first.
            self.live.holds = True
        return [*(self._start_transfer(now) if begins else self._run_elements(now)), *self._play_live(now)]

    # The document.

    def _on_identified(self, account: Account | None, headers: dict[str, str], now: int) -> Outputs:
        return [*self._keep_headers(headers), *self._request_first_document(account, now)]

    def _keep_headers(self, headers: dict[str, str]) -> Outputs:
        """Keep the X-PH- headers up to MAX_HEADER_BYTES. Every request about the call contains them, so a caller could
        otherwise make the requests too large to send."""
        size = left_out = 0
        for name, value in headers.items():
            size += len(json.dumps([name, value], ensure_ascii=False).encode(errors="replace"))
            if size > MAX_HEADER_BYTES:
                left_out += 1
            else:
                self.headers[name] = value
        if not left_out:
            return []
        text = f"{left_out} X-PH- headers of the call's INVITE were dropped: at most {MAX_HEADER_BYTES} bytes are kept"
        return [self.problem(ProblemKind.HEADERS_INCOMPLETE, text)]

    def _request_first_document(self, account: Account | None, now: int) -> Outputs:
        if account is None:
            self.account = Account(self.auth_id)
            code = UNREACHABLE_CODES["answer"]
            missing = f"account {self.auth_id!r} does not exist"
            text = f"{missing}: create it with `ari-conf account add`, or correct the dialplan"
            if not self.auth_id:
                text = "the dialplan names no account: enter the Stasis application with `Stasis(ari_conf,ACCOUNT)`"
            problem = self.problem(ProblemKind.ACCOUNT_UNKNOWN, text, code)
            return [problem, *self.hang_up("rejected", code, now)]
        self.account = account
        if self.document is not None:
            return self._ring_and_request(self.document, self.document_method, now)
        if account.answer_url is not None:
            return self._ring_and_request(account.answer_url, account.answer_method, now)
        text = (
            f"account {self.auth_id!r} has no answer URL, and the dialplan names no document: set the answer URL with "
            "`ari-conf account set`, or correct the dialplan"
        )
        kind = ProblemKind.ANSWER_URL_MISSING
        return self._on_document_failed("answer", UNREACHABLE_CODES["answer"], kind, text, now)

    def _ring_and_request(self, source: str, method: str, now: int) -> Outputs:
        out = self._request_document("answer", source, method, "StartApp", (), now)
        # A server may take time to respond, so the caller hears ringing; a local document is available immediately.
        rings = self.answered_at is None and "://" in source
        return [Ring(self.channel_id), *out] if rings else out

    def _request_document(
        self, purpose: Purpose, source: str, method: str, event: str, params: Params, now: int
    ) -> Outputs:
        ahead = self.paced_until - now
        # If the system clock was set, `paced_until` may be far from now.
        ahead = ahead if 0 <= ahead <= (MAX_RAPID_DOCUMENTS + 1) * RAPID_DOCUMENT_MS else 0
        # The API's transfers have a limit of their own.
        if ahead > MAX_RAPID_DOCUMENTS * RAPID_DOCUMENT_MS and purpose != "transfer":
            code = INVALID_DOCUMENT_CODES[purpose]
            text = (
                f"more than {MAX_RAPID_DOCUMENTS} documents in a row led to another document within less than a second "
                "each: the call was hung up to stop the loop; add a Wait to the document"
            )
            return [self.problem(ProblemKind.DOCUMENT_LOOP, text, code), *self.hang_up("normal", code, now)]
        self.change_state(FETCHING)
        self.paced_until = now + ahead + RAPID_DOCUMENT_MS
        self.fetch_purpose = purpose
        self.serial += 1
        params = self.standard_params(event) + params
        self.pending_fetch = FetchDocument(
            ids.for_call(self.call_uuid, self.serial), self.auth_id, source, method, params
        )
        return [self.pending_fetch]

    def _is_pending(self, fetch_id: str) -> bool:
        return self.fetch_purpose is not None and fetch_id == ids.for_call(self.call_uuid, self.serial)

    def _on_document(self, event: ev.DocumentFetched | ev.DocumentFailed, now: int) -> Outputs:
        purpose, fetch = self.fetch_purpose or "answer", self.pending_fetch
        self.fetch_purpose = self.pending_fetch = None
        if isinstance(event, ev.DocumentFailed):
            codes = INVALID_DOCUMENT_CODES if event.invalid else UNREACHABLE_CODES
            return self._on_document_failed(purpose, codes[purpose], event.kind, event.reason, now)
        self.elements, self.position, self.pre_answer_end = event.elements, 0, 0
        # Don't use the fallback for what the fallback itself leads to: it would be requested forever.
        was_fallback = fetch is not None and self.account is not None and fetch.source == self.account.fallback_url
        self.fallback_requested = self.fallback_requested and was_fallback
        out: Outputs = [self.problem(ProblemKind.DOCUMENT_WARNING, w) for w in event.warnings]
        if sounds := tuple(_sounds_of(event.elements)):
            # Spec: "Playing never waits for a cold cache if it can be warmed while the call sets up"
            out.append(WarmSounds(self.call_uuid, self.auth_id, sounds))
        return out + self._run_elements(now)

    def _on_document_failed(
        self, purpose: Purpose, code: HangupCode, kind: ProblemKind, reason: str, now: int
    ) -> Outputs:
        # Spec: "the account's fallback URL is asked if it has one, else the call is hung up"
        out: Outputs = [self.problem(kind, reason, code)]
        account = self.account
        if account is None or account.fallback_url is None or self.fallback_requested:
            return out + self.hang_up("normal", code, now)
        self.fallback_requested = True
        event = FALLBACK_EVENTS.get(purpose, "StartApp")
        return out + self._request_document(purpose, account.fallback_url, account.fallback_method, event, (), now)

    # The elements.

    def _run_elements(self, now: int) -> Outputs:
        """Run elements until one takes time."""
        out: Outputs = []
        while not self.is_ending and self.running is None and self.fetch_purpose is None and self.dial is None:
            if self.position >= len(self.elements):
                return out + self.hang_up("normal", HangupCode.END_OF_DOCUMENT, now)
            element = self.elements[self.position]
            self.position += 1
            out += self._start_element(element, now)
            self.no_element_started = False
        return out

    def _start_element(self, element: Element, now: int) -> Outputs:
        if isinstance(element, PreAnswer):
            rest = self.elements[self.position :]
            self.elements, self.position, self.pre_answer_end = (*element.children, *rest), 0, len(element.children)
            return []
        if isinstance(element, Conference):
            self.change_state(IN_CONFERENCE)
            self.running = element
            return [*self._pause_live(now), JoinRequested(self.call_uuid, element)]
        if isinstance(element, Dial):
            self.change_state(RUNNING)
            self.dial = DialRun(element, self._next_owner_id())
            return [DialRequested(self.call_uuid)]
        if isinstance(element, ANSWERING_ELEMENTS):
            self.change_state(RUNNING)
        # Spec: "Play, Speak, Wait, GetDigits and Conference answer the call; Hangup, Redirect, PreAnswer and a first
        # Wait don't." A Conference element answers the call once the conference has admitted it.
        in_pre_answer = self.position <= self.pre_answer_end
        first_wait = self.no_element_started and isinstance(element, Wait)
        answers = isinstance(element, ANSWERING_ELEMENTS) and not in_pre_answer and not first_wait
        out: Outputs = self._answer(now) if answers else []
        match element:
            case Play() | Speak() | Wait():
                player = Player(self._next_owner_id(), self.target, (element,), detects_audio=True)
                self.running, player.held = player, self._is_held
                return [*out, *player.start(now)]
            case Record():
                self.running = RecordRun(element, self._next_owner_id(), self.target)
                return [*out, CallRecordingRequested(self.call_uuid)]
            case GetDigits() | GetInput():
                self.running = gather = Gather(element, self._next_owner_id(), self.target, held=self._is_held)
                return [*out, *gather.start(now)]
            case DTMF():
                return [*out, *self._run_dtmf_element(element, now)]
            case Redirect(""):
                text = "Redirect: its text must be an absolute http or https URL"
                code, kind = UNREACHABLE_CODES["redirect"], ProblemKind.DOCUMENT_INVALID
                return [*out, *self._on_document_failed("redirect", code, kind, text, now)]
            case Redirect(url, method):
                return self._request_document("redirect", url, method, "Redirect", (), now)
            case Hangup():
                return self._run_hangup_element(element, now)

    def _run_hangup_element(self, element: Hangup, now: int) -> Outputs:
        if element.schedule and self.position < len(self.elements):
            # Spec: "hang up then, the following elements go on meanwhile; nothing follows: now"
            self.scheduled_hangup_at = now + element.schedule * 1000
            return []
        # Spec: "First element without a reason: rejected"
        reason = element.reason or ("rejected" if self.no_element_started else None)
        if element.schedule:
            return self.hang_up("normal", HangupCode.SCHEDULED, now)
        if reason == "busy":
            return self.hang_up("busy", HangupCode.BUSY, now, "Answer XML")
        if reason:
            return self.hang_up("rejected", HangupCode.REJECTED, now, "Answer XML")
        return self.hang_up("normal", HangupCode.NORMAL, now, "Answer XML")

    def _answer(self, now: int) -> Outputs:
        if self.answered_at is not None:
            return []
        self.answered_at = now
        return [Answer(self.channel_id)]

    def _next_owner_id(self) -> str:
        self.serial += 1
        return ids.for_call(self.call_uuid, self.serial)

    def _forward_to_running(self, event: ev.Event, now: int) -> Outputs:
        """Forward the event to the running element; if the element has then ended, run the next one."""
        live, running = self.live, self.running
        of_live = live is not None and live.owns(_playback_id_of(event))
        out: Outputs = []
        if live is not None and (of_live or isinstance(event, ev.DeadlineReached)):
            out += self._on_live_event(event, now)
        if of_live or running is None or isinstance(running, Conference):
            return out
        if isinstance(event, ev.SoundFailed):
            out.append(self.problem(event.kind, event.reason))
        if isinstance(event, ev.EffectFailed) and isinstance(event.effect, PlayMedia):
            out += self._playback_problem(event)
            event = ev.PlaybackFinished(event.effect.playback_id, failed=True)
        if not isinstance(running, DigitSending):
            out += running.handle_event(event, now)
        if isinstance(running, RecordRun):
            return out + self._advance_record(running, now)
        return out + self._continue_if_finished(now)

    def _playback_problem(self, event: ev.EffectFailed) -> Outputs:
        return [] if event.target_gone else [self.problem(ProblemKind.ASTERISK_FAILED, event.reason)]

    def _continue_if_finished(self, now: int) -> Outputs:
        running = self.running
        if isinstance(running, DigitSending) and running.until <= now:
            self.running = None
            return self._run_elements(now)
        if isinstance(running, Player) and running.done:
            self.running = None
            return self._run_elements(now)
        if isinstance(running, Gather) and running.ended:
            self.running = None
            if self.state is CONFIRMING:
                return self._on_key_gathered(running, now)
            return self._on_digits_gathered(running, now)
        return []

    def _on_digits_gathered(self, gather: Gather, now: int) -> Outputs:
        element = gather.element
        # Spec: "Nothing entered: the next element, action not called."
        if gather.state is GatherState.NO_INPUT or element.action is None:
            return self._run_elements(now)
        params: Params = (("Digits", gather.digits),)
        if isinstance(element, GetInput):
            params = (("InputType", "dtmf"), *params, *NO_SPEECH)
        if element.redirect:
            return self._request_document("action", element.action, element.method, "Redirect", params, now)
        return [self.callback(element.action, element.method, "Redirect", params), *self._run_elements(now)]

    # Dial, and the calls that it places.

    def on_dial_named(self, uuids: tuple[str, ...]) -> Outputs:
        """Go on with the Dial element, whose calls have UUIDs now: ask whether they may be placed."""
        assert self.dial is not None
        self.dial.legs = uuids
        return [self._dial_admission(self.dial)]

    def _dial_admission(self, run: DialRun) -> AdmitDial:
        # Spec: "callerId (the caller's)". An account may be allowed to show its own number alone.
        return run.admission(self.auth_id, (self.from_, self.to))

    def _on_dial_admitted(self, run: DialRun, event: ev.DialAdmitted, now: int) -> Outputs:
        if run.is_admitted or self.running is not None:
            return []
        out: Outputs = [self.problem(ProblemKind.DIALING_REFUSED, f"Dial: {text}") for text in event.refusals]
        placed = tuple((leg, run.options_of(leg, self.call_uuid)) for leg in event.calls if leg.call_uuid in run.legs)
        run.wait_for_legs(tuple(leg for leg, _ in placed), now)
        if not placed:
            return out + self._finish_dial(run, now)
        room = self.running = run.room(self.call_uuid)
        self.change_state(IN_CONFERENCE)
        # The caller is in the conference before anybody is called into it.
        return [*out, *self._pause_live(now), JoinRequested(self.call_uuid, room), LegsPlaced(self.call_uuid, placed)]

    def on_leg_changed(self, leg: Call, change: LegChange, now: int) -> Outputs:
        """Take in what has become of a call that the Dial element has placed."""
        run = self.dial
        if run is None or leg.call_uuid not in run.legs:
            return []
        match change:
            case "ringing":
                run.rang = True
            case "answered":
                run.rang = True
                return self._dial_callback(run.element, "answer", leg, now)
            case "connected":
                run.note_connected(leg.call_uuid)
                told = self._dial_callback(run.element, "connected", leg, now)
                return told + self._begin_recording_on_answer(now)
            case "ended" | "transferred":
                run.note_ended(leg.call_uuid, leg.call_status, leg.hangup_cause)
                out = self._dial_callback(run.element, "hangup", leg, now) if change == "ended" else []
                return out + self._leave_dial_if_over(run)
        return []

    def leave_first_leg(self) -> Outputs:
        """Become independent of the call whose Dial element has placed this one: it is transferred by the API."""
        told = self._tell_first_leg("transferred")
        if self.outgoing is not None:
            self.outgoing.first_leg = ""
        return told

    def on_leg_lost(self, leg_uuid: str, now: int) -> Outputs:
        """Take in that the state of a call that the Dial element has placed does not exist any more."""
        if self.dial is None or leg_uuid not in self.dial.legs:
            return []
        self.dial.note_ended(leg_uuid, "failed", 0)
        return self._leave_dial_if_over(self.dial)

    def on_legs_missed(self, calls: Collection[str], now: int) -> Outputs:
        """Go on if no leg exists that could tell what has become of it, for whatever reason. `calls`: UUIDs of all."""
        run = self.dial
        if run is None:
            return []
        lost = [leg_uuid for leg_uuid in run.legs if leg_uuid not in calls]
        run.gives_up_at = now + GRACE_MS if len(lost) < len(run.legs) else None
        for leg_uuid in lost:
            run.note_ended(leg_uuid, "failed", 0)
        text = "Dial: what became of a call that it has placed was lost; the document continues without it"
        problems: Outputs = [self.problem(ProblemKind.CALL_NOT_DIALED, text)] if lost else []
        return problems + self._leave_dial_if_over(run)

    def _leave_dial_if_over(self, run: DialRun) -> Outputs:
        """Leave the conference in which nobody comes any more. A leg that was in it ends it by leaving."""
        return [] if run.legs else [DepartureRequested(self.call_uuid)]

    def on_dial_digits(self, leg: Call, digits: str, by: str, now: int) -> Outputs:
        """Tell that one of the two legs has pressed digits that were waited for. `by`: UUID of that leg."""
        params: Params = (("DialDigitsMatch", digits), ("DialDigitsPressedBy", by))
        return [] if self.dial is None else self._dial_callback(self.dial.element, "digits", leg, now, params)

    def release_leg(self, leg: Call, element: Dial, now: int) -> Outputs:
        """Hang up a call that the Dial element has placed, because this call does not need it any more."""
        if leg.outgoing is not None:
            leg.outgoing.first_leg = ""
        if leg.state in UNANSWERED:
            out = leg._cancel(HangupCode.CANCELED, CANCELED_CAUSE, "Caller", now)
        else:
            out = leg.hang_up("normal", HangupCode.NORMAL, now, "Caller")
        return out + self._dial_callback(element, "hangup", leg, now)

    def _dial_callback(self, element: Dial, action: str, leg: Call, now: int, digits: Params = ()) -> Outputs:
        if element.callback_url is None:
            return []
        params = callback_params(action, self.call_uuid, leg, now, digits)
        return [self.callback(element.callback_url, element.callback_method, EVENT_NAMES[action], params)]

    def _release_legs(self) -> Outputs:
        """Hang up what remains of the legs of the Dial element whose conference the call has left."""
        if self.dial is None or not self.dial.legs:
            return []
        may_have_left = self.is_ending or self.transfer is not None or self.dial.element.hangup_on_star
        self.dial.note_left(by_caller=may_have_left)
        return [self._legs_released(self.dial)]

    def _legs_released(self, run: DialRun) -> LegsReleased:
        return LegsReleased(self.call_uuid, run.legs, run.element)

    def _finish_dial(self, run: DialRun, now: int) -> Outputs:
        self.dial = None
        return self._end_element(run.element, run.action_params(self.call_uuid), now)

    def _begin_recording_on_answer(self, now: int) -> Outputs:
        recording, self.on_dial_answer = self.on_dial_answer, None
        if recording is None:
            return []
        started = call_recording.begin(self, recording, now)
        return [self._record_skipped()] if started is None else [*started]

    # Commands of the API.

    def transfer_to(self, url: str, method: str, now: int) -> Outputs:
        """Break off what runs, and continue with the document of the URL. A call in a conference must be taken out of
        it afterwards: the document is requested once the conference has released the call."""
        self.transfers += 1
        self.transfer = url, method
        stopped = self._stop_running(now)
        return stopped if self.in_conference else stopped + self._start_transfer(now)

    def _start_transfer(self, now: int) -> Outputs:
        assert self.transfer is not None
        (url, method), self.transfer, self.fallback_requested = self.transfer, None, False
        self.elements, self.position, self.pre_answer_end = (), 0, 0
        return self._request_document("transfer", url, method, "Transfer", (), now)

    def play(self, sound: QueuedSound, now: int) -> Outputs:
        """Play a sound of the API, after those that are queued already."""
        self.live = self.live or LiveMedia()
        self.live.playback.queue.append(sound)
        return self._play_live(now)

    def stop_playing(self, kind: type[Play] | type[Speak], now: int) -> Outputs:
        return [*self.live.playback.clear(kind), *self._play_live(now)] if self.live is not None else []

    def send_digits(self, text: str, now: int) -> Outputs:
        """Send digits and pauses, after those that are not sent yet."""
        self.live = self.live or LiveMedia()
        self.live.schedule(text, now)
        return self._send_due_digits(now)

    def take_queued_sounds(self) -> list[QueuedSound]:
        """Return the sounds that the API has queued, for the member that the call becomes."""
        if self.live is None:
            return []
        taken, self.live.playback.queue = self.live.playback.queue, []
        return taken

    def _run_dtmf_element(self, element: DTMF, now: int) -> Outputs:
        live = self.live = self.live or LiveMedia()
        waits = not element.async_ or not live.has_room_for(element.digits, now)
        out = self.send_digits(element.digits, now)
        if waits and live.digits_until > now:
            self.running = DigitSending(live.digits_until)
        return out

    @property
    def _is_held(self) -> bool:
        return self.live is not None and self.live.holds

    def _on_live_event(self, event: ev.Event, now: int) -> Outputs:
        assert self.live is not None
        out: Outputs = []
        if isinstance(event, ev.SoundFailed) and self.live.awaits(event.playback_id):
            out.append(self.problem(event.kind, event.reason))
        if isinstance(event, ev.EffectFailed) and isinstance(event.effect, PlayMedia):
            out += self._playback_problem(event)
            event = ev.PlaybackFinished(event.effect.playback_id, failed=True)
        if isinstance(event, ev.SoundPrepared) and self.live.awaits(event.playback_id):
            out += self._hold(now)
        out += self.live.playback.handle_event(event, now)
        out += self._play_live(now)
        return out + (self._send_due_digits(now) if isinstance(event, ev.DeadlineReached) else [])

    def _play_live(self, now: int) -> Outputs:
        """Start the next sound of the API; let the running element continue if there is none."""
        live = self.live
        if live is None or self.is_ending or self.in_conference:
            return []
        out: Outputs = [*live.playback.update(ids.for_call(self.call_uuid, LIVE), self.target, True, now)]
        return out if live.playback.queue else out + self._release(now)

    def _pause_live(self, now: int) -> Outputs:
        """Stop the sound of the API: the channel is about to be moved, and the conference plays the sound again."""
        if self.live is None:
            return []
        self.live.holds = False
        return [*self.live.playback.stop()]

    def _hold(self, now: int) -> Outputs:
        if self.live is None or self.live.holds:
            return []
        self.live.holds = True
        return [*self.running.hold(now)] if isinstance(self.running, Player | Gather) else []

    def _release(self, now: int) -> Outputs:
        if self.live is None or not self.live.holds:
            return []
        self.live.holds = False
        return [*self.running.release(now)] if isinstance(self.running, Player | Gather) else []

    def _send_due_digits(self, now: int) -> Outputs:
        out: Outputs = []
        for digits in self.live.take_due(now) if self.live is not None else ():
            if self.in_conference:
                out.append(DigitsDue(self.call_uuid, digits))
            else:
                out += interrupted(self._players(), SendDigits(self.channel_id, digits), now)
        return out

    def _players(self) -> list[Player]:
        """Return the players of the running element and of the API's sound."""
        of_api = self.live.playback.player if self.live is not None else None
        return [player for player in (self.player, of_api) if player is not None]

    # Record, and recordings of the call.

    def on_recording_named(self, recording_id: str, public_url: str, now: int) -> Outputs:
        """Go on with the Record element, whose recording has an id now."""
        run = self.running
        if not isinstance(run, RecordRun):
            return []
        element = run.element
        recording = call_recording.requested_by(self, element, recording_id, public_url, now)
        if not element.in_background:
            run.recording_id, run.pending = recording_id, recording
            return [*run.start(now), *self._advance_record(run, now)]
        self.running = None
        if element.start_on_dial_answer:
            self.on_dial_answer = recording
            params = recording.name_params | call_recording.BACKGROUND_PARAMS
            return self._request_record_action(element, params, now)
        started = call_recording.begin(self, recording, now)
        if started is None:
            return [self._record_skipped(), *self._run_elements(now)]
        params = recording.name_params | call_recording.BACKGROUND_PARAMS
        return [*started, *self._request_record_action(element, params, now)]

    def _record_skipped(self) -> ReportProblem:
        return self.problem(ProblemKind.RECORDING_FAILED, f"Record is skipped: {call_recording.TOO_MANY}")

    def _advance_record(self, run: RecordRun, now: int) -> Outputs:
        """Begin the element's recording after the beep, and end it when the caller has."""
        out: Outputs = []
        if (recording := run.take_pending()) is not None:
            started = call_recording.begin(self, recording, now)
            if started is None:
                self.running = None
                return [*run.stop(), self._record_skipped(), *self._run_elements(now)]
            out += started
        if run.state is RecordState.STOPPING and run.recording_id in self.recordings:
            out += self.recordings[run.recording_id].stop(now)
        return out

    def _on_record_ended(self, run: RecordRun, recording: CallRecording, now: int) -> Outputs:
        self.running = None
        out: Outputs = [*run.stop()]
        if recording.state is RecordingState.REFUSED:
            return out + self._run_elements(now)
        params = recording.file_params | {"Digits": run.digits}
        return out + self._request_record_action(run.element, params, now)

    def _request_record_action(self, element: Record, params: dict[str, str], now: int) -> Outputs:
        if element.action is None:
            return self._run_elements(now)
        if element.redirect:
            action, params_ = element.action, as_params(params)
            return self._request_document("action", action, element.method, "Redirect", params_, now)
        return [self._record_action(element.action, element, params), *self._run_elements(now)]

    def _record_action(self, action: str, element: Record, params: dict[str, str]) -> PostCallback:
        return self.callback(action, element.method, "Redirect", as_params(params))

    def _leave_record(self, run: RecordRun, now: int) -> Outputs:
        """Stop the element's recording because the call ends. The action is requested, and its reply is ignored."""
        recording = self.recordings.get(run.recording_id)
        if recording is None:
            return []
        out: Outputs = [*recording.stop(now)]
        if run.element.action is not None:
            params = recording.file_params | {"Digits": run.digits}
            out.append(self._record_action(run.element.action, run.element, params))
        return out

    # Hanging up.

    def hang_up_by_api(self, now: int) -> Outputs:
        if self.state in UNANSWERED:
            return self._cancel(HangupCode.CANCELED, CANCELED_CAUSE, "API Request", now)
        return self.hang_up("normal", HangupCode.NORMAL, now, "API Request")

    def hang_up(self, reason: HangupReason, code: HangupCode, now: int, source: HangupSource | None = None) -> Outputs:
        """Hang up. `source`: see `hangup_source`."""
        if self.is_ending:
            return []
        self.change_state(HANGING_UP)
        self.hangup_source = source
        return self._start_hangup(reason, code, now)

    def _start_hangup(self, reason: HangupReason, code: HangupCode, now: int) -> Outputs:
        self.hangup_code, self.hangup_cause = code.value, HANGUP_CAUSES[reason]
        self.hangup_retry_at, self.hangup_attempts, self.scheduled_hangup_at = now + retry_delay_ms(0), 1, None
        ends: Outputs = [HangUp(self.channel_id, reason), StopPreparing(self.call_uuid)]
        return self._stop_running(now) + ends + self._dial_music(None)

    def give_up(self, why: str, now: int) -> Outputs:
        """End the call in whatever state it is.

        The hangup URL gets its callback when the channel no longer exists.
        """
        self.elements, self.position, self.pre_answer_end, self.recent_switch_offs = (), 0, 0, ()
        self.running = self.conference_id = self.fetch_purpose = self.pending_fetch = self.scheduled_hangup_at = None
        self.live = self.transfer = self.on_dial_answer = None
        legs: Outputs = [] if self.dial is None else [self._legs_released(self.dial)]
        self.dial = None
        if not plausible(self.started_at, self.answered_at):
            self.started_at, self.answered_at, self.constant_params = now, None, None
        problem = self.problem(ProblemKind.CALL_ENDED_BY_ERROR, why)
        recordings: Outputs = [*self.step_reports]
        try:
            recordings += call_recording.end_all(self, now)
        except Exception:
            # They are damaged. The call is ended all the same; their files stay in Asterisk.
            self.recordings = {}
        self.step_reports = []
        return [*self._end_after_error(problem, now), *legs, *recordings]

    def _end_after_error(self, problem: ReportProblem, now: int) -> Outputs:
        if self.ended_at is not None:
            if self.state is not ENDED:
                self.change_state(ENDED)
            return [problem, *self._dial_music(None), *self._hangup_callback(now)]
        if self.state is not HANGING_UP:
            self.change_state(HANGING_UP)
        if self.hangup_retry_at is not None:
            return [problem, HangUp(self.channel_id)]
        return [problem, *self._start_hangup("normal", HangupCode.NORMAL, now)]

    def _stop_running(self, now: int) -> Outputs:
        """Stop the running element, except a conference, and what the API plays and sends."""
        running, out = self.running, Outputs(self.live.stop() if self.live is not None else ())
        if running is None:
            # While the policy is asked, nothing of a Dial is dialed.
            self.dial = None
        if isinstance(running, RecordRun):
            self.running = None
            return [*out, *running.stop(), *self._leave_record(running, now)]
        if isinstance(running, Player | Gather | DigitSending):
            self.running = None
            out += [] if isinstance(running, DigitSending) else running.stop()
        return out

    def _on_effect_failed(self, effect: HangUp | Answer, reason: str, gone: bool, now: int) -> Outputs:
        if gone:
            return self._on_hung_up(self.hangup_cause, now)
        # A failed HangUp is repeated at its deadline, so that the channel is not left behind in Asterisk.
        if self.is_ending:
            return []
        problem = self.problem(ProblemKind.ASTERISK_FAILED, reason)
        return [problem, *self.hang_up("normal", HangupCode.NORMAL, now, "Error")]

    def _retry_hangup(self, now: int) -> Outputs:
        """Repeat HangUp until Asterisk reports that the channel no longer exists: nothing else would ever end it."""
        self.hangup_retry_at = now + retry_delay_ms(self.hangup_attempts)
        self.hangup_attempts += 1
        out: Outputs = [HangUp(self.channel_id)]
        if self.hangup_attempts == HANGUP_ATTEMPTS_UNTIL_PROBLEM:
            text = "Asterisk does not hang up the call: the request is repeated until it does"
            out.insert(0, self.problem(ProblemKind.ASTERISK_FAILED, text))
        return out

    def _on_hung_up(self, cause: int, now: int, sip_status: int = 0) -> Outputs:
        if self.state is ENDED:
            return []
        out: Outputs = []
        if self.outgoing is not None and self.state in UNANSWERED:
            if sip_status in LOGIN_STATUSES:
                text = f"{self.outgoing.present.trunk}: the provider refuses the trunk's login ({sip_status})"
                out.append(self.problem(ProblemKind.CALL_NOT_DIALED, text))
            if self.outgoing.may_try_next(cause, sip_status):
                return out + self._request_next_channel(self.outgoing, same_way=False)
            self._refused(self.outgoing, cause, sip_status)
        by_server = self.state is HANGING_UP
        self.change_state(ENDED)
        self.ended_at = now
        self.scheduled_hangup_at = self.hangup_retry_at = self.fetch_purpose = None
        out += [] if by_server else [StopPreparing(self.call_uuid)]
        if not by_server and self.hangup_source is None:
            self.hangup_source = "Caller" if self.outgoing is None else "Callee"
        if not by_server and cause == CANCELED_CAUSE:
            # This includes an answer that was on its way: it came too late.
            self.hangup_code, self.answered_at = HangupCode.CANCELED.value, None
        elif not by_server and cause == NO_MEDIA_CAUSE:
            self.hangup_code, self.hangup_source = HangupCode.NO_MEDIA.value, "Plivo"
        # Asterisk often reports no cause (0): then that of the server's HangUp counts, or 16 if the caller hung up.
        if not by_server or (cause != CANCELED_CAUSE and self.outgoing is None):
            self.hangup_cause = cause or self.hangup_cause
        if isinstance(self.running, RecordRun):
            out += self._leave_record(self.running, now)
        self._stop_running(now)
        out += call_recording.end_all(self, now)
        if self.outgoing is not None:
            out += [self.dialing_record(), *self._dial_music(None), *self._tell_first_leg("ended")]
        return out if self.in_conference else out + self._hangup_callback(now)

    def _refused(self, outgoing: Outgoing, cause: int, sip_status: int) -> None:
        """Note why a call that was not answered has ended, and that the server did not end it."""
        self.hangup_code = refusal_code(cause, sip_status, rang=outgoing.rang_at is not None).value
        self.hangup_source, self.hangup_cause = source_of(self.hangup_code), cause

    def _hangup_callback(self, now: int) -> Outputs:
        """Return the callbacks about the end of the call, if it has ended."""
        account = self.account
        if self.ended_at is None or account is None:
            return []
        url, completed = account.hangup_url, self._status_callback("CallCompleted")
        return completed if url is None else [self.callback(url, account.hangup_method, "Hangup", ()), *completed]

    # Recovery.

    @property
    def player(self) -> Player | None:
        """Return the player of the running element."""
        running = self.running.player if isinstance(self.running, Gather | RecordRun) else self.running
        return running if isinstance(running, Player) else None

    @property
    def hears_talking(self) -> bool:
        """Return True if the running element waits for the end of what the caller says."""
        return self.player is not None and self.player.hears_talking

    def expectations(self) -> Iterator[Expectation]:
        """Yield what the call expects of Asterisk: see `expectations.py`."""
        channel_id = self.channel_id
        if self.state is QUEUED:
            return
        if self.awaits_channel:
            # It may be on its way.
            yield Expectation("channel", channel_id, channel_id, if_there=ev.ChannelCreated(channel_id))
            return
        yield Expectation("channel", channel_id, channel_id, if_gone=ev.ChannelHungUp(channel_id, 0))
        if self.state in UNANSWERED:
            yield Expectation("answered", channel_id, channel_id, if_there=ev.ChannelAnswered(channel_id))
            if self.state is DIALING:
                yield Expectation("ringing", channel_id, channel_id, if_there=ev.ChannelRinging(channel_id))
        for recording in self.recordings.values():
            yield from recording.expectations()
        for player in self._players():
            yield from player.expectations()

    def resume(self, there: AsteriskState) -> Outputs:
        """Return the effects in progress, which may have been lost with the previous process."""
        if self.is_ending:
            return [HangUp(self.channel_id)]
        out: Outputs = []
        if self.dial is not None and not self.dial.is_admitted:
            out.append(self._dial_admission(self.dial))
        if self.account is None:
            out.append(IdentifyCall(self.call_uuid, self.channel_id, self.auth_id))
        if self.outgoing is not None:
            out += self._resume_outgoing(self.outgoing, there)
        elif self.answered_at is not None and not there.channels[self.channel_id]:
            out.append(Answer(self.channel_id))
        if self.pending_fetch is not None:
            out.append(self.pending_fetch)
        for recording in self.recordings.values():
            out += recording.resume(there)
        for player in self._players():
            out += player.resume(there)
        return out

    def _resume_outgoing(self, outgoing: Outgoing, there: AsteriskState) -> Outputs:
        if self.state not in UNANSWERED:
            out: Outputs = [] if outgoing.codec_known else [ReadCodec(self.call_uuid, self.channel_id)]
            out += outgoing.machine.resume() if outgoing.machine is not None else []
            if self.state is CONFIRMING and self.running is None:
                out += self._fetch_confirm_sound(outgoing)
            return out
        if self.state is not DIALING:
            return []
        if not outgoing.created:
            request = outgoing.channel_request(self.call_uuid, self.from_, self.caller_name)
            return [] if self.channel_id in there.channels else [request]
        is_silent = not there.channels.get(self.channel_id, True) and self.channel_id not in there.ringing
        return [outgoing.dial_again(self.channel_id)] if is_silent else []

    # Problems, callbacks, and the parameters of requests.

    def problem(self, kind: ProblemKind, text: str, code: HangupCode | None = None) -> ReportProblem:
        return ReportProblem(self.auth_id, self.call_uuid, kind, None if code is None else code.value, text)

    def callback(self, url: str, method: str, event: str, params: Params) -> PostCallback:
        """Return a request with the standard parameters whose reply is ignored."""
        return PostCallback(self.call_uuid, self.auth_id, url, method, self.standard_params(event) + params)

    def standard_params(self, event: str) -> Params:
        """Return the standard parameters of a request about the call in its present state."""
        before, after = self.constant_params or self._cache_constant_params()
        params = (*before, ("CallStatus", self.call_status), *after, ("Event", event))
        if self.outgoing is not None and self.outgoing.is_machine:
            params += (("Machine", "true"),)
        if self.headers:
            params += tuple(self.headers.items())
        return params if self.ended_at is None else params + self._hangup_params(self.ended_at)

    def _cache_constant_params(self) -> tuple[Params, Params]:
        before = (
            ("CallUUID", self.call_uuid),
            # Spec: "A leading `+` is stripped from From and To."
            ("From", self.from_.removeprefix("+")),
            ("To", self.to.removeprefix("+")),
            ("Direction", self.direction),
        )
        seconds, ms = divmod(self.started_at, 1000)
        after: Params = (
            ("CallerName", self.caller_name),
            ("SessionStart", f"{format_second(seconds)}.{ms:03}000"),
            ("ParentAuthID", self.auth_id),
            ("RequestUUID", self.request_uuid),
        )
        if self.outgoing is not None:
            after = (*after, *self._first_leg_params, ("BillRate", NO_PRICE))
        self.constant_params = before, after
        return before, after

    @property
    def call_status(self) -> str:
        """Return CallStatus."""
        if self.ended_at is not None:
            is_over = self.outgoing is None or self.answered_at is not None
            return "completed" if is_over else status_of(self.hangup_code)
        return "ringing" if self.answered_at is None else "in-progress"

    @property
    def _first_leg_params(self) -> Params:
        return ("ALegUUID", self.call_uuid), ("ALegRequestUUID", self.request_uuid)

    def _hangup_params(self, ended_at: int) -> Params:
        answered_at = self.answered_at
        leg: Params = () if self.outgoing is not None else (*self._first_leg_params, ("BillRate", NO_PRICE))
        return (
            *leg,
            ("TotalCost", NO_PRICE),
            ("HangupCause", cause_name(self.hangup_cause)),
            ("HangupCauseCode", str(self.hangup_code)),
            ("HangupCauseName", code_name(self.hangup_code)),
            ("HangupSource", self.hangup_source or source_of(self.hangup_code)),
            ("Duration", str((ended_at - self.started_at) // 1000)),
            # Seconds since the answer, rounded up.
            ("BillDuration", str(0 if answered_at is None else -(-(ended_at - answered_at) // 1000))),
            ("StartTime", format_second(self.started_at // 1000)),
            ("EndTime", format_second(ended_at // 1000)),
            ("AnswerTime", "" if answered_at is None else format_second(answered_at // 1000)),
        )


def _playback_id_of(event: ev.Event) -> str:
    about = event.effect if isinstance(event, ev.EffectFailed) else event
    return getattr(about, "playback_id", "")


def _sounds_of(elements: tuple[Element | Prompt, ...]) -> list[Play | Speak]:
    found: list[Play | Speak] = []
    for element in elements:
        match element:
            case Play() | Speak():
                found.append(element)
            case GetInput(prompt):
                found += _sounds_of(prompt)
            case GetDigits(prompt):
                found += _sounds_of(prompt)
                if element.invalid_digits_sound is not None:
                    found.append(Play(element.invalid_digits_sound))
            case PreAnswer(children):
                found += _sounds_of(children)
    return list(dict.fromkeys(found))
