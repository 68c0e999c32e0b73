# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  hostname:
    description:
      - Name or address of the vCenter.
      - If not set, the environment variable E(VMWARE_HOST) is used.
    type: str
    required: true
  port:
    description:
      - HTTPS port of the vCenter.
      - If not set, the environment variable E(VMWARE_PORT) is used.
    type: int
    default: 443
  username:
    description:
      - User to log in as.
      - If not set, the environment variable E(VMWARE_USER) is used.
    type: str
    required: true
  password:
    description:
      - Password of the user. It is neither stored nor shown.
      - If not set, the environment variable E(VMWARE_PASSWORD) is used.
    type: str
    required: true
  validate_certs:
    description:
      - Whether the vCenter's certificate must be trusted. Switch it off in a lab only.
      - If not set, the environment variable E(VMWARE_VALIDATE_CERTS) is used.
    type: bool
    default: true
  ca_file:
    description:
      - PEM file with the CA certificates, or the server's own certificate, that are trusted instead of the system's.
      - If not set, the environment variable E(VMWARE_CA_FILE) is used.
    type: path
  thumbprint:
    description:
      - SHA-256 or SHA-1 thumbprint of the vCenter's certificate, as V(AA:BB:...).
      - Exactly that certificate is trusted then, whatever its issuer, name or dates.
      - If not set, the environment variable E(VMWARE_THUMBPRINT) is used.
    type: str
  session_dir:
    description:
      - Directory in which the session of a vCenter and user is kept from task to task, so that a play logs in once.
      - It must belong to the user who runs Ansible, and nobody else may be able to write to it.
    type: path
    default: ~/.ansible/gpuops/sessions
requirements:
  - pyvmomi >= 9.1
  - lxml >= 6.0 (optional, makes large reads several times faster)
notes:
  - Runs on the controller. Set C(connection) to V(local) and C(ansible_python_interpreter)
    to V({{ ansible_playbook_python }}).
  - One task serves many hosts or virtual machines with one login and a constant number of bulk reads.
"""

    BULK = r"""
options:
  max_parallel:
    description:
      - How many calls to the vCenter are made at a time.
    type: int
    default: 16
  timeout:
    description:
      - How many seconds the module waits for what it has begun on all objects together.
      - What is not over by then goes on in the vCenter, and is reported as failed with the code V(timeout).
    type: int
    default: 1800
  assume:
    description:
      - Facts that earlier steps predict, as their return value C(predicted) shows them.
        They are laid over those read from the vCenter.
      - Used in check mode only, so that a check run shows steps that depend on one another.
        In a real run the vCenter's facts are the truth.
    type: dict
    suboptions:
      hosts:
        description:
          - Predicted facts of ESXi hosts by name.
        type: dict
        default: {}
      vms:
        description:
          - Predicted facts of virtual machines by name.
        type: dict
        default: {}
  object_errors:
    description:
      - What a failure of single objects means. All other objects are served in either case.
      - With V(fail) the task fails in the end and names them.
      - With V(report) they are only reported in C(objects), for M(gpuops.vsphere.host_result) to fail each
        inventory host by itself; C(diff) and warnings are left to it as well.
    type: str
    choices: [fail, report]
    default: fail
"""
