# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a guest tells about its GPUs: records, and readers of what its programs print. Pure."""

from __future__ import annotations

import dataclasses
import re
import typing as t
from dataclasses import dataclass

NVIDIA = "10de"
LICENSED = "Licensed"

_FIELD = re.compile(r"^(?P<indent>\s*)(?P<key>[^:]+?)\s*:\s*(?P<value>.*?)\s*$")
_GPU = re.compile(r"^GPU (?P<address>[0-9A-Fa-f]{8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f])\s*$")
_DKMS = re.compile(r"^nvidia[a-z0-9-]*(?:/|, )(?P<version>[\d.]+)")
_MEMORY_BAR = 0x200


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi sees it. `licence` is its licence's state, empty where it needs none."""

    address: str
    name: str
    uuid: str
    persistence: bool
    licence: str

    @property
    def licensed(self) -> bool:
        """Whether it holds a licence."""
        return self.licence.split(" ", 1)[0] == LICENSED


@dataclass(frozen=True)
class PciGpu:
    """An NVIDIA display device on the guest's PCI bus, with the memory BARs that have got no address."""

    address: str
    id: str
    unassigned: tuple[int, ...]


@dataclass(frozen=True)
class Gridd:
    """The licence daemon. `stale`: it runs since before its settings or tokens were changed."""

    present: bool
    active: bool
    stale: bool
    feature_type: int
    log: tuple[str, ...]


@dataclass(frozen=True)
class Clock:
    """`synchronized` is None where nothing tells; `offset_s` is guest minus controller, None where not asked."""

    synchronized: bool | None
    source: str
    offset_s: float | None


@dataclass(frozen=True)
class ContainerView:
    """What a container of the guest sees."""

    image: str
    gpus: int
    error: str


@dataclass(frozen=True)
class GuestFacts:
    """All that is read of a guest; versions are empty where there is no driver, `smi_error` where it answers."""

    kernel: str
    installed: str
    loaded: str
    smi_error: str
    nouveau_loaded: bool
    nouveau_blocked: bool
    gpus: tuple[Gpu, ...]
    pci: tuple[PciGpu, ...]
    gridd: Gridd
    clock: Clock
    container: ContainerView | None = None

    def to_dict(self) -> dict[str, t.Any]:
        """Return the JSON form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: t.Mapping[str, t.Any]) -> GuestFacts:
        """Read the JSON form; TypeError or KeyError where it is not one."""
        flat = dict(value)
        container = flat.get("container")
        return cls(
            **{
                **flat,
                "gpus": tuple(Gpu(**gpu) for gpu in flat["gpus"]),
                "pci": tuple(PciGpu(**{**gpu, "unassigned": tuple(gpu["unassigned"])}) for gpu in flat["pci"]),
                "gridd": Gridd(**{**flat["gridd"], "log": tuple(flat["gridd"]["log"])}),
                "clock": Clock(**flat["clock"]),
                "container": ContainerView(**container) if container else None,
            }
        )


def parse_smi(text: str) -> tuple[str, tuple[Gpu, ...]]:
    """Return driver version and GPUs of what `nvidia-smi -q` prints."""
    version = ""
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        header = _GPU.match(line)
        if header:
            found.append({"address": header["address"].lower()})
            continue
        field = _FIELD.match(line)
        if not field:
            continue
        key, value = field["key"].strip(), field["value"]
        if not found:
            version = value if key == "Driver Version" else version
        else:
            # a GPU's own product name comes before its licensed product's
            found[-1].setdefault(key, value)
    return version, tuple(
        Gpu(
            address=gpu["address"],
            name=gpu.get("Product Name", ""),
            uuid=gpu.get("GPU UUID", ""),
            persistence=gpu.get("Persistence Mode") == "Enabled",
            licence="" if gpu.get("License Status", "N/A") == "N/A" else gpu["License Status"],
        )
        for gpu in found
    )


def parse_dkms(text: str) -> str:
    """Return the driver version that DKMS knows (the last, if several), from `dkms status`; empty if none."""
    versions = [found["version"] for found in map(_DKMS.match, text.splitlines()) if found]
    return versions[-1] if versions else ""


def parse_feature_type(text: str) -> int:
    """Return FeatureType of gridd.conf; 0 where it is not set."""
    for line in text.splitlines():
        key, _sep, value = line.partition("=")
        if key.strip() == "FeatureType" and value.strip().isdecimal():
            return int(value)
    return 0


def blocks_nouveau(texts: t.Iterable[str]) -> bool:
    """Whether files of modprobe.d keep nouveau out: blacklisted, or never to be installed."""
    lines = [line.split() for text in texts for line in text.splitlines()]
    return any(line[:2] == ["blacklist", "nouveau"] or line[:2] == ["install", "nouveau"] for line in lines)


def parse_chronyc(text: str) -> bool | None:
    """Return whether the clock is synchronised, from `chronyc -c tracking`; None if it does not tell."""
    fields = text.strip().split(",")
    return fields[-1] == "Normal" if len(fields) > 10 else None


def parse_timedatectl(text: str) -> bool | None:
    """Return whether the clock is synchronised, from `timedatectl show`; None if it does not tell."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    state = values.get("NTPSynchronized")
    return None if state is None else state == "yes"


def unassigned_bars(resource: str) -> tuple[int, ...]:
    """Return the memory BARs (0-5) without an address, from a PCI device's `resource` file in sysfs."""
    missing = []
    for index, line in enumerate(resource.splitlines()[:6]):
        start, _end, flags = (int(field, 16) for field in line.split())
        if flags & _MEMORY_BAR and not start:
            missing.append(index)
    return tuple(missing)
