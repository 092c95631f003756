"""The exact bytes that a model sees: against protocols.md and lm-evaluation-harness itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_eval.cli.setup import load_task
from qwen_eval.datasets import TaskData, open_data, take
from qwen_eval.errors import UserError
from qwen_eval.prompts import Renderer, prompts_digest
from qwen_eval.results import read_run, sample_record
from qwen_eval.taskspec import find_task
from qwen_eval.types import Item, Message, Prompt, Score
from tests.harness import toys

ROW = {"question": " What is 2+2? ", "subject": "us_law", "choices": ["3", "4", "5", "6"]}
TEST = [ROW | {"answer": 1}]
DEV = [ROW | {"question": f"Q{i}", "answer": i % 4} for i in range(6)]


def render(name: str, rows: dict[str, list[dict[str, Any]]] | None = None, **source: Any) -> Item:
    """The first item of a task under a recipe, over given rows."""
    spec, recipe = find_task(name)
    data = TaskData(spec, "mirror", **source)
    data._splits.update(rows or {})
    return Renderer(data, recipe).render(data.samples()[0])


# --- MMLU: protocols.md, "MMLU 5-shot" -------------------------------------------------------

FOUR = {"A": "一", "B": "二", "C": "三", "D": "四"}
HEADER = "The following are multiple choice questions (with answers) about us law.\n\n"
OPTIONS = "\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer:"


def test_mmlu_strict_is_lm_evals_text_with_five_shots() -> None:
    item = render("mmlu", {"test": TEST, "dev": DEV})
    shots = "".join(f"Q{i}{OPTIONS} {'ABCD'[i % 4]}\n\n" for i in range(5))
    assert item.prompt.full_text == HEADER + shots + "What is 2+2?" + OPTIONS
    assert item.prompt.prefix == HEADER + shots
    assert item.options == (" A", " B", " C", " D")
    assert (item.gold, item.target, item.prompt.max_tokens) == (1, "B", None)


def test_mmlu_qwen_says_question_keeps_spaces_and_cuts_at_2048() -> None:
    item = render("mmlu@qwen", {"test": TEST, "dev": DEV})
    shots = "".join(f"Question: Q{i}{OPTIONS} {'ABCD'[i % 4]}\n\n" for i in range(5))
    assert item.prompt.full_text == HEADER + shots + "Question:  What is 2+2? " + OPTIONS
    assert item.prompt.max_tokens == 2048


def test_mmlu_lm_eval_is_its_zero_shot_default() -> None:
    item = render("mmlu@lm-eval", {"test": TEST, "dev": DEV})
    assert item.prompt.full_text == HEADER + "What is 2+2?" + OPTIONS


@pytest.mark.slow
def test_mmlu_is_byte_equal_to_lm_evaluation_harness(mirror: Path) -> None:
    # Its own task files and its own few-shot code, over the mirror's rows.
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import apply_template

    spec, recipe = find_task("mmlu")
    data = open_data(spec, mirror)
    renderer = Renderer(data, recipe)
    manager = TaskManager()
    folder = Path(manager.task_index["mmlu_anatomy"].yaml_path).parent
    shared = (folder / "_default_template_yaml").read_text()
    template = yaml.safe_load(shared)
    by_subject = {sample.group: sample for sample in data.samples()}
    assert len(by_subject) == 57
    for subject, sample in by_subject.items():
        own = yaml.safe_load((folder / f"mmlu_{subject}.yaml").read_text())
        shots = [row for row in data.rows("dev") if row["subject"] == subject][:5]
        text = own["description"]
        for row in shots:
            answer = template["doc_to_choice"][row["answer"]]
            text += apply_template(template["doc_to_text"], row) + " " + answer + "\n\n"
        text += apply_template(template["doc_to_text"], dict(sample.row))
        assert renderer.render(sample).prompt.full_text == text
    assert template["fewshot_config"]["sampler"] == "first_n"


# --- GSM8K ----------------------------------------------------------------------------------

GSM = {"test": [{"question": "How many?", "answer": "1+1 = <<1+1=2>>2\n#### 2"}]}


def test_gsm8k_strict_is_lm_evals_eight_exemplars() -> None:
    import lm_eval

    file = Path(lm_eval.__path__[0]) / "tasks" / "gsm8k" / "gsm8k-cot.yaml"
    theirs = yaml.safe_load(file.read_text(encoding="utf-8"))
    shots = theirs["fewshot_config"]["samples"]
    assert len(shots) == 8
    assert theirs["doc_to_text"] == "Q: {{question}}\nA:"
    text = "".join(f"Q: {shot['question']}\nA: {shot['target']}\n\n" for shot in shots)
    for name in ("gsm8k", "gsm8k@lm-eval"):
        item = render(name, GSM)
        assert item.prompt.full_text == text + "Q: How many?\nA:"
        assert item.decoding.stop == tuple(theirs["generation_kwargs"]["until"])
    assert render("gsm8k@lm-eval", GSM).decoding.max_tokens == 256
    assert item.target == "2"


def test_gsm8k_qwen_is_the_released_prompt_file(mirror: Path) -> None:
    item = render("gsm8k@qwen", GSM, mirror=mirror)
    released = (mirror / "gsm8k" / "qwen_8shot.txt").read_text(encoding="utf-8")
    assert item.prompt.full_text == (released + "\nQuestion: How many?\nLet's think step by step\n")


def test_gsm8k_qwen_without_a_mirror_says_what_it_needs() -> None:
    with pytest.raises(UserError, match=r"qwen_8shot\.txt of a data mirror"):
        render("gsm8k@qwen", GSM)


# --- HumanEval ------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["strict", "qwen", "lm-eval"])
def test_humaneval_is_the_raw_prompt(recipe: str) -> None:
    spec, _ = find_task("humaneval")
    data = open_data(spec, None)
    renderer = Renderer(data, recipe)
    for sample in data.samples():
        assert renderer.render(sample).prompt.full_text == sample.row["prompt"]


def test_humaneval_lm_eval_stops_where_lm_eval_stops() -> None:
    import lm_eval

    folder = Path(lm_eval.__path__[0]) / "tasks" / "humaneval"
    text = (folder / "humaneval.yaml").read_text(encoding="utf-8")
    # `!function` tags are the harness's own; only plain values matter here.
    theirs = yaml.safe_load(text.replace("!function", ""))
    decoding = render(
        "humaneval@lm-eval", {"test": open_data(find_task("humaneval")[0], None).rows("test")}
    ).decoding
    assert list(decoding.stop) == theirs["generation_kwargs"]["until"]
    assert decoding.max_tokens == theirs["generation_kwargs"]["max_gen_toks"]


@pytest.mark.parametrize("recipe", ["chat", "qwen-chat"])
def test_a_humaneval_conversation_shows_the_whole_prompt(recipe: str) -> None:
    spec, _ = find_task("humaneval")
    data = open_data(spec, None)
    for sample in data.samples():
        item = Renderer(data, recipe).render(sample)
        *system, asked = item.prompt.messages
        assert asked.role == "user"
        assert sample.row["prompt"] in asked.content
        if recipe == "chat":
            assert not system
            continue
        # evaluate_chat_humaneval.py finds signature and description by these two patterns.
        name, prompt = sample.row["entry_point"], sample.row["prompt"]
        signature = re.search(rf"def\s+({name}.*?):\s*\n", prompt)
        described = re.search(r"(?:\"\"\"|''')(.*?)(?:\"\"\"|''')", prompt, re.DOTALL)
        assert signature
        assert described
        lines = "\n".join(line.strip() for line in described[1].split("\n"))
        begun = f"Write a Python function `{signature[1]}` to solve the following problem:\n"
        assert asked.content == f"{begun}{lines}\n{prompt}"
        assert system == [Message("system", "You are a helpful assistant.")]


# --- MBPP -----------------------------------------------------------------------------------


def test_mbpp_is_byte_equal_to_lm_evaluation_harness(mirror: Path) -> None:
    # Its task file and its exemplars; its utils.py cannot be imported without a network.
    import lm_eval
    from lm_eval.utils import apply_template

    folder = Path(lm_eval.__path__[0]) / "tasks" / "mbpp"
    theirs = yaml.safe_load((folder / "mbpp.yaml").read_text().replace("!function", ""))
    tree = ast.parse((folder / "utils.py").read_text())
    listed = next(n for n in tree.body if getattr(n, "name", "") == "list_fewshot_samples")
    assert isinstance(listed, ast.FunctionDef)
    assert isinstance(listed.body[0], ast.Return)
    assert listed.body[0].value is not None
    shots = ast.literal_eval(listed.body[0].value)
    assert len(shots) == theirs["num_fewshot"] == 3
    begun = "".join(
        apply_template(theirs["doc_to_text"], shot)
        + theirs["target_delimiter"]
        + apply_template(theirs["doc_to_target"], shot)
        + "\n\n"
        for shot in shots
    )
    for recipe in ("strict", "qwen", "lm-eval", "qwen-0shot"):
        data = open_data(find_task("mbpp")[0], mirror)
        renderer, shown = Renderer(data, recipe), "" if recipe == "qwen-0shot" else begun
        assert [sample.row["task_id"] for sample in data.samples()] == list(range(11, 511))
        for sample in data.samples()[::50]:
            item = renderer.render(sample)
            asked = apply_template(theirs["doc_to_text"], dict(sample.row))
            assert item.prompt.full_text == shown + asked
            assert item.prompt.prefix == shown
            assert list(item.decoding.stop) == theirs["generation_kwargs"]["until"]


def test_mbpp_conversations_show_all_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWEN_EVAL_DATA", raising=False)
    data = open_data(find_task("mbpp")[0], None, hub=False)
    assert data.kind == "sample"
    for sample in data.samples():
        (asked,) = Renderer(data, "chat").render(sample).prompt.messages
        assert sample.row["text"] in asked.content
        assert all(test in asked.content for test in sample.row["test_list"])


# --- chats with exemplars --------------------------------------------------------------------


def test_exemplars_of_a_chat_are_turns() -> None:
    item = render("mmlu@chat-5shot", {"test": TEST, "dev": DEV})
    turns = [("user", f"Q{i}{OPTIONS}") for i in range(5)]
    answers = [("assistant", "ABCD"[i % 4]) for i in range(5)]
    wanted = [turn for pair in zip(turns, answers, strict=True) for turn in pair]
    wanted.append(("user", "What is 2+2?" + OPTIONS))
    assert [(m.role, m.content) for m in item.prompt.messages] == wanted
    assert (item.options, item.gold) == (("3", "4", "5", "6"), 1)


def test_the_released_chat_scripts_questions() -> None:
    (turn,) = render("mmlu@qwen-chat", {"test": TEST}).prompt.messages
    assert turn.content == (
        "The following is a multiple-choice question. Please choose the most suitable one among "
        "A, B, C and D as the answer to this question.\n\n What is 2+2? \nA. 3\nB. 4\nC. 5\nD. 6\n"
    )
    row = {"question": "几？", "subject": "law", "answer": "B"} | FOUR
    (turn,) = render("ceval@qwen-chat", {"test": [row]}).prompt.messages
    assert turn.content == "几？\n\nA. 一\nB. 二\nC. 三\nD. 四\n"


def test_ceval_has_its_two_seams() -> None:
    """protocols.md: the released script puts neither header nor space, the harness both."""
    rows = [
        {"question": f"第{i}题", "subject": "law", "answer": "ABCD"[i % 4]} | FOUR for i in range(6)
    ]
    options = "\nA. 一\nB. 二\nC. 三\nD. 四\n答案："
    qwen = render("ceval@qwen", {"test": rows[5:], "dev": rows[:5]})
    shots = "".join(f"问题：第{i}题{options}{'ABCD'[i % 4]}\n\n" for i in range(5))
    assert qwen.prompt.full_text == shots + "问题：第5题" + options
    assert qwen.options == ("A", "B", "C", "D")
    strict = render("ceval", {"test": rows[5:], "dev": rows[:5]})
    header = "以下是中国关于法学的单项选择题，请选出其中的正确答案。\n\n"
    shots = "".join(f"第{i}题{options} {'ABCD'[i % 4]}\n\n" for i in range(5))
    assert strict.prompt.full_text == header + shots + "第5题" + options
    assert strict.options == (" A", " B", " C", " D")


# --- what holds for all ----------------------------------------------------------------------


def test_a_row_without_a_column_is_named() -> None:
    item = render("mmlu", {"test": [{"question": "x", "subject": "s", "answer": 0}], "dev": DEV})
    assert item.fault == "'choices' is undefined"


def test_too_few_exemplars_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 3 exemplars for us_law, 5 are needed"):
        render("mmlu", {"test": TEST, "dev": DEV[:3]}, mirror=tmp_path)


def test_a_gold_outside_the_options_is_named() -> None:
    item = render("mmlu@lm-eval", {"test": [TEST[0] | {"answer": 4}]})
    assert item.fault == "gold 4 is no option"


def test_a_task_of_which_no_row_can_be_asked_is_refused() -> None:
    rows = [TEST[0] | {"answer": 4}, TEST[0] | {"answer": 5}]
    spec, _ = find_task("mmlu")
    data = TaskData(spec, "given", _splits={"test": rows})
    with pytest.raises(UserError, match=r"mmlu@lm-eval, sample \w+: gold 4 is no option"):
        load_task(data, "lm-eval")
    rows.append(TEST[0])
    faults = [item.fault for item in load_task(data, "lm-eval").items]
    assert faults == ["gold 4 is no option", "gold 5 is no option", ""]


def test_braces_in_a_question_are_text() -> None:
    row = TEST[0] | {"question": "What does {{ 7*7 }} print? {% raw %}"}
    item = render("mmlu@lm-eval", {"test": [row]})
    assert "{{ 7*7 }} print? {% raw %}" in item.prompt.text


def test_the_prompts_digest_sees_every_byte_and_no_order(mirror: Path) -> None:
    spec, recipe = find_task("mmlu")
    data = open_data(spec, mirror)
    renderer = Renderer(data, recipe)
    items = [renderer.render(sample) for sample in take(data.samples(), 50)]
    digest = prompts_digest(items)
    assert prompts_digest(items[::-1]) == digest
    assert prompts_digest(items[1:]) != digest
    other = Renderer(data, "qwen")
    assert prompts_digest([other.render(item.sample) for item in items]) != digest


def test_digests_and_records_are_those_of_the_baseline() -> None:
    """A prompt that is no conversation is hashed and kept as it was before there were any."""
    run = read_run(Path(__file__).parents[1] / "gate" / "baseline")
    texts = {(r.task, r.id): (r.prefix, r.text, r.target) for r in run.samples}
    seen = 0
    for name, info in run.info.tasks.items():
        spec, recipe = find_task(name)
        if info.data_kind != "own":
            continue
        renderer = Renderer(open_data(spec, None), recipe)
        items = [renderer.render(sample) for sample in take(renderer.data.samples(), info.selected)]
        assert (prompts_digest(items), renderer.data.digest()) == (
            info.prompts_digest,
            info.data_digest,
        )
        for item in items:
            record = sample_record(item, [], Score({}), None)
            assert (record.prefix, record.text, record.target) == texts[name, record.id]
            seen += 1
    assert seen > 500


def test_the_digest_sees_every_turn_of_a_conversation() -> None:
    def digest(*turns: Message) -> str:
        return prompts_digest([toys.item(1, prompt=Prompt(messages=turns))])

    system, user = Message("system", "x"), Message("user", "y")
    others = [(user,), (user, system), (Message("system", "y"), user), (system, Message("u", "y"))]
    assert len({digest(system, user), digest(), *(digest(*turns) for turns in others)}) == 6
    assert digest(system, user) == digest(system, user)


def test_a_prompt_does_not_depend_on_the_limit(mirror: Path) -> None:
    spec, recipe = find_task("gsm8k")
    data = open_data(spec, mirror)
    few = {s.id: Renderer(data, recipe).render(s).prompt for s in take(data.samples(), 5)}
    many = {s.id: Renderer(data, recipe).render(s).prompt for s in take(data.samples(), 20)}
    assert few.items() <= many.items()
