"""The report: the page of text, and the site in headless Chromium."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import call
from matplotlib.colors import to_rgb
from PIL import Image

from deconvnet.config.paths import REPORTS, ROOT
from deconvnet.data import voc
from deconvnet.evaluation import per_image
from deconvnet.evaluation.methods import METHODS
from deconvnet.images import store
from deconvnet.report import captions, paper_figures, site

# No network, no first-run pages, no traffic of the browser itself.
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip
NOTEBOOKS = site.executed_notebooks()
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def test_the_verdicts_are_counted_in_one_sentence():
    verdicts = ("supported", "inconclusive", "supported", "not run", "contradicted")
    text = site.verdict([{"id": f"C{i}", "verdict": verdict} for i, verdict in enumerate(verdicts)])
    assert text == (
        "Of 5 tests of its claims here, 2 supported (C0, C2); 1 contradicted (C4); 1 inconclusive (C1); 1 not run (C3)."
    )


def test_numbers_sort_by_value_and_show_one_digit():
    table = pd.DataFrame({"iou": [9.96, float("nan")]}, index=pd.Index(["a", "b"], name="method"))
    made = site.sortable(table, best=pd.DataFrame({"iou": [True, False]}))
    assert made["head"] == ["method", "iou"]
    first, second = (row["cells"][1] for row in made["rows"])
    assert (first["key"], first["text"], first["best"]) == (9.96, "10.0", True)
    assert (second["key"], second["text"], second["best"]) == (None, "–", False)


@pytest.mark.parametrize(("text", "key"), [("43.7 ± 1.2", 43.7), ("+1.5 [+1.0, +2.0]", 1.5), ("–", None), ("C1", None)])
def test_texts_sort_by_the_number_that_they_begin_with(text, key):
    assert site.cell(text) == {"text": text, "best": False, "key": key}


ROW = {"id": "C6", "statement": "s", "paper": "text", "paper_effect": None, "measure": "m", "unit": "points"}
NOT_RUN = {"effect": None, "ci": None, "range": None, "seeds": 0, "verdict": "not run"}
RESULTS = [
    ({"effect": 1.54, "ci": [1.0, 2.0], "range": None, "seeds": 4, "against_one": False, "verdict": "supported"},
     "+1.5 [+1.0, +2.0]", "4"),
    ({"effect": -1.5, "ci": None, "range": [-2.0, -1.0], "seeds": 4, "against_one": True, "verdict": "contradicted"},
     "-1.5 range [-2.0, -1.0]", "4 against 1"),
    (NOT_RUN | {"against_one": True}, "not run", "0"),
]  # fmt: skip


@pytest.mark.parametrize(("result", "shown", "trainings"), RESULTS)
def test_verdict_and_effect_follow_the_claim(result, shown, trainings):
    table = site.claims_rows([ROW | result, ROW | result | {"paper_effect": 7.4}])
    assert table["head"][:3] == ["claim", "verdict", "effect [95 %]"]
    first, second = table["rows"]
    assert first["mark"] == result["verdict"].replace(" ", "-")
    texts = [cell["text"] for cell in first["cells"]]
    assert texts == ["C6", result["verdict"], shown, "s", "text", "m (points)", trainings]
    assert len(texts) == len(table["head"])
    assert first["cells"][2]["key"] == result["effect"]  # sorts by it
    assert second["cells"][4]["text"] == "text (+7.4)"


def test_controls_are_listed_under_their_claim():
    control = {"measure": "m", "unit": "points", "ci": [-1.0, 2.0], "range": None}
    share = {"measure": "ceiling", "unit": "% of objects", "effect": 11.6, "ci": None, "range": None}
    rows = [{"id": "C1", "controls": []}, {"id": "C2", "controls": [control | {"effect": 0.5}, share]}]
    table = site.controls_rows(rows)
    assert [[cell["text"] for cell in row["cells"]] for row in table["rows"]] == [
        ["C2", "m (points)", "+0.5 [-1.0, +2.0]"], ["C2", "ceiling (% of objects)", "11.6"]
    ]  # fmt: skip
    assert [row["cells"][2]["key"] for row in table["rows"]] == [0.5, 11.6]


def test_wide_tables_and_pictures_scroll_in_their_boxes():
    found = site.scrolling('<p>a</p><table><tr></tr></table><img src="x"><img src="y">')
    labels = ["table 1", "picture 1", "picture 2"]
    assert re.findall(r'tabindex="0" role="region" aria-label="([^"]+)"', found) == labels
    assert found.count("</div>") == 3


def test_the_browser_has_the_errors_of_each_method_below_each_other(tmp_path, monkeypatch):
    """On a black image with an object: missed by the first method, found by the second; the third confuses it and
    invents one; the others find it.
    """
    for module in (site, store):
        for name in ("SITE", "VOC", "COUNTS", "STEPS", "PREDICTIONS"):
            monkeypatch.setattr(module, name, tmp_path / name.lower(), raising=False)
    ground_truth = np.zeros((32, 48), np.uint8)
    ground_truth[:, 32:] = 8
    third = np.where(ground_truth == 8, 12, 0)
    third[:, :16] = 3
    predicted = dict(zip(METHODS, (0 * ground_truth, ground_truth, third, ground_truth, ground_truth), strict=True))
    path = voc.image_path(site.VOC, "a")
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(path)
    voc.save_mask(voc.labels_path(site.VOC, "a"), ground_truth)
    for method, labels in predicted.items():
        voc.save_mask(store.prediction_path(method, "a"), labels)
    voc.save_mask(site.STEPS / "a.png", np.concatenate([ground_truth] * 2))
    counts = {f"counts/{m}": per_image.image_counts(ground_truth, labels)[None] for m, labels in predicted.items()}
    per_image.save(site.COUNTS / "methods.npz", counts)
    steps = {f"proposals/best/{n}": counts[f"counts/{m}"] for n, m in ((1, "fcn8s"), (50, "deconvnet"))}
    per_image.save(site.COUNTS / "proposals.npz", steps)
    found = site.browser(["a"], [1, 50])
    assert found["images"] == [{
        "name": "a", "ratio": "48 / 32", "steps": [33.33, 100.0],  # of the two classes, 32 of 48 columns and none
        "methods": dict(zip(METHODS, (33.33, 100.0, 12.5, 100.0, 100.0), strict=True)),  # 16 of 32, and three of none
    }]  # fmt: skip
    missed, invented, confused = (255 * np.array(to_rgb(colour)) for colour in paper_figures.ERRORS.values())
    black = np.zeros(3)
    expected = [[black, black, missed], [black] * 3, [invented, black, confused], [black] * 3, [black] * 3]
    with Image.open(site.SITE / "images" / "val" / "errors" / "a.jpg") as picture:
        assert picture.size == (48, 5 * 32)
        blocks = np.asarray(picture, float).reshape(5, 32, 3, 16, 3)[:, 8:24, :, 4:12]  # not near their borders: JPEG
    np.testing.assert_allclose(blocks.mean(axis=(1, 3)), expected, atol=6)


def test_the_executed_notebooks_are_those_of_the_stages():
    assert NOTEBOOKS == {
        "data": "data", "boundaries": "boundaries", "proposals": "proposals", "backbone": "backbone",
        "train_stage1": "train", "train_stage2": "train", "train_fcn8s": "train_fcn",
        "infer_deconvnet": "infer", "infer_fcn8s": "infer", "ensemble": "ensemble", "crf": "crf",
        "evaluate": "evaluate", "diagnosis": "diagnosis", "results": "results", "proposal_study": "proposal_study",
        "decoder": "decoder", "claims": "claims", "figures": "figures",
    }  # fmt: skip


def test_every_figure_is_listed_with_the_notebook_that_draws_it():
    for figure in captions.FIGURES:
        source = (ROOT / "notebooks" / f"{NOTEBOOKS[figure.notebook]}.ipynb").read_text()
        assert f'{figure.file}.png\\"' in source, figure.file


# The committed page of text


@pytest.mark.reports
def test_the_committed_page_has_the_committed_verdicts():
    page = (REPORTS / "README.md").read_text()
    claims = json.loads((REPORTS / "claims.json").read_text())
    assert site.verdict(claims) in page
    for row in claims:
        assert re.search(rf"\| {row['id']}(, primary)? +\|.*\*\*{row['verdict']}\*\*", page), row["id"]


def test_the_links_of_the_committed_page_lead_somewhere():
    page = (REPORTS / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 30
    for link in links:
        assert (REPORTS / link).exists(), link
    for number in range(1, 8):
        assert f"figures/figure{number}.png" in links


# The site of the smoke run


@pytest.fixture(scope="module")
def folder(smoke) -> Path:
    """Where the site is."""
    return smoke / "reports" / "site"


def test_the_site_needs_nothing_from_elsewhere(folder, smoke):
    text = {path: path.read_text() for path in folder.rglob("*") if path.suffix in (".html", ".css", ".js")}
    assert len(text) > 16
    for path, content in text.items():
        assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", content), path
        assert not re.findall(r"""@import|url\(["']?(?:https?:)?//""", content), path
        assert str(smoke) not in content, path


def test_claims_without_their_ablation_read_not_run(smoke):
    verdicts = {row["id"]: row["verdict"] for row in json.loads((smoke / "reports" / "claims.json").read_text())}
    assert {verdicts[id] for id in ("C6", "C7", "C8c")} == {"not run"}  # the committed ablations are of the default
    assert {verdicts[id] for id in ("C8a", "C8b")} == {"not run"}  # a check of theirs needs one
    assert verdicts["C1"] != "not run"


def test_provenance_is_shown_and_is_no_output(smoke, folder):
    facts = json.loads((smoke / "reports" / "provenance.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{40}", facts["commit"])
    assert facts["dirty"] == []
    assert set(facts["seconds"]) == set(NOTEBOOKS)
    assert f"experiment {facts['experiment']}." in (smoke / "reports" / "tables" / "table1.md").read_text()
    assert facts["versions"]["torch"]
    script = (folder / "provenance.js").read_text()
    assert json.loads(script.removeprefix("window.PROVENANCE = ").rstrip(";\n")) == facts
    assert "provenance" not in (smoke / "dvc.lock").read_text()


def test_the_report_is_the_same_bytes_when_built_again(smoke, folder, tmp_path):
    def contents(site: Path) -> dict[str, bytes]:
        return {str(path.relative_to(site)): path.read_bytes() for path in site.rglob("*") if path.is_file()}

    shutil.copytree(smoke, tmp_path / "run", ignore=shutil.ignore_patterns(".dvc", "models", "scores"))
    done = call(tmp_path / "run", "python", "-m", "deconvnet.report.site")
    assert done.returncode == 0, done.stderr[-2000:]
    reports = tmp_path / "run" / "reports"
    assert contents(reports / "site") == contents(folder)
    assert (reports / "README.md").read_bytes() == (smoke / "reports" / "README.md").read_bytes()


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        reason = "Chromium is not installed (Debian: apt install chromium): the report's pages are not tested."
        (pytest.fail if os.environ.get("REQUIRE_CHROMIUM") else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(params=[1440, 390])
def page(chromium, folder, request):
    """index.html at that width; `messages` are the page's complaints, `requested` the addresses it loads."""
    page = chromium.new_page(viewport={"width": request.param, "height": 900})
    page.messages, page.requested = [], []
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("requestfailed", lambda request: page.messages.append(f"failed: {request.url}"))
    page.goto((folder / "index.html").as_uri())
    yield page
    page.close()


def is_sound(page) -> None:
    """No complaint, no request outside, every picture there, nothing wider than the screen."""
    page.evaluate("document.querySelectorAll('img').forEach((img) => { img.loading = 'eager'; })")
    page.wait_for_function("[...document.images].every((img) => img.complete)")
    assert page.evaluate("[...document.images].filter((img) => !img.naturalWidth).map((img) => img.src)") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 14
    assert page.messages == []
    assert [url for url in page.requested if not url.startswith(("file:", "data:"))] == []


def is_accessible(page) -> None:
    """No violation by axe."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_the_page_is_sound(page, smoke):
    assert page.locator("h1").inner_text().startswith("Learning Deconvolution Network")
    assert page.locator("main img").count() == len(captions.FIGURES)
    facts = dict(zip(*(page.locator(f"#machine {of}").all_inner_texts() for of in ("dt", "dd")), strict=True))
    assert {"commit", "device", "experiment"} <= facts.keys()
    assert facts["dirty"] == "none"
    assert re.search(r"claims [\d.]+, crf [\d.]+", facts["seconds"])
    markdown = [smoke / "reports" / "tables" / f"{name}.md" for name in site.MORE]
    tables = 1 + sum(len(site.markdown_tables(path)) for path in markdown)  # table 1
    assert page.locator("#tables figure.table").count() == tables >= 1 + 1 + 1 + 2 + 4 + 1
    is_sound(page)
    is_accessible(page)


def test_notebook_pages_are_sound(page, folder):
    for name in NOTEBOOKS:
        page.goto((folder / "notebooks" / f"{name}.html").as_uri())
        assert page.locator("article img, article table").count() >= 1, name
        is_sound(page)
    page.goto((folder / "notebooks" / "results.html").as_uri())  # with tables and pictures; the others are made alike
    is_accessible(page)


def test_pictures_and_verdicts_can_be_read_at_this_width(page):
    """On a phone a wide figure is three quarters of its size, in a box that scrolls; the verdict is seen at once."""
    width = page.viewport_size["width"]
    image = page.locator("#figure-figure2 img")
    natural, shown = int(image.get_attribute("width")), image.bounding_box()["width"]
    assert natural > 1000
    assert shown >= 0.7 * natural
    box = page.locator("#figure-figure2 .scroll")
    assert box.evaluate("(e) => e.scrollWidth > e.clientWidth") == (width == 390)
    box.focus()
    page.keyboard.press("ArrowRight")
    if width == 390:
        page.wait_for_function("document.querySelector('#figure-figure2 .scroll').scrollLeft > 0")
    for column in (1, 2, 3):  # claim, verdict, effect
        cell = page.locator(f"#claims tbody tr:first-child > :nth-child({column})").first.bounding_box()
        assert cell["x"] + cell["width"] <= width, column


def test_the_address_names_the_image(page, folder):
    names = page.locator("#image option").all_inner_texts()
    page.goto("about:blank")
    page.goto(f"{(folder / 'index.html').as_uri()}#image={names[2]}")
    assert page.locator("#image").input_value() == "2"
    assert f"{names[2]}.jpg" in page.locator("#tiles [role=img]").first.evaluate("(e) => e.style.backgroundImage")
    page.locator("#next").click()
    assert page.url.endswith(f"#image={names[3]}")
    page.locator("#image").select_option("0")
    assert page.url.endswith(f"#image={names[0]}")
    page.evaluate(f"location.hash = 'image={names[1]}'")
    page.wait_for_function("document.getElementById('image').value === '1'")
    page.evaluate("location.hash = 'image=nowhere'")  # stays where it is
    assert page.locator("#image").input_value() == "1"
    assert page.messages == []


def test_every_link_of_the_page_leads_somewhere(page, folder):
    links = page.eval_on_selector_all("a", "links => links.map((a) => a.getAttribute('href'))")
    assert len([link for link in links if link.startswith("notebooks/")]) > 16
    for link in links:
        name, _, anchor = link.partition("#")
        assert (folder / (name or "index.html")).exists(), link
        assert not anchor or page.locator(f"#{anchor}").count() == 1, link


def test_the_browser_reacts(page, folder):
    tiles = page.locator("#tiles figure")
    assert tiles.count() == 2 + len(METHODS) + 1
    shown = tiles.all_inner_texts()
    assert shown[:2] == ["image", "ground truth"]
    assert all(text.startswith(title) for text, title in zip(shown[2:], METHODS.values(), strict=False))

    def background(i):
        return page.locator("#tiles [role=img]").nth(i).evaluate("(e) => getComputedStyle(e).background")

    last = background(7)
    page.locator("#proposals").fill("0")
    assert page.locator("#count").inner_text() == "1"
    assert re.match(r"DeconvNet with 1 proposal(:|$)", tiles.nth(7).inner_text())
    assert background(7) != last  # another step of the picture below
    first = background(0)
    page.locator("#next").click()
    assert page.locator("#image").input_value() == "1"
    assert background(0) != first
    page.locator("#previous").click()
    assert background(0) == first
    page.locator("#order").select_option("deconvnet")
    shown = [float(re.search(r"(\d+) %", tiles.nth(i).inner_text())[1]) for i in (2, 3)]
    data = json.loads((folder / "assets" / "data.js").read_text().removeprefix("window.BROWSER = ").rstrip(";\n"))
    best = max(data["images"], key=lambda image: image["methods"]["deconvnet"] - image["methods"]["fcn8s"])
    assert shown == pytest.approx([best["methods"]["fcn8s"], best["methods"]["deconvnet"]], abs=0.51)
    assert page.messages == []


def test_errors_are_shown_in_place_of_classes(page):
    def sources() -> list[str]:
        pictures = page.locator("#tiles [role=img]").all()
        return [p.evaluate("(e) => e.style.backgroundImage + e.style.backgroundPositionY") for p in pictures]

    def legends() -> list[bool]:
        return [page.locator(f"#legend-{kind}").is_visible() for kind in ("labels", "errors")]

    classes, name = sources(), page.locator("#image option").first.inner_text()
    assert legends() == [True, False]
    page.locator("#what").select_option("errors")
    shown = sources()
    assert shown[:2] + shown[-1:] == classes[:2] + classes[-1:]  # image, ground truth and steps stay
    assert shown[2:-1] == [f'url("images/val/errors/{name}.jpg"){25 * i}%' for i in range(len(METHODS))]
    assert legends() == [False, True]
    kinds = page.locator("#legend-errors li").all_inner_texts()
    assert [text.split(":")[0] for text in kinds] == ["missed", "invented", "confused"]
    page.locator("#next").click()  # the choice stays
    assert legends() == [False, True]
    assert all("errors/" in source for source in sources()[2:-1])
    page.locator("#previous").click()
    page.locator("#what").select_option("labels")
    assert sources() == classes
    assert page.messages == []


def test_tables_sort_by_their_numbers(page):
    table = page.locator("#results table")
    button = table.locator("thead button").nth(2)  # mean IoU

    def column():
        return [float(text) for text in table.locator("tbody td:nth-child(3)").all_inner_texts()]

    unsorted = column()
    button.click()
    assert column() == sorted(unsorted, reverse=True)
    button.click()
    assert column() == sorted(unsorted)
    assert table.locator("th[aria-sort=ascending]").count() == 1


def test_the_keyboard_is_enough(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    page.locator("#proposals").focus()
    before = int(page.locator("#count").inner_text())
    page.keyboard.press("ArrowLeft")
    assert int(page.locator("#count").inner_text()) < before
    page.locator("#results thead button").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#results th[aria-sort]").count() == 1
    page.locator("#next").focus()
    page.keyboard.press("Space")
    assert page.locator("#image").input_value() == "1"
