"""Packaging that setup.cfg can't express: folders of the repository whose place in a wheel is another.

asterisk/, demo/ and documents/ are below ari_conf/bundled/ there, because a package must not take such general names
for itself. `ari_conf.common.installation` finds them in both places. share/ exists only while tools/dist.py builds: it
has the man pages and the completion of shells, and is installed as PREFIX/share.
"""

from pathlib import Path

from setuptools import find_packages, setup

BUNDLED = {f"ari_conf.bundled.{name}": name for name in ("asterisk", "demo", "documents")}

setup(
    packages=[
        *find_packages(include=["ari_conf", "ari_conf.*", "tasks", "tasks.*"]),
        *BUNDLED,
        *(f"ari_conf.bundled.{name}" for name in find_packages(include=["demo.*"])),
    ],
    package_dir=BUNDLED,
    data_files=[(str(path.parent), [str(path)]) for path in sorted(Path("share").rglob("*")) if path.is_file()],
)
