# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`host_result` as operators meet it: through ansible-playbook, with an inventory of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[4]
PLAYBOOK = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent)) or "ansible-playbook"


class Run(t.NamedTuple):
    code: int
    text: str

    def recap(self, host: str) -> dict[str, int]:
        found = re.search(rf"^{re.escape(host)} +: (.*)$", self.text, re.MULTILINE)
        assert found, self.text
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", found.group(1))}


Play = t.Callable[..., Run]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    def run(tasks: list[dict[str, t.Any]], *arguments: str, hosts: int = 3, **keywords: t.Any) -> Run:
        names = [f"esx-{number}" for number in range(1, hosts + 1)]
        inventory = {"all": {"hosts": dict.fromkeys(names), "vars": {"ansible_connection": "local"}}}
        playbook = [{"hosts": "all", "gather_facts": False, "tasks": tasks, **keywords}]
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
        (tmp_path / "play.yml").write_text(yaml.safe_dump(playbook, sort_keys=False))
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(TOP / "collections"),
            "ANSIBLE_CONFIG": str(tmp_path / "none.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
        }
        (tmp_path / "none.cfg").touch()
        done = subprocess.run(
            [PLAYBOOK, "-i", str(tmp_path / "hosts.yml"), str(tmp_path / "play.yml"), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Run(done.returncode, done.stdout + done.stderr)

    return run


def entry(name: str, *, changed: bool = False, **more: t.Any) -> dict[str, t.Any]:
    data: dict[str, t.Any] = {"changed": changed, "failed": False, "actions": [], "warnings": [], **more}
    if changed:
        data["actions"] = ["enable passthrough 0000:3b:00.0"]
        data["diff"] = {
            "before": "0000:3b:00.0: false\n",
            "after": "0000:3b:00.0: true\n",
            "before_header": f"{name} (now)",
            "after_header": f"{name} (wanted)",
        }
    return data


def failure(name: str) -> dict[str, t.Any]:
    return {
        **entry(name),
        "failed": True,
        "msg": f"{name}: no device 10de:ffff.",
        "problems": [{"code": "device_not_found", "object": name, "msg": "no device 10de:ffff."}],
        "failure": {"code": "device_not_found", "object": name, "fault": None},
    }


def bulk(results: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    """A task that registers what a bulk module would have returned."""
    return {"set_fact": {"bulk": {"changed": True, "objects": results, **more}}, "run_once": True}


def host_result(result: str = "{{ bulk }}", **arguments: t.Any) -> dict[str, t.Any]:
    return {
        "name": "unroll",
        "gpuops.vsphere.host_result": {"result": result, **arguments},
        "register": "mine",
    }


def test_each_host_reports_its_own_share(play: Play) -> None:
    results = {"esx-1": entry("esx-1", changed=True), "esx-2": entry("esx-2"), "esx-3": failure("esx-3")}
    after = {"debug": {"msg": "{{ inventory_hostname }} goes on with {{ gpuops_changes | to_json }}"}}
    run = play([bulk(results), host_result(), after], "--diff")
    assert run.code == 2
    assert (run.recap("esx-1")["changed"], run.recap("esx-1")["failed"]) == (1, 0)
    assert (run.recap("esx-2")["changed"], run.recap("esx-2")["failed"]) == (0, 0)
    assert (run.recap("esx-3")["changed"], run.recap("esx-3")["failed"]) == (0, 1)
    assert "esx-3: no device 10de:ffff." in run.text
    assert "Traceback" not in run.text
    assert run.text.count("+0000:3b:00.0: true") == 1
    assert "esx-1 (wanted)" in run.text
    assert "esx-2 goes on with []" in run.text.replace("\\", "")
    assert '["esx-1: enable passthrough 0000:3b:00.0"]' in run.text.replace("\\", "")
    assert "esx-3 goes on" not in run.text


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_changes_accumulate_over_the_run(play: Play, arguments: list[str]) -> None:
    first = {f"esx-{number}": entry("x", changed=number == 1) for number in (1, 2)}
    second = {"esx-1": entry("x", changed=True, actions=[]), "esx-2": entry("x", changed=True)}
    show = {"debug": {"msg": "facts {{ inventory_hostname }} {{ gpuops_changes | length }} {{ mine.changed }}"}}
    run = play([bulk(first), host_result(), bulk(second), host_result(), show], *arguments, hosts=2)
    assert run.code == 0
    assert "facts esx-1 2 True" in run.text
    assert "facts esx-2 1 True" in run.text
    assert run.recap("esx-1")["changed"] == 2
    assert run.recap("esx-2")["changed"] == 1


def test_serial_batches_each_read_their_own_result(play: Play) -> None:
    tasks = [
        {
            "set_fact": {
                "bulk": {
                    "objects": "{{ dict(ansible_play_batch | zip(ansible_play_batch | map('extract', shares))) }}",
                }
            },
            "vars": {"shares": {name: entry(name, changed=name == "esx-3") for name in ("esx-1", "esx-2", "esx-3")}},
            "run_once": True,
        },
        host_result(),
        {"debug": {"msg": "batch {{ inventory_hostname }}: {{ bulk.objects | list | sort | join('+') }}"}},
    ]
    run = play(tasks, serial=2)
    assert run.code == 0
    assert "batch esx-1: esx-1+esx-2" in run.text
    assert "batch esx-3: esx-3" in run.text
    assert [run.recap(f"esx-{number}")["changed"] for number in (1, 2, 3)] == [0, 0, 1]


def test_skipped_bulk_task_is_skipped_for_each_host(play: Play) -> None:
    tasks = [{"debug": {"msg": "x"}, "when": False, "run_once": True, "register": "bulk"}, host_result()]
    run = play(tasks)
    assert run.code == 0
    # the bulk task counts for the host that ran it
    assert [run.recap(f"esx-{number}")["skipped"] for number in (1, 2, 3)] == [2, 1, 1]


def test_failed_bulk_task_fails_each_host_with_its_message(play: Play) -> None:
    tasks = [
        {"fail": {"msg": "Wrong password."}, "register": "bulk", "ignore_errors": True, "run_once": True},
        host_result(),
    ]
    run = play(tasks)
    assert run.code == 2
    assert [run.recap(f"esx-{number}")["failed"] for number in (1, 2, 3)] == [1, 1, 1]
    assert run.text.count("Wrong password.") >= 4


def test_missing_host_fails_with_what_to_do_or_is_skipped(play: Play) -> None:
    results = {"esx-1": entry("esx-1"), "esx-2": entry("esx-2")}
    run = play([bulk(results), host_result()])
    assert run.code == 2
    assert [run.recap(f"esx-{number}")["failed"] for number in (1, 2, 3)] == [0, 0, 1]
    assert "nothing about esx-3; it is about esx-1, esx-2." in run.text
    assert "missing: skip" in run.text
    run = play([bulk(results), host_result(missing="skip")])
    assert run.code == 0
    assert [run.recap(f"esx-{number}")["skipped"] for number in (1, 2, 3)] == [0, 0, 1]


def test_objects_of_a_host_by_name(play: Play) -> None:
    predicted = {"hosts": {}, "vms": {"vm-1": {"name": "vm-1"}, "vm-3": {"name": "vm-3"}}}
    results = {"vm-1": entry("vm-1", changed=True, power="poweredOff"), "vm-2": entry("vm-2"), "vm-3": failure("vm-3")}
    tasks = [
        {"set_fact": {"mine_by_host": {"esx-1": ["vm-1", "vm-2"], "esx-2": ["vm-2", "vm-3"], "esx-3": []}}},
        bulk(results, predicted=predicted),
        host_result(names="{{ mine_by_host[inventory_hostname] }}"),
        {"debug": {"msg": "notes {{ mine.objects['vm-1'].power }} {{ mine.predicted.vms | list }}"}},
    ]
    run = play(tasks, "--diff")
    assert run.code == 2
    assert [run.recap(f"esx-{number}")["changed"] for number in (1, 2)] == [1, 0]
    assert [run.recap(f"esx-{number}")["failed"] for number in (1, 2)] == [0, 1]
    assert run.recap("esx-3")["skipped"] == 1
    assert "notes poweredOff ['vm-1']" in run.text.replace('"', "'")
    assert "vm-3: no device 10de:ffff." in run.text


def test_loops_on_both_sides(play: Play) -> None:
    tasks = [
        {
            "set_fact": {
                "bulk": {
                    "results": [
                        {"item": name, "objects": {name: entry(name, changed=True)}} for name in ("esx-1", "esx-2")
                    ]
                }
            },
            "run_once": True,
        },
        {**host_result(names=["{{ item }}"]), "loop": ["esx-1", "esx-2"], "when": "inventory_hostname == 'esx-1'"},
        {"debug": {"msg": "facts {{ gpuops_changes | length }}"}, "when": "inventory_hostname == 'esx-1'"},
    ]
    run = play(tasks, "--diff", hosts=2)
    assert run.code == 0
    assert run.recap("esx-1")["changed"] == 1
    assert run.text.count("+0000:3b:00.0: true") == 2
    assert "facts 2" in run.text


def test_failed_object_that_had_changed_says_so(play: Play) -> None:
    results = {"esx-1": {**failure("esx-1"), "changed": True, "actions": ["enable passthrough 0000:3b:00.0"]}}
    tasks = [
        bulk(results),
        {
            "block": [host_result()],
            "rescue": [
                {"debug": {"msg": "rescue {{ mine.failure.code }} {{ mine.changed }} {{ mine.actions | length }}"}}
            ],
        },
    ]
    run = play(tasks, hosts=1)
    assert run.code == 0
    assert "rescue device_not_found True 1" in run.text
    assert run.recap("esx-1")["rescued"] == 1


def test_warnings_are_shown_by_ansible(play: Play) -> None:
    run = play([bulk({"esx-1": entry("esx-1", warnings=["esx-1 was left alone"])}), host_result()], hosts=1)
    assert run.code == 0
    assert "[WARNING]: esx-1 was left alone" in run.text.replace("\n", " ")


def test_wrong_argument_is_one_message(play: Play) -> None:
    run = play([bulk({}), host_result(mising="skip")], hosts=1)
    assert run.code == 2
    assert "mising" in run.text
    assert "Traceback" not in run.text


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_show_text_prints_as_it_is(play: Play, arguments: list[str]) -> None:
    text = 'HOST  GPU\nesx-1 "V100-32"  \\o/ {not a template}\n'
    task = {"gpuops.vsphere.show_text": {"text": text}, "run_once": True, "register": "shown"}
    run = play([task, {"debug": {"msg": "changed {{ shown.changed }}"}, "run_once": True}], *arguments)
    assert run.code == 0
    assert text in run.text
    assert "changed False" in run.text
    assert json.dumps(text) not in run.text


def test_show_text_waits_for_verbosity(play: Play) -> None:
    task = {"gpuops.vsphere.show_text": {"text": "details", "verbosity": 1}}
    assert "details" not in play([task], hosts=1).text
    assert "details" in play([task], "-v", hosts=1).text
