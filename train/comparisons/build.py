"""From prompts to comparisons, step by step: tag, choose, answer, score, pair.

Every reply of a model is kept as it comes (see replies), so a build that was stopped goes on with
the same command, and ends in the same files. Knows nothing of backends: models are handed in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import text_hash, write_atomic
from qwen_eval.types import Decoding, GenerateRequest, Message
from qwen_eval.types import Prompt as Asked

from ..replies import Model, Replies
from .pairs import Answer, Comparison, distinct, pairs_of
from .prompts import Prompt
from .scoring import Scorer
from .selection import select
from .tags import frequent, read_tags, tagging, tags_by_rules

LEAST_SOURCES = 3
ANSWERS, COMPARISONS, SUMMARY = "answers.jsonl", "comparisons.jsonl", "summary.json"


@dataclass(frozen=True)
class Source:
    """A model with a sampler. name: such as `smollm2@0.7`."""

    name: str
    model: Model
    temperature: float
    top_p: float = 1.0


@dataclass(frozen=True)
class Settings:
    """prompts: how many are answered. least: prompts that a tag must stand at. most_pairs: of one
    prompt, None for all. max_tokens: of an answer."""

    prompts: int
    least: int = 1
    most_pairs: int | None = None
    max_tokens: int = 512
    seed: int = 0


@dataclass
class Build:
    """What the steps make, and what they count on the way.

    tags: of all prompts, in their order; chosen: of those that are answered, by id. counts: what
    was dropped and why. say: told of every step before it begins.
    """

    out: Path
    replies: Replies
    settings: Settings
    say: Callable[[str], None]
    tags: list[frozenset[str]] = field(default_factory=list)
    chosen: dict[str, Prompt] = field(default_factory=dict)
    tags_of: dict[str, frozenset[str]] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def choose(self, prompts: Sequence[Prompt], tagger: Model | None) -> None:
        """Tag the prompts and draw those to be answered. Raises UserError where none has a tag."""
        self.say(f"tagging {len(prompts):,} prompts")
        if tagger is None:
            found = [tags_by_rules(prompt) for prompt in prompts]
        else:
            replies = self.replies.of(tagger, [tagging(prompt) for prompt in prompts])
            tagger.close()
            found = [read_tags(reply.text) if reply else frozenset() for reply in replies]
        self.tags = frequent(found, self.settings.least)
        self.counts["prompts without a tag"] = sum(not of_prompt for of_prompt in self.tags)
        places = select(self.tags, self.settings.prompts, self.settings.seed)
        if not places:
            raise UserError("no prompt has a tag: ask another --tagger, or none for plain rules")
        self.chosen = {prompts[place].id: prompts[place] for place in places}
        self.tags_of = {prompts[place].id: self.tags[place] for place in places}

    def answer(self, sources: Sequence[Source]) -> None:
        """Let every source answer every prompt that was drawn. Answers that are equal, empty or to
        a cut prompt are left out. Raises UserError for fewer than three sources."""
        if len(sources) < LEAST_SOURCES:
            raise UserError(
                f"{len(sources)} models × samplers: name at least {LEAST_SOURCES} with --models "
                "and --temperatures"
            )
        for name, of_model in _by_model(sources).items():
            self.say(f"{name}: answering {len(self.chosen):,} prompts, {len(of_model)} samplers")
            asked = [(source, prompt) for source in of_model for prompt in self.chosen.values()]
            requests = [self._request(source, prompt) for source, prompt in asked]
            model = of_model[0].model
            for (source, prompt), reply in zip(
                asked, self.replies.of(model, requests), strict=True
            ):
                if reply is None:
                    self.counts["answers that failed"] += 1
                elif reply.cut:
                    self.counts["answers to a prompt that is longer than the context"] += 1
                elif not reply.text.strip():
                    self.counts["answers that are empty"] += 1
                else:
                    self.counts["answers that were cut at the limit"] += not reply.ended
                    self.answers.append(Answer(prompt.id, source.name, reply.text))
            model.close()
        every = len(self.answers)
        self.answers = distinct(self.answers)
        self.counts["answers equal to another of the same prompt"] = every - len(self.answers)

    def _request(self, source: Source, prompt: Prompt) -> GenerateRequest:
        seed = int(text_hash(f"{self.settings.seed} {source.name} {prompt.id}", 7), 16)
        decoding = Decoding(
            self.settings.max_tokens,
            temperature=source.temperature,
            top_p=source.top_p,
            seed=seed,
        )
        messages = tuple(Message(*turn) for turn in prompt.turns)
        return GenerateRequest(Asked(messages=messages), decoding)

    def score(self, scorer: Scorer, judge: Model) -> None:
        """Give every answer the number that the judge says of it."""
        self.say(f"scoring {len(self.answers):,} answers")
        requests = [scorer.request(self.chosen[a.prompt], a) for a in self.answers]
        replies = self.replies.of(judge, requests)
        judge.close()
        # Of a cut conversation a judge has not seen all.
        told = [scorer.read(reply.text) if reply and not reply.cut else None for reply in replies]
        self._take(told)

    def score_by(self, scores: Mapping[str, float]) -> None:
        """Give every answer the score that stands under its id. Raises UserError if none does."""
        told = [scores.get(answer.id) for answer in self.answers]
        if scores and not any(score is not None for score in told):
            raise UserError(f"--scores: none of its ids is one of {self.out / ANSWERS}")
        self._take(told)

    def _take(self, told: Iterable[float | None]) -> None:
        self.answers = [
            replace(answer, score=score) for answer, score in zip(self.answers, told, strict=True)
        ]
        self.counts["answers without a score"] = sum(a.score is None for a in self.answers)

    def write_answers(self) -> Path:
        """The answers in the order of prompts, with the scores that there are."""
        lines = [
            {
                "id": answer.id,
                "messages": _messages(prompt),
                "answer": answer.text,
                "source": answer.source,
                "score": answer.score,
            }
            for prompt, answer in self._by_prompt()
        ]
        return _write(self.out / ANSWERS, lines)

    def pair(self) -> dict[str, Any]:
        """Write the comparisons and the summary, which is given back."""
        pairs: list[Comparison] = []
        of_prompt: dict[str, list[Answer]] = {}
        for _, answer in self._by_prompt():
            of_prompt.setdefault(answer.prompt, []).append(answer)
        for answers in of_prompt.values():
            found, ties = pairs_of(answers, self.settings.most_pairs, self.settings.seed)
            pairs += found
            self.counts["pairs that are ties"] += ties
        _write(self.out / COMPARISONS, map(self._row, pairs))
        summary = self._summary(pairs)
        text = json.dumps(summary, ensure_ascii=False, indent=1)
        write_atomic(self.out / SUMMARY, text + "\n")
        return summary

    def _by_prompt(self) -> list[tuple[Prompt, Answer]]:
        order = {name: place for place, name in enumerate(self.chosen)}
        ranked = sorted(self.answers, key=lambda a: (order[a.prompt], a.source))
        return [(self.chosen[answer.prompt], answer) for answer in ranked]

    def _row(self, pair: Comparison) -> dict[str, Any]:
        prompt = self.chosen[pair.chosen.prompt]
        return {
            "messages": _messages(prompt),
            "chosen": pair.chosen.text,
            "rejected": pair.rejected.text,
            "margin": pair.margin,
            "tags": sorted(self.tags_of[prompt.id]),
            "sources": [pair.chosen.source, pair.rejected.source],
        }

    def _summary(self, pairs: Sequence[Comparison]) -> dict[str, Any]:
        before = Counter(tag for of_prompt in self.tags for tag in of_prompt)
        after = Counter(tag for of_prompt in self.tags_of.values() for tag in of_prompt)
        sources: dict[str, dict[str, Any]] = {}
        for name in sorted({answer.source for answer in self.answers}):
            mine = [answer for answer in self.answers if answer.source == name]
            scores = [answer.score for answer in mine if answer.score is not None]
            sources[name] = {
                "answers": len(mine),
                "mean score": sum(scores) / len(scores) if scores else None,
                "preferred": sum(pair.chosen.source == name for pair in pairs),
                "rejected": sum(pair.rejected.source == name for pair in pairs),
            }
        return {
            "prompts": {"read": len(self.tags), "chosen": len(self.chosen)},
            "tags": {
                tag: {"before": before[tag], "after": after[tag]}
                for tag in sorted(before, key=lambda tag: (-before[tag], tag))
            },
            "tags a prompt": {
                "before": before.total() / len(self.tags),
                "after": after.total() / len(self.chosen),
            },
            "sources": sources,
            "pairs": len(pairs),
            "left out": {reason: count for reason, count in self.counts.items() if count},
            "failed requests": self.replies.failed,
        }


def _by_model(sources: Sequence[Source]) -> dict[str, list[Source]]:
    found: dict[str, list[Source]] = {}
    for source in sources:
        found.setdefault(source.model.identity, []).append(source)
    return found


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in prompt.turns]


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path
