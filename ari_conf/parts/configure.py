"""asterisk/configure: writes Asterisk's configuration, or adds to the one that is there.

It runs where Asterisk is, perhaps without anything installed: standard library only.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ari_conf.parts.conf_merge import has_transport, merged
from ari_conf.parts.conf_settings import SETTINGS, Refused, Wanted, head_of, read_settings, template, templates
from ari_conf.parts.conf_text import without_passwords

USUAL_FOLDER = "/etc/asterisk"
TOUCHED = ("acl", "ccss", "features", "manager", "pjproject", "res_http_media_cache", "udptl", "websocket_client")
"""Asterisk takes its defaults where these are empty, and complains where they are missing."""

USAGE = """\
Writes Asterisk's configuration for ari_conf, or adds it to yours.

  asterisk/configure [--force] FOLDER [FILE ...]   a whole configuration, for an Asterisk that does nothing else
  asterisk/configure --merge FOLDER [FILE ...]     adds to the one that is in FOLDER, which stays as it is
  asterisk/configure --diff ... FOLDER [FILE ...]  with or without --merge: shows what would change, and writes nothing
  asterisk/configure --print FILE ...              a whole file to the screen

FOLDER is /etc/asterisk on most machines. A file that exists is never overwritten without --force: if one does, nothing
is written.

--merge writes FOLDER/ari_conf/FILE, and one line to FOLDER/FILE that includes it. It changes no setting that your files
have, except that ARI and Asterisk's HTTP server are enabled and their limits raised; it can be repeated. Deleting the
folder FOLDER/ari_conf takes all of it away. Then `asterisk -rx 'core reload'`. Without FILE:

  ari.conf          ARI's user
  http.conf         enabled, and what it lacks of the limits
  extensions.conf   the context [ari_conf], to which calls go
  pjsip.conf        the template (ari_conf_calls) for your endpoints; a provider or an account for phones, if set below
  logger.conf       security.log, unless you have one
  modules.conf      with autoload=no: what it doesn't load
  websocket_client.conf   with ARI_CONF_ARI_SOCKET=outbound

and if you name it: asterisk.conf, for maxcalls and what fast typing needs. docs/operations/sip.md has more.

From the environment; the first five and ARI_CONF_RTP_TIMEOUT are what `ari-conf serve` reads too, so that one file of
settings can serve both:

"""


def main(words: list[str]) -> int:
    try:
        return _run(words)
    except Refused as refused:
        print(f"asterisk/configure: {refused}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"asterisk/configure: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1


def _run(words: list[str]) -> int:
    options = set()
    while words and words[0].startswith("-"):
        if words[0] in ("--help", "-h"):
            print(usage(), end="")
            return 0
        if words[0] not in ("--force", "--print", "--merge", "--diff"):
            raise Refused(f"there is no option {words[0]}; see --help")
        options.add(words.pop(0))
    if "--print" in options:
        return _print(words)
    if not words:
        raise Refused("name the folder to write to, such as /etc/asterisk; see --help")
    folder, names = Path(words[0]).resolve(), words[1:]
    wanted = read_settings(os.environ)
    if "--merge" in options:
        if "--force" in options:
            raise Refused("--merge overwrites nothing of yours, so that there is nothing to --force")
        texts = merged(folder, names, wanted)
    else:
        texts = whole(folder, names, wanted, force=bool(options & {"--force", "--diff"}))
    if "--diff" in options:
        print(difference(texts), end="")
        return 0
    changed = write(texts, folder)
    if "--merge" not in options and wanted.given["RUN_FOLDER"]:
        _make_run_folder(Path(wanted.given["RUN_FOLDER"]), folder)
    for line in notes(wanted, folder, changed, merging="--merge" in options):
        print(f"asterisk/configure: {line}", file=sys.stderr)
    return 0


def usage() -> str:
    lines = []
    for name, (default, what) in SETTINGS.items():
        lines.append(f"  ARI_CONF_{name:<18} {default or '(none)':<16} {what}")
    return USAGE + "\n".join(lines) + "\n"


def _print(names: list[str]) -> int:
    if not names:
        raise Refused("name the files to print; see --help")
    wanted = read_settings(os.environ)
    wanted.values["ETC_FOLDER"] = USUAL_FOLDER
    for name in names:
        print(f"; {name} of Asterisk's folder, which is {USUAL_FOLDER} on most machines: the whole file.")
        print(template(name, wanted), end="")
    return 0


def whole(folder: Path, names: list[str], wanted: Wanted, *, force: bool) -> dict[Path, str]:
    wanted.values["ETC_FOLDER"] = str(folder)
    outbound = wanted.given["ARI_SOCKET"] == "outbound"
    names = names or [name for name in templates() if outbound or name != "websocket_client.conf"]
    texts = {}
    for name in names:
        texts[folder / name] = head_of(folder / name) + template(name, wanted)
        if not force and (folder / name).exists():
            raise Refused(
                f"{folder / name} exists, so nothing was written. Add to what is there with --merge, or overwrite it "
                "with --force"
            )
    return texts


def difference(texts: Mapping[Path, str]) -> str:
    parts = []
    for path, text in texts.items():
        there = path.read_text(errors="surrogateescape") if path.exists() else ""
        lines = difflib.unified_diff(
            without_passwords(there).splitlines(keepends=True),
            without_passwords(text).splitlines(keepends=True),
            str(path) if path.exists() else "/dev/null",
            str(path),
        )
        parts += [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
    return "".join(parts)


def write(texts: Mapping[Path, str], folder: Path) -> list[Path]:
    """Those that were changed. Some hold passwords: not for everybody."""
    os.umask(0o027)
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder.stat()
    changed = []
    for path, text in texts.items():
        real = path.resolve()
        there = real.read_text(errors="surrogateescape") if real.exists() else None
        if there == text:
            continue
        if real.parent != folder and not real.parent.exists():
            real.parent.mkdir()
            _give(real.parent, owner, 0o750)
        new = real.with_name(real.name + ".new")
        new.touch(0o640)
        # Asterisk usually runs under a user of its own, who owns the folder.
        before = real.stat() if there is not None else None
        _give(new, before or owner, before.st_mode & 0o777 if before else 0o640)
        new.write_text(text, errors="surrogateescape")
        new.replace(real)
        changed.append(path)
    return changed


def _give(path: Path, owner: os.stat_result, mode: int) -> None:
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)


def _make_run_folder(run: Path, folder: Path) -> None:
    # Without recording/ Asterisk answers 500 to a request to record, and doesn't say why.
    for name in ("run", "log", "spool/recording", "spool/tmp", "db"):
        (run / name).mkdir(parents=True, exist_ok=True)
    for name in TOUCHED:
        (folder / f"{name}.conf").touch()


def notes(wanted: Wanted, folder: Path, changed: list[Path], *, merging: bool) -> list[str]:
    said = []
    written = {path.name for path in changed}
    if merging:
        host = wanted.values["HTTP_HOST"].strip("[]")
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{wanted.values['HTTP_PORT']}{wanted.values.get('HTTP_PREFIX', '')}/ari"
        if not changed:
            said.append(f"{folder} has all of it already; nothing was written")
        elif "modules.conf" in written:
            said.append("now restart Asterisk: it loads modules that it didn't have")
        else:
            said.append("now let Asterisk read it: asterisk -rx 'core reload'")
        said.append(f"ari-conf serve reaches it with ARI_CONF_ARI_URL={url}")
        said.append("send calls there by Goto(ari_conf,${EXTEN},1), or give your endpoints (ari_conf_calls)")
        if not has_transport(folder):
            said.append(
                f"no call can come yet: {folder}/pjsip.conf has no transport. Add one, such as [udp] with "
                "type = transport, protocol = udp and bind = 0.0.0.0:5060, and restart Asterisk"
            )
        return said
    if changed and not wanted.given["RUN_FOLDER"]:
        said.append("now restart Asterisk")
    if "pjsip.conf" in written and not wanted.holds & {"trunk", "phone", "anonymous"}:
        said.append(
            "nobody may call yet: set ARI_CONF_TRUNK_MATCH or ARI_CONF_TRUNK_HOST for your provider, "
            "ARI_CONF_PHONE_USER for softphones, or ARI_CONF_ANONYMOUS=yes for everybody"
        )
    if "anonymous" in wanted.holds and "loopback" not in wanted.holds:
        said.append(
            f"anybody who reaches {wanted.given['SIP_BIND']} may call, and each call asks the answer URL: "
            "let a firewall choose who does"
        )
    return said
