"""The report: what the page of text says, and the site as a reader has it, in headless Chromium."""

import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import call

from deconvnet.config.paths import REPORTS, ROOT
from deconvnet.evaluation.methods import METHODS
from deconvnet.report import site

# No network, no first-run pages, no background traffic of the browser's own.
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def rows(*verdicts: str) -> list[dict]:
    return [{"id": f"C{i}", "verdict": verdict} for i, verdict in enumerate(verdicts)]


def test_the_sentence_is_counted():
    said = site.verdict(rows("replicated", "inconclusive", "replicated", "not run"))
    assert said == "Of 4 tests of its claims here, 2 replicated (C0, C2); 1 inconclusive (C1); 1 not run (C3)."


def test_numbers_sort_by_value_and_show_one_digit():
    table = pd.DataFrame({"iou": [9.96, float("nan")]}, index=pd.Index(["a", "b"], name="method"))
    made = site.sortable(table, best=pd.DataFrame({"iou": [True, False]}))
    assert made["head"] == ["method", "iou"]
    first, second = (row["cells"][1] for row in made["rows"])
    assert (first["key"], first["text"], first["best"]) == (9.96, "10.0", True)
    assert (second["key"], second["text"], second["best"]) == (None, "–", False)


def test_a_claim_that_was_not_run_shows_no_number():
    row = {"id": "C6", "statement": "s", "paper": "text", "paper_effect": None, "measured": "m", "unit": "points",
           "effect": None, "ci": [None, None], "runs": 0, "seeds": 0, "verdict": "not run"}  # fmt: skip
    made = site.claims_rows([row])["rows"][0]
    assert made["mark"] == "not-run"
    assert [cell["text"] for cell in made["cells"][:4]] == ["C6", "not run", "–", "–"]
    assert made["cells"][-1]["text"] == "0"


def test_verdict_and_effect_follow_the_claim():
    row = {"id": "C6", "statement": "s", "paper": "text", "paper_effect": None, "measured": "m", "unit": "points",
           "effect": 1.5, "ci": [1, 2], "runs": 4, "seeds": 1, "verdict": "replicated"}  # fmt: skip
    made = site.claims_rows([row])
    assert made["head"][:3] == ["claim", "verdict", "effect"]
    assert [cell["text"] for cell in made["rows"][0]["cells"][:3]] == ["C6", "replicated", "+1.5"]
    assert made["rows"][0]["cells"][-1]["text"] == "4 against 1"


def test_every_table_of_a_page_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\nfirst\n\n| a | b |\n|:--|:--|\n| 1 | 2 |\n\nsecond\n\n| c | d |\n|:--|:--|\n| 3 | 4 |\n"
    )
    (one, first), (two, second) = site.markdown_tables(page)
    assert (one, two) == ("first", "second")
    assert (first.loc["1", "b"], second.loc["3", "d"]) == ("2", "4")


def test_wide_tables_and_pictures_scroll_in_their_boxes():
    found = site.scrolling('<p>a</p><table><tr></tr></table><img src="x"><img src="y">')
    labels = ["table 1", "picture 1", "picture 2"]
    assert re.findall(r'tabindex="0" role="region" aria-label="([^"]+)"', found) == labels
    assert found.count("</div>") == 3


def test_every_stage_s_notebook_has_a_page():
    executed = set(re.findall(r"- reports/notebooks/([\w${}.]+)\.ipynb", (ROOT / "dvc.yaml").read_text()))
    executed = {e.replace("${item.model}", model) for e in executed for model in ("deconvnet", "fcn8s")}
    assert set(site.NOTEBOOKS) == executed


def test_every_figure_is_listed_with_a_notebook_that_draws_it():
    for figure in site.FIGURE_LIST:
        source = (ROOT / "notebooks" / f"{site.NOTEBOOKS[figure.notebook]}.ipynb").read_text()
        assert f'{figure.file}.png\\"' in source, figure.file


# The committed page of text


def test_the_committed_page_tells_the_committed_ledger():
    page = (REPORTS / "README.md").read_text()
    ledger = json.loads((REPORTS / "claims.json").read_text())
    assert site.verdict(ledger) in page
    for row in ledger:
        assert re.search(rf"\| {row['id']} +\|.*\*\*{row['verdict']}\*\*", page), row["id"]


def test_the_committed_page_links_to_what_is_there():
    page = (REPORTS / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 30
    for link in links:
        assert (REPORTS / link).exists(), link
    for number in range(1, 8):
        assert f"figures/figure{number}.png" in links


# The site of the smoke run


@pytest.fixture(scope="module")
def site(smoke) -> Path:
    return smoke / "reports" / "site"


def test_the_site_needs_nothing_from_elsewhere(site, smoke):
    text = {path: path.read_text() for path in site.rglob("*") if path.suffix in (".html", ".css", ".js")}
    assert len(text) > 16
    for path, content in text.items():
        assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", content), path
        assert not re.findall(r"""@import|url\(["']?(?:https?:)?//""", content), path
        assert str(smoke) not in content, path


def test_what_is_not_done_says_so(smoke):
    verdicts = {row["id"]: row["verdict"] for row in json.loads((smoke / "reports" / "claims.json").read_text())}
    assert {verdicts[id] for id in ("C6", "C7", "C8c")} == {"not run"}  # the committed ablations are of the default
    assert verdicts["C1"] != "not run"


def test_provenance_is_shown_and_not_an_output(smoke):
    facts = json.loads((smoke / "reports" / "provenance.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{40}", facts["commit"])
    assert facts["dirty"] == []
    assert set(facts["seconds"]) == set(site.NOTEBOOKS)
    assert facts["content_id"] in (smoke / "reports" / "tables" / "table1.md").read_text()
    assert facts["versions"]["torch"]
    shown = (smoke / "reports" / "site" / "provenance.js").read_text()
    assert json.loads(shown.removeprefix("window.PROVENANCE = ").rstrip(";\n")) == facts


def test_the_report_is_the_same_bytes_when_built_again(smoke, site, tmp_path):
    def contents():
        return {str(path): path.read_bytes() for path in sorted(site.rglob("*")) if path.is_file()}

    before, page = contents(), (smoke / "reports" / "README.md").read_bytes()
    shutil.copytree(smoke, tmp_path / "run", ignore=shutil.ignore_patterns(".dvc", "models", "scores"))
    done = call(tmp_path / "run", "python", "-m", "deconvnet.report.site")
    assert done.returncode == 0, done.stderr[-2000:]
    site = tmp_path / "run" / "reports" / "site"
    assert [data for _, data in contents().items()] == list(before.values())
    assert (tmp_path / "run" / "reports" / "README.md").read_bytes() == page


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        reason = "Chromium is not installed (Debian: apt install chromium): nobody has looked at the report's pages."
        (pytest.fail if os.environ.get("REQUIRE_CHROMIUM") else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(params=[1440, 390])
def opened(chromium, site, request):
    """A page of that width, its complaints and its requests."""
    page = chromium.new_page(viewport={"width": request.param, "height": 900})
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda sent: page.asked.append(sent.url))
    page.on("requestfailed", lambda sent: page.said.append(f"failed: {sent.url}"))
    yield page
    page.close()


def is_sound(page) -> None:
    """No complaint, no request outside, every picture there, nothing wider than the screen, no axe violation."""
    from axe_playwright_python.sync_playwright import Axe

    page.evaluate("document.querySelectorAll('img').forEach((img) => { img.loading = 'eager'; })")
    page.wait_for_function("[...document.images].every((img) => img.complete)")
    assert page.evaluate("[...document.images].filter((img) => !img.naturalWidth).map((img) => img.src)") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 14
    assert page.said == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_the_page_is_sound(opened, site):
    opened.goto((site / "index.html").as_uri())
    assert opened.locator("h1").inner_text().startswith("Learning Deconvolution Network")
    assert opened.locator("main img").count() == len(site.FIGURE_LIST)
    assert opened.locator("#machine dt").all_inner_texts()[:4] == ["commit", "content id", "device", "dirty"]
    assert opened.locator("#machine dd").nth(3).inner_text() == "none"
    assert re.search(r"claims [\d.]+, crf [\d.]+", opened.locator("#machine").inner_text())
    is_sound(opened)


@pytest.mark.parametrize("name", site.NOTEBOOKS)
def test_notebook_pages_are_sound(opened, site, name):
    opened.goto((site / "notebooks" / f"{name}.html").as_uri())
    assert opened.locator("article img, article table").count() >= 1
    is_sound(opened)


def test_every_table_of_the_pages_is_shown(opened, site, smoke):
    opened.goto((site / "index.html").as_uri())
    pages = [smoke / "reports" / "tables" / f"{name}.md" for name in site.MORE]
    shown = opened.locator("#tables figure.table").count()
    assert shown == 1 + sum(len(site.markdown_tables(page)) for page in pages)
    assert shown >= 1 + 2 + 4 + 1  # table 1; beyond the paper, the curves, table 2


def test_pictures_and_verdicts_can_be_read_at_this_width(opened, site):
    """On a phone a wide figure is three quarters of its size, in a box that scrolls; the verdict is seen at once."""
    width = opened.viewport_size["width"]
    opened.goto((site / "index.html").as_uri())
    image = opened.locator("#figure-figure2 img")
    natural, shown = int(image.get_attribute("width")), image.bounding_box()["width"]
    assert natural > 1000
    assert shown >= 0.7 * natural
    box = opened.locator("#figure-figure2 .scroll")
    assert box.evaluate("(e) => e.scrollWidth > e.clientWidth") == (width == 390)
    box.focus()
    opened.keyboard.press("ArrowRight")
    if width == 390:
        opened.wait_for_function("document.querySelector('#figure-figure2 .scroll').scrollLeft > 0")
    for column in (1, 2, 3):  # claim, verdict, effect
        cell = opened.locator(f"#claims tbody tr:first-child > :nth-child({column})").bounding_box()
        assert cell["x"] + cell["width"] <= width, column


def test_the_address_names_the_image(opened, site):
    opened.goto((site / "index.html").as_uri())
    names = opened.locator("#image option").all_inner_texts()
    opened.goto("about:blank")
    opened.goto(f"{(site / 'index.html').as_uri()}#image={names[2]}")
    assert opened.locator("#image").input_value() == "2"
    assert f"{names[2]}.jpg" in opened.locator("#tiles [role=img]").first.evaluate("(e) => e.style.backgroundImage")
    opened.locator("#next").click()
    assert opened.url.endswith(f"#image={names[3]}")
    opened.locator("#image").select_option("0")
    assert opened.url.endswith(f"#image={names[0]}")
    opened.evaluate(f"location.hash = 'image={names[1]}'")
    opened.wait_for_function("document.getElementById('image').value === '1'")
    opened.evaluate("location.hash = 'image=nowhere'")  # stays where it is
    assert opened.locator("#image").input_value() == "1"
    assert opened.said == []


def test_every_link_of_the_page_leads_somewhere(opened, site):
    opened.goto((site / "index.html").as_uri())
    links = opened.eval_on_selector_all("a", "links => links.map((a) => a.getAttribute('href'))")
    assert len([link for link in links if link.startswith("notebooks/")]) > 16
    for link in links:
        name, _, anchor = link.partition("#")
        assert (site / (name or "index.html")).exists(), link
        assert not anchor or opened.locator(f"#{anchor}").count() == 1, link


def test_the_browser_reacts(opened, site):
    opened.goto((site / "index.html").as_uri())
    tiles = opened.locator("#tiles figure")
    assert tiles.count() == 2 + len(METHODS) + 1
    captions = tiles.all_inner_texts()
    assert captions[:2] == ["image", "truth"]
    assert all(caption.startswith(title) for caption, title in zip(captions[2:], METHODS.values(), strict=False))

    def background(i):
        return opened.locator("#tiles [role=img]").nth(i).evaluate("(e) => getComputedStyle(e).background")

    last = background(7)
    opened.locator("#proposals").fill("0")
    assert opened.locator("#count").inner_text() == "1"
    assert tiles.nth(7).inner_text().startswith("DeconvNet with 1 proposals")
    assert background(7) != last  # another step of the picture below
    first = background(0)
    opened.locator("#next").click()
    assert opened.locator("#image").input_value() == "1"
    assert background(0) != first
    opened.locator("#previous").click()
    assert background(0) == first
    opened.locator("#order").select_option("deconvnet")
    shown = [float(re.search(r"(\d+) %", tiles.nth(i).inner_text())[1]) for i in (2, 3)]
    data = json.loads((site / "assets" / "data.js").read_text().removeprefix("window.BROWSER = ").rstrip(";\n"))
    best = max(data["images"], key=lambda image: image["methods"]["deconvnet"] - image["methods"]["fcn8s"])
    assert shown == pytest.approx([best["methods"]["fcn8s"], best["methods"]["deconvnet"]], abs=0.51)
    assert opened.said == []


def test_tables_sort_by_their_numbers(opened, site):
    opened.goto((site / "index.html").as_uri())
    table = opened.locator("#results table")
    button = table.locator("thead button").nth(2)  # this run

    def column():
        return [float(text) for text in table.locator("tbody td:nth-child(3)").all_inner_texts()]

    unsorted = column()
    button.click()
    assert column() == sorted(unsorted, reverse=True)
    button.click()
    assert column() == sorted(unsorted)
    assert table.locator("th[aria-sort=ascending]").count() == 1


def test_the_keyboard_is_enough(opened, site):
    opened.goto((site / "index.html").as_uri())
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"
    opened.keyboard.press("Enter")
    assert opened.url.endswith("#main")
    opened.locator("#proposals").focus()
    before = int(opened.locator("#count").inner_text())
    opened.keyboard.press("ArrowLeft")
    assert int(opened.locator("#count").inner_text()) < before
    opened.locator("#results thead button").nth(1).focus()
    opened.keyboard.press("Enter")
    assert opened.locator("#results th[aria-sort]").count() == 1
    opened.locator("#next").focus()
    opened.keyboard.press("Space")
    assert opened.locator("#image").input_value() == "1"
