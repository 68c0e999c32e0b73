# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pool's shared directories: what the file server exports, and what one machine mounts. Pure.

| kind | where the directories come from |
|---|---|
| nfs | one file server exports them; others mount them |
| bind | each machine has them under another name already, for example as a share of its hypervisor |
| none | the site mounts them itself; they are only looked for |
"""

from __future__ import annotations

import re
import typing as t

KINDS = ("nfs", "bind", "none")
DEFAULT_OPTIONS = {"nfs": "hard,_netdev", "bind": "bind"}
# Spaces, commas, brackets and the like would mean something in an export or in a unit.
_PATH = re.compile(r"(/[A-Za-z0-9_.-]+)+")
_OPTIONS = re.compile(r"[A-Za-z0-9_.:=/,@-]+")


def plan_storage(
    directories: t.Sequence[t.Mapping[str, t.Any]],
    *,
    host: str,
    kind: str,
    server: str,
    exported: bool,
    hosts: t.Sequence[str],
    addresses: t.Mapping[str, str],
) -> dict[str, t.Any]:
    """What `host` exports and mounts: `exports` (lines), `sources` (to make there), `mounts`, `paths`, `problems`.

    `directories`: {path, source, hosts, options, root, owner, group, mode}, of which only `path` must be there.
    `exported`: whether the server is one of the inventory. `hosts`: who mounts what names no hosts. `addresses`: by
    which the server knows a host, and hosts the server.
    """
    problems = _problems(directories, kind, server)
    plan: dict[str, t.Any] = {"exports": [], "sources": [], "mounts": [], "paths": [], "problems": problems}
    if problems:
        return plan
    for entry in directories:
        users = list(entry.get("hosts") or hosts)
        source = str(entry.get("source") or entry["path"])
        if kind == "nfs" and exported and host == server:
            plan["sources"].append({"path": source, **{key: entry[key] for key in _OWNERS if key in entry}})
            others = [user for user in users if user != server]
            if others:
                plan["exports"].append(_export(source, others, addresses, root=bool(entry.get("root"))))
        if host in users:
            plan["paths"].append(str(entry["path"]))
            plan["mounts"] += _mount(entry, source, host, kind, server, addresses)
    return plan


_OWNERS = ("owner", "group", "mode")


def unit_name(path: str) -> str:
    """The systemd mount unit of a path (systemd.unit(5): what is not allowed in names is written as its bytes)."""
    return (
        "-".join(_escape(part, first=number == 0) for number, part in enumerate(path.strip("/").split("/"))) + ".mount"
    )


def _escape(part: str, *, first: bool) -> str:
    kept = re.sub(r"[^A-Za-z0-9:_.]", lambda found: "".join(f"\\x{byte:02x}" for byte in found[0].encode()), part)
    return f"\\x2e{kept[1:]}" if first and kept.startswith(".") else kept


def _export(source: str, users: t.Sequence[str], addresses: t.Mapping[str, str], *, root: bool) -> str:
    options = f"rw,sync,no_subtree_check,{'no_root_squash' if root else 'root_squash'}"
    return " ".join([source, *(f"{addresses.get(user) or user}({options})" for user in users)])


def _mount(
    entry: t.Mapping[str, t.Any], source: str, host: str, kind: str, server: str, addresses: t.Mapping[str, str]
) -> list[dict[str, str]]:
    path = str(entry["path"])
    if kind == "none" or (source == path and (kind == "bind" or host == server)):
        return []
    # The server itself has the files; it only needs them under the same name.
    how = "bind" if kind == "bind" or host == server else "nfs"
    options = str(entry.get("options") or DEFAULT_OPTIONS[how]) if how == kind else DEFAULT_OPTIONS[how]
    return [
        {
            "path": path,
            "unit": unit_name(path),
            "what": f"{addresses.get(server) or server}:{source}" if how == "nfs" else source,
            "type": "nfs4" if how == "nfs" else "none",
            "options": options,
        }
    ]


def _problems(directories: t.Sequence[t.Mapping[str, t.Any]], kind: str, server: str) -> list[str]:
    if kind not in KINDS:
        return [f"gpu_pool_storage_kind is {kind!r}; it must be one of {', '.join(KINDS)}."]
    found = []
    if kind == "nfs" and directories and not server:
        found.append(
            "gpu_pool_storage_server is empty: put the file server into the group gpu_pool_storage, or name one."
        )
    paths = [str(entry.get("path") or "") for entry in directories]
    for entry, path in zip(directories, paths, strict=True):
        for name, value in (("path", path), ("source", str(entry.get("source") or path))):
            if not _PATH.fullmatch(value) or {".", ".."} & set(value.split("/")):
                found.append(
                    f"gpu_pool_storage_directories: the {name} {value!r} is no absolute path of letters, digits, "
                    "_ . and -."
                )
        if entry.get("options") and not _OPTIONS.fullmatch(str(entry["options"])):
            found.append(
                f"gpu_pool_storage_directories: the options of {path}, {entry['options']!r}, have a strange character."
            )
        if kind == "bind" and not entry.get("source"):
            found.append(
                f"gpu_pool_storage_directories: {path} has no source, the directory under which the machines have it."
            )
    found += [
        f"gpu_pool_storage_directories names {path} twice." for path in sorted(set(paths)) if paths.count(path) > 1
    ]
    return found
