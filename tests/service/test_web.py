"""The chat page in a real browser, against a small server that speaks the daemon's part of the protocol."""

import asyncio
import json
import re
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or CHROMEDRIVER is None,
        reason="no chromium or chromedriver found; on Debian: apt-get install chromium chromium-driver",
    ),
]
WEB = Path(__file__).parents[2] / "service" / "web"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
HOSTILE = '<img src="https://evil.example/x.png" onerror="document.title=1"><script>document.title=2</script>'


@dataclass
class Daemon:
    """What the fake answers next, and what it was asked."""

    answers: list[str] = field(default_factory=list)
    refusals: list[Response] = field(default_factory=list)
    feedback_refusals: list[Response] = field(default_factory=list)
    chats: list[dict[str, Any]] = field(default_factory=list)
    feedback: list[dict[str, Any]] = field(default_factory=list)
    delay_seconds: float = 0.0
    is_endless: bool = False
    breaks_off: bool = False
    is_disconnected: bool = False
    address: str = ""

    async def stream(self, answer: str, number: int) -> AsyncIterator[str]:
        try:
            for piece in re.findall(r"\s*\S+", answer):
                yield event(choices=[{"index": 0, "delta": {"content": piece}, "finish_reason": None}])
            while self.is_endless:
                await asyncio.sleep(0.02)
                yield event(choices=[{"index": 0, "delta": {"content": " more"}, "finish_reason": None}])
        finally:
            self.is_disconnected = True
        if self.breaks_off:
            return
        yield event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        honed = {"interaction_id": f"interaction-{number}", "checkpoint": "c0ffee" * 10, "uncertainty": 0.25 * number}
        yield event(choices=[], usage={"total_tokens": 9}, honed=honed)
        yield "data: [DONE]\n\n"


def event(**body: Any) -> str:
    return f"data: {json.dumps(body)}\n\n"


def refusal(status: int, message: str) -> JSONResponse:
    body = {"error": {"message": message, "type": "server_error", "param": None, "code": None}}
    return JSONResponse(body, status_code=status, headers={"Retry-After": "2"} if status in (429, 503) else None)


def application(daemon: Daemon) -> FastAPI:
    app = FastAPI()

    @app.middleware("http")
    async def secure(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    for path, name in {"/": "index.html", "/app.js": "app.js", "/style.css": "style.css"}.items():
        app.get(path)(lambda name=name: FileResponse(WEB / name))

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "smollm2-135m-instruct"}, {"id": "base"}]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        daemon.chats.append(await request.json())
        await asyncio.sleep(daemon.delay_seconds)
        if daemon.refusals:
            return daemon.refusals.pop(0)
        answer = daemon.answers.pop(0)
        return StreamingResponse(daemon.stream(answer, len(daemon.chats)), media_type="text/event-stream")

    @app.post("/v1/feedback")
    async def feedback(request: Request) -> Response:
        if daemon.feedback_refusals:
            return daemon.feedback_refusals.pop(0)
        daemon.feedback.append(await request.json())
        return JSONResponse({"id": "feedback-1"})

    return app


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    config = uvicorn.Config(application(daemon), log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        daemon.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield daemon
        daemon.is_endless = False
        server.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=CHROMEDRIVER))
    yield driver
    driver.quit()


class Page:
    """The page as a person uses it."""

    def __init__(self, browser: webdriver.Chrome, daemon: Daemon) -> None:
        self.browser, self.daemon = browser, daemon
        browser.get_log("browser")
        browser.get_log("performance")
        browser.get(daemon.address + "/")
        self.wait(lambda: self.text("model") == "smollm2-135m-instruct")

    def all(self, test_id: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, f'[data-testid="{test_id}"]')

    def one(self, test_id: str, within: WebElement | None = None) -> WebElement:
        return (within or self.browser).find_element(By.CSS_SELECTOR, f'[data-testid="{test_id}"]')

    def text(self, test_id: str, within: WebElement | None = None) -> str:
        return self.one(test_id, within).text

    def wait(self, condition: Any) -> None:
        WebDriverWait(self.browser, 10, poll_frequency=0.05).until(lambda _: condition())

    def send(self, text: str) -> None:
        self.one("prompt").send_keys(text, Keys.ENTER)

    def ask(self, text: str, answer: str) -> WebElement:
        """Sends, waits for the whole answer, returns its element."""
        self.daemon.answers.append(answer)
        num_before = len(self.all("assistant-turn"))
        self.send(text)
        self.wait(lambda: len(self.all("assistant-turn")) == num_before + 1)
        turn = self.all("assistant-turn")[-1]
        self.wait(lambda: turn.get_attribute("aria-busy") == "false")
        return turn

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] != "INFO"]

    def hosts(self) -> set[str]:
        """Every host that the page tried to reach."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        # The browser's own first tab is chrome:// and chrome-untrusted://, which reach nobody.
        return {urlsplit(url).netloc for url in urls if not url.startswith(("data:", "chrome"))}


@pytest.fixture
def page(browser: webdriver.Chrome, daemon: Daemon) -> Page:
    return Page(browser, daemon)


def test_a_conversation_of_two_turns_carries_its_history(page, daemon):
    first = page.ask("What is honed?", "A model that keeps learning.")
    assert page.text("text", first) == "A model that keeps learning."
    assert page.text("checkpoint", first) == "c0ffeec0ffee"
    assert page.text("uncertainty", first) == "0.25"
    assert "Uncertainty 0.25" in page.one("uncertainty", first).get_attribute("title")
    page.ask("And where?", "On your own machine.")
    assert daemon.chats[0] == {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": "What is honed?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert daemon.chats[1]["messages"] == [
        {"role": "user", "content": "What is honed?"},
        {"role": "assistant", "content": "A model that keeps learning."},
        {"role": "user", "content": "And where?"},
    ]
    assert page.console() == []
    assert page.hosts() == {urlsplit(daemon.address).netloc}


def test_thumbs_are_sent_and_confirmed(page, daemon):
    turn = page.ask("Hello", "Hello there")
    page.one("up", turn).click()
    page.wait(lambda: page.text("note", turn) == "Thanks, noted.")
    assert page.one("up", turn).get_attribute("aria-pressed") == "true"
    page.one("down", turn).click()
    page.wait(lambda: page.one("down", turn).get_attribute("aria-pressed") == "true")
    assert page.one("up", turn).get_attribute("aria-pressed") == "false"
    assert daemon.feedback == [
        {"interaction_id": "interaction-1", "rating": "up"},
        {"interaction_id": "interaction-1", "rating": "down"},
    ]


def test_a_corrected_answer_is_what_the_next_turn_builds_on(page, daemon):
    turn = page.ask("Who looks after the garden?", "Nobody does.")
    page.one("correct", turn).click()
    editor = page.one("correction-text", turn)
    assert editor.get_attribute("value") == "Nobody does."
    assert page.browser.switch_to.active_element == editor
    editor.clear()
    editor.send_keys("Ada looks after it,", Keys.ENTER, "every Friday.")
    page.one("correction-comment", turn).send_keys("new since May")
    page.one("save", turn).click()
    page.wait(lambda: page.text("note", turn) == "Corrected, thank you.")
    assert page.text("text", turn) == "Ada looks after it,\nevery Friday."
    assert not page.one("correction", turn).is_displayed()
    correction = "Ada looks after it,\nevery Friday."
    assert daemon.feedback == [
        {"interaction_id": "interaction-1", "correction": correction, "comment": "new since May"}
    ]
    page.ask("And the gate?", "She too.")
    assert daemon.chats[1]["messages"][1] == {"role": "assistant", "content": correction}
    assert page.console() == []


def test_a_cancelled_or_unchanged_correction_sends_nothing(page, daemon):
    turn = page.ask("Hello", "Hello there")
    page.one("correct", turn).click()
    page.one("save", turn).click()
    page.wait(lambda: page.text("note", turn) == "Write what it should have said.")
    page.one("correction-text", turn).send_keys("!", Keys.ESCAPE)
    assert page.text("text", turn) == "Hello there"
    assert page.browser.switch_to.active_element == page.one("correct", turn)
    assert daemon.feedback == []


def test_a_correction_that_could_not_be_saved_stays_in_the_editor(page, daemon):
    turn = page.ask("Hello", "Hello there")
    daemon.feedback_refusals.append(refusal(422, "This interaction was erased."))
    page.one("correct", turn).click()
    page.one("correction-text", turn).send_keys(", you")
    page.one("save", turn).click()
    page.wait(lambda: page.text("note", turn) == "Not saved: This interaction was erased.")
    assert page.one("correction-text", turn).get_attribute("value") == "Hello there, you"


def test_stop_ends_the_answer_and_keeps_what_came(page, daemon):
    daemon.is_endless = True
    daemon.answers.append("It goes on and on")
    page.send("Tell me everything")
    page.wait(lambda: "on more more" in page.browser.find_element(By.ID, "conversation").text)
    assert not page.one("send").is_displayed()
    page.send("written meanwhile")  # Enter does not send while an answer is on its way, and loses nothing
    page.one("stop").click()
    turn = page.one("assistant-turn")
    page.wait(lambda: turn.get_attribute("aria-busy") == "false")
    assert page.text("problem", turn) == "Stopped."
    assert page.one("send").is_displayed()
    assert page.one("prompt").get_attribute("value") == "written meanwhile"
    page.wait(lambda: daemon.is_disconnected)
    daemon.is_endless = False
    page.ask("", "Good.")
    assert [message["role"] for message in daemon.chats[1]["messages"]] == ["user", "assistant", "user"]
    assert daemon.chats[1]["messages"][1]["content"].startswith("It goes on and on more")


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_is_shown_and_gives_the_text_back(page, daemon, status):
    daemon.refusals.append(refusal(status, "16 requests are waiting."))
    page.send("A long question that I will not type again")
    page.wait(lambda: page.all("problem") and page.text("problem") == "16 requests are waiting. Try again in 2 s.")
    assert page.one("prompt").get_attribute("value") == "A long question that I will not type again"
    daemon.answers.append("Now.")
    page.one("prompt").send_keys(Keys.ENTER)
    page.wait(lambda: [turn.text for turn in page.all("text")][1:] == ["Now."])
    assert len(daemon.chats[1]["messages"]) == 1


def test_a_refused_question_stays_in_sight_when_another_is_already_being_written(page, daemon):
    daemon.delay_seconds = 1.0
    daemon.refusals.append(refusal(503, "The model is being loaded."))
    page.send("The first question")
    page.one("prompt").send_keys("The second")
    page.wait(lambda: "being loaded" in page.text("problem"))
    daemon.delay_seconds = 0.0
    page.ask("", "Seen.")
    assert [turn.text for turn in page.all("user-turn")] == ["The first question", "The second"]
    assert daemon.chats[1]["messages"] == [{"role": "user", "content": "The second"}]


def test_a_daemon_that_cannot_be_reached_is_named_and_gives_the_text_back(page):
    page.browser.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        page.send("Are you there?")
        page.wait(lambda: page.all("problem") and "cannot be reached" in page.text("problem"))
        assert page.one("prompt").get_attribute("value") == "Are you there?"
    finally:
        page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": False})


def test_an_answer_that_breaks_off_says_so_and_stays(page, daemon):
    daemon.breaks_off = True
    turn = page.ask("Hello", "Hello th")
    assert page.text("text", turn) == "Hello th"
    assert page.text("problem", turn) == "The answer broke off."
    assert not page.one("up", turn).is_displayed()


def test_hostile_text_is_shown_as_text(page, daemon):
    turn = page.ask(HOSTILE, HOSTILE)
    assert page.text("text", turn) == HOSTILE
    assert page.text("text", page.one("user-turn")) == HOSTILE
    daemon.feedback_refusals.append(refusal(422, HOSTILE))
    page.one("up", turn).click()
    page.wait(lambda: HOSTILE in page.text("note", turn))
    time.sleep(0.2)  # long enough for a broken image to have called onerror
    assert not page.browser.find_elements(By.CSS_SELECTOR, "main img, main script")
    assert page.browser.title == "honed"
    assert page.hosts() == {urlsplit(daemon.address).netloc}
    assert not [message for message in page.console() if "Content Security Policy" in message]


def test_shift_enter_starts_a_line_and_an_empty_message_is_not_sent(page, daemon):
    page.send("   ")
    page.one("prompt").send_keys("one", Keys.SHIFT + Keys.ENTER + Keys.NULL, "two")
    page.ask("", "Both seen.")
    assert [chat["messages"][0]["content"] for chat in daemon.chats] == ["one\ntwo"]


def test_a_new_chat_forgets_the_former_one(page, daemon):
    page.ask("Hello", "Hello there")
    page.one("new-chat").click()
    assert page.all("assistant-turn") == []
    assert page.one("welcome").is_displayed()
    page.ask("Again", "Again")
    assert daemon.chats[1]["messages"] == [{"role": "user", "content": "Again"}]


def test_the_page_fits_a_narrow_screen_and_names_its_controls(page, daemon):
    metrics = {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        turn = page.ask("w" * 300, "x" * 300 + " " + "word " * 50)
        page.one("correct", turn).click()
        width = page.browser.execute_script("return document.documentElement.scrollWidth")
        inner = page.browser.execute_script(
            "const m = document.querySelector('main'); return m.scrollWidth - m.clientWidth"
        )
        assert (width, inner) == (360, 0)
        controls = page.browser.find_elements(By.CSS_SELECTOR, "button, textarea, input")
        assert [c.get_attribute("outerHTML") for c in controls if c.is_displayed() and not c.accessible_name] == []
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_needs_nothing_but_its_three_files():
    assert sorted(path.name for path in WEB.iterdir()) == ["app.js", "index.html", "style.css"]
    script = (WEB / "app.js").read_text(encoding="utf-8")
    assert len(script.splitlines()) <= 250
    assert not [word for word in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(") if word in script]
    html = (WEB / "index.html").read_text(encoding="utf-8")
    assert "style=" not in html
    assert "onclick=" not in html
