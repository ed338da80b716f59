"""The index finds what plain arithmetic finds, and is rebuilt whenever it isn't of these rows."""

import threading
from pathlib import Path

import numpy as np
import pytest

from store.vectors import VectorIndex

DIM = 8


def rows(count: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return [f"i{n}" for n in range(count)], vectors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.faiss"


@pytest.fixture
def saved(path: Path) -> VectorIndex:
    index = VectorIndex(path, DIM)
    assert index.load_or_rebuild(*rows(20))
    index.save()
    return index


def test_search_gives_the_nearest_by_cosine(saved: VectorIndex) -> None:
    ids, vectors = rows(20)
    query = np.ones(DIM) * 3
    cosines = vectors @ query / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query))
    expected = sorted(zip(ids, cosines, strict=True), key=lambda pair: -pair[1])[:5]
    found = saved.search(query, 5)
    assert [id_ for id_, _ in found] == [id_ for id_, _ in expected]
    assert [cosine for _, cosine in found] == pytest.approx([cosine for _, cosine in expected], abs=1e-5)
    assert all(type(cosine) is float for _, cosine in found)


def test_search_never_gives_more_than_there_is(path: Path) -> None:
    index = VectorIndex(path, DIM)
    assert index.search(np.ones(DIM), 5) == []
    index.add("one", np.ones(DIM))
    assert [id_ for id_, _ in index.search(np.ones(DIM), 5)] == ["one"]
    assert index.search(np.ones(DIM), 0) == []


def test_a_saved_index_is_taken_as_it_is(saved: VectorIndex, path: Path) -> None:
    again = VectorIndex(path, DIM)
    assert not again.load_or_rebuild(*rows(20))
    assert len(again) == 20
    assert again.search(np.ones(DIM), 3) == saved.search(np.ones(DIM), 3)


def test_what_was_added_is_saved_too(saved: VectorIndex, path: Path) -> None:
    ids, vectors = rows(20)
    saved.add("new", np.arange(DIM))
    saved.save()
    vectors = np.vstack([vectors, np.arange(DIM)])
    assert not VectorIndex(path, DIM).load_or_rebuild([*ids, "new"], vectors)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "index missing": lambda path: path.unlink(),
    "map missing": lambda path: path.with_name("vectors.faiss.json").unlink(),
    "index corrupt": flip,
    "index empty": lambda path: path.write_bytes(b""),
    "map corrupt": lambda path: path.with_name("vectors.faiss.json").write_bytes(b'{"ids": ['),
    "map not utf-8": lambda path: path.with_name("vectors.faiss.json").write_bytes(b"\xff\xfe"),
    "map of another shape": lambda path: path.with_name("vectors.faiss.json").write_bytes(b"[]"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_missing_or_damaged_index_is_rebuilt_from_the_rows(saved: VectorIndex, path: Path, damage) -> None:
    damage(path)
    again = VectorIndex(path, DIM)
    assert again.load_or_rebuild(*rows(20))
    assert again.search(np.ones(DIM), 3) == saved.search(np.ones(DIM), 3)


def test_halves_of_two_saves_are_noticed(saved: VectorIndex, path: Path) -> None:
    old_map = path.with_name("vectors.faiss.json").read_bytes()
    saved.add("new", np.ones(DIM))
    saved.save()
    path.with_name("vectors.faiss.json").write_bytes(old_map)  # as if power went between the two
    assert VectorIndex(path, DIM).load_or_rebuild(*rows(20))


@pytest.mark.parametrize("count", [0, 19, 21])
def test_an_index_of_other_rows_is_rebuilt(saved: VectorIndex, path: Path, count: int) -> None:
    index = VectorIndex(path, DIM)
    assert index.load_or_rebuild(*rows(count))
    assert len(index) == count


def test_an_index_of_the_same_ids_with_other_vectors_is_rebuilt(saved: VectorIndex, path: Path) -> None:
    assert VectorIndex(path, DIM).load_or_rebuild(*rows(20, seed=1))


def test_an_index_of_another_length_is_rebuilt(saved: VectorIndex, path: Path) -> None:
    ids, vectors = rows(20)
    assert VectorIndex(path, DIM - 1).load_or_rebuild(ids, vectors[:, :-1])


def test_no_rows_at_all_give_an_empty_index(path: Path) -> None:
    index = VectorIndex(path, DIM)
    assert index.load_or_rebuild([], np.empty((0, 0), dtype=np.float32))
    index.save()
    assert not VectorIndex(path, DIM).load_or_rebuild([], np.empty((0, 0), dtype=np.float32))


def test_the_rows_given_are_left_as_they_were(path: Path) -> None:
    ids, vectors = rows(5)
    before = vectors.copy()
    VectorIndex(path, DIM).load_or_rebuild(ids, vectors)
    assert (vectors == before).all()


def test_a_zero_vector_is_like_nothing(path: Path) -> None:
    index = VectorIndex(path, DIM)
    index.add("zero", np.zeros(DIM))
    assert index.search(np.ones(DIM), 1) == [("zero", 0.0)]


def test_vectors_that_do_not_fit_are_refused(saved: VectorIndex) -> None:
    with pytest.raises(ValueError, match="shape"):
        saved.add("x", np.ones(DIM + 1))
    with pytest.raises(ValueError, match="finite"):
        saved.add("x", np.full(DIM, np.nan))
    with pytest.raises(ValueError, match="already"):
        saved.add("i1", np.ones(DIM))
    with pytest.raises(ValueError, match="dim must be positive"):
        VectorIndex(saved.path, 0)
    assert len(saved) == 20


def test_searching_while_others_add_stays_whole(path: Path) -> None:
    index = VectorIndex(path, DIM)
    _, vectors = rows(400)

    def add(start: int) -> None:
        for n in range(start, 400, 2):
            index.add(f"i{n}", vectors[n])

    threads = [threading.Thread(target=add, args=[start]) for start in (0, 1)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert all(-1.001 < cosine < 1.001 for _, cosine in index.search(vectors[0], 10))
    assert len(index) == 400
    assert index.search(vectors[7], 1)[0][0] == "i7"
