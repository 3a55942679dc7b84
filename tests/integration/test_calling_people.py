"""The application of docs/getting-started/calling-people.md: three phones, one of them a machine."""

# ruff: noqa: F811 -- fixtures of another module

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from demo import audio_analysis
from tests.integration.stage import Stage
from tests.integration.test_calling_out import Caller, calling, system  # noqa: F401
from tests.integration.test_calling_sdk import api  # noqa: F401
from tests.integration.test_machine_detection import PERSON, RECORDINGS, Answering

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = Path(__file__).parents[2] / "docs/getting-started/calling-people.md"


def program() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def test_two_people_are_in_the_conference_and_the_machine_gets_the_message(
    calling: Stage, api: object, tmp_path: Path
) -> None:
    (tmp_path / "invite.py").write_text(program())
    settings = {"URL": f"http://127.0.0.1:{free_port()}", "ARI_CONF_PUBLIC_URL": calling.system.settings.public_url}
    environment = os.environ | settings | {"AUTH_ID": calling.account, "AUTH_TOKEN": calling.token}
    async with AsyncExitStack() as stack:
        ann, bob, cid = phones = [await stack.enter_async_context(Answering()) for _ in range(3)]
        Caller(calling, None).allow(*[phone.host for phone in phones])  # type: ignore[arg-type]
        command = (sys.executable, str(tmp_path / "invite.py"), *[phone.uri for phone in phones])
        running = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        lines = list[str]()

        async def read() -> None:
            assert running.stdout is not None
            async for line in running.stdout:
                lines.append(line.decode().strip())

        reading = asyncio.create_task(read())
        try:
            for phone in phones:
                await phone.invited()
                phone.answer_with((RECORDINGS["real on the phone"] if phone is cid else PERSON).samples())
            both = {f"enter {phone.uri}" for phone in (ann, bob)}
            await calling.until(lambda: both <= set(lines), description=f"two are not in the conference: {lines}")
            # The two hear each other, and the machine, which is in no conference, neither of them.
            ann.tone(2575)
            bob.tone(2875)
            await calling.until(lambda: ann.hears(2875) and bob.hears(2575), description="they do not hear each other")
            await cid.hung_up()
            spoken = cid.heard()
            assert not audio_analysis.silent(spoken) and not audio_analysis.intervals_of(spoken, 2575)
            await calling.until(lambda: any(line.startswith(f"Hangup {cid.uri}") for line in lines))
            ann.hang_up()
            bob.hang_up()
            await calling.until(lambda: sum(line.startswith("Hangup") for line in lines) == 3)
        finally:
            running.kill()
            await running.wait()
            await reading
    assert lines[0] == "calls fired" and f"Hangup {cid.uri} End Of XML Instructions" in lines
