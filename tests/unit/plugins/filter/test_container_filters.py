"""Words of units and options of containers."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpuops.vsphere.plugins.filter.singularity_bind import singularity_bind
from ansible_collections.gpuops.vsphere.plugins.filter.systemd_word import systemd_word


@pytest.mark.parametrize(
    ("word", "line", "file"),
    [
        ("/bin/sh", "/bin/sh", "/bin/sh"),
        (8080, "8080", "8080"),
        ("", '""', '""'),
        ("a b", '"a b"', '"a b"'),
        ('say "x"', '"say \\"x\\""', '"say \\"x\\""'),
        ("100% of $HOME", '"100%% of $$HOME"', '"100% of \\$HOME"'),
        ("back\\slash", '"back\\\\slash"', '"back\\\\slash"'),
        ("it's", '"it\'s"', '"it\'s"'),
    ],
)
def test_words_are_quoted_where_they_must_be(word: object, line: str, file: str) -> None:
    assert systemd_word(word) == line
    assert systemd_word(word, literal=True) == file


def test_a_line_break_cannot_smuggle_in_a_directive() -> None:
    with pytest.raises(AnsibleFilterError):
        systemd_word("x\nExecStart=/bin/evil")


@pytest.mark.parametrize(
    ("bind", "option"),
    [
        ({"source": "/srv"}, "--bind=/srv:/srv:rw"),
        ({"source": "/srv", "target": "/mnt", "read_only": True}, "--bind=/srv:/mnt:ro"),
        ({"source": "/srv", "target": None}, "--bind=/srv:/srv:rw"),
    ],
)
def test_binds(bind: dict[str, t.Any], option: str) -> None:
    assert singularity_bind(bind) == option


@pytest.mark.parametrize("bind", [{}, {"source": "srv"}, {"source": "/a:/b"}, {"source": "/a", "target": "/b,/c"}])
def test_binds_that_are_none(bind: dict[str, t.Any]) -> None:
    with pytest.raises(AnsibleFilterError):
        singularity_bind(bind)
