"""What waits in Asterisk's recording folder is told once it is too much."""

import asyncio
from pathlib import Path

from ari_conf import disk
from tests import lateness


async def test_each_account_that_has_some_of_it_is_told_once_until_it_is_less_again(tmp_path: Path) -> None:
    def write(account: str, size: int) -> Path:
        path = tmp_path / account / "recording.wav"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size))
        return path

    told: list[tuple[str, str]] = []
    measured: list[int] = []

    def look(size: int) -> None:
        measured.append(size)

    async def looks(count: int) -> None:
        async with lateness.timeout():
            seen = len(measured)
            while len(measured) < seen + count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    first, second = write("A", 900_000), write("B", 50_000)
    watching = asyncio.create_task(disk.watch(tmp_path, 1, lambda *one: told.append(one), look, every_s=0.01))
    await looks(2)
    assert told == [] and measured[-1] == 950_000
    second = write("B", 150_000)
    await looks(3)
    assert sorted(account for account, _ in told) == ["A", "B"]
    assert "1 MB" in told[0][1] and "recordings pending" in told[0][1]
    second.unlink()
    await looks(2)
    write("B", 150_000)
    await looks(3)
    assert len(told) == 4
    watching.cancel()
    assert first.exists()
