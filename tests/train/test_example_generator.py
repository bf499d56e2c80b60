"""Where examples are asked for, which rows are left out, and what each row says of its origin."""

import pytest

from rollout.types import Problem, Rollout, RolloutGroup, Verdict
from train.data import Row
from train.experts.allocation import allocate, weights
from train.experts.duplicates import DuplicateIndex, jaccard, shingles
from train.experts.generator import DynamicExampleGenerator, outside_band
from train.experts.orchestrator import CollaborationOrchestrator
from train.experts.outcomes import Outcomes
from train.experts.teachers import Draft, TeacherError, TokenPrice
from train.experts.verification import verifier_of
from train.experts.weakness import UNNAMED, standings


def row(number: int, problem: str, answer: str = "7", **item: object) -> Row:
    steps = tuple(item.pop("expert_steps", ()))  # type: ignore[call-overload]
    return Row(
        f"train:{number}",
        ({"role": "user", "content": problem},),
        reference_answer=answer,
        expert_steps=steps,
        item=item,
    )


class Solver:
    """Writes `Answer: 7`, and for a problem with `odd` in it the wrong answer."""

    name = "solver"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def write(self, messages, seed: int) -> Draft:
        problem = messages[-1]["content"]
        self.asked.append(problem)
        answer = "8" if "odd" in problem else "7"
        return Draft(f"1. **Think**: it is {answer}\nAnswer: {answer}", "m", 100, 20)


def generator(teacher: Solver, **options: object) -> DynamicExampleGenerator:
    orchestrator = CollaborationOrchestrator(
        teacher, verifier_of(None, "stepwise"), max_rounds=1, concurrency=1
    )
    return DynamicExampleGenerator(orchestrator, **options)  # type: ignore[arg-type]


def two_skills(num: int = 10) -> tuple[list[Row], Outcomes]:
    """`num` rows each: `good` is solved in 7 of 8 samples, `bad` in 1 of 8."""
    rows, outcomes = [], Outcomes()
    for skill, solved in (("good", 7), ("bad", 1)):
        for _ in range(num):
            rows.append(row(len(rows) + 1, f"{skill} problem {len(rows)}", skill=skill))
            outcomes.add(rows[-1].id, 8, solved)
    return rows, outcomes


def test_a_skill_is_surely_weak_only_when_its_interval_says_so() -> None:
    rows, outcomes = two_skills(10)
    found = standings(rows, outcomes, k=2)
    assert found["bad"].surely_weak and not found["good"].surely_weak
    assert found["bad"].pass_rate == pytest.approx(0.125)
    # 1 - C(7,2)/C(8,2) = 1 - 21/28
    assert found["bad"].pass_at_k == pytest.approx(0.25)
    # Wilson, p = 0.125 and n = 10: centre (0.125 + 0.19207) / 1.38415 = 0.22908,
    # half 1.95996 / 1.38415 * sqrt(0.0109375 + 0.0096036) = 0.20294
    assert found["bad"].ci95 == pytest.approx((0.0261, 0.4320), abs=2e-4)
    few = standings(*two_skills(2), k=2)
    assert not few["bad"].surely_weak  # the same rates on 2 rows each


def test_outcomes_count_judged_rollouts_and_step_rewards() -> None:
    rollout = Rollout("p", ())
    group = RolloutGroup(
        Problem("train:1", "?"), (rollout,) * 3, (Verdict(1.0), None, Verdict(0.0))
    )
    outcomes = Outcomes()
    outcomes.add_groups([group], None)
    outcomes.add_evaluation([{"id": "train:1", "solved": True}])
    steps = RolloutGroup(Problem("s", "?"), (rollout,) * 2, (Verdict(0.5), Verdict(0.1)))
    outcomes.add_step_groups([steps], {"s": "train:1"})
    one = outcomes.by_row["train:1"]
    assert (one.num_samples, one.num_solved) == (3, 2)
    assert one.step_reward == pytest.approx(0.3)
    with pytest.raises(ValueError, match="3 of 2"):
        outcomes.add("train:1", 2, 3)


def test_shares_follow_failures_and_what_is_left_over_goes_to_the_others() -> None:
    rows, outcomes = two_skills(10)
    shares = weights({"good": 10, "bad": 10}, standings(rows, outcomes), "weakness")
    assert shares == pytest.approx({"good": 0.2291, "bad": 0.7709}, abs=2e-4)
    assert allocate(10, {"good": 10, "bad": 10}, shares) == {"good": 2, "bad": 8}
    assert allocate(10, {"good": 10, "bad": 3}, shares) == {"good": 7, "bad": 3}
    assert allocate(5, {"a": 9, "b": 9}, {"a": 1.0, "b": 1.0}) == {"a": 3, "b": 2}
    assert allocate(5, {"a": 1, "b": 2}, {"a": 0.0, "b": 0.0}) == {"a": 1, "b": 2}


def test_where_nothing_is_solved_step_rewards_decide_and_a_skill_without_any_is_weak() -> None:
    rows, outcomes = [], Outcomes()
    for number, (skill, reward) in enumerate([("near", 0.75), ("far", -0.5), ("none", None)]):
        rows.append(row(number, f"{skill} problem", skill=skill))
        outcomes.add(rows[-1].id, 4, 0)
        if reward is not None:
            outcomes.by_row[rows[-1].id].step_rewards = [reward]
    known = standings(rows, outcomes)
    two = {"near": 1, "far": 1}
    # The middle of Wilson's interval of p, one row: (p + z^2 / 2) / (1 + z^2) with z = 1.95996,
    # that is (0.75 + 1.92073) / 4.84146 = 0.55164 and (0 + 1.92073) / 4.84146 = 0.39673.
    near, far = 1 - 0.55164, 1 - 0.39673
    assert weights(two, known, "weakness") == pytest.approx({"near": near, "far": far}, abs=1e-5)
    mixed = weights({**two, "none": 1, "new": 1}, known, "weakness")
    # "none" solved 0 of 1, as weak as "far"; nothing at all is known of "new".
    wanted = {"near": near, "far": far, "none": far, "new": 0.5}
    assert mixed == pytest.approx(wanted, abs=1e-5)
    for number in range(3, 13):  # ten more rows of "far", whose steps are all right
        rows.append(row(number, f"far problem {number}", skill="far"))
        outcomes.add(rows[-1].id, 4, 0)
        outcomes.by_row[rows[-1].id].step_rewards = [1.0]
    known = standings(rows, outcomes)
    assert known["far"].step_reward == pytest.approx((10 - 0.5) / 11)
    low, high = known["far"].step_credit_ci95 or (0, 0)
    assert low < 10 / 11 < high and known["none"].step_credit_ci95 is None
    # Eleven rows of mean 10 / 11: 1 - (10 / 11 + 3.84146 / 22) / (1 + 3.84146 / 11) = 0.19680.
    assert weights({"far": 1}, known, "weakness") == pytest.approx({"far": 0.19680}, abs=1e-5)
    outcomes.by_row[rows[0].id].num_solved = 1
    shares = weights(two, standings(rows, outcomes), "weakness")
    assert shares["near"] < shares["far"] < 1, "something is solved: pass rates decide"


def test_near_duplicates_share_words_and_numbers() -> None:
    known = DuplicateIndex(["Tom has 3 red apples and 4 green pears in his old wooden basket."])
    assert (
        known.find("tom has 3  red apples and 4 green pears in his old wooden basket.") == "exact"
    )
    assert known.find("Tom has 3 red apples and 4 green pears in his old wooden basket") == "near"
    assert known.find("Tom has 3 red apples and 5 green pears in his old wooden basket.") is None
    assert known.find("Tom has 4 red apples and 3 green pears in his old wooden basket.") is None
    assert known.find("A box holds 3 times 4 pens.") is None
    assert DuplicateIndex(["What is 10\u00b3 + 5?"]).find("What is 103 + 5?") is None
    assert shingles("a b c d") == {("a", "b", "c"), ("b", "c", "d")}
    assert jaccard(shingles("a b c d"), shingles("b c d e")) == pytest.approx(1 / 3)


def test_rows_that_share_an_instruction_are_not_alike() -> None:
    """Words to unscramble behind one long instruction, one of them held out, one written twice."""
    task = "Unscramble the letters below into one English word and answer with that word alone: "
    words = [
        "olhel",
        "ldwro",
        "elppa",
        "rgnoea",
        "nanaab",
        "eapr",
        "mulp",
        "arpge",
        "chpea",
        "nolme",
        "wiik",
        "emil",
    ]
    rows = [row(n, task + word) for n, word in enumerate(words)]
    rows.append(row(50, task.replace(" alone", " only") + "olhel"))
    made = generator(Solver()).generate(rows, 20, held_out=[row(99, task + "rtac")])
    assert made.left_out == {}, "the one written anew has an instruction of its own"
    copies = [*rows[:-1], row(51, task.upper() + "OLHEL")]
    assert generator(Solver()).generate(copies, 20).left_out == {"duplicate (exact)": 1}


def test_the_learnable_band_leaves_out_what_is_always_or_never_solved() -> None:
    outcomes = Outcomes()
    for number, (samples, solved) in enumerate([(8, 8), (8, 0), (8, 3), (2, 2), (8, 0)], start=1):
        outcomes.add(f"train:{number}", samples, solved)
    outcomes.by_row["train:5"].step_rewards = [0.4]
    outcomes.add("train:6", 8, 0)
    outcomes.by_row["train:6"].step_rewards = [-1.0, -1.0]  # no step of the required form

    def reasons(*, ask_unsolved: bool) -> list[str | None]:
        found = [
            outside_band(row(n, "?"), outcomes, ask_unsolved=ask_unsolved) for n in range(1, 8)
        ]
        return [reason and reason.split(" (")[0] for reason in found]

    too_hard = ["too easy", "too hard", None, None, None, "too hard", None]
    assert reasons(ask_unsolved=False) == too_hard
    assert reasons(ask_unsolved=True) == ["too easy", *[None] * 6]


def test_weak_skills_get_more_examples_and_every_row_says_where_it_comes_from() -> None:
    rows, outcomes = two_skills(10)
    teacher = Solver()
    price = TokenPrice(prompt_per_million=1000.0, completion_per_million=5000.0)
    made = generator(teacher, mode="weakness", price=price).generate(rows, 10, outcomes=outcomes)
    assert made.planned == {"good": 2, "bad": 8}
    assert sum("bad" in problem for problem in teacher.asked) == 8
    assert len(made.solutions) == 10
    told = next(p for p in made.provenance.values() if p["asked_for"] == "bad")
    assert (told["teacher"], told["model"], told["verdict"]) == ("solver", "m", "accepted")
    assert told["cost"] == pytest.approx(100 * 0.001 + 20 * 0.005)
    assert (told["skills"], told["policy_pass_rate"], told["allocation"]) == (
        ["bad"], 0.125, "weakness",
    )  # fmt: skip
    assert len(told["prompt_sha256"]) == 64
    even = generator(Solver()).generate(rows, 10, outcomes=outcomes)
    assert even.planned == {"good": 5, "bad": 5}


def test_duplicates_and_held_out_rows_are_never_asked() -> None:
    rows = [
        row(1, "What is 3 plus 4?"),
        row(2, "what is 3  plus 4?"),
        row(3, "What is 2 plus 5?"),
        row(4, "Solved 7 already", expert_steps=("done",)),
        row(5, "solved 7 already"),
        row(6, "What is 1 plus 6?"),
    ]
    teacher = Solver()
    made = generator(teacher).generate(rows, 10, held_out=[row(9, "What is 2 plus 5?")])
    assert made.left_out == {"duplicate (exact)": 2, "held out (exact)": 1}
    assert sorted(teacher.asked, key=str.casefold)[0] == "What is 1 plus 6?"
    assert len(teacher.asked) == len(made.solutions) == 2
    assert made.planned == {UNNAMED: 2}


def test_another_skill_makes_up_for_one_that_the_teacher_cannot_solve() -> None:
    rows = [row(n, f"odd problem {n}", skill="odd") for n in range(3)]
    rows += [row(n, f"even problem {n}", skill="even") for n in range(3, 9)]
    made = generator(Solver()).generate(rows, 4)
    assert made.planned == {"even": 2, "odd": 2}
    counts = made.collected.summary()
    assert (counts["asked"], counts["accepted"], counts["rejected"]) == (7, 4, 3)
    assert all("asked_for" in told for told in made.provenance.values())


def test_a_call_that_is_cancelled_goes_on_from_its_journals(tmp_path) -> None:
    rows = [row(n, f"problem {n}", skill="ab"[n % 2]) for n in range(8)]

    def cancel(made) -> None:
        if len(made.asked) == 3:
            raise InterruptedError("cancelled")

    first, second = Solver(), Solver()
    with pytest.raises(InterruptedError):
        generator(first).generate(rows, 6, journal=tmp_path / "t.jsonl", tell=cancel)
    made = generator(second).generate(rows, 6, journal=tmp_path / "t.jsonl")
    assert len(made.solutions) == 6
    assert not set(first.asked[:3]) & set(second.asked)  # paid once


def test_a_teacher_that_fails_again_and_again_is_asked_for_no_other_skill() -> None:
    class Dead:
        name = "dead"

        def write(self, messages, seed: int) -> Draft:
            raise TeacherError("no_answer", "gone")

    rows = [row(n, f"problem {n}", skill="ab"[n % 2]) for n in range(40)]
    made = generator(Dead()).generate(rows, 40)  # type: ignore[arg-type]
    assert made.stopped is not None and "8 times in a row" in made.stopped
    assert len(made.asked) == 8 and made.collected.summary()["dropped"] == 8
    late = generator(Solver()).generate(rows, 40, deadline_s=0.0)
    assert not late.asked and late.stopped is not None
