"""Call: a caller's channel, and the document that the call runs from top to bottom.

This module holds the entry points and the document. It builds on `hangup`, and that on `state`; neither knows the
layers above it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.account import Account
from ari_conf.core.bounds import MOST_HEADER_BYTES
from ari_conf.core.calls.gather import Gather
from ari_conf.core.calls.hangup import HangupHandling
from ari_conf.core.calls.state import Purpose
from ari_conf.core.effects import (
    Answer,
    FetchDocument,
    HangUp,
    IdentifyCall,
    Params,
    PlayMedia,
    Ring,
    SendSilence,
    WarmSounds,
)
from ari_conf.core.elements import (
    Conference,
    Element,
    GetDigits,
    Hangup,
    Play,
    PreAnswer,
    Prompt,
    Redirect,
    Speak,
    Wait,
)
from ari_conf.core.expectations import AsteriskState, Expectation
from ari_conf.core.messages import JoinRequested, MemberReleased, Outputs
from ari_conf.core.playback.player import Player
from ari_conf.core.request_params import (
    BUSY,
    END_OF_DOCUMENT,
    INVALID_DOCUMENT_CODES,
    NORMAL,
    REJECTED,
    SCHEDULED,
    UNREACHABLE_CODES,
    standard_params,
)

MAX_RAPID_DOCUMENTS, RAPID_DOCUMENT_MS = 20, 1000
"""Number of further documents that a call may request immediately, and milliseconds per document on average (decided).
Otherwise a document that leads to itself would be requested as fast as its server responds, forever."""
ANONYMOUS = "anonymous", "Anonymous"
"""From and CallerName of callers who withhold their identity."""
ANSWERING_ELEMENTS = (Play, Speak, Wait, GetDigits)


class Call(HangupHandling):
    __slots__ = ()

    # Entry points.

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

    def handle_event(self, event: ev.Event, now: int) -> Outputs:
        if isinstance(event, ev.ChannelHungUp):
            return self._on_hung_up(event.cause, now)
        if isinstance(event, ev.DeadlineReached) and self.hanging_up_until is not None and self.hanging_up_until <= now:
            return self._retry_hangup(now)
        if isinstance(event, ev.EffectFailed) and isinstance(event.effect, HangUp | Answer):
            return self._on_effect_failed(event.effect, event.reason, event.target_gone, now)
        return [] if self.is_ending else self._handle_live_event(event, now)

    def _handle_live_event(self, event: ev.Event, now: int) -> Outputs:
        match event:
            case ev.DocumentFetched() | ev.DocumentFailed() if self._is_pending(event.fetch_id):
                return self._on_document(event, now)
            case ev.CallIdentified(_, account, headers, wideband, withheld, warnings) if self.account is None:
                self.wideband = wideband
                if withheld:
                    self.from_, self.caller_name, self.constant_params = *ANONYMOUS, None
                return [*map(self.problem, warnings), *self._on_identified(account, dict(headers), now)]
            case ev.DeadlineReached() if self.hang_up_at is not None and self.hang_up_at <= now:
                return self.hang_up("normal", SCHEDULED, now)
            case ev.NothingSent() if self.answered_at is not None:
                self.silence = True
                return [SendSilence(self.channel_id, True)]
            case ev.EffectFailed(IdentifyCall(), reason) if self.account is None:
                self.account = Account(self.auth_id)
                code = UNREACHABLE_CODES["answer"]
                text = f"the call could not be started: {reason}"
                return [self.problem(text, code), *self.hang_up("normal", code, now)]
        return self._forward_to_running(event, now)

    def on_admitted(self, now: int) -> Outputs:
        # Spec: "Answer the call if it is not answered."
        return self._answer(now)

    def on_join_skipped(self, now: int) -> Outputs:
        # Spec: "The element and its action are skipped; the next element runs."
        self.running = self.conference_id = None
        return self._run_elements(now)

    def on_member_released(self, released: MemberReleased, now: int) -> Outputs:
        """Continue after the conference: request the element's action, or run the next element."""
        self.running = self.conference_id = None
        element, params = released.element, released.params
        if self.is_ending or not element.redirect:
            # Spec: the action is also requested if the caller hung up or redirect is false; the reply is then ignored.
            requested: Outputs = []
            if element.action is not None and params:
                requested = [self.callback(element.action, element.method, "Redirect", params)]
            return requested + (self._hangup_callback(now) if self.is_ending else self._run_elements(now))
        if element.action is None:
            return self._run_elements(now)
        return self._request_document("action", element.action, element.method, "Redirect", params, now)

    # The document.

    def _on_identified(self, account: Account | None, headers: dict[str, str], now: int) -> Outputs:
        return [*self._brings(headers), *self._is_of(account, now)]

    def _brings(self, headers: dict[str, str]) -> Outputs:
        """Keep the X-PH- headers up to MOST_HEADER_BYTES. Every request about the call contains them, so a caller could
        otherwise make the requests too large to send."""
        size = left_out = 0
        for name, value in headers.items():
            size += len(json.dumps([name, value], ensure_ascii=False).encode(errors="replace"))
            if size > MOST_HEADER_BYTES:
                left_out += 1
            else:
                self.headers[name] = value
        if not left_out:
            return []
        text = f"{left_out} X-PH- headers of the call's INVITE were dropped: at most {MOST_HEADER_BYTES} bytes are kept"
        return [self.problem(text)]

    def _is_of(self, account: Account | None, now: int) -> Outputs:
        if account is None:
            self.account = Account(self.auth_id)
            missing = f"account {self.auth_id!r} does not exist"
            text = f"{missing}: create it with `ari-conf account add`, or correct the dialplan"
            if not self.auth_id:
                text = "the dialplan names no account: enter the Stasis application with `Stasis(ari_conf,ACCOUNT)`"
            return [
                self.problem(text, UNREACHABLE_CODES["answer"]),
                *self.hang_up("rejected", UNREACHABLE_CODES["answer"], now),
            ]
        self.account = account
        if self.document is not None:
            return self._first(self.document, self.document_method, now)
        if account.answer_url is not None:
            return self._first(account.answer_url, account.answer_method, now)
        text = (
            f"account {self.auth_id!r} has no answer URL, and the dialplan names no document: set the answer URL with "
            "`ari-conf account set`, or correct the dialplan"
        )
        return self._on_document_failed("answer", UNREACHABLE_CODES["answer"], text, now)

    def _first(self, source: str, method: str, now: int) -> Outputs:
        asked = self._request_document("answer", source, method, "StartApp", (), now)
        # A server may take time to respond, so the caller hears ringing; a local document is available immediately.
        rings = self.answered_at is None and "://" in source
        return [Ring(self.channel_id), *asked] if rings else asked

    def _request_document(
        self, purpose: Purpose, source: str, method: str, event: str, params: Params, now: int
    ) -> Outputs:
        ahead = self.paced_until - now
        # If the system clock was set, `paced_until` may be far from now.
        ahead = ahead if 0 <= ahead <= (MAX_RAPID_DOCUMENTS + 1) * RAPID_DOCUMENT_MS else 0
        if ahead > MAX_RAPID_DOCUMENTS * RAPID_DOCUMENT_MS:
            code = INVALID_DOCUMENT_CODES[purpose]
            text = (
                f"more than {MAX_RAPID_DOCUMENTS} documents in a row led to another document within less than a second "
                "each: the call was hung up to stop the loop; add a Wait to the document"
            )
            return [self.problem(text, code), *self.hang_up("normal", code, now)]
        self.paced_until = now + ahead + RAPID_DOCUMENT_MS
        self.fetching = purpose
        self.serial += 1
        whole = standard_params(self, event) + params
        self.asked = FetchDocument(ids.for_call(self.call_uuid, self.serial), self.auth_id, source, method, whole)
        return [self.asked]

    def _is_pending(self, fetch_id: str) -> bool:
        return self.fetching is not None and fetch_id == ids.for_call(self.call_uuid, self.serial)

    def _on_document(self, event: ev.DocumentFetched | ev.DocumentFailed, now: int) -> Outputs:
        purpose, asked = self.fetching or "answer", self.asked
        self.fetching = self.asked = None
        if isinstance(event, ev.DocumentFailed):
            return self._on_document_failed(
                purpose, (INVALID_DOCUMENT_CODES if event.invalid else UNREACHABLE_CODES)[purpose], event.reason, now
            )
        self.elements, self.position, self.early = event.elements, 0, 0
        # Don't use the fallback for what the fallback itself leads to: it would be requested forever.
        was_fallback = asked is not None and self.account is not None and asked.source == self.account.fallback_url
        self.fallback_asked = self.fallback_asked and was_fallback
        out: Outputs = [self.problem(w) for w in event.warnings]
        if sounds := tuple(_sounds_of(event.elements)):
            # Spec: "Playing never waits for a cold cache if it can be warmed while the call sets up"
            out.append(WarmSounds(self.call_uuid, self.auth_id, sounds))
        return out + self._run_elements(now)

    def _on_document_failed(self, purpose: Purpose, code: int, reason: str, now: int) -> Outputs:
        # Spec: "the account's fallback URL is asked if it has one, else the call is hung up"
        out: Outputs = [self.problem(reason, code)]
        account = self.account
        if account is None or account.fallback_url is None or self.fallback_asked:
            return out + self.hang_up("normal", code, now)
        self.fallback_asked = True
        event = "Redirect" if purpose == "redirect" else "StartApp"
        return out + self._request_document(purpose, account.fallback_url, account.fallback_method, event, (), now)

    # The elements.

    def _run_elements(self, now: int) -> Outputs:
        """Run elements until one takes time."""
        out: Outputs = []
        while not self.is_ending and self.running is None and self.fetching is None:
            if self.position >= len(self.elements):
                return out + self.hang_up("normal", END_OF_DOCUMENT, now)
            element = self.elements[self.position]
            self.position += 1
            out += self._start_element(element, now)
            self.first = False
        return out

    def _start_element(self, element: Element, now: int) -> Outputs:
        if isinstance(element, PreAnswer):
            rest = self.elements[self.position :]
            self.elements, self.position, self.early = (*element.children, *rest), 0, len(element.children)
            return []
        # Spec: "Play, Speak, Wait, GetDigits and Conference answer the call; Hangup, Redirect, PreAnswer and a first
        # Wait don't." A Conference element answers the call once the conference has admitted it.
        early = self.position <= self.early
        answers = isinstance(element, ANSWERING_ELEMENTS) and not early
        out: Outputs = self._answer(now) if answers and not (self.first and isinstance(element, Wait)) else []
        match element:
            case Play() | Speak() | Wait():
                self.running = player = Player(self._next_owner_id(), self.target, (element,), detects_audio=True)
                return [*out, *player.start(now)]
            case GetDigits():
                self.running = gather = Gather(element, self._next_owner_id(), self.target)
                return [*out, *gather.start(now)]
            case Conference():
                self.running = element
                return [JoinRequested(self.call_uuid, element)]
            case Redirect(""):
                text = "Redirect: its text must be an absolute http or https URL"
                return [*out, *self._on_document_failed("redirect", UNREACHABLE_CODES["redirect"], text, now)]
            case Redirect(url, method):
                return self._request_document("redirect", url, method, "Redirect", (), now)
            case Hangup():
                return self._run_hangup_element(element, now)

    def _run_hangup_element(self, element: Hangup, now: int) -> Outputs:
        if element.schedule and self.position < len(self.elements):
            # Spec: "hang up then, the following elements go on meanwhile; nothing follows: now"
            self.hang_up_at = now + element.schedule * 1000
            return []
        # Spec: "First element without a reason: rejected"
        reason = element.reason or ("rejected" if self.first else None)
        if element.schedule:
            return self.hang_up("normal", SCHEDULED, now)
        if reason == "busy":
            return self.hang_up("busy", BUSY, now)
        return self.hang_up("rejected", REJECTED, now) if reason else self.hang_up("normal", NORMAL, now)

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
        running = self.running
        if running is None or isinstance(running, Conference):
            return []
        out: Outputs = []
        if isinstance(event, ev.SoundFailed):
            out.append(self.problem(event.reason))
        if isinstance(event, ev.EffectFailed) and isinstance(event.effect, PlayMedia):
            out += [] if event.target_gone else [self.problem(event.reason)]
            event = ev.PlaybackFinished(event.effect.playback_id, failed=True)
        out += running.handle_event(event, now)
        return out + self._continue_if_finished(now)

    def _continue_if_finished(self, now: int) -> Outputs:
        running = self.running
        if isinstance(running, Player) and running.done:
            self.running = None
            return self._run_elements(now)
        if isinstance(running, Gather) and running.ended:
            self.running = None
            return self._on_digits_gathered(running, now)
        return []

    def _on_digits_gathered(self, gather: Gather, now: int) -> Outputs:
        element = gather.element
        # Spec: "Nothing entered: the next element, action not called."
        if gather.phase == "nothing" or element.action is None:
            return self._run_elements(now)
        params = (("Digits", gather.digits),)
        if element.redirect:
            return self._request_document("action", element.action, element.method, "Redirect", params, now)
        return [self.callback(element.action, element.method, "Redirect", params), *self._run_elements(now)]

    # Recovery.

    @property
    def player(self) -> Player | None:
        """Return the player of the running element."""
        running = self.running.player if isinstance(self.running, Gather) else self.running
        return running if isinstance(running, Player) else None

    def expectations(self) -> Iterator[Expectation]:
        """Yield what the call expects of Asterisk: see `expectations.py`."""
        yield Expectation("channel", self.channel_id, self.channel_id, if_gone=ev.ChannelHungUp(self.channel_id, 0))
        if self.player is not None:
            yield from self.player.expectations()

    def resume(self, there: AsteriskState) -> Outputs:
        """Return the effects in progress, which may have been lost with the previous process."""
        if self.is_ending:
            return [HangUp(self.channel_id)]
        out: Outputs = []
        if self.account is None:
            out.append(IdentifyCall(self.call_uuid, self.channel_id, self.auth_id))
        if self.answered_at is not None and not there.channels[self.channel_id]:
            out.append(Answer(self.channel_id))
        if self.asked is not None:
            out.append(self.asked)
        return out + (self.player.resume(there) if self.player is not None else [])


def _sounds_of(elements: tuple[Element | Prompt, ...]) -> list[Play | Speak]:
    found: list[Play | Speak] = []
    for element in elements:
        match element:
            case Play() | Speak():
                found.append(element)
            case GetDigits(prompt):
                found += _sounds_of(prompt)
                if element.invalid_digits_sound is not None:
                    found.append(Play(element.invalid_digits_sound))
            case PreAnswer(children):
                found += _sounds_of(children)
    return list(dict.fromkeys(found))
