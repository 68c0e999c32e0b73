"""How podman is called on this host; the only place that knows of hosts podman does not fit as it is.

Ordinary hosts (cgroup v2, CAP_SYS_RESOURCE) need nothing. Two lacks are made up for here:

- A hybrid cgroup tree (v1 controllers, v2 for systemd only): podman and the guests' systemd want a
  pure v2 tree. All podman calls go through one persistent mount namespace in which /sys/fs/cgroup
  is cgroup2, and podman makes no cgroups: no limits, no `podman pause`.
- No CAP_SYS_RESOURCE: podman's default ulimits are above the hard limits and cannot be set. A
  containers.conf gives it the limits that the host has.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import ConflictError, HostError
from .identity import marked, wait_gone
from .locks import locked
from .run import run

RUN_DIR = Path("/run/gpuops-guest")
"""Everything volatile: locks, records, the mount namespace. Gone when the last guest is."""

_CAP_SYS_RESOURCE = 24
# The hard limits that podman gives itself when it starts, and so the most it can pass on.
_PODMAN_OPEN_FILES = 1048576
_PODMAN_PROCESSES = 32768
_NAMESPACE_DIR = RUN_DIR / "namespace"
_NAMESPACE = _NAMESPACE_DIR / "mnt"
_CONTAINERS_CONF = RUN_DIR / "containers.conf"
_USERS_LOCK = RUN_DIR / "users.lock"
_SETUP_LOCK = RUN_DIR / "setup.lock"
_LOCK_S = 60.0
_HELPERS_S = 5.0
_WHAT = "the host's guest set-up"


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo: mount point and file system type."""

    point: str
    kind: str


@dataclass(frozen=True)
class Host:
    """What the host offers: whether podman has cgroups, may raise limits, and the hard limits as they are."""

    cgroup2: bool
    sys_resource: bool
    open_files: int
    processes: int

    @property
    def ordinary(self) -> bool:
        """Whether podman is called with no help."""
        return self.cgroup2 and self.sys_resource

    def prefix(self) -> list[str]:
        """Return the words before `podman`."""
        return [] if self.cgroup2 else ["nsenter", f"--mount={_NAMESPACE}"]

    def environment(self) -> dict[str, str]:
        """Return the variables that podman needs."""
        return {} if self.ordinary else {"CONTAINERS_CONF": str(_CONTAINERS_CONF)}

    def containers_conf(self) -> str:
        """Return the containers.conf for a host that is not ordinary."""
        lines = ["[containers]"]
        if not self.sys_resource:
            limits = ", ".join(
                f'"{name}={min(soft, hard)}:{hard}"'
                for name, soft, hard in (("nofile", 1024, self.open_files), ("nproc", 32768, self.processes))
            )
            lines.append(f"default_ulimits = [{limits}]")
        if not self.cgroup2:
            lines += ['cgroups = "disabled"', "[engine]", 'runtime = "crun"', 'cgroup_manager = "cgroupfs"']
        return "\n".join([*lines, "[network]", 'network_backend = "netavark"', ""])


def parse_mounts(text: str) -> list[Mount]:
    """Parse /proc/self/mountinfo (see proc(5)); later lines cover earlier ones at the same point."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        mounts.append(Mount(before.split()[4], after.split()[0]))
    return mounts


def detect() -> Host:
    """Read what the host offers."""
    top = [mount.kind for mount in _mounts() if mount.point == "/sys/fs/cgroup"]
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return Host(
        cgroup2=bool(top) and top[-1] == "cgroup2",
        sys_resource=bool(effective >> _CAP_SYS_RESOURCE & 1),
        open_files=_hard_limit(resource.RLIMIT_NOFILE, _PODMAN_OPEN_FILES),
        processes=_hard_limit(resource.RLIMIT_NPROC, _PODMAN_PROCESSES),
    )


def can_have_guests() -> bool:
    """Return whether this host could hold any guest at all: false without podman."""
    return shutil.which("podman") is not None


@contextmanager
def in_use(has_guests: Callable[[Host], bool]) -> Iterator[Host]:
    """Hold the host ready for podman calls; when done and no guest is left, take the preparations back.

    `has_guests` is asked when no other process uses the host any more.
    """
    if os.geteuid() != 0:
        raise HostError("guests need root", "run this as root")
    if not can_have_guests():
        raise HostError("podman is not installed", "run 'tools/guest setup' as root")
    host = detect()
    prepared = False
    try:
        with locked(_USERS_LOCK, _WHAT, _LOCK_S, shared=True):
            with locked(_SETUP_LOCK, _WHAT, _LOCK_S):
                _prepare(host)
            prepared = True
            yield host
    finally:
        if prepared:
            _release(host, has_guests)


def _release(host: Host, has_guests: Callable[[Host], bool]) -> None:
    try:
        with locked(_USERS_LOCK, _WHAT, 0.0):
            if has_guests(host):
                return
            # Podman's helpers end a moment after the last guest, and hold the namespace until then; so
            # does what a killed user of the host has left running.
            if not host.cgroup2 and wait_gone(marked(), _HELPERS_S):
                return
            _take_back_namespace()
            _CONTAINERS_CONF.unlink(missing_ok=True)
    except ConflictError:  # others are using it: the last one takes it back
        return
    for directory in (RUN_DIR / "locks", RUN_DIR / "guests", RUN_DIR):
        try:
            directory.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # not empty: somebody has come in meanwhile
            return


def _prepare(host: Host) -> None:
    if host.ordinary:
        return
    text = host.containers_conf()
    if not _CONTAINERS_CONF.is_file() or _CONTAINERS_CONF.read_text(encoding="utf-8") != text:
        partial = _CONTAINERS_CONF.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(_CONTAINERS_CONF)
    if host.cgroup2 or Mount(str(_NAMESPACE), "nsfs") in _mounts():
        return
    _take_back_namespace()
    _NAMESPACE_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    _NAMESPACE.touch()
    # A mount namespace can be pinned only on a mount that is itself private.
    run(["mount", "--bind", str(_NAMESPACE_DIR), str(_NAMESPACE_DIR)])
    run(["mount", "--make-private", str(_NAMESPACE_DIR)])
    # Slave: volumes that the host mounts later are seen, nothing done inside reaches the host.
    change = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup"
    run(["unshare", f"--mount={_NAMESPACE}", "--propagation", "slave", "sh", "-c", change], name="unshare")


def _take_back_namespace() -> None:
    for mount in reversed(_mounts()):
        if mount.point in (str(_NAMESPACE), str(_NAMESPACE_DIR)):
            run(["umount", mount.point])
    _NAMESPACE.unlink(missing_ok=True)
    if _NAMESPACE_DIR.is_dir():
        _NAMESPACE_DIR.rmdir()


def _mounts() -> list[Mount]:
    return parse_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))


def _hard_limit(kind: int, podman: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return podman if hard == resource.RLIM_INFINITY else min(hard, podman)
