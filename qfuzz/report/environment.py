"""Described facts: what all backends say alike once, what they say differently by backend."""

from collections.abc import Mapping
from typing import Any

import msgspec


class Facts(msgspec.Struct, frozen=True):
    """The environment.

    Attributes
    ----------
    shared
        Name and value of what holds for the machine and for all backends.
    columns
        Names of the facts that differ.
    rows
        Spec, and its values of `columns`; empty where it says nothing.
    """

    shared: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def described_facts(environment: Mapping[str, Any], described: Mapping[str, Mapping[str, str]]) -> Facts:
    """Sort the facts of the machine and of the backends, by spec, into shared and different ones."""
    names = tuple(dict.fromkeys(name for facts in described.values() for name in facts if name != "name"))
    values = {name: [facts.get(name) for facts in described.values()] for name in names}
    shared = {str(k): str(v) for k, v in environment.items()}
    # Where all backends agree with each other, but not with the machine, the fact stays theirs.
    alike = {
        name: v[0]
        for name, v in values.items()
        if v[0] is not None and len(set(v)) == 1 and shared.get(name, v[0]) == v[0] and (len(v) > 1 or name in shared)
    }
    shared |= alike
    columns = tuple(n for n in names if n not in alike)
    rows = tuple((spec, tuple(facts.get(c, "") for c in columns)) for spec, facts in described.items())
    return Facts(tuple(shared.items()), columns, rows)
