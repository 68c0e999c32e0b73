#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_gpu_info
short_description: What a guest knows of its GPUs, driver and licence
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Runs on a guest (a virtual machine with Linux) and reads its NVIDIA driver, GPUs, licence daemon, clock and what
    keeps nouveau out. It changes nothing and needs no connection to a vCenter.
  - Needs root to read the daemon's log.
options:
  controller_time:
    description:
      - The controller's clock in seconds since 1970, such as C(now().timestamp()) of a template, for comparison.
    type: float
  container_command:
    description:
      - Program that runs containers, V(apptainer) or V(singularity).
    type: str
    default: apptainer
  container_image:
    description:
      - Image in which to look for the GPUs with C(--nv). If not set, no container is started.
    type: path
extends_documentation_fragment:
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    description: Where the module's work can take effect.
    platforms: posix
    support: full
  action_group:
    support: none
    membership: []
seealso:
  - module: gpuops.vsphere.vm_gpu
"""

EXAMPLES = r"""
- name: Read a guest
  gpuops.vsphere.guest_gpu_info:
  register: guest

- name: Also what a container sees
  gpuops.vsphere.guest_gpu_info:
    container_image: /srv/images/pytorch.sif
"""

RETURN = r"""
guest:
  description: What was read.
  returned: success
  type: dict
  contains:
    kernel:
      description: Release of the running kernel.
      type: str
    installed:
      description: Version of the driver on disk, empty for none.
      type: str
    loaded:
      description: Version of the driver in the running kernel, empty for none.
      type: str
    smi_error:
      description: Why nvidia-smi does not answer, empty if it does.
      type: str
    nouveau_loaded:
      description: Whether nouveau is loaded.
      type: bool
    nouveau_blocked:
      description: Whether modprobe.d keeps nouveau out.
      type: bool
    gpus:
      description: GPUs that the driver sees, with address, name, uuid, persistence and licence.
      type: list
      elements: dict
    pci:
      description: NVIDIA display devices on the PCI bus, with address, id and the memory BARs without an address.
      type: list
      elements: dict
    gridd:
      description:
        - The licence daemon, whether it is present, active, older than its settings (stale), its FeatureType and the
          last lines of its log.
      type: dict
    clock:
      description: Whether the clock is synchronised, what says so, and how far it is from the controller's in seconds.
      type: dict
    container:
      description: Image, number of GPUs seen in it and error; null if not asked for.
      type: dict
"""

import os
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import guest_facts as read

GRIDD_CONF = Path("/etc/nvidia/gridd.conf")
TOKENS = Path("/etc/nvidia/ClientConfigToken")
MODULES = Path("/sys/module")
PCI_DEVICES = Path("/sys/bus/pci/devices")
DISPLAY_CLASSES = ("0x0300", "0x0302")
MODPROBE_D = ("/etc/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d", "/run/modprobe.d")
GRIDD_STATE = ("LoadState", "ActiveState", "ActiveEnterTimestampMonotonic", "InvocationID")
PROGRAM_TIMEOUT = "60"


def text_of(path: Path) -> str:
    """Content of a file, empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


class Guest:
    """The guest's programs and files, read through the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module

    def run(self, *command: str) -> tuple[int, str, str]:
        """Exit code, output and errors of a program; 127 if it is not there."""
        program = self._module.get_bin_path(command[0])
        if not program:
            return 127, "", f"{command[0]} is not installed"
        bounded = [self._module.get_bin_path("timeout", required=True), PROGRAM_TIMEOUT, program, *command[1:]]
        code, out, err = self._module.run_command(bounded, environ_update={"LC_ALL": "C.UTF-8"})
        if code == 124:
            err = f"{command[0]} did not answer within {PROGRAM_TIMEOUT} s"
        return code, out, err

    def installed(self, kernel: str) -> str:
        """Driver version on disk: the module of the running kernel, else what DKMS holds."""
        code, out, _err = self.run("modinfo", "-k", kernel, "-F", "version", "nvidia")
        if code == 0 and out.strip():
            return str(out.strip())
        return read.parse_dkms(self.run("dkms", "status")[1])

    def pci(self) -> tuple[read.PciGpu, ...]:
        """NVIDIA's display devices in sysfs."""
        found = []
        for directory in sorted(PCI_DEVICES.glob("*")):
            vendor = text_of(directory / "vendor").strip().removeprefix("0x")
            if vendor == read.NVIDIA and text_of(directory / "class").startswith(DISPLAY_CLASSES):
                device = text_of(directory / "device").strip().removeprefix("0x")
                bars = read.unassigned_bars(text_of(directory / "resource"))
                found.append(read.PciGpu(directory.name, f"{vendor}:{device}", bars))
        return tuple(found)

    def gridd(self) -> read.Gridd:
        """The licence daemon, with the end of its log where it runs or has failed."""
        show = self.run("systemctl", "show", "nvidia-gridd", "-p", ",".join(GRIDD_STATE))
        state = dict(line.split("=", 1) for line in show[1].splitlines() if "=" in line)
        present = state.get("LoadState") == "loaded"
        active = state.get("ActiveState") == "active"
        changed = [path for path in (GRIDD_CONF, TOKENS, *TOKENS.glob("*.tok")) if path.exists()]
        began = time.time() - time.monotonic() + int(state.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        stale = active and any(path.stat().st_ctime > began for path in changed)
        log: list[str] = []
        if state.get("InvocationID"):  # only what this run of the daemon says
            invocation = f"_SYSTEMD_INVOCATION_ID={state['InvocationID']}"
            _code, out, _err = self.run("journalctl", invocation, "-n", "5", "-o", "cat", "--no-pager", "-q")
            log = [line for line in out.splitlines() if line.strip()]
        return read.Gridd(present, active, stale, read.parse_feature_type(text_of(GRIDD_CONF)), tuple(log))

    def clock(self, controller_time: float | None) -> read.Clock:
        """What keeps the clock, and how far it is from the controller's."""
        offset = None if controller_time is None else round(time.time() - controller_time, 1)
        for source, command, parse in (
            ("chronyc", ("chronyc", "-c", "tracking"), read.parse_chronyc),
            ("timedatectl", ("timedatectl", "show"), read.parse_timedatectl),
        ):
            code, out, _err = self.run(*command)
            state = parse(out) if code == 0 else None
            if state is not None:
                return read.Clock(state, source, offset)
        return read.Clock(None, "", offset)

    def container(self, command: str, image: str) -> read.ContainerView:
        """The GPUs that nvidia-smi lists in a container."""
        code, out, err = self.run(command, "exec", "--nv", image, "nvidia-smi", "-L")
        if code:
            lines = [line for line in (err or out).splitlines() if line.strip()]
            return read.ContainerView(image, 0, lines[-1].strip() if lines else f"exit code {code}")
        return read.ContainerView(image, sum(line.startswith("GPU ") for line in out.splitlines()), "")

    def facts(self, controller_time: float | None, command: str, image: str | None) -> read.GuestFacts:
        """Everything."""
        kernel = os.uname().release
        clock = self.clock(controller_time)  # first: the comparison is with the time at which the task began
        code, out, err = self.run("nvidia-smi", "-q")
        answering, gpus = read.parse_smi(out) if code == 0 else ("", ())
        # The kernel knows it also where nvidia-smi refuses, as it does after an upgrade without a reboot.
        loaded = text_of(MODULES / "nvidia" / "version").strip() or answering
        said = (out.strip() or err.strip()).splitlines()
        return read.GuestFacts(
            kernel=kernel,
            installed=self.installed(kernel),
            loaded=loaded,
            smi_error=(said[0] if said else f"exit code {code}") if code else "",
            nouveau_loaded=(MODULES / "nouveau").is_dir(),
            nouveau_blocked=read.blocks_nouveau(
                text_of(path) for place in MODPROBE_D for path in Path(place).glob("*.conf")
            ),
            gpus=gpus,
            pci=self.pci(),
            gridd=self.gridd(),
            clock=clock,
            container=self.container(command, image) if image else None,
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "controller_time": {"type": "float"},
            "container_command": {"type": "str", "default": "apptainer"},
            "container_image": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    facts = Guest(module).facts(params["controller_time"], params["container_command"], params["container_image"])
    module.exit_json(changed=False, guest=facts.to_dict())


if __name__ == "__main__":
    main()
