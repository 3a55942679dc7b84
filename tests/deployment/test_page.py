"""The commands of the page are complete and fit the rest of the documentation; `make deployment-test` runs them."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.deployment.page import Step, steps, with_values

STEPS = steps()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_the_commands_of_a_step_are_shell(step: Step) -> None:
    assert step.commands, "a step without commands"
    done = subprocess.run(["bash", "-n"], input=step.commands, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_variable_is_set_before_it_is_used() -> None:
    known = {"MainPID"}
    for step in STEPS:
        # A quoted here-document is a file of its own.
        text = re.sub(r"<<'END'.*?^END$", "", step.commands, flags=re.MULTILINE | re.DOTALL)
        for line in text.splitlines():
            assert set(re.findall(r"\$\{?([A-Z_]+)", line)) <= known, line
            known |= set(re.findall(r"^([A-Z_]+)=", line))


def test_steps_are_numbered() -> None:
    assert [int(step.title.partition(".")[0]) for step in STEPS] == list(range(1, len(STEPS) + 1))


def test_only_the_second_step_needs_the_internet() -> None:
    for number, step in enumerate(STEPS, 1):
        needs = bool(re.search(r"^(apt-get|git clone|make|pip|\S+ asterisk/get) ", step.commands, re.MULTILINE))
        assert needs == (number == 2), step.title


def test_values_are_for_all_variables() -> None:
    first = STEPS[0]
    names = re.findall(r"^([A-Z_]+)=", first.commands, re.MULTILINE)
    assert with_values(first, dict.fromkeys(names, "x")).commands == "".join(f"{name}='x'\n" for name in names)
    with pytest.raises(KeyError, match="DOMAIN"):
        with_values(first, {})
