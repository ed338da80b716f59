"""The chat page against a real daemon: a whole conversation with a correction, in headless Chromium."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from service.daemon import Daemon
from store.records import Rating
from tests.service.conftest import served
from tests.service.test_web import CHROMEDRIVER, CHROMIUM, FLAGS

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or CHROMEDRIVER is None,
        reason="no chromium or chromedriver found; on Debian: apt-get install chromium chromium-driver",
    ),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=CHROMEDRIVER))
    yield driver
    driver.quit()


def test_a_person_talks_corrects_and_goes_on_and_the_daemon_remembers_it(
    browser: webdriver.Chrome, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(default_max_tokens=24)
    waiting = WebDriverWait(browser, 30, poll_frequency=0.05)

    def all_of(test_id: str) -> list[Any]:
        return browser.find_elements(By.CSS_SELECTOR, f'[data-testid="{test_id}"]')

    def ask(text: str, number: int) -> Any:
        waiting.until(lambda _: all_of("prompt")[0].is_enabled())
        all_of("prompt")[0].send_keys(text, Keys.ENTER)
        waiting.until(lambda _: len(all_of("assistant-turn")) == number)
        turn = all_of("assistant-turn")[-1]
        waiting.until(lambda _: turn.get_attribute("aria-busy") == "false")
        return turn

    with served(daemon.apps("http://127.0.0.1:0")[0]) as address:
        browser.get(address + "/")
        waiting.until(lambda _: all_of("model")[0].text == daemon.model_name)
        turn = ask("Who looks after the garden?", 1)
        shown = turn.find_element(By.CSS_SELECTOR, '[data-testid="checkpoint"]').text
        assert shown == daemon.base.id[:12]
        turn.find_element(By.CSS_SELECTOR, '[data-testid="correct"]').click()
        editor = turn.find_element(By.CSS_SELECTOR, '[data-testid="correction-text"]')
        editor.clear()
        editor.send_keys("Ada looks after it.")
        turn.find_element(By.CSS_SELECTOR, '[data-testid="save"]').click()
        note = turn.find_element(By.CSS_SELECTOR, '[data-testid="note"]')
        waiting.until(lambda _: "Corrected" in note.text)
        second = ask("And the gate?", 2)
        second.find_element(By.CSS_SELECTOR, '[data-testid="up"]').click()
        waiting.until(lambda _: daemon.stores.interactions.count_feedback() == 2)

    first_row, second_row = reversed(daemon.stores.interactions.recent(2))
    assert daemon.stores.interactions.feedback_for(first_row.id)[-1].correction == "Ada looks after it."
    assert daemon.stores.interactions.feedback_for(second_row.id)[-1].rating is Rating.UP
    assert [message["content"] for message in second_row.messages] == [
        "Who looks after the garden?",
        "Ada looks after it.",
        "And the gate?",
    ]
