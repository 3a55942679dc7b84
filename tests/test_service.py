"""A step that breaks, which is a defect of ours, ends the call that it was for, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.call import Call
from ari_conf.service import Service
from ari_conf.settings import from_environment
from ari_conf.store import Step


async def test_a_step_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(from_environment({"ARI_CONF_REDIS_URL": "redis://127.0.0.1:1/0"}))
    put: list[tuple[Step, Sequence[do.Effect]]] = []
    monkeypatch.setattr(service._writer, "put", lambda step, effects, *more: put.append((step, effects)))
    for name in ("ann", "bob"):
        service._deliver(ev.CallArrived(name, f"call-{name}", "r", "A", "1", "2"))
    put.clear()

    def breaks(*_: object) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch, capture_logs() as logged:
        patch.setattr("ari_conf.core.call.Call._run", breaks)
        service._deliver(ev.DigitReceived("ann", "1"))
    assert any("defect of ari_conf" in line["event"] for line in logged)
    ((step, effects),) = put
    assert list(effects) == [do.HangUp("ann")]
    ended = step.state["call-ann"]
    assert isinstance(ended, Call) and ended.over, "until Asterisk says that it is gone"
    assert "call-bob" not in step.state
    assert [problem.call_uuid for problem in step.problems] == ["call-ann"]
    service._deliver(ev.DigitReceived("bob", "1"))
    service._deliver(ev.ChannelHungUp("ann", 16))
    assert set(service._directory.calls) == {"call-bob"}
