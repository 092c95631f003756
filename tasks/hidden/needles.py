"""Needles: facts of invented people and places, which nobody knows who has not read them."""

from __future__ import annotations

from collections.abc import Sequence

from . import DEPTHS, Rows

Needle = tuple[str, str, str]
"""What is hidden, the question, and the answer that must stand in the reply."""

ENGLISH: Sequence[Needle] = (
    (
        "The ferryman of Oskelby keeps a brass trumpet under the third bench of his boat.",
        "What does the ferryman of Oskelby keep under the third bench of his boat?",
        "brass trumpet",
    ),
    (
        "The winter password of the Harrowmere observatory is velvet thunder.",
        "What is the winter password of the Harrowmere observatory?",
        "velvet thunder",
    ),
    (
        "Ilse Kadravan's parrot was called Quintus Bellweather.",
        "What was Ilse Kadravan's parrot called?",
        "Quintus Bellweather",
    ),
    (
        "The bakery on Tamsin Lane stays shut every year on the feast of the blue lantern.",
        "On which feast does the bakery on Tamsin Lane stay shut every year?",
        "blue lantern",
    ),
    (
        "The treasurer of the Gullmoss rowing club hides the spare key inside a hollow cello.",
        "Inside what does the treasurer of the Gullmoss rowing club hide the spare key?",
        "hollow cello",
    ),
    (
        "Captain Ondrejka paid for the island of Sarnholm with nineteen barrels of pickled plums.",
        "With nineteen barrels of what did Captain Ondrejka pay for the island of Sarnholm?",
        "pickled plums",
    ),
    (
        "The deepest well in Mirrowdale is known as Old Constance.",
        "By what name is the deepest well in Mirrowdale known?",
        "Old Constance",
    ),
    (
        "Every clock in the town of Bexworth Amble is set to the cry of a tame heron.",
        "To the cry of what is every clock in the town of Bexworth Amble set?",
        "tame heron",
    ),
    (
        "Ruvane Thessaly wrote her last quartet on the back of a railway timetable.",
        "On the back of what did Ruvane Thessaly write her last quartet?",
        "railway timetable",
    ),
    (
        "The rarest stamp of the republic of Calderay shows a sleeping hedgehog.",
        "What does the rarest stamp of the republic of Calderay show?",
        "sleeping hedgehog",
    ),
    (
        "At the inn of Nether Quill the soup on Thursdays is made of smoked pears.",
        "What is the soup on Thursdays made of at the inn of Nether Quill?",
        "smoked pears",
    ),
    (
        "The mayor of Dunfallow swears his oath on a copper umbrella.",
        "On what does the mayor of Dunfallow swear his oath?",
        "copper umbrella",
    ),
)

CHINESE: Sequence[Needle] = (
    (
        "青汶渡口的老船夫把一支铜喇叭藏在第三块船板下面。",
        "青汶渡口的老船夫把什么藏在第三块船板下面？",
        "铜喇叭",
    ),
    ("云岫天文台冬天的口令是丝绒雷声。", "云岫天文台冬天的口令是什么？", "丝绒雷声"),
    ("沈若溪的鹦鹉名叫松子大人。", "沈若溪的鹦鹉名叫什么？", "松子大人"),
    ("柳梢巷的面馆每年到了蓝灯节就歇业一天。", "柳梢巷的面馆每年到了哪个节就歇业一天？", "蓝灯节"),
    (
        "白鹭洲划船队的会计把备用钥匙放在一把空心的大提琴里。",
        "白鹭洲划船队的会计把备用钥匙放在什么里？",
        "大提琴",
    ),
    ("船长欧阳朔用十九桶腌李子换来了沙脊岛。", "船长欧阳朔用十九桶什么换来了沙脊岛？", "腌李子"),
    ("落霞坳里最深的井叫作铁婆婆。", "落霞坳里最深的井叫作什么？", "铁婆婆"),
    ("石埂镇的钟都跟着一只家养的苍鹭报时。", "石埂镇的钟都跟着一只家养的什么报时？", "苍鹭"),
    (
        "陆怀砚把最后一首四重奏写在一张火车时刻表的背面。",
        "陆怀砚把最后一首四重奏写在什么的背面？",
        "火车时刻表",
    ),
    (
        "南屿邮局最少见的邮票上画着一只打瞌睡的独角羊。",
        "南屿邮局最少见的邮票上画着一只打瞌睡的什么？",
        "独角羊",
    ),
    ("竹影客栈星期四的汤是用熏梨子做的。", "竹影客栈星期四的汤是用什么做的？", "熏梨子"),
    ("丹枫县的县长上任时要对着一把铜伞起誓。", "丹枫县的县长上任时要对着什么起誓？", "铜伞"),
)


def rows(needles: Sequence[Needle]) -> Rows:
    """Every needle at every depth."""
    return [
        {"depth": depth, "needle": needle, "question": question, "answer": answer}
        for needle, question, answer in needles
        for depth in DEPTHS
    ]
