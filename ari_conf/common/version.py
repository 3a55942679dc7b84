"""Version of this installation, from its package metadata."""

from importlib.metadata import version

VERSION = version("ari_conf")
