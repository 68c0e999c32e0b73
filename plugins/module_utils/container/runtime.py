# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Apptainer or SingularityCE on this machine: what must hold before it builds, and its verbs with clear errors."""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import re
import shutil
import stat
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.container import subids
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOISE = re.compile(r"^(\+|INFO:|WARNING:)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Runner(t.Protocol):
    """The part of AnsibleModule that runs programs."""

    def run_command(
        self, args: list[str], *, environ_update: dict[str, str] | None = None, cwd: str | None = None
    ) -> tuple[int, str, str]:
        """Return code, standard output, standard error."""

    def get_bin_path(self, arg: str, required: bool = False) -> str | None:
        """Where a program is."""


def said(out: str, err: str, lines: int = 3) -> str:
    """What a failed command said at its end, without trace lines, notices and colours; one line."""
    text = [_COLOUR.sub("", line).strip() for line in [*out.splitlines(), *err.splitlines()]]
    telling = [line for line in text if line and not _NOISE.match(line)]
    return " / ".join((telling or [line for line in text if line] or ["it said nothing"])[-lines:])


def free_bytes(directory: pathlib.Path) -> int:
    """Space that is left to users in the file system of a directory or of the nearest one that exists."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def need_space(directory: pathlib.Path, needed: int, purpose: str) -> None:
    """Fail before anything is written where `needed` bytes are not free."""
    free = free_bytes(directory)
    if free < needed:
        raise ContainerError(
            "no_space",
            f"{directory} has {free / 2**20:.0f} MB free, {purpose} needs {needed / 2**20:.0f} MB: "
            "free some space or name another directory. Nothing has been changed.",
        )


class Runtime:
    """One of the two programs."""

    def __init__(self, runner: Runner, program: str) -> None:
        self._runner = runner
        self.program = program

    def need_program(self) -> None:
        """Fail where the runtime is not installed."""
        if self._runner.get_bin_path(self.program) is None:
            raise ContainerError(
                "no_runtime", f"{self.program} is not installed here; apply the role gpuops.vsphere.singularity first."
            )

    def need_fuse(self) -> None:
        """Fail where images cannot be mounted without privileges."""
        device = pathlib.Path("/dev/fuse")
        if not device.exists() or not stat.S_ISCHR(device.stat().st_mode):
            raise ContainerError(
                "no_fuse",
                "There is no /dev/fuse here, without which no image can be mounted: load the kernel module fuse "
                "(modprobe fuse), or give the device to this guest if it is a container.",
            )

    def need_ranges(self, user: str) -> None:
        """Fail where a user has no subordinate ids; the runtime's own fallback breaks half-way through a build."""
        account = self.account(user)
        owners = {user, str(account.pw_uid)}
        for name in ("/etc/subuid", "/etc/subgid"):
            path = pathlib.Path(name)
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            if not subids.usable(subids.parse(text, name), owners):
                raise ContainerError(
                    "no_subids",
                    f"{user} has no range of {subids.MINIMUM} ids in {name}, so it cannot build: apply the role "
                    f"gpuops.vsphere.singularity with {user} in singularity_users.",
                )

    @staticmethod
    def account(user: str) -> pwd.struct_passwd:
        """The user's entry; building as root is refused, as it would not be unprivileged."""
        try:
            account = pwd.getpwnam(user)
        except KeyError as error:
            raise ContainerError(
                "no_user", f"There is no user {user!r} here; apply the role gpuops.vsphere.singularity first."
            ) from error
        if account.pw_uid == 0:
            raise ContainerError("root", "Images are built by an ordinary user, not by root; name another user.")
        return account

    def build(self, user: str, definition: pathlib.Path, image: pathlib.Path, work: pathlib.Path) -> None:
        """Build as an ordinary user; scratch space and cache lie in `work`, which belongs to the user."""
        prefix = self.program.upper()
        code, out, err = self._as_user(
            user,
            [self.program, "build", "--fakeroot", str(image), str(definition)],
            {f"{prefix}_TMPDIR": str(work), f"{prefix}_CACHEDIR": str(work / "cache")},
            work,
        )
        if code:
            reason = said(out, err)
            section = re.search(r"%(\w+)", reason)
            where = f" in its %{section[1]}" if section else ""
            raise ContainerError("build_failed", f"{self.program} could not build the image{where}: {reason}")

    def sign(self, image: pathlib.Path, key: pathlib.Path) -> None:
        """Sign with a private key in PEM."""
        code, out, err = self._runner.run_command([self.program, "sign", "--key", str(key), str(image)])
        if code:
            raise ContainerError("sign_failed", f"{self.program} could not sign with {key}: {said(out, err)}")

    def verify(self, image: pathlib.Path, key: pathlib.Path) -> None:
        """Fail for an image that was not signed with the key's other half, or was changed since."""
        code, out, err = self._runner.run_command([self.program, "verify", "--key", str(key), str(image)])
        if code == 0:
            return
        reason = said(out, err)
        if "not found for object group" in reason:
            raise ContainerError(
                "unsigned", f"The image is not signed; sign it, or build it again with a key. ({reason})"
            )
        if "integrity compromised" in reason:
            raise ContainerError("tampered", f"The image was changed after it was signed; do not use it. ({reason})")
        raise ContainerError("bad_signature", f"The image is not signed with the trusted key {key}. ({reason})")

    def push(self, image: pathlib.Path, target: str, *, insecure: bool, authfile: str) -> None:
        """Push to a registry (oras://)."""
        options = [*(["--no-https"] if insecure else []), *(["--authfile", authfile] if authfile else [])]
        # An image with a signature that the keyring does not know needs --allow-unsigned; ours was verified before.
        code, out, err = self._runner.run_command(
            [self.program, "push", "--allow-unsigned", *options, str(image), target]
        )
        if code:
            raise ContainerError("push_failed", f"{self.program} could not push to {target}: {said(out, err)}")

    def pull(self, source: str, image: pathlib.Path, *, insecure: bool, authfile: str) -> None:
        """Pull from a registry (oras://)."""
        options = [*(["--no-https"] if insecure else []), *(["--authfile", authfile] if authfile else [])]
        code, out, err = self._runner.run_command(
            [self.program, "pull", "--disable-cache", "--allow-unsigned", *options, str(image), source]
        )
        if code:
            raise ContainerError("pull_failed", f"{self.program} could not pull {source}: {said(out, err)}")

    def _as_user(
        self, user: str, command: list[str], environment: dict[str, str], directory: pathlib.Path
    ) -> tuple[int, str, str]:
        account = self.account(user)
        variables = {"HOME": account.pw_dir, "PATH": _PATH, "USER": user, "LC_ALL": "C.UTF-8", **environment}
        words = [f"{name}={value}" for name, value in variables.items()]
        if os.geteuid() != 0:
            if os.geteuid() != account.pw_uid:
                raise ContainerError("not_root", f"Only root can build as {user}; use become.")
            return self._runner.run_command(["env", "-i", *words, *command], cwd=str(directory))
        return self._runner.run_command(
            ["runuser", "-u", user, "--", "env", "-i", *words, *command], cwd=str(directory)
        )


def give_to(path: pathlib.Path, user: str) -> None:
    """Make a path the user's own."""
    account = Runtime.account(user)
    os.chown(path, account.pw_uid, grp.getgrgid(account.pw_gid).gr_gid)
