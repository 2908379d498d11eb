"""The HTML report: one page that is well-formed, escaped, self-contained and small."""

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
import torch

from lava_bridge import BridgeError
from lava_bridge.html_report import save_html
from lava_bridge.html_report.raster import MAX_ROWS, MAX_STEPS, draw
from lava_bridge.report import EquivalenceReport, LayerComparison

VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = "</title><script>alert(1)</script>\x00\ud800 \"'&"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


class Page(HTMLParser):
    """Checks that every element is closed in order; keeps the tags and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def compared(a: torch.Tensor, b: torch.Tensor, name: str = "1 Dense") -> LayerComparison:
    """What spikes ``[N, *, T]`` of a layer give."""
    layer = LayerComparison(name, name, tuple(a.shape[1:-1]))
    layer.add(a, b, 0)
    return layer


def report(*layers: LayerComparison, claim: str = "exact") -> EquivalenceReport:
    return EquivalenceReport(claim, "a (blocks)", "net.net", 2, list(layers), (2, 1, 8, 8, 9))


def random_spikes(*shape: int) -> torch.Tensor:
    return (torch.rand(*shape) < 0.4).float()


def test_the_page_is_well_formed_and_holds_verdicts_layers_tables_and_versions(tmp_path):
    spikes = random_spikes(2, 5, 9)
    changed = spikes.clone()
    changed[1, 3, 4] = 1 - changed[1, 3, 4]
    exact, broken = report(compared(spikes, spikes)), report(compared(spikes, changed, "7 Conv"))
    tables = [("Calibrated", ("layer", "factor"), [("0 Linear", 12.5), ("2 Linear", 3)])]
    save_html({"twin": exact, "integers": broken}, tmp_path / "r.html", "My net", tables)
    page = Page(tmp_path / "r.html")
    for part in ("My net", "Not exact", "1 Dense", "7 Conv", "sample 1, t=4, neuron (3)", "12.5"):
        assert part in page.text
    for part in ("1 x 8 x 8", torch.__version__, "How the net was converted", "differs first"):
        assert part in page.text
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table")) == 3
    assert all(th["scope"] in ("col", "row") for th in page.all("th"))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {a["href"].removeprefix("#") for a in page.all("a")} <= ids
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))


def test_nothing_comes_from_elsewhere_and_nothing_runs(tmp_path):
    report(compared(random_spikes(1, 4, 6), random_spikes(1, 4, 6))).save_html(tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert {"script", "link", "img", "iframe"}.isdisjoint(tag for tag, _ in page.tags)
    assert not re.search(r"https?:|//\w|@import|url\(", page.source)
    for _, attributes in page.tags:
        assert not any(key.startswith("on") or key == "src" for key in attributes)
    policies = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_the_page_follows_the_readers_scheme_and_has_rules_for_paper(tmp_path):
    report(compared(random_spikes(1, 4, 6), random_spikes(1, 4, 6))).save_html(tmp_path / "r.html")
    source = (tmp_path / "r.html").read_text()
    assert "@media screen and (prefers-color-scheme: dark)" in source
    assert "@media print" in source
    assert "break-inside: avoid" in source


def luminance(colour: str) -> float:
    """Relative luminance, as the Web Content Accessibility Guidelines (WCAG 2.2) define it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_has_the_contrast_that_wcag_asks_for_in_both_schemes():
    style = resources.files("lava_bridge.html_report").joinpath("style.css").read_text()
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        pairs = [(text, "page") for text in ("ink", "soft", "link", "spike", "differ")]
        pairs += [(text, "panel") for text in ("ink", "soft", "link", "exact", "drift", "differ")]
        pairs += [(text, f"{text}-tint") for text in ("exact", "drift", "differ")]
        for text, ground in pairs:
            dark, light = sorted((luminance(colours[text]), luminance(colours[ground])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_whatever_names_hold_is_text(tmp_path):
    layer = compared(random_spikes(1, 4, 6), random_spikes(1, 4, 6), HOSTILE)
    found = EquivalenceReport("exact", HOSTILE, HOSTILE, 1, [layer])
    tables = [(HOSTILE, (HOSTILE,), [(HOSTILE,)])]
    save_html({HOSTILE: found}, tmp_path / "r.html", HOSTILE, tables)
    page = Page(tmp_path / "r.html")
    assert not page.all("script")
    assert page.text.count("<script>alert(1)</script>") >= 8
    assert not re.search("[\x00\ud800]", page.source)


def test_large_layers_make_no_large_page(tmp_path):
    layers = [
        compared(random_spikes(1, 16, 32, 4, t), random_spikes(1, 16, 32, 4, t)) for t in (16, 700)
    ]
    path = tmp_path / "r.html"
    report(*layers).save_html(path)
    assert path.stat().st_size < 700_000
    page = Page(path)
    boxes = [tuple(map(int, svg["viewbox"].split()[2:])) for svg in page.all("svg")][-2:]
    assert all(steps <= MAX_STEPS and rows <= MAX_ROWS for steps, rows in boxes)
    assert f"{MAX_STEPS} of 700 steps" in page.text


def marks(svg: str, name: str) -> list[tuple[int, int, int]]:
    """The strokes (row, time, length) of a kind in a picture."""
    found = re.search(rf'class="{name}"[^>]* d="([^"]*)"', svg)
    strokes = re.findall(r"M(\d+) (\d+)h(\d+)", found.group(1)) if found else []
    return [(int(row), int(time), int(length)) for time, row, length in strokes]


def test_a_picture_has_every_spike_and_every_difference():
    a, b = random_spikes(1, 20, 30), random_spikes(1, 20, 30)
    picture = draw(compared(a, b))
    both = torch.zeros(20, 30)
    for row, time, length in marks(picture.svg, "both"):
        both[row, time : time + length] += 1
    assert torch.equal(both, a[0] * b[0])
    for name, only in (("only a", a * (1 - b)), ("only b", b * (1 - a))):
        places = [[row, time] for row, time, _ in marks(picture.svg, name)]
        assert places == only[0].nonzero().tolist()
    assert f"{int((a * b).sum())} spikes in both nets" in picture.svg


def test_the_one_neuron_that_differs_late_in_a_large_layer_is_drawn():
    a = torch.zeros(1, 2000, 900)
    b = a.clone()
    b[0, 1234, 777] = 1
    picture = draw(compared(a, b))
    assert picture.steps[0] <= 777 <= picture.steps[1]
    assert len(marks(picture.svg, "only b")) == 1
    assert "first at t=777" in picture.svg


def test_values_are_bars_and_dots_of_their_height():
    a = torch.tensor([[[0.0, 2.0, -4.5]]])
    picture = draw(compared(a, torch.tensor([[[0.0, 2.0, 1.0]]])))
    assert picture.graded
    assert 'd="M1 0v-0.2M2 0v0.45"' in picture.svg
    assert 'd="M2 -0.10h0"' in picture.svg
    assert "1 of 3 values differ" in picture.svg


def test_pictures_that_are_the_same_are_drawn_once(tmp_path):
    found = report(compared(random_spikes(1, 4, 6), random_spikes(1, 4, 6)))
    save_html({"twin": found, "integers": found}, tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert len(page.all("figure")) == 1
    assert "The same pictures as of: twin" in page.text


def test_a_layer_that_nothing_ran_through_has_no_picture(tmp_path):
    report(LayerComparison("1 Dense", "1 Dense", (3,))).save_html(tmp_path / "r.html")
    assert Page(tmp_path / "r.html").all("figure") == []


def test_what_cannot_be_written_is_one_line_and_leaves_the_old_page(tmp_path):
    found = report(compared(random_spikes(1, 4, 6), random_spikes(1, 4, 6)))
    path = tmp_path / "r.html"
    path.write_text("old")
    with pytest.raises(BridgeError, match="table t: a row has 1 cells, and there are 2"):
        found.save_html(path, tables=[("t", ("a", "b"), [("c",)])])
    with pytest.raises(BridgeError, match="there is no report"):
        save_html({}, path)
    with pytest.raises(BridgeError, match="can't be written"):
        found.save_html(tmp_path / "no" / "r.html")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["r.html"]


def chromium(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """The page of ``folder`` in headless Chromium, which fetches nothing of its own."""
    quiet = "headless no-sandbox disable-gpu no-first-run disable-background-networking"
    quiet += " disable-component-update disable-sync hide-scrollbars"
    switches = [f"--{switch}" for switch in quiet.split()]
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *switches, profile, *options, (folder / "r.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the PATH")
def test_chromium_shows_the_verdict_and_both_schemes(tmp_path):
    changed = random_spikes(1, 4, 6)
    report(compared(changed, 1 - changed)).save_html(tmp_path / "r.html")
    shown = chromium(tmp_path, "--dump-dom").stdout
    assert "24 of 24 spike places differ" in shown
    pictures = []
    for scheme in ("0", "1"):  # dark, light
        path = tmp_path / f"{scheme}.png"
        chromium(
            tmp_path,
            f"--blink-settings=preferredColorScheme={scheme}",
            f"--screenshot={path}",
            "--window-size=800,900",
        )
        pictures.append(path.read_bytes())
    assert pictures[0] != pictures[1]
    assert min(map(len, pictures)) > 15_000  # a blank one has some 3,000 bytes
