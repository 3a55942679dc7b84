"""Accuracy of answering-machine detection: `python -m tests.machine_detection` prints a table of both sets of
recordings, of the server's own listener and of Asterisk's TALK_DETECT.
"""

from __future__ import annotations

import argparse
from statistics import median

import msgspec

from tests.machine_detection.judge import DEFAULTS, Judged, Source, confusion, judge, own_ear, talk_detect
from tests.machine_detection.recordings import TEST, TUNING

SETS = {"test": TEST, "tuning": TUNING}
SOURCES: dict[str, Source] = {"own": own_ear, "talk_detect": talk_detect}


def _print_each(judged: list[Judged]) -> None:
    for one in judged:
        mark = " " if one.is_right else "!"
        found = f"{one.verdict.value:9} {one.at_ms / 1000:5.2f} s  {one.reason.value}"
        print(f"{mark} {one.recording.answered_by:8}{one.recording.name:24}{found}")


def _print_table(title: str, judged: list[Judged]) -> None:
    counts = confusion(judged)
    right = sum(one.is_right for one in judged)
    print(f"\n{title}: {right} of {len(judged)} right ({100 * right / len(judged):.1f} %)\n")
    print("| answered by | human | undecided | machine | median time to the verdict |\n|---|---|---|---|---|")
    for was in ("human", "machine"):
        numbers = " | ".join(str(counts[was, verdict]) for verdict in ("human", "undecided", "machine"))
        times = [one.at_ms for one in judged if one.recording.answered_by == was]
        print(f"| {was} | {numbers} | {median(times) / 1000:.1f} s |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=SETS, help="only this set of recordings")
    parser.add_argument("--source", choices=SOURCES, help="only this source of events")
    parser.add_argument("--each", action="store_true", help="print each recording's verdict")
    parser.add_argument("--initial-greeting", type=int, default=DEFAULTS.initial_greeting_ms, help="ms")
    parser.add_argument("--maximum-words", type=int, default=DEFAULTS.maximum_words, help="sentences")
    parser.add_argument("--time", type=int, default=DEFAULTS.time_ms, help="ms")
    chosen = parser.parse_args()
    settings = msgspec.structs.replace(
        DEFAULTS,
        initial_greeting_ms=chosen.initial_greeting,
        maximum_words=chosen.maximum_words,
        time_ms=chosen.time,
    )
    for set_name, recordings in SETS.items():
        for source_name, source in SOURCES.items():
            if chosen.set in (None, set_name) and chosen.source in (None, source_name):
                judged = [judge(recording, source, settings) for recording in recordings]
                if chosen.each:
                    _print_each(judged)
                _print_table(f"{set_name} set, {source_name}", judged)


if __name__ == "__main__":
    main()
