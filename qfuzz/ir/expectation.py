"""What a corpus file expects of a backend, and on which machines: plain data inside the case file."""

from typing import Literal

import msgspec


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where an expectation applies. Every part that is given must hold.

    Attributes
    ----------
    cpu_has, cpu_lacks
        Instruction-set names as `describe()` reports them, for example ``avx512_vnni``.
    versions
        A version specifier of the framework (PEP 440, for example ``==2.13.*``); empty is any.
    """

    cpu_has: tuple[str, ...] = ()
    cpu_lacks: tuple[str, ...] = ()
    versions: str = ""


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What replaying a case on a backend is to give.

    Attributes
    ----------
    backend
        A backend name, or a shell glob over names and options.
    verdict
        ``holds`` (no violation, crash, …), or the verdict of a known issue: ``violation``, ``crash``, ``hang``,
        ``rejected``, ``unstable``, ``corrupted``, ``accepted-invalid``.
    signature
        Of a known issue: the signature that it triages; empty for ``holds``.
    link
        Of a known issue: the upstream thread, or ``not reported``.
    note
        One line for the reader.
    """

    backend: str
    verdict: Literal["holds", "violation", "crash", "hang", "rejected", "unstable", "corrupted", "accepted-invalid"]
    when: Condition = Condition()
    signature: str = ""
    link: str = ""
    note: str = ""
