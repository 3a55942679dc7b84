"""Files, targets, modules, commands, options and settings in the documentation exist; its examples are valid."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest
from typer.main import get_command

from ari_conf import settings_warnings
from ari_conf.cli.main import app
from ari_conf.common import setting_sources
from ari_conf.documents import parser
from ari_conf.recordings import sidecar
from tools.links import PROJECT
from tools.reference.cli import commands

FOLDERS = ("ari_conf", "tasks", "asterisk", "demo", "documents", "tests", "tools", "docs")
CODE = re.compile(r"^ *```.*?^ *```$|(`+)(?!`).+?\1", re.DOTALL | re.MULTILINE)
LISTED = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True)
FILES = {Path(name) for name in LISTED.stdout.splitlines()}
FILES |= {folder for name in FILES for folder in name.parents}
PAGES = sorted(str(name) for name in FILES if name.suffix == ".md" and "static" not in name.parts)
COMMANDS = dict(commands(get_command(app)))
OF_TESTS = {"ARI_CONF_ASTERISK", "ARI_CONF_DEBIAN_MIRROR", "ARI_CONF_SIMULATION"}
OF_ASTERISK = {"ARI_CONF_OWNER_APP", "ARI_CONF_HEARTBEAT_APP"}
"""Global variables in Asterisk."""


def code(page: str) -> Iterator[str]:
    """Yield the code of a page, without comments: its spans, and the lines of its blocks."""
    for match in CODE.finditer((PROJECT / page).read_text()):
        for line in match[0].strip("` ").replace("\\\n", " ").splitlines():
            yield re.split(r"(?:^|\s)#\s", line)[0].strip()


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    named = {
        found
        for text in code(page)
        for found in re.findall(rf"(?<![\w/.$@-])(?:{'|'.join(FOLDERS)})/(?!\d)[\w/.-]*\w(?![\w/]*[*{{<])", text)
    }
    named |= {text for text in code(page) if re.fullmatch(r"[\w/]+\.(?:py|js|lua)", text)}
    ends = {"/".join(name.parts[at:]) for name in FILES for at in range(len(name.parts))}
    assert not sorted(named - ends)


@pytest.mark.parametrize("page", PAGES)
def test_named_make_targets_and_modules_exist(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    for text in code(page):
        for target in re.findall(r"(?:^|[;&] |=\S+ )make ([a-z-]+)", text):
            assert target in targets, text
        for module in re.findall(r"python3? -m ((?:tests|tools|demo)[\w.]*)", text):
            path = Path(module.replace(".", "/"))
            assert path.with_suffix(".py") in FILES or path / "__main__.py" in FILES, text


@pytest.mark.parametrize("page", PAGES)
def test_named_commands_and_options_exist(page: str) -> None:
    for text in code(page):
        for line in re.findall(r"(?:^|/|\s)(ari-conf [^|)]*)", text):
            name, *words = line.split()
            while words and f"{name} {words[0]}" in COMMANDS:
                name += f" {words.pop(0)}"
            command = COMMANDS[name]
            if hasattr(command, "commands") and words:
                assert not re.fullmatch(r"[a-z][a-z-]*", words[0]), text
            if not command.context_settings.get("ignore_unknown_options"):
                known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
                assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, text


@pytest.mark.parametrize("page", PAGES)
def test_named_settings_exist(page: str) -> None:
    settings = {f"ARI_CONF_{name.upper()}" for name in settings_warnings.NAMES} | {setting_sources.CONFIG}
    settings |= {f"ARI_CONF_{name.upper()}_FILE" for name in settings_warnings.ALL_SECRETS}
    named = {found for text in code(page) for found in re.findall(r"\bARI_CONF_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_])", text)}
    assert not sorted(named - settings - OF_TESTS - OF_ASTERISK)


@pytest.mark.parametrize("page", PAGES)
def test_examples_are_valid(page: str) -> None:
    for language, block in re.findall(
        r"^ *```(\w+)\n(.*?)^ *```$", (PROJECT / page).read_text(), re.DOTALL | re.MULTILINE
    ):
        text = textwrap.dedent(block)
        if language == "xml":
            for document in re.findall(r"<Response>.*?</Response>", text, re.DOTALL) or [
                f"<Response>{text}</Response>"
            ]:
                assert parser.parse(document.encode()).warnings == ()
        elif language == "python":
            ast.parse(text)
        elif language == "json" and "…" not in text:
            json.loads(text)


def test_the_page_of_the_sidecar_names_the_fields_of_its_schema():
    def fields(schema: object) -> Iterator[str]:
        if isinstance(schema, dict):
            yield from schema.get("properties", {})
        for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
            yield from fields(part)

    known = set(fields(sidecar.schema()))
    page = (PROJECT / "docs/reference/recording-sidecar.md").read_text()
    described, example = page.split("## Example")
    assert known <= {word for span in re.findall(r"`([^`]+)`", described) for word in re.findall(r"\w+", span)}
    tables = re.findall(r"^\| Field \|.*\n\|[-|]+\n((?:\|.*\n)+)", described, re.MULTILINE)
    cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    assert {word for cell in cells for word in re.findall(r"\w+", cell)} <= known
    jsonschema_rs.validate(sidecar.schema(), json.loads(re.findall(r"```json\n(.*?)```", example, re.DOTALL)[0]))


def members(source: str) -> Iterator[str]:
    """Yield `Class.member` for the methods and attributes of each class."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for inner in ast.walk(node):
                match inner:
                    case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.Name(id=name):
                        yield f"{node.name}.{name}"
                    case ast.Attribute(value=ast.Name(id="self"), attr=name):
                        yield f"{node.name}.{name}"


def test_functions_and_methods_that_the_architecture_pages_name_exist():
    """Readers follow these pages function by function."""
    folders = ("ari_conf", "tasks", "tests", "asterisk")
    sources = [path for path in FILES if path.suffix in (".py", ".lua", ".js", ".conf") and path.parts[0] in folders]
    known = {word for path in sources for word in re.findall(r"\w+", (PROJECT / path).read_text())}
    for path in sources:
        if path.suffix == ".py" and path.parts[0] in ("ari_conf", "tasks"):
            known |= set(members((PROJECT / path).read_text()))
    named = {
        (page, found[1])
        for page in PAGES
        if page.startswith("docs/architecture/")
        for text in code(page)
        if (found := re.fullmatch(r"(_?[a-z]+(?:_[a-z]+)+|_[a-z]+|[A-Z][a-z]\w+\.\w+)(?:\(.*\))?", text))
    }
    assert len(named) > 100
    assert not sorted((page, name) for page, name in named if name not in known)
