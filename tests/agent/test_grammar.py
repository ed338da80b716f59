"""Calls read back out of an answer: whole ones by their names, everything else as the text it is."""

import json

import pytest

from agent.grammar import CALL_BEGIN, CALL_END, parse_calls

NAMES = ("weather", "clock")


def call(name: str = "weather", **arguments: str) -> str:
    return f"{CALL_BEGIN}{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}{CALL_END}"


def test_calls_are_read_in_order_and_the_rest_is_what_is_said() -> None:
    said, calls = parse_calls(f"Let me see. {call(place='Paris')} And {call('clock')}\n", NAMES)
    assert said == "Let me see.  And"
    assert calls == [("weather", '{"place": "Paris"}'), ("clock", "{}")]


@pytest.mark.parametrize(
    "place",
    [CALL_END, CALL_BEGIN, f"a{CALL_END}b{CALL_BEGIN}c", call(place="Rome"), f'"{CALL_END}"', f"ü{CALL_END}\\"],
)
def test_tags_inside_an_argument_are_its_text_and_neither_end_nor_begin_a_call(place: str) -> None:
    said, calls = parse_calls(f"{call(place=place)}{call('clock')}", NAMES)
    assert said == ""
    assert [(name, json.loads(arguments)) for name, arguments in calls] == [
        ("weather", {"place": place}),
        ("clock", {}),
    ]


def test_white_space_around_a_call_is_none_of_it() -> None:
    spaced = call(place="Paris").replace(CALL_BEGIN, f"{CALL_BEGIN}\n ").replace(CALL_END, f"\t\n{CALL_END}")
    assert parse_calls(spaced, NAMES) == ("", [("weather", '{"place": "Paris"}')])


@pytest.mark.parametrize(
    "text",
    [
        "just text",
        f"only {CALL_END} an end",
        call("other"),
        call().removesuffix(CALL_END),
        call().replace("{", "", 1),
        f"{CALL_BEGIN}{CALL_END}",
        f"{CALL_BEGIN}[1]{CALL_END}",
        f'{CALL_BEGIN}{{"name": "clock", "arguments": "none"}}{CALL_END}',
        f'{CALL_BEGIN}{{"name": "clock", "arguments": {{}}}} and more{CALL_END}',
        f'{CALL_BEGIN}{{"name": ["clock"], "arguments": {{}}}}{CALL_END}',
        CALL_BEGIN + "[" * 100_000,
    ],
)
def test_what_is_no_whole_call_stays_the_text_it_is(text: str) -> None:
    assert parse_calls(f" {text}\n", NAMES) == (f" {text}\n", [])


def test_a_call_after_a_broken_one_is_still_a_call() -> None:
    said, calls = parse_calls(f"{CALL_BEGIN}oh {call('clock')}", NAMES)
    assert (said, calls) == (f"{CALL_BEGIN}oh", [("clock", "{}")])
    said, calls = parse_calls(f"{call('other')} {call('clock')}", NAMES)
    assert (said, calls) == (call("other"), [("clock", "{}")])
