"""The page of ask_qa.py --serve: its HTML, and the page in a browser.

The browser tests need chromium, chromedriver (Debian: chromium-driver) and selenium.
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
from adapter_qa.inference.web_demo import MAX_CHARS, answer_page, input_problems, listen
from adapter_qa.inference.web_demo_html import (
    MAX_CONTEXT,
    DemoAnswer,
    answers_html,
    highlight,
    problems_html,
)
from adapter_qa.models.metadata import FusionAttentionDocument

HOSTILE = "<b>x</b> & \"' <script>document.title='owned'</script> ${document.title='owned'} {{value}} </div>"
ATTENTION: FusionAttentionDocument = {
    "adapters": ["qa", "<ner>"], "windows": 1, "places": ["0", "1"],
    "question": [[0.25, 0.75], [1.0, 0.0]], "context": [[0.5, 0.5], [0.125, 0.875]], "all": [[0.4, 0.6], [0.5, 0.5]],
}  # fmt: skip


class Tags(HTMLParser):
    """Tags, attributes and text of HTML. Parsing fails if a tag is not closed in order."""

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


def answer_document(text: str, start: int, end: int, score: float = 0.5) -> dict[str, Any]:
    return {"answer": text, "score": score, "start": start, "end": end}


def test_hostile_text_is_escaped() -> None:
    answer = answer_document(HOSTILE, 4, 4 + len(HOSTILE))
    answer["n_best"] = [answer_document(HOSTILE, 4, 4 + len(HOSTILE)), answer_document("", 0, 0, 0.25)]
    demo_answer = DemoAnswer(answer, {**ATTENTION, "places": [HOSTILE, "1"]})
    tags = Tags(answers_html(HOSTILE, f"a\n  {HOSTILE}", {HOSTILE: demo_answer}))
    assert tags.names == {"div", "section", "h2", "h3", "p", "small", "mark", "table", "tr", "th", "td"}
    assert tags.attributes == {"class", "aria-label", "dir", "tabindex", "style", "colspan"}
    assert tags.text.count(HOSTILE) == 6  # question, name, answer, context, candidate, layer
    assert "no answer" in tags.text
    assert Tags(problems_html([HOSTILE])).text == HOSTILE


@pytest.mark.parametrize("start", [0, 10, 1_900, 6_000, 11_990])
def test_a_long_context_is_cut_around_the_answer(start: int) -> None:
    context = "".join(f"<{number:>8}>" for number in range(1200))  # 12,000 characters
    before, answer, after = re.split("<mark>|</mark>", highlight(context, start, start + 10))
    assert unescape(answer) == context[start : start + 10]
    visible = unescape(before).removeprefix("… ") + unescape(answer) + unescape(after).removesuffix(" …")
    assert visible in context
    assert len(visible) == MAX_CONTEXT
    assert before.startswith("… ") == (not context.startswith(visible))
    assert after.endswith(" …") == (not context.endswith(visible))


def test_a_short_context_is_not_cut() -> None:
    assert highlight("Ana & Davi", 4, 5) == "Ana <mark>&amp;</mark> Davi"


def test_no_answer_marks_nothing() -> None:
    assert highlight("Ana & Davi", 0, 0) == "Ana &amp; Davi"


def test_a_long_answer_is_not_cut() -> None:
    answer = "x" * (MAX_CONTEXT + 500)
    assert f"<mark>{answer}</mark> …" in highlight(f"yyy{answer}z", 3, 3 + len(answer))


def test_the_heat_map_has_every_weight() -> None:
    def heat_map(attention: FusionAttentionDocument) -> str:
        return answers_html("q", "c", {"run": DemoAnswer(answer_document("c", 0, 1), attention)})

    html = heat_map(ATTENTION)
    cells = re.findall(r"<td style=\"background:rgb\((\d+), (\d+), (\d+)\);color:(#\w+)\">([\d.]+)</td>", html)
    assert [cell[4] for cell in cells] == ["0.25", "0.75", "0.50", "0.50", "1.00", "0.00", "0.12", "0.88"]
    assert cells[4][:4] == ("8", "69", "148", "#fff")
    assert cells[5][:4] == ("255", "255", "255", "#1a1a1a")
    without_context = heat_map({**ATTENTION, "context": []})
    assert "question tokens" in without_context
    assert "context tokens" not in without_context


def test_problems_with_the_input() -> None:
    assert input_problems({"context": "Ana.", "question": "Quem?"}) == []
    assert input_problems({"context": None}) == ["The context is empty: type or paste one."]
    assert input_problems({"context": " \n", "question": "x" * 2001}) == [
        "The context is empty: type or paste one.",
        "The question has 2,001 characters: shorten it to at most 2,000.",
    ]
    assert input_problems({"context": "x" * (MAX_CHARS["context"] + 1)}) == [
        "The context has 200,001 characters: shorten it to at most 200,000."
    ]
    assert input_problems({"question": "\ud83d"}) == [
        "The question has a lone surrogate (half a character), which is not valid text: type it again."
    ]


def test_problems_are_shown_on_the_page() -> None:
    def run_out_of_memory(question: str, context: str) -> DemoAnswer:
        raise RunError("out of memory <1>")

    answerers = {"a": run_out_of_memory}
    assert "at least one run" in Tags(answer_page(answerers, "c", "q", [])).text
    assert Tags(answer_page(answerers, "c", "q", ["a"])).text == "out of memory <1>"


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError) as refused:
            listen(port)
    assert refused.value.problems == [
        f"--port {port}: not available (Address already in use); give another, or 0 for a free one"
    ]
    with listen(0) as free:
        assert free.getsockname()[0] == "127.0.0.1"


SERVER = """\
import time
from adapter_qa.inference.web_demo import listen, serve_page

def answer(question, context):
    print("asked", flush=True)
    time.sleep(600)  # as a long context takes

serve_page({"a": answer}, listen(0))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_page_while_it_answers_and_streams(number: signal.Signals) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed (the extra `serve`)")
    import httpx

    command = [sys.executable, "-c", SERVER]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    with httpx.Client() as client:
        try:
            api = process.stdout.readline().split()[0] + "/gradio_api"
            with client.stream("GET", f"{api}/heartbeat/abc"):
                question = {"data": ["Ana.", "Onde?", ["a"]], "fn_index": 0, "session_hash": "abc"}
                assert client.post(f"{api}/queue/join", json=question).status_code == 200
                assert process.stdout.readline() == "asked\n"
                process.send_signal(number)
                stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, stdout, stderr) == (-number, "", f"stopped: by {number.name}\n")


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def url(saved_runs: SavedRuns) -> Iterator[str]:
    """The page of a fusion and a QA adapter. At the end Ctrl-C stops the server."""
    pytest.importorskip("gradio", reason="gradio is not installed (the extra `serve`)")
    command = [
        sys.executable,
        "-u",
        str(ROOT / "ask_qa.py"),
        str(saved_runs.fusion),
        str(saved_runs.qa),
        "--serve",
        "--port",
        "0",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+   \(Ctrl-C ends\)\n", first), process.stderr.read()
        yield first.split()[0]
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (-signal.SIGINT, "")
    assert stderr.endswith("stopped: by SIGINT\n")
    assert "Warning" not in stderr
    assert "Traceback" not in stderr


def test_other_host_names_and_addresses_are_refused(url: str) -> None:
    import httpx

    page = httpx.get(url)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert httpx.get(url, headers={"Host": "evil.example"}).status_code == 400
    config = httpx.get(f"{url}/config").json()
    assert config["analytics_enabled"] is False
    port = int(url.rsplit(":", 1)[1])
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", port))  # it listens on no other address, even of this machine


class Browser:
    """The page in a browser."""

    def __init__(self, driver: Any, url: str):
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import WebDriverWait

        self.driver, self.by = driver, By.CSS_SELECTOR
        driver.get(url)
        WebDriverWait(driver, 60).until(lambda _: len(self.all("textarea")) == 2)

    def all(self, selector: str) -> list[Any]:
        elements: list[Any] = self.driver.find_elements(self.by, selector)
        return elements

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def ask(self, context: str, question: str) -> None:
        """Replace both texts and press the button."""
        from selenium.webdriver.common.keys import Keys

        for box, text in zip(self.all("textarea"), (context, question), strict=True):
            box.send_keys(Keys.CONTROL, "a")
            box.send_keys(Keys.DELETE)
            box.send_keys(text)
        next(button for button in self.all("button") if button.text == "Ask").click()

    def wait_for(self, selector: str, texts: list[str]) -> None:
        """Wait for elements with these texts."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, 60, ignored_exceptions=[StaleElementReferenceException])
        wait.until(lambda _: self.texts(f"#result {selector}") == texts, f"{selector}: {self.texts('#result')}")

    def set_width(self, pixels: int) -> list[int]:
        """Set the width of the window; return the widths of its content and of itself."""
        size = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        script = "return [document.documentElement.scrollWidth, window.innerWidth]"
        widths: list[int] = self.driver.execute_script(script)
        return widths


@pytest.fixture(scope="module")
def browser(url: str) -> Iterator[Browser]:
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs or importlib.util.find_spec("selenium") is None:
        pytest.skip("chromium, chromedriver or selenium is not installed")
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


def test_asking_and_choosing_runs(browser: Browser, saved_runs: SavedRuns) -> None:
    names = [str(saved_runs.fusion), str(saved_runs.qa)]
    browser.ask("Ana nasceu em Belém e é médica.", "Onde nasceu Ana?")
    browser.wait_for("h2", names)
    browser.wait_for(".question", ["Onde nasceu Ana?"])
    assert len(browser.all("#result mark")) == len(browser.all("#result .best")) == 2
    assert [len(table.find_elements("css selector", "tr")) for table in browser.all("#result .best")] == [6, 6]
    assert browser.texts("#result .passage") == ["Ana nasceu em Belém e é médica."] * 2
    for answer, mark in zip(browser.texts("#result .answer"), browser.texts("#result mark"), strict=True):
        assert answer.startswith(f"{mark} probability 0.")
    assert len(browser.all("#result .heat")) == 1
    assert len(browser.all("#result .heat td")) == 4 * 4

    for chosen in (names[1:], names):  # off and on again; the answers change without a click
        browser.all("input[type=checkbox]")[0].click()
        browser.wait_for("h2", chosen)
        assert len(browser.all("#result mark")) == len(chosen)


def test_answers_equal_those_of_the_command_line(browser: Browser, saved_runs: SavedRuns) -> None:
    command = [sys.executable, str(ROOT / "ask_qa.py"), str(saved_runs.fusion), "--input", "covid.jsonl", "--json"]
    done = subprocess.run(command, cwd=ROOT / "examples" / "sample", capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        record = json.loads(line)
        browser.ask(record["context"], record["question"])
        browser.wait_for(".question", [record["question"]])
        assert browser.texts("#result mark")[0] == record["answer"]
        place = f"{record['start']}–{record['end']}"
        assert browser.texts("#result .answer small")[0] == f"probability {record['score']:.2f}, characters {place}"
        before = browser.driver.execute_script(
            "let range = document.createRange(), mark = document.querySelector('#result mark');"
            "range.setStart(mark.parentElement, 0); range.setEndBefore(mark); return range.toString().length"
        )
        assert before == record["start"]


def test_bad_input_and_hostile_text_in_the_browser(browser: Browser) -> None:
    browser.ask(" ", "")
    browser.wait_for("p", ["The context is empty: type or paste one.", "The question is empty: type or paste one."])
    browser.ask(f"Ana nasceu em Belém. {HOSTILE}", HOSTILE)
    browser.wait_for(".question", [HOSTILE])
    assert browser.texts("#result .passage") == [f"Ana nasceu em Belém. {HOSTILE}"] * 2
    assert browser.driver.title == "Questions"
    assert not browser.all("#result b, #result script")


def test_nothing_is_loaded_from_other_servers(browser: Browser, url: str) -> None:
    requested = set()
    for entry in browser.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            requested.add(message["params"]["request"]["url"])
    assert len(requested) > 20
    assert [address for address in requested if not address.startswith((f"{url}/", "data:"))] == []
    hints = browser.driver.execute_script(
        "return [...document.querySelectorAll('link[rel=preconnect], link[rel=dns-prefetch]')].map(link => link.href)"
    )
    assert [address for address in hints if not address.startswith(url)] == []
    errors = [entry for entry in browser.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert errors == []


@pytest.mark.parametrize("pixels", [400, 800, 1280])
def test_the_page_fits_the_window(browser: Browser, pixels: int) -> None:
    browser.ask("Ana nasceu em Belém. " * 40, "Onde?")
    browser.wait_for(".question", ["Onde?"])
    content, window = browser.set_width(pixels)
    assert window == pixels
    assert content <= pixels


def test_screenshots(browser: Browser, tmp_path: Path) -> None:
    """ADAPTER_QA_SCREENSHOTS names a folder for pictures of the page."""
    folder = Path(os.environ.get("ADAPTER_QA_SCREENSHOTS", tmp_path))
    for pixels in (400, 1280):
        browser.set_width(pixels)
        assert browser.driver.save_screenshot(str(folder / f"page_{pixels}.png"))
