"""Chinese minimal pairs: measure words, 把 and 被, aspect, word order and the like.

Templates and word lists are our own; the two sentences of a pair differ in one point.
"""

from __future__ import annotations

import random

from .draw import Make, Question, Rows, of_kinds

EACH = 20
PEOPLE = ("他", "她", "我", "老师", "妈妈", "爸爸", "哥哥", "妹妹", "老人", "孩子", "医生", "先生")
# A noun, its measure word, and words that measure nothing like it.
MEASURES = (
    ("书", "本", "匹头棵"),
    ("马", "匹", "本张件"),
    ("树", "棵", "本匹件"),
    ("鱼", "条", "本座件"),
    ("信", "封", "头棵匹"),
    ("椅子", "把", "本匹朵"),
    ("衣服", "件", "头棵座"),
    ("山", "座", "件本匹"),
    ("花", "朵", "本匹座"),
    ("灯", "盏", "头匹朵"),
    ("牛", "头", "本件朵"),
    ("画", "幅", "头匹棵"),
    ("桌子", "张", "本头朵"),
    ("帽子", "顶", "头本棵"),
    ("车", "辆", "本朵头"),
    ("诗", "首", "头件座"),
    ("刀", "把", "本匹朵"),
    ("桥", "座", "本匹朵"),
    ("河", "条", "本件朵"),
    ("米", "粒", "本匹座"),
    ("裤子", "条", "本座朵"),
    ("镜子", "面", "头匹首"),
)
DONE = (
    ("门", "打开"),
    ("书", "放下"),
    ("灯", "点亮"),
    ("信", "写好"),
    ("衣服", "洗干净"),
    ("饭", "吃完"),
    ("房子", "卖掉"),
    ("窗户", "关上"),
    ("酒", "喝光"),
    ("钱", "花完"),
    ("刀", "藏起来"),
    ("画", "挂起来"),
)
SUFFERED = (
    ("小偷", "警察", "抓住"),
    ("羊", "狼", "吃掉"),
    ("他", "父亲", "骂"),
    ("房子", "大火", "烧毁"),
    ("敌人", "我们", "打败"),
    ("船", "大风", "吹翻"),
    ("孩子", "狗", "咬伤"),
    ("树", "大雪", "压断"),
    ("帽子", "风", "吹走"),
    ("信", "她", "撕碎"),
    ("鱼", "猫", "偷走"),
    ("秘密", "邻居", "发现"),
)
TOWNS = ("北京", "上海", "城里", "海边", "山上", "学校", "医院", "南方")
QUALITIES = ("高", "大", "快", "聪明", "勇敢", "年轻", "漂亮", "强壮", "细心", "有钱")
SEATS = (
    ("坐", "椅子", "上"),
    ("站", "桌子", "旁边"),
    ("躺", "床", "上"),
    ("住", "山", "下"),
    ("睡", "屋子", "里"),
    ("等", "门", "外"),
    ("坐", "大树", "下"),
    ("站", "院子", "里"),
)
UNDERSTOOD = (
    ("听", "懂", "你的话"),
    ("看", "见", "前面的路"),
    ("找", "到", "那本书"),
    ("记", "住", "这个名字"),
    ("想", "起", "那件事"),
    ("买", "到", "新鲜的鱼"),
)
CAUSES = (
    ("下大雨", "没有出门"),
    ("生病", "没去上班"),
    ("没有钱", "买不起房子"),
    ("太累", "很早就睡了"),
    ("路太远", "骑马去"),
    ("天气太热", "不想吃饭"),
    ("起得晚", "迟到了"),
)
COLOURS = ("红色", "白色", "黑色", "蓝色", "黄色", "绿色")
WORN = (("顶", "帽子", "戴"), ("件", "衣服", "穿"), ("双", "鞋子", "穿"), ("条", "裙子", "穿"))
# None of them can be read as asking whether there is such a thing at all.
ASKED = (
    "你是谁",
    "你什么时候回来",
    "你为什么哭",
    "这是什么",
    "他怎么来的",
    "他们有多少人",
    "他住在哪里",
    "这本书是谁的",
    "你们几点出发",
    "你叫什么名字",
    "你从哪里来",
    "他为什么不来",
    "你怎么知道的",
    "谁打开了门",
    "谁是你的老师",
    "今天星期几",
    "现在几点了",
    "这把刀是谁的",
    "你最喜欢哪一个",
    "他是什么时候走的",
    "那个人是谁",
    "你是怎么学会的",
)
LIKED = ("喜欢读书", "会骑马", "想回家", "爱喝茶", "去过南方", "认识那个医生", "不想走", "很高兴")


def _measure(rng: random.Random) -> Question:
    noun, right, wrong = rng.choice(MEASURES)
    start = rng.choice(("那里有一", "他看见了一", "画上有三", "我们需要两"))
    return "", f"{start}{right}{noun}。", [f"{start}{rng.choice(wrong)}{noun}。"]


def _disposal(rng: random.Random) -> Question:
    who, (thing, verb) = rng.choice(PEOPLE), rng.choice(DONE)
    return "", f"{who}把{thing}{verb}了。", [f"{who}把{verb}了{thing}。"]


def _passive(rng: random.Random) -> Question:
    thing, by, verb = rng.choice(SUFFERED)
    first = rng.choice(("", "昨天", "那天夜里", "后来"))
    return "", f"{first}{thing}被{by}{verb}了。", [f"{first}{thing}被{verb}了{by}。"]


def _finished(rng: random.Random) -> Question:
    who, town = rng.choice(PEOPLE), rng.choice(TOWNS)
    right, wrong = rng.choice((("昨天", "明天"), ("去年", "明年"), ("上个月", "下个月")))
    return "", f"{who}{right}去了{town}。", [f"{who}{wrong}去了{town}。"]


def _experienced(rng: random.Random) -> Question:
    who, town = rng.choice(PEOPLE), rng.choice(TOWNS)
    return "", f"{who}从来没有去过{town}。", [f"{who}从来没有去了{town}。"]


def _negation(rng: random.Random) -> Question:
    who = rng.choice(PEOPLE)
    what = rng.choice(("钱", "时间", "朋友", "办法", "工作", "马", "兄弟"))
    return "", f"{who}没有{what}。", [f"{who}不有{what}。"]


def _comparison(rng: random.Random) -> Question:
    (first, second), word = rng.sample(PEOPLE, 2), rng.choice(QUALITIES)
    return "", f"{first}比{second}更{word}。", [f"{first}比{second}很{word}。"]


def _question(rng: random.Random) -> Question:
    asked = rng.choice(ASKED)
    return "", f"{asked}？", [f"{asked}吗？"]


def _conjunction(rng: random.Random) -> Question:
    who, (why, what) = rng.choice(("他", "她", "我", "老师", "哥哥")), rng.choice(CAUSES)
    return "", f"因为{why}，所以{who}{what}。", [f"因为{why}，但是{who}{what}。"]


def _place(rng: random.Random) -> Question:
    who, (verb, where, side) = rng.choice(PEOPLE), rng.choice(SEATS)
    return "", f"{who}{verb}在{where}{side}。", [f"{who}{verb}在{side}{where}。"]


def _potential(rng: random.Random) -> Question:
    who, (verb, result, what) = rng.choice(PEOPLE), rng.choice(UNDERSTOOD)
    return "", f"{who}{verb}不{result}{what}。", [f"{who}不{verb}得{result}{what}。"]


def _attribute(rng: random.Random) -> Question:
    who, colour, (measure, thing, wear) = rng.choice(PEOPLE), rng.choice(COLOURS), rng.choice(WORN)
    start = f"{who}{wear}着一{measure}"
    return "", f"{start}{colour}的{thing}。", [f"{start}{thing}的{colour}。"]


def _adverb(rng: random.Random) -> Question:
    who, what = rng.choice(PEOPLE), rng.choice(LIKED)
    return "", f"{who}也{what}。", [f"也{who}{what}。"]


PHENOMENA: dict[str, Make] = {
    "measure word": _measure,
    "把": _disposal,
    "被": _passive,
    "了": _finished,
    "过": _experienced,
    "negation": _negation,
    "comparison": _comparison,
    "question word": _question,
    "conjunction": _conjunction,
    "place": _place,
    "potential": _potential,
    "attribute": _attribute,
    "adverb": _adverb,
}


def rows() -> Rows:
    """The same number of pairs of every phenomenon."""
    return of_kinds({kind: (make, EACH) for kind, make in PHENOMENA.items()}, "zh")
