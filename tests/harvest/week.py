# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A simulated week of harvesting: the collection's planners and modules, run in this process against the simulator.

What is real: harvest_plan, vm_power, gpu_lock and the history, as the role calls them, and the simulator's vCenter.
What is modelled: the clock (a step takes as long as the seed says, and the simulator works as fast as it can), how
desktops are used, and Slurm (slurm.py). `Controller.run` does what the role's pass.yml does, in its order.
"""

from __future__ import annotations

import dataclasses
import datetime
import random
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest import files, history
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.report import Report, report
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.modules import gpu_lock, harvest_plan, vm_power
from gpu_vms import machine, vcenter_connection, vgpu_fleet
from in_process import CrashError, Fuse, options, run
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl
from simulated import Vcenter, launch
from slurm import Job, Slurm

HOSTS, DESKS = 4, 16
BEGIN = datetime.datetime(2026, 3, 23, 6, tzinfo=datetime.UTC)  # Monday; the clock goes forward on the Sunday
END = BEGIN + datetime.timedelta(days=7, hours=3)
STEP = datetime.timedelta(minutes=10)
SCHEDULES = {"office": {"timezone": "Europe/Berlin", "ready_by": "07:30", "lend_from": "19:00"}}
TIMING = {"drain": 600, "release": 120, "resume": 120, "at_once": 16, "margin": 0.25, "least_margin": 900}
GRACE = 120.0


@dataclasses.dataclass
class World:
    """What happens to the controller: how desktops are used, how long things take, and what fails when."""

    seed: int
    random: random.Random = dataclasses.field(init=False)
    resume: dict[str, float] = dataclasses.field(init=False)
    late_workers: dict[tuple[int, str], datetime.datetime] = dataclasses.field(init=False)
    visits: list[tuple[datetime.datetime, str]] = dataclasses.field(init=False)
    outages: list[tuple[datetime.datetime, datetime.datetime, str]] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311 - a seeded week, no secret
        self.resume = {name: self.random.uniform(25, 110) for name in desks()}
        evening = BEGIN.replace(hour=18)
        self.late_workers = {
            (day, name): evening + datetime.timedelta(days=day, hours=self.random.expovariate(0.7))
            for day in range(7)
            for name in desks()
        }
        night = [BEGIN.replace(hour=21) + datetime.timedelta(days=day) for day in range(7)]
        self.visits = sorted(
            (begin + datetime.timedelta(hours=self.random.uniform(0, 7)), self.random.choice(desks()))
            for begin in night
            for _ in range(2)
        )
        # One host is back before the morning, one only when the day has begun.
        first, second = self.random.sample(range(1, HOSTS + 1), 2)
        hours = datetime.timedelta(hours=1)
        self.outages = [
            (night[1] + 2 * hours, night[1] + 6 * hours, f"esx-{first:03}.lab"),
            (night[2] + 4 * hours, night[2] + 12 * hours, f"esx-{second:03}.lab"),
        ]

    def faults(self) -> list[dict[str, t.Any]]:
        """Resumes that fail."""
        return [
            {"method": "PowerOnVM_Task", "object": "desk-*", "nth": nth, "fail_task_at": 60}
            for nth in self.random.sample(range(2, 60), 8)
        ]

    def mhz(self, name: str, now: datetime.datetime) -> float:
        """CPU usage of a desktop."""
        local = now + datetime.timedelta(hours=1)
        day = (now - BEGIN).days
        if any(visitor == name and begin <= now < begin + STEP * 9 for begin, visitor in self.visits):
            return 1500.0
        works = local.weekday() < 5 and datetime.time(7, 30) <= local.time() < datetime.time(18, 30)
        late = local.weekday() < 5 and local.time() >= datetime.time(18, 30) and now < self.late_workers[day, name]
        return 1500.0 if works or late else 40.0


def desks() -> list[str]:
    """The desktops."""
    return [f"desk-{number:02}" for number in range(1, DESKS + 1)]


def workers() -> list[str]:
    """The machines that compute."""
    return [f"train-{number}" for number in range(1, 2 * HOSTS + 1)]


def model() -> dict[str, t.Any]:
    """Hosts with two GPUs each: two desktops of half a GPU on each, and a machine that takes a whole one."""
    half, full = ([{"mode": "vgpu", "profile": f"nvidia_a100-{size}c"}] for size in (20, 40))
    shape: dict[str, t.Any] = {"memory_locked": True, "memory_mb": 8192}
    host = [f"esx-{number:03}.lab" for number in range(1, HOSTS + 1)]
    vms = [
        machine(name, host[number % HOSTS], **shape | {"gpus": half, "power": "on"})
        for number, name in enumerate(desks())
    ]
    vms += [machine(name, host[number % HOSTS], **shape | {"gpus": full}) for number, name in enumerate(workers())]
    return vgpu_fleet(hosts=HOSTS, vms=vms)


class Controller:
    """What a run of the playbook does, and what its timer and its operators see."""

    def __init__(self, vcenter: Vcenter, content: t.Any, world: World, fuse: Fuse, directory: Path) -> None:
        self.vcenter, self.world, self.fuse = vcenter, world, fuse
        self.pool = Slurm()
        self.file = str(directory / "history.json")
        self.samples: dict[str, list[float]] = {name: [] for name in desks()}
        self.said: set[str] = set()
        self.crashes = 0
        self.life = self._life()
        self.now = BEGIN
        self.broken = False
        """The run before was killed."""
        self.content = content
        manager, root = content.viewManager, content.rootFolder
        hosts = manager.CreateContainerView(root, [vim.HostSystem], True).view
        self.hosts = {host._moId: host.name for host in hosts}
        collector = vmodl.query.PropertyCollector
        machines = manager.CreateContainerView(root, [vim.VirtualMachine], True)
        step = collector.TraversalSpec(type=vim.view.ContainerView, path="view", skip=False)
        self.spec = collector.FilterSpec(
            objectSet=[collector.ObjectSpec(obj=machines, skip=True, selectSet=[step])],
            propSet=[
                collector.PropertySpec(
                    type=vim.VirtualMachine, pathSet=["name", "runtime.powerState", "runtime.host", "customValue"]
                )
            ],
        )

    @staticmethod
    def _life() -> subprocess.Popen[bytes]:
        """A process that stands for the playbook's, whose death the lock notices; it ends with this one."""
        return subprocess.Popen(["cat"], stdin=subprocess.PIPE)

    def passes(self, seconds: float) -> None:
        """Time passes, and jobs get on."""
        self.now += datetime.timedelta(seconds=seconds)
        self.pool.advance(seconds, self.up & {*workers()})

    def read(self) -> dict[str, tuple[str, str]]:
        """Power and host of each machine, seen by pyVmomi alone."""
        rows = self.content.propertyCollector.RetrieveContents([self.spec])
        found = [{prop.name: prop.val for prop in row.propSet} for row in rows]
        self.marked = {vm["name"] for vm in found if any("lent" in mark.value for mark in vm.get("customValue", ()))}
        return {vm["name"]: (str(vm["runtime.powerState"]), self.hosts[vm["runtime.host"]._moId]) for vm in found}

    up: frozenset[str] = frozenset()
    marked: t.Collection[str] = ()
    """Machines that carry the mark of what is lent, as last read."""

    def run(self, wanted: t.Sequence[str] = (), crash_after: int | None = None) -> None:
        """One run; with `crash_after` it is killed after so many calls."""
        self.fuse.limit = None if crash_after is None else self.fuse.calls + crash_after
        try:
            self._run(wanted)
        except CrashError:
            self.crashes, self.broken = self.crashes + 1, True
            self.life.kill()
            self.life.wait()
            self.life = self._life()
            self.fuse.limit = None
            self.up = frozenset(name for name, (power, _host) in self.read().items() if power == "poweredOn")
        finally:
            self.fuse.limit = None

    def _run(self, wanted: t.Sequence[str]) -> None:
        # Nobody else is there, so that it matters only around runs that are killed.
        lock = {"clusters": ["gpu"], "lifetime": 3600, "holder_pid": self.life.pid}
        locked = self.broken or self.fuse.limit is not None
        if locked:
            held, outcome = run(self.vcenter, gpu_lock, **lock)
            assert not any(plan.failed for plan in held.plans.values()), held.plans
            assert not any(applied.problems for applied in outcome.values()), outcome
        lent, resumed, stranded, requeued = set[str](), dict[str, float](), dict[str, str](), 0
        seen: dict[str, t.Any] = {}
        for attempt in range(3):
            night = self._plan(wanted)
            seen = seen or night["record"]
            lent |= {*night["lent"]}
            stranded |= night["stranded"]
            requeued += self._release(night["release"])
            missing = self._resume(night, resumed)
            if night["returned"]:
                run(self.vcenter, vm_power, vms=night["returned"], state="resumed", lend=True)
            if not wanted and attempt == 0:
                self._lend(night)
                lent |= {*night["suspend"]}
            if not missing:
                break
        kept = {"seen": seen, "lent": sorted(lent), "resumed": resumed, "stranded": stranded, "requeued": requeued}
        noted = history.observed(kept | {"ended": self.now.isoformat()}, self.now)
        files.write_file(self.file, history.to_text(history.noted(files.read_history(self.file), noted)), 0o600)
        self.said |= {*stranded}
        if locked:
            run(self.vcenter, gpu_lock, **lock, state="released")
        self.broken = False

    def _plan(self, wanted: t.Sequence[str]) -> dict[str, t.Any]:
        desktops = [
            {"name": name, "lend": True, "cpu_mhz": self.samples[name][-6:], "resume_seconds": None} for name in desks()
        ]
        on = {job.node for job in self.pool.jobs.values()}
        defaults = {name: option.get("default") for name, option in harvest_plan.argument_spec().items()}
        params = defaults | {
            "desktops": desktops, "schedules": SCHEDULES, "compute_profile": "nvidia_a100-40c", "reserve": 1,
            "compute_vms": [{"name": name, "jobs": int(name in on)} for name in workers()], "wanted": list(wanted),
            "now": self.now.isoformat(), "timing": TIMING, "history_file": self.file,
            "assume": {"hosts": {}, "vms": {}},
        }  # fmt: skip
        with Client.open(options(self.vcenter)) as client:
            return dict(harvest_plan.plan(harvest_plan.read(client, params), params).returns)

    def _release(self, names: t.Sequence[str]) -> int:
        """The hook slurm_leave on the model, then the machines' power."""
        if not names:
            return 0
        self.pool.drain(names, "harvest")
        for job in self.pool.on(names):
            if job.comment:
                self.pool.signal(job.number)
        self.passes(GRACE if self.pool.on(names) else 5)
        left = self.pool.on(names)
        for job in left:
            self.pool.requeue(job.number)
        run(self.vcenter, vm_power, vms=list(names), state="off", force=True, hard=True)
        self.up -= {*names}
        self.passes(60)
        return len(left)

    def _resume(self, night: dict[str, t.Any], resumed: dict[str, float]) -> list[str]:
        missing = []
        for wave in night["waves"]:
            places = {name: night["places"][name] for name in wave}
            planned, done = run(self.vcenter, vm_power, vms=wave, state="resumed", lend=True, hosts=places)
            for name in wave:
                if planned.plans[name].failed or done[name].problems:
                    missing.append(name)
                else:
                    resumed[name] = self.world.resume[name]
                    self.samples[name].clear()
                    self.up |= {name}
            self.passes(max(self.world.resume[name] for name in wave))
        return missing

    def _lend(self, night: dict[str, t.Any]) -> None:
        if night["suspend"]:
            run(self.vcenter, vm_power, vms=night["suspend"], state="suspended", lend=True, max_parallel=8)
            self.up -= {*night["suspend"]}
            self.passes(45)
        if night["start"]:
            places = night["start_places"]
            run(self.vcenter, vm_power, vms=night["start"], state="on", hosts=places)
            self.passes(60)
        if night["phase"] == "evening":
            self.up = frozenset(name for name, (power, _host) in self.read().items() if power == "poweredOn")
            for name in {*night["working"], *night["start"]} & self.up:
                self.pool.resume(name)
            self.pool.schedule()


@dataclasses.dataclass
class Outcome:
    """How the week went."""

    report: Report
    jobs: list[Job]
    crashes: int
    said: set[str]
    faults: list[str]
    """What must not be; empty if all is well."""
    waits: list[float]
    """Seconds that users who came at night waited."""


def week(seed: int, directory: Path) -> Outcome:
    """Run it."""
    world = World(seed)
    with pytest.MonkeyPatch.context() as patch:
        vcenter = launch(directory / "vcenter", model(), faults=world.faults(), time_scale=2000)
        try:
            with vcenter_connection(vcenter) as content:
                controller = Controller(vcenter, content, world, Fuse(patch), directory)
                try:
                    return _week(controller, world)
                finally:
                    controller.life.kill()
                    controller.life.wait()
        finally:
            vcenter.stop()


def _week(controller: Controller, world: World) -> Outcome:
    for number in range(1, 41):
        kind = world.random.random()
        hours = world.random.uniform(1, 9)
        controller.pool.submit(Job(number, hours * 3600, checkpoints=kind < 0.5, deaf=kind > 0.8))
    dark: dict[str, datetime.datetime] = {}
    back: set[str] = set()
    faults: list[str] = []
    waits: list[float] = []
    visits, outages = list(world.visits), list(world.outages)
    due = BEGIN
    controller.up = frozenset(desks())
    while due < END:
        if controller.now < due:
            controller.passes((due - controller.now).total_seconds())
        for begin, end, host in list(outages):
            if host not in dark and controller.now >= begin:
                dark[host] = end
                _connection(controller.content, host, up=False)
                controller.up -= {name for name, (_power, where) in controller.read().items() if where == host}
            if host in dark and controller.now >= end:
                outages.remove((begin, end, host))
                del dark[host]
                back.add(host)
                _connection(controller.content, host, up=True)
        for name in desks():
            controller.samples[name].append(world.mhz(name, controller.now))
        wanted = [name for begin, name in visits if begin <= controller.now]
        visits = [visit for visit in visits if visit[0] > controller.now]
        asked = controller.now
        crash = world.random.randrange(3, 60) if world.random.random() < 0.06 else None
        controller.run(wanted, crash)
        if wanted:
            if crash is not None:
                controller.run(wanted)  # its user types the command again
            waits.append((controller.now - asked).total_seconds())
        if not controller.broken:
            back.clear()
        # What the host that has just returned needs is the work of a whole run: the next one, where this was killed.
        faults += _wrong(controller, {*dark, *back})
        due = max(due + _pause(due), controller.now)
    known = files.read_history(controller.file)
    whole = report(history.figures(known), controller.now, longest_s=1800)
    return Outcome(whole, list(controller.pool.jobs.values()), controller.crashes, controller.said, faults, waits)


def _pause(due: datetime.datetime) -> datetime.timedelta:
    """Every ten minutes around the ends of working hours; fewer runs in between, where each would find the same."""
    local = due + datetime.timedelta(hours=1)
    if local.weekday() < 5 and 9 <= local.hour < 17:
        return STEP * 6
    return STEP if local.weekday() < 5 and (4 <= local.hour < 9 or 17 <= local.hour < 23) else STEP * 3


def _wrong(controller: Controller, dark: t.Collection[str]) -> list[str]:
    """What must not be at any time."""
    now, machines = controller.now, controller.read()
    found = [f"{now}: {name} is lost" for name in desks() if name not in machines]
    found += [f"{now}: {name} is off" for name in desks() if machines[name][0] == "poweredOff"]
    local = now.astimezone(datetime.timezone(datetime.timedelta(hours=1)))
    if local.weekday() < 5 and datetime.time(7, 30) <= local.time() < datetime.time(18, 0):
        found += [
            f"{now}: {name} on {host} is {power} in working hours"
            for name, (power, host) in machines.items()
            if (name in desks()) != (power == "poweredOn") and host not in dark
        ]
        # A run that was killed may leave a mark; the next one takes it off.
        stale = [name for name in sorted(controller.marked) if machines[name][1] not in dark]
        found += [f"{now}: {name} is still marked as lent" for name in stale if not controller.broken]
    return found + [
        f"{now}: job {job.number} finished {job.finished} times"
        for job in controller.pool.jobs.values()
        if job.finished > 1
    ]


def _connection(content: t.Any, name: str, *, up: bool) -> None:
    """A host fails, and comes back."""
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True).view
    host = next(host for host in view if host.name == name)
    WaitForTask(host.ReconnectHost_Task(None, None) if up else host.DisconnectHost_Task())


def text(outcome: Outcome) -> str:
    """The report for people."""
    total = outcome.report.total
    jobs = outcome.jobs
    unexcused = [late.desktop for night in outcome.report.nights for late in night.late if late.said is None]
    lines = [
        f"{'night':12}{'GPU-hours':>10}{'harvested':>10}{'without':>9}{'with':>7}{'lent':>6}{'late':>6}{'requeued':>10}",
        *(
            f"{night.night:12}{night.gpu_hours_total:>10.1f}{night.gpu_hours_harvested:>10.1f}"
            f"{night.utilisation_without:>9.0%}{night.utilisation_with:>7.0%}{night.desktops_lent:>6}"
            f"{night.desktops_late:>6}{night.jobs_requeued:>10}"
            for night in outcome.report.nights
        ),
        f"{'total':12}{total.gpu_hours_total:>10.1f}{total.gpu_hours_harvested:>10.1f}"
        f"{total.utilisation_without:>9.0%}{total.utilisation_with:>7.0%}{total.desktops_lent:>6}"
        f"{total.desktops_late:>6}{total.jobs_requeued:>10}",
        f"late though nothing was said before: {len(unexcused)}",
        f"jobs: {len(jobs)}, finished {sum(job.finished for job in jobs)},"
        f" put back {sum(job.requeued for job in jobs)}",
        f"runs killed half-way: {outcome.crashes}; users who came at night: {len(outcome.waits)}, the longest wait"
        f" {max(outcome.waits, default=0):.0f} s",
        *outcome.faults[:20],
    ]
    return "\n".join(lines)
