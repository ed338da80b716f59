"""The kernels are compiled once and kept; where that cannot be, the message says why and what would help."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.kernels import abi, build

Compiler = Callable[..., dict[str, str]]
MAKES = 'for last; do :; done; echo "made" > "$last"'  # what stands last on the command line is the file to make


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    """An environment whose CXX is a script: it tells its version, counts compilations, and then does as it is told."""

    def made(then: str = MAKES, *, version: str = "told 1.0", name: str = "compiler") -> dict[str, str]:
        script = tmp_path / name
        script.write_text(
            f'#!/bin/sh\nif [ "$1" = "--version" ]; then echo "{version}"; exit 0; fi\n'
            f'echo "$@" >> "{script}.calls"\n{then}\n'
        )
        script.chmod(0o755)
        return {"CXX": str(script), "PATH": ""}

    return made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "state" / "kernels"


def calls(environment: dict[str, str]) -> list[str]:
    told = Path(environment["CXX"] + ".calls")
    return told.read_text().splitlines() if told.exists() else []


def refusal(cache: Path, environment: dict[str, str]) -> str:
    with pytest.raises(build.NoKernels) as caught:
        build.library(cache, environment)
    return str(caught.value)


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_compiled_here_loads_and_has_every_function(kernels: Path) -> None:
    library = abi.load(build.library(kernels))
    for name in ("decoder_new", "decoder_delete", "decoder_forward", "decoder_head", "decoder_choose"):
        assert callable(getattr(library, name))


def test_the_kept_file_is_taken_the_second_time_as_it_is(kernels: Path) -> None:
    first = build.library(kernels)
    before = first.stat()
    again = build.library(kernels)
    after = again.stat()
    assert again == first
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert list(kernels.iterdir()) == [first]


def test_the_real_compiler_runs_once_for_two_askings(cache: Path, compiler: Compiler) -> None:
    real = next((path for name in build.COMPILERS if (path := shutil.which(name))), None)
    if real is None:
        pytest.skip("there is no C++ compiler here")
    environment = compiler(f'exec "{real}" "$@"')
    path = build.library(cache, environment)
    assert build.library(cache, environment) == path
    assert len(calls(environment)) == 1
    assert str(build.SOURCES / build.MAIN) in calls(environment)[0]
    assert abi.load(path).decoder_new.argtypes is not None


@pytest.mark.parametrize("left", [b"", b"half of a library"])
def test_a_kept_file_that_does_not_load_is_made_again_once(
    cache: Path, compiler: Compiler, kernels: Path, left: bytes
) -> None:
    environment = compiler(f'for last; do :; done; cp "{next(kernels.iterdir())}" "$last"')
    kept = build.library(cache, environment)
    kept.write_bytes(left)
    assert build.load(cache, environment).decoder_new.argtypes is not None
    build.load(cache, environment)
    assert len(calls(environment)) == 2
    assert list(cache.iterdir()) == [kept]


def test_what_does_not_load_when_it_was_just_made_again_is_told_and_not_made_for_ever(
    cache: Path, compiler: Compiler
) -> None:
    environment = compiler()
    with pytest.raises(OSError, match=r"kernels-[0-9a-f]{24}\.so"):
        build.load(cache, environment)
    assert len(calls(environment)) == 2


def test_a_library_is_on_the_disk_before_it_has_its_name(
    cache: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced = os.fsync, []

    def sync(descriptor: int) -> None:
        synced.append((os.stat(descriptor).st_ino, any(cache.glob("*.so"))))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    made = build.library(cache, compiler())
    assert synced == [(made.stat().st_ino, False), (cache.stat().st_ino, True)]


def test_the_directory_is_made_for_its_owner_alone(cache: Path, compiler: Compiler) -> None:
    path = build.library(cache, compiler())
    assert cache.stat().st_mode & 0o777 == 0o700
    assert list(cache.iterdir()) == [path]


def test_another_compiler_version_gives_another_file(cache: Path, compiler: Compiler) -> None:
    first = build.library(cache, compiler(version="told 1.0"))
    second = build.library(cache, compiler(version="told 1.1"))
    assert first != second
    assert sorted(cache.iterdir()) == sorted([first, second])


def test_another_compiler_of_the_same_version_gives_another_file(cache: Path, compiler: Compiler) -> None:
    assert build.library(cache, compiler(name="one")) != build.library(cache, compiler(name="other"))


@pytest.mark.parametrize("changed", ["decoder.cpp", "vectors.h"])
def test_one_changed_byte_of_a_source_gives_another_file_and_the_old_byte_the_old_one(
    cache: Path, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    copied = tmp_path / "sources"
    shutil.copytree(build.SOURCES, copied)
    environment = compiler()
    original = build.library(cache, environment)
    monkeypatch.setattr(build, "SOURCES", copied)
    assert build.library(cache, environment) == original
    text = (copied / changed).read_bytes()
    (copied / changed).write_bytes(text[:-1] + b" ")
    assert build.library(cache, environment) != original
    (copied / changed).write_bytes(text)
    assert build.library(cache, environment) == original
    assert len(calls(environment)) == 2


def test_other_flags_or_another_processor_give_another_file(
    cache: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [build.library(cache, compiler())]
    monkeypatch.setattr(build, "_processor", lambda: "flags : none at all")
    paths.append(build.library(cache, compiler()))
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g"))
    paths.append(build.library(cache, compiler()))
    assert len(set(paths)) == 3


def test_two_who_ask_at_once_get_the_same_whole_file(cache: Path, compiler: Compiler) -> None:
    environment = compiler(f"sleep 0.2; {MAKES}")
    got: list[str] = []

    def ask() -> None:
        got.append(build.library(cache, environment).read_text())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["made\n", "made\n"]
    assert len(list(cache.iterdir())) == 1


def test_the_named_compiler_goes_before_those_on_the_path(cache: Path, compiler: Compiler, tmp_path: Path) -> None:
    on_path = compiler(name="c++")
    build.library(cache, compiler(name="named") | {"PATH": str(tmp_path)})
    assert calls(on_path) == []


def test_without_a_name_the_first_known_compiler_on_the_path_is_taken(
    cache: Path, compiler: Compiler, tmp_path: Path
) -> None:
    environments = [compiler(name=name) for name in ("clang++", "g++")]
    build.library(cache, {"PATH": str(tmp_path)})
    assert [len(calls(environment)) for environment in environments] == [0, 1]


# ── what is missing ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_compiler_is_told_with_what_was_looked_for_and_what_to_install(cache: Path) -> None:
    told = refusal(cache, {"PATH": ""})
    assert "there is no C++ compiler here (c++, g++, clang++)" in told
    assert "install g++ 12 or clang 15" in told
    assert not cache.exists()


def test_a_named_compiler_that_does_not_exist_is_told_by_its_name(cache: Path) -> None:
    told = refusal(cache, {"CXX": "/nowhere/c++-99", "PATH": os.environ["PATH"]})
    assert "there is no C++ compiler here (/nowhere/c++-99)" in told


def test_a_compiler_that_does_not_even_tell_its_version_is_told_with_what_it_says(cache: Path, tmp_path: Path) -> None:
    script = tmp_path / "stub"
    script.write_text('#!/bin/sh\necho "xcrun: error: no developer tools were found" >&2\nexit 1\n')
    script.chmod(0o755)
    told = refusal(cache, {"CXX": str(script)})
    assert f"{script} does not run" in told
    assert "set CXX to a C++ compiler that does" in told
    assert "no developer tools were found" in told


def test_a_compiler_that_is_no_program_is_told(cache: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF and then nothing")
    broken.chmod(0o755)
    assert f"{broken} does not run" in refusal(cache, {"CXX": str(broken)})


def test_a_failed_compile_is_told_with_its_first_line_and_leaves_nothing(cache: Path, compiler: Compiler) -> None:
    environment = compiler(f'{MAKES}; echo "line 3: what is this?" >&2; echo "and more" >&2; exit 1')
    told = refusal(cache, environment)
    assert "does not compile the kernels: line 3: what is this?; g++ 12 and clang 15 do" in told
    assert "and more" not in told
    assert list(cache.iterdir()) == []


def test_a_failed_compile_is_tried_again_the_next_time(cache: Path, compiler: Compiler) -> None:
    refusal(cache, compiler("exit 1"))
    assert build.library(cache, compiler()).read_text() == "made\n"


def test_a_compiler_that_fails_in_silence_is_told_so(cache: Path, compiler: Compiler) -> None:
    assert "it said nothing" in refusal(cache, compiler("exit 1"))


def test_a_compiler_whose_words_are_no_utf8_is_refused_like_any_other(cache: Path, compiler: Compiler) -> None:
    assert "does not compile" in refusal(cache, compiler(r"printf '\377\376 unreadable\n' >&2; exit 1"))


def test_a_compiler_that_never_ends_is_given_up_and_leaves_nothing(
    cache: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "TIMEOUT_SECONDS", 0.3)
    assert "did not finish" in refusal(cache, compiler("exec sleep 30"))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_directory_that_others_can_write_is_refused_with_the_command_that_mends_it(
    cache: Path, compiler: Compiler, mode: int
) -> None:
    environment = compiler()
    build.library(cache, environment)
    cache.chmod(mode)
    told = refusal(cache, environment)  # even though the file is there: it may be theirs
    assert f"{cache} can be written by others; run `chmod 700 {cache}`" in told
    cache.chmod(0o700)
    assert build.library(cache, environment).exists()


def test_a_directory_that_others_can_only_read_is_fine(cache: Path, compiler: Compiler) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o755)
    assert build.library(cache, compiler()).exists()
