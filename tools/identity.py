"""Write where the project is published, and who maintains its packages, into the files that name it.

    python -m tools.identity

Both are in the section [identity] of setup.cfg. It prints each file that it changes.
"""

from __future__ import annotations

import argparse
import configparser
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[1]
UNPUBLISHED = "# repo_url: https://github.com/OWNER/ari_conf"
"""Line of mkdocs.yml as long as no browser can open the repository's address."""


class Identity(NamedTuple):
    repository: str
    """Address for `git clone`."""
    maintainer: str
    """`Name <address>`."""


def read(project: Path = PROJECT) -> Identity:
    """Return what setup.cfg says. Raises ValueError if a value is unusable."""
    config = configparser.ConfigParser()
    config.read(project / "setup.cfg")
    found = Identity(**config["identity"])
    if not re.fullmatch(r"[^\s'\"$`\\]+", found.repository):
        raise ValueError(f"setup.cfg: repository = {found.repository}: expected an address without spaces and quotes")
    if not re.fullmatch(r"[^<>\n]+ <[^<>@\s]+@[^<>@\s]+>", found.maintainer):
        raise ValueError(f"setup.cfg: maintainer = {found.maintainer}: expected NAME <ADDRESS>")
    return found


def places(identity: Identity) -> dict[str, tuple[str, str]]:
    """Return the lines that name it: path -> (pattern of the line, the line)."""
    is_page = identity.repository.startswith(("http://", "https://"))
    clone = (r"(?<=git clone )\S+(?= ari_conf$)", identity.repository)
    return {
        "docs/getting-started/quickstart.md": clone,
        "docs/getting-started/install.md": clone,
        "docs/operations/deployment.md": (r"^REPOSITORY=\S+", f"REPOSITORY={identity.repository}"),
        "debian/control": (r"^Maintainer: .*", f"Maintainer: {identity.maintainer}"),
        "mkdocs.yml": (r"^(# )?repo_url: .*", f"repo_url: {identity.repository}" if is_page else UNPUBLISHED),
    }


def changed(identity: Identity, project: Path = PROJECT) -> Iterator[tuple[Path, str]]:
    """Yield each file that names something else, with its new text."""
    for name, (pattern, line) in places(identity).items():
        text = (project / name).read_text()
        escaped = line.replace("\\", r"\\")
        new, count = re.subn(pattern, escaped, text, flags=re.MULTILINE)
        if not count:
            raise ValueError(f"{name} has no line like {pattern}")
        if new != text:
            yield project / name, new


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for path, text in list(changed(read())):
        path.write_text(text)
        print(path.relative_to(PROJECT))


if __name__ == "__main__":
    main()
