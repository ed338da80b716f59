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
    entropy = 0.5 if uncertainty is None else uncertainty
    tokens = tuple(TokenTrace(place, -entropy, entropy) for place in range(num_tokens))
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
        interactions.append(interaction(name, 0.5 * place, num_tokens=place))
        for number, said in enumerate(words):
            interactions.add_feedback(word(name, number, **said))
    assert interactions.judged("base") == [
        (tuple(TokenTrace(token, -0.5 * place, 0.5 * place) for token in range(place)), None, is_wrong)
        for place, is_wrong in enumerate([False, True, True, True, False])
    ]


def test_judged_answers_come_with_their_questions_vectors_unless_another_embedder_made_them(interactions):
    for at, (name, vector) in enumerate({"old": [1.0], "new": [0.6, 0.8], "bare": None}.items()):
        interactions.append(interaction(name, 0.5))
        interactions.add_feedback(word(name, at, rating=Rating.DOWN))
        if vector:
            interactions.add_score(name, vector, 0.5, 0.5, float(at), question=at, uncertainty=0.5)
    vectors = [vector for _, vector, _ in interactions.judged("base")]
    assert [None if vector is None else vector.tolist() for vector in vectors] == [
        None,
        [pytest.approx(0.6), pytest.approx(0.8)],
        None,
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

    def wrong(checkpoint: str, *entropies: float) -> float | None:
        return certainty.probability_wrong(checkpoint, [TokenTrace(1, -one, one) for one in entropies], [1.0])

    assert wrong("base", 28.0, 28.0, 28.0) > 0.8
    assert wrong("base", 2.0, 2.0, 2.0) < 0.2
    assert wrong("base") is None
    assert certainty.report("other") is None
    assert wrong("other", 1.0) is None
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


def test_every_checkpoint_that_was_judged_is_told_of_the_one_that_answered_last_first(interactions):
    for number in range(24):
        checkpoint = "new" if number >= 22 else "old"
        interactions.append(interaction(f"i{number}", number / 24, checkpoint))
        interactions.add_feedback(word(f"i{number}", number, rating=Rating.DOWN if number % 2 else Rating.UP))
    interactions.append(interaction("unjudged", 0.5, "newest"))
    found = Certainty(interactions).reports()
    assert [one["checkpoint"] for one in found] == ["new", "old"]
    assert found[0]["report"] is None
    assert (found[1]["report"]["num_judged"], found[1]["report"]["num_wrong"]) == (22, 11)
