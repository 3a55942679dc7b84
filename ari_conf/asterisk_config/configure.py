"""asterisk/configure and `ari-conf asterisk configure`: write Asterisk's configuration, or add to an existing one.

It runs on the machine of Asterisk, which may have no packages installed: standard library only.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from ari_conf.asterisk_config.conf_text import without_passwords
from ari_conf.asterisk_config.merge import build_merged, has_transport
from ari_conf.asterisk_config.template_settings import (
    SETTINGS,
    Refused,
    Wanted,
    fill_named_template,
    header_of,
    list_templates,
    read_settings,
    read_sources,
)
from ari_conf.common.setting_sources import DEFAULT_CONFIG
from ari_conf.errors import SettingsError

SCRIPT = "asterisk/configure"
OPTIONS = ("--force", "--print", "--merge", "--diff")
USUAL_FOLDER = "/etc/asterisk"
EMPTY_FILES = ("acl", "ccss", "features", "manager", "pjproject", "res_http_media_cache", "udptl", "websocket_client")
"""Names of files that are created empty: Asterisk then uses defaults, and it complains if the files are missing."""

USAGE = """\
Write Asterisk's configuration for ari_conf, or add to an existing configuration.

  asterisk/configure [--force] FOLDER [FILE ...]   write a whole configuration, for an Asterisk that does nothing else
  asterisk/configure --merge FOLDER [FILE ...]     add to the configuration in FOLDER, which stays as it is
  asterisk/configure --diff ... FOLDER [FILE ...]  with or without --merge: show what would change, and write nothing
  asterisk/configure --print FILE ...              print whole files

FOLDER is /etc/asterisk on most machines. An existing file is never overwritten without --force: if any of the files
exists, nothing is written.

--merge writes FOLDER/ari_conf/FILE, and one line to FOLDER/FILE that includes it. It changes no setting of your files,
except that it enables ARI and Asterisk's HTTP server and raises their limits. It can be repeated. To remove all
additions, delete the folder FOLDER/ari_conf. Then run `asterisk -rx 'core reload'`. Without FILE, it adds to:

  ari.conf          ARI's user
  http.conf         enabled, and the limits that it lacks
  extensions.conf   the context [ari_conf], to which calls go
  pjsip.conf        the template (ari_conf_calls) for your endpoints; a provider or an account for phones, if set below
  logger.conf       security.log, unless your configuration has a security log
  modules.conf      with autoload=no: the modules that it does not load
  websocket_client.conf   with ARI_CONF_ARI_SOCKET=outbound

and only if you name it: asterisk.conf, for maxcalls and the setting that fast typing of digits needs. For more, see
docs/operations/sip.md.

Settings. Each is a variable, or a key without ARI_CONF_ in lower case of the TOML file that ARI_CONF_CONFIG names, by
default /etc/ari_conf/ari_conf.toml. A password can be in a file that ARI_CONF_..._PASSWORD_FILE names. `ari-conf serve`
reads the first five and ARI_CONF_RTP_TIMEOUT too, so both can use one file of settings:

"""


def main(words: list[str]) -> int:
    try:
        _run(words)
    except (Refused, SettingsError) as refused:
        print(f"{SCRIPT}: {refused}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{SCRIPT}: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _run(words: list[str]) -> None:
    options = set()
    while words and words[0].startswith("-"):
        if words[0] in ("--help", "-h"):
            print(usage(), end="")
            return
        if words[0] not in OPTIONS:
            raise Refused(f"option {words[0]} does not exist; see `--help`")
        options.add(words.pop(0))
    configure(options, words)


def configure(options: AbstractSet[str], words: Sequence[str], program: str = SCRIPT) -> None:
    """Do what USAGE says: `options` are of OPTIONS, `words` the folder and the files, or with `--print` only the files.

    Notes on standard error begin with `program`. Raises Refused, or OSError for a file that can't be read or written.
    """
    if "--print" in options:
        _print_files(words)
        return
    if not words:
        raise Refused("name the folder to write to, such as /etc/asterisk; see `--help`")
    folder, names = Path(words[0]).resolve(), list(words[1:])
    wanted = read_settings(read_sources(os.environ, DEFAULT_CONFIG))
    if "--merge" in options:
        if "--force" in options:
            raise Refused("`--force` is not allowed with `--merge`, which overwrites none of your files")
        texts = build_merged(folder, names, wanted)
    else:
        texts = build_whole(folder, names, wanted, force=bool(options & {"--force", "--diff"}))
    if "--diff" in options:
        print(format_difference(texts), end="")
        return
    changed = write(texts, folder)
    if "--merge" not in options and wanted.given["RUN_FOLDER"]:
        _make_run_folder(Path(wanted.given["RUN_FOLDER"]), folder)
    for line in list_notes(wanted, folder, changed, merging="--merge" in options):
        print(f"{program}: {line}", file=sys.stderr)


def usage() -> str:
    return USAGE + list_settings()


def list_settings() -> str:
    """Return a line for each setting: the variable, its default, and its meaning."""
    return "".join(
        f"  ARI_CONF_{name:<18} {default or '(none)':<16} {what}\n" for name, (default, what) in SETTINGS.items()
    )


def _print_files(names: Sequence[str]) -> None:
    if not names:
        raise Refused("name the files to print; see `--help`")
    wanted = read_settings(read_sources(os.environ, DEFAULT_CONFIG))
    wanted.values["ETC_FOLDER"] = USUAL_FOLDER
    for name in names:
        print(f"; {name} of Asterisk's folder, which is {USUAL_FOLDER} on most machines: the whole file.")
        print(fill_named_template(name, wanted), end="")


def build_whole(folder: Path, names: Sequence[str], wanted: Wanted, *, force: bool) -> dict[Path, str]:
    wanted.values["ETC_FOLDER"] = str(folder)
    outbound = wanted.given["ARI_SOCKET"] == "outbound"
    names = names or [name for name in list_templates() if outbound or name != "websocket_client.conf"]
    texts = {}
    for name in names:
        texts[folder / name] = header_of(folder / name) + fill_named_template(name, wanted)
        if not force and (folder / name).exists():
            raise Refused(
                f"{folder / name} exists, so nothing was written: add to the existing configuration with `--merge`, or "
                "overwrite it with `--force`"
            )
    return texts


def format_difference(texts: Mapping[Path, str]) -> str:
    parts = []
    for path, text in texts.items():
        old_text = path.read_text(errors="surrogateescape") if path.exists() else ""
        lines = difflib.unified_diff(
            without_passwords(old_text).splitlines(keepends=True),
            without_passwords(text).splitlines(keepends=True),
            str(path) if path.exists() else "/dev/null",
            str(path),
        )
        parts += [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
    return "".join(parts)


def write(texts: Mapping[Path, str], folder: Path) -> list[Path]:
    """Write the texts that differ, and return their paths. Other users can't read new files: some contain passwords."""
    os.umask(0o027)
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder.stat()
    changed = []
    for path, text in texts.items():
        target = path.resolve()
        old_text = target.read_text(errors="surrogateescape") if target.exists() else None
        if old_text == text:
            continue
        if target.parent != folder and not target.parent.exists():
            target.parent.mkdir()
            _set_owner_and_mode(target.parent, owner, 0o750)
        temporary = target.with_name(target.name + ".new")
        temporary.touch(0o640)
        # Asterisk usually runs as a user of its own, which owns the folder.
        old_stat = target.stat() if old_text is not None else None
        _set_owner_and_mode(temporary, old_stat or owner, old_stat.st_mode & 0o777 if old_stat else 0o640)
        temporary.write_text(text, errors="surrogateescape")
        temporary.replace(target)
        changed.append(path)
    return changed


def _set_owner_and_mode(path: Path, owner: os.stat_result, mode: int) -> None:
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)


def _make_run_folder(run: Path, folder: Path) -> None:
    # Without recording/, Asterisk responds 500 to a request to record, and gives no reason.
    for name in ("run", "log", "spool/recording", "spool/tmp", "db"):
        (run / name).mkdir(parents=True, exist_ok=True)
    for name in EMPTY_FILES:
        (folder / f"{name}.conf").touch()


def list_notes(wanted: Wanted, folder: Path, changed: list[Path], *, merging: bool) -> list[str]:
    lines = []
    written = {path.name for path in changed}
    if merging:
        host = wanted.values["HTTP_HOST"].strip("[]")
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{wanted.values['HTTP_PORT']}{wanted.values.get('HTTP_PREFIX', '')}/ari"
        if not changed:
            lines.append(f"{folder} has all additions already; nothing was written")
        elif "modules.conf" in written:
            lines.append("now restart Asterisk, so that it loads the added modules")
        else:
            lines.append("now run `asterisk -rx 'core reload'`, so that Asterisk reads the additions")
        lines.append(f"`ari-conf serve` reaches Asterisk with ARI_CONF_ARI_URL={url}")
        lines.append("send calls to ari_conf by Goto(ari_conf,${EXTEN},1), or use (ari_conf_calls) for your endpoints")
        if not has_transport(folder):
            lines.append(
                f"no call can arrive yet: {folder}/pjsip.conf has no transport; add a transport, such as [udp] with "
                "type = transport, protocol = udp and bind = 0.0.0.0:5060, and restart Asterisk"
            )
        return lines
    if changed and not wanted.given["RUN_FOLDER"]:
        lines.append("now restart Asterisk")
    if "pjsip.conf" in written and not wanted.conditions & {"trunk", "phone", "anonymous"}:
        lines.append(
            "no caller is allowed yet: set ARI_CONF_TRUNK_MATCH or ARI_CONF_TRUNK_HOST for your provider, "
            "ARI_CONF_PHONE_USER for softphones, or ARI_CONF_ANONYMOUS=yes for everyone"
        )
    if "anonymous" in wanted.conditions and "loopback" not in wanted.conditions:
        lines.append(
            f"anyone who reaches {wanted.given['SIP_BIND']} may call, and each call requests the answer URL: "
            "let a firewall restrict access"
        )
    return lines
