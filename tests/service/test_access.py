"""Keys: who is let in, as whom, how often, and that every route asks."""

import base64

import pytest

from service.access import LOCAL, Access, BadPrincipal, RateLimit
from store.api_keys import UnknownApiKey
from tests.fakes import SetClock
from tests.service.conftest import Desk, client_of

OPEN_ROUTES: tuple[tuple[str, str], ...] = (
    ("GET", "/"),
    ("GET", "/app.js"),
    ("GET", "/style.css"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/feedback"),
    ("GET", "/nowhere"),
)


@pytest.fixture
def guarded(make_daemon) -> Desk:
    """A daemon whose callers need keys."""
    return Desk(make_daemon(api_keys="on"))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def key_for(desk: Desk, principal: str = "alice") -> str:
    made = desk.operator.post("/operator/keys", json={"principal": principal})
    assert made.status_code == 200, made.text
    return made.json()["key"]


def test_every_route_refuses_without_a_key(guarded):
    paths = {route.path for route in guarded.apps[0].routes if hasattr(route, "methods")}
    assert {path for _, path in OPEN_ROUTES} & paths, "the list has no route of the app"
    routes = [(method, path) for path in paths for method in ("GET", "POST")]
    for method, path in [*routes, *OPEN_ROUTES]:
        response = guarded.public.request(method, path, content=b"{}")
        assert response.status_code == 401, f"{method} {path}"
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert "Bearer" in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer hk_no", "Basic", "Basic !!!", "Basic eA==", "Token x", "Bearer \x00"]
)
def test_what_is_no_key_opens_nothing(guarded, header):
    key_for(guarded)
    assert guarded.public.get("/v1/models", headers={"Authorization": header}).status_code == 401


def test_a_key_opens_the_door_and_the_log_names_its_principal(guarded):
    client = client_of(guarded.apps[0])
    client.headers |= bearer(key_for(guarded, "alice"))
    body = {"model": guarded.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    reply = client.post("/v1/chat/completions", json=body).json()
    row = guarded.daemon.stores.interactions.get(reply["honed"]["interaction_id"])
    assert row.principal == "alice"


def test_a_browser_may_give_the_key_as_a_password(guarded):
    pair = base64.b64encode(f"anybody:{key_for(guarded)}".encode()).decode()
    assert guarded.public.get("/", headers={"Authorization": f"Basic {pair}"}).status_code == 200


def test_a_revoked_key_opens_nothing_and_is_not_listed(guarded):
    key, other = key_for(guarded, "alice"), key_for(guarded, "bob")
    (first, _) = guarded.operator.get("/operator/keys").json()["keys"]
    assert guarded.operator.post(f"/operator/keys/{first['id']}/revoke", json={}).status_code == 200
    assert guarded.public.get("/v1/models", headers=bearer(key)).status_code == 401
    assert guarded.public.get("/v1/models", headers=bearer(other)).status_code == 200
    assert [k["principal"] for k in guarded.operator.get("/operator/keys").json()["keys"]] == ["bob"]
    assert guarded.operator.post(f"/operator/keys/{first['id']}/revoke", json={}).status_code == 404


def test_the_key_itself_is_nowhere_in_the_state_directory(guarded):
    key = key_for(guarded)
    guarded.daemon.close()
    files = [path for path in guarded.daemon.paths.state.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if key.encode() in path.read_bytes()]


def test_making_and_revoking_are_on_record(guarded):
    key_for(guarded)
    guarded.daemon.access.revoke(guarded.daemon.access.valid()[0].id)
    events = [entry.event for entry in guarded.daemon.stores.audit.entries()]
    assert events[-2:] == ["api_key.added", "api_key.revoked"]
    assert guarded.daemon.stores.audit.verify().problems == ()


def test_the_unix_socket_needs_no_key(guarded):
    assert guarded.operator.get("/operator/status").status_code == 200


def test_without_keys_everybody_on_loopback_is_one_principal(shared_desk):
    reply = shared_desk.ask()
    assert shared_desk.daemon.stores.interactions.get(reply["honed"]["interaction_id"]).principal == LOCAL


@pytest.mark.parametrize("name", ["local", "", " ", "a b", "é", "x" * 65, "-a", "a\n"])
def test_a_name_that_cannot_be_a_principals_is_refused(guarded, name):
    with pytest.raises(BadPrincipal, match="cannot name a principal"):
        guarded.daemon.access.add(name)
    assert guarded.operator.post("/operator/keys", json={"principal": name}).status_code == 400


def test_a_key_that_is_not_there_cannot_be_revoked(guarded):
    with pytest.raises(UnknownApiKey, match="no key 00000000 is valid"):
        Access(guarded.daemon.stores.api_keys).revoke("00000000")


def test_who_asks_too_often_waits_and_others_do_not(make_daemon):
    desk = Desk(make_daemon(api_keys="on", requests_per_minute=3))
    alice, bob = bearer(key_for(desk, "alice")), bearer(key_for(desk, "bob"))
    answers = [desk.public.get("/v1/models", headers=alice) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 20
    assert desk.public.get("/v1/models", headers=bob).status_code == 200


def test_the_bucket_fills_again_with_time_and_never_beyond_its_size():
    clock = SetClock()
    rate = RateLimit(60, clock)
    assert [rate.wait("a") for _ in range(60)] == [0.0] * 60
    assert rate.wait("a") == pytest.approx(1.0)
    clock.now += 0.5
    assert rate.wait("a") == pytest.approx(0.5)
    clock.now += 0.5
    assert rate.wait("a") == 0.0
    clock.now += 10_000
    assert [rate.wait("a") > 0 for _ in range(61)] == [False] * 60 + [True]
