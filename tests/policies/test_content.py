"""What in a text nobody should learn by heart, and what only looks like it."""

import pytest

from policies.content import Kind, findings


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", Kind.SECRET, "a private key"),
        ("-----BEGIN PRIVATE KEY-----", Kind.SECRET, "a private key"),
        ("use AKIAIOSFODNN7EXAMPLE for it", Kind.SECRET, "an AWS access key"),
        ("ghp_" + "a1B2" * 9, Kind.SECRET, "a GitHub token"),
        ("glpat-" + "x" * 20, Kind.SECRET, "a GitLab token"),
        ("xoxb-1234567890-abc", Kind.SECRET, "a Slack token"),
        ("sk-proj-" + "a1" * 12, Kind.SECRET, "an API key"),
        ("sk_live_" + "a1" * 12, Kind.SECRET, "an API key"),
        ("AIza" + "x" * 35, Kind.SECRET, "a Google API key"),
        ("hk_" + "x" * 43, Kind.SECRET, "a key of honed"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK", Kind.SECRET, "a JSON web token"),
        ("postgres://ann:hunter2@db.example.org/x", Kind.SECRET, "an address with a password"),
        ("write to ann.lee@example.org", Kind.PERSONAL, "an e-mail address"),
        ("call +44 20 7946 0958 now", Kind.PERSONAL, "a telephone number"),
        ("call (555) 867-5309", Kind.PERSONAL, "a telephone number"),
        ("call 555-867-5309.", Kind.PERSONAL, "a telephone number"),
        ("card 4111 1111 1111 1111", Kind.PERSONAL, "a payment card"),
        ("IBAN DE89 3704 0044 0532 0130 00", Kind.PERSONAL, "a bank account"),
        ("SSN 078-05-1120", Kind.PERSONAL, "a social security number"),
    ],
)
def test_each_rule_finds_what_it_is_for(text: str, kind: Kind, what: str) -> None:
    found = findings(["nothing here", text])
    assert (found[0].kind, found[0].what) == (kind, what)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("IBAN: DE89 3704 0044 0532 0130 00 BIC: COBADEFFXXX", "a bank account"),
        ("IBAN DE89370400440532013000 BIC COBADEFFXXX", "a bank account"),
        ("pay DE89370400440532013000 DEUTSCHE BANK", "a bank account"),
        ("pay it to de89 3704 0044 0532 0130 00, please", "a bank account"),
        ("AB12 DE89 3704 0044 0532 0130 00", "a bank account"),
        ("NO93 8601 1117 947 and MT84 MALT 0110 0001 2345 MTLC AST0 01S 2", "a bank account"),
        ("mt84malt011000012345mtlcast001s today", "a bank account"),
        ("4111 1111 1111 1111 12/27", "a payment card"),
        ("4111 1111 1111 1111 123", "a payment card"),
        ("4111111111111111 123", "a payment card"),
        ("4111-1111-1111-1111 1227 123", "a payment card"),
        ("2 4111 1111 1111 1111", "a payment card"),
        ("on 12 2027 4111 1111 1111 1111 4 times", "a payment card"),
        ("3782 822463 10005 1234", "a payment card"),
        ("3056 930902 5904 12/27", "a payment card"),
        ("2223 0031 2200 3222", "a payment card"),
        ("4222222222222 1", "a payment card"),
        ("6304 0000 0000 0000 000", "a payment card"),
        ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "a payment card"),
        ("+1 4111 1111 1111 1111 12/27", "a payment card"),
    ],
)
def test_what_stands_around_a_number_does_not_hide_it(text: str, what: str) -> None:
    assert what in [rule.what for rule in findings([text])]


@pytest.mark.parametrize(
    "text",
    [
        "The password for the greenhouse at Marrow Farm is bluebell.",
        "Write to support@example.org or Info@example.org.",
        "Pi is 3.14159265358979323846.",
        "It has 4111 1111 1111 1112 stars, and ISBN 978-3-16-148410-0.",
        "From 1990 to 2000, and 2010-11-25 10:30.",
        "The ratio is 12:34 at http://example.org:8080/a@b",
        "GB82 is a road; task-force; sk-8 boards; the risk-averse",
        "The key is pk_customer_orders_table_identifier.",
        "Version 10.20.300.4000, commit 36d8cef0a1b2c3d4e5f6",
        "The area is +3 or -12.5 degrees, +1 234.",
        "DE00 3704 0044 0532 0130 00",
        "DE89 3704 0044 0532 0130 000 BIC",
        "DE8937040044053201300012 BIC",
        "ie11 is not supported any more, and mp3s of 19 songs are",
        "2015 2016 2017 2018 2019 2020 2021 2022 2023 2024 2025",
        "4 8 15 16 23 42 4 8 15 16 23 42 4 8 15 16 23 42 4 8 15 16 23 42",
        "The numbers are 2 3 5 7 11 13 17 19 23 29 31 37 41 43 47 53 59 61 67 71.",
        "It took 42222222222220000008 steps, or 424242424242.",
        "640 480 800 600 320 240 720 576 512 384",
        "",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert findings([text]) == ()


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "hostile", ["a@", "1 ", "eyJ", "a.b", "AA00 A ", "+1", "sk-", "x://y:", "4111 ", "4-", "DE89 3704 ", "4"]
)
def test_a_long_hostile_text_is_read_to_its_end(hostile: str) -> None:
    """A rule that tries every beginning with every end would take hours for it."""
    text = f"{hostile * 40_000}\nwrite to ann.lee@example.org"
    assert "an e-mail address" in [rule.what for rule in findings([text])]
