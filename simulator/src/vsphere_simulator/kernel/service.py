"""The service instance and the managers that belong to the server as a whole."""

from __future__ import annotations

import typing as t
import uuid

from vsphere_simulator.kernel.history import EventManager, TaskHistoryCollector
from vsphere_simulator.kernel.objects import Context, ManagedObject, method, prop
from vsphere_simulator.kernel.property_collector import PropertyCollector
from vsphere_simulator.kernel.sessions import SessionManager
from vsphere_simulator.kernel.views import ViewManager
from vsphere_simulator.vmomi import make, vim, vmodl

if t.TYPE_CHECKING:
    import datetime as dt

    from vsphere_simulator.kernel.authorization import Role
    from vsphere_simulator.kernel.registry import World

DEFAULT_API_VERSION = "8.0.3.0"


def about_info(api_version: str = DEFAULT_API_VERSION, instance_uuid: str | None = None) -> t.Any:
    """Return the `AboutInfo` of a vCenter of an API version such as `8.0.3.0`."""
    version = ".".join(api_version.split(".")[:3])
    return make(
        vim.AboutInfo,
        name="VMware vCenter Server",
        fullName=f"VMware vCenter Server {version} build-24022515",
        vendor="VMware, Inc.",
        version=version,
        build="24022515",
        localeVersion="INTL",
        localeBuild="000",
        osType="linux-x64",
        productLineId="vpx",
        apiType="VirtualCenter",
        apiVersion=api_version,
        instanceUuid=instance_uuid or str(uuid.uuid5(uuid.NAMESPACE_DNS, "vsphere-simulator")),
        licenseProductName="VMware VirtualCenter Server",
        licenseProductVersion=api_version.split(".")[0] + ".0",
    )


class ServiceInstance(ManagedObject):
    """Where every client starts."""

    wsdl = vim.ServiceInstance
    volatile = True

    def __init__(self, world: World, moid: str, about: t.Any) -> None:
        super().__init__(world, moid)
        self.about = about

    @prop("content")
    def content(self) -> t.Any:
        """Return the managers there are; those that are not supported stay unset."""
        return make(
            vim.ServiceInstanceContent,
            about=self.about,
            **{name: obj.ref for name, obj in self.world.content.items()},
        )

    @prop("serverClock")
    def _server_clock(self) -> dt.datetime:
        return self.world.clock.now()

    @prop("capability")
    def _capability(self) -> t.Any:
        return make(vim.Capability, provisioningSupported=True, multiHostSupported=True, userShellAccessSupported=False)

    @method("RetrieveServiceContent")
    def retrieve_content(self) -> t.Any:
        """Return the managers there are."""
        return self.content()

    @method("CurrentTime")
    def current_time(self) -> dt.datetime:
        """Return simulated time."""
        return self.world.clock.now()


class TaskManager(ManagedObject):
    """Lists the recent tasks."""

    wsdl = vim.TaskManager
    volatile = True

    @prop("recentTask")
    def _recent_task(self) -> list[ManagedObject]:
        return self.world.tasks.recent()

    @prop("maxCollector")
    def _max_collector(self) -> int:
        return 32

    @method("CreateCollectorForTasks")
    def create_collector(self, ctx: Context, filter: t.Any) -> ManagedObject:
        """Make a collector of tasks."""
        return self.world.add(TaskHistoryCollector(self.world, ctx.session, "task-collector", filter))


class AuthorizationManager(ManagedObject):
    """Tells roles, permissions and what a user may do."""

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
        self._role(role_id)
        return [granted for granted in self.world.authorization.all_permissions() if granted.roleId == role_id]

    def _role(self, role_id: int) -> Role:
        for role in self.world.authorization.roles.values():
            if role.role_id == role_id:
                return role
        raise vim.fault.NotFound(msg=f"There is no role {role_id}.")

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


def _role_data(role: Role, known: list[str]) -> t.Any:
    return make(
        vim.AuthorizationManager.Role,
        roleId=role.role_id,
        name=role.name,
        system=role.system,
        info=make(vim.Description, label=role.name, summary=role.name),
        privilege=known if role.privileges is None else sorted(role.privileges),
    )


def install_services(world: World, about: t.Any | None = None) -> ServiceInstance:
    """Register the service instance and the managers that every world has.

    The managers of the simulated inventory (search index, custom fields, …) are added to
    `world.content` by who builds the world, as is its root folder.
    """
    world.content["propertyCollector"] = world.add(PropertyCollector(world, "propertyCollector"))
    world.content["viewManager"] = world.add(ViewManager(world, "ViewManager"))
    world.content["sessionManager"] = world.add(SessionManager(world, "SessionManager"))
    world.content["authorizationManager"] = world.add(AuthorizationManager(world, "AuthorizationManager"))
    world.content["eventManager"] = world.add(EventManager(world, "EventManager"))
    world.content["taskManager"] = world.add(TaskManager(world, "TaskManager"))
    return world.add(ServiceInstance(world, "ServiceInstance", about or about_info()))
