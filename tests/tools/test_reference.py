"""The generated pages of docs/reference/ say what the code says. `python -m tools.reference` writes them."""

from __future__ import annotations

import ast
import re

import pytest

from tools import reference
from tools.reference import cli, hangup_codes, log_events, metrics, problems, redis_keys, xml
from tools.reference.markdown import IncompleteTable, cell, code, linked


@pytest.mark.parametrize("name", reference.PAGES)
def test_page_is_current(name):
    assert reference.is_current(name), f"docs/reference/{name} is not current; run `python -m tools.reference`"


def test_it_names_the_pages_that_are_not_current(tmp_path):
    reference.write(folder=tmp_path)
    assert reference.outdated(tmp_path) == []
    (tmp_path / "cli.md").write_text("another text")
    (tmp_path / "xml.md").unlink()
    assert reference.outdated(tmp_path) == ["cli.md", "xml.md"]


@pytest.mark.parametrize("name", reference.PAGES)
def test_each_row_of_a_table_is_one_line_with_as_many_cells_as_the_first(name):
    widths = set()
    for line in reference.PAGES[name]().splitlines():
        if not line.startswith("|"):
            widths = set()
            continue
        widths.add(len(re.findall(r"(?<!\\)\|", line)))
        assert line.endswith(" |") and len(widths) == 1, line


@pytest.mark.parametrize(
    ("table", "entry", "page"),
    [
        (metrics.SERVER, "ari_conf_owner", metrics.page),
        (metrics.WEB, "ari_conf_workers", metrics.page),
        (hangup_codes.CODES, 4010, hangup_codes.page),
        (hangup_codes.CAUSES, 44, hangup_codes.page),
        (problems.REMEDIES, "document_loop", problems.page),
        (xml.MEANINGS["Play"], "loop", xml.page),
        (log_events.EVENTS, "redis recovered", log_events.page),
        (redis_keys.GROUPS, "Ownership", redis_keys.page),
        (cli.NO_HELP, "--hangup-url", cli.page),
    ],
)
def test_an_entry_without_a_text_is_an_error(monkeypatch, table, entry, page):
    monkeypatch.delitem(table, entry)
    with pytest.raises(IncompleteTable, match=r"no text for|no help"):
        page()


def test_a_text_without_an_entry_is_an_error(monkeypatch):
    monkeypatch.setitem(log_events.EVENTS, "an event that nothing logs", ("", ""))
    with pytest.raises(IncompleteTable, match="does not exist"):
        log_events.page()


def test_an_example_with_a_warning_is_an_error(monkeypatch):
    monkeypatch.setitem(xml.EXAMPLES, "Play", '<Play loop="x">https://example.com/a.mp3</Play>')
    with pytest.raises(IncompleteTable, match="has warnings"):
        xml.page()


def test_elements_stand_in_others_as_the_parser_has_it():
    found = {name: set(xml.children(name)) for name in xml.TYPES if xml.children(name)}
    prompt = {"Play", "Speak", "Wait"}
    early = {*prompt, "GetDigits", "GetInput", "DTMF", "Redirect"}
    assert found == {"GetDigits": prompt, "GetInput": prompt, "PreAnswer": early}
    assert set(xml.in_sound_documents()) == prompt


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        ('f"{PREFIX}new:{id}"', {"new:"}),
        ('PREFIX + "new"', {"new"}),
        ('f"{prefix(queue)}new:{id}"', {"*:new:"}),
        ('keys + "new"', {"*:new"}),
        ('f"{other}new:{id}"', set()),
    ],
)
def test_keys_are_found_where_the_code_makes_them(source, keys):
    assert {key for node in ast.walk(ast.parse(source)) for key in redis_keys._keys_of_node(node)} == keys


def test_keys_are_found_in_lua():
    script = """
redis.call('GET', queue..'new:'..partition)
redis.call('DEL', 'ari_conf:other', keys.list(queue, 'newer'))
"""
    assert set(redis_keys._of_script(script)) == {"*:new:", "*:newer", "other"}


@pytest.mark.parametrize(
    ("body", "events"),
    [
        ('log.info("a", x=1)', {("a", "info")}),
        ('log.exception("a")', {("a", "error")}),
        ('structlog.get_logger().critical("a")', {("a", "critical")}),
        ('log.log(10 if x else 30, "a")', {("a", "debug"), ("a", "warning")}),
        ('tell = log.debug if x else log.warning\n tell("a")', {("a", "debug"), ("a", "warning")}),
        ('text = "a"\n log.error(text)', {("a", "error")}),
        ("log.error(event)", {("from a caller", "error")}),
        ("log.error(self.text)", {("(self.text)", "error")}),
        ('Tasks("a")', {("a", "error")}),
        ('client.info("server")', set()),
    ],
)
def test_events_are_found_in_all_the_ways_in_which_they_are_logged(body, events):
    module = ast.parse(f'def tell(self, event):\n {body}\ndef other(self):\n self.tell("from a caller")')
    assert set(log_events._logged_events(module.body[0], module)) == events


def test_text_for_a_cell():
    assert cell("a | b\nc") == r"a \| b c"
    assert code("a`b") == "`` a`b ``"
    assert code("A|B") == "<code>A&#124;B</code>"
    assert linked("see docs/operations/redis.md.") == "see [operations/redis.md](../operations/redis.md)."
