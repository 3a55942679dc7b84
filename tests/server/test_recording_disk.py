"""Tests of the warning about too many files in Asterisk's recording folder."""

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.server import recording_disk
from tests import lateness


async def test_each_account_with_files_gets_one_problem_until_usage_falls(tmp_path: Path) -> None:
    def write(account: str, size: int) -> Path:
        path = tmp_path / account / "recording.wav"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size))
        return path

    reported: list[tuple[str, ...]] = []
    measured: list[int] = []

    def look(size: int) -> None:
        measured.append(size)

    async def looks(count: int) -> None:
        async with lateness.timeout():
            seen = len(measured)
            while len(measured) < seen + count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    first, second = write("A", 900_000), write("B", 50_000)
    watching = asyncio.create_task(
        recording_disk.monitor(tmp_path, 1, lambda *one: reported.append(one), look, every_s=0.01)
    )
    await looks(2)
    assert reported == [] and measured[-1] == 950_000
    second = write("B", 150_000)
    await looks(3)
    assert sorted(account for account, *_ in reported) == ["A", "B"]
    assert {kind for _, kind, _ in reported} == {ProblemKind.RECORDINGS_WAIT}
    assert "1 MB" in reported[0][2] and "recordings pending" in reported[0][2]
    second.unlink()
    await looks(2)
    write("B", 150_000)
    await looks(3)
    assert len(reported) == 4
    watching.cancel()
    assert first.exists()


async def test_an_unreadable_folder_is_logged_once_and_read_again(tmp_path: Path) -> None:
    """Asterisk's folder may belong to another user, or a disk may be missing: the watch must not end because of it."""
    folder, hidden = tmp_path / "recordings", tmp_path / "away"
    (folder / "A").mkdir(parents=True)
    (folder / "A" / "one.wav").write_bytes(bytes(1000))
    measured: list[int] = []
    looks = 0

    def used(where: Path) -> dict[str, int]:
        nonlocal looks
        looks += 1
        if hidden.exists():
            raise PermissionError(13, "Permission denied")
        return real(where)

    async def looked(count: int) -> None:
        until = looks + count
        async with lateness.timeout():
            while looks < until:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    real, recording_disk.usage_by_account = recording_disk.usage_by_account, used
    try:
        with capture_logs() as logged:
            watching = asyncio.create_task(
                recording_disk.monitor(folder, 1, lambda *_: None, measured.append, every_s=0.01)
            )
            await looked(2)
            for _ in range(2):
                hidden.touch()
                await looked(3)
                hidden.unlink()
                await looked(3)
            assert not watching.done() and measured[-1] == 1000
            watching.cancel()
    finally:
        recording_disk.usage_by_account = real
    said = [line for line in logged if line["event"] == "recording folder not read"]
    assert [line["reason"] for line in said] == ["Permission denied"] * 2
