"""The Debian packages that guests need on the host: which are missing, and installing them."""

from __future__ import annotations

import os
import shutil
from typing import Any

from .errors import HostError
from .run import run

PACKAGES = (
    "aardvark-dns",
    "crun",
    "debian-archive-keyring",
    "iptables",
    "mmdebstrap",
    "netavark",
    "nftables",
    "podman",
)


def missing(status: str) -> list[str]:
    """Return the packages that are not installed, from `dpkg-query`'s lines "NAME STATUS"."""
    installed = {line.split()[0] for line in status.splitlines() if line.endswith(" installed")}
    return [package for package in PACKAGES if package not in installed]


def setup(timeout_s: float = 600.0) -> dict[str, Any]:
    """Install what is missing when root; otherwise HostError names it in one line."""
    if shutil.which("dpkg-query") is None:
        raise HostError("this is not a Debian or Ubuntu host", f"install by hand: {' '.join(PACKAGES)}")
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *PACKAGES]
    lacking = missing(run(query, accept=(0, 1)))
    if lacking:
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *lacking]
        if os.geteuid() != 0:
            raise HostError(f"packages are missing: {' '.join(lacking)}", f"run as root: {' '.join(command)}")
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update"], environment=environment, timeout_s=timeout_s, name="apt-get update")
        run(command, environment=environment, timeout_s=timeout_s, name="apt-get install")
    return {"installed": lacking, "changed": bool(lacking)}
