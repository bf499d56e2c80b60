"""text_similarity: what becomes of a text, and what an embedding endpoint is asked and sent."""

import time

import nltk.data
import pytest
from graders import problem, rollout
from servers import Answer, serve
from tiny_wordnet import write_tiny_wordnet

from rollout.verifiers.base import Grade, ModelGraderServerError, TokenUsage
from rollout.verifiers.registry import GraderSpecError, parse_grader
from rollout.verifiers.text_similarity import TextSimilarityGrader, cosine

BASE_URL = "FERRATA_GRADER_EMBEDDING_BASE_URL"
MODEL = "FERRATA_GRADER_EMBEDDING_MODEL"
KEY = "FERRATA_GRADER_EMBEDDING_API_KEY"
OTHER_KEY = "FERRATA_GRADER_OTHER_KEY"
# cos 45 degrees; the second vector comes first.
DATA = [{"index": 1, "embedding": [0, 2]}, {"index": 0, "embedding": [1, 1]}]
EMBEDDINGS = Answer({"data": DATA, "usage": {"prompt_tokens": 4}})


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch):
    for name in (BASE_URL, MODEL, KEY, OTHER_KEY, "FERRATA_GRADER_HOSTS"):
        monkeypatch.delenv(name, raising=False)


def grader(metric: str, **fields) -> TextSimilarityGrader:
    """A parsed grader that compares the output with the row's `ref`."""
    templates = {"input": "{{ sample.output_text }}", "reference": "{{ item.ref }}"}
    raw = {"type": "text_similarity", "evaluation_metric": metric, **templates, **fields}
    return parse_grader(raw)


def grade(g: TextSimilarityGrader, text: str, ref: str = "b") -> Grade:
    """The grade of a one-turn text."""
    return g.grade(problem(ref=ref), rollout(text))


def test_a_metric_is_computed_of_the_rendered_input_and_reference():
    assert grade(grader("fuzzy_match"), "abcd", "abce") == Grade(0.75)  # 2 * 3 / 8
    # 4 of 6 words in order, and as many in reverse: 2 * 1 * (4/6) / (10/6).
    assert grade(grader("rouge_l"), "a b c d", "a b c d e f") == Grade(pytest.approx(0.8))


@pytest.mark.parametrize("metric", ["bleu", "gleu", *(f"rouge_{n}" for n in "12345l")])
def test_every_metric_can_be_asked_for(metric):
    sentence = "the cat sat on the mat"
    assert grade(grader(metric), sentence, sentence) == Grade(1.0)


def test_a_metric_that_is_not_known_is_refused():
    with pytest.raises(GraderSpecError, match="evaluation_metric"):
        grader("rouge_6")


def test_what_is_not_said_has_the_documented_value():
    g = grader("fuzzy_match")
    assert g == TextSimilarityGrader(
        input=g.input, reference=g.reference, evaluation_metric="fuzzy_match"
    )
    assert (g.type, g.name) == ("text_similarity", "text_similarity")
    assert (g.deadline_s, g.max_characters) == (10.0, 50_000)


@pytest.mark.parametrize("text", ["", " \n", "<think>a</think>"])
def test_an_empty_text_is_a_format_error(text):
    assert grade(grader("fuzzy_match"), text) == Grade(0.0, format_error=True)


def test_a_rendered_text_of_spaces_is_a_format_error_too():
    blank = TextSimilarityGrader(input=" \n", reference=" \n", evaluation_metric="fuzzy_match")
    assert grade(blank, "whatever") == Grade(0.0, format_error=True)


def test_a_text_of_more_characters_than_allowed_scores_nothing_unread():
    g = grader("fuzzy_match", max_characters=4)
    assert grade(g, "abcd", "abcd") == Grade(1.0)
    assert grade(g, "abcde", "abcde") == Grade(0.0, details={"too_long": 1.0})


def test_a_text_that_takes_too_long_to_compare_scores_nothing():
    g = grader("rouge_l", deadline_s=1.0)
    grade(g, "a", "a")  # its process is running now
    started_s = time.monotonic()
    found = grade(g, "a " * 20_000, "b " * 20_000)  # 400 million comparisons
    assert found == Grade(0.0, details={"timeout": 1.0})
    assert time.monotonic() - started_s < 9


def test_meteor_is_refused_by_name_where_its_data_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(GraderSpecError, match="'meteor' needs nltk's WordNet"):
        grader("meteor")
    write_tiny_wordnet(tmp_path)
    assert grader("meteor").evaluation_metric == "meteor"


def test_cosine_is_refused_by_name_where_no_whole_endpoint_is_configured(monkeypatch):
    for given in ({}, {"base_url": "http://127.0.0.1:1"}, {"embedding_model": "m"}):
        with pytest.raises(GraderSpecError, match="'cosine' needs an embedding endpoint"):
            grader("cosine", **given)
    monkeypatch.setenv(BASE_URL, "http://127.0.0.1:1")
    with pytest.raises(GraderSpecError, match=MODEL):
        grader("cosine")
    assert grader("cosine", embedding_model="m").embedding_model == "m"


def test_the_operators_endpoint_is_asked_with_the_operators_key_whatever_the_rule_on_hosts(
    monkeypatch,
):
    with serve(EMBEDDINGS) as server:
        monkeypatch.setenv(BASE_URL, server.url + "/v1")
        monkeypatch.setenv(MODEL, "embedder")
        found = grade(grader("cosine"), "a")
        monkeypatch.setenv(KEY, "secret")
        monkeypatch.setenv("FERRATA_GRADER_HOSTS", "")  # graders call public addresses alone
        again = grade(grader("cosine"), "a")
    usage = {"embedder": TokenUsage(4)}
    expected = Grade(pytest.approx(0.5**0.5), usage=usage, sampled_model_name="embedder")
    assert found == again == expected
    first, second = server.requests
    assert first.path == "/v1/embeddings"
    assert first.json == {"model": "embedder", "input": ["a", "b"]}
    assert "authorization" not in first.headers
    assert second.headers["authorization"] == "Bearer secret"


def test_the_graders_own_endpoint_gets_the_key_it_names_and_never_the_operators(monkeypatch):
    monkeypatch.setenv(KEY, "the operator's")
    monkeypatch.setenv(BASE_URL, "http://127.0.0.1:1")
    monkeypatch.setenv(MODEL, "the operator's")
    with serve(EMBEDDINGS) as server:
        fields = {"base_url": server.url + "/v1", "embedding_model": "own"}
        found = grade(grader("cosine", **fields), "a")
        named = grader("cosine", **fields, api_key_env=OTHER_KEY)
        with pytest.raises(ModelGraderServerError, match=f"{OTHER_KEY} is not set"):
            grade(named, "a")
        monkeypatch.setenv(OTHER_KEY, "own key")
        grade(named, "a")
        monkeypatch.setenv("FERRATA_GRADER_HOSTS", "")
        with pytest.raises(ModelGraderServerError, match="hosts in the service's setting"):
            grade(named, "a")
    assert found.sampled_model_name == "own"
    plain, with_key = server.requests
    assert plain.json["model"] == "own"
    assert "authorization" not in plain.headers
    assert with_key.headers["authorization"] == "Bearer own key"


def test_a_graders_own_endpoint_must_be_public_where_there_is_a_rule(monkeypatch):
    g = grader("cosine", base_url="http://127.0.0.1:1", embedding_model="m")
    monkeypatch.setenv("FERRATA_GRADER_HOSTS", "")
    with pytest.raises(ModelGraderServerError, match="no public address"):
        grade(g, "a")


def test_the_operators_key_may_not_be_sent_to_the_graders_own_endpoint():
    with pytest.raises(GraderSpecError, match="is sent only to the address in"):
        grader("cosine", base_url="http://127.0.0.1:1", embedding_model="m", api_key_env=KEY)


def test_the_operators_key_may_be_named_for_the_operators_endpoint(monkeypatch):
    with serve(EMBEDDINGS) as server:
        monkeypatch.setenv(BASE_URL, server.url)
        monkeypatch.setenv(KEY, "secret")
        grade(grader("cosine", embedding_model="m", api_key_env=KEY), "a")
    assert server.requests[0].headers["authorization"] == "Bearer secret"


def test_an_endpoint_that_counts_no_tokens_has_used_none():
    for body in ({"data": DATA}, {"data": DATA, "usage": {}}):
        with serve(Answer(body)) as server:
            g = grader("cosine", base_url=server.url, embedding_model="m")
            assert grade(g, "a").usage == {"m": TokenUsage(0)}


@pytest.mark.parametrize(
    "body",
    [
        {"data": DATA[:1]},
        {"data": [*DATA, DATA[0]]},
        {"data": [{"index": 0}, DATA[0]]},
        {"data": [{"embedding": ["x"]}, DATA[0]]},
        {"data": [{"embedding": [1.0]}, DATA[0]]},
        {"data": None},
        {},
        [],
    ],
)
def test_an_answer_without_two_vectors_of_one_length_is_no_verdict(body):
    with serve(Answer(body)) as server:
        g = grader("cosine", base_url=server.url, embedding_model="m")
        with pytest.raises(ModelGraderServerError, match="no two embeddings"):
            grade(g, "a")


def test_an_endpoint_that_refuses_is_asked_as_often_as_the_limits_say():
    with serve(Answer({}, status=500)) as server:
        limits = {"max_attempts": 2}
        g = grader("cosine", base_url=server.url, embedding_model="m", limits=limits)
        with pytest.raises(ModelGraderServerError, match="status 500"):
            grade(g, "a")
    assert len(server.requests) == 2


def test_the_cosine_is_that_of_the_angle():
    assert cosine([3.0, 4.0], [4.0, 3.0]) == pytest.approx(24 / 25)
    assert cosine([2.0, 0.0], [-0.5, 0.0]) == -1.0
    assert cosine([1.0, 0.0], [0.0, 3.0]) == 0.0


@pytest.mark.parametrize(
    ("left", "right", "complaint"),
    [
        ([], [], "without a direction"),
        ([0.0], [1.0], "without a direction"),
        ([1e200], [1e200], "without a direction"),  # the product of the lengths overflows
        ([1.0], [1.0, 2.0], "vectors of 1 and 2 numbers"),
    ],
)
def test_vectors_without_an_angle_are_an_error(left, right, complaint):
    with pytest.raises(ValueError, match=complaint):
        cosine(left, right)
