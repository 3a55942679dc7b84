"""Tests of `make sizing`. Its figures need an idle machine, so none of them is asserted; what follows from them is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.bench import sizing

ROOT = Path(__file__).parents[2]
FIGURES = {
    "members_held": 406.0,
    "members_tried": 406.0,
    "members_at_the_limit": 1.0,
    "members_per_core": 200.0,
    "members_per_core_of_asterisk": 220.0,
    "joins_per_s": 130.0,
    "call_cpu_ms": 40.0,
    "call_server_cpu_ms": 4.0,
    "call_s": 4.0,
    "callbacks_per_s": 1000.0,
    "redis_bytes_per_member": 4000.0,
    "redis_bytes_per_callback": 850.0,
    "recording_times_real_time": 900.0,
    "recording_worker_mb": 90.0,
    "mp3_bytes_per_hour": 14.4e6,
    "transcription_cores": 0.08,
}


def test_every_part_measures_and_the_table_has_all_figures(tmp_path: Path):
    figures, failed = sizing.run(list(sizing.PARTS), sizing.TINY, tmp_path)
    assert failed == {}
    assert set(figures) == set(FIGURES)
    assert all(figure >= 0 for figure in figures.values())
    # A WAV hour at 32 kbit/s.
    assert figures["mp3_bytes_per_hour"] == pytest.approx(14.4e6, rel=0.1)
    table = (tmp_path / "table.md").read_text()
    assert "| Joins per second" in table and "| Transcription, cores" in table
    assert json.loads((tmp_path / "results.json").read_text())["figures"] == pytest.approx(figures)


def test_a_part_that_fails_is_named_and_the_others_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(plan: sizing.Plan) -> sizing.Figures:
        raise RuntimeError("no S3 server is installed")

    monkeypatch.setattr(sizing, "PARTS", {"recordings": broken, "calls": lambda _: {"call_s": 1.0}})
    figures, failed = sizing.run(["recordings", "calls"], sizing.TINY, tmp_path)
    assert (figures, failed) == ({"call_s": 1.0}, {"recordings": "no S3 server is installed"})


def test_rows_of_what_was_not_measured_are_left_out():
    assert sizing.rows({}) == []
    assert len(sizing.rows(FIGURES)) == 13
    (_, members), *_ = sizing.rows(FIGURES | {"members_at_the_limit": 0.0})
    assert members == "406 or more"
    (_, members), *_ = sizing.rows(FIGURES | {"members_held": 0.0, "members_tried": 106.0})
    assert members == "fewer than 106"


def test_a_machine_is_planned_from_the_figures():
    # 490 members are 2.45 cores of audio. A tenth of them comes each second. A join is 40 ms less 4 s / 200, so 49 of
    # them are 0.98 cores.
    needed = dict(sizing.machine_for(FIGURES, 490, 1 / 6))
    assert needed["joins per second, on average"] == "49.0"
    assert needed["cores, at most 70 % busy"] == "5 (4.9)"
    assert needed["of these, the server (it uses one)"] == "0.20"
    assert needed["workers"] == "2"
    assert needed["Redis, MB for calls"] == "2"
    assert needed["UDP ports for audio"] == "1960"
    with pytest.raises(KeyError):
        sizing.machine_for({}, 500, 30)


def test_the_page_has_the_rows_of_the_table_and_the_formula():
    page = (ROOT / "docs/operations/capacity.md").read_text()
    for resource, _ in sizing.rows(FIGURES):
        assert f"| {resource} |" in page
    assert "0.7" in page and f"{sizing.MAX_BUSY:g}" == "0.7"


def test_an_unknown_part_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["sizing", "memberz"])
    with pytest.raises(SystemExit) as ended:
        sizing.main()
    assert ended.value.code == 2
    assert "memberz is not a part; expected members, joins" in capsys.readouterr().err
