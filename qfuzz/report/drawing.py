"""From a matplotlib figure to SVG inside a page: colours that the page's style sheet decides, and ids of its own.

A figure is drawn once, in stand-in colours; each becomes a CSS variable, so that it can be light or dark. Text stays
text. One unit of a drawing is one CSS pixel.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import style
from matplotlib.figure import Figure

from qfuzz.report.grid import SEVERITY

COLOURS = (
    "ink",
    "muted",
    "line",
    "panel",
    "accent",
    "alert",
    "calm",
    *(f"{p}-{v}" for v in SEVERITY for p in ("on", "of")),
)
"""Names of the page's colours: ``of-exact`` is the ground of a verdict, ``on-exact`` what is written on it."""
_STAND_INS = {name: f"#0a{i:02x}0b" for i, name in enumerate(COLOURS)}
_VARIABLES = {stand_in: f"var(--{name})" for name, stand_in in _STAND_INS.items()}

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"#([A-Za-z0-9_.-]+)")
_FONT = re.compile(r"font-family:[^;]*;?")
UNITS_PER_INCH = 72.0


def colour(name: str) -> str:
    """The stand-in for a colour of the page."""
    return _STAND_INS[name]


STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "qfuzz",
    "text.parse_math": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": colour("line"),
    "axes.labelcolor": colour("muted"),
    "axes.titlecolor": colour("ink"),
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": colour("line"),
    "grid.linewidth": 0.6,
    "text.color": colour("ink"),
    "xtick.color": colour("line"),
    "ytick.color": colour("line"),
    "xtick.labelcolor": colour("muted"),
    "ytick.labelcolor": colour("muted"),
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
}


@contextlib.contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure of `width` by `height` pixels; what is drawn inside the context has the page's style."""
    with style.context(["default", STYLE]):
        yield Figure(figsize=(width / UNITS_PER_INCH, height / UNITS_PER_INCH), dpi=UNITS_PER_INCH)


def inlined(figure: Figure, name: str, label: str, tips: Mapping[str, str] | None = None) -> Markup:
    """The figure as an ``<svg>`` element; to be called inside its `drawing`.

    Parameters
    ----------
    name
        Begins every id; no two figures of a page may have the same.
    label
        What the figure shows, for those who do not see it.
    tips
        By the ``gid`` of an artist: the text that appears where the pointer rests on it.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A letter that matplotlib's own font lacks is measured wrong and shown right: the browser has other fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for child in list(root):
        if child.tag == f"{{{_SVG}}}metadata":
            root.remove(child)
    used = {m[1] for e in root.iter() for v in e.attrib.values() for m in _REFERENCE.finditer(v)}
    for element in list(root.iter()):
        for inner in list(element):
            if inner.tag == f"{{{_SVG}}}style":
                element.remove(inner)  # it would hold for the whole page
        gid = element.attrib.get("id", "")
        if tips and gid in tips:
            tip = ElementTree.Element(f"{{{_SVG}}}title")
            tip.text = tips[gid]
            element.insert(0, tip)
        _renamed(element, name, used)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib |= {"width": width, "height": height, "role": "img", "aria-label": label, "class": "figure"}
    root.attrib["style"] = "stroke-linejoin: round; stroke-linecap: butt"
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # serialized from a tree: every text is escaped


def _renamed(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Give the element's id and references the figure's prefix, its colours the page's names, its text its font."""
    attributes = element.attrib
    if "id" in attributes:
        own = attributes.pop("id")
        if own in used:
            attributes["id"] = f"{name}-{own}"
    for key in ("clip-path", f"{{{_XLINK}}}href"):
        if key in attributes:
            attributes[key] = _REFERENCE.sub(rf"#{name}-\1", attributes[key])
    if "style" in attributes:
        text = _FONT.sub("", attributes["style"])
        for stand_in, variable in _VARIABLES.items():
            text = text.replace(stand_in, variable)
        attributes["style"] = text
