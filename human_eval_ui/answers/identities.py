"""The words by which models and their makers are known, and how a writer speaks of itself.

ALWAYS are hardly ever written but of a model; PRODUCTS and MAKERS are also a bun, a bard, a search
engine: they tell who writes only where a sentence says so (SELF). All are patterns for text in
compatibility form (NFKC), case ignored. Knows nothing of how they are hidden.

The need is FastChat's: its arena drops battles in which a maker's name is written
(fastchat/serve/monitor/clean_battle_data.py).
"""

from __future__ import annotations

# What may stand between the letters of a name that is spread or marked up.
_GAP = r"[ \t*_~`\\·.\-]{0,3}"
_NUMBER = r"v?\d+(?:\.\d+)*[a-z]{0,2}(?![a-z])"
_KIND = (
    r"(?:instruct|chat|base|turbo|preview|plus|pro|max|mini|nano|flash|ultra|large|medium|small"
    r"|sonnet|opus|haiku|instant|vl|coder|math|audio|omni|think|thinking|distill|awq|gptq|int[48]"
    r"|gguf|sft|rlhf|dpo|hf|it|lightning)(?![a-z])"
)
_SPACED = r"(?:sonnet|opus|haiku|instruct|turbo|pro|flash|ultra|preview)(?![a-z])"
# 2.5-7B-Instruct, " 3.5 Sonnet", -mini, 72b; not the year or the count after a space
_TAIL = rf"(?:[-_/]?{_NUMBER}|[-_]{_KIND}| \d{{1,3}}(?:\.\d+)*b?(?![\w年月个])| {_SPACED})*"


def spread(word: str) -> str:
    """A pattern for a word, whatever little stands between its letters."""
    return _GAP.join(word)


def versioned(stem: str) -> str:
    """A pattern whose one group is the stem, itself a pattern; a version or size may follow."""
    return rf"({stem}){_TAIL}"


def _latin(*stems: str) -> str:
    # Digits may follow at once, letters not; Chinese on either side is a boundary.
    any_stem = "|".join(f"({stem})" for stem in stems)
    return rf"(?<![a-z0-9])(?=[a-z0-9])(?:{any_stem}){_TAIL}(?![a-z])"


def _chinese(*stems: str) -> str:
    return f"(?:{'|'.join(f'({stem})' for stem in stems)}){_TAIL}"


# Claude Shannon and Kimi Räikkönen wrote no answer.
_NO_SURNAME = (
    r"(?![ \-·](?!(?:claude|kimi|ai|sonnet|opus|haiku|instant|code|chat)(?![a-z]))"
    r"(?-i:[A-Z])[a-zà-ž])"
)
_V = r"[ -]?\d+(?:\.\d+)*"

# Each pattern has one group: the word itself, without the version that may follow.
ALWAYS: tuple[str, ...] = (
    _latin(
        spread("qwen") + "[a-z]{0,12}",
        "qwq",
        "qvq",
        "tongyi[ -]?qianwen",
        r"tongyi\.aliyun",
        "(?-i:Tongyi)",
        spread("chatgpt"),
        r"gpt[ -]?[345]\d?(?:\.\d)?(?!\d)[a-z]?",
        r"instructgpt",
        r"text-davinci-00\d",
        r"(?-i:o[134])-(?:mini|preview|pro)",
        # An open AI model is anyone's.
        "openai",
        "(?-i:Open[ -]AI)",
        r"[*_~`\\·.\-]{0,4}".join("openai"),
        "[ ]".join("openai"),
        rf"(?<!jean[ -]){spread('claude')}{_NO_SURNAME}",
        spread("anthropic"),
        spread("deepseek"),
        "ernie[ -]?bot",
        "(?-i:ERNIE)",
        "wenxin ?yiyan",
        "hunyuan",
        "doubao",
        "baichuan",
        "chatglm",
        r"glm-?\d+(?:\.\d+)*",
        "zhipu(?:ai)?",
        "internlm",
        "internvl",
        "sparkdesk",
        rf"(?-i:Kimi)(?! no na){_NO_SURNAME}",
        "kimi[ -]chat",
        r"kimi\.(?:moonshot|com|ai)",
        r"yiyan\.baidu",
        r"(?:bard|gemini)\.google",
        "moonshot ai",
        "moonshot-v1",
        r"(?-i:Yi)-(?:\d+|vl|large|light)",
        r"01\.ai",
        "sensechat",
        "sensenova",
        "skywork",
        rf"llama{_V}",
        "llama-(?:chat|instruct)",
        "code ?llama",
        "meta llama",
        "lmsys",
        "(?-i:Meta AI)",
        "mistral ai",
        "mixtral",
        r"mistral-(?:\d+|large|small|medium|nemo)",
        "google (?:bard|gemini)",
        "(?-i:PaLM)",
        r"gemini[ -](?:\d\.\d|pro|ultra|nano|flash|advanced)",
        "(?-i:LaMDA)",
        r"grok-\d",
        "(?-i:xAI)",
        "smollm",
        r"minimax-(?:text|m\d|vl)",
        r"vicuna-\d+",
        r"(?-i:Phi)-\d(?!\d)",
        r"abab\d",
        "new bing",
        "bing chat",
        "huggingchat",
        "stablelm",
        "bluelm",
    ),
    # 文史通义, 百问千问
    _chinese(
        f"(?:阿里云?)?{spread('通义千问')}",
        "通义(?:万相|听悟|灵码|大模型|实验室)",
        "(?<![一二两三四五六七八九十百千万几数成上问])千问(?![万百不])",
        spread("深度求索"),
        spread("文心一言"),
        r"文心(?:大模型| ?[345]\.\d| ?x1|千帆|快码)",
        spread("讯飞星火"),
        "星火(?:认知大模型|认知|大模型)",
        "腾讯混元",
        "混元(?:大模型|助手)",
        "智谱(?:清言)?(?:ai(?![a-z]))?",
        "百川(?:大模型|智能)",
        "腾讯元宝",
        "零一万物",
        r"书生[·\- ]?(?:浦语|万象)",
        "书生大模型",
        "豆包(?:大模型|ai(?![a-z]))",
        "海螺ai",
        "月之暗面(?:科技|公司)",
        "日日新大模型",
        "盘古大模型",
        "360智脑",
        "天工(?:大模型|ai)",
        "紫东太初",
        "悟道大模型",
    ),
)
# Names a model bears that are also something else: told by "I am".
PRODUCTS: tuple[str, ...] = (
    _latin(
        "gemini",
        "bard",
        "grok",
        "llama",
        "mistral",
        "kimi",
        "gpt",
        "minimax",
        "ernie",
        "vicuna",
        "copilot",
    ),
    _chinese(
        "通义", "豆包", "文心", "混元", "百川", "星火", "元宝", "天工", "悟道", "小度", "小爱同学"
    ),
)
# Those of whom "I am" is not enough.
MAKERS: tuple[str, ...] = (
    _latin(
        "google(?: deepmind| ai| research)?",
        "deepmind",
        "(?-i:Alphabet|Meta|Amazon|Apple)",
        "facebook",
        "microsoft",
        "alibaba(?: cloud| group)?",
        "aliyun",
        "damo academy",
        "baidu",
        "tencent",
        "bytedance",
        "huawei",
        "iflytek",
        "moonshot",
        "cohere",
        "nvidia",
        "ibm",
        "hugging ?face",
        "sensetime",
        "stability ai",
        "shanghai ai lab(?:oratory)?",
        "laion",
        "uc berkeley",
        "tsinghua(?: university)?",
        "(?-i:Yi|Phi|Falcon|Koala|Alpaca|Dolly|AI2)",
    ),
    _chinese(
        "阿里(?:巴巴|云)?(?:集团|公司)?(?:旗下的?)?(?:达摩院)?",
        "达摩院",
        "百度",
        "腾讯",
        "谷歌",
        "字节(?:跳动)?",
        "微软",
        "脸书",
        "华为",
        "商汤(?:科技)?",
        "(?:科大)?讯飞",
        "书生",
        "抱抱脸",
        "清华(?:大学)?",
        "上海人工智能实验室",
        "昆仑万维",
        "小米",
        "亚马逊",
        "月之暗面",
        "盘古",
        "稀宇科技",
        "阶跃星辰",
        "面壁智能",
    ),
)

PRODUCT, MAKER = "\ue0f0", "\ue0f1"  # stand for such names in SELF; private, no text's own
_ANY = f"[{PRODUCT}{MAKER}]"
_MARKS = "[ \"“”'‘’「」『』《》*_`]*"
_IN = "[^,。;!?]"  # within a clause; compatibility form has made full-width marks of these ASCII
_HIDDEN = rf"(?:{PRODUCT}|\[已隐去\])"
_ENDS = rf"(?={_MARKS}(?:$|[,。;!?():、—~\s\-\[{PRODUCT}]|[我名叫并和而是由一呀啊哦呢哈啦]))"
# A model by name or kind, and not one on which somebody works.
_AI = (
    r"(?:(?:模型|助手|助理|人工智能|机器人|智能体|聊天程序|对话系统|对话程序|(?<![a-z])ai|llm|chatbot)"
    rf"(?:系统|产品|服务|程序|之一)?{_ENDS}"
    rf"|{_HIDDEN}(?! ?的?(?:工程|研究|员工|团队|部门|用户|粉丝)))"
)
_MADE = r"(?:开发|研发|训练|创造|创建|打造|推出|构建|设计|研制|制造|提供支持)"
_I = r"(?:我们?|俺|本人)(?:就|正|便|也|真的?|其实|只|当然|确实|不是[^。]{0,15}而)?"
_EN_AI = (
    r"(?:\b(?:ai|models?|assistant|chat ?bot|llm|bot|artificial intelligence)\b"
    r"(?! (?:engineer|researcher|developer|manager|team|user|lab|scientist|fan)s?\b))"
)
_EN_MADE = (
    r"(?:created|trained|made|developed|built|designed|powered|fine-?tuned|released|provided)"
    r"(?:,? (?:and|or) \w+)?"
)
_EN_I = r"\b(?:i am|i[’']?m|i was|i have been|i[’']ve been)"
_EN_IN = r"(?:(?!\b(?:engineer|researcher|developer|user)s? (?!at ))[^.,;!?。])"

# What a sentence looks like in which a writer says who it is or who made it; names as signs.
SELF: tuple[str, ...] = (
    # 我是豆包 · 我叫Kimi · 我是一个名叫文心的…
    rf"{_I}(?:是|叫做?|名叫|名为)(?:一[个款名种位]{_IN}{{0,8}})?{_MARKS}{PRODUCT}"
    rf"(?:{_ENDS}|{_MARKS}ai(?![a-z]))",
    # 你可以叫我小度
    rf"(?:叫|称呼?)我(?:为|作|做)?{_MARKS}{PRODUCT}",
    # 我是谷歌训练的大型语言模型 · 作为百度推出的智能助手
    rf"(?:{_I}(?:是|叫)|作为|身为){_IN}{{0,20}}{_ANY}{_IN}{{0,25}}{_AI}",
    # 我是由阿里云开发的 · 我由百度训练而成 · 本模型由…研发
    rf"(?:我(?:们)?|本(?:模型|助手|系统|机器人|ai))(?:主要|完全|最初)?(?:就?是)?(?:一[个款种]{_IN}{{0,12}})?"
    rf"(?:由|被|受){_IN}{{0,6}}{_ANY}{_IN}{{0,15}}{_MADE}(?!者|人员)"
    rf"(?:$|[,。;!?)\s]|而成|出来|并|和|与|、|的(?:$|[,。;!?)\s]|{_IN}{{0,20}}{_AI}))",
    # 我是一个AI助手,由百度开发 · 我是人工智能助手,来自腾讯 · 我是AI助手豆包
    rf"{_I}是[^。!?]{{0,25}}{_AI}[^。!?]{{0,12}}[,(]\s*(?:我)?(?:是)?(?:由|来自|出自|隶属于?){_MARKS}{_ANY}",
    rf"{_I}是[^。!?]{{0,25}}{_AI}(?:,\s*(?:我)?(?:名字)?(?:是|叫做?|名叫|名为))?{_MARKS}{PRODUCT}",
    # 我来自百度的…模型 · 我基于Llama架构
    rf"我(?:是)?(?:来自|出自|基于|属于|背后是){_IN}{{0,10}}{_ANY}{_IN}{{0,20}}(?:{_AI}|架构|家族)",
    # 我来自百度 · 我所属的公司是…
    rf"我来自{_MARKS}{_ANY}(?:公司|集团)?{_MARKS}(?:$|[,。;!?])",
    rf"我(?:背后|所属)的?{_IN}{{0,6}}(?:团队|公司|机构|企业)(?:是|来自){_IN}{{0,6}}{_ANY}",
    rf"本(?:文|回答|内容)由{_ANY}{_IN}{{0,8}}(?:生成|提供)",
    # 百度开发了我 · 训练我的公司是谷歌
    rf"{_ANY}{_IN}{{0,12}}(?:开发|研发|训练|创造|创建|打造)(?:了|出|出了)?我(?:$|[,。;!?\s]|的(?:团队|公司|人))",
    rf"(?:开发|研发|训练|创造|创建|打造)我的{_IN}{{0,8}}是{_IN}{{0,6}}{_ANY}",
    # 我的开发者是… · 我的名字叫…
    rf"我的(?:开发者|开发商|开发团队|开发公司|创造者|创建者|研发者|研发团队|训练者|母公司|(?:中文|英文|全)?名字?|全称"
    rf"|底层模型|基座模型)(?:就)?(?:是|叫|为|来自|:){_IN}{{0,10}}{_ANY}",
    # 我是[已隐去],由…开发: it has said its name; who else is in the sentence belongs to it
    rf"(?:我(?:是|叫)|我的名字(?:是|叫)|{_EN_I}|my name is){_MARKS}(?:{PRODUCT}|\[已隐去\]){_MARKS}"
    rf"[^。!?]{{0,10}}[ ,(—、]{_IN}{{0,40}}{_ANY}",
    # I am Gemini · call me Bard · my name is Grok
    r"(?:\b(?:i am|i[’']m)(?: called)?|my name(?: is|[’']s)|\bcall me|\bnamed me)\s+"
    rf"{_MARKS}{PRODUCT}(?!{_MARKS}\s*(?:fan|user|season|baby|sun)s?\b)",
    # As Bard, I … · I'm Phi, a small model · I belong to the Llama family
    rf"\bas {_MARKS}{PRODUCT}{_MARKS},? i\b",
    rf"{_EN_I}\s{_MARKS}{_ANY}{_MARKS}, an? {_EN_IN}{{0,30}}{_EN_AI}",
    rf"\bi(?: am|[’']m)? (?:based on|part of|belong to) (?:the )?{_MARKS}{_ANY}",
    # I'm Google's AI assistant · as a Gemini model
    rf"(?:{_EN_I}|\bas)\s(?:an? |the |one of )?{_EN_IN}{{0,30}}{_ANY}(?:[’']s?)?"
    rf"{_EN_IN}{{0,30}}?{_EN_AI}",
    # I am a language model (, which was) trained by Meta · I was made by Google
    rf"{_EN_I}(?: \w+ly)?\s(?:(?:an? |the |just ){_EN_IN}{{0,50}}{_EN_AI}{_EN_IN}{{0,12}},?\s?)?"
    rf"(?:(?:that|which) )?(?:was |is |has been |have been )?{_EN_MADE}"
    rf"\sby\s{_EN_IN}{{0,30}}{_ANY}",
    rf"(?:{_EN_I}|\bas)\s(?:an? |the ){_EN_IN}{{0,50}}{_EN_AI}{_EN_IN}{{0,25}}?\s"
    rf"(?:by|from|of|called|named)\s{_EN_IN}{{0,20}}{_ANY}",
    # Meta trained me · my developer is Google
    rf"{_ANY}\s(?:has |have |who |that |which )?(?:created|trained|developed|built|designed) me\b",
    rf"{_ANY}\s(?:has |have |who |that |which )?made me(?:\s*$|[.,;!?)]| (?:to|in|as|and)\b)",
    rf"\bmy (?:creators?|developers?|makers?|parent company|trainers?|underlying model|base model)"
    rf"(?: is| are| at|,|:)\s{_EN_IN}{{0,20}}{_ANY}",
)
