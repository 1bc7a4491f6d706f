"""Known issues that `qfuzz.check` meets, for whoever wants to know. Light, for the pytest plugin imports it."""

from contextvars import ContextVar

KNOWN_SEEN: ContextVar[list[str] | None] = ContextVar("KNOWN_SEEN", default=None)
"""Where they are noted; None where nobody wants to know."""
