"""What a case exercises, as a set of short texts: the coverage that a campaign counts."""

from qfuzz.findings.signature import node_form
from qfuzz.ir.network import Case


def features_of(case: Case) -> frozenset[str]:
    """Its operators (``conv``), what each has (``conv: per-channel``), neighbours (``conv > relu``), forms."""
    network = case.network
    made_by = {n.name: n.op.name for n in network.nodes}
    features: set[str] = set(network.forms)
    for node in network.nodes:
        op = node.op.name
        features.add(op)
        features.update(f"{op}: {part}" for part in node_form(case, node))
        features.update(f"{made_by[i]} > {op}" for i in node.inputs if i in made_by)
    return frozenset(features)
