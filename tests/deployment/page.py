"""The commands of docs/operations/deployment.md that lead from an empty Debian 12 to a conference, unchanged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/operations/deployment.md"
SECTION = "## From an empty Debian 12\n"


@dataclass(frozen=True)
class Step:
    title: str
    commands: str


def steps() -> list[Step]:
    """Return the steps of the section, each with all of its commands."""
    text = PAGE.read_text().partition(SECTION)[2]
    text = re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = []
    for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        commands = re.findall(r"^```bash\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
        found.append(Step(part.partition("\n")[0], "".join(commands)))
    return found


def with_values(step: Step, values: Mapping[str, str]) -> Step:
    """Return the step with these values of its variables. Raises KeyError unless they are for exactly its variables."""
    names = re.findall(r"^([A-Z_]+)=", step.commands, re.MULTILINE)
    if set(names) != set(values):
        raise KeyError(f"the page's variables are {', '.join(names)}")
    return Step(step.title, "".join(f"{name}='{values[name]}'\n" for name in names))
