"""Makes the changes of `qfuzz.backends.torch_mutations` in the call list of a valid network. Pure.

Everything that runs, prints and compares call lists does so with the change, too; `qfuzz.backends.torch_float` makes
the float twin of what comes out.
"""

from fnmatch import fnmatchcase

from qfuzz.backends.torch_calls import Arg, Call, CallList, literal
from qfuzz.backends.torch_changes import NOTHING, Changed, Mutation, Site
from qfuzz.backends.torch_float import QUANTIZERS, float_twin
from qfuzz.backends.torch_mutations import DOCUMENTED, MUTATIONS
from qfuzz.ir.errors import Unsupported
from qfuzz.ir.network import Network


def changed(calls: CallList, network: Network, kind: str = "") -> CallList:
    """The call list of a valid network with the change that its form says, or `kind`.

    Its values are declared to say nothing of themselves.

    Raises
    ------
    Unsupported
        Where no call here has what is to be changed.
    """
    kind = kind or network.form("invalid")
    mine = [m for m in MUTATIONS if m.kind == kind]
    prepare, run, n = list(calls.prepare), list(calls.run), 0
    for part, before in ((prepare, []), (run, prepare)):
        for call in list(part):
            for m in mine if part is run or not call.target.startswith(".") else ():
                if any(fnmatchcase(call.target, t) for t in m.targets):
                    n += _make(m, Site(call, network), part, before)
    if not n:
        raise Unsupported(f"{kind}: no call of {network.nodes[0].op.name} here has what would be changed")
    values = tuple(d._replace(dtype="") for d in calls.values)
    return calls._replace(prepare=tuple(prepare), run=tuple(run), values=values)


def _make(m: Mutation, site: Site, part: list[Call], before: list[Call]) -> bool:
    """Make a change in the part that the call is of, or in what comes `before`; whether it says anything here."""
    if m.change is not None:
        return _change(m, m.change, site, part)
    assert m.reshape is not None
    if isinstance(m.position, str) or m.position >= len(site.call.args):
        return False
    arg = site.call.args[m.position]
    name = arg.value[-1] if arg.kind == "variables" else arg.value
    if arg.kind not in ("variable", "variables") or (arg.kind == "variables" and len(set(arg.value)) < len(arg.value)):
        return False
    if sum(_reads(a, name) for a in site.call.args) > 1:
        return False  # both operands would change
    made = next((c for c in (*before, *part) if c.out == name and c.target in QUANTIZERS), None)
    array = name if made is None else made.args[0].value
    call = m.reshape(array, site)
    if call is None:
        return False
    if made is None:
        part.insert(_place(site, part), call)
    else:
        where = before if made in before else part
        where.insert(where.index(made), call)
    return True


def _place(site: Site, part: list[Call]) -> int:
    """Where the call is by now, whatever was changed in it."""
    return next(i for i, call in enumerate(part) if (call.out, call.target) == (site.call.out, site.call.target))


def _reads(arg: Arg, name: str) -> bool:
    return name in arg.value if arg.kind == "variables" else arg.kind == "variable" and arg.value == name


def _change(m: Mutation, change: Changed, site: Site, part: list[Call]) -> bool:
    at = _place(site, part)
    if isinstance(m.position, str):
        named = dict(part[at].kwargs)
        value = change(named[m.position].value, site)
        part[at] = part[at]._replace(kwargs=tuple({**named, m.position: literal(value)}.items()))
        return True
    args = list(part[at].args)
    if m.position > len(args) or (m.position < len(args) and args[m.position].kind != "literal"):
        return False
    value = change(args[m.position].value if m.position < len(args) else None, site)
    if value is None:
        return False
    args[m.position : m.position + 1] = [literal(None if value is NOTHING else value)]
    part[at] = part[at]._replace(args=tuple(args))
    return True


def ruled_out(calls: CallList, kind: str) -> str:
    """The text that rules out a change of that kind in these calls; none where the float twin is to tell."""
    targets = [c.target for c in (*calls.prepare, *calls.run)]
    texts = (m.text for m in MUTATIONS if m.kind == kind and m.text and _are_named(targets, m.targets))
    return next(texts, DOCUMENTED.get(kind, ""))


def _are_named(targets: list[str], globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(t, g) for t in targets for g in globs)


def kinds_of(calls: CallList, network: Network) -> tuple[str, ...]:
    """The kinds that change something of a call list and can be judged, in the order of the table."""
    targets = [c.target for c in (*calls.prepare, *calls.run)]
    kinds = []
    for kind in dict.fromkeys(m.kind for m in MUTATIONS if _are_named(targets, m.targets)):
        try:
            made = changed(calls, network, kind)
            if not ruled_out(made, kind):
                float_twin(made)
        except Unsupported:
            continue
        kinds.append(kind)
    return tuple(kinds)
