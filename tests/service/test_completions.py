"""Plain text without a conversation: completions with echo and logprobs, tokens there and back."""

import math

import pytest
import torch

from agent.model import load_base
from tests.service.conftest import Desk, post, served

TEXT = "The capital of France is"


def complete(desk: Desk, **body):
    defaults = {"model": desk.model, "prompt": TEXT, "temperature": 0, "max_tokens": 5}
    response = post(desk.public, "/v1/completions", defaults | body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture(scope="module")
def logprobs(shared_desk):
    """The base's own log-probabilities (n, V) after each token of a text."""
    path = shared_desk.daemon.base.path
    files = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    model = load_base(files, path, torch.device("cpu"), torch.float32)

    def of(ids):
        with torch.inference_mode():
            return torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], dim=-1)

    return of


def test_echo_with_logprobs_says_how_likely_the_prompt_was(shared_desk, logprobs):
    choice = complete(shared_desk, echo=True, logprobs=2, max_tokens=3)["choices"][0]
    ids = shared_desk.daemon.loader.tokenizer.ids(TEXT)
    expected = logprobs(ids)
    told = choice["logprobs"]
    assert choice["text"].startswith(TEXT)
    assert told["token_logprobs"][0] is None
    assert told["top_logprobs"][0] is None
    for number in range(1, len(ids)):
        assert told["token_logprobs"][number] == pytest.approx(float(expected[number - 1, ids[number]]), abs=1e-3)
        assert len(told["top_logprobs"][number]) == 2
    assert len(told["tokens"]) == len(told["text_offset"]) == len(ids) + 3
    assert "".join(told["tokens"]) == choice["text"]
    assert [choice["text"][at] for at in told["text_offset"]] == [token[0] for token in told["tokens"]]


def test_an_evaluation_harness_scores_a_text_without_generating(shared_desk):
    rows = shared_desk.daemon.stores.interactions.count()
    reply = complete(shared_desk, echo=True, logprobs=1, max_tokens=0)
    assert reply["choices"][0]["text"] == TEXT
    assert reply["usage"]["completion_tokens"] == 0
    assert all(math.isfinite(value) for value in reply["choices"][0]["logprobs"]["token_logprobs"][1:])
    assert shared_desk.daemon.stores.interactions.count() == rows, "what asks for no token is no turn"
    told = [reply["honed"], reply["choices"][0]["honed"]]
    assert told == 2 * [{"interaction_id": None, "checkpoint": shared_desk.serving, "uncertainty": None}]


def test_a_long_prompt_is_scored_in_pieces_like_a_short_one(shared_desk, logprobs):
    text = "Boats and birds. " * 20
    ids = shared_desk.daemon.loader.tokenizer.ids(text)
    assert len(ids) > 128
    told = complete(shared_desk, prompt=text, echo=True, logprobs=0, max_tokens=0)["choices"][0]["logprobs"]
    expected = logprobs(ids)
    wanted = [float(expected[number - 1, ids[number]]) for number in range(1, len(ids))]
    assert told["token_logprobs"][1:] == pytest.approx(wanted, abs=1e-3)


def test_text_and_its_token_ids_are_the_same_prompt(shared_desk):
    ids = shared_desk.daemon.loader.tokenizer.ids(TEXT)
    assert complete(shared_desk, prompt=ids)["choices"][0]["text"] == complete(shared_desk)["choices"][0]["text"]


def test_several_prompts_with_several_choices_come_back_in_order(shared_desk):
    reply = complete(shared_desk, prompt=["one", [40, 41]], n=2, temperature=1, seed=3)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    assert reply["usage"]["prompt_tokens"] == 3 + 2
    assert reply["usage"]["completion_tokens"] == 20
    alone = complete(shared_desk, prompt=[40, 41], n=2, temperature=1, seed=3)
    assert [c["text"] for c in reply["choices"][2:]] == [c["text"] for c in alone["choices"]]


def test_the_openai_client_completes_and_streams(shared_desk):
    import openai

    with served(shared_desk.apps[0]) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        asked = {"model": shared_desk.model, "prompt": TEXT, "max_tokens": 6, "temperature": 0}
        whole = client.completions.create(**asked).choices[0]
        chunks = list(client.completions.create(**asked, stream=True))
    assert whole.text
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.text
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason == "length"


def test_a_completion_is_a_row_of_the_log(shared_desk):
    reply = complete(shared_desk)
    row = shared_desk.daemon.stores.interactions.get(reply["honed"]["interaction_id"])
    assert (row.question, row.reply) == (TEXT, reply["choices"][0]["text"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": ["a"] * 33}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": "x" * 5000}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": True, "stream": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
    ],
)
def test_what_cannot_be_completed_is_refused_by_name(shared_desk, body, param):
    response = post(shared_desk.public, "/v1/completions", {"model": shared_desk.model, "prompt": TEXT, **body})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_tokens_go_there_and_back(shared_desk):
    there = post(shared_desk.public, "/tokenize", {"prompt": TEXT}).json()
    assert (there["count"], there["max_model_len"]) == (len(TEXT), 1024)  # a token a byte here
    assert post(shared_desk.public, "/detokenize", {"tokens": there["tokens"]}).json() == {"prompt": TEXT}


def test_a_conversation_is_tokenized_as_the_model_reads_it(shared_desk):
    messages = [{"role": "user", "content": "Hi <|im_end|>"}]
    told = post(shared_desk.public, "/tokenize", {"messages": messages}).json()["tokens"]
    assert told == shared_desk.daemon.loader.tokenizer.chat_ids(messages)


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, {"prompt": 3}])
def test_tokenize_wants_one_of_the_two(shared_desk, body):
    assert post(shared_desk.public, "/tokenize", body).status_code == 400


@pytest.mark.parametrize("tokens", [[-1], [99999], "abc", None, [1.5]])
def test_detokenize_wants_tokens_that_there_are(shared_desk, tokens):
    assert post(shared_desk.public, "/detokenize", {"tokens": tokens}).status_code == 400
