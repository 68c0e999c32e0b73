"""Roles, permissions and the checks made before a method runs."""

from __future__ import annotations

import dataclasses
import functools
import secrets
import typing as t

from vsphere_simulator.vmomi import make, support, vim

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from vsphere_simulator.kernel.objects import ManagedObject
    from vsphere_simulator.kernel.registry import World
    from vsphere_simulator.kernel.sessions import Session

ANYONE = frozenset({"System.Anonymous", "System.View", "System.Read"})
"""Every role but No access holds these."""


@dataclasses.dataclass(frozen=True, slots=True)
class Role:
    """A named set of privileges; None stands for all there are."""

    role_id: int
    name: str
    privileges: frozenset[str] | None
    system: bool = False

    def holds(self, privilege: str) -> bool:
        """Say whether the role includes a privilege."""
        return self.privileges is None or privilege in self.privileges


@dataclasses.dataclass(frozen=True, slots=True)
class Permission:
    """A role given to one user on one entity (and below, when it propagates)."""

    user: str
    role: Role
    propagate: bool = True


SYSTEM_ROLES = (
    Role(-1, "Admin", None, system=True),
    Role(-2, "ReadOnly", ANYONE, system=True),
    Role(-3, "View", frozenset({"System.Anonymous", "System.View"}), system=True),
    Role(-4, "Anonymous", frozenset({"System.Anonymous"}), system=True),
    Role(-5, "NoAccess", frozenset(), system=True),
)


class Authorization:
    """Users with their passwords, roles, and who holds which role where."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.roles: dict[str, Role] = {role.name: role for role in SYSTEM_ROLES}
        self._passwords: dict[str, str] = {}
        self._permissions: dict[str, dict[str, Permission]] = {}

    def add_role(self, name: str, privileges: Iterable[str]) -> Role:
        """Define a role; what every role holds is included."""
        if name in self.roles:
            raise ValueError(f"role {name} exists already")
        role_id = 1 + max(max(role.role_id for role in self.roles.values()), 100)
        role = self.roles[name] = Role(role_id, name, ANYONE | frozenset(privileges))
        return role

    def add_user(self, name: str, password: str, role: str = "Admin", entity: ManagedObject | None = None) -> None:
        """Let a user log in, holding a role on an entity and below (default: the root folder).

        Raises KeyError for an unknown role.
        """
        granted = Permission(_normal(name), self.roles[role])
        self._passwords[granted.user] = password
        target = entity.moid if entity is not None else self.world.root.moid
        self._permissions.setdefault(target, {})[granted.user] = granted

    def authenticate(self, name: str, password: str) -> bool:
        """Say whether a user exists with that password."""
        expected = self._passwords.get(_normal(name))
        given = password.encode()
        return secrets.compare_digest((expected or "").encode(), given) and expected is not None

    def permissions_on(self, entity: ManagedObject) -> list[t.Any]:
        """Return the permissions set on an entity itself, as the API's data objects."""
        return [
            make(
                vim.AuthorizationManager.Permission,
                entity=entity.ref,
                principal=granted.user,
                group=False,
                roleId=granted.role.role_id,
                propagate=granted.propagate,
            )
            for granted in self._permissions.get(entity.moid, {}).values()
        ]

    def all_permissions(self) -> list[t.Any]:
        """Return every permission there is."""
        found = []
        for moid in self._permissions:
            entity = self.world.objects.get(moid)
            if entity is not None:
                found += self.permissions_on(entity)
        return found

    def known_privileges(self) -> frozenset[str]:
        """Return the privileges that the API's registry or a role names."""
        of_roles = (role.privileges for role in self.roles.values() if role.privileges is not None)
        return _registry_privileges().union(*of_roles)

    def role_on(self, user: str, obj: ManagedObject | None) -> Role | None:
        """Return the role a user has on an object: the nearest permission on the way to the root."""
        key, root = _normal(user), self.world.root
        first = True
        while obj is not None:
            granted = self._permissions.get(obj.moid, {}).get(key)
            if granted is not None and (first or granted.propagate):
                return granted.role
            first = False
            obj = obj.parent or (root if obj is not root else None)
        return None

    def unrestricted(self, user: str) -> bool:
        """Say whether a user may do everything everywhere, so that single checks can be left out."""
        key = _normal(user)
        granted = {moid: held[key] for moid, held in self._permissions.items() if key in held}
        at_root = granted.pop(self.world.root.moid, None)
        return not granted and at_root is not None and at_root.propagate and at_root.role.privileges is None

    def holds(self, user: str, obj: ManagedObject, privilege: str) -> bool:
        """Say whether a user holds a privilege on an object."""
        if privilege in ("", "System.Anonymous") or (privilege == "System.View" and obj.parent is None):
            return True
        role = self.role_on(user, obj)
        return role is not None and role.holds(privilege)

    def require(self, session: Session | None, obj: ManagedObject, privilege: str) -> None:
        """Raise NoPermission, naming object and privilege, unless the session's user holds it there.

        Methods whose one request needs several privileges call this for each that applies.
        """
        if session is None or not self.holds(session.user, obj, privilege):
            raise vim.fault.NoPermission(
                object=obj.ref, privilegeId=privilege, msg="Permission to perform this operation was denied."
            )


@functools.cache
def _registry_privileges() -> frozenset[str]:
    """Return every privilege that a method, a parameter or a property of the API asks for."""
    found: set[str | None] = set()
    for name in support.ListManagedTypes():
        if name.startswith(("vim.", "vmodl.query.")):
            wsdl_type = support.GetVmodlType(name)
            found.update(info.privId for info in wsdl_type._propList)
            for info in wsdl_type._methodInfo.values():
                found.add(info.privId)
                found.update(param.privId for param in info.params)
    return frozenset(privilege for privilege in found if privilege)


def _normal(user: str) -> str:
    """Return the one spelling of a user: names are case-insensitive, `DOMAIN\\user` is `user@domain`."""
    if "\\" in user:
        domain, _, name = user.partition("\\")
        user = f"{name}@{domain}"
    return user.casefold()
