"""The page as a reader sees it, in a real Chromium: from disk, by keyboard, on a phone, in the dark, hostile names."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_records import FILES, HOSTILE, named, rich

from qfuzz.campaign.record import Record
from qfuzz.report.grid import SEVERITY
from qfuzz.report.page import render

PHONE = {"width": 390, "height": 844}
SVG_TAGS = {"svg", "g", "path", "text", "tspan", "use", "defs", "clipPath", "rect", "title"}
SHAPE = """() => [...document.querySelectorAll("*")].filter(e => !e.closest("svg"))
    .map(e => [e.localName, ...e.getAttributeNames().sort()].join(" "))"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"

Opened = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Opened]:
    """Opens pages from disk; at the end, none has complained, asked, or fetched anything but itself."""
    bad: list[str] = []
    contexts = []

    def open_page(page: str, **options: Any) -> Any:
        path = tmp_path / f"{len(contexts)}.html"
        path.write_bytes(page.encode("utf-8"))
        context = browser.new_context(**options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda m: bad.append(f"console {m.type}: {m.text}"))
        tab.on("pageerror", lambda e: bad.append(f"error: {e}"))
        tab.on("dialog", lambda d: (bad.append(f"dialog: {d.message}"), d.dismiss()))
        own = (path.as_uri(), "data:")
        tab.on("request", lambda r: None if r.url.startswith(own) else bad.append(f"fetched {r.url}"))
        tab.goto(path.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not bad


def shown_cards(tab: Any) -> list[str]:
    return [card.get_attribute("id") for card in tab.locator(".card").all() if card.is_visible()]


def count(tab: Any) -> str:
    return tab.locator("#findings output").inner_text()


def pressed_until(tab: Any, key: str, selector: str, limit: int = 60) -> None:
    for _ in range(limit):
        if tab.evaluate("s => document.activeElement?.matches(s) ?? false", selector):
            return
        tab.keyboard.press(key)
    raise AssertionError(f"{key} does not lead to {selector}")


def test_the_planted_faults_would_be_noticed(browser: Any, tmp_path: Path) -> None:
    """What `opened` watches for does come up when it is there."""
    path = tmp_path / "bad.html"
    path.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('no'); alert(1); nobody()</script>")
    seen = []
    tab = browser.new_page()
    tab.on("console", lambda m: seen.append("console"))
    tab.on("pageerror", lambda e: seen.append("error"))
    tab.on("dialog", lambda d: (seen.append("dialog"), d.dismiss()))
    tab.on("request", lambda r: seen.append(r.url))
    tab.goto(path.as_uri())
    assert {"console", "error", "dialog", "http://127.0.0.1:9/x.png"} <= set(seen)
    tab.close()


def test_filters_by_pointer(opened: Opened) -> None:
    tab = opened(render(*rich()))
    assert count(tab) == "5 of 5 findings"
    assert tab.locator("#findings output").get_attribute("aria-live") == "polite"
    tab.select_option("#findings select[name=verdict]", "violation")
    assert count(tab) == "3 of 5 findings"
    tab.select_option("#findings select[name=backend]", "onnxruntime")
    assert count(tab) == "1 of 5 findings"
    tab.click("#findings [data-reset]")
    tab.select_option("#findings select[name=backend]", "onnxruntime")
    assert count(tab) == "2 of 5 findings", "the second backend that reproduces a finding counts, too"
    tab.click("#findings [data-reset]")
    tab.select_option("#findings select[name=op]", "hardswish")
    assert len(shown_cards(tab)) == 1
    tab.click("#findings [data-reset]")
    tab.select_option("#findings select[name=triage]", "known")
    assert "pairs saturate without VNNI" in tab.locator(".card:visible").text_content()
    assert "not this one" not in tab.locator(".card:visible").text_content()
    tab.click("#findings [data-reset]")
    tab.fill("#findings input[type=search]", "TRUNCATED conv")
    assert len(shown_cards(tab)) == 1
    tab.fill("#findings input[type=search]", "nothing has this")
    assert count(tab) == "0 of 5 findings"
    tab.fill("#coverage input[type=search]", "per-channel")
    assert tab.locator("#coverage tbody tr:visible").count() == 1


def test_everything_by_keyboard(opened: Opened) -> None:
    tab = opened(render(*rich()))
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the findings"
    pressed_until(tab, "Tab", "#findings input[type=search]")
    tab.keyboard.type("conv")
    assert count(tab) == "3 of 5 findings", "two of conv, and one with conv in its network"
    tab.keyboard.press("Tab")
    tab.keyboard.press("ArrowDown")
    assert tab.locator("#findings select[name=verdict]").input_value() == "crash"
    assert count(tab) == "1 of 5 findings"
    pressed_until(tab, "Tab", "#findings [data-reset]")
    tab.keyboard.press("Enter")
    assert count(tab) == "5 of 5 findings"
    pressed_until(tab, "Tab", ".card summary")
    tab.keyboard.press("Enter")
    assert tab.locator(".card").first.get_attribute("open") is not None
    pressed_until(tab, "Tab", ".files a")
    with tab.expect_download() as download:
        tab.keyboard.press("Enter")
    assert download.value.suggested_filename == "conv.zip"
    pressed_until(tab, "Tab", "th button")
    tab.keyboard.press("Enter")
    assert tab.locator("th[aria-sort=ascending]").count() == 1


def test_tables_sort_by_number(opened: Opened) -> None:
    tab = opened(render(*rich()))
    button = tab.get_by_role("button", name="examples")
    column = "#coverage tbody td[data-number]"
    button.click()
    assert tab.locator(column).all_inner_texts() == ["5", "12", "30", "90"]
    button.click()
    assert tab.locator(column).all_inner_texts() == ["90", "30", "12", "5"]


def test_files_come_out_as_they_went_in(opened: Opened) -> None:
    tab = opened(render(*rich()))
    card = tab.locator(".card").first
    card.locator("summary").click()
    for i, (name, data) in enumerate(sorted(FILES.items()), 1):
        with tab.expect_download() as download:
            card.locator(".files a").nth(i).click()
        assert download.value.suggested_filename == name.replace("/", "-")
        assert Path(download.value.path()).read_bytes() == data


def test_a_finding_can_be_linked_to(opened: Opened) -> None:
    tab = opened(render(*rich()))
    tab.evaluate("location.hash = '#finding-3'")
    tab.wait_for_function("document.getElementById('finding-3').open")
    assert tab.locator(".card[open]").count() == 1


def test_all_is_there_without_a_script(opened: Opened) -> None:
    tab = opened(render(*rich()), java_script_enabled=False)
    assert len(shown_cards(tab)) == 5
    assert not tab.locator("#findings .filters").is_visible()
    assert not tab.locator("#theme").is_visible()
    assert tab.locator("#verdicts svg").is_visible()


def luminance(colour: str) -> float:
    channels = [int(c) / 255 for c in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(opened: Opened, scheme: str) -> None:
    """Text has the contrast of WCAG AA, in the page, on every verdict, in the figures."""
    tab = opened(render(*rich()), color_scheme=scheme)
    style = "(e) => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    ink, ground = tab.locator("body").evaluate(style)
    assert (luminance(ground) > 0.5) == (scheme == "light")
    assert contrast(ink, ground) >= 7
    assert contrast(tab.locator(".note").first.evaluate(style)[0], ground) >= 4.5
    badges = tab.locator(".legend .badge")
    assert badges.all_inner_texts() == list(SEVERITY)
    for badge in badges.all():
        assert contrast(*badge.evaluate(style)) >= 4.5, badge.inner_text()
    paper = tab.locator(".plot .scroll").first.evaluate(style)[1]
    fills = tab.locator("#errors svg text").evaluate_all("es => es.map(e => getComputedStyle(e).fill)")
    assert fills
    assert all(contrast(fill, paper) >= 4.5 for fill in fills)


def test_the_button_turns_the_scheme_round(opened: Opened) -> None:
    tab = opened(render(*rich()), color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = tab.evaluate(ground)
    assert tab.locator("#theme").inner_text() == "Light"
    tab.click("#theme")
    assert luminance(tab.evaluate(ground)) > 0.5
    tab.click("#theme")
    assert tab.evaluate(ground) == dark


@pytest.mark.parametrize("names", [("one", "two"), HOSTILE], ids=["plain", "hostile"])
def test_nothing_overflows_a_phone(opened: Opened, names: tuple[str, ...]) -> None:
    for record, folders in (rich(), named(names)):
        tab = opened(render(record, folders), viewport=PHONE)
        for details in tab.locator("details").all():
            details.evaluate("e => { e.open = true }")
        assert tab.evaluate(OVERFLOW) == 0


def large() -> Record:
    """200 findings, 60 operators, 12 backends."""
    record, _ = rich()
    backends = [f"backend-{i}?form=qdq&opt=all" for i in range(12)]
    return Record(
        document=record.document | {"findings": record.document["findings"] * 40},
        described={b: {"name": b, "version": str(i)} for i, b in enumerate(backends)},
        by_op={b: {f"operator_{i}": {"exact": 5000, "violation": i % 7} for i in range(60)} for b in backends},
        steps={b: {0: 100, -1: 3} for b in backends},
        coverage={f"operator_{i} > operator_{j}": i + j for i in range(60) for j in range(60)},
        timeline=record.timeline * 100,
    )


def test_a_large_campaign_stays_readable(opened: Opened) -> None:
    tab = opened(render(large(), {}), viewport=PHONE)
    assert count(tab) == "200 of 200 findings"
    assert tab.evaluate(OVERFLOW) == 0
    tab.get_by_text("The same numbers as a table").first.click()
    table = tab.get_by_role("region", name="Verdicts by operator and backend")
    head = table.locator("tbody th").first
    before = head.bounding_box()
    table.evaluate("e => { e.scrollLeft = 900 }")
    assert head.bounding_box()["x"] == pytest.approx(before["x"], abs=1), "the first column stays"
    svg = tab.locator("#verdicts svg")
    assert svg.evaluate("e => e.getBoundingClientRect().width > 1000"), "figures scroll; they are not shrunk"
    sizes = svg.locator("text").evaluate_all("es => es.map(e => e.getBoundingClientRect().height)")
    assert min(sizes) >= 9
    boxes = svg.locator("text").evaluate_all(
        "es => es.map(e => { const b = e.getBBox(); return [b.x, b.x + b.width] })"
    )
    assert min(left for left, _ in boxes) >= 0
    assert max(right for _, right in boxes) <= svg.evaluate("e => e.viewBox.baseVal.width")


def test_hostile_strings_make_no_markup(opened: Opened) -> None:
    plain = opened(render(*named([f"name{i}" for i in range(len(HOSTILE))])))
    hostile = opened(render(*named(HOSTILE)))
    for details in hostile.locator("details").all():
        details.evaluate("e => { e.open = true }")
    for details in plain.locator("details").all():
        details.evaluate("e => { e.open = true }")
    assert hostile.evaluate(SHAPE) == plain.evaluate(SHAPE), "the same elements with the same attributes, in order"
    inside = hostile.evaluate(
        "() => [...document.querySelectorAll('svg, svg *')].map(e => [e.localName, e.getAttributeNames()])"
    )
    assert {tag for tag, _ in inside} <= SVG_TAGS
    assert not [a for _, attributes in inside for a in attributes if a.startswith("on")]
    text = hostile.evaluate("document.body.textContent")
    for s in HOSTILE[:8]:
        assert s in text, "it is shown as it is"
    assert "\\u202egnp.exe\\u2066" in text
    assert "a\\x00b\\x1b[31m\\x7f\\ud800" in text
    assert "\u202e" not in text
    drawn = hostile.evaluate("[...document.querySelectorAll('svg text')].map(e => e.textContent)")
    assert "$\\frac{ \\undefined $" in drawn, "no text is taken for a formula"
    options = hostile.locator("#findings select[name=op] option").count()
    assert options == len(HOSTILE) + 1
    hostile.select_option("#findings select[name=op]", HOSTILE[1])
    assert count(hostile) == f"1 of {len(HOSTILE)} findings"
