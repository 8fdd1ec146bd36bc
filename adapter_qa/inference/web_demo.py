"""A page to ask on, for this machine only: it listens on 127.0.0.1, and the browser is told to load nothing from
elsewhere. Gradio (requirements-serve.txt) is imported inside the functions that need it.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from adapter_qa.core.errors import ReportedError, UserError
from adapter_qa.core.files import is_text
from adapter_qa.inference.web_demo_html import STYLE, problems_html, replies_html

HOST = "127.0.0.1"
HOST_NAMES = [HOST, "localhost"]  # others would be pages of elsewhere that reach us by a name of theirs
LONGEST = {"question": 2_000, "context": 200_000}  # characters: minutes on a CPU
POLICY = (  # Gradio's page builds styles and templates in place, hence the unsafe ones
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)
PAGE_STYLE = """
.gradio-container { max-width: 72rem !important; margin: 0 auto !important; }
.gradio-container, .gradio-container .main, .gradio-container .wrap, .gradio-container main { min-width: 0 !important;
  width: 100%; }
.gradio-container h1 { margin: 0; font-size: 1.4rem; font-weight: 600; }
@media (max-width: 40rem) { .gradio-container .main { padding: .75rem !important; } }
"""

Ask = Callable[[str, str], tuple[dict[str, Any], dict[str, Any] | None]]


def listen(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1.

    Args:
        port: 0 takes a free one.

    Raises:
        UserError: the port is in use, or may not be used.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"--port {port}: cannot be had ({error.strerror}); give another, or 0 for a free one"
        ) from error
    return listener


def serve_page(asked: Mapping[str, Ask], listener: socket.socket) -> None:
    """Serves the page until Ctrl-C or SIGTERM.

    Args:
        asked: by the name that the page shows: from question and context to an answer and its fusion attention, as
            `page_html.replies_html` takes them.
        listener: from `listen`.
    """
    import uvicorn

    warnings.filterwarnings("ignore", module=r"gradio\.")  # of its own use of its libraries, at every question
    app = make_app(asked)
    print(f"http://{HOST}:{listener.getsockname()[1]}   (Ctrl-C ends)", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def make_app(asked: Mapping[str, Ask]) -> Any:
    """The web application: Gradio's page, mounted where it can be neither shared nor reached by another name."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOST_NAMES)
    app.add_middleware(ContentPolicy)
    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gradio.mount_gradio_app(
        app,
        make_blocks(asked),
        path="/",
        server_name=HOST,
        footer_links=[],
        show_error=False,
        max_file_size="1kb",
        ssr_mode=False,
        theme=gradio.themes.Base(primary_hue="blue", font=fonts[0], font_mono=fonts[1]),
        head=f"<style>{PAGE_STYLE}{STYLE}</style>",  # Gradio rewrites the selectors of its own option for styles
    )


class ContentPolicy:
    """ASGI middleware that tells the browser to load nothing from elsewhere."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Passes a request on; its response gets the header."""
        await self.app(scope, receive, partial(self.send, send))

    async def send(self, send: Any, message: dict[str, Any]) -> None:
        """Sends a part of a response."""
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
        await send(message)


def make_blocks(asked: Mapping[str, Ask]) -> Any:
    """The page: context, question, which runs, and what they answer."""
    import gradio

    names = list(asked)
    with gradio.Blocks(title="Questions", analytics_enabled=False) as blocks:
        gradio.HTML("<h1>Questions and answers</h1>")
        context = gradio.Textbox(label="Context", lines=8, max_lines=16, placeholder="The text that holds the answer")
        question = gradio.Textbox(label="Question", placeholder="What is to be found in it", autofocus=True)
        runs = gradio.CheckboxGroup(names, value=names, label="Asked", visible=len(names) > 1)
        button = gradio.Button("Ask", variant="primary")
        result = gradio.HTML(elem_id="result")
        inputs = [context, question, runs]
        gradio.on(
            [button.click, question.submit],
            partial(answer_html, asked),
            inputs,
            result,
            api_visibility="private",
            show_progress="minimal",
        )
        runs.input(partial(again_html, asked), inputs, result, api_visibility="private", show_progress="minimal")
    return blocks


def answer_html(asked: Mapping[str, Ask], context: str, question: str, runs: list[str]) -> str:
    """What the page shows when a question was asked: the answers of the chosen runs, or what is wrong with it."""
    problems = input_problems({"context": context, "question": question})
    if not runs:
        problems.append("Choose at least one run to ask.")
    if problems:
        return problems_html(problems)
    try:
        return replies_html(question, context, {name: asked[name](question, context) for name in asked if name in runs})
    except ReportedError as error:
        return problems_html(error.problems)


def again_html(asked: Mapping[str, Ask], context: str, question: str, runs: list[str]) -> Any:
    """The same after other runs were chosen; nothing while nothing can be asked."""
    if input_problems({"context": context, "question": question}):
        import gradio

        return gradio.skip()
    return answer_html(asked, context, question, runs)


def input_problems(texts: Mapping[str, str]) -> list[str]:
    """What is wrong with what was typed, in sentences."""
    problems = []
    for name, text in texts.items():
        if not text.strip():
            problems.append(f"The {name} is empty: type or paste one.")
        elif len(text) > LONGEST[name]:
            problems.append(f"The {name} has {len(text):,} characters; at most {LONGEST[name]:,} are read here.")
        elif not is_text(text):
            problems.append(f"The {name} holds half a character (a lone surrogate), which is no valid text.")
    return problems
