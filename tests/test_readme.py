"""The README says what is. `python -m tests.test_readme` writes its table of settings anew."""

import re
import subprocess
from pathlib import Path

from ari_conf import document
from ari_conf.settings import table

PROJECT = Path(__file__).parents[1]
README = PROJECT / "README.md"
SECTIONS = ("Two commands", "The flow", "A document to try", "Behind your own dialplan", "Settings", "Where things are")
SETTINGS = re.compile(r"(?<=test_readme` -->\n).*(?=<!-- /settings -->)", re.DOTALL)


def written() -> str:
    lines = ["| variable | default | |", "|---|---|---|"]
    lines += [
        f"| `{variable}` | {f'`{default}`' if default else ''} | {meaning} |" for variable, default, meaning in table()
    ]
    return "\n".join(lines) + "\n"


def test_its_table_of_settings_is_that_of_the_settings():
    assert SETTINGS.search(README.read_text()).group() == written()


def test_each_setting_is_one_row_of_it():
    assert all(line.startswith("| ") and line.endswith(" |") for line in written().splitlines()[2:])


def test_its_sections_come_in_the_order_in_which_a_newcomer_needs_them():
    found = re.findall(r"^## (.*)$", README.read_text(), re.MULTILINE)
    assert [section for section in found if section in SECTIONS] == list(SECTIONS)


def test_what_it_names_is_there():
    names = re.findall(r"`((?:ari_conf|tasks|asterisk|demo|documents|tests)/[\w/.]*)[ `]", README.read_text())
    assert names and not [name for name in names if not (PROJECT / name).exists()]


def test_its_make_targets_are_there():
    said = subprocess.run(["make", "-C", PROJECT, "help"], capture_output=True, text=True, check=True).stdout
    assert {"demo", "up", "test"} <= set(re.findall(r"make (\w+)", said))


def test_its_documents_can_be_run():
    for example in re.findall(r"```xml\n(.*?)```", README.read_text(), re.DOTALL):
        assert document.parse(example.encode()).warnings == ()


def test_the_kept_documents_can_be_run():
    kept = sorted((PROJECT / "documents").glob("*.xml"))
    assert kept and [path.name for path in kept if document.parse(path.read_bytes()).warnings] == []


if __name__ == "__main__":
    README.write_text(SETTINGS.sub(lambda _: written(), README.read_text()))
