"""What tools/guest reads from the host: mirrors, mounts, packages, processes, podman's listing."""

from __future__ import annotations

from typing import Any

import pytest

from guestlib import apt, freeze, hostpackages
from guestlib.errors import ConflictError, HostError
from guestlib.guests import create_words, files_of, free_address, mac_address
from guestlib.host import Host, Mount, parse_mounts
from guestlib.identity import Identity
from guestlib.images import Image
from guestlib.podman import container_name, parse_containers, split_name
from guestlib.recipe import Recipe
from guestlib.spec import parse_create

MAIN = "Debian|http://mirror.example/debian/|bookworm"
UPDATES = "Debian|http://updates.example/debian/|bookworm-updates"
SECURITY = "Debian|http://mirror.example/security/|bookworm-security"
OTHER = "Example|http://other.example/apt/|bookworm"


@pytest.mark.parametrize(
    ("targets", "debian", "main", "security"),
    [
        ([OTHER, UPDATES, MAIN, SECURITY], True, "http://mirror.example/debian/", "http://mirror.example/security/"),
        ([MAIN], False, "http://mirror.example/debian/", None),
        # before the first `apt-get update` apt knows no origins
        (["|http://mirror.example/debian/|trixie"], True, "http://mirror.example/debian/", None),
    ],
)
def test_mirrors_come_from_the_hosts_sources(targets: list[str], debian: bool, main: str, security: str | None) -> None:
    assert apt.choose_mirrors(targets, {}, host_is_debian=debian) == apt.Mirrors(main, security)


@pytest.mark.parametrize(
    ("targets", "debian"), [([], True), ([OTHER, UPDATES], True), (["|http://archive.example/|noble"], False)]
)
def test_without_a_debian_mirror_the_variable_is_named(targets: list[str], debian: bool) -> None:
    with pytest.raises(HostError) as caught:
        apt.choose_mirrors(targets, {}, host_is_debian=debian)
    assert "GUEST_MIRROR" in caught.value.line()


def test_the_variables_override_the_hosts_sources() -> None:
    environment = {"GUEST_MIRROR": "http://a.example/debian", "GUEST_SECURITY_MIRROR": "http://a.example/security"}
    mirrors = apt.choose_mirrors([MAIN], environment, host_is_debian=True)
    assert mirrors == apt.Mirrors("http://a.example/debian", "http://a.example/security")
    del environment["GUEST_SECURITY_MIRROR"]
    assert apt.choose_mirrors([SECURITY], environment, host_is_debian=True).security is None


def test_the_sources_are_of_the_guests_suite() -> None:
    recipe = Recipe("trixie", (), ("contrib", "main"))
    lines = apt.source_lines(recipe, apt.Mirrors("http://m.example/debian", "http://m.example/security"))
    signed = f"deb [signed-by={apt.KEYRING}]"
    assert lines == (
        f"{signed} http://m.example/debian trixie contrib main",
        f"{signed} http://m.example/debian trixie-updates contrib main",
        f"{signed} http://m.example/security trixie-security contrib main",
    )


def test_only_options_that_make_sense_in_a_guest_are_carried() -> None:
    carried = ['Acquire::http::Proxy "http://proxy.example:3128";', 'Acquire::Check-Valid-Until "false";']
    host_only = [
        'APT::Architecture "amd64";',
        'Acquire::https::CAInfo "/etc/ssl/local.pem";',
        'Acquire::http::Proxy-Auto-Detect "/usr/bin/helper";',
        'DPkg::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";',
    ]
    assert apt.carried_options("\n".join([host_only[0], *carried, *host_only[1:]])) == tuple(carried)


def test_missing_packages_are_those_not_fully_installed() -> None:
    status = "podman installed\ncrun config-files\nmmdebstrap not-installed\n"
    assert {"crun", "mmdebstrap", "netavark"} <= set(hostpackages.missing(status))
    assert "podman" not in hostpackages.missing(status)


HYBRID = Host(cgroup2=False, sys_resource=False, open_files=20000, processes=32768)


def test_an_ordinary_host_needs_no_help() -> None:
    host = Host(cgroup2=True, sys_resource=True, open_files=1048576, processes=32768)
    assert (host.ordinary, host.prefix(), host.environment()) == (True, [], {})


def test_a_hybrid_host_gets_a_namespace_and_a_configuration() -> None:
    assert HYBRID.prefix()[0] == "nsenter"
    assert list(HYBRID.environment()) == ["CONTAINERS_CONF"]
    text = HYBRID.containers_conf()
    assert 'cgroups = "disabled"' in text
    assert '"nofile=1024:20000", "nproc=32768:32768"' in text


def test_cgroup2_without_the_capability_only_gets_limits() -> None:
    host = Host(cgroup2=True, sys_resource=False, open_files=512, processes=100)
    assert host.prefix() == []
    assert "cgroups" not in host.containers_conf()
    assert '"nofile=512:512", "nproc=100:100"' in host.containers_conf()


def test_mounts_are_read_whatever_their_options() -> None:
    text = (
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
        "32 23 0:29 / /mnt rw shared:1 master:2 - nfs4 host:/export rw\n"
    )
    assert parse_mounts(text) == [Mount("/sys/fs/cgroup", "tmpfs"), Mount("/mnt", "nfs4")]


def test_freezing_takes_nested_namespaces_and_what_came_from_outside() -> None:
    def process(parent: int, namespace: str) -> freeze.Process:
        return freeze.Process(parent, namespace, "S")

    table = {
        1: process(0, "host"),
        50: process(1, "host"),  # conmon
        100: process(50, "guest"),  # the guest's init
        101: process(100, "guest"),
        102: process(101, "nested"),  # a container in the guest
        103: process(102, "nested"),
        60: process(50, "guest"),  # podman exec
        200: process(50, "other"),
        201: process(1, "host"),
    }
    assert freeze.members(table, 100) == {100, 101, 102, 103, 60}
    assert freeze.members(table, 999) == set()


def test_containers_are_known_by_label_or_by_name() -> None:
    listing: list[dict[str, Any]] = [
        {
            "Names": ["gpuops.lab.gpu.vm"],
            "State": "running",
            "Pid": 7,
            "Labels": {"gpuops.guest": "lab", "gpuops.guest.address": "10.0.0.2", "maintainer": "x"},
        },
        {"Names": ["gpuops.lab.half-made"], "State": "Storage", "Labels": None},
        {"Names": ["somebody-elses"], "State": "running", "Pid": 8, "Labels": {}},
        {"Names": None},
    ]
    first, second = parse_containers(listing)
    assert (first.instance, first.guest, first.status, first.pid) == ("lab", "gpu.vm", "running", 7)
    assert first.labels == {"address": "10.0.0.2"}
    assert (second.guest, second.status, second.labels) == ("half-made", "storage", {})


def test_container_names_read_back() -> None:
    assert split_name(container_name("a-b", "c.d-e")) == ("a-b", "c.d-e")
    assert split_name("postgres") is None


@pytest.mark.parametrize(
    ("taken", "expected"),
    [([], "10.89.0.2"), (["10.89.0.2", "10.89.0.4"], "10.89.0.3"), (["10.89.0.3"], "10.89.0.2")],
)
def test_the_lowest_free_address_is_given(taken: list[str], expected: str) -> None:
    assert free_address("10.89.0.0/24", taken) == expected


def test_a_full_subnet_is_said() -> None:
    with pytest.raises(ConflictError, match="no address is left"):
        free_address("10.89.0.0/30", ["10.89.0.2"])


def test_the_mac_address_follows_from_the_address() -> None:
    assert mac_address("10.89.0.2") == "02:67:0a:59:00:02"


@pytest.mark.parametrize("limits", [True, False])
def test_the_container_is_made_as_asked_and_shows_no_secret(limits: bool) -> None:
    guest = {
        "name": "vm",
        "hostname": "vm.lab",
        "memory_mb": 512,
        "cpus": 1.5,
        "environment": {"TOKEN": "s3cret"},
        "volumes": [{"source": "/srv/a", "target": "/a", "read_only": True}, {"source": "/srv/b", "target": "/b"}],
    }
    spec = parse_create({"instance": "lab", "guests": [guest]}).guests[0]
    image = Image("localhost/gpuops-guest:trixie-0", "0", cached=True, seconds=0.0)
    owner = Identity(42, 1000, "boot")
    words = create_words("lab", spec, image, "10.89.0.2", owner, limits=limits)
    text = " ".join(words)
    assert "s3cret" not in text
    assert "--mount type=bind,src=/srv/a,dst=/a,ro" in text
    assert "--mount type=bind,src=/srv/b,dst=/b " in text
    assert "--network-alias vm.lab --network-alias vm " in text
    assert "gpuops.guest.owner=42:1000:boot" in words
    assert ("--memory 512m" in text, "--cpus 1.5" in text) == (limits, limits)
    assert "gpuops.guest.memory_mb=512" in words
    assert files_of(spec)["etc/environment"] == (0o600, "TOKEN=s3cret\n")
