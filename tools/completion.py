"""Write the completion scripts of `ari-conf` for packages: ari-conf.bash, _ari-conf (zsh) and ari-conf.fish.

    python -m tools.completion FOLDER

They are what `ari-conf --show-completion` prints in each shell.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

FILES = {"bash": "ari-conf.bash", "zsh": "_ari-conf", "fish": "ari-conf.fish"}
INSTALLED = {
    "bash": "bash-completion/completions/ari-conf",
    "zsh": "zsh/site-functions/_ari-conf",
    "fish": "fish/vendor_completions.d/ari-conf.fish",
}
"""Shell -> path below PREFIX/share where the shell looks for it."""
CALL_AT_ONCE = """
# zsh loads this file from fpath at the first completion, and takes it for the function itself.
[[ $zsh_eval_context[-1] == loadautofunc ]] && _ari_conf_completion "$@"
"""


def script(shell: str) -> str:
    """Return the completion script of bash, zsh or fish."""
    # Typer prints it when this variable is set: https://click.palletsprojects.com/en/stable/shell-completion/
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARI_CONF_")}
    environment["_ARI_CONF_COMPLETE"] = f"source_{shell}"
    asked = subprocess.run(
        [sys.executable, "-m", "ari_conf"], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    # zsh reads `#compdef` in the first line only.
    return asked.stdout.strip() + "\n" + (CALL_AT_ONCE if shell == "zsh" else "")


def write(folder: Path, names: dict[str, str] = FILES) -> None:
    """Write the script of each shell to the path in the folder that `names` has for it."""
    for shell, name in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(script(shell))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.completion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
