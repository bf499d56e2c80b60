"""Units after (or before) a number: found, and brought to one spelling.

Quantities are not converted: 5 cm is not recognised as 50 mm. An answer without a unit is taken
to be in the reference's unit, as data sets do; two different units are two different answers.
Called by `math_text` and `math_equal`.
"""

import re

TEXT = re.compile(r"\x01([^\x01\x02]*)\x02")  # a LaTeX text block, as `math_text.clean` marks it
PERCENT = "%"

_SYNONYMS = {
    "cm": "centimeter centimetre", "mm": "millimeter millimetre", "km": "kilometer kilometre",
    "m": "meter metre", "in": "inch inches", "ft": "foot feet", "mi": "mile", "yd": "yard",
    "kg": "kilogram", "mg": "milligram", "g": "gram", "lb": "pound lbs", "oz": "ounce",
    "s": "second sec secs", "min": "minute mins", "h": "hour hr hrs", "day": "days",
    "ml": "milliliter millilitre", "l": "liter litre", "deg": "degree degrees °", "rad": "radian",
    "$": "dollar usd", "cent": "cents", "km/h": "kmh kph", "mi/h": "mph", "hz": "hertz",
    "%": "percent pct", "j": "joule", "n": "newton", "w": "watt", "v": "volt", "pa": "pascal",
}  # fmt: skip
_CANONICAL = {word: unit for unit, words in _SYNONYMS.items() for word in words.split()}
_KNOWN = {*_SYNONYMS, *_CANONICAL, *(f"{word}s" for word in _CANONICAL)}
# Words that change the number or its truth, and are no units.
_NOT_UNITS = {
    "and", "or", "not", "but", "maybe", "perhaps", "hundred", "thousand", "million", "billion",
    "trillion", "dozen", "half", "halves", "third", "thirds", "quarter", "quarters", "squared",
    "cubed", "pi", "times", "plus", "minus", "factorial", "too", "wrong", "percentage",
}  # fmt: skip
_NUMBER = r"[-+]?(?:[\d.,]+|[\d.]*\s*\\frac\{[^{}]*\}\{[^{}]*\}|\d+\s*/\s*\d+|\d*\\sqrt\{[^{}]*\})"
_EXPONENT = r"(?:\s*\^\s*\{?-?\d\}?)?"
_CURRENCY = re.compile(r"([-+]?)\s*(\\\$|€|£|¥)\s*([-+]?[\d.,]+)")
_PERCENT = re.compile(rf"({_NUMBER})\s*(?:\\?%|\x01\s*\\?%\s*\x02)")
_DEGREES = re.compile(
    rf"({_NUMBER}|\d*\\pi)\s*\^\s*\{{?\s*\\circ\s*\}}?\s*(?:\x01\s*([CF])\s*\x02)?"
)
_TEXT_UNIT = re.compile(rf"(.*?[^\s/])\s*((?:\s*/?\s*\x01[^\x01\x02]*\x02{_EXPONENT})+)")
_WORDS = r"(?:[a-zA-Z]+\s*/\s*)?[a-zA-Z]+(?:\s[a-zA-Z]+){0,2}"
_PLAIN_UNIT = re.compile(rf"({_NUMBER})(\s*)({_WORDS}{_EXPONENT})")


def split_unit(text: str) -> tuple[str, str] | None:
    """Return (value, unit) when `text` is a quantity, else None."""
    if match := _CURRENCY.fullmatch(text):
        return match[1] + match[3], match[2].replace("\\", "")
    if match := _PERCENT.fullmatch(text):
        return match[1], PERCENT
    if match := _DEGREES.fullmatch(text):
        return match[1], "deg" + (match[2] or "").lower()
    if match := _TEXT_UNIT.fullmatch(text):
        unit = TEXT.sub(lambda block: block[1], match[2])
        return (match[1], canonical_unit(unit)) if _may_be_unit(unit) else None
    if match := _PLAIN_UNIT.fullmatch(text):
        value, space, unit = match[1], match[2], match[3]
        if _is_plain_unit(unit, spaced=bool(space)):
            return value, canonical_unit(unit)
    return None


def _words(unit: str) -> list[str]:
    return re.findall(r"[a-z]+|[°%$]", unit.lower())


def _may_be_unit(unit: str) -> bool:
    words = _words(unit)
    return bool(words) and len(words) <= 3 and not _NOT_UNITS & set(words)


def _is_plain_unit(unit: str, *, spaced: bool) -> bool:
    """Letters beside a number are a product unless they are known, or long words apart from it."""
    words = _words(unit)
    if not _may_be_unit(unit):
        return False
    if all(word in _KNOWN and len(word) > 1 for word in words) or "/" in unit:
        return all(word in _KNOWN for word in words)
    return spaced and all(len(word) > 2 for word in words)


def canonical_unit(unit: str) -> str:
    """One spelling: "Kilometers / hour" and "km/h" are the same."""
    text = unit.lower().replace("square ", "sq").replace("cubic ", "cu")
    squared = {"sq": "^2", "cu": "^3"}
    text = re.sub(r"\b(sq|cu)\.?\s*([a-z]+)", lambda m: m[2] + squared[m[1]], text)
    text = re.sub(r"\bper\b", "/", text)
    text = re.sub(r"[a-z°%$]+", lambda match: _canonical_word(match[0]), text)
    return re.sub(r"[\s{}.]", "", text)


def _canonical_word(word: str) -> str:
    singular = word[:-1] if len(word) > 3 and word.endswith("s") else word
    return _CANONICAL.get(word) or _CANONICAL.get(singular) or singular
