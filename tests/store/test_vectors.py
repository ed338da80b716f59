"""The index finds what plain arithmetic finds, and is rebuilt whenever it isn't of these rows."""

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest

from store.vectors import Rows, VectorIndex

DIM = 8


def rows(count: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return [f"i{n}" for n in range(count)], vectors


def chunked(ids: Sequence[str], vectors: np.ndarray, size: int = 7) -> Rows:
    """As the store gives them: a few at a time, as often as they are asked for."""
    return lambda: ((ids[n : n + size], vectors[n : n + size]) for n in range(0, len(ids), size))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.faiss"


@pytest.fixture
def saved(path: Path) -> VectorIndex:
    index = VectorIndex(path, DIM)
    assert index.load_or_rebuild(chunked(*rows(20)))
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
    assert not again.load_or_rebuild(chunked(*rows(20)))
    assert len(again) == 20
    assert again.search(np.ones(DIM), 3) == saved.search(np.ones(DIM), 3)


def test_what_was_added_is_saved_too(saved: VectorIndex, path: Path) -> None:
    ids, vectors = rows(20)
    saved.add("new", np.arange(DIM))
    saved.save()
    vectors = np.vstack([vectors, np.arange(DIM)])
    assert not VectorIndex(path, DIM).load_or_rebuild(chunked([*ids, "new"], vectors))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def retell(path: Path, **changes: object) -> None:
    map_ = path.with_name("vectors.faiss.json")
    map_.write_text(json.dumps(json.loads(map_.read_bytes()) | changes))


def forge(path: Path, data: bytes) -> None:
    """Other bytes in the index's place, with a map that vouches for them."""
    path.write_bytes(data)
    retell(path, sha256=hashlib.sha256(data).hexdigest())


DAMAGE = {
    "index missing": lambda path: path.unlink(),
    "map missing": lambda path: path.with_name("vectors.faiss.json").unlink(),
    "index corrupt": flip,
    "index empty": lambda path: path.write_bytes(b""),
    "map corrupt": lambda path: path.with_name("vectors.faiss.json").write_bytes(b'{"ids": ['),
    "map not utf-8": lambda path: path.with_name("vectors.faiss.json").write_bytes(b"\xff\xfe"),
    "map of another shape": lambda path: path.with_name("vectors.faiss.json").write_bytes(b"[]"),
    "map nested deep": lambda path: path.with_name("vectors.faiss.json").write_bytes(b"[" * 100_000),
    "map of other kinds": lambda path: retell(path, rows="20", rows_digest=7),
    "fewer rows": lambda path: retell(path, rows=19),
    "another format": lambda path: retell(path, format=1),
    "said to be lists": lambda path: retell(path, trained_rows=20),
    "cut short, and the map knows": lambda path: forge(path, path.read_bytes()[:-40]),
    "no index, and the map knows": lambda path: forge(path, b"IwFl" + b"\xff" * 400),
    "an index of another length": lambda path: forge(path, bytes(faiss.serialize_index(faiss.IndexFlatIP(3)))),
    "an index of another kind": lambda path: forge(path, bytes(faiss.serialize_index(faiss.IndexLSH(8, 8)))),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_missing_or_damaged_index_is_rebuilt_from_the_rows(saved: VectorIndex, path: Path, damage) -> None:
    damage(path)
    again = VectorIndex(path, DIM)
    assert again.load_or_rebuild(chunked(*rows(20)))
    assert again.search(np.ones(DIM), 3) == saved.search(np.ones(DIM), 3)


def test_halves_of_two_saves_are_noticed(saved: VectorIndex, path: Path) -> None:
    old_map = path.with_name("vectors.faiss.json").read_bytes()
    saved.add("new", np.ones(DIM))
    saved.save()
    path.with_name("vectors.faiss.json").write_bytes(old_map)  # as if power went between the two
    assert VectorIndex(path, DIM).load_or_rebuild(chunked(*rows(20)))


@pytest.mark.parametrize("count", [20, 21, 26, 60])
def test_rows_that_came_after_the_save_are_added_to_it(saved: VectorIndex, path: Path, count: int) -> None:
    ids, vectors = rows(60)
    vectors[:20] = rows(20)[1]
    index, fresh = VectorIndex(path, DIM), VectorIndex(path.with_name("other"), DIM)
    assert not index.load_or_rebuild(chunked(ids[:count], vectors[:count]))
    fresh.rebuild(chunked(ids[:count], vectors[:count]))
    assert len(index) == count
    assert index.search(np.ones(DIM), 9) == fresh.search(np.ones(DIM), 9)
    index.save()
    assert not VectorIndex(path, DIM).load_or_rebuild(chunked(ids[:count], vectors[:count]))


def test_a_save_is_due_when_many_rows_are_not_in_the_last(saved: VectorIndex, path: Path) -> None:
    assert not saved.is_save_due
    saved.add("one", np.ones(DIM))
    assert not saved.is_save_due
    saved.add("two", np.ones(DIM))
    assert saved.is_save_due
    assert VectorIndex(path, DIM).is_save_due


@pytest.mark.parametrize("count", [0, 19])
def test_an_index_of_other_rows_is_rebuilt(saved: VectorIndex, path: Path, count: int) -> None:
    index = VectorIndex(path, DIM)
    assert index.load_or_rebuild(chunked(*rows(count)))
    assert len(index) == count


def test_an_index_of_the_same_ids_with_other_vectors_is_rebuilt(saved: VectorIndex, path: Path) -> None:
    assert VectorIndex(path, DIM).load_or_rebuild(chunked(*rows(20, seed=1)))


def test_an_index_of_another_length_is_rebuilt(saved: VectorIndex, path: Path) -> None:
    ids, vectors = rows(20)
    assert VectorIndex(path, DIM - 1).load_or_rebuild(chunked(ids, vectors[:, :-1]))


def test_no_rows_at_all_give_an_empty_index(path: Path) -> None:
    index = VectorIndex(path, DIM)
    assert index.load_or_rebuild(chunked(*rows(0)))
    index.save()
    assert not VectorIndex(path, DIM).load_or_rebuild(chunked(*rows(0)))


def test_the_rows_given_are_left_as_they_were(path: Path) -> None:
    ids, vectors = rows(5)
    before = vectors.copy()
    VectorIndex(path, DIM).load_or_rebuild(chunked(ids, vectors))
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


def test_neighbours_are_the_nearest_cosines_and_nothing_where_there_are_no_more(path: Path) -> None:
    index = VectorIndex(path, DIM)
    ids, vectors = rows(3)
    assert np.isnan(index.neighbours(vectors, 2)).all()
    index.load_or_rebuild(chunked(ids, vectors))
    found = index.neighbours(vectors, 5)
    assert found.shape == (3, 5)
    assert found[:, 0] == pytest.approx(1.0, abs=1e-5)
    assert np.isnan(found[:, 3:]).all()
    assert index.neighbours(vectors[:0], 5).shape == (0, 5)


# ── many rows: lists with a byte a dimension ─────────────────────────────────────────────────────────────────────────


def crowd(count: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Rows in clusters."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(20, DIM))
    vectors = centres[draw.integers(0, 20, count)] + 0.5 * draw.normal(size=(count, DIM))
    return [f"i{n}" for n in range(count)], vectors.astype(np.float32)


@pytest.fixture
def large(path: Path) -> VectorIndex:
    index = VectorIndex(path, DIM, flat_rows=1000)
    assert index.load_or_rebuild(chunked(*crowd(2000), size=300))
    index.save()
    return index


def test_from_so_many_rows_on_lists_find_most_of_the_true_neighbours(large: VectorIndex) -> None:
    assert not large.is_exact
    ids, vectors = crowd(2000)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = crowd(50, seed=1)[1]
    right = 0
    for query in queries:
        cosines = unit @ (query / np.linalg.norm(query))
        found = large.search(query, 10)
        right += len({id_ for id_, _ in found} & {ids[n] for n in np.argsort(-cosines)[:10]})
        assert [cosine for _, cosine in found] == pytest.approx([cosines[int(id_[1:])] for id_, _ in found], abs=0.02)
    assert right >= 0.9 * 500


def test_fewer_rows_stay_exact(path: Path) -> None:
    index = VectorIndex(path, DIM, flat_rows=1000)
    index.load_or_rebuild(chunked(*crowd(999)))
    assert index.is_exact
    assert not index.is_outgrown
    index.add("new", np.ones(DIM))
    assert index.is_outgrown


def test_lists_that_were_saved_are_taken_and_brought_up_to_date(large: VectorIndex, path: Path) -> None:
    again = VectorIndex(path, DIM, flat_rows=1000)
    ids, vectors = crowd(2000)
    more = np.vstack([vectors, np.ones((1, DIM), np.float32)])
    assert not again.load_or_rebuild(chunked([*ids, "new"], more))
    assert again.search(np.ones(DIM), 1)[0][0] == "new"
    assert not again.is_exact


def test_the_same_rows_make_the_same_lists(large: VectorIndex, path: Path) -> None:
    before = path.read_bytes()
    large.rebuild(chunked(*crowd(2000), size=71))
    large.save()
    assert path.read_bytes() == before


def test_lists_that_were_outgrown_are_made_anew(large: VectorIndex, path: Path) -> None:
    ids, vectors = crowd(8000)
    vectors[:2000] = crowd(2000)[1]
    again = VectorIndex(path, DIM, flat_rows=1000)
    assert again.load_or_rebuild(chunked(ids, vectors, size=500))
    for n in range(2000, 7999):
        large.add(ids[n], vectors[n])
    assert not large.is_outgrown
    large.add(ids[7999], vectors[7999])
    assert large.is_outgrown
    large.rebuild(chunked(ids, vectors, size=500))
    assert not large.is_outgrown
    assert len(large) == 8000


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_lists_are_rebuilt_from_the_rows(large: VectorIndex, path: Path, damage) -> None:
    damage(path)
    again = VectorIndex(path, DIM, flat_rows=1000)
    assert again.load_or_rebuild(chunked(*crowd(2000)))
    assert again.search(np.ones(DIM), 3) == large.search(np.ones(DIM), 3)


def test_rows_that_change_while_they_are_read_are_noticed(path: Path) -> None:
    counts = iter((20, 21))
    index = VectorIndex(path, DIM)
    with pytest.raises(ValueError, match="changed from 20 to 21"):
        index.load_or_rebuild(lambda: [rows(next(counts))])
    assert len(index) == 0
