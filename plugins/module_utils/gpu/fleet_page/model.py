# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the fleet page shows, as plain typed data: the one contract between facts, inputs and the page's script.

Memory is in GB of 2**30 bytes. Virtual machines are referred to by their index in `Page.vms`, since names need not be
unique in a vCenter. `to_dict` leaves out what is empty, so that a thousand hosts stay a few megabytes.
"""

from __future__ import annotations

import dataclasses
import typing as t

HostState = t.Literal["in service", "maintenance", "disconnected", "not responding"]
GpuUse = t.Literal["vgpu", "passthrough", "none"]
GpuState = t.Literal["free", "part", "full", "reboot", "unset"]
"""`free`: nothing on it; `part`: vGPUs, and room for one more; `full`; `reboot`: its passthrough waits for one;
`unset`: given to virtual machines in no way yet."""
Kind = t.Literal["host", "reboot", "licence", "driver", "health"]
ChartKind = t.Literal["lines", "stacked", "bars"]


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """One vGPU on a GPU."""

    profile: str
    at: float
    """Where in the framebuffer it begins."""
    gb: float
    vm: int | None = None
    """None: a machine that the account may not read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a host."""

    address: str
    model: str
    gb: float
    use: GpuUse
    state: GpuState
    mode: str | None = None
    """`sameSize`, `mixedSize` or `multiInstanceGpu`."""
    slots: tuple[Slot, ...] = ()
    open: tuple[tuple[float, float], ...] = ()
    """Free pieces of the framebuffer (begin, size): one per further vGPU where the size is settled."""
    room: int = 0
    """How many more of each profile alone it would take: index into `Page.rooms`."""
    vms: tuple[int, ...] = ()
    """Machines that have the whole GPU, running or not."""


@dataclasses.dataclass(frozen=True, slots=True)
class Vm:
    """A virtual machine with GPUs."""

    name: str
    power: str
    gpus: tuple[str, ...]
    """Profile of each vGPU, `whole` for a passed-through GPU."""
    tenant: str = ""
    jobs: tuple[int, ...] = ()
    findings: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """A host with its GPUs."""

    name: str
    state: HostState
    reboot: bool = False
    gpus: tuple[Gpu, ...] = ()
    idle: tuple[int, ...] = ()
    """Machines with GPU devices that are on no GPU now: off, suspended, or where the host does not tell."""
    version: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster; the name is empty for hosts outside any."""

    name: str
    hosts: tuple[Host, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Capacity:
    """One profile (or `whole` GPUs of a model) over the fleet."""

    profile: str
    model: str
    gb: float
    used: int
    free: int
    """How many more could start now, of this profile alone, on hosts in service."""
    whole: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """Something that an operator should look at."""

    kind: Kind
    object: str
    text: str
    mend: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A job of the pool."""

    id: str
    name: str = ""
    user: str = ""
    tenant: str = ""
    state: str = "running"
    vms: tuple[str, ...] = ()
    gpus: float = 0
    since: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan, as the module gpu_plan gives it."""

    action: str
    object: str
    what: str
    reason: str = ""
    vms: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Move:
    """The machines of one host before and after a plan."""

    host: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What an expansion or contraction is going to do."""

    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    moves: tuple[Move, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """One line, area or group of bars; None is a gap."""

    name: str
    values: tuple[float | None, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A labelled moment or place on the x axis, or a level on the y axis."""

    at: float
    label: str


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """A chart: series over common places on the x axis, which are seconds since 1970 where `time`."""

    title: str
    kind: ChartKind
    x: tuple[float, ...]
    series: tuple[Series, ...]
    time: bool = False
    timezone: str = "UTC"
    x_label: str = ""
    y_label: str = ""
    marks: tuple[Mark, ...] = ()
    levels: tuple[Mark, ...] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Totals:
    """The figures at the head of the page."""

    hosts: int = 0
    hosts_in_service: int = 0
    gpus: int = 0
    gpus_by_state: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    vgpus: int = 0
    gb: float = 0
    """Of GPUs that vGPUs or whole GPUs are given from (`use` is not `none`)."""
    gb_used: float = 0
    vms: int = 0
    vms_running: int = 0
    vms_suspended: int = 0
    jobs_running: int = 0
    jobs_waiting: int = 0
    reboots: int = 0
    """Hosts that wait for one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Everything on the page but the time it was made."""

    title: str
    source: str
    totals: Totals
    clusters: tuple[Cluster, ...]
    vms: tuple[Vm, ...]
    rooms: tuple[t.Mapping[str, int], ...]
    capacity: tuple[Capacity, ...]
    points: tuple[Point, ...] = ()
    jobs: tuple[Job, ...] | None = None
    """None: not told."""
    doctor: bool = False
    """Whether the doctor's findings are among the points."""
    plan: Plan | None = None
    harvest: tuple[Chart, ...] = ()
    benchmark: tuple[Chart, ...] = ()


def to_dict(value: t.Any) -> t.Any:
    """Lists and dicts for JSON: fields that are None, false or empty are left out, numbers and `totals` never.

    Values of mappings and items of lists are kept whatever they are.
    """
    if dataclasses.is_dataclass(value):
        fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: to_dict(item) for name, item in fields if not _left_out(item)}
    if isinstance(value, t.Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _left_out(value: t.Any) -> bool:
    return value is None or value is False or (not isinstance(value, (int, float)) and not value)
