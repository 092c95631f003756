"""Every sentence of the pages, in English and Chinese."""

from __future__ import annotations

import logging
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: dict[Language, str] = {"zh": "中文", "en": "English"}

_WORDS: dict[str, tuple[str, str]] = {
    "title": ("Which answer is better?", "哪个回答更好？"),
    "language": ("Language", "语言"),
    "hello": ("Signed in as {name}", "当前用户：{name}"),
    "done_of": ("{done} of {total} compared", "已完成 {done} / {total}"),
    "instruction": ("Instruction", "指令"),
    "points": ("What a good answer holds", "好的回答应当做到"),
    "right_answer": ("The right result: {answer}", "正确结果：{answer}"),
    "answer_a": ("Answer A", "回答 A"),
    "answer_b": ("Answer B", "回答 B"),
    "empty": ("(no answer)", "（没有回答）"),
    "choice_-2": ("A much better", "A 好得多"),
    "choice_-1": ("A slightly better", "A 略好"),
    "choice_0": ("Tie", "不相上下"),
    "choice_1": ("B slightly better", "B 略好"),
    "choice_2": ("B much better", "B 好得多"),
    "both_bad": ("Both are bad", "两个都不好"),
    "tags": ("What is wrong with them", "问题标签"),
    "tag_factual": ("Factual error", "事实错误"),
    "tag_instructions": ("Instruction not followed", "不遵循指令"),
    "tag_language": ("Unnatural language", "语言不自然"),
    "tag_unsafe": ("Unsafe", "不安全"),
    "tag_format": ("Format", "格式问题"),
    "comment": ("Comment", "备注"),
    "comment_hint": ("Optional", "可不填"),
    "skip": ("Skip", "跳过"),
    "skip_why": ("Why do you skip it?", "为什么跳过？"),
    "skip_unclear": ("The instruction is unclear", "指令不清楚"),
    "skip_unable": ("I cannot judge this topic", "不熟悉该领域，无法判断"),
    "skip_broken": ("An answer cannot be read", "回答显示有问题"),
    "skip_known": ("I know who wrote an answer", "看得出回答的来源"),
    "back": ("Go on comparing", "返回继续"),
    "undo": ("Undo", "撤销"),
    "advice": (
        "Judge helpfulness, information and correctness; order and length do not matter.",
        "请看是否有用、充实、正确；先后与长短不是依据。",
    ),
    "outcome_early": (
        "That was faster than anyone reads. Please read both answers first.",
        "太快了，请先读完两个回答。",
    ),
    "outcome_already": ("This pair was voted on already.", "这一题已经提交过了。"),
    "outcome_not yours": ("This pair is not yours any more.", "这一题已不属于你。"),
    "outcome_paused": ("The study is paused; nothing was kept.", "研究已暂停，本次未提交。"),
    "outcome_closed": ("The study is closed; nothing was kept.", "研究已结束，本次未提交。"),
    "undone": ("Your last vote was taken back.", "已撤销上一次选择。"),
    "nothing_to_undo": ("There is nothing to take back.", "没有可以撤销的选择。"),
    "trouble": ("This could not be kept. Please press again.", "没有保存成功，请再按一次。"),
    "unreachable": (
        "The study cannot be reached now. Please try again soon.",
        "暂时无法读取研究，请稍后再试。",
    ),
    "not_allowed": (
        "You may not do this any more; nothing was changed. Load the page again.",
        "你已无权进行此操作，没有任何更改。请刷新页面。",
    ),
    "idle_finished": (
        "You have compared everything there is for you. Thank you!",
        "全部完成，感谢你的参与！",
    ),
    "idle_paused": ("The study is paused. Come back later.", "研究已暂停，请稍后再来。"),
    "idle_closed": ("The study is closed. Thank you!", "研究已结束，感谢你的参与！"),
    "idle_gone": ("You are no longer part of this study.", "你已不在本研究中。"),
    "again": ("Look again", "刷新"),
    "sign_in": (
        "Open the link of your invitation to come in. A link is good for one time; ask the owner "
        "of the study for a new one.",
        "请打开你的邀请链接进入。每个链接只能使用一次；如已失效，请向研究负责人索取新的链接。",
    ),
    "log_in": ("Log in", "登录"),
    "stranger": (
        "This address is not on the list of the study. Ask its owner.",
        "该地址不在本研究的名单中，请联系负责人。",
    ),
    "sign_out": ("Sign out", "退出"),
    "join_title": ("Take part in the comparison", "参加对比标注"),
    "join_text": (
        "Two answers to one instruction stand side by side. You say which is better; who wrote "
        "them stays hidden. The link is used up when you press the button.",
        "同一条指令的两个回答会并排显示，请选择更好的一个；回答的来源始终隐藏。"
        "按下按钮后，本链接即失效。",
    ),
    "join_button": ("Begin", "开始"),
    "join_known": ("You are signed in as {name} already.", "你已登录为 {name}。"),
    "join_go_on": ("Go on as you are", "继续使用当前身份"),
    "join_instead": ("Sign in by this invitation instead", "改用此邀请登录"),
    "join_elsewhere": (
        "This was sent from another page. Open the link of your invitation and press its button.",
        "请求来自其他页面。请打开你的邀请链接，并按页面上的按钮。",
    ),
    "page_compare": ("Compare", "标注"),
    "page_progress": ("Progress", "进度"),
    "page_disputes": ("Disputes", "争议裁决"),
    "page_results": ("Results", "结果"),
    "state": ("State", "状态"),
    "state_open": ("open", "进行中"),
    "state_paused": ("paused", "已暂停"),
    "state_closed": ("closed", "已结束"),
    "state_unblinded": ("unblinded", "已揭盲"),
    "votes": ("Votes", "票数"),
    "pairs_done": ("Pairs complete", "已完成的题目"),
    "by_category": ("By category", "按类别"),
    "category": ("Category", "类别"),
    "category_knowledge": ("knowledge", "知识"),
    "category_understanding": ("language understanding", "语言理解"),
    "category_writing": ("creative writing", "创意写作"),
    "category_mathematics": ("mathematics", "数学"),
    "category_coding": ("coding", "编程"),
    "wanted": ("Wanted", "目标"),
    "share": ("Share", "进度"),
    "people": ("Annotators", "标注员"),
    "name": ("Name", "姓名"),
    "role": ("Role", "角色"),
    "role_annotator": ("annotator", "标注员"),
    "role_viewer": ("viewer", "查看者"),
    "role_owner": ("owner", "负责人"),
    "skipped": ("Skipped", "跳过"),
    "fast": ("Too fast", "过快"),
    "seconds": ("Median seconds", "用时中位数（秒）"),
    "gold": ("Attention", "注意力检查"),
    "repeats": ("Repeated alike", "重复一致"),
    "last": ("Last vote", "最近一次"),
    "agreement": ("Agreement so far", "目前的一致性"),
    "alpha_nominal": ("Alpha, win/tie/lose", "Alpha（胜/平/负）"),
    "alpha_ordinal": ("Alpha, five steps", "Alpha（五级）"),
    "left_preferred": ("Left side preferred", "偏好左侧"),
    "no_agreement": ("Not yet: no pair has two votes.", "尚无两人标注过同一题。"),
    "agreement_note": (
        "1 is perfect, 0 is chance. Shares by system are hidden until the study is unblinded, so "
        "that nobody stops it when the figures please.",
        "1 为完全一致，0 为随机。各系统的结果在揭盲前不显示，以免在结果“好看”时提前结束。",
    ),
    "pause": ("Pause", "暂停"),
    "resume": ("Go on", "继续"),
    "close": ("Close for good", "结束研究"),
    "close_sure": (
        "Nobody can vote after this, and it cannot be taken back.",
        "结束后不能再投票，且无法恢复。",
    ),
    "unblind": ("Unblind", "揭盲"),
    "unblind_sure": (
        "Shows which system is which, and is written to the log.",
        "将显示各系统名称，并记入日志。",
    ),
    "sure": ("Yes, do it", "确认"),
    "still_blind": (
        "Results are shown when the study is closed and unblinded.",
        "研究结束并揭盲后才显示结果。",
    ),
    "disputes_none": ("Votes contradict each other nowhere.", "没有互相矛盾的投票。"),
    "disputes_left": ("{left} of {all} not decided yet", "共 {all} 题有争议，{left} 题未裁决"),
    "dispute": ("Dispute", "争议题"),
    "dispute_votes": ("Votes: {votes}", "投票：{votes}"),
    "decided": ("Decided: {choice}", "裁决：{choice}"),
    "dispute_note": (
        "A decision stands beside the votes in the export and is none of them.",
        "裁决单独记录，不计入投票。",
    ),
    "tables_in": ("The text and tables below are in English.", "以下文字与表格为英文。"),
    "export": ("Export", "导出"),
    "export_blind": ("Votes without systems (JSON lines)", "不含系统名的投票（JSONL）"),
    "export_events": ("Log of events (JSON lines)", "事件日志（JSONL）"),
    "export_votes": ("Votes (CSV)", "投票（CSV）"),
    "export_figure": ("Figure (SVG)", "图（SVG）"),
}


_LOG = logging.getLogger(__name__)


def say(key: str, language: Language, **values: object) -> str:
    """A sentence, with its blanks filled in; values that it has no blank for are left out."""
    text = _WORDS[key][language == "zh"]
    return text.format(**values) if values else text


def trouble(key: str, language: Language, error: Exception, *, owner: bool) -> str:
    """A sentence on what could not be done. The error's own words may hold paths of the server:
    they go to its log, and are shown to an owner alone."""
    _LOG.error("%s: %s", key, error)
    # The sentence says so already.
    why = str(error).removesuffix("; nothing was changed")
    return f"{say(key, language)} ({why})" if owner else say(key, language)


def category(name: str, language: Language) -> str:
    """A category's name where it is one of ours, else as it is."""
    key = f"category_{name}"
    return say(key, language) if key in _WORDS else name
