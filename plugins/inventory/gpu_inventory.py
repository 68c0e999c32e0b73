# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
name: gpu_inventory
short_description: ESXi hosts and virtual machines of a vCenter with their GPUs
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Lists the ESXi hosts and virtual machines of a vCenter with facts of their GPUs, in a number of requests that does
    not depend on how many there are.
  - The configuration file's name ends in C(gpu_inventory.yml) or C(vsphere_gpu.yml) (or C(.yaml)).
  - "Groups that are made unless O(gpu_groups) is off: V(esxi), V(vms), V(gpu_hosts), V(gpu_vms), V(gpu_free) (hosts
    with a GPU that nobody has), V(passthrough_pending) (hosts whose passthrough waits for a reboot),
    V(in_maintenance), V(not_connected), V(gpu_model_<board>), V(vgpu_profile_<profile>), V(cluster_<name>),
    V(power_on), V(power_off), V(power_suspended). Names are in lower case, with C(_) for what Ansible does not take."
  - "Variables of hosts: C(gpuops_kind), C(gpuops_name), C(gpuops_moid), C(gpuops_uuid), C(gpuops_cluster),
    C(gpuops_connection), C(gpuops_in_maintenance), C(gpuops_gpus) (as M(gpuops.vsphere.esxi_gpu_info) returns them),
    C(gpuops_gpu_models), C(gpuops_gpus_free), C(gpuops_passthrough_pending), C(gpuops_vgpu_types)."
  - "Variables of machines: C(gpuops_kind), C(gpuops_name), C(gpuops_moid), C(gpuops_uuid), C(gpuops_cluster),
    C(gpuops_host), C(gpuops_power), C(gpuops_template), C(gpuops_guest_ip), C(gpuops_gpus), C(gpuops_gpu_models),
    C(gpuops_vgpu_profiles), and C(ansible_host) where the guest reports an address."
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
requirements:
  - pyvmomi >= 9.1
  - lxml >= 6.0 (optional, makes large inventories several times faster)
options:
  plugin:
    description:
      - Name of this plugin.
    type: str
    required: true
    choices: [gpuops.vsphere.gpu_inventory]
  hostname:
    description:
      - Name or address of the vCenter. May be a template.
    type: str
    required: true
    env:
      - name: VMWARE_HOST
  port:
    description:
      - HTTPS port of the vCenter. May be a template.
    type: str
    default: "443"
    env:
      - name: VMWARE_PORT
  username:
    description:
      - User to log in as. May be a template.
    type: str
    required: true
    env:
      - name: VMWARE_USER
  password:
    description:
      - Password of the user. May be a template (with a lookup, for example), or encrypted with Ansible Vault.
      - It is neither stored nor shown, and never part of the cache.
    type: str
    required: true
    env:
      - name: VMWARE_PASSWORD
  validate_certs:
    description:
      - Whether the vCenter's certificate must be trusted. Switch it off in a lab only.
    type: bool
    default: true
    env:
      - name: VMWARE_VALIDATE_CERTS
  ca_file:
    description:
      - PEM file with the CA certificates, or the server's own certificate, that are trusted instead of the system's.
        May be a template.
    type: str
    env:
      - name: VMWARE_CA_FILE
  thumbprint:
    description:
      - SHA-256 or SHA-1 thumbprint of the vCenter's certificate, as V(AA:BB:...). May be a template.
      - Exactly that certificate is trusted then, whatever its issuer, name or dates.
    type: str
    env:
      - name: VMWARE_THUMBPRINT
  session_dir:
    description:
      - Directory in which the session of a vCenter and user is kept, shared with the modules, so that an inventory and
        its play log in once.
    type: path
    default: ~/.ansible/gpuops/sessions
  gather:
    description:
      - What to list.
    type: list
    elements: str
    choices: [hosts, vms]
    default: [hosts, vms]
  templates:
    description:
      - Whether templates are listed with the virtual machines.
    type: bool
    default: false
  hostnames:
    description:
      - How an object is called in the inventory; the first of these that gives something is taken.
      - V(name), V(uuid) (a host's hardware UUID, a machine's instance UUID), V(moid), V(guest_ip), or a Jinja
        expression over the object's variables.
      - An object for which none gives anything is called by its name.
    type: list
    elements: str
    default: [name]
  duplicate_names:
    description:
      - What to do where several objects (machines in different folders, for example) would have one name.
      - V(suffix) appends C(_) and the managed object id to each of them, so that names are the same in every run.
        V(skip) leaves all of them out and warns. V(fail) fails.
    type: str
    choices: [suffix, skip, fail]
    default: suffix
  filters:
    description:
      - Jinja expressions over an object's variables; an object is listed only if all of them are true.
      - An expression that fails leaves the object out, or fails the inventory if O(strict) is set.
    type: list
    elements: str
    default: []
  gpu_groups:
    description:
      - Whether the groups named in the description are made.
    type: bool
    default: true
  bar_overrides:
    description:
      - Sizes of memory regions by vendor and device id, as for M(gpuops.vsphere.esxi_gpu_info).
    type: dict
    default: {}
notes:
  - Hosts and machines are read in two requests at the same time (more where the vCenter answers in pages).
seealso:
  - module: gpuops.vsphere.esxi_gpu_info
"""

EXAMPLES = r"""
# lab.gpu_inventory.yml: every host and machine, and the groups above
plugin: gpuops.vsphere.gpu_inventory
hostname: vcenter.example.org
username: inventory@vsphere.local
password: "{{ lookup('ansible.builtin.file', '~/.vcenter-password') }}"
---
# gpu_inventory.yml: running GPU machines, by guest name, cached for ten minutes
plugin: gpuops.vsphere.gpu_inventory
hostname: vcenter.example.org
username: inventory@vsphere.local
password: "{{ lookup('ansible.builtin.env', 'VCENTER_PASSWORD') }}"
gather: [vms]
filters:
  - gpuops_gpus | length > 0
  - gpuops_power == 'poweredOn'
hostnames:
  - gpuops_name ~ '.gpu.example.org'
compose:
  ansible_user: "'ansible'"
keyed_groups:
  - key: gpuops_host
    prefix: "on"
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.ansible/gpuops/inventory
cache_timeout: 600
---
# vsphere_gpu.yml: hosts with at least four free GPUs of 80 GB
plugin: gpuops.vsphere.gpu_inventory
hostname: vcenter.example.org
username: inventory@vsphere.local
password: "{{ lookup('ansible.builtin.env', 'VCENTER_PASSWORD') }}"
gather: [hosts]
groups:
  room_for_a_big_job: gpuops_gpus | selectattr('free') | selectattr('framebuffer_gb', 'ge', 80) | length >= 4
"""

import typing as t
from pathlib import Path

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog, OverrideError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.inventory import (
    DuplicateNameError,
    Entry,
    unique_names,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import GpuOpsError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.garbage import collection_paused
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.inventory import gather
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import ConnectionOptions

_SUFFIXES = tuple(f"{stem}.{end}" for stem in ("gpu_inventory", "vsphere_gpu") for end in ("yml", "yaml"))
_CONNECTION = (
    "hostname",
    "port",
    "username",
    "password",
    "validate_certs",
    "ca_file",
    "thumbprint",
    "session_dir",
)
_NAMED = {
    "name": "gpuops_name",
    "uuid": "gpuops_uuid",
    "moid": "gpuops_moid",
    "guest_ip": "gpuops_guest_ip",
}
# Changes with what is kept in the cache.
_FORMAT = 1


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]  # Ansible is untyped
    """Facts of hosts and machines, as hosts of an inventory."""

    NAME = "gpuops.vsphere.gpu_inventory"

    def verify_file(self, path: str) -> bool:
        """Whether the file is a configuration of this plugin, by its name."""
        return bool(super().verify_file(path)) and path.endswith(_SUFFIXES)

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        """Fill the inventory. Raises AnsibleParserError for what an operator can mend."""
        super().parse(inventory, loader, path, cache=cache)
        self._read_config_data(path)
        try:
            with collection_paused():
                self._fill(self._entries(path, cache))
        except (GpuOpsError, OverrideError, DuplicateNameError) as error:
            raise AnsibleParserError(str(error)) from error

    def _entries(self, path: str, cache: bool) -> dict[str, Entry]:
        """What is gathered, from the cache if it may be."""
        wanted = {
            "format": _FORMAT,
            "gather": sorted(self.get_option("gather")),
            "templates": self.get_option("templates"),
            "hostname": self._text("hostname"),
            "username": self._text("username"),
        }
        use_cache = self.get_option("cache")
        key = self.get_cache_key(path)
        if use_cache and cache:
            kept = self._cache.get(key)
            if kept and {name: kept.get(name) for name in wanted} == wanted:
                entries: dict[str, Entry] = kept["entries"]
                return entries
        params = {name: self._text(name) for name in _CONNECTION} | {"port": self._port()}
        if params["ca_file"]:
            # Not an option of type path: that would take a template for a relative path.
            params["ca_file"] = str(Path(params["ca_file"]).expanduser().absolute())
        with Client.open(ConnectionOptions.from_params(params)) as client:
            found = gather(
                client,
                self.get_option("gather"),
                templates=self.get_option("templates"),
                catalog=Catalog(self.get_option("bar_overrides")),
            )
        if found.unreadable:
            self.display.warning(
                f"{found.unreadable} objects of {params['hostname']} cannot be read by {params['username']}, and are "
                "left out. Give the user a role with System.Read there."
            )
        if use_cache:
            self._cache[key] = {**wanted, "entries": found.entries}
        return found.entries

    def _text(self, name: str) -> t.Any:
        """An option, its template carried out."""
        value = self.get_option(name)
        if isinstance(value, str) and self.templar.is_template(value):
            try:
                value = self.templar.template(value)
            except AnsibleError as error:
                raise AnsibleParserError(f"{name}: the template cannot be evaluated: {error}") from error
        return value

    def _port(self) -> int:
        text = str(self._text("port"))
        if not text.isdecimal():
            raise AnsibleParserError(f"port: {text} is not a number")
        return int(text)

    def _fill(self, entries: dict[str, Entry]) -> None:
        strict, filters = self.get_option("strict"), self.get_option("filters")
        kept = {moid: entry for moid, entry in entries.items() if self._wanted(entry, filters, strict)}
        named = [(moid, self._name(entry["vars"], strict)) for moid, entry in kept.items()]
        names = unique_names(named, self.get_option("duplicate_names"))
        if len(names) < len(named):
            self.display.warning(f"{len(named) - len(names)} objects share their name with others and are left out.")
        members: dict[str, list[str]] = {}
        for moid, name in names.items():
            self._add(name, kept[moid]["vars"], strict)
            if self.get_option("gpu_groups"):
                for group in kept[moid]["groups"]:
                    members.setdefault(group, []).append(name)
        for group, hosts in members.items():
            self.inventory.add_group(group)
            for host in hosts:
                self.inventory.add_child(group, host)

    def _add(self, name: str, variables: dict[str, t.Any], strict: bool) -> None:
        self.inventory.add_host(name)
        # Not through the inventory, which would note the file's name on every one of a hundred thousand values.
        host = self.inventory.get_host(name)
        for key, value in variables.items():
            host.set_variable(key, value)
        self._set_composite_vars(self.get_option("compose"), variables, name, strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict)

    def _wanted(self, entry: Entry, filters: list[str], strict: bool) -> bool:
        for expression in filters:
            try:
                if not self._compose(expression, entry["vars"]):
                    return False
            except AnsibleError as error:
                if strict:
                    raise AnsibleParserError(
                        f"filters: {expression} cannot be evaluated for {entry['vars']['gpuops_name']}: {error}"
                    ) from error
                return False
        return True

    def _name(self, variables: dict[str, t.Any], strict: bool) -> str:
        for choice in self.get_option("hostnames"):
            if choice in _NAMED:
                found = variables.get(_NAMED[choice])
            else:
                try:
                    found = self._compose(choice, variables)
                except AnsibleError as error:
                    if strict:
                        raise AnsibleParserError(
                            f"hostnames: {choice} cannot be evaluated for {variables['gpuops_name']}: {error}"
                        ) from error
                    continue
            if found:
                return str(found)
        return str(variables["gpuops_name"])
