"""From people's words on answers to the champion's certainty in `honed status` and in a question's reason."""

import pytest

from service.certainty import Certainty
from store import migrations
from store.database import Database
from store.interactions import Interactions
from store.records import Feedback, FeedbackSource, FinishReason, Interaction, Rating, TokenTrace
from tests.service.conftest import Desk


def interaction(name: str, uncertainty: float | None, checkpoint: str = "base", num_tokens: int = 3) -> Interaction:
    messages = ({"role": "user", "content": f"What is {name}?"},)
    tokens = tuple(TokenTrace(place, -0.1, 0.5) for place in range(num_tokens))
    return Interaction(
        name, name, 1.0, "ann", checkpoint, messages, "It is.", FinishReason.STOP, tokens, 5, 0.1, uncertainty
    )


def word(name: str, number: int, **said: object) -> Feedback:
    return Feedback(f"{name}-{number}", name, float(number), "ann", FeedbackSource.FEEDBACK, **said)


@pytest.fixture
def interactions(tmp_path):
    database = Database(tmp_path / "honed.db", migrations.log)
    yield Interactions(database)
    database.close()


def test_the_last_word_says_whether_an_answer_is_right_and_only_judgements_count(interactions):
    told = {
        "up": [{"rating": Rating.UP}],
        "down": [{"rating": Rating.DOWN}],
        "corrected": [{"correction": "No."}],
        "up and corrected": [{"rating": Rating.UP, "correction": "No."}],
        "down then up": [{"rating": Rating.DOWN}, {"rating": Rating.UP}],
        "comment": [{"comment": "hm"}],
        "excluded": [{"rating": Rating.DOWN, "is_excluded": True}],
        "nothing": [],
    }
    for place, (name, words) in enumerate(told.items()):
        interactions.append(interaction(name, 0.1 * place, num_tokens=place))
        for number, said in enumerate(words):
            interactions.add_feedback(word(name, number, **said))
    assert interactions.judged("base") == [
        (0.0, 0, False),
        (0.1, 1, True),
        (0.2, 2, True),
        (pytest.approx(0.3), 3, True),
        (0.4, 4, False),
    ]


def test_other_checkpoints_and_answers_without_tokens_are_not_judged_here(interactions):
    interactions.append(interaction("other", 0.5, checkpoint="other"))
    interactions.append(interaction("silent", None))
    for name in ("other", "silent"):
        interactions.add_feedback(word(name, 1, rating=Rating.DOWN))
    assert interactions.judged("base") == []


def test_a_new_word_is_taken_into_account_and_each_checkpoint_has_its_own(interactions):
    certainty = Certainty(interactions)
    for number in range(30):
        interactions.append(interaction(f"i{number}", float(number)))
    for number in range(29):
        interactions.add_feedback(word(f"i{number}", 1, rating=Rating.DOWN if number > 15 else Rating.UP))
    found = certainty.report("base")
    assert found is not None
    assert (found.num_judged, found.auroc) == (29, 1.0)
    assert certainty.probability_wrong("base", 28.0) > 0.8
    assert certainty.probability_wrong("base", 2.0) < 0.2
    assert certainty.probability_wrong("base", None) is None
    assert certainty.report("other") is None
    assert certainty.probability_wrong("other", 1.0) is None
    interactions.add_feedback(word("i29", 1, rating=Rating.UP))
    assert certainty.report("base").num_judged == 30


def test_status_tells_the_champions_certainty_when_enough_was_judged(desk: Desk) -> None:
    assert desk.operator.get("/operator/status").json()["certainty"] is None
    interactions = desk.daemon.stores.interactions
    for number in range(24):
        interactions.append(interaction(f"i{number}", float(number), desk.serving))
        interactions.add_feedback(word(f"i{number}", 1, rating=Rating.DOWN if number % 3 else Rating.UP))
    told = desk.operator.get("/operator/status").json()["certainty"]
    assert (told["num_judged"], told["num_wrong"]) == (24, 16)
    assert {"auroc", "length_auroc", "aurc", "ece"} < told.keys()
