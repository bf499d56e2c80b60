"""A WordNet of two words, in WordNet's own database format (wndb(5)), as nltk reads it."""

from pathlib import Path

POS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
# lexnames(5WN), in the order of their numbers
LEXNAMES = """
adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact
noun.attribute noun.body noun.cognition noun.communication noun.event noun.feeling noun.food
noun.group noun.location noun.motive noun.object noun.person noun.phenomenon noun.plant
noun.possession noun.process noun.quantity noun.relation noun.shape noun.state noun.substance
noun.time verb.body verb.change verb.cognition verb.communication verb.competition verb.consumption
verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social
verb.stative verb.weather adj.ppl
"""


def write_tiny_wordnet(nltk_data: Path) -> None:
    """Write `corpora/wordnet` whose only synset is {car, auto}."""
    folder = nltk_data / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for name in POS:
        for file in (f"data.{name}", f"index.{name}", f"{name}.exc"):
            (folder / file).write_text("", encoding="utf-8")
    # offset, lexname's number, part of speech, words in hexadecimal, each with its sense; pointers
    (folder / "data.noun").write_text(
        "00000000 06 n 02 car 0 auto 0 000 | a motor vehicle  \n", encoding="utf-8"
    )
    (folder / "index.noun").write_text(
        "auto n 1 0 1 0 00000000  \ncar n 1 0 1 0 00000000  \n", encoding="utf-8"
    )
    (folder / "index.sense").write_text(
        "auto%1:06:00:: 00000000 1 0\ncar%1:06:00:: 00000000 1 0\n", encoding="utf-8"
    )
    number = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
    lines = [
        f"{i:02}\t{name}\t{number[name.split('.')[0]]}" for i, name in enumerate(LEXNAMES.split())
    ]
    (folder / "lexnames").write_text("\n".join(lines) + "\n", encoding="utf-8")
