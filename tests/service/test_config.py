"""Settings: defaults, then the file, then the environment; each wrong one is named."""

from datetime import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.config import Settings, is_within, parse_hours


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory that HONED_STATE names; nothing else of this machine's environment reaches the settings."""
    import os

    for name in [name for name in os.environ if name.startswith("HONED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HONED_STATE", str(tmp_path))
    return tmp_path


def test_the_defaults_stand_without_a_file(state):
    settings = Settings()
    assert (settings.state, settings.host, settings.port) == (state, "127.0.0.1", 4663)
    assert settings.paths.log == state / "honed.db"
    assert settings.approvals_required == 1


def test_the_file_wins_over_defaults_and_the_environment_over_the_file(state, monkeypatch):
    (state / "honed.toml").write_text('port = 5000\nmax_batch = 3\nquiet_hours = "23:00-07:00"\n')
    assert (Settings().port, Settings().max_batch, Settings().max_waiting) == (5000, 3, 12)
    monkeypatch.setenv("HONED_PORT", "6000")
    assert (Settings().port, Settings().max_batch) == (6000, 3)
    assert Settings(port=7000).port == 7000


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "", "127.0.0.2"])  # noqa: S104
def test_an_address_that_others_could_reach_needs_keys_and_cannot_do_without(state, monkeypatch, host):
    monkeypatch.setenv("HONED_HOST", host)
    assert Settings().needs_keys
    with pytest.raises(ValidationError, match="is not loopback, and API keys are off"):
        Settings(api_keys="off")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_no_keys_unless_they_are_asked_for(state, host):
    assert not Settings(host=host).needs_keys
    assert Settings(host=host, api_keys="on").needs_keys


def test_an_unknown_setting_in_the_file_is_named(state):
    (state / "honed.toml").write_text("prot = 5000\n")
    with pytest.raises(ValidationError, match="prot"):
        Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uncertainty_signal", "min_margin"),
        ("port", "65536"),
        ("port", "many"),
        ("max_batch", "0"),
        ("dtype", "float16"),
        ("ask_threshold", "1.5"),
        ("approvals_required", "0"),
        ("approvals_required", "6"),
        ("drain_seconds", "-1"),
        ("quiet_hours", "night"),
        ("quiet_hours", "23:00-25:00"),
        ("default_top_p", "0"),
        ("train_nice", "-5"),
        ("max_body_bytes", "10"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(state, monkeypatch, name, value):
    monkeypatch.setenv(f"HONED_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()


def test_settings_do_not_change_under_way(state):
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_every_setting_says_what_it_is_for():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("now", "hours", "is_quiet"),
    [
        ("12:00", "", True),
        ("23:00", "23:00-07:00", True),
        ("00:00", "23:00-07:00", True),
        ("06:59", "23:00-07:00", True),
        ("07:00", "23:00-07:00", False),
        ("22:59", "23:00-07:00", False),
        ("01:00", "01:00-02:00", True),
        ("02:00", "01:00-02:00", False),
        ("00:59", "01:00-02:00", False),
    ],
)
def test_quiet_hours_hold_also_across_midnight(now, hours, is_quiet):
    assert is_within(time.fromisoformat(now), hours) is is_quiet


@pytest.mark.parametrize("text", ["7-23", "23:00", "23:00-07:00 ", "aa:bb-cc:dd", "24:00-01:00"])
def test_hours_of_another_form_are_refused(text):
    with pytest.raises(ValueError, match=r"hour|form"):
        parse_hours(text)
