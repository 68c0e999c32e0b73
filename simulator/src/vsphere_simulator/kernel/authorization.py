"""Roles, permissions and the checks made before a method runs."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import secrets
import typing as t

from vsphere_simulator.vmomi import make, support, vim, vmodl

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vsphere_simulator.kernel.objects import ManagedObject
    from vsphere_simulator.kernel.registry import World
    from vsphere_simulator.kernel.sessions import Session

ANYONE = frozenset({"System.Anonymous", "System.View", "System.Read"})
"""Every role but No access holds these."""


_FURTHER: t.Final = frozenset(
    f"VirtualMachine.Config.{name}"
    for name in (
        "AddExistingDisk", "AddNewDisk", "AddRemoveDevice", "AdvancedConfig", "Annotation", "CPUCount", "DiskExtend",
        "EditDevice", "ManagedBy", "Memory", "RawDevice", "RemoveDisk", "Rename", "Resource", "Settings",
        "UpgradeVirtualHardware",
    )
) | {
    "Datacenter.Rename", "Folder.Move", "Folder.Rename", "Host.Inventory.DeleteCluster", "Host.Inventory.MoveCluster",
    "Host.Inventory.RenameCluster", "InventoryService.Tagging.AttachTag", "InventoryService.Tagging.CreateCategory",
    "InventoryService.Tagging.CreateTag", "InventoryService.Tagging.DeleteCategory",
    "InventoryService.Tagging.DeleteTag", "InventoryService.Tagging.EditCategory", "InventoryService.Tagging.EditTag",
    "Network.Config", "Resource.DeletePool", "Resource.HotMigrate", "Resource.RenamePool",
    "VirtualMachine.Inventory.CreateFromExisting", "VirtualMachine.Inventory.Delete", "VirtualMachine.Inventory.Move",
    "VirtualMachine.Provisioning.Clone", "VirtualMachine.Provisioning.CloneTemplate",
    "VirtualMachine.Provisioning.DeployTemplate",
}  # fmt: skip
"""Privileges that a vCenter has and its API's registry does not name: of calls that check several, and of REST."""
_IMAGES: t.Final = frozenset(
    f"VcIntegrity.lifecycle{name}"
    for name in (
        "Depots.Delete", "General.Read", "Health.Read", "Settings.Read", "Settings.Write", "SoftwareRemediation.Read",
        "SoftwareRemediation.Write", "SoftwareSpecification.Read", "SoftwareSpecification.Write",
    )
)  # fmt: skip
"""Privileges about cluster images, which came with vSphere 7."""


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
    role_id: int
    propagate: bool = True


ADMIN = -1
"""Id of the role that holds everything."""
NO_ACCESS = -5
SYSTEM_ROLES = (
    Role(ADMIN, "Admin", None, system=True),
    Role(-2, "ReadOnly", ANYONE, system=True),
    Role(-3, "View", frozenset({"System.Anonymous", "System.View"}), system=True),
    Role(-4, "Anonymous", frozenset({"System.Anonymous"}), system=True),
    Role(NO_ACCESS, "NoAccess", frozenset(), system=True),
)


class Authorization:
    """Users with their passwords, roles, and who holds which role where."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.roles: dict[str, Role] = {role.name: role for role in SYSTEM_ROLES}
        self._passwords: dict[str, str] = {}
        self._permissions: dict[str, dict[str, Permission]] = {}
        self.asked: collections.Counter[str] = collections.Counter()
        """Privileges that calls asked for, by which tests see that a role has none too many."""
        self.has_images = True
        """Whether this vCenter's version knows of cluster images."""

    def add_role(self, name: str, privileges: Iterable[str]) -> Role:
        """Define a role; what every role holds is included."""
        if name in self.roles:
            raise ValueError(f"role {name} exists already")
        role_id = 1 + max(max(role.role_id for role in self.roles.values()), 100)
        role = self.roles[name] = Role(role_id, name, ANYONE | frozenset(privileges))
        return role

    def role(self, role_id: int) -> Role:
        """Return the role of an id. Raises NotFound."""
        for role in self.roles.values():
            if role.role_id == role_id:
                return role
        raise vim.fault.NotFound(msg=f"There is no role {role_id}.")

    def change_role(self, role_id: int, name: str, privileges: Iterable[str]) -> None:
        """Rename a role and replace its privileges.

        Raises NotFound, AlreadyExists, or InvalidArgument for a system role.
        """
        old = self._own_role(role_id)
        if name != old.name and name in self.roles:
            raise vim.fault.AlreadyExists(name=name, msg=f"The name '{name}' already exists.")
        fresh = Role(role_id, name, ANYONE | frozenset(privileges))
        self.roles = {role.name: role for role in (fresh if one is old else one for one in self.roles.values())}

    def remove_role(self, role_id: int, *, fail_if_used: bool) -> None:
        """Delete a role, and what grants it. Raises NotFound, InvalidArgument for a system role, or RemoveFailed."""
        role = self._own_role(role_id)
        used = [
            (held, user) for held in self._permissions.values() for user, one in held.items() if one.role_id == role_id
        ]
        if used and fail_if_used:
            raise vim.fault.RemoveFailed(msg=f"The role {role.name} is in use.")
        for held, user in used:
            del held[user]
        del self.roles[role.name]

    def _own_role(self, role_id: int) -> Role:
        role = self.role(role_id)
        if role.system:
            raise vmodl.fault.InvalidArgument(
                invalidProperty="roleId", msg=f"The role {role.name} is a system role and cannot be changed."
            )
        return role

    def check_permission(self, permission: t.Any) -> None:
        """Raise UserNotFound or NotFound for a permission that cannot be set."""
        if permission.group or _normal(permission.principal) not in self._passwords:
            raise vim.fault.UserNotFound(
                principal=permission.principal,
                unresolved=False,
                msg=f"The user or group '{permission.principal}' is not found.",
            )
        self.role(permission.roleId)

    def set_permission(self, entity: ManagedObject, permission: t.Any) -> None:
        """Let a user hold a role on an entity, instead of what it held there."""
        user = _normal(permission.principal)
        self._permissions.setdefault(entity.moid, {})[user] = Permission(user, permission.roleId, permission.propagate)

    def clear_permissions(self, entity: ManagedObject) -> None:
        """Forget the permissions set on an entity."""
        self._permissions.pop(entity.moid, None)

    def remove_permission(self, entity: ManagedObject, user: str) -> None:
        """Forget what a user holds on an entity. Raises NotFound."""
        held = self._permissions.get(entity.moid, {})
        if held.pop(_normal(user), None) is None:
            raise vim.fault.NotFound(msg=f"There is no permission of {user} on {entity.name}.")

    def merge_permissions(self, source: int, target: int) -> None:
        """Grant another role wherever one is granted. Raises NotFound."""
        self.role(source)
        self.role(target)
        for held in self._permissions.values():
            for user, one in held.items():
                if one.role_id == source:
                    held[user] = dataclasses.replace(one, role_id=target)

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Undo changes of permissions that fail, or that leave nobody who could change them again."""
        before = {moid: dict(held) for moid, held in self._permissions.items()}
        try:
            yield
            held = self._permissions.get(self.world.root.moid, {}).values()
            if not any(one.role_id == ADMIN and one.propagate for one in held):
                raise vmodl.fault.InvalidArgument(
                    invalidProperty="permission",
                    msg="At least one user must keep the administrator's role on the root.",
                )
        except vmodl.MethodFault:
            self._permissions = before
            raise

    def dump(self) -> dict[str, t.Any]:
        """Return roles and permissions as plain JSON types; passwords are not part of a state."""
        return {
            "roles": [
                [role.role_id, role.name, sorted(role.privileges or ())]
                for role in self.roles.values()
                if not role.system
            ],
            "permissions": {
                moid: [[one.user, one.role_id, one.propagate] for one in held.values()]
                for moid, held in sorted(self._permissions.items())
                if held and moid in self.world.objects
            },
        }

    def load(self, data: dict[str, t.Any]) -> None:
        """Take the roles and permissions of a dumped state instead of those there are; users it does not name stay."""
        if not data:
            return
        self.roles = {role.name: role for role in SYSTEM_ROLES}
        for role_id, name, privileges in data["roles"]:
            self.roles[name] = Role(role_id, name, frozenset(privileges))
        named = {user for held in data["permissions"].values() for user, _, _ in held}
        kept = {
            moid: {user: one for user, one in held.items() if user not in named}
            for moid, held in self._permissions.items()
        }
        self._permissions = kept
        for moid, held in data["permissions"].items():
            self._permissions.setdefault(moid, {}).update({user: Permission(user, *rest) for user, *rest in held})

    def add_user(self, name: str, password: str, role: str = "Admin", entity: ManagedObject | None = None) -> None:
        """Let a user log in, holding a role on an entity and below (default: the root folder).

        Raises KeyError for an unknown role.
        """
        granted = Permission(_normal(name), self.roles[role].role_id)
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
                roleId=granted.role_id,
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
        return (_registry_privileges() | _FURTHER | (_IMAGES if self.has_images else frozenset())).union(*of_roles)

    def role_on(self, user: str, obj: ManagedObject | None) -> Role | None:
        """Return the role a user has on an object: the nearest permission on the way to the root."""
        key, root = _normal(user), self.world.root
        first = True
        while obj is not None:
            granted = self._permissions.get(obj.moid, {}).get(key)
            if granted is not None and (first or granted.propagate):
                return self.role(granted.role_id)
            first = False
            obj = obj.parent or (root if obj is not root else None)
        return None

    def unrestricted(self, user: str) -> bool:
        """Say whether a user may do everything everywhere, so that single checks can be left out."""
        key = _normal(user)
        granted = {moid: held[key] for moid, held in self._permissions.items() if key in held}
        at_root = granted.pop(self.world.root.moid, None)
        return not granted and at_root is not None and at_root.propagate and at_root.role_id == ADMIN

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
        self.asked[privilege] += 1
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
