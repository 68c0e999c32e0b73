"""Faults on demand: rules that make a chosen call slow, fail, or never finish."""

from __future__ import annotations

import difflib
import fnmatch
import pathlib
import typing as t

import pydantic
import yaml

from vsphere_simulator.vmomi import support, vmodl


class FaultRulesError(ValueError):
    """A file of rules that cannot be used; the text names the file, the rule and what is wrong."""


class FaultSpec(pydantic.BaseModel):
    """Which fault to answer."""

    model_config = pydantic.ConfigDict(extra="forbid")

    type: str
    """VMODL name, such as `vim.fault.InvalidState`."""
    message: str = ""
    fields: dict[str, t.Any] = pydantic.Field(default_factory=dict)
    """Values of the fault's own fields."""

    @pydantic.model_validator(mode="after")
    def _can_be_built(self) -> FaultSpec:
        self.build()
        return self

    def build(self) -> Exception:
        """Return the fault; ValueError when the API has no such fault or field."""
        try:
            fault_type = support.GetVmodlType(self.type)
        except (KeyError, AttributeError):
            raise ValueError(f"unknown fault type {self.type}") from None
        if not issubclass(fault_type, vmodl.MethodFault):
            raise ValueError(f"{self.type} is not a fault")  # noqa: TRY004 - pydantic wants ValueError
        try:
            fault: Exception = fault_type(msg=self.message or f"{self.type} (injected)", **self.fields)
        except (AttributeError, TypeError) as problem:
            raise ValueError(f"{self.type} has no such field or value: {problem}") from None
        return fault


class FaultRule(pydantic.BaseModel):
    """One rule: which calls it concerns, and exactly one thing that happens to them."""

    model_config = pydantic.ConfigDict(extra="forbid")

    method: str
    """WSDL method name, or a glob of names."""
    object: str = "*"
    """Glob on the name (or id) of the object called, or of an entity among its arguments."""
    nth: int | None = pydantic.Field(default=None, ge=1)
    """Only the nth call that matches; by default every one."""
    fault: FaultSpec | None = None
    delay_s: float | None = pydantic.Field(default=None, ge=0)
    """Real seconds before the call is answered."""
    drop_connection: bool = False
    """The connection is closed instead of an answer; the call is not carried out."""
    answer_after_s: float | None = pydantic.Field(default=None, ge=0)
    """Real seconds after the call has been carried out before it is answered."""
    lose_answer: bool = False
    """The call is carried out, and the connection closed instead of an answer."""
    fail_task_at: float | None = pydantic.Field(default=None, ge=0, le=100)
    """The task that the call starts fails at this per cent, with `fault` if given."""
    never_returns: bool = False
    """What the call restarts stays away."""

    @pydantic.model_validator(mode="after")
    def _one_effect(self) -> FaultRule:
        effects = [
            self.delay_s is not None,
            self.drop_connection,
            self.answer_after_s is not None,
            self.lose_answer,
            self.fail_task_at is not None,
            self.never_returns,
        ]
        if self.fault is not None and self.fail_task_at is None:
            effects.append(True)
        if sum(effects) != 1:
            raise ValueError(
                "exactly one of fault, delay_s, drop_connection, answer_after_s, lose_answer, fail_task_at,"
                " never_returns is needed"
            )
        return self

    def task_fault(self) -> Exception:
        """Return the fault a task ends with."""
        if self.fault is not None:
            return self.fault.build()
        fault: Exception = vmodl.fault.SystemError(reason="injected", msg="The operation failed (injected).")
        return fault


class FaultRules:
    """The rules in force, and how often each has matched."""

    def __init__(self, rules: list[FaultRule] | None = None) -> None:
        self._rules = [(rule, [0]) for rule in rules or []]

    def matching(self, method: str, names: list[str]) -> FaultRule | None:
        """Count a call against every rule about it; return the first that applies to it.

        `names` are the names and ids of the object called and of what its arguments name.
        """
        applies = None
        for rule, count in self._rules:
            if not fnmatch.fnmatchcase(method, rule.method):
                continue
            if not any(fnmatch.fnmatchcase(name, rule.object) for name in names):
                continue
            count[0] += 1
            if applies is None and rule.nth in (None, count[0]):
                applies = rule
        return applies


def load_rules(path: pathlib.Path) -> FaultRules:
    """Read a YAML list of rules; FaultRulesError in one line for what is wrong with it."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise FaultRulesError(f"{path}: {problem.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        detail = " ".join(str(problem).split())
        raise FaultRulesError(f"{path}: not valid YAML: {detail}") from None
    if not isinstance(loaded, list):
        raise FaultRulesError(f"{path}: expected a list of rules")
    rules = []
    for number, entry in enumerate(loaded, 1):
        try:
            rules.append(FaultRule.model_validate(entry))
        except pydantic.ValidationError as problem:
            raise FaultRulesError(f"{path}: rule {number}: {_explain(problem)}") from None
    return FaultRules(rules)


def _explain(problem: pydantic.ValidationError) -> str:
    """Return the first error of a rule, with the nearest valid key for a misspelt one."""
    error = problem.errors()[0]
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = FaultSpec.model_fields if len(error["loc"]) > 1 else FaultRule.model_fields
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f", did you mean {near[0]}?" if near else f"; known keys: {', '.join(known)}"
        return f"unknown key {where}{hint}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
