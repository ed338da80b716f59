"""The kernels' team of threads, by itself in a small program, watched by the compiler's race detector."""

import shutil
import subprocess
from pathlib import Path

import pytest

from agent.kernels import build

PROGRAM = """
#include <cstdint>
#include "pool.h"
int main() {
    Team team(4);
    int wrong = 0;
    for (int round = 0; round < 500; round++) {
        team.use(1 + round % 4);
        std::atomic<int> first{0}, second{0};
        team.run([&] {
            team.each(7, [&](int) { first++; });
            team.each(5, [&](int) { second++; });
        });
        wrong += first != 7 || second != 5;
    }
    return wrong != 0;
}
"""


def test_a_team_that_changes_its_size_between_runs_does_each_task_once_and_races_nowhere(tmp_path: Path) -> None:
    compiler = next((path for name in build.COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler here")
    (tmp_path / "team.cpp").write_text(PROGRAM)
    flags = ["-std=c++20", "-O1", "-g", "-pthread", "-fsanitize=thread", f"-I{build.SOURCES}"]
    command = [compiler, *flags, str(tmp_path / "team.cpp"), "-o", str(tmp_path / "team")]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{compiler} has no race detector")
    ended = subprocess.run([tmp_path / "team"], capture_output=True, text=True, timeout=120, check=False)
    if "unexpected memory mapping" in ended.stderr:
        pytest.skip("this system's memory layout is not for the race detector")
    assert ended.returncode == 0, ended.stderr
