"""What flows into each linear layer of a decoder, and the gradient that comes back to its output, while one looks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel


@contextmanager
def fed_by(model: PreTrainedModel, add: Callable[[str, torch.Tensor], None]) -> Iterator[Mapping[str, str]]:
    """While inside, `add` is told each linear layer's input; where several are fed the same tensor, once, under the
    name of the first. Yields who that is for each layer, known once it was fed.
    """
    leaders: dict[str, str] = {}
    last: dict[str, Any] = {"input": None, "leader": ""}

    def watch(name: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def look(_: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            given = arguments[0]
            if given is not last["input"]:
                last["input"], last["leader"] = given, leaders.get(name, name)
                add(last["leader"], given.detach())
            leaders[name] = last["leader"]

        return look

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in _linear_layers(model)]
    try:
        yield leaders
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def felt_by(model: PreTrainedModel, add: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """While inside, a backward pass tells `add` the gradient at each linear layer's output.

    The embeddings are given a gradient: with all weights frozen there would be no backward pass otherwise.
    """

    def watch(name: str) -> Callable[[Any, Any, torch.Tensor], None]:
        def feel(gradient: torch.Tensor) -> None:
            add(name, gradient)

        def look(_: Any, arguments: Any, output: torch.Tensor) -> None:
            output.register_hook(feel)

        return look

    hooks = [layer.register_forward_hook(watch(name)) for name, layer in _linear_layers(model)]
    hooks.append(
        model.get_input_embeddings().register_forward_hook(lambda _, arguments, output: output.requires_grad_())
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _linear_layers(model: PreTrainedModel) -> list[tuple[str, torch.nn.Linear]]:
    return [(name, part) for name, part in model.get_decoder().named_modules() if isinstance(part, torch.nn.Linear)]
