#!/usr/bin/env python3
"""The pictures of the documentation, behind `make pictures`: a simulated data centre, its fleet page, and Chromium.

Hosts, GPUs, machines, the plan and the day of harvesting come from the simulator through the collection's own modules:
shares are set, a simulated day passes, and its performance counters are read. Jobs, findings and the benchmark are
examples, since no pool runs here. Everything is made anew in a temporary directory; only the pictures stay.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import secrets
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "collections"))

import yaml
from ansible_collections.gpuops.vsphere.plugins.filter.benchmark_page import benchmark_page
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.benchmark.report import build_report
from playwright.sync_api import sync_playwright
from pyVim.connect import Disconnect, SmartConnect

TOP = Path(__file__).resolve().parent.parent
IMAGES = TOP / "docs" / "images"
ASSETS = TOP / "roles" / "report" / "files" / "fleet_page"
MMIO = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "256"}
START_S = 60
TIME_SCALE = 6000
"""A day passes in a quarter of a minute."""
OFFICE = {
    "points": [
        {"at": "06:30", "mhz": 150},
        {"at": "08:30", "mhz": 3100},
        {"at": "11:45", "mhz": 3700},
        {"at": "12:30", "mhz": 1700},
        {"at": "13:45", "mhz": 3500},
        {"at": "16:30", "mhz": 3000},
        {"at": "18:30", "mhz": 150},
    ],
    "jitter_minutes": 45,
}
"""What a desktop asks of the CPUs."""
# What each host of the cluster "research" runs: framebuffer of its vGPUs in GB.
RESEARCH = [
    [40, 20, 20, 10, 10, 10],
    [20, 20, 10, 10, 10, 5, 5, 5, 5],
    [40, 40, 10, 10],
    [10] * 9,
    [20, 20, 20, 5, 5, 5],
    [40, 10, 10, 10, 10, 5, 5],
    [8, 8, 8, 20],
    [],
]
PROJECTS = ("phys", "chem", "bio")
OPENED = ("esx-a100-05.dc", "0000:3b:00.0, A100-40", "a100-20c, 0")
"""Rows that are opened in the wide pictures, by how their label begins."""
SHOTS = (
    ("fleet.png", {"width": 1600, "height": 1000}, "light", ""),
    ("fleet-dark.png", {"width": 1600, "height": 1000}, "dark", "#colour=tenant"),
    ("fleet-phone.png", {"width": 390, "height": 844}, "light", ""),
)


DAY = ("harvest-day.png", {"width": 1280, "height": 820}, "light")


def model() -> dict[str, Any]:
    """A data centre with A100 for research, T4 for desktops, V100 passed through whole."""
    vms: list[dict[str, Any]] = []
    shape = {"memory_locked": True, "firmware": "efi", "memory_mb": 8192}
    for number, sizes in enumerate(RESEARCH, start=1):
        for at, size in enumerate(sizes):
            name = f"{PROJECTS[(number + at // 3) % 3]}-{number:02d}{chr(97 + at)}"
            gpu = {"mode": "vgpu", "profile": f"nvidia_a100-{size}c"}
            vms.append({"name": name, "host": f"esx-a100-{number:02d}.dc", "power": "on", "gpus": [gpu], **shape})
    for number in range(1, 7):
        for at in range(14 - number):
            gpu = {"mode": "vgpu", "profile": "grid_t4-4q"}
            host = f"esx-desk-{number:02d}.dc"
            work = {"pool": "desktops", "cpus": 2, "cpu_demand": OFFICE}
            one = {"name": f"desk-{number:02d}{at:02d}", "host": host, "power": "on", "gpus": [gpu]}
            vms.append({**one, **work, **shape})
        for at in range(2):
            work = {"pool": "compute", "cpus": 16, "memory_mb": 32768, "power": "on", "cpu_demand": 26000}
            vms.append({"name": f"hpc-{number:02d}{at}", "host": f"esx-desk-{number:02d}.dc", **work})
    for number, bus in [(1, "3b"), (1, "5e"), (2, "3b"), (2, "86"), (3, "5e"), (5, "3b")]:
        gpu = {"mode": "fixed", "address": f"0000:{bus}:00.0"}
        host, power = f"esx-v100-{number:02d}.dc", "off" if number == 3 else "on"
        vms.append(
            {
                "name": f"train-{number:02d}-{bus}",
                "host": host,
                "power": power,
                "gpus": [gpu],
                "extra_config": MMIO,
                **shape,
            }
        )
    divided = {"vgpu_manager": "550.90.05", "graphics_type": "sharedDirect", "assignment_policy": "consolidation"}
    whole = {"gpus": [{"gpu": "V100-32", "count": 4, "passthrough": True}]}
    v100: list[dict[str, Any]] = [{"name": f"esx-v100-{number:02d}.dc"} for number in range(1, 6)]
    v100[3] |= {"in_maintenance": True}
    return {
        "datacenter": "centre",
        "datastores": [{"name": "shared-01"}],
        "networks": [{"name": "VM Network"}],
        "clusters": [
            {
                "name": "desktops",
                "host_defaults": {"gpus": [{"gpu": "T4", "count": 4}], "cpu_cores": 12, **divided},
                "hosts": [{"name": "esx-desk-[01:06].dc"}],
                "pools": [{"name": "desktops"}, {"name": "compute"}],
            },
            {
                "name": "research",
                "host_defaults": {"gpus": [{"gpu": "A100-40", "count": 4}], **divided},
                "hosts": [{"name": "esx-a100-[01:08].dc"}],
            },
            {
                "name": "training",
                "host_defaults": whole,
                "hosts": [*v100, {"name": "esx-v100-06.dc", "connection_state": "notResponding"}],
            },
        ],
        "vms": vms,
    }


def jobs(machines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Jobs on every third machine that runs and is no desktop, and four that wait."""
    names = sorted(vm["name"] for vm in machines if vm["power"] == "on" and not vm["name"].startswith("desk"))
    kinds = (
        ("resnet50", "ada", "physics"),
        ("gromacs-md", "kim", "chemistry"),
        ("fold", "lee", "biology"),
        ("llm-tune", "ivo", "physics"),
    )
    made = []
    for number, name in enumerate(names[::3]):
        what, user, tenant = kinds[number % 4]
        one = {"id": str(48210 + number), "name": what, "user": user, "tenant": tenant, "vms": [name], "gpus": 0.5}
        made.append({**one, "state": "running", "since": "08:14"})
    for number in range(4):
        what, user, tenant = kinds[number % 4]
        waiting = {"id": str(48300 + number), "name": what, "user": user, "tenant": tenant, "gpus": 1}
        made.append({**waiting, "state": "pending"})
    return {"jobs": made}


def findings() -> dict[str, Any]:
    """What the doctor could have found."""
    licence = "the licence has not been had for 26 hours; nvidia-gridd says: failed to reach the licence server"
    driver = "driver 535.154.05 is loaded, 550.90.07 is wanted"
    found = {
        "bio-02b": ("licence", licence, "see docs/guest-driver.md"),
        "chem-04a": ("driver", driver, "run playbooks/guest_driver.yml"),
    }
    return {
        guest: {"findings": [{"check": check, "status": "FAIL", "message": message, "mend": mend}]}
        for guest, (check, message, mend) in found.items()
    }


def benchmark() -> dict[str, Any]:
    """A result of the sharing benchmark with figures like the talk's, in the form that the benchmark writes."""
    machine = {
        "device": "cuda", "host": "gpu-server-01", "cpu": "", "cpus": 16, "threads": 8, "gpu": "Tesla V100 (example)",
        "gpu_id": "GPU-1", "driver": "550.163.01",
        "versions": {"python": "3.13.5", "torch": "2.6.0", "torchvision": "0.21.0", "cuda": "12.4"},
    }  # fmt: skip

    def job(number: int, run_s: float) -> dict[str, Any]:
        return {
            "number": number, "job": str(7100 + number), "began": 0.0, "ended": run_s, "images": 3200,
            "steps_s": [run_s / 100] * 100, "machine": machine,
        }  # fmt: skip

    runs = [
        {"phase": "alone", "repeat": 0, "jobs": [job(0, 29.1)]},
        {"phase": "shared", "repeat": 0, "jobs": [job(number, 40.4 + number / 5) for number in range(4)]},
    ]
    parameters = {"model": "resnet50", "batch_size": 32, "image_size": 224, "steps": 100, "jobs": 4, "fraction": 0.2}
    return build_report({"runs": runs}, parameters, "2026-03-04T09:00:00Z")


class Centre:
    """A running simulator and the modules run against it."""

    def __init__(self, directory: Path, ready: dict[str, Any], password: str) -> None:
        self.directory = directory
        self.connection = {
            "hostname": "127.0.0.1",
            "port": ready["port"],
            "username": "administrator@vsphere.local",
            "password": password,
            "ca_file": ready["certificate"],
            "session_dir": str(directory / "sessions"),
        }

    def run(self, module: str, **options: Any) -> dict[str, Any]:
        """The result of a module. Raises SystemExit where it fails."""
        done = subprocess.run(
            [sys.executable, "-m", f"ansible_collections.gpuops.vsphere.plugins.modules.{module}"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": {**self.connection, **options}}),
            env={**os.environ, "PYTHONPATH": str(TOP / "collections")},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{module}: {done.stdout}{done.stderr}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def wait(self, span: datetime.timedelta) -> None:
        """Let simulated time pass."""
        tls = ssl.create_default_context(cafile=self.connection["ca_file"])
        names = {"host": "127.0.0.1", "port": self.connection["port"], "user": self.connection["username"]}
        service = SmartConnect(**names, pwd=self.connection["password"], sslContext=tls)
        end = service.CurrentTime() + span
        while service.CurrentTime() < end:
            time.sleep(0.2)
        Disconnect(service)

    def file(self, name: str, data: Any) -> str:
        """Write JSON, and give the path."""
        path = self.directory / name
        path.write_text(json.dumps(data), encoding="utf-8")
        return str(path)


@contextmanager
def centre(directory: Path, described: dict[str, Any]) -> Iterator[Centre]:
    """Start the simulator with a model, and stop it in the end."""
    password = secrets.token_urlsafe(24)
    secret, ready, log = directory / "password", directory / "ready.json", directory / "log"
    secret.touch(mode=0o600)
    secret.write_text(password, encoding="utf-8")
    (directory / "model.yml").write_text(yaml.safe_dump(described), encoding="utf-8")
    command = [
        str(Path(sys.executable).parent / "vsphere-simulator"), "serve", "--model", str(directory / "model.yml"),
        "--listen", "127.0.0.1:0", "--username", "administrator@vsphere.local", "--password-file", str(secret),
        "--time-scale", str(TIME_SCALE), "--ready-file", str(ready),
    ]  # fmt: skip
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the simulator did not start:\n{log.read_text(encoding='utf-8')}")
            time.sleep(0.05)
        yield Centre(directory, json.loads(ready.read_text(encoding="utf-8")), password)
    finally:
        process.terminate()
        process.wait(30)


def make_day(site: Centre) -> tuple[Path, Path]:
    """A day on which compute machines take what desktops leave: its page, and its JSON."""
    kinds = (("desktops", "100"), ("compute", "1"))
    site.run(
        "vm_shares",
        remember=True,
        pools=[{"name": name, "cpu": {"shares": shares}, "memory": {"shares": shares}} for name, shares in kinds],
    )
    site.wait(datetime.timedelta(hours=24, minutes=10))
    page, data = site.directory / "day.html", site.directory / "day.json"
    site.run(
        "harvest_report",
        desktop_pools=["desktops"],
        compute_pools=["compute"],
        page_path=str(page),
        path=str(data),
        assets=str(ASSETS),
        title="Cycle harvesting",
    )
    return page, data


def make_page(site: Centre, machines: Sequence[dict[str, Any]], day: Path) -> Path:
    """The fleet page of the centre, after some desktops were suspended and a GPU's passthrough was changed."""
    asleep = [vm["name"] for vm in machines if vm["name"].startswith("desk") and vm["name"][-1] in "147"]
    site.run("vm_power", vms=asleep, state="suspended")
    site.run(
        "esxi_passthrough",
        hosts=[{"name": "esx-v100-05.dc", "devices": [{"address": "0000:af:00.0"}]}],
        enabled=False,
    )
    plan = site.run("gpu_plan", action="contract", retiring=["esx-a100-03.dc"], object_errors="report")
    page = site.directory / "fleet.html"
    site.run(
        "fleet_report",
        path=str(page),
        assets=str(ASSETS),
        title="GPUs of the computing centre",
        tenants={
            "desktops": ["desk-*"],
            "physics": ["phys-*"],
            "chemistry": ["chem-*"],
            "biology": ["bio-*"],
            "training": ["train-*"],
        },
        jobs_file=site.file("jobs.json", jobs(machines)),
        doctor_file=site.file("doctor.json", findings()),
        plan_file=site.file("plan.json", plan),
        benchmark_file=site.file("benchmark.json", benchmark()),
        day_file=str(day),
    )
    return page


def photograph(page: Path, day: Path, into: Path) -> None:
    """Open the pages in Chromium and write the pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
        for name, size, scheme, fragment in SHOTS:
            tab = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
            tab.goto(page.as_uri() + fragment)
            tab.wait_for_selector(".row")
            if size["width"] > 1000:
                tab.wait_for_selector(".plot canvas")
                for row in OPENED:
                    tab.click(f'.row[aria-label^="{row}"]')
                tab.mouse.move(0, 0)
            else:
                tab.locator("#fleet").evaluate("element => element.scrollIntoView()")
            tab.screenshot(path=into / name)
            tab.close()
            print(f"==> {into / name}")
        name, size, scheme = DAY
        tab = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
        tab.goto(day.as_uri())
        tab.wait_for_selector(".plot canvas")
        tab.screenshot(path=into / name)
        print(f"==> {into / name}")
        browser.close()


def photograph_benchmark(directory: Path, into: Path) -> None:
    """The page of the sharing benchmark."""
    page = directory / "benchmark.html"
    page.write_text(benchmark_page(benchmark()), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1060, "height": 760}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.wait_for_selector(".plot canvas")
        tab.screenshot(path=into / "benchmark.png")
        print(f"==> {into / 'benchmark.png'}")
        browser.close()


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description="Make the pictures of docs/images.")
    parser.add_argument("--into", type=Path, default=IMAGES, help="directory for the pictures")
    parser.add_argument("--keep", type=Path, help="also keep the page in this file")
    asked = parser.parse_args()
    asked.into.mkdir(parents=True, exist_ok=True)
    described = model()
    with (
        tempfile.TemporaryDirectory(prefix="gpuops-pictures-") as directory,
        centre(Path(directory), described) as site,
    ):
        day, data = make_day(site)
        page = make_page(site, described["vms"], data)
        photograph(page, day, asked.into)
        photograph_benchmark(site.directory, asked.into)
        if asked.keep:
            asked.keep.write_bytes(page.read_bytes())


if __name__ == "__main__":
    main()
