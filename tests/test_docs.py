"""The documents describe what is: settings, exit codes, commands, routes and places are checked against the program."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from policies.refusal import Refusal
from service import exits
from service.cli import COMMANDS, group
from service.config import Settings

ROOT = Path(__file__).parent.parent
DOCS = {path.name: path.read_text(encoding="utf-8") for path in [*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")]}
MANY_COMMANDS = ("operator", "audit", "key", "data")  # groups of their own


def setting_rows() -> list[str]:
    """One table row a setting, as docs/operating.md must have it."""
    rows = []
    for name, field in Settings.model_fields.items():
        shown = "" if field.default_factory else str(field.default).partition("#sha256=")[0].replace("None", "")
        default = f"`{shown}`" if shown else "–"
        rows.append(f"| `HONED_{name.upper()}` | {default} | {field.description} |")
    return rows


def exit_rows() -> list[str]:
    """One table row an exit code."""
    plain = [f"| {code} | {meaning} |" for code, meaning in exits.MEANING.items()]
    return plain + [f"| {refusal.exit_code} | refused: `{refusal.value}` |" for refusal in Refusal]


@pytest.mark.parametrize("row", setting_rows())
def test_every_setting_is_documented_with_its_default(row: str) -> None:
    assert row in DOCS["operating.md"]


@pytest.mark.parametrize("row", exit_rows())
def test_every_exit_code_is_documented(row: str) -> None:
    assert row in DOCS["operating.md"]


def test_no_setting_is_documented_that_does_not_exist() -> None:
    known = {f"HONED_{name.upper()}" for name in Settings.model_fields} | {"HONED_KEYS", "HONED_TEST_KILLS"}
    mentioned = {name for text in DOCS.values() for name in re.findall(r"HONED_[A-Z_]+[A-Z]", text)}
    assert mentioned <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_helpful_help_with_an_example(name: str) -> None:
    help_text = CliRunner().invoke(group, [name, "--help"]).output
    assert "Usage:" in help_text
    assert name in MANY_COMMANDS or "Example: honed" in " ".join(help_text.split()) or "Example: HONED_" in help_text


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "export"])
def test_every_command_is_mentioned_in_the_documents(name: str) -> None:
    assert any(f"honed {name}" in text for text in DOCS.values())


def test_architecture_fits_one_screen_and_names_only_what_exists() -> None:
    text = DOCS["architecture.md"]
    assert len(text.splitlines()) <= 60
    for package, module in re.findall(r"\b(store|policies|agent|service)/([a-z_]+)", text):
        place = ROOT / package / module
        assert place.is_dir() or place.with_suffix(".py").exists(), f"{package}/{module} does not exist"


def test_every_link_between_documents_leads_somewhere() -> None:
    for name, text in DOCS.items():
        folder = ROOT / "docs" if (ROOT / "docs" / name).exists() else ROOT
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / target).exists(), f"{name} links to {target}"


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    mentioned = {name for text in DOCS.values() for name in re.findall(r"`make ([a-z-]+)`", text)}
    assert mentioned <= targets
