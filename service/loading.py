"""Sealed models to models in memory: verified as they are read, with the settings of this daemon."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.embedding import EmbedderError, NamedEmbedder, SentenceEmbedder
from agent.scope import Scope, scope_of
from agent.serving import EngineSettings, ModelLoader
from service.config import Settings
from service.models import SealedModel
from service.once import Once
from service.paths import kernel_directory
from service.snapshots import ChildSettings
from store import artifacts

WEIGHTS = ".safetensors"


def model_loader(settings: Settings, base: SealedModel, embedder: NamedEmbedder | None = None) -> ModelLoader:
    """The base in memory, ready to be served and to carry checkpoints; those with a scope need the embedder."""
    engine = EngineSettings(
        device=settings.device,
        dtype=settings.dtype,
        quantization=settings.quantization,
        threads=settings.threads,
        max_batch=settings.max_batch,
        max_waiting=settings.max_waiting,
        max_context=settings.max_context,
        cache_mb=settings.cache_mb,
        kernels=kernel_directory(),
    )
    files = artifacts.read(base.path, base.id).files
    with _laid_out({name: data for name, data in files.items() if not name.endswith(WEIGHTS)}) as directory:
        try:
            return ModelLoader(files, directory, base.id, engine, embedder)
        except ValueError as error:  # whoever reads it knows the model by its own place
            raise ValueError(str(error).replace(str(directory), str(base.path))) from error


@contextmanager
def _laid_out(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Verified bytes as a directory, for what reads only files: the sealed one could change after it was verified."""
    with TemporaryDirectory(prefix="honed-model-") as scratch:
        for name, data in files.items():
            path = Path(scratch) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        yield Path(scratch)


def child_settings(settings: Settings, base: SealedModel, embedder: SealedModel) -> ChildSettings:
    """The same for the child processes: what they measure is what would serve."""
    return ChildSettings(
        base,
        settings.device,
        settings.dtype,
        settings.quantization,
        settings.train_threads,
        settings.max_context,
        kernel_directory(),
        embedder,
    )


def computed_on(loader: ModelLoader) -> str:
    """What decides an answer besides the weights and the tokens: another device, precision or runner may answer
    otherwise.
    """
    return f"{loader.device}-{loader.weights}-{'reference' if loader.slow_because else 'fast'}".replace(":", "")


class LoadedEmbedder:
    """The embedder, loaded when it is first asked for, which takes seconds. Thread-safe."""

    def __init__(self, model: SealedModel) -> None:
        self._model = model
        self._loaded = Once(self._load)

    @property
    def id(self) -> str:
        return self._model.id

    def __call__(self) -> SentenceEmbedder:
        """EmbedderError when its files are not the sealed ones, or do not load."""
        return self._loaded()

    def scope(self, nearness: float, questions: Iterable[str]) -> Scope:
        """The scope of an adapter that is taught these questions. ValueError when there are none."""
        return scope_of(questions, self(), self.id, nearness)

    def _load(self) -> SentenceEmbedder:
        try:
            with _laid_out(artifacts.read(self._model.path, self._model.id).files) as directory:
                return SentenceEmbedder(directory)
        except Exception as error:
            raise EmbedderError(f"the embedder {self._model.name} does not load: {error}") from error
