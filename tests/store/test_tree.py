"""Opening by descriptor: what is swapped after a directory was listed is still refused."""

import os
import shutil
from pathlib import Path

import pytest

from store.tree import ArtifactError, list_files, open_file, open_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "deep").mkdir(parents=True)
    (tmp_path / "root" / "plain").write_bytes(b"plain")
    (tmp_path / "root" / "deep" / "below").write_bytes(b"below")
    return tmp_path / "root"


def test_files_are_listed_in_order_and_read_through_their_folders(root: Path) -> None:
    with open_root(root) as descriptor:
        assert list(list_files(descriptor)) == ["deep/below", "plain"]
        with open_file(descriptor, "deep/below") as file:
            assert file.read() == b"below"


def test_a_file_that_became_a_link_is_not_followed(root: Path) -> None:
    with open_root(root) as descriptor:
        (root / "plain").rename(root.parent / "plain")
        (root / "plain").symlink_to(root.parent / "plain")
        with pytest.raises(ArtifactError) as caught, open_file(descriptor, "plain"):
            pass
    assert caught.value.file == "plain"


def test_a_folder_that_became_a_link_is_not_followed(root: Path) -> None:
    with open_root(root) as descriptor:
        shutil.move(root / "deep", root.parent / "deep")
        (root / "deep").symlink_to(root.parent / "deep")
        with pytest.raises(ArtifactError) as caught, open_file(descriptor, "deep/below"):
            pass
    assert caught.value.file == "deep/below"


def test_a_file_that_became_a_pipe_is_refused_without_waiting(root: Path) -> None:
    with open_root(root) as descriptor:
        (root / "plain").unlink()
        os.mkfifo(root / "plain")
        with pytest.raises(ArtifactError, match="not a regular file"), open_file(descriptor, "plain"):
            pass


def test_a_root_swapped_while_open_changes_nothing(root: Path) -> None:
    with open_root(root) as descriptor:
        root.rename(root.parent / "moved")
        root.mkdir()
        with open_file(descriptor, "plain") as file:
            assert file.read() == b"plain"
