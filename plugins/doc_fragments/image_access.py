# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    """Options of modules that reach the places where container images are published."""

    DOCUMENTATION = r"""
options:
  runtime:
    description: The program.
    type: str
    choices: [apptainer, singularity]
    default: apptainer
  username:
    description: User name for a web server.
    type: str
    default: ""
  password:
    description: Password for a web server.
    type: str
    default: ""
  ca_path:
    description: File with the certificate authority of a web server.
    type: path
  authfile:
    description: File with the credentials of a registry, as C(apptainer registry login --authfile) writes it.
    type: path
  insecure_registry:
    description: Speak HTTP with the registry.
    type: bool
    default: false
"""
