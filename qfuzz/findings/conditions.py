"""Whether an expectation of a corpus file applies to a backend on this machine."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from qfuzz.ir.errors import InvalidCase
from qfuzz.ir.expectation import Condition, Expectation

UNNAMED = ("isa", "layout", "python", "threads")
"""Options of a spec that a glob means all values of, unless it names them."""


def names_backend(expectation: Expectation, spec: str) -> bool:
    """Whether the expectation's glob means the backend of that spec.

    What holds of a framework holds of it in any Python, with any layout and number of threads, and on any CPU that the
    expectation's condition allows: the options `UNNAMED` count only where the glob says something of them.
    """
    pattern = expectation.backend.replace("[", "[[]").replace("?", "[?]")
    name, *options = re.split("[?&]", spec)
    counting = [o for o in options if (key := o.partition("=")[0]) not in UNNAMED or f"{key}=" in pattern]
    return fnmatchcase(name + ("?" + "&".join(counting) if counting else ""), pattern)


def why_not(condition: Condition, described: Mapping[str, str]) -> str:
    """Why the condition does not hold on a backend that describes itself so; nothing where it holds."""
    flags = set(described.get("cpu_flags", "").split())
    for flag in condition.cpu_has:
        if flag not in flags:
            return f"this CPU has no {flag}"
    for flag in condition.cpu_lacks:
        if flag in flags:
            return f"this CPU has {flag}"
    if condition.versions:
        version = described.get("version", "")
        try:
            if not SpecifierSet(condition.versions).contains(Version(version), prereleases=True):
                return f"version {version} is not {condition.versions}"
        except InvalidSpecifier:
            raise InvalidCase(f"expect.when.versions: {condition.versions!r} is no version specifier") from None
        except InvalidVersion:
            return f"version {version!r} cannot be compared"
    return ""
