"""Makes a release of the collection: refuses what is unfinished, tests everything, builds, and proves the tarball.

The tarball, its checksum and the changelog go to build/release/. The tree gets the version and the changelog, for the
operator to commit and tag; nothing is written to it before every test is green and the tarball has been proved.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

TOP = Path(__file__).resolve().parents[1]

GATES: tuple[tuple[str, ...], ...] = (
    ("make", "lint"),  # formatting, types, ansible-lint, ansible-test sanity
    ("make", "unit"),
    ("make", "integration"),
    ("make", "molecule"),
)
"""What must be green, in this order. There is no option to leave one out."""

PROOF = "gpuops.vsphere.gpu_doctor"
"""The playbook that is run from the installed tarball: it needs no vCenter and changes nothing."""

_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?")


class ReleaseError(Exception):
    """The release is refused or has failed; the text says why and what to do."""


def refusals(version: str, dirty: Sequence[str], fragments: Sequence[str], released: Sequence[str]) -> list[str]:
    """Return all that speaks against a release: of a tree, its changelog fragments and the versions released so far."""
    found = []
    if not _VERSION.fullmatch(version):
        found.append(f"{version!r} is no semantic version: write it like 1.2.3")
    elif version in released:
        found.append(f"{version} has been released: choose a later version")
    if dirty:
        found.append(
            f"the tree is dirty ({', '.join(dirty[:5])}{', …' if len(dirty) > 5 else ''}): commit or remove that"
        )
    if not fragments:
        found.append("there is no changelog fragment: say in changelogs/fragments/ what a user will notice")
    return found


def with_version(galaxy: str, version: str) -> str:
    """Return galaxy.yml's text with another version."""
    text, count = re.subn(r"(?m)^version: .*$", f"version: {version}", galaxy)
    if count != 1:
        raise ReleaseError("galaxy.yml has no line 'version: …': add one")
    return text


class Release:
    """One release of the tree at `top`; `gates` are the commands that must succeed."""

    def __init__(self, top: Path, version: str, gates: Sequence[Sequence[str]] = GATES) -> None:
        self.top = top
        self.version = version
        self.gates = gates
        self.output = top / "build" / "release"
        self.tarball = self.output / f"gpuops-vsphere-{version}.tar.gz"

    def check(self) -> None:
        """Raise ReleaseError, naming everything that speaks against the release."""
        dirty = self._git("status", "--porcelain").stdout.decode().splitlines()
        changelogs = self.top / "changelogs"
        fragments = [path.name for path in changelogs.glob("fragments/*.y*ml")]
        log = yaml.safe_load((changelogs / "changelog.yaml").read_text(encoding="utf-8"))
        found = refusals(self.version, [line[3:] for line in dirty], fragments, list(log.get("releases") or {}))
        if found:
            raise ReleaseError("; ".join(found))

    def test(self) -> None:
        """Run every gate; ReleaseError for the first that is red."""
        for gate in self.gates:
            print(f"==> {' '.join(gate)}", flush=True)
            code = subprocess.call(gate, cwd=self.top)
            if code:
                raise ReleaseError(f"`{' '.join(gate)}` failed (exit code {code}): nothing was built; mend that first")
        if self._git("status", "--porcelain").stdout:
            raise ReleaseError("the tests have left the tree dirty: see `git status`")

    def build(self, work: Path) -> Path:
        """Build in a copy of what is committed; return the copy, with version and changelog written."""
        copy = work / "tree"
        archive = self._git("archive", "--format=tar", "HEAD").stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as stream:
            stream.extractall(copy, filter="tar")
        galaxy = copy / "galaxy.yml"
        galaxy.write_text(with_version(galaxy.read_text(encoding="utf-8"), self.version), encoding="utf-8")
        self._run(
            ["antsibull-changelog", "release", "--version", self.version], copy, "the changelog cannot be written"
        )
        self.output.mkdir(parents=True, exist_ok=True)
        self._run(
            ["ansible-galaxy", "collection", "build", "--force", "--output-path", str(self.output)],
            copy,
            "the tarball cannot be built",
        )
        digest = hashlib.sha256(self.tarball.read_bytes()).hexdigest()
        self.tarball.with_suffix(".gz.sha256").write_text(f"{digest}  {self.tarball.name}\n", encoding="utf-8")
        shutil.copy2(copy / "CHANGELOG.rst", self.output / "CHANGELOG.rst")
        return copy

    def prove(self, work: Path, programs: Path) -> None:
        """Install the tarball where there is no other collection, and run a playbook of it with `programs`' Ansible."""
        collections, home = work / "collections", work / "home"
        home.mkdir()
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(home),
            "ANSIBLE_HOME": str(home / "ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "LC_ALL": "C.UTF-8",
        }
        self._run(
            [
                "ansible-galaxy",
                "collection",
                "install",
                "--offline",
                "--no-deps",
                "-p",
                str(collections),
                str(self.tarball),
            ],
            home,
            "the tarball cannot be installed",
            environment,
        )
        inventory = home / "hosts.yml"
        guest = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
        inventory.write_text(yaml.safe_dump({"gpu_guests": {"hosts": {"this-machine": guest}}}), encoding="utf-8")
        out = self._run(
            ["ansible-playbook", "-i", str(inventory), "-e", "gpu_doctor_fail=false", PROOF],
            home,
            f"the playbook {PROOF} of the tarball fails",
            environment,
        )
        if not re.search(r"(?m)^this-machine +(ok|FAIL|-)", out):
            raise ReleaseError(f"the playbook {PROOF} of the tarball ran but said nothing:\n{out}")

    def keep(self, copy: Path) -> None:
        """Bring version and changelog from the copy into the tree."""
        for name in ("galaxy.yml", "CHANGELOG.rst", "changelogs/changelog.yaml"):
            shutil.copyfile(copy / name, self.top / name)
        for fragment in (self.top / "changelogs" / "fragments").glob("*.y*ml"):
            if not (copy / "changelogs" / "fragments" / fragment.name).exists():
                fragment.unlink()

    def run(self, programs: Path | None = None) -> None:
        """Do all of it. `programs`: where the proof's Ansible is; None makes a fresh environment for it."""
        self.check()
        self.test()
        with tempfile.TemporaryDirectory(prefix="gpuops-release-") as directory:
            work = Path(directory)
            copy = self.build(work)
            if programs is None:
                environment = ".cache/release-environment"
                shutil.rmtree(self.top / environment, ignore_errors=True)
                self._run(["tools/venv", "controller", environment], self.top, "no fresh environment can be made")
                programs = self.top / environment / "bin"
            self.prove(work, programs)
            self.keep(copy)

    def _git(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["git", *words], cwd=self.top, capture_output=True, check=True)

    def _run(
        self, command: Sequence[str], directory: Path, failure: str, environment: dict[str, str] | None = None
    ) -> str:
        own = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        result = subprocess.run(
            command, cwd=directory, env=environment or own, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise ReleaseError(f"{failure}:\n{result.stdout}{result.stderr}")
        return result.stdout


def main() -> int:
    """Parse the command line and release; return the exit code."""
    parser = argparse.ArgumentParser(prog="tools/release", description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("version", metavar="VERSION", help="the version to release, such as 1.2.3")
    release = Release(TOP, parser.parse_args().version)
    try:
        release.run()
    except ReleaseError as error:
        print(f"tools/release: {error}", file=sys.stderr)
        return 1
    version = release.version
    print(
        f"==> {release.tarball.relative_to(TOP)} is built and proved. Now:\n"
        f"  git add -A && git commit -m 'Release {version}' && git tag -a {version} -m {version}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
