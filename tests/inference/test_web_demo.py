"""The page of ask_qa.py --serve: its HTML, and all of it in a real browser where there is one (Debian's chromium and
chromium-driver packages, and selenium).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.saved_runs import SavedRuns
from support.scripts import ROOT

from adapter_qa.core.errors import RunError, UserError
from adapter_qa.inference.web_demo import LONGEST, answer_html, input_problems, listen
from adapter_qa.inference.web_demo_html import WHOLE_CONTEXT, heat_map, highlighted, problems_html, replies_html

HOSTILE = "<b>x</b> & \"' <script>document.title='owned'</script> ${document.title='owned'} {{value}} </div>"
ATTENTION = {
    "adapters": ["qa", "<ner>"], "windows": 1, "places": ["0", "1"],
    "question": [[0.25, 0.75], [1.0, 0.0]], "context": [[0.5, 0.5], [0.125, 0.875]], "all": [[0.4, 0.6], [0.5, 0.5]],
}  # fmt: skip


class Tags(HTMLParser):
    """Elements that are opened and closed, and the text between."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def answered(text: str, start: int, end: int, score: float = 0.5) -> dict[str, Any]:
    return {"answer": text, "score": score, "start": start, "end": end}


def test_whatever_is_in_the_texts_stays_text() -> None:
    answer = answered(HOSTILE, 4, 4 + len(HOSTILE))
    answer["n_best"] = [answered(HOSTILE, 4, 4 + len(HOSTILE)), answered("", 0, 0, 0.25)]
    html = replies_html(HOSTILE, f"a\n  {HOSTILE}", {HOSTILE: (answer, ATTENTION | {"places": [HOSTILE, "1"]})})
    tags = Tags(html)
    assert tags.names == {"div", "section", "h2", "h3", "p", "small", "mark", "table", "tr", "th", "td"}
    assert tags.attributes == {"class", "aria-label", "dir", "tabindex", "style", "colspan"}
    assert (
        tags.text.count(HOSTILE) == 6 and "no answer" in tags.text
    )  # question, name, answer, context, candidate, layer
    assert Tags(problems_html([HOSTILE])).text == HOSTILE


@pytest.mark.parametrize("start", [0, 10, 1_900, 6_000, 11_990])
def test_the_answer_is_marked_in_its_context(start: int) -> None:
    context = "".join(f"<{number:>8}>" for number in range(1200))  # 12,000 characters
    html = highlighted(context, start, start + 10)
    before, marked, after = re.split("<mark>|</mark>", html)
    assert unescape(marked) == context[start : start + 10]
    shown = unescape(before).removeprefix("… ") + unescape(marked) + unescape(after).removesuffix(" …")
    assert shown in context and len(shown) == WHOLE_CONTEXT
    assert before.startswith("… ") == (not context.startswith(shown))
    assert after.endswith(" …") == (not context.endswith(shown))


def test_short_contexts_are_whole_and_no_answer_marks_nothing() -> None:
    assert highlighted("Ana & Davi", 4, 5) == "Ana <mark>&amp;</mark> Davi"
    assert highlighted("Ana & Davi", 0, 0) == "Ana &amp; Davi"
    long = answered("x" * (WHOLE_CONTEXT + 500), 3, WHOLE_CONTEXT + 503)
    assert f"<mark>{long['answer']}</mark> …" in highlighted("y" * 3 + long["answer"] + "z", 3, long["end"])


def test_the_heat_map_has_every_weight() -> None:
    html = heat_map(ATTENTION)
    cells = re.findall(r"<td style=\"background:rgb\((\d+), (\d+), (\d+)\);color:(#\w+)\">([\d.]+)</td>", html)
    assert [cell[4] for cell in cells] == ["0.25", "0.75", "0.50", "0.50", "1.00", "0.00", "0.12", "0.88"]
    assert cells[4][:4] == ("8", "69", "148", "#fff") and cells[5][:4] == ("255", "255", "255", "#1a1a1a")
    assert "question tokens" in heat_map(ATTENTION | {"context": []})
    assert "context tokens" not in heat_map(ATTENTION | {"context": []})


def test_bad_input_is_told_kindly() -> None:
    assert input_problems({"context": "Ana.", "question": "Quem?"}) == []
    assert input_problems({"context": " \n", "question": "x" * 2001}) == [
        "The context is empty: type or paste one.",
        "The question has 2,001 characters; at most 2,000 are read here.",
    ]
    assert input_problems({"context": "x" * (LONGEST["context"] + 1)}) == [
        "The context has 200,001 characters; at most 200,000 are read here."
    ]
    assert input_problems({"question": "\ud83d"}) == [
        "The question holds half a character (a lone surrogate), which is no valid text."
    ]

    def full(question: str, context: str) -> Any:
        raise RunError("out of memory <1>")

    assert "at least one run" in Tags(answer_html({"a": full}, "c", "q", [])).text
    assert Tags(answer_html({"a": full}, "c", "q", ["a"])).text == "out of memory <1>"


def test_a_port_that_is_in_use() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError) as refused:
            listen(port)
    assert refused.value.problems == [
        f"--port {port}: cannot be had (Address already in use); give another, or 0 for a free one"
    ]
    with listen(0) as free:
        assert free.getsockname()[0] == "127.0.0.1"


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def url(saved_runs: SavedRuns) -> Iterator[str]:
    """The page of a fusion and a QA adapter; it ends with Ctrl-C."""
    pytest.importorskip("gradio", reason="gradio is not installed (requirements-serve.txt)")
    command = [
        sys.executable,
        "-u",
        str(ROOT / "ask_qa.py"),
        saved_runs.fusion,
        saved_runs.qa,
        "--serve",
        "--port",
        "0",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+   \(Ctrl-C ends\)\n", first), process.stderr.read()
        yield first.split()[0]
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)
    assert (process.returncode, said[0]) == (130, "") and said[1].endswith("stopped: interrupted\n")
    assert "Warning" not in said[1] and "Traceback" not in said[1]


def test_other_names_and_other_machines_get_nothing(url: str) -> None:
    import httpx

    page = httpx.get(url)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
    assert httpx.get(url, headers={"Host": "evil.example"}).status_code == 400
    config = httpx.get(f"{url}/config").json()
    assert config["analytics_enabled"] is False
    port = int(url.rsplit(":", 1)[1])
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", port))  # listens on no other address, not even of this machine


class Browser:
    """The page as somebody uses it."""

    def __init__(self, driver: Any, url: str):
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import WebDriverWait

        self.driver, self.by = driver, By.CSS_SELECTOR
        driver.get(url)
        WebDriverWait(driver, 60).until(lambda _: len(self.all("textarea")) == 2)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(self.by, selector)

    def texts(self, selector: str) -> list[str]:
        return [one.text for one in self.all(selector)]

    def ask(self, context: str, question: str) -> None:
        """Types both texts over what is there and presses the button."""
        from selenium.webdriver.common.keys import Keys

        for box, text in zip(self.all("textarea"), (context, question), strict=True):
            box.send_keys(Keys.CONTROL, "a")
            box.send_keys(Keys.DELETE)
            box.send_keys(text)
        next(one for one in self.all("button") if one.text == "Ask").click()

    def shows(self, selector: str, texts: list[str]) -> None:
        """Waits for elements with these texts."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, 60, ignored_exceptions=[StaleElementReferenceException])
        wait.until(lambda _: self.texts(f"#result {selector}") == texts, f"{selector}: {self.texts('#result')}")

    def width(self, pixels: int) -> list[int]:
        """Makes the window so wide; the widths of what is in it and of itself."""
        size = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        return self.driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")


@pytest.fixture(scope="module")
def browser(url: str) -> Iterator[Browser]:
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs or importlib.util.find_spec("selenium") is None:
        pytest.skip("no chromium, chromedriver or selenium here: the page is not looked at in a browser")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    try:
        yield Browser(driver, url)
    finally:
        driver.quit()


def test_type_ask_see_and_switch(browser: Browser, saved_runs: SavedRuns) -> None:
    names = [str(saved_runs.fusion), str(saved_runs.qa)]
    browser.ask("Ana nasceu em Belém e é médica.", "Onde nasceu Ana?")
    browser.shows("h2", names)
    browser.shows(".asked", ["Onde nasceu Ana?"])
    assert len(browser.all("#result mark")) == len(browser.all("#result .best")) == 2
    assert [len(table.find_elements("css selector", "tr")) for table in browser.all("#result .best")] == [6, 6]
    assert browser.texts("#result .told") == ["Ana nasceu em Belém e é médica."] * 2
    for answer, mark in zip(browser.texts("#result .answer"), browser.texts("#result mark"), strict=True):
        assert answer.startswith(f"{mark} probability 0.")
    assert len(browser.all("#result .heat")) == 1 and len(browser.all("#result .heat td")) == 4 * 4

    for chosen in (names[1:], names):  # the first one off, and on again: asked anew without a click
        browser.all("input[type=checkbox]")[0].click()
        browser.shows("h2", chosen)
        assert len(browser.all("#result mark")) == len(chosen)


def test_nine_questions_have_the_answers_of_the_command_line(browser: Browser, saved_runs: SavedRuns) -> None:
    command = [sys.executable, ROOT / "ask_qa.py", saved_runs.fusion, "--input", "covid.jsonl", "--json"]
    done = subprocess.run(command, cwd=ROOT / "examples" / "sample", capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        one = json.loads(line)
        browser.ask(one["context"], one["question"])
        browser.shows(".asked", [one["question"]])
        assert browser.texts("#result mark")[0] == one["answer"]
        assert browser.texts("#result .answer small")[0] == f"probability {one['score']:.3f}"
        before = browser.driver.execute_script(
            "let range = document.createRange(), mark = document.querySelector('#result mark');"
            "range.setStart(mark.parentElement, 0); range.setEndBefore(mark); return range.toString().length"
        )
        assert before == one["start"]


def test_bad_input_and_hostile_text_in_the_browser(browser: Browser) -> None:
    browser.ask(" ", "")
    browser.shows("p", ["The context is empty: type or paste one.", "The question is empty: type or paste one."])
    browser.ask(f"Ana nasceu em Belém. {HOSTILE}", HOSTILE)
    browser.shows(".asked", [HOSTILE])
    assert browser.texts("#result .told") == [f"Ana nasceu em Belém. {HOSTILE}"] * 2
    assert browser.driver.title == "Questions" and not browser.all("#result b, #result script")


def test_nothing_is_loaded_from_elsewhere_and_nothing_goes_wrong(browser: Browser, url: str) -> None:
    asked = set()
    for entry in browser.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    assert len(asked) > 20
    assert {one for one in asked if not one.startswith((f"{url}/", "data:"))} == set()
    hints = browser.driver.execute_script(
        "return [...document.querySelectorAll('link[rel=preconnect], link[rel=dns-prefetch]')].map(one => one.href)"
    )
    assert [one for one in hints if not one.startswith(url)] == []
    wrong = [entry for entry in browser.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert wrong == []


@pytest.mark.parametrize("pixels", [400, 800, 1280])
def test_it_fits_windows_of_any_width(browser: Browser, pixels: int) -> None:
    browser.ask("Ana nasceu em Belém. " * 40, "Onde?")
    browser.shows(".asked", ["Onde?"])
    inside, window = browser.width(pixels)
    assert (window, inside <= pixels) == (pixels, True)


def test_screenshots_for_whoever_looks_at_them(browser: Browser, tmp_path: Path) -> None:
    """ADAPTER_QA_SCREENSHOTS names a folder for pictures of the page."""
    folder = Path(os.environ.get("ADAPTER_QA_SCREENSHOTS", tmp_path))
    for pixels in (400, 1280):
        browser.width(pixels)
        assert browser.driver.save_screenshot(str(folder / f"page_{pixels}.png"))
