"""From scored answers to the questions worth asking: budgets, arms, reasons, and policy's last word."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from policies.engine import PolicySet
from service.questions import Budget
from service.reasking import Doubt
from store.comparisons import Choice, Comparison, Comparisons
from store.records import Arm, Feedback, FeedbackSource, FinishReason, LabelState, LabelTask, Rating
from tests.service.asking_room import Room

DAY, HOUR = 86_400.0, 3_600.0


@pytest.fixture
def room(tmp_path: Path) -> Room:
    room = Room(tmp_path)
    yield room
    room.db.close()


def test_the_first_answer_is_asked_about_and_says_why(room):
    room.add("one")
    assert room.ask() == 1
    (task,) = room.tasks()
    assert (task.interaction_id, task.arm, task.state) == ("one", Arm.WARM_UP, LabelState.OPEN)
    assert "typical of what is asked here" in task.reason


def test_after_the_warm_up_the_unsure_are_asked_about_and_the_sure_are_not(room):
    room.settled_warm_up()
    for number in range(8):
        room.add(f"known{number}", uncertainty=0.1)
    room.add("unsure", uncertainty=5.0)
    room.add("sure", uncertainty=0.05)
    assert room.ask(per_day=4, threshold=0.6) == 1
    (task,) = room.tasks()
    assert (task.interaction_id, task.arm) == ("unsure", Arm.DENSE_UNCERTAIN)
    assert "less sure than 100% of recent answers" in task.reason


def test_people_are_asked_by_what_answers_now_doubts_not_by_what_was_doubted_once(room):
    room.settled_warm_up()
    for name, uncertainty in {"once": 5.0, "still": 4.0, "sure": 0.5}.items():
        room.add(name, uncertainty=uncertainty)
    room.now = {"once": Doubt("new", 0.01), "still": Doubt("new", 2.0)}
    assert room.ask(per_day=4) == 1
    assert room.asked() == {"still"}


def test_what_could_not_be_put_again_in_time_waits_unless_nothing_could(room):
    room.settled_warm_up()
    for number in range(30):
        room.add(f"a{number}", uncertainty=2.0 + number / 10)
    room.now = {f"a{number}": Doubt("new", 1.0) for number in range(30)}
    room.now_limit = 2
    assert room.ask(per_day=12) == 2  # of three
    room.now_limit = 0
    assert room.ask(per_day=24) == 4  # of four, one of them at random


def test_what_is_below_the_threshold_is_not_put_again(room):
    room.settled_warm_up()
    room.add("unsure", uncertainty=5.0)
    room.now = {"unsure": Doubt("new", 9.0)}
    questions = room.questions(Budget(4, 4, 0.99))
    assert (questions.ask(), questions.has_looked_closer) == (0, False)
    questions = room.questions(Budget(4, 4, 0.5))
    assert (questions.ask(), questions.has_looked_closer) == (1, True)


def test_the_same_question_is_doubted_alike_however_often_it_was_asked(room):
    room.settled_warm_up()
    for number in range(3):
        room.add(f"often{number}", "What is often asked?", uncertainty=8.0)
    room.add("rare", uncertainty=4.0)
    room.now = {f"often{number}": Doubt("new", 0.01) for number in range(3)} | {"rare": Doubt("new", 9.0)}
    assert room.ask(per_day=4) == 1
    assert room.asked() == {"rare"}


def test_a_question_near_wrong_answers_goes_before_one_near_right_ones(room):
    for number in range(15):
        sort = "boat" if number % 2 else "tree"
        room.add(f"old{number}", f"Where is the {sort} {sort} of {number}")
        room.labels.add(LabelTask(f"old{number}", f"old{number}", 1.0, 0.5, "long ago"))
        rating = Rating.DOWN if sort == "boat" else Rating.UP
        room.interactions.add_feedback(
            Feedback(f"f{number}", f"old{number}", 1.0, "ann", FeedbackSource.LABEL, rating=rating)
        )
    for number in range(20, 26):
        sort = "boat" if number % 2 else "tree"
        room.add(f"{sort}{number}", f"Where is the {sort} {sort} of {number}", uncertainty=1.0)
    assert room.ask(per_day=12) == 3
    assert room.asked() == {"boat21", "boat23", "boat25"}


def test_what_is_below_the_threshold_waits(room):
    room.settled_warm_up()
    room.add("unsure", uncertainty=5.0)
    assert room.ask(per_day=4, threshold=0.99) == 0


def test_the_control_arm_is_on_record_and_says_that_it_was_chance(room):
    room.settled_warm_up()
    for number in range(60):
        room.add(f"a{number}", uncertainty=number / 10)
    assert room.ask(per_day=80, threshold=0.0) == 20
    drawn = [task for task in room.tasks() if task.arm is Arm.RANDOM]
    assert len(drawn) == 3
    assert {task.reason for task in drawn} == {"picked at random, to measure whether picking helps"}
    assert {task.arm for task in room.tasks()} == {Arm.RANDOM, Arm.DENSE_UNCERTAIN}


def test_a_day_has_so_many_questions_and_the_next_day_has_them_again(room):
    for number in range(9):
        room.add(f"today{number}")
    asked = []
    for _ in range(6):
        asked.append(room.ask(per_day=7))
        room.clock.now += HOUR + 1
    assert asked == [2, 2, 2, 1, 0, 0]
    room.clock.now += DAY - 6 * HOUR
    assert room.ask(per_day=7) == 2


def test_an_hour_has_a_quarter_of_the_day_s_questions(room):
    assert [Budget(per_day, 1, 0.5).per_hour for per_day in (0, 1, 4, 20, 21)] == [0, 1, 1, 5, 6]
    for number in range(9):
        room.add(f"a{number}")
    assert (room.ask(per_day=8), room.ask(per_day=8), room.ask(per_day=12)) == (2, 0, 1)


def test_one_person_s_answers_are_asked_about_so_often_a_day(room):
    for number in range(12):
        room.add(f"a{number}", principal="ann" if number < 10 else "bob")
    for _ in range(4):
        room.ask(per_day=40, per_person=2)
        room.clock.now += HOUR + 1
    people = [room.interactions.get(name).principal for name in room.asked()]
    assert sorted(people) == ["ann", "ann", "bob", "bob"]
    room.clock.now += DAY
    assert room.ask(per_day=40, per_person=2) == 2


def test_without_a_budget_nothing_is_asked(room):
    room.add("one")
    assert (room.ask(per_day=0), room.ask(per_person=0)) == (0, 0)


@pytest.mark.parametrize("reply", ["", "  \n", "\u2003"])
def test_an_empty_answer_is_not_asked_about(room, reply):
    room.add("empty", reply=reply)
    assert room.ask() == 0


def test_what_a_person_judged_already_is_not_asked_about_nor_what_is_nearly_the_same(room):
    room.add("judged", "how far is the old mill from the harbour")
    room.add("again", "How far is the old mill from the harbour", principal="bob")
    room.add("reordered", "is how far the old mill from the harbour", principal="bob")
    room.interactions.add_feedback(Feedback("f", "judged", 2.0, "ann", FeedbackSource.FEEDBACK, comment="fine"))
    assert room.ask() == 0


def test_a_question_that_many_ask_is_asked_about_once(room):
    for number in range(9):
        room.add(f"a{number}", "where is the key", principal=f"p{number}")
    assert [room.ask() for _ in range(3)] == [1, 0, 0]


def test_policy_has_the_last_word_on_each_question(room):
    package = resources.files("policies")
    cedar = package.joinpath("default.cedar").read_text(encoding="utf-8")
    schema = package.joinpath("schema.cedarschema").read_text(encoding="utf-8")
    never_bob = """@id("ask.not_two") @reason("not this one")
        forbid (principal, action == Action::"ask", resource == Interaction::"two");"""
    for name in ("one", "two", "three"):
        room.add(name)
    assert room.ask(policy_set=PolicySet.parse(f"{cedar}\n{never_bob}", schema)) == 2
    assert room.asked() == {"one", "three"}


def test_the_same_seed_asks_the_same(tmp_path: Path):
    asked = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        room = Room(tmp_path / str(number))
        room.settled_warm_up()
        for name in range(50):
            room.add(f"a{name}", uncertainty=name % 7 / 7)
        room.ask(per_day=40, seed=5)
        asked.append({(task.interaction_id, task.arm, task.score) for task in room.tasks()})
        room.db.close()
    assert asked[0] == asked[1]
    assert len(asked[0]) == 10


def test_who_skips_every_question_is_asked_after_who_answers(room):
    room.settled_warm_up()
    for number in range(3):
        room.add(f"skipped{number}", principal="bob")
        room.labels.add(LabelTask(f"s{number}", f"skipped{number}", 1.0, 0.5, "long ago"))
        room.labels.resolve(f"s{number}", LabelState.SKIPPED, 2.0)
    room.add("bob's", principal="bob", uncertainty=2.0)
    room.add("ann's", uncertainty=2.0)
    assert room.ask(per_day=4) == 1
    assert room.asked() == {"ann's"}


def test_a_daemon_chooses_questions_once_there_is_something_new(desk):
    rounds = desk.daemon.rounds
    rounds.ask()
    desk.ask("something to ask about")
    rounds.score()
    rounds.ask()
    (question,) = desk.operator.get("/operator/questions").json()["questions"]
    assert question["arm"] == "warm-up"
    assert "typical" in question["reason"]
    assert desk.operator.get("/operator/status").json()["asking"]["warm-up"]["num_asked"] == 1
    assert {timer.name for timer in rounds.timers()} >= {"score", "ask"}


def test_a_daemon_looks_again_when_another_model_answers_and_not_while_the_budget_is_spent(make_daemon, monkeypatch):
    daemon = make_daemon(ask_per_day=4)
    asked = []
    monkeypatch.setattr(daemon.questions(), "ask", lambda: asked.append(1) or 0)
    daemon.rounds.ask()
    daemon.rounds.ask()
    assert len(asked) == 1  # what came before the start may be new, and then nothing is
    daemon.rollout.serving.flip(replace(daemon.rollout.serving.current))
    daemon.rounds.ask()
    daemon.rounds.ask()
    assert len(asked) == 2
    daemon.questions().has_looked_closer = True
    daemon.rounds._is_pool_new = True
    daemon.rounds.ask()
    daemon.rounds.ask()
    assert len(asked) == 4  # what was learnt may change the next choice
    monkeypatch.setattr(daemon.questions(), "num_left", lambda: 0)
    daemon.rounds._is_pool_new = True
    daemon.rounds.ask()
    assert (len(asked), daemon.rounds._is_pool_new) == (4, True)


def test_two_answers_to_one_question_are_asked_about_together_and_once(room):
    room.settled_warm_up()
    for number, reply in enumerate(("A ship.", "A small ship.", "A ship.")):
        room.add(f"boat-{number}", "What is a boat?", conversation_id="boats", reply=reply)
    room.ask()
    pairs = {task.interaction_id: task.other_id for task in room.tasks() if task.interaction_id.startswith("boat")}
    ((one, other),) = pairs.items()
    assert {one, other} in ({"boat-0", "boat-1"}, {"boat-1", "boat-2"})


def test_a_pair_that_was_compared_unasked_is_not_asked_about_nor_is_a_third_answer_put_beside_it(room):
    room.settled_warm_up()
    for number, reply in enumerate(("A ship.", "A small ship.")):
        room.add(f"boat-{number}", "What is a boat?", conversation_id="boats", reply=reply)
    questions = room.questions(Budget(100, 100, 0.0))
    room.add("boat-2", "What is a boat?", conversation_id="boats", reply="Wood.")
    assert questions._other_answer(room.interactions.get("boat-2")) == "boat-1"
    said = Comparison("c", "boat-0", "boat-1", 2.0, "ann", FeedbackSource.FEEDBACK, Choice.FIRST)
    Comparisons(room.db).add(said)
    assert questions._other_answer(room.interactions.get("boat-2")) is None
    room.ask()
    assert not any(name.startswith("boat") for name in room.asked())


def test_an_answer_that_was_cut_off_is_not_compared(room):
    room.settled_warm_up()
    room.add("boat-0", "What is a boat?", conversation_id="boats", finish_reason=FinishReason.LENGTH)
    room.add("boat-1", "What is a boat?", conversation_id="boats", reply="Wood.")
    room.ask()
    assert room.tasks()
    assert all(task.other_id is None for task in room.tasks())
