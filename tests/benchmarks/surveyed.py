"""The survey of the base that runs in a benchmark share, kept between benchmarks as a daemon keeps it between runs."""

from collections.abc import Callable

from transformers import PreTrainedModel

from agent.survey import Survey, everyday_rows, survey_of
from agent.tokenizer import Tokenizer
from tests.benchmarks import own


def survey(
    base: PreTrainedModel,
    tokenizer: Tokenizer,
    base_id: str,
    answer_tokens: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Survey:
    """As `agent.train` finds or makes it."""
    path = own.CACHE / f"survey-{base_id}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = everyday_rows(tokenizer, answer_tokens)
    return survey_of(base, rows, base_id, path if path.exists() else None, path, progress)
