"""What a scrape shows, read as Prometheus reads it."""

from prometheus_client.parser import text_string_to_metric_families

from tests import device
from tests.service.conftest import Desk
from tests.service.ledger_fakes import add_candidate, add_operator, promote

VLLM = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:num_preemptions_total",
    "vllm:time_to_first_token_seconds_count",
    "vllm:inter_token_latency_seconds_count",
    "vllm:e2e_request_latency_seconds_count",
    "vllm:request_success_total",
)


def scrape(desk: Desk) -> dict[str, float]:
    """Sums over labels, by sample name; the checkpoint's label is part of its name."""
    response = desk.public.get("/metrics")
    assert response.status_code == 200
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            name = f"{sample.name}:{sample.labels['checkpoint']}" if "checkpoint" in sample.labels else sample.name
            found[name] = found.get(name, 0.0) + sample.value
    return found


def test_the_names_are_those_that_dashboards_for_vllm_look_for(shared_desk):
    shared_desk.ask()
    assert set(VLLM) <= set(scrape(shared_desk))


def test_a_request_is_counted_with_its_tokens_and_times(shared_desk):
    before = scrape(shared_desk)
    usage = shared_desk.ask("Tell me something", max_tokens=5)["usage"]
    after = scrape(shared_desk)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert grown("vllm:prompt_tokens_total") == usage["prompt_tokens"]
    assert grown("vllm:generation_tokens_total") == usage["completion_tokens"] == 5
    assert grown("vllm:time_to_first_token_seconds_count") == 1
    assert grown("vllm:inter_token_latency_seconds_count") == 4
    assert grown("vllm:request_success_total") == 1
    assert after["vllm:e2e_request_latency_seconds_sum"] > before["vllm:e2e_request_latency_seconds_sum"]


def test_counters_go_on_when_the_weights_change(desk):
    desk.ask()
    before = scrape(desk)
    promote(desk.daemon, add_operator(desk.daemon), add_candidate(desk.daemon))
    desk.ask()
    after = scrape(desk)
    assert after["vllm:generation_tokens_total"] > before["vllm:generation_tokens_total"]
    assert after["honed:swaps_total"] == before["honed:swaps_total"] + 1
    assert after["honed:swap_cut_requests_total"] == 0
    assert f"honed:checkpoint_info:{desk.serving}" in after
    assert f"honed:checkpoint_info:{desk.daemon.base.id}" not in after


def test_an_idle_daemon_says_so(shared_desk):
    found = scrape(shared_desk)
    assert found["vllm:num_requests_running"] == found["vllm:num_requests_waiting"] == 0
    assert found["vllm:kv_cache_usage_perc"] == 0


def test_a_scrape_tells_what_computes_how_fast_and_what_the_log_costs(shared_desk):
    before = scrape(shared_desk)
    shared_desk.ask()
    after = scrape(shared_desk)
    assert after["honed:tokens_per_second"] > 0
    assert after["honed:log_write_seconds_count"] == before["honed:log_write_seconds_count"] + 1
    assert f'device="{device.NAME}",weights="float32"' in shared_desk.public.get("/metrics").text
