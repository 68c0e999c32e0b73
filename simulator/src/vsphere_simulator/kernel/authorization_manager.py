"""The authorization manager: roles, permissions, and what a user may do."""

from __future__ import annotations

import typing as t

from vsphere_simulator.kernel.objects import Context, ManagedObject, method, prop
from vsphere_simulator.vmomi import make, vim, vmodl

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.authorization import Role

_MODIFY: t.Final = "Authorization.ModifyPermissions"


class AuthorizationManager(ManagedObject):
    """Tells and changes roles and permissions, and tells what a user may do."""

    wsdl = vim.AuthorizationManager
    volatile = True

    @prop("roleList")
    def _role_list(self) -> list[t.Any]:
        return [_role_data(role, self._known()) for role in self.world.authorization.roles.values()]

    @prop("privilegeList")
    def _privilege_list(self) -> list[t.Any]:
        return [
            make(
                vim.AuthorizationManager.Privilege,
                privId=name,
                onParent=False,
                name=name.rpartition(".")[2],
                privGroupName=name.rpartition(".")[0],
            )
            for name in self._known()
        ]

    @prop("description")
    def _description(self) -> t.Any:
        return make(vim.AuthorizationDescription)

    def _known(self) -> list[str]:
        return sorted(self.world.authorization.known_privileges())

    @method("RetrieveEntityPermissions")
    def entity_permissions(self, entity: ManagedObject, inherited: bool) -> list[t.Any]:
        """Return the permissions set on an entity, with those above it if asked for."""
        found = self.world.authorization.permissions_on(entity)
        above = entity.parent
        while inherited and above is not None:
            found += [granted for granted in self.world.authorization.permissions_on(above) if granted.propagate]
            above = above.parent
        return found

    @method("RetrieveAllPermissions")
    def all_permissions(self) -> list[t.Any]:
        """Return all permissions there are."""
        return self.world.authorization.all_permissions()

    @method("RetrieveRolePermissions")
    def role_permissions(self, role_id: int) -> list[t.Any]:
        """Return the permissions that give a role."""
        self.world.authorization.role(role_id)
        return [granted for granted in self.world.authorization.all_permissions() if granted.roleId == role_id]

    def _session_user(self, ctx: Context, session_id: str) -> str:
        session = self.world.sessions.by_key(session_id) if session_id else ctx.session
        if session is None:
            raise vmodl.fault.InvalidArgument(invalidProperty="sessionId", msg="There is no such session.")
        return session.user

    @method("HasPrivilegeOnEntity")
    def has_privilege_on_entity(
        self, ctx: Context, entity: ManagedObject, session_id: str, priv_id: list[str]
    ) -> list[bool]:
        """Say for each privilege whether a session's user holds it on an entity."""
        user = self._session_user(ctx, session_id)
        return [self.world.authorization.holds(user, entity, privilege) for privilege in priv_id]

    @method("HasPrivilegeOnEntities")
    def has_privilege_on_entities(
        self, ctx: Context, entity: list[ManagedObject], session_id: str, priv_id: list[str]
    ) -> list[t.Any]:
        """Say for each entity and privilege whether a session's user holds it."""
        user = self._session_user(ctx, session_id)
        return [self._availability(one, user, priv_id) for one in entity]

    @method("HasUserPrivilegeOnEntities")
    def has_user_privilege_on_entities(
        self, entities: list[ManagedObject], user_name: str, priv_id: list[str]
    ) -> list[t.Any]:
        """Say for each entity and privilege whether a user holds it."""
        return [self._availability(one, user_name, priv_id) for one in entities]

    def _availability(self, entity: ManagedObject, user: str, privileges: list[str]) -> t.Any:
        granted = [
            make(
                vim.AuthorizationManager.PrivilegeAvailability,
                privId=privilege,
                isGranted=self.world.authorization.holds(user, entity, privilege),
            )
            for privilege in privileges
        ]
        return make(vim.AuthorizationManager.EntityPrivilege, entity=entity.ref, privAvailability=granted)

    @method("FetchUserPrivilegeOnEntities")
    def fetch_user_privileges(self, entities: list[ManagedObject], user_name: str) -> list[t.Any]:
        """Return all privileges that a user holds on entities."""
        known = self._known()
        return [
            make(
                vim.AuthorizationManager.UserPrivilegeResult,
                entity=entity.ref,
                privileges=[name for name in known if self.world.authorization.holds(user_name, entity, name)],
            )
            for entity in entities
        ]

    # --- changes ---

    @method("AddAuthorizationRole")
    def add_role(self, name: str, priv_ids: list[str]) -> int:
        """Define a role and return its id. Raises AlreadyExists, InvalidName, or InvalidArgument for a privilege."""
        self._check_role(name, priv_ids)
        if name in self.world.authorization.roles:
            raise vim.fault.AlreadyExists(name=name, msg=f"The name '{name}' already exists.")
        role = self.world.authorization.add_role(name, priv_ids)
        self._changed("roleList")
        return role.role_id

    @method("UpdateAuthorizationRole")
    def update_role(self, role_id: int, new_name: str, priv_ids: list[str]) -> None:
        """Rename a role and replace its privileges."""
        self._check_role(new_name, priv_ids)
        self.world.authorization.change_role(role_id, new_name, priv_ids)
        self._changed("roleList")

    @method("RemoveAuthorizationRole")
    def remove_role(self, role_id: int, fail_if_used: bool) -> None:
        """Delete a role; one in use only when it may take its permissions with it."""
        self.world.authorization.remove_role(role_id, fail_if_used=fail_if_used)
        self._changed("roleList")

    def _check_role(self, name: str, privileges: list[str]) -> None:
        if not name or len(name) > 80:
            raise vim.fault.InvalidName(name=name, msg=f"The name '{name}' is not valid.")
        unknown = sorted(set(privileges) - self.world.authorization.known_privileges())
        if unknown:
            raise vmodl.fault.InvalidArgument(
                invalidProperty="privIds", msg=f"A specified parameter was not correct: privIds ({unknown[0]})"
            )

    @method("MergePermissions")
    def merge_permissions(self, src_role_id: int, dst_role_id: int) -> None:
        """Grant another role wherever one is granted."""
        self.world.authorization.merge_permissions(src_role_id, dst_role_id)
        self._changed("roleList")

    @method("SetEntityPermissions", privilege="")
    def set_permissions(self, ctx: Context, entity: ManagedObject, permission: list[t.Any]) -> None:
        """Add permissions to those set on an entity, or change them."""
        self._set(ctx, entity, permission, instead=False)

    @method("ResetEntityPermissions", privilege="")
    def reset_permissions(self, ctx: Context, entity: ManagedObject, permission: list[t.Any]) -> None:
        """Set permissions on an entity instead of those there are."""
        self._set(ctx, entity, permission, instead=True)

    def _set(self, ctx: Context, entity: ManagedObject, permissions: list[t.Any], *, instead: bool) -> None:
        authorization = self.world.authorization
        authorization.require(ctx.session, entity, _MODIFY)
        for one in permissions:
            authorization.check_permission(one)
        with authorization.all_or_nothing():
            if instead:
                authorization.clear_permissions(entity)
            for one in permissions:
                authorization.set_permission(entity, one)
        self._told(entity)

    @method("RemoveEntityPermission", privilege="")
    def remove_permission(self, ctx: Context, entity: ManagedObject, user: str, is_group: bool) -> None:
        """Forget what a user holds on an entity. Raises NotFound."""
        authorization = self.world.authorization
        authorization.require(ctx.session, entity, _MODIFY)
        if is_group:
            raise vim.fault.NotFound(msg=f"There is no permission of {user} on {entity.name}.")
        with authorization.all_or_nothing():
            authorization.remove_permission(entity, user)
        self._told(entity)

    def _told(self, entity: ManagedObject) -> None:
        self.world.changed(entity, "permission", "effectiveRole")

    def _changed(self, path: str) -> None:
        self.world.changed(self, path)
        self.world.changed(self.world.root, "permission")


def _role_data(role: Role, known: list[str]) -> t.Any:
    return make(
        vim.AuthorizationManager.Role,
        roleId=role.role_id,
        name=role.name,
        system=role.system,
        info=make(vim.Description, label=role.name, summary=role.name),
        privilege=known if role.privileges is None else sorted(role.privileges),
    )
