"""The YAML model of a simulated vCenter: one data center, its clusters, hosts, GPUs and virtual machines.

Every class is strict: an unknown key is an error (`loader.py` turns it into a readable one). Sizes carry
their unit in the name (`_gb`, `_mb`), times are simulated seconds before `--time-scale`.

Names may hold one range, written as in an Ansible inventory (`esx-[001:200].lab`): the entry then stands for
that many objects. Names of virtual machines may use `{host}` (the host's name up to its first dot) and
`{cluster}`.
"""

from __future__ import annotations

import re
import typing as t

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vsphere_simulator.model.demand import Demand
from vsphere_simulator.model.policies import Category, Group, Marked, Override, Pool, Rule, Snapshot
from vsphere_simulator.world.catalog import CATALOG

RANGE = re.compile(r"\[(?P<first>\d+):(?P<last>\d+)\]")
PUBLIC_KEY = re.compile(r"(ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/=]+( .*)?")
PCI_ADDRESS = r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$"
PCI_ID = r"^[0-9a-f]{4}:[0-9a-f]{4}$"

Positive = t.Annotated[int, Field(gt=0)]
PciId = t.Annotated[str, Field(pattern=PCI_ID)]
GraphicsType = t.Literal["shared", "sharedDirect"]


def expand(name: str) -> list[str]:
    """The names that a name with a range stands for; a name without one stands for itself.

    Raises ValueError for a range that runs backwards.
    """
    match = RANGE.search(name)
    if match is None:
        return [name]
    first, last = int(match["first"]), int(match["last"])
    if last < first:
        raise ValueError(f"range {match.group()} runs backwards")
    width = len(match["first"])
    return [f"{name[: match.start()]}{number:0{width}d}{name[match.end() :]}" for number in range(first, last + 1)]


def _checked_range(value: str) -> str:
    expand(value)
    return value


class Strict(BaseModel):
    """A part of the model: no unknown keys, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Gpu(Strict):
    """GPUs of one type in a host."""

    gpu: str
    """A key of the catalogue, for example `V100-32`."""
    count: Positive = 1
    passthrough: bool = False
    """Enabled and active at the start."""
    label: str | None = None
    """Hardware label that dynamic DirectPath can ask for."""
    graphics_type: GraphicsType | None = None
    """Default: the host's `graphics_type`."""
    vgpu_mode: t.Literal["sameSize", "mixedSize"] = "sameSize"
    nvlink: bool = False
    """Joined with the other GPUs of the host that are: device groups give them out together."""

    @field_validator("gpu")
    @classmethod
    def _known(cls, value: str) -> str:
        CATALOG.gpu(value)
        return value


class FixedGpu(Strict):
    """A PCI device of the virtual machine's host, by address."""

    mode: t.Literal["fixed"]
    address: t.Annotated[str, Field(pattern=PCI_ADDRESS)]


class DynamicGpu(Strict):
    """Any free device with one of these ids and, if given, this label."""

    mode: t.Literal["dynamic"]
    ids: t.Annotated[list[PciId], Field(min_length=1)]
    label: str | None = None


class VirtualGpu(Strict):
    """A vGPU by its profile's name."""

    mode: t.Literal["vgpu"]
    profile: str


class GuestImage(Strict):
    """What a guest is built from."""

    suite: t.Literal["trixie", "bookworm"] = "trixie"
    """Debian release."""
    packages: list[str] = []
    """Debian packages besides systemd, sshd and Python."""
    components: list[t.Literal["main", "contrib", "non-free", "non-free-firmware"]] = ["main"]


class GuestVolume(Strict):
    """A directory or file of the simulator's machine that the guest sees."""

    source: t.Annotated[str, Field(pattern=r"^/[^,\n]*$")]
    target: t.Annotated[str, Field(pattern=r"^/[^,\n]*$")]
    read_only: bool = False


class Guest(Strict):
    """A real guest (a container with systemd and sshd), where `serve` has a `--guest-command`."""

    image: GuestImage = GuestImage()
    """A suite's name is enough."""
    volumes: list[GuestVolume] = []
    environment: dict[t.Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    authorized_keys: list[t.Annotated[str, Field(pattern=f"^{PUBLIC_KEY.pattern}$")]] = []
    """Public keys that may log in as root, besides the one of `--guest-key`."""

    @field_validator("image", mode="before")
    @classmethod
    def _suite(cls, value: object) -> object:
        return {"suite": value} if isinstance(value, str) else value


VmGpu = t.Annotated[FixedGpu | DynamicGpu | VirtualGpu, Field(discriminator="mode")]


class VmShape(Marked, Strict):
    """The virtual hardware of a virtual machine or template."""

    cpus: Positive = 2
    memory_mb: Positive = 4096
    memory_locked: bool = False
    """All memory reserved, and kept so when the size changes."""
    firmware: t.Literal["bios", "efi"] = "bios"
    hardware_version: t.Annotated[int, Field(ge=7, le=22)] = 20
    guest_id: str = "ubuntu64Guest"
    disks_gb: t.Annotated[list[Positive], Field(min_length=0)] = [40]
    extra_config: dict[str, str] = {}
    gpus: list[VmGpu] = []
    cpu_demand: Demand | None = None
    """MHz that it asks for while it is on: a number, or points of a day. Clones ask for the same; left out, each
    virtual CPU asks for 50."""
    guest: Guest | None = None
    """Clones have a guest of their own like it."""
    folder: str | None = None
    """Folder below the data center's VM folder, `a/b` for one in another; made when it is not there."""
    power: t.Literal["on", "off"] = "off"

    @field_validator("power", mode="before")
    @classmethod
    def _yaml_switch(cls, value: object) -> object:
        """YAML reads a bare `on` or `off` as true or false."""
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class HostVms(VmShape):
    """Virtual machines that every host of an entry has."""

    name: str = "{host}-vm-[01:01]"

    _range = field_validator("name")(_checked_range)


class Vm(VmShape):
    """A virtual machine on a named host."""

    name: str
    host: str
    datastore: str | None = None
    pool: str | None = None
    """Resource pool below the cluster's own, `a/b` for one in another."""
    snapshots: list[Snapshot] = []


class Template(VmShape):
    """A virtual machine template."""

    name: str
    host: str | None = None
    """Default: the first host of the model."""
    datastore: str | None = None


class HostShape(Marked, Strict):
    """What a host is; every field left out is taken from the cluster's `host_defaults`."""

    vendor: str = "Dell Inc."
    model: str = "PowerEdge R750xa"
    cpu_model: str = "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz"
    cpu_sockets: Positive = 2
    cpu_cores: Positive = 32
    """Per socket; every core has two threads."""
    cpu_mhz: Positive = 2000
    memory_gb: Positive = 1024
    esxi_version: str = "8.0.3"
    esxi_build: str = "24022510"
    pci_functions: t.Annotated[int, Field(ge=8, le=200)] = 24
    """PCI functions besides the GPUs: bridges and chipset (not passthrough capable), network and storage."""
    gpus: list[Gpu] = []
    rebind_without_reboot: bool = False
    """HostCapability.deviceRebindWithoutRebootSupported: passthrough can change without a reboot."""
    vgpu_manager: str | None = None
    """Version of the installed vGPU manager, for example `16.4`; the host has rebooted since."""
    graphics_type: GraphicsType = "shared"
    """The host's default graphics type."""
    assignment_policy: t.Literal["performance", "consolidation"] = "performance"
    connection_state: t.Literal["connected", "disconnected", "notResponding"] = "connected"
    in_maintenance: bool = False
    vms: list[HostVms] = []


class Host(HostShape):
    """One host, or as many as its name's range says."""

    name: str

    _range = field_validator("name")(_checked_range)


class Drs(Strict):
    """Distributed Resource Scheduler of a cluster."""

    enabled: bool = True
    automation: t.Literal["manual", "partiallyAutomated", "fullyAutomated"] = "manual"
    options: dict[str, str] = {}
    """Advanced options, for example `PassthroughDrsAutomation`."""


class Cluster(Marked, Strict):
    """A cluster and its hosts."""

    name: str
    drs: Drs = Drs()
    ha: bool = False
    vcls_agents: t.Annotated[int, Field(ge=0, le=3)] = 0
    """vCLS agent VMs, powered on, that vCenter itself moves out of the way."""
    image: dict[str, str] | None = None
    """The cluster's image (vLCM): version of each component by name; left out: managed without an image."""
    host_defaults: HostShape = HostShape()
    hosts: list[Host] = []
    pools: list[Pool] = []
    groups: list[Group] = []
    rules: list[Rule] = []
    overrides: list[Override] = []


class Datastore(Strict):
    """A datastore that every host mounts."""

    name: str
    type: t.Literal["VMFS", "NFS", "vsan"] = "VMFS"
    capacity_gb: Positive = 20480


class Network(Strict):
    """A standard port group that every host has."""

    name: str


class Component(Strict):
    """Software that a depot offers to hosts."""

    name: str = "NVD-VMware_ESXi_8.0.0_Driver"
    version: str
    vendor: str = "NVIDIA"
    summary: str = ""
    vgpu_manager: str | None = None
    """Release of the vGPU manager that this is, for example `16.4`; left out for other software."""


class User(Strict):
    """A user besides the one of `--username`, with its role on the whole inventory."""

    name: str
    password: str = Field(repr=False)
    role: str = "ReadOnly"


class Timings(Strict):
    """How long work takes, in simulated seconds (`--time-scale` divides them)."""

    boot: t.Annotated[float, Field(ge=0)] = 180
    maintenance: t.Annotated[float, Field(ge=0)] = 20
    clone: t.Annotated[float, Field(ge=0)] = 60
    create: t.Annotated[float, Field(ge=0)] = 2
    destroy: t.Annotated[float, Field(ge=0)] = 2
    reconfigure: t.Annotated[float, Field(ge=0)] = 2
    power_on: t.Annotated[float, Field(ge=0)] = 5
    power_off: t.Annotated[float, Field(ge=0)] = 2
    guest_shutdown: t.Annotated[float, Field(ge=0)] = 15
    suspend: t.Annotated[float, Field(ge=0)] = 15
    migrate: t.Annotated[float, Field(ge=0)] = 20
    install: t.Annotated[float, Field(ge=0)] = 60


class Model(Strict):
    """A simulated vCenter."""

    api_version: t.Annotated[str, Field(pattern=r"^\d+\.\d+(\.\d+){0,2}$")] = "8.0.3.0"
    datacenter: str
    datastores: t.Annotated[list[Datastore], Field(min_length=1)]
    networks: t.Annotated[list[Network], Field(min_length=1)]
    clusters: list[Cluster] = []
    standalone_hosts: list[Host] = []
    """Hosts of the vCenter outside of clusters."""
    bare_hosts: list[Host] = []
    """Hosts that run and that the vCenter does not know yet: AddHost_Task and AddStandaloneHost_Task find them."""
    templates: list[Template] = []
    vms: list[Vm] = []
    custom_attributes: list[str] = []
    """Names of custom attributes that exist at the start (for every type of object)."""
    categories: list[Category] = []
    """Tags that exist at the start."""
    options: dict[str, str] = {}
    """vCenter settings, for example `vgpu.hotmigrate.enabled`."""
    depots: dict[str, list[Component]] = {}
    """Bundle URL -> the software that hosts can install from it."""
    roles: dict[str, list[str]] = {}
    """Roles besides those that vCenter has, as lists of privilege ids."""
    users: list[User] = []
    timings: Timings = Timings()

    @model_validator(mode="after")
    def _names_fit(self) -> Model:
        placed: list[Template | Vm] = [*self.templates, *self.vms]
        hosts = [name for cluster in self.clusters for entry in cluster.hosts for name in expand(entry.name)]
        hosts += [name for entry in self.standalone_hosts for name in expand(entry.name)]
        stores = {datastore.name for datastore in self.datastores}
        problems = [
            *_twice("clusters", [cluster.name for cluster in self.clusters]),
            *_twice("hosts", [*hosts, *(name for entry in self.bare_hosts for name in expand(entry.name))]),
            *_twice("datastores", [datastore.name for datastore in self.datastores]),
            *_twice("networks", [network.name for network in self.networks]),
            *_twice("vms and templates", [item.name for item in placed]),
        ]
        known = set(hosts)
        for item in placed:
            if item.host is not None and item.host not in known:
                problems.append(f"{item.name}: no host is called {item.host}")
            if item.datastore is not None and item.datastore not in stores:
                problems.append(f"{item.name}: no datastore is called {item.datastore}")
        if not hosts and (self.templates or self.vms):
            problems.append("virtual machines need at least one host")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _twice(what: str, names: list[str]) -> list[str]:
    seen: set[str] = set()
    again = sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
    return [f"{what}: {name} is there more than once" for name in again]
