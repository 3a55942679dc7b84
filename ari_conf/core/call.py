"""A call: who calls, and its document, run from top to bottom.

Here is its door and its document. It stands on `hanging_up`, and that on `call_state`: neither knows what is above it.
"""

from __future__ import annotations

import json

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.account import Account
from ari_conf.core.bounds import MOST_HEADER_BYTES
from ari_conf.core.call_state import Purpose
from ari_conf.core.callbacks import BUSY, END_OF_DOCUMENT, INVALID, NORMAL, REJECTED, SCHEDULED, UNREACHABLE, standard
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
from ari_conf.core.gather import Gather
from ari_conf.core.hanging_up import HangingUp
from ari_conf.core.internal import Join, Out, Released
from ari_conf.core.player import Player

MOST_HOPS, HOP_MS = 20, 1000
"""A call may ask for so many further documents at once, and for one in HOP_MS on average: a document that leads to
itself would be asked for as fast as its server answers, forever (decided)."""
ANONYMOUS = "anonymous", "Anonymous"
"""From and CallerName of callers who do not want to be known."""
ANSWERING = (Play, Speak, Wait, GetDigits)


class Call(HangingUp):
    __slots__ = ()

    # The door.

    @classmethod
    def arrived(cls, event: ev.CallArrived, now: int) -> tuple[Call, Out]:
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

    def receive(self, event: ev.Event, now: int) -> Out:
        if isinstance(event, ev.ChannelHungUp):
            return self._hung_up(event.cause, now)
        if isinstance(event, ev.TimePassed) and self.hanging_up_until is not None and self.hanging_up_until <= now:
            return self._hang_up_again(now)
        if isinstance(event, ev.EffectFailed) and isinstance(event.effect, HangUp | Answer):
            return self._not_obeyed(event.effect, event.reason, event.gone, now)
        return [] if self.over else self._goes_on(event, now)

    def _goes_on(self, event: ev.Event, now: int) -> Out:
        match event:
            case ev.DocumentFetched() | ev.DocumentFailed() if self._awaits(event.fetch_id):
                return self._document(event, now)
            case ev.CallIdentified(_, account, headers, wideband, withheld, warnings) if self.account is None:
                self.wideband = wideband
                if withheld:
                    self.from_, self.caller_name, self.standing = *ANONYMOUS, None
                return [*map(self.problem, warnings), *self._identified(account, dict(headers), now)]
            case ev.TimePassed() if self.hang_up_at is not None and self.hang_up_at <= now:
                return self.hang_up("normal", SCHEDULED, now)
            case ev.NothingSent() if self.answered_at is not None:
                self.silence = True
                return [SendSilence(self.channel_id, True)]
            case ev.EffectFailed(IdentifyCall(), reason) if self.account is None:
                self.account = Account(self.auth_id)
                code = UNREACHABLE["answer"]
                return [self.problem(f"the call can't be begun: {reason}", code), *self.hang_up("normal", code, now)]
        return self._run(event, now)

    def admitted(self, now: int) -> Out:
        # "Answer the call if it is not answered."
        return self._answer(now)

    def skipped(self, now: int) -> Out:
        # "The element and its action are skipped; the next element runs."
        self.running = self.conference_id = None
        return self._next(now)

    def released(self, released: Released, now: int) -> Out:
        """His stay in the conference has ended: its action, or the next element."""
        self.running = self.conference_id = None
        element, params = released.element, released.params
        if self.over or not element.redirect:
            # "also if he hung up (then the reply is ignored)"; "false: request it, ignore the reply"
            requested: Out = []
            if element.action is not None and params:
                requested = [self.post(element.action, element.method, "Redirect", params)]
            return requested + (self._finished(now) if self.over else self._next(now))
        if element.action is None:
            return self._next(now)
        return self._fetch("action", element.action, element.method, "Redirect", params, now)

    # The document.

    def _identified(self, account: Account | None, headers: dict[str, str], now: int) -> Out:
        return [*self._brings(headers), *self._is_of(account, now)]

    def _brings(self, headers: dict[str, str]) -> Out:
        """They stand in each request about the call, which could not be sent if its caller made them long enough."""
        size = left_out = 0
        for name, value in headers.items():
            size += len(json.dumps([name, value], ensure_ascii=False).encode(errors="replace"))
            if size > MOST_HEADER_BYTES:
                left_out += 1
            else:
                self.headers[name] = value
        if not left_out:
            return []
        text = f"{left_out} X-PH- headers of the call's INVITE are left out: all may take {MOST_HEADER_BYTES} bytes"
        return [self.problem(text)]

    def _is_of(self, account: Account | None, now: int) -> Out:
        if account is None:
            self.account = Account(self.auth_id)
            text = f"there is no account {self.auth_id!r}: add it with `ari-conf account add`, or correct the dialplan"
            if not self.auth_id:
                text = "the dialplan named no account: it enters the application by Stasis(ari_conf,ACCOUNT)"
            return [self.problem(text, UNREACHABLE["answer"]), *self.hang_up("rejected", UNREACHABLE["answer"], now)]
        self.account = account
        if self.document is not None:
            return self._first(self.document, self.document_method, now)
        if account.answer_url is not None:
            return self._first(account.answer_url, account.answer_method, now)
        text = f"the account {self.auth_id} has no answer URL, and the dialplan names no document"
        return self._no_document("answer", UNREACHABLE["answer"], text, now)

    def _first(self, source: str, method: str, now: int) -> Out:
        asked = self._fetch("answer", source, method, "StartApp", (), now)
        # A kept document is there at once; a server may take its time.
        rings = self.answered_at is None and "://" in source
        return [Ring(self.channel_id), *asked] if rings else asked

    def _fetch(self, purpose: Purpose, source: str, method: str, event: str, params: Params, now: int) -> Out:
        ahead = self.paced_until - now
        # A clock that was set may bring it anywhere.
        ahead = ahead if 0 <= ahead <= (MOST_HOPS + 1) * HOP_MS else 0
        if ahead > MOST_HOPS * HOP_MS:
            code = INVALID[purpose]
            text = (
                f"more than {MOST_HOPS} documents in a row led on to another within less than a second each: the call "
                "is ended, as it might never end by itself; a Wait in the document makes it last"
            )
            return [self.problem(text, code), *self.hang_up("normal", code, now)]
        self.paced_until = now + ahead + HOP_MS
        self.fetching = purpose
        self.serial += 1
        whole = standard(self, event) + params
        self.asked = FetchDocument(ids.for_call(self.call_uuid, self.serial), self.auth_id, source, method, whole)
        return [self.asked]

    def _awaits(self, fetch_id: str) -> bool:
        return self.fetching is not None and ids.last_part(fetch_id) == str(self.serial)

    def _document(self, event: ev.DocumentFetched | ev.DocumentFailed, now: int) -> Out:
        purpose, asked = self.fetching or "answer", self.asked
        self.fetching = self.asked = None
        if isinstance(event, ev.DocumentFailed):
            return self._no_document(purpose, (INVALID if event.invalid else UNREACHABLE)[purpose], event.reason, now)
        self.elements, self.position, self.early = event.elements, 0, 0
        # What the fallback itself leads to is not rescued by it: it would be asked for ever.
        was_fallback = asked is not None and self.account is not None and asked.source == self.account.fallback_url
        self.fallback_asked = self.fallback_asked and was_fallback
        out: Out = [self.problem(w) for w in event.warnings]
        if sounds := tuple(_sounds_of(event.elements)):
            # "Playing never waits for a cold cache if it can be warmed while the call sets up"
            out.append(WarmSounds(self.call_uuid, self.auth_id, sounds))
        return out + self._next(now)

    def _no_document(self, purpose: Purpose, code: int, reason: str, now: int) -> Out:
        # "the account's fallback URL is asked if it has one, else the call is hung up"
        out: Out = [self.problem(reason, code)]
        account = self.account
        if account is None or account.fallback_url is None or self.fallback_asked:
            return out + self.hang_up("normal", code, now)
        self.fallback_asked = True
        event = "Redirect" if purpose == "redirect" else "StartApp"
        return out + self._fetch(purpose, account.fallback_url, account.fallback_method, event, (), now)

    # The elements.

    def _next(self, now: int) -> Out:
        """Runs elements until one takes time."""
        out: Out = []
        while not self.over and self.running is None and self.fetching is None:
            if self.position >= len(self.elements):
                return out + self.hang_up("normal", END_OF_DOCUMENT, now)
            element = self.elements[self.position]
            self.position += 1
            out += self._begin(element, now)
            self.first = False
        return out

    def _begin(self, element: Element, now: int) -> Out:
        if isinstance(element, PreAnswer):
            rest = self.elements[self.position :]
            self.elements, self.position, self.early = (*element.children, *rest), 0, len(element.children)
            return []
        # "Play, Speak, Wait, GetDigits and Conference answer the call; Hangup, Redirect, PreAnswer and a first Wait
        # don't." A conference answers when it has admitted the call.
        early = self.position <= self.early
        answers = isinstance(element, ANSWERING) and not early
        out: Out = self._answer(now) if answers and not (self.first and isinstance(element, Wait)) else []
        match element:
            case Play() | Speak() | Wait():
                self.running = player = Player(self._owner(), self.target, (element,))
                return [*out, *player.start(now)]
            case GetDigits():
                self.running = gather = Gather(element, self._owner(), self.target)
                return [*out, *gather.start(now)]
            case Conference():
                self.running = element
                return [Join(self.call_uuid, element)]
            case Redirect(""):
                text = "Redirect: it names no absolute http or https URL"
                return [*out, *self._no_document("redirect", UNREACHABLE["redirect"], text, now)]
            case Redirect(url, method):
                return self._fetch("redirect", url, method, "Redirect", (), now)
            case Hangup():
                return self._hangup(element, now)

    def _hangup(self, element: Hangup, now: int) -> Out:
        if element.schedule and self.position < len(self.elements):
            # "hang up then, the following elements go on meanwhile; nothing follows: now"
            self.hang_up_at = now + element.schedule * 1000
            return []
        # "First element without a reason: rejected"
        reason = element.reason or ("rejected" if self.first else None)
        if element.schedule:
            return self.hang_up("normal", SCHEDULED, now)
        if reason == "busy":
            return self.hang_up("busy", BUSY, now)
        return self.hang_up("rejected", REJECTED, now) if reason else self.hang_up("normal", NORMAL, now)

    def _answer(self, now: int) -> Out:
        if self.answered_at is not None:
            return []
        self.answered_at = now
        return [Answer(self.channel_id)]

    def _owner(self) -> str:
        self.serial += 1
        return ids.for_call(self.call_uuid, self.serial)

    def _run(self, event: ev.Event, now: int) -> Out:
        """What is running hears the event; when it has ended, the next element runs."""
        running = self.running
        if running is None or isinstance(running, Conference):
            return []
        out: Out = []
        if isinstance(event, ev.SoundFailed):
            out.append(self.problem(event.reason))
        if isinstance(event, ev.EffectFailed) and isinstance(event.effect, PlayMedia):
            out += [] if event.gone else [self.problem(event.reason)]
            event = ev.PlaybackFinished(event.effect.playback_id, failed=True)
        out += running.receive(event, now)
        return out + self._step_ended(now)

    def _step_ended(self, now: int) -> Out:
        running = self.running
        if isinstance(running, Player) and running.done:
            self.running = None
            return self._next(now)
        if isinstance(running, Gather) and running.ended:
            self.running = None
            return self._gathered(running, now)
        return []

    def _gathered(self, gather: Gather, now: int) -> Out:
        element = gather.element
        # "Nothing entered: the next element, action not called."
        if gather.phase == "nothing" or element.action is None:
            return self._next(now)
        params = (("Digits", gather.digits),)
        if element.redirect:
            return self._fetch("action", element.action, element.method, "Redirect", params, now)
        return [self.post(element.action, element.method, "Redirect", params), *self._next(now)]


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
