# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    """Options of modules that choose hosts for virtual machines."""

    DOCUMENTATION = r"""
options:
  vms:
    description:
      - Virtual machines that shall run, whether they exist or not. One that runs keeps its place. One that exists and
        is off is placed on its host, as its fixed devices are there.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the virtual machine.
        type: str
        required: true
      gpus:
        description: Its GPUs.
        type: list
        elements: dict
        default: []
        suboptions:
          mode:
            description: V(fixed) or V(dynamic) DirectPath I/O, or V(vgpu).
            type: str
            choices: [fixed, dynamic, vgpu]
            required: true
          id:
            description: Vendor and device id in hexadecimal, for passthrough.
            type: str
          address:
            description: PCI address, for fixed devices.
            type: str
          label:
            description: Hardware label, for dynamic devices.
            type: str
          profile:
            description: Name of the vGPU profile, for example V(nvidia_a100-10c).
            type: str
          at_least_gb:
            description:
              - Instead of a profile, the framebuffer in GB that the vGPU must have at least.
              - Each host has its own profile for it, the smallest that has all that is asked for, as
                M(gpuops.vsphere.vm_gpu) chooses it.
            type: float
          at_most_gpu:
            description: Share of one GPU that the vGPU to be chosen may take, for example V(0.5).
            type: float
          migrate:
            description: Whether the vGPU to be chosen must support vMotion.
            type: bool
            default: false
          suspend:
            description: Whether the vGPU to be chosen must support suspending the virtual machine.
            type: bool
            default: false
          profile_class:
            description: Series of the vGPU to be chosen, V(compute) (C) if not set, or V(workstation) (Q).
            type: str
            choices: [compute, workstation]
          count:
            description: How many.
            type: str
            default: "1"
      memory_mb:
        description: Its memory in MB, all of which is reserved.
        type: int
      num_cpus:
        description: Its virtual CPUs.
        type: int
      host:
        description: The only host it may go to.
        type: str
      cluster:
        description: The only cluster it may go to.
        type: str
  goal:
    description:
      - What a good place is, after everything has one. V(spread) keeps as few machines together on a host as possible.
      - V(fill) takes as few GPUs into use as possible, V(fewest_hosts) as few hosts.
    type: str
    choices: [spread, fill, fewest_hosts]
    default: spread
  spare:
    description:
      - With V(host), what can restart elsewhere must still find room in its cluster when any one host fails. Machines
        with a fixed device can restart nowhere else, and do not count. A host whose failure is too much already is not
        made worse.
    type: str
    choices: [none, host]
    default: none
  max_moves:
    description:
      - How many running machines may be moved to make room for others. Machines with a fixed device, or with no GPU,
        are never moved.
    type: int
    default: 0
  anti_affinity:
    description:
      - Groups of virtual machines of which no two may share a host, each a list of names or shell patterns. They hold
        for machines that exist, too.
    type: dict
    default: {}
  cpu_overcommit:
    description:
      - How many virtual CPUs there may be for each logical CPU of a host.
    type: float
    default: 4.0
  host_memory_reserve_mb:
    description:
      - Memory of each host that is kept for the hypervisor, in MB. GPU machines have all their memory reserved.
    type: int
    default: 8192
  solver:
    description:
      - V(auto) proves that an answer is the best where that takes no more than seconds, by search or by OR-Tools'
        CP-SAT if it is installed, and else says how far from the best it may be. V(heuristic) does not try.
    type: str
    choices: [auto, heuristic, search, cp_sat]
    default: auto
"""
