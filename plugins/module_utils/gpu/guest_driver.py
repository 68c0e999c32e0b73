# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The guest's NVIDIA driver: what an installer file is, and what a licence token is. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass

FORMATS = ("run", "deb", "rpm")

_VERSION = re.compile(r"(?<![\d.])(\d{3}\.\d{2,3}(?:\.\d{2,3})?)(?![\d.]*\d)")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Installer:
    """What the name of an installer file says: its format, its driver version, and its package's name (deb, rpm)."""

    format: str
    version: str
    package: str


def installer_of(path: str) -> Installer:
    """Return what a file name or URL says, with empty strings for what it does not say."""
    name = path.split("?", 1)[0].rsplit("/", 1)[-1]
    suffix = name.rsplit(".", 1)[-1].lower()
    kind = suffix if suffix in FORMATS else ""
    stem = name[: -len(suffix) - 1] if kind else name
    found = _VERSION.search(stem.replace("_", "-"))
    package = ""
    if kind == "deb":
        package = stem.split("_", 1)[0]
    elif kind == "rpm":  # name-version-release.architecture
        package = stem.rsplit("-", 2)[0]
    return Installer(kind, found.group(1) if found else "", package)


def token_problem(text: str, now: float) -> str:
    """Return why a text is no client configuration token that is valid at `now` (seconds since 1970), or nothing.

    A token is a JSON Web Token: header, claims and signature in base64url, joined by full stops. The signature is the
    licence server's business. The answer never holds any of the text.
    """
    parts = text.strip().split(".")
    if len(parts) != 3:
        return f"it has {len(parts)} part{'' if len(parts) == 1 else 's'}, a token has three joined by full stops"
    claims: object = None
    for name, part in (("header", parts[0]), ("claims", parts[1])):
        claims = _decoded(part)
        if not isinstance(claims, dict):
            return f"its {name} is not base64url of JSON"
    if not _BASE64URL.fullmatch(parts[2]):
        return "its signature is missing or is not base64url: is the file truncated?"
    expires = claims.get("exp") if isinstance(claims, dict) else None
    if isinstance(expires, (int, float)) and expires < now:
        return "it has expired: make a new one on the licence server"
    return ""


def _decoded(part: str) -> object:
    if not _BASE64URL.fullmatch(part):
        return None
    try:
        value: object = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        return None
    return value
