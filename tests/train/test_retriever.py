"""The passages that reach a teacher's prompt."""

import os
import subprocess
import sys

from conftest import ROOT
from servers import serve
from teacher_world import collect, honest, row

from train.experts.retriever import Retriever, solved_examples, split_document


def test_solved_rows_and_documents_reach_the_prompt_where_they_share_a_word():
    known = row(41, expert_steps=("41 + 7 = 48", "48"))
    assert solved_examples([known, row(2)]) == [
        "Problem: What is 41 + 7?\n1. 41 + 7 = 48\n2. 48\nAnswer: 48"
    ]
    with serve(honest) as server:
        collect(server.url, [known, row(2)])
    (request,) = server.requests
    assert "41 + 7 = 48" in request.json["messages"][0]["content"]
    texts = ["cats purr", "Euclid divides", "a gcd by Euclid divides twice"]
    assert Retriever(texts, 2).passages("gcd euclid") == [texts[2], texts[1]]
    assert Retriever(texts).passages("nothing of that") == []
    assert Retriever([]).passages("x") == []
    assert split_document("a\n\nb\n\n" + "c" * 4500) == [
        "a\n\nb",
        "c" * 2000,
        "c" * 2000,
        "c" * 500,
    ]


def test_retrieving_loads_nothing_that_an_engine_cannot_stand_beside():
    code = (
        "import sys; from train.experts.retriever import Retriever; "
        "assert Retriever(['a b', 'c d']).passages('d c') == ['c d']; "
        "print([n for n in sys.modules if n.split('.')[0] in ('numba', 'llvmlite')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
