"""Platforms that scripts refuse, and modules that must be importable there (adapter_qa/core/cli.py)."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.scripts import ROOT

from adapter_qa import __version__
from adapter_qa.core.cli import CollectingArgumentParser, run_cli
from adapter_qa.core.errors import UserError

SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if "run_cli(main)" in path.read_text(encoding="utf-8"))
# Windows has no fcntl and lacks these names in signal and os.
IMPORT_WITHOUT_POSIX = """
import importlib, os, signal, sys
sys.modules["fcntl"] = None
for module, names in ((signal, ("pthread_sigmask", "sigwaitinfo", "SIGKILL", "SIGPIPE")), (os, ("fork", "getppid"))):
    for name in names:
        delattr(module, name)
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_windows_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[list[str]] = []

    def main(argv: list[str]) -> int:
        calls.append(argv)
        return 0

    monkeypatch.setattr(sys, "argv", ["run_qa_adapter.py"])
    monkeypatch.setattr(sys, "platform", "win32")
    assert run_cli(main) == 2
    assert capsys.readouterr().err == "error: Windows is not supported; use Linux, macOS or WSL\n"
    assert calls == []
    monkeypatch.setattr(sys, "platform", "linux")
    assert run_cli(main) == 0
    assert calls == [[]]


def test_scripts_can_be_imported_without_posix_modules() -> None:
    assert "run_qa_adapter" in SCRIPTS
    modules = [*SCRIPTS, "adapter_qa.runs.lock", "adapter_qa.runs.run_record", "adapter_qa.core.signals"]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT_POSIX, *modules], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_all_wrong_values_are_reported_at_once() -> None:
    parser = CollectingArgumentParser(prog="script.py")
    parser.add_argument("--count", type=int)
    parser.add_argument("--size", type=float)
    with pytest.raises(UserError) as caught:
        parser.parse_args(["--count", "x", "--size", "big", "more"])
    assert caught.value.problems == [
        "argument --count: invalid int value: 'x'; see script.py --help",
        "argument --size: invalid float value: 'big'; see script.py --help",
        "unrecognized arguments: more; see script.py --help",
    ]
    assert vars(parser.parse_args(["--count", "3"])) == {"count": 3, "size": None}
    with pytest.raises(UserError) as caught:
        parser.parse_args(["--cuont", "3"])
    assert caught.value.problems == ["unrecognized arguments: --cuont 3; did you mean --count?"]


@pytest.mark.parametrize("text", ["-5e-05", "-5.5E+3", "-.5", "-3", "-inf"])
def test_negative_numbers_are_values_in_every_form(text: str) -> None:
    parser = CollectingArgumentParser(prog="script.py")
    parser.add_argument("--size", type=float)
    assert parser.parse_args(["--size", text]).size == float(text)


def test_an_option_that_is_given_twice_is_refused_with_both_values() -> None:
    parser = CollectingArgumentParser(prog="script.py", allow_abbrev=False)
    parser.add_argument("--size", "--the-size", type=int, dest="size")
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--json", action=argparse.BooleanOptionalAction)
    parser.add_argument("--question", action="append")
    parser.add_argument("runs", nargs="*")
    words = ["--size", "1", "run", "--the-size=-2", "--names", "a", "b", "--names=c", "--json", "--no-json"]
    for parse in (parser.parse_args, parser.parse_intermixed_args):
        with pytest.raises(UserError) as caught:
            parse(words)
        assert caught.value.problems[:3] == [
            "--size is given 2 times (--size 1; --the-size=-2); give it once",
            "--names is given 2 times (--names a b; --names=c); give it once",
            "--json is given 2 times (--json; --no-json); give it once",
        ]
    options = parser.parse_intermixed_args(["--question", "a", "run", "--question", "b", "--size", "-3"])
    assert (options.question, options.size, options.runs) == (["a", "b"], -3, ["run"])


def test_missing_words_hide_no_other_problem() -> None:
    parser = CollectingArgumentParser(prog="script.py")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--name")
    parser.add_argument("--names", nargs="+")
    parser.add_argument("runs", metavar="RUN", nargs="+")
    for parse in (parser.parse_args, parser.parse_intermixed_args):
        with pytest.raises(UserError) as caught:
            parse(["--zzz", "--name", "--names"])
        assert caught.value.problems == [
            "argument --name: expected one argument; see script.py --help",
            "argument --names: expected at least one argument; see script.py --help",
            *missing_of(parse.__name__),
            "unrecognized arguments: --zzz; see script.py --help",
        ]
        with pytest.raises(UserError) as caught:
            parse(["--size", "x", "run"])
        assert caught.value.problems == ["argument --size: invalid int value: 'x'; see script.py --help"]
        assert parse(["--size", "3", "run"]).runs == ["run"]


def missing_of(parse: str) -> list[str]:
    """Mixed options and words are parsed one after the other."""
    names = ["--size, RUN"] if parse == "parse_args" else ["--size", "RUN"]
    return [f"the following arguments are required: {name}; see script.py --help" for name in names]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_a_version_and_imports_nothing_heavy_for_it(script: str) -> None:
    code = (
        f"import sys; sys.argv = ['{script}.py', '--version']\nimport {script}\n"
        "from adapter_qa.core.cli import run_cli\n"
        f"try:\n    run_cli({script}.main)\nexcept SystemExit as stopped:\n"
        "    heavy = {'torch', 'transformers', 'adapters', 'numpy', 'pandas', 'optuna'} & set(sys.modules)\n"
        "    sys.exit(f'imported {heavy}' if heavy else stopped.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{script}.py {__version__}\n", "")


@pytest.fixture
def _heard_interrupts() -> Iterator[None]:
    """Let new processes be interrupted; programs that a shell starts in the background ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard_interrupts")
def test_an_interrupt_ends_a_shell_loop_over_a_script() -> None:
    script = (
        "import signal\nfrom adapter_qa.core.cli import run_cli\nfrom adapter_qa.core.signals import raise_on_signal\n"
        "@raise_on_signal()\ndef main(argv):\n    print('started', flush=True)\n    signal.pause()\nrun_cli(main)"
    )
    loop = ["bash", "-c", 'for n in 1 2 3; do "$0" -c "$1"; echo "code $?"; done', sys.executable, script]
    with subprocess.Popen(
        loop,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "started\n"
        os.killpg(shell.pid, signal.SIGINT)  # as a terminal does
        try:
            stdout, stderr = shell.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            raise
    assert (shell.returncode, stdout) == (-signal.SIGINT, "")
    assert stderr == "stopped: by SIGINT; the same command resumes from what is done\n"


def test_paragraphs_fit_the_terminal_and_examples_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "42")
    epilog = "examples:\n  script.py --with many words that are a command\n"
    parser = CollectingArgumentParser(prog="script.py", description="word " * 20 + "\n\nlast\nparagraph", epilog=epilog)
    parser.add_argument("--names", nargs="+", metavar="NAME", help="some names")
    text = parser.format_help()
    assert "\n" + " ".join(["word"] * 8) + "\n" in text
    assert "\n\nlast paragraph\n\n" in text
    assert "\n  --names NAME ...  some names\n" in text
    assert text.endswith(epilog)
