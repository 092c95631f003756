"""Tags of prompts: what they ask for, in how many ways at once.

The paper tags its prompts with about 6,600 tags after InsTag (Lu et al. 2023, arXiv 2308.07074),
whose tagger is a model. Here any model can be asked. Where none is, `tags_by_rules` names what
words alone can tell: language, task, length, constraints and domain. These are about fifty tags,
written for this project in Chinese and English; a prompt that they know nothing of keeps `other`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence, Set
from typing import Any

from qwen_eval.types import Decoding, GenerateRequest, Message
from qwen_eval.types import Prompt as Asked

from ..data.language import identify
from .prompts import Prompt

TAGGER_TOKENS = 256
LONGEST_TAG = 60
_TAGGER = """\
Below is what somebody asks of an assistant. Name everything that it takes to answer well: the \
kind of task, the subject, the constraints that are set, the skills needed. Each tag is one to \
four English words in lower case, such as "code generation", "tax law" or "word limit". Do not \
answer the request.

Request:
{asked}

Reply with a JSON list only, such as [{{"tag": "...", "explanation": "..."}}]."""
# Short and long prompts, in letters; one of Chinese counts as four.
SHORT, LONG = 80, 800

# Words at the beginning of an English word, or anywhere in Chinese.
_RULES: dict[str, tuple[str, str]] = {
    "task: code": (
        r"```|python|java(?:script)?\b|c\+\+|sql\b|regex|debug|def \w+\(|program(?:s|ming)?\b"
        r"|source code|algorithm|unit test",
        "代码|编程|程序|函数|算法|调试",
    ),
    "task: mathematics": (
        r"calculat|solve\b|equation|how many|how much|percent|probability|integral"
        r"|\d\s*[+*/=]\s*\d",
        "计算|方程|多少|概率|求解|百分之|几个",
    ),
    "task: translation": (r"translat", "翻译|译成|译为"),
    "task: summary": (r"summar|tl;dr|main points|key points|in short", "总结|概括|摘要|归纳|要点"),
    "task: rewriting": (
        r"rewrit|rephras|paraphras|proofread|improve (?:the|this|my)|correct the|edit (?:the|this)",
        "改写|润色|修改|改成|纠正",
    ),
    "task: classification": (
        r"classif|categori[sz]|which of (?:these|the following)|sentiment|true or false",
        "分类|归类|属于哪|情感|判断.{0,8}是否",
    ),
    "task: extraction": (r"extract|identify (?:all|the)|find all", "提取|抽取|找出|识别"),
    "task: writing": (
        r"write (?:an?|the|me)|draft|compose|essay|story|poem|letter|e-?mail|song|speech|article",
        "写一|撰写|作文|故事|诗|信件|邮件|文案|文章|演讲",
    ),
    "task: ideas": (
        r"brainstorm|suggest|ideas? for|come up with|recommend|names? for",
        "建议|推荐|想法|点子|起名|创意",
    ),
    "task: explanation": (
        r"explain|why (?:do|does|is|are|did|was)|how (?:do|does|did|is|are|can)"
        r"|what (?:is|are|does)",
        "解释|为什么|如何|怎么|怎样|什么是|是什么|说明",
    ),
    "task: comparison": (
        r"compar|difference between|versus|\bvs\b|pros and cons",
        "比较|区别|对比|优缺点",
    ),
    "task: planning": (
        r"\bplan\b|itinerary|schedule|step[- ]by[- ]step|steps to",
        "计划|规划|方案|行程|步骤",
    ),
    "task: role play": (
        r"act as|pretend|role[- ]?play|you are (?:an?|the)\b",
        "扮演|假装|假设你|你是一",
    ),
    "task: reasoning": (r"logic|puzzle|riddle|deduc|infer|prove\b|proof", "推理|逻辑|谜|证明|推断"),
    "constraint: number of words": (
        r"\d+[- ](?:words?|sentences?|characters?|paragraphs?|lines?)\b"
        r"|(?:one|two|three|four|five) (?:words?|sentences?|paragraphs?|lines?)\b",
        r"\d+\s*(?:个)?(?:字|句|段|行)|[一二三四五]句话|字数",
    ),
    "constraint: number of items": (
        r"(?:\d+|two|three|four|five|six|seven|eight|nine|ten) (?:\w+ )?"
        r"(?:examples?|ideas?|reasons?|ways|tips|items?|things|names|questions|points)\b",
        r"[\d一二三四五六七八九十]+[个条种点](?:例子|建议|理由|原因|方法|问题|要点)",
    ),
    "constraint: format": (
        r"\bjson\b|\bxml\b|\bcsv\b|markdown|bullet|table\b|\blist\b|in the form|format",
        "表格|列表|格式|列出|清单|分点",
    ),
    "constraint: style": (
        r"\btone\b|formal|polite|funny|humou?r|professional|in the style|casual|persuasive",
        "语气|正式|礼貌|幽默|风格|口语|专业的",
    ),
    "constraint: audience": (
        r"(?:for|to) (?:an? )?(?:child|kid|beginner|student|layman|\d+[- ]year)|eli5",
        "给.{0,6}(?:孩子|小学生|学生|初学者)|通俗",
    ),
    "constraint: exclusion": (
        r"without|do not|don't|avoid|must not|except|no more than",
        "不要|不能|不得|避免|不超过|除了|禁止",
    ),
    "constraint: answer's language": (
        r"(?:answer|reply|respond|write) in (?:english|chinese|french|spanish|german)",
        "用(?:英文|英语|中文|法语|日语)",
    ),
    "constraint: given text": (
        r"(?:following|given|this|above) "
        r"(?:text|passage|paragraph|article|sentence|context|document)",
        "(?:下面|以下|这段|上述|给定)的?(?:文本|文章|段落|句子|材料|内容)|这段话",
    ),
    "domain: computing": (
        r"computer|software|internet|website|database|linux|server|cyber",
        "计算机|软件|互联网|网站|数据库|服务器",
    ),
    "domain: science": (
        r"physic|chemi|biolog|atom|molecul|planet|gravity|species|\bdna\b|evolution",
        "物理|化学|生物|原子|分子|行星|引力|物种|进化",
    ),
    "domain: medicine": (
        r"medic|disease|symptom|doctor|patient|therap|vaccin|diagnos",
        "医学|疾病|症状|医生|患者|治疗|疫苗|诊断|药",
    ),
    "domain: health and sport": (
        r"health|diet|exercise|workout|fitness|sleep|sport|football|basketball|tennis|olympic",
        "健康|饮食|锻炼|健身|睡眠|运动|足球|篮球|比赛",
    ),
    "domain: law": (
        r"\blaw\b|legal|contract|court|lawsuit|copyright|regulation",
        "法律|合同|法院|诉讼|版权|法规",
    ),
    "domain: money": (
        r"financ|invest|\bstock|\btax|budget|\bbank|loan|econom|market|price",
        "金融|投资|股票|税|预算|银行|贷款|经济|市场|价格",
    ),
    "domain: work": (
        r"resume|\bcv\b|interview|colleague|career|manager|employee|business|customer|meeting",
        "简历|面试|同事|职业|经理|员工|公司|客户|会议",
    ),
    "domain: education": (
        r"school|teach|universit|exam\b|homework|lesson|course",
        "学校|老师|教学|大学|考试|作业|课程",
    ),
    "domain: history": (
        r"histor|\bwar\b|empire|century|ancient|dynasty|revolution",
        "历史|战争|帝国|世纪|古代|王朝|朝代|革命",
    ),
    "domain: places": (
        r"travel|trip\b|touris|hotel|flight|countr|capital of|\bcity\b|island",
        "旅行|旅游|酒店|航班|国家|首都|城市|岛",
    ),
    "domain: food": (
        r"recipe|cook|\bfood|ingredient|restaurant|\bmeal|bake",
        "食谱|烹饪|食物|做菜|餐厅|美食|菜",
    ),
    "domain: arts": (
        r"movie|film|music|\bsong|painting|novel|author|actor|\bband\b|\bart\b|game",
        "电影|音乐|歌曲|绘画|小说|作者|演员|艺术|游戏",
    ),
    "domain: language": (
        r"grammar|synonym|antonym|vocabulary|spelling|pronounc|idiom",
        "语法|近义词|反义词|词汇|拼写|发音|成语",
    ),
    "domain: people": (
        r"friend|family|relationship|marriage|\bfeel|lonely|parent|birthday",
        "朋友|家庭|感情|婚姻|心情|孤独|父母|生日",
    ),
    "domain: nature": (
        r"animal|plant\b|weather|climate|ocean|\bdog\b|\bcat\b|environment|pollut",
        "动物|植物|天气|气候|海洋|狗|猫|环境|污染",
    ),
    "domain: society": (
        r"politic|government|election|religio|rights|gender|philosoph|ethic",
        "政治|政府|选举|宗教|权利|性别|哲学|伦理|道德",
    ),
    "sensitive: harm": (
        r"\bkill|bomb|weapon|\bdrugs?\b|steal|hack into|suicide|poison",
        "杀|炸弹|武器|毒品|偷|自杀|毒药",
    ),
}
_COMPILED = {
    tag: re.compile(rf"(?<![A-Za-z])(?:{english})|{chinese}", re.IGNORECASE)
    for tag, (english, chinese) in _RULES.items()
}
_HAN = re.compile("[\u3400-\u9fff]")


def tags_by_rules(prompt: Prompt) -> frozenset[str]:
    """What plain rules say of a prompt, such as {"language: en", "task: code", "length: short"}."""
    asked = prompt.asked
    found = {tag for tag, pattern in _COMPILED.items() if pattern.search(asked)}
    if not any(tag.startswith(("task:", "domain:")) for tag in found):
        found.add("other")
    letters = len(asked) + 3 * len(_HAN.findall(asked))
    found.add(f"length: {'short' if letters < SHORT else 'long' if letters >= LONG else 'medium'}")
    found.add(f"language: {identify(asked)[0]}")
    users = sum(role == "user" for role, _ in prompt.turns)
    return frozenset(found | ({"several turns"} if users > 1 else set()))


def tagging(prompt: Prompt) -> GenerateRequest:
    """What a model is asked to tag a prompt."""
    text = _TAGGER.format(asked=prompt.asked.replace("<|", "< |"))
    return GenerateRequest(Asked(messages=(Message("user", text),)), Decoding(TAGGER_TOKENS))


def read_tags(reply: str) -> frozenset[str]:
    """The tags of a model's reply, written alike: lower case, letters and digits with single blanks
    between them. None where no JSON list of texts, or of objects with a tag, stands in it."""
    decoder = json.JSONDecoder()
    for at in re.finditer(r"\[", reply):
        try:
            found, _ = decoder.raw_decode(reply, at.start())
        except (ValueError, RecursionError):
            continue
        tags = frozenset(filter(None, map(_written_alike, found)))
        if tags:
            return tags
    return frozenset()


def _written_alike(entry: Any) -> str:
    text = entry.get("tag") if isinstance(entry, dict) else entry
    if not isinstance(text, str):
        return ""
    words = " ".join(re.findall(r"[^\W_]+", text.lower()))
    return words if len(words) <= LONGEST_TAG else ""


def frequent(tags: Sequence[Set[str]], least: int) -> list[frozenset[str]]:
    """The same without tags that fewer than `least` prompts have: InsTag's first step of cleaning,
    since a model makes up many that say nothing of any other prompt."""
    counts = Counter(tag for of_prompt in tags for tag in of_prompt)
    return [frozenset(t for t in of_prompt if counts[t] >= least) for of_prompt in tags]
