"""English minimal pairs: two sentences that differ in one point of grammar, one of them wrong.

Fifteen phenomena in the spirit of BLiMP (Warstadt et al. 2020, arXiv 1912.00582), with templates
and word lists of our own, made of words that are common in novels.
"""

from __future__ import annotations

import random

from .draw import Make, Question, Rows, of_kinds

EACH = 20
PEOPLE = (
    ("boy", "boys"), ("girl", "girls"), ("soldier", "soldiers"), ("sailor", "sailors"),
    ("farmer", "farmers"), ("doctor", "doctors"), ("teacher", "teachers"), ("servant", "servants"),
    ("prisoner", "prisoners"), ("stranger", "strangers"), ("merchant", "merchants"),
    ("hunter", "hunters"), ("captain", "captains"), ("judge", "judges"), ("child", "children"),
    ("woman", "women"), ("gentleman", "gentlemen"), ("lady", "ladies"),
)  # fmt: skip
MEN = ("king", "prince", "father", "brother", "uncle", "gentleman", "boy", "husband", "son", "duke")
WOMEN = ("queen", "princess", "mother", "sister", "aunt", "lady", "girl", "wife", "daughter")
THINGS = (
    ("house", "houses"), ("letter", "letters"), ("horse", "horses"), ("garden", "gardens"),
    ("book", "books"), ("ship", "ships"), ("door", "doors"), ("window", "windows"),
    ("field", "fields"), ("key", "keys"), ("sword", "swords"), ("tree", "trees"),
)  # fmt: skip
ALONE = (
    ("sleeps", "sleep"), ("walks", "walk"), ("laughs", "laugh"), ("sings", "sing"),
    ("waits", "wait"), ("smiles", "smile"), ("works", "work"), ("sits", "sit"), ("lives", "live"),
)  # fmt: skip
PLACES = ("in the garden", "near the river", "in the house", "by the fire", "under the tree",
          "at the window", "in the village", "on the hill")  # fmt: skip
CARRIED = (
    ("letter", "letters"), ("book", "books"), ("key", "keys"), ("sword", "swords"),
    ("basket", "baskets"), ("ring", "rings"), ("hat", "hats"), ("lamp", "lamps"),
    ("picture", "pictures"), ("purse", "purses"), ("horse", "horses"), ("knife", "knives"),
)  # fmt: skip
# Base, past, participle: all three differ.
VERBS = (("see", "saw", "seen"), ("take", "took", "taken"), ("hide", "hid", "hidden"),
         ("steal", "stole", "stolen"), ("choose", "chose", "chosen"),
         ("forget", "forgot", "forgotten"))  # fmt: skip
MET = ("saw", "found", "left", "met", "heard", "followed")
VOWELS = (("old", "new"), ("ugly", "large"), ("empty", "small"), ("open", "dark"),
          ("iron", "wooden"), ("English", "French"), ("ancient", "beautiful"))  # fmt: skip
COMPARED = (("older", "old"), ("taller", "tall"), ("younger", "young"), ("richer", "rich"),
            ("stronger", "strong"), ("poorer", "poor"), ("wiser", "wise"))  # fmt: skip
CASES = (("him", "he"), ("her", "she"), ("them", "they"), ("me", "I"), ("us", "we"))
COUNTS = ("two", "three", "four", "five", "several", "many")


def _simple(rng: random.Random) -> Question:
    number, verb, place = rng.randrange(2), rng.choice(ALONE), rng.choice(PLACES)
    start = f"The {rng.choice(PEOPLE)[number]}"
    return "", f"{start} {verb[number]} {place}.", [f"{start} {verb[1 - number]} {place}."]


def _distant(rng: random.Random) -> Question:
    number, verb, place = rng.randrange(2), rng.choice(ALONE), rng.choice(PLACES)
    subject, other = rng.choice(PEOPLE)[number], rng.choice(CARRIED)[1 - number]
    start = f"The {subject} with the {other}"
    return "", f"{start} {verb[number]} {place}.", [f"{start} {verb[1 - number]} {place}."]


def _there(rng: random.Random) -> Question:
    number, thing, place = rng.randrange(2), rng.choice(PEOPLE), rng.choice(PLACES)
    noun = f"a {thing[0]}" if not number else f"{rng.choice(COUNTS)} {thing[1]}"
    be = ("was", "were")
    return "", f"There {be[number]} {noun} {place}.", [f"There {be[1 - number]} {noun} {place}."]


def _determiner(rng: random.Random) -> Question:
    number, thing = rng.randrange(2), rng.choice(THINGS)
    words = rng.choice((("this", "these"), ("that", "those")))
    start = f"The {rng.choice(PEOPLE)[0]} looked at {words[number]}"
    return "", f"{start} {thing[number]}.", [f"{start} {thing[1 - number]}."]


def _article(rng: random.Random) -> Question:
    vowel, words, thing = rng.randrange(2), rng.choice(VOWELS), rng.choice(THINGS)[0]
    start, word = f"The {rng.choice(PEOPLE)[0]} saw", words[1 - vowel]
    right, wrong = ("an", "a") if vowel else ("a", "an")
    return "", f"{start} {right} {word} {thing}.", [f"{start} {wrong} {word} {thing}."]


def _reflexive_gender(rng: random.Random) -> Question:
    man = rng.randrange(2)
    start = f"The {rng.choice((WOMEN, MEN)[man])} {rng.choice(('hurt', 'hid', 'blamed', 'saw'))}"
    end = rng.choice(("", " again", " at last", " in the dark"))
    words = ("herself", "himself")
    return "", f"{start} {words[man]}{end}.", [f"{start} {words[1 - man]}{end}."]


def _reflexive_number(rng: random.Random) -> Question:
    many = rng.randrange(2)
    who = f"The {rng.choice(PEOPLE)[1]}" if many else f"The {rng.choice(MEN)}"
    start = f"{who} threw"
    end = rng.choice(("on the ground", "into the water", "upon the bed", "at her feet"))
    words = ("himself", "themselves")
    return "", f"{start} {words[many]} {end}.", [f"{start} {words[1 - many]} {end}."]


def _polarity(rng: random.Random) -> Question:
    noun, thing = rng.choice(PEOPLE)[0], rng.choice(CARRIED)[0]
    end = f"has ever {rng.choice(VERBS)[2]} the {thing}."
    no, some = rng.choice((("No", "Some"), ("No", "Every")))
    return "", f"{no} {noun} {end}", [f"{some} {noun} {end}"]


def _participle(rng: random.Random) -> Question:
    verb, thing = rng.choice(VERBS), rng.choice(CARRIED)[0]
    start = f"The {rng.choice(PEOPLE)[0]} had"
    return "", f"{start} {verb[2]} the {thing}.", [f"{start} {verb[1]} the {thing}."]


def _modal(rng: random.Random) -> Question:
    verb, thing = rng.choice(VERBS), rng.choice(CARRIED)[0]
    start = f"The {rng.choice(PEOPLE)[0]} {rng.choice(('could', 'would', 'should', 'must'))} not"
    return "", f"{start} {verb[0]} the {thing}.", [f"{start} {verb[1]} the {thing}."]


def _question(rng: random.Random) -> Question:
    verb, thing = rng.choice(VERBS), rng.choice(CARRIED)[0]
    start = f"Did the {rng.choice(PEOPLE)[0]}"
    return "", f"{start} {verb[0]} the {thing}?", [f"{start} {verb[1]} the {thing}?"]


def _time(rng: random.Random) -> Question:
    future, verb, thing = rng.randrange(2), rng.choice(VERBS), rng.choice(CARRIED)[0]
    who = f"the {rng.choice(PEOPLE)[0]}"
    rest = f"{who} will {verb[0]} the {thing}" if future else f"{who} {verb[1]} the {thing}"
    days = ("yesterday", "tomorrow")
    rest = rest[0].upper() + rest[1:]
    return "", f"{rest} {days[future]}.", [f"{rest} {days[1 - future]}."]


def _case(rng: random.Random) -> Question:
    (right, wrong), verb = rng.choice(CASES), rng.choice(MET)
    start, place = f"The {rng.choice(PEOPLE)[0]} {verb}", rng.choice(PLACES)
    return "", f"{start} {right} {place}.", [f"{start} {wrong} {place}."]


def _comparison(rng: random.Random) -> Question:
    more, plain = rng.choice(COMPARED)
    first, second = rng.sample(PEOPLE, 2)
    start, end = f"The {first[0]} was", f"than the {second[0]}."
    return "", f"{start} {more} {end}", [f"{start} {plain} {end}"]


def _order(rng: random.Random) -> Question:
    word, thing = rng.choice(rng.choice(VOWELS)), rng.choice(CARRIED)[0]
    start = f"The {rng.choice(PEOPLE)[0]} {rng.choice(VERBS)[1]}"
    wrong = rng.choice((f"{word} the {thing}", f"the {thing} {word}"))
    return "", f"{start} the {word} {thing}.", [f"{start} {wrong}."]


PHENOMENA: dict[str, Make] = {
    "agreement": _simple,
    "agreement across a noun": _distant,
    "agreement behind there": _there,
    "determiner and noun": _determiner,
    "article": _article,
    "reflexive, gender": _reflexive_gender,
    "reflexive, number": _reflexive_number,
    "negative polarity": _polarity,
    "participle": _participle,
    "modal": _modal,
    "question": _question,
    "time": _time,
    "case": _case,
    "comparison": _comparison,
    "word order": _order,
}


def rows() -> Rows:
    """The same number of pairs of every phenomenon."""
    return of_kinds({kind: (make, EACH) for kind, make in PHENOMENA.items()}, "pairs")
