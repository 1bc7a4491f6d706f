"""When two accusations are one bug, and which of two findings of a signature is kept."""

import msgspec

from qfuzz.campaign.protocol import FoundCase, Suspect
from qfuzz.ops import CODEC
from qfuzz.reduce.order import size_key


def covers(found: FoundCase, suspect: Suspect) -> bool:
    """Whether the suspect is the same bug, seen on another backend that reproduces the finding's case."""
    same_kind = suspect.symptom.kind == found.signature.symptom.kind
    return suspect.spec in found.backends and same_kind and suspect.symptom.leads_to(found.signature.symptom)


def could_cover(a: Suspect, b: Suspect) -> bool:
    """Whether the finding of `a` may turn out to cover `b`, or to have its signature."""
    ops = {a.symptom.op, b.symptom.op}
    return a.symptom.verdict == b.symptom.verdict and (len(ops) == 1 or "" in ops)


def merged(kept: FoundCase | None, found: FoundCase) -> FoundCase:
    """Of two findings of one signature: the smallest case, and the first example of both.

    An issue may be known of some backends only. Then one that is new is kept, however large: it is never hidden.
    """
    if kept is None:
        return found
    smaller = min(
        (kept, found), key=lambda f: (bool(f.known), size_key(CODEC.decode(f.case).case), f.first_example or 0)
    )
    examples = [f.first_example for f in (kept, found) if f.first_example is not None]
    backends = tuple(dict.fromkeys((*smaller.backends, *kept.backends, *found.backends)))
    both = msgspec.structs.replace(smaller, first_example=min(examples, default=None), backends=backends)
    return kept if both == kept else both
