# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ECC and MIG modes of a host's GPUs: what nvidia-smi says, what is wanted, and the calls between them.

Both modes have a current and a pending value: set now, in force after a reboot of the host (NVIDIA's vGPU user guide
for ESXi). A GPU that has no such mode says `[N/A]` or `[Not Supported]`.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import normalise_address

ALL = "all"
_WORDS = {"enabled": True, "disabled": False}


class ModeError(ValueError):
    """Output that is not nvidia-smi's, or an address that is none; the message says which."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mode:
    """A mode of one GPU; None where it has none."""

    current: bool | None
    pending: bool | None


@dataclasses.dataclass(frozen=True, slots=True)
class GpuModes:
    """The modes of one GPU."""

    address: str
    """`0000:3b:00.0`"""
    bus_id: str
    """As nvidia-smi writes it, `00000000:3B:00.0`."""
    ecc: Mode
    mig: Mode


def parse(output: str) -> list[GpuModes]:
    """What nvidia-smi has printed, one GPU a line. Raises ModeError."""
    found = []
    for line in filter(None, (line.strip() for line in output.splitlines())):
        parts = [part.strip() for part in line.split(",")]
        address = normalise_address(parts[0]) if len(parts) == 5 else None
        if address is None:
            raise ModeError(f"nvidia-smi on the host says: {line}. Look at its driver; the modes cannot be read so.")
        values = [_WORDS.get(part.lower()) for part in parts[1:]]
        found.append(GpuModes(address, parts[0], Mode(*values[:2]), Mode(*values[2:])))
    return found


def compare(output: str, ecc: t.Mapping[str, t.Any], mig: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The calls that bring the GPUs to the wanted modes, what stands in the way, and whether a reboot is due."""
    gpus = {gpu.address: gpu for gpu in parse(output)}
    changes: list[dict[str, str]] = []
    problems: list[str] = []
    waits: list[str] = []
    for name, option, wanted in (("ECC", "-e", _by_address(ecc)), ("MIG", "-mig", _by_address(mig))):
        problems += [
            f"There is no GPU at {address}, whose {name} mode is wanted. nvidia-smi shows "
            f"{', '.join(sorted(gpus)) or 'none'}."
            for address in wanted
            if address != ALL and address not in gpus
        ]
        for address, gpu in sorted(gpus.items()):
            value = wanted.get(address, wanted.get(ALL))
            mode = gpu.ecc if name == "ECC" else gpu.mig
            if value is None:
                continue
            if mode.pending is None:
                # For all GPUs means those that have it; off is what a GPU without the mode is anyway.
                if value and address in wanted:
                    problems.append(f"The GPU at {address} has no {name} mode. Leave it out.")
                continue
            if mode.current != value:
                waits.append(
                    f"{name} of the GPU at {address} is wanted {_word(value)}, and is {_word(mode.current)} "
                    f"(pending: {_word(mode.pending)})"
                )
            if mode.pending != value:
                text = f"{name} {_word(value)} at {address}"
                changes.append({"arguments": f"-i {gpu.bus_id} {option} {int(value)}", "text": text})
    return {"changes": changes, "problems": problems, "waits": waits, "reboot_required": bool(waits) and not problems}


def _word(mode: bool | None) -> str:
    return {True: "on", False: "off", None: "unknown"}[mode]


def _by_address(wanted: t.Mapping[str, t.Any]) -> dict[str, bool]:
    found = {}
    for key, value in wanted.items():
        address = ALL if str(key).lower() == ALL else normalise_address(str(key))
        if address is None:
            raise ModeError(f"{key!r} is neither {ALL} nor a PCI address such as 0000:3b:00.0.")
        if not isinstance(value, bool):
            raise ModeError(f"The mode of {key} must be true or false, not {value!r}.")
        found[address] = value
    return found
