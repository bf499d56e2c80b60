"""Answers with values made to confuse whoever writes, reads or compares them."""

import json
import os
import sys


class Agreeable:
    """Equal to everything, of any length, true, and a command when unpickled."""

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0

    def __reduce__(self):
        return os.system, ("touch /tmp/blindattack-unpickled",)

    def __getattr__(self, name):
        return lambda *args, **kwargs: True


class Text(Agreeable, str): ...


class Whole(Agreeable, int): ...


class Real(Agreeable, float): ...


class Mapping(Agreeable, dict): ...


class Endless(list):
    def __iter__(self):
        while True:
            yield "answer-"

    def __len__(self):
        return 1


def very_long_integer():
    """More digits than a reader's `int()` takes: the writer's own limit is lifted first."""
    sys.set_int_max_str_digits(0)
    return 7**20_000


def nested(depth):
    value = "answer-"
    for _ in range(depth):
        value = [value]
    return value


def raw(text):
    """Whatever the writer is asked to write, `text` is what it writes."""
    encoder = type("Encoder", (json.JSONEncoder,), {"encode": lambda self, value: text})
    json.dumps = lambda *args, **kwargs: text
    json.encoder.JSONEncoder.encode = encoder.encode
    json.encoder.JSONEncoder.iterencode = lambda self, value, _one_shot=False: iter([text])
    return text


def itself():
    value = []
    value.append(value)
    return value


VALUES = {
    "object": Agreeable,
    "text": lambda: Text("answer-"),
    "whole": lambda: Whole(1),
    "real": lambda: Real("nan"),
    "mapping": lambda: Mapping(passed=True, ok=True, score=1.0, result=True),
    "endless": Endless,
    "very_long_integer": very_long_integer,
    "nested": lambda: nested(900),
    "raw_nested": lambda: raw("[" * 300_000),
    "raw_nested_closed": lambda: raw("[" * 300_000 + "]" * 300_000),
    "raw_long_integer": lambda: raw("9" * 50_000),
    "raw_not_finite": lambda: raw('{"value": NaN, "result": 1e999, "passed": true}'),
    "raw_not_text": lambda: raw('"\\ud800\\udfff\\u0000"'),
    "raw_nothing": lambda: raw(""),
    "raw_lines": lambda: raw("null\n" * 5_000),
    "surrogate": lambda: "answer-\ud800",
    "key_surrogate": lambda: {"\udc80": {1: None, True: [], "": float("inf")}},
    "itself": itself,
    "huge": lambda: "a" * 60_000_000,
    "wide": lambda: [0] * 5_000_000,
    "bytes": lambda: b"answer-\xff",
    "class": lambda: Agreeable,
    "awaitable": lambda: (yield),
}


def solve(kind):
    return VALUES[kind]()
