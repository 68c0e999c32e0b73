"""The GPUs that a model can name, read once from the package's `catalog.yml`."""

from __future__ import annotations

import difflib
import importlib.resources
import typing as t

import yaml
from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024
NVIDIA = 0x10DE


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Companion(_Entry):
    """A further PCI function of a GPU's card, for example its audio controller."""

    name: str
    pci: str
    class_code: str = Field(alias="class")


class GpuType(_Entry):
    """One GPU board: its PCI identity, its memory and how vGPU can divide it."""

    key: str
    """The name that models use, for example `V100-32`."""
    board: str
    """The board in vGPU profile names, for example `v100d`."""
    name: str
    pci: str
    subsystem: str
    class_code: str = Field(alias="class")
    framebuffer_gb: int
    bars_mb: tuple[int, int, int]
    companions: tuple[Companion, ...] = ()
    equal: dict[int, int]
    """Framebuffer GB of a profile -> vGPUs on one GPU in same-size mode."""
    mixed: dict[int, int] = {}
    """The same in mixed-size mode; empty: the board has none."""
    placements: dict[int, tuple[int, ...]] = {}

    @property
    def vendor_id(self) -> int:
        """Unsigned PCI vendor id."""
        return int(self.pci[:4], 16)

    @property
    def device_id(self) -> int:
        """Unsigned PCI device id."""
        return int(self.pci[5:], 16)

    @property
    def bar_bytes(self) -> int:
        """The sum of all BARs, in bytes: what a virtual machine's MMIO space must hold."""
        return sum(self.bars_mb) * MIB

    @property
    def sriov(self) -> bool:
        """Whether vGPU divides it by SR-IOV (Ampere and later): its device ids are 0x2000 and above."""
        return self.device_id >= 0x2000

    @property
    def large_bar(self) -> bool:
        """Whether a BAR is larger than 256 MB, so that the guest must boot with EFI."""
        return max(self.bars_mb) > 256

    def starts(self, size_gb: int) -> tuple[int, ...]:
        """Mixed-size mode: the slots (in GB) at which a profile of this size may start.

        A size without published placement ids takes multiples of framebuffer / mixed count.
        """
        if size_gb in self.placements:
            return self.placements[size_gb]
        count = self.mixed.get(size_gb, 0)
        return tuple(index * (self.framebuffer_gb // count) for index in range(count)) if count else ()


class Catalog:
    """All GPU types, by model key, PCI id and vGPU board name."""

    def __init__(self, types: t.Iterable[GpuType]) -> None:
        self.by_key = {gpu.key: gpu for gpu in types}
        self.by_pci = {gpu.pci: gpu for gpu in self.by_key.values()}
        self.by_board = {gpu.board: gpu for gpu in self.by_key.values()}

    def gpu(self, key: str) -> GpuType:
        """The GPU type of a model key; ValueError names the nearest key when there is none."""
        if key in self.by_key:
            return self.by_key[key]
        near = difflib.get_close_matches(key.upper(), self.by_key, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(self.by_key)}"
        raise ValueError(f"unknown GPU {key!r}; {hint}")


def _load() -> Catalog:
    text = importlib.resources.files(__package__).joinpath("catalog.yml").read_text(encoding="utf-8")
    return Catalog(GpuType(key=key, **entry) for key, entry in yaml.safe_load(text)["gpus"].items())


CATALOG: t.Final = _load()
