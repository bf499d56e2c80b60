"""Where a rule is set, a grader reaches public addresses and those on the list, and no other."""

import socket

import pytest
from servers import Answer, completion, serve

from rollout.verifiers.grader_run import run_grader
from rollout.verifiers.hosts import HOSTS_VARIABLE
from rollout.verifiers.http_json import HttpError, Limits, post_json
from rollout.verifiers.registry import GraderSpecError, parse_grader

LIMITS = Limits(timeout_s=5, deadline_s=5, max_attempts=2)
REWARD = Answer({"reward": 1.0})
PRIVATE = [
    "http://127.0.0.1/x",
    "http://127.8.8.8/x",
    "http://localhost:8265/api",
    "http://ray.localhost/x",
    "http://169.254.169.254/latest/meta-data",
    "http://10.0.0.1/x",
    "http://192.168.1.1/x",
    "http://172.20.0.1/x",
    "http://100.64.0.1/x",
    "http://0.0.0.0/x",
    "http://224.0.0.1/x",
    "http://[::1]/x",
    "http://[::]/x",
    "http://[fe80::1]/x",
    "http://[fd00::1]/x",
    "http://[::ffff:127.0.0.1]/x",
    "http://[::ffff:a9fe:a9fe]/x",
    "http://[64:ff9b::7f00:1]/x",
    "http://[2002:7f00:1::]/x",
]


def post(url: str, **options):
    """Post an empty object."""
    return post_json(url, b"{}", lambda attempt: {}, LIMITS, **options)


def names(monkeypatch, table: dict[str, list[str]]) -> list[str]:
    """Let names mean these addresses, one lookup after the other; return what was looked up."""
    real, asked = socket.getaddrinfo, []

    def lookup(host, port, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        if name not in table:
            return real(host, port, *args, **kwargs)
        asked.append(name)
        addresses = table[name]
        return real(addresses[min(len(asked), len(addresses)) - 1], port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return asked


@pytest.mark.parametrize("url", PRIVATE)
def test_a_grader_that_names_a_private_address_is_refused_when_it_is_read(url, monkeypatch):
    monkeypatch.setenv(HOSTS_VARIABLE, "")
    with pytest.raises(GraderSpecError, match=r"no public address.*grader_hosts") as caught:
        parse_grader({"type": "endpoint", "url": url})
    assert caught.value.param == "url"
    with pytest.raises(HttpError, match="no public address"):
        post(url)


@pytest.mark.parametrize("url", ["http://2130706433/x", "http://0x7f000001/x", "http://127.1/x"])
def test_other_spellings_of_a_private_address_are_refused_when_they_are_called(url, monkeypatch):
    monkeypatch.setenv(HOSTS_VARIABLE, "")
    with pytest.raises(HttpError, match=r"127\.0\.0\.1.* no public address"):
        post(url)


def test_without_a_rule_every_address_may_be_called(monkeypatch):
    monkeypatch.delenv(HOSTS_VARIABLE, raising=False)
    with serve(REWARD) as server:
        assert post(server.url) == {"reward": 1.0}
    assert parse_grader({"type": "endpoint", "url": PRIVATE[0]}).url == PRIVATE[0]


def test_a_name_is_judged_by_the_address_that_it_means(monkeypatch):
    monkeypatch.setenv(HOSTS_VARIABLE, "")
    names(monkeypatch, {"judge.example": ["127.0.0.1"]})
    with serve(REWARD) as server:
        port = server.url.rpartition(":")[2]
        grader = parse_grader({"type": "endpoint", "url": f"http://judge.example:{port}/v"})
        reply = run_grader(grader, "x")
    assert server.requests == []
    assert reply["metadata"]["errors"]["unresponsive_reward_error"] is True


def test_the_address_that_was_checked_is_the_one_that_is_called(monkeypatch):
    monkeypatch.setenv(HOSTS_VARIABLE, "127.0.0.1")
    # At the first lookup an allowed address, at every later one another that is not.
    asked = names(monkeypatch, {"judge.example": ["127.0.0.1", "127.0.0.2"]})
    with serve(REWARD) as server:
        port = server.url.rpartition(":")[2]
        assert post(f"http://judge.example:{port}/v") == {"reward": 1.0}
    assert asked == ["judge.example"]
    assert server.requests[0].headers["host"] == f"judge.example:{port}"
    assert server.requests[0].path == "/v"


@pytest.mark.parametrize("listed", ["localhost", "10.0.0.0/8, 127.0.0.0/8", "LOCALHOST,x", "::/0"])
def test_what_is_listed_may_be_called(listed, monkeypatch):
    monkeypatch.setenv(HOSTS_VARIABLE, listed)
    with serve(REWARD) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        if listed == "::/0":
            with pytest.raises(HttpError):
                post(url)
        else:
            assert post(url) == {"reward": 1.0}


def test_the_workers_own_judge_may_stand_anywhere(monkeypatch):
    monkeypatch.setenv(HOSTS_VARIABLE, "")
    with serve(completion({"reasoning": "", "score": 0.5})) as server:
        monkeypatch.setenv("FERRATA_GRADER_BASE_URL", server.url)
        message = {"role": "user", "content": "{{ sample.output_text }}"}
        judge = {"type": "score_model", "name": "j", "model": "m", "input": [message]}
        assert run_grader(parse_grader(judge), "a text")["reward"] == 0.5
        with pytest.raises(GraderSpecError, match="grader_hosts"):
            parse_grader({**judge, "base_url": server.url})


def test_a_name_that_nobody_knows_is_an_error_of_the_call(monkeypatch):
    monkeypatch.setenv(HOSTS_VARIABLE, "")
    with pytest.raises(HttpError, match="gave no answer"):
        post("http://nowhere.invalid/x")
