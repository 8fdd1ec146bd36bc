"""A web page that answers questions, for this machine only.

It listens on 127.0.0.1, and its content policy forbids the browser to load anything from other servers. Gradio is
imported inside the functions that need it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from adapter_qa.core.errors import Interrupted, ReportedError, UserError
from adapter_qa.core.files import is_text
from adapter_qa.core.messages import print_error
from adapter_qa.core.signals import raise_on_signal
from adapter_qa.inference.web_demo_html import STYLE, DemoAnswer, answers_html, problems_html

if TYPE_CHECKING:
    import gradio
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
HOST_NAMES = [HOST, "localhost"]  # a request to any other name comes from a foreign page (DNS rebinding)
MAX_CHARS = {"question": 2_000, "context": 200_000}  # such a context takes minutes on a CPU
POLICY = (  # Gradio's page has inline styles and compiles templates, which need the unsafe directives
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

AnswerQuestion = Callable[[str, str], DemoAnswer]  # from question and context


def listen(port: int) -> socket.socket:
    """Return a socket that is bound to 127.0.0.1.

    Args:
        port: Port number; 0 takes a free one.

    Raises:
        UserError: if the port is in use, or may not be used.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"--port {port}: not available ({error.strerror}); give another, or 0 for a free one"
        ) from error
    return listener


def serve_page(answerers: Mapping[str, AnswerQuestion], listener: socket.socket) -> None:
    """Serve the page until Ctrl-C or SIGTERM, which end the process at once, with a line on stderr.

    Args:
        answerers: Functions that answer a question, by the name that the page shows.
        listener: A socket from `listen`.
    """
    import uvicorn

    warnings.filterwarnings("ignore", module=r"gradio\.")  # Gradio warns about its own code with every question
    app = make_app(answerers)
    listener.listen()  # a browser that is faster than the server waits
    print(f"http://{HOST}:{listener.getsockname()[1]}   (Ctrl-C ends)", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    try:
        with raise_on_signal(resumes=False):
            thread.start()
            thread.join()
    except Interrupted as error:
        print_error(error)
        sys.stderr.flush()
        # uvicorn and Python would wait for a question that is being answered.
        number = error.exit_code - 128
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def make_app(answerers: Mapping[str, AnswerQuestion]) -> FastAPI:
    """Return the web application: Gradio's page behind a check of the host name and with a content policy."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOST_NAMES)
    app.add_middleware(ContentPolicy)
    page: FastAPI = gradio.mount_gradio_app(
        app,
        make_blocks(answerers),
        path="/",
        server_name=HOST,
        footer_links=[],
        show_error=False,
        max_file_size="1kb",
        ssr_mode=False,
        theme=gradio.themes.Base(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        head=f"<style>{PAGE_STYLE}{STYLE}</style>",  # Gradio's own option `css` would rewrite the selectors
    )
    return page


class ContentPolicy:
    """ASGI middleware that adds `POLICY` to every response.

    Attributes:
        app: The wrapped application.
    """

    def __init__(self, app: ASGIApp):
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def make_blocks(answerers: Mapping[str, AnswerQuestion]) -> gradio.Blocks:
    """Return the page: context, question, the runs to ask, and their answers."""
    import gradio

    def show_answers(context: str, question: str, runs: list[str]) -> str:
        return answer_page(answerers, context, question, runs)

    def show_changed_runs(context: str, question: str, runs: list[str]) -> object:
        if input_problems({"context": context, "question": question}):
            return gradio.skip()  # no question was asked yet
        return show_answers(context, question, runs)

    names = list(answerers)
    blocks: gradio.Blocks
    with gradio.Blocks(title="Questions", analytics_enabled=False) as blocks:
        gradio.HTML("<h1>Questions and answers</h1>")
        context = gradio.Textbox(label="Context", lines=8, max_lines=16, placeholder="The text that holds the answer")
        question = gradio.Textbox(label="Question", placeholder="A question that the context answers", autofocus=True)
        runs = gradio.CheckboxGroup(names, value=names, label="Runs to ask", visible=len(names) > 1)
        button = gradio.Button("Ask", variant="primary")
        result = gradio.HTML(elem_id="result")
        inputs = [context, question, runs]
        gradio.on(
            [button.click, question.submit],
            show_answers,
            inputs,
            result,
            api_visibility="private",
            show_progress="minimal",
        )
        runs.input(show_changed_runs, inputs, result, api_visibility="private", show_progress="minimal")
    return blocks


def answer_page(answerers: Mapping[str, AnswerQuestion], context: str, question: str, runs: list[str]) -> str:
    """Return the HTML of the chosen runs' answers, or of the problems with the input."""
    problems = input_problems({"context": context, "question": question})
    if not runs:
        problems.append("Choose at least one run to ask.")
    if problems:
        return problems_html(problems)
    try:
        answers = {name: answer(question, context) for name, answer in answerers.items() if name in runs}
    except ReportedError as error:
        return problems_html(error.problems)
    return answers_html(question, context, answers)


def input_problems(texts: Mapping[str, str | None]) -> list[str]:
    """Return the problems with texts of the page; the keys are its fields. A request made by hand may lack one."""
    problems = []
    for name, text in texts.items():
        if text is None or not text.strip():
            problems.append(f"The {name} is empty: type or paste one.")
        elif len(text) > MAX_CHARS[name]:
            problems.append(f"The {name} has {len(text):,} characters: shorten it to at most {MAX_CHARS[name]:,}.")
        elif not is_text(text):
            problems.append(
                f"The {name} has a lone surrogate (half a character), which is not valid text: type it again."
            )
    return problems
