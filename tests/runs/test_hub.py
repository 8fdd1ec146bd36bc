"""Uploads by --push_to_hub to a local server that imitates the hub (adapter_qa/runs/hub.py)."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from support.scripts import ROOT

import run_qa_adapter
from adapter_qa.core.errors import UserError

SETUP = {"README.md", "adapter_setup.json", "head_config.json", "model_head.safetensors"}
SETUP |= {"qa/adapter_config.json", "qa/adapter.safetensors"}
FULL_MODEL = {"README.md", "config.json", "full_setup.json", "model.safetensors", "special_tokens_map.json"}
FULL_MODEL |= {"tokenizer.json", "tokenizer_config.json", "vocab.txt"}


class Hub(ThreadingHTTPServer):
    """The part of the hub that a push needs.

    Attributes:
        requests: method, path and token of each request.
        repositories: the request that created each repository.
        files: content of committed files, by repository and path.
        refuses: whether the server answers every commit with 403.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.requests: list[tuple[str, str, str | None]] = []
        self.repositories: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.refuses = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Return status and document for a POST."""
        if path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}"
            status = 409 if name in self.repositories else 200
            self.repositories.setdefault(name, request)
            return status, {"url": f"{self.address}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = [file["path"] for file in json.loads(body)["files"]]
            return 200, {"files": [{"path": file, "uploadMode": "regular", "shouldIgnore": False} for file in files]}
        if self.refuses:
            return 403, {"error": "Forbidden: you may not write here"}
        name = path.removeprefix("/api/models/").split("/commit/")[0]
        lines = [json.loads(line) for line in body.splitlines()]
        contents = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
        self.files[name] = {path: base64.b64decode(content) for path, content in contents.items()}
        return 200, {"commitUrl": f"{self.address}/{name}/commit/0123", "commitOid": "0123"}


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        self.server.requests.append(("POST", self.path, self.headers.get("authorization")))
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.reply(*self.server.answer(self.path.partition("?")[0], body))

    def do_GET(self) -> None:
        self.server.requests.append(("GET", self.path, self.headers.get("authorization")))
        self.reply(404, {"error": "not found"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def reply(self, status: int, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def words(base: Path, files: tuple[Path, Path], folder: Path, *more: str) -> list[str]:
    common = ["--model_name_or_path", str(base), "--train_file", str(files[0]), "--validation_file", str(files[1])]
    common += ["--do_train", "--do_eval", "--num_train_epochs", "1", "--report_to", "none", "--max_seq_length", "64"]
    return [*common, "--doc_stride", "16", "--output_dir", str(folder), *more]


def push(address: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run the script with another address of the hub."""
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_of_ana"}
    return subprocess.run(
        [sys.executable, str(ROOT / "run_qa_adapter.py"), *command],
        capture_output=True, text=True, env=environment, timeout=600, check=False,
    )  # fmt: skip


def test_saved_folder_is_pushed_when_the_run_is_finished(
    hub: Hub, tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    command = words(tiny_bert, squad_files, tmp_path / "run", "--push_to_hub", "--hub_model_id", "ana/qa-pt")
    done = push(hub.address, *command, "--hub_private_repo", "True")
    assert done.returncode == 0, done.stderr[-3000:]
    assert hub.repositories["ana/qa-pt"]["private"] is True
    assert set(hub.files) == {"ana/qa-pt"}
    pushed, saved = hub.files["ana/qa-pt"], tmp_path / "run" / "adapters-qa"
    assert set(pushed) == SETUP == {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    for name in SETUP:
        if not name.endswith(".json"):
            assert pushed[name] == (saved / name).read_bytes()
        assert str(tiny_bert).encode() not in pushed[name]
        assert str(tmp_path).encode() not in pushed[name]
    setup = json.loads(pushed["adapter_setup.json"])
    assert setup["trainer"]["base_model"]["name_or_path"] == tiny_bert.name
    assert b"| f1 |" in pushed["README.md"]
    assert b"snapshot_download('ana/qa-pt')" in pushed["README.md"]
    assert {token for _, _, token in hub.requests} == {"Bearer hf_of_ana"}
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    commit = f"{hub.address}/ana/qa-pt/commit/0123"
    assert (run["status"], run["pushed"]) == ("finished", {"repository": "ana/qa-pt", "commit": commit})
    assert f"{saved}: pushed, {commit}" in done.stdout

    (saved / "README.md").write_text("---\nlicense: mit\n---\nmine", encoding="utf-8")
    hub.files.clear()
    again = push(hub.address, *command)
    assert again.returncode == 0
    assert "this run is finished" in again.stdout
    assert set(hub.files["ana/qa-pt"]) == SETUP
    assert hub.files["ana/qa-pt"]["README.md"].endswith(b"mine")


def test_fully_fine_tuned_model_is_pushed_without_the_files_of_its_run(
    hub: Hub, tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    command = words(tiny_bert, squad_files, tmp_path / "run", "--train_adapter", "False", "--keep_checkpoint", "True")
    done = push(hub.address, *command, "--push_to_hub", "--hub_model_id", "ana/full", "--hub_token", "hf_other")
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(hub.files["ana/full"]) == FULL_MODEL
    assert (tmp_path / "run" / "checkpoint-3").is_dir()
    assert not [name for name, content in hub.files["ana/full"].items() if str(tmp_path).encode() in content]
    assert {token for _, _, token in hub.requests} == {"Bearer hf_other"}
    assert "hf_other" not in (tmp_path / "run" / "run.json").read_text(encoding="utf-8")


def test_failed_push_leaves_a_finished_run(
    hub: Hub, tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path
) -> None:
    """The hub refuses, then cannot be reached, then accepts."""
    command = words(tiny_bert, squad_files, tmp_path / "run", "--push_to_hub", "--hub_model_id", "ana/qa-pt")
    hub.refuses = True
    first = push(hub.address, *command)
    saved = tmp_path / "run" / "adapters-qa"
    errors = [line for line in first.stderr.splitlines() if line.startswith("error:")]
    assert first.returncode == 1
    assert len(errors) == 1
    assert "Traceback" not in first.stderr
    assert errors[0].startswith(f"error: {saved}: the run is finished and saved, but not pushed to ana/qa-pt (403")
    assert errors[0].endswith("; the same command tries again")
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert run["status"] == "finished"
    assert run["metrics"]["eval"]
    assert "pushed" not in run
    second = push("http://127.0.0.1:9", *command)
    assert second.returncode == 1
    assert "not pushed to ana/qa-pt" in second.stderr
    hub.refuses = False
    assert push(hub.address, *command).returncode == 0
    assert set(hub.files["ana/qa-pt"]) == SETUP


def test_requirements_of_a_push_are_checked_first(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    command = words(tiny_bert, squad_files, tmp_path / "run", "--push_to_hub", "--hub_strategy", "checkpoint")
    with pytest.raises(UserError) as caught:
        run_qa_adapter.main([word for word in command if word != "--do_train"])
    assert caught.value.problems == [
        "--push_to_hub: only what a run trains is saved and pushed; add --do_train",
        "--push_to_hub needs --hub_model_id, the repository to push to, e.g. name/qa-pt",
        "--push_to_hub needs a token: run hf auth login, or set HF_TOKEN, or give --hub_token",
        "--push_to_hub: HF_HUB_OFFLINE is set; unset it, or push when the run is finished",
        "--hub_strategy checkpoint: a run is pushed once, at its end; leave it out",
    ]
    for name in ("a/b/c", "qa-pt", "ana/qa--pt"):
        with pytest.raises(UserError, match=f"^--hub_model_id {name}: "):
            run_qa_adapter.main([*command, "--hub_model_id", name, "--hub_token", "hf_x"])
    assert not (tmp_path / "run").exists()
