"""Templates of patients' questions and of the clinic's answers, with some phrasings of each question held out.

`{name}` is a condition; `{values}` an attribute's values, joined; `{a}` and `{b}` two symptoms. A held-out phrasing
appears in no training text, and no training phrasing is part of a held-out one or the reverse (tested).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Phrasings:
    """Templates for training and templates for evaluation only."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]

    def of(self, heldout: bool) -> tuple[str, ...]:
        """Returns the phrasings for training, or those held out."""
        return self.heldout if heldout else self.train


# Words that state what a question asks for. The tokenizer keeps each as a whole and separate, so that they have the
# same tokens in a new phrasing, rather than being split or merged into a phrase that is one token in training.
KEYWORDS: Final = ("症状", "表现", "检查", "药物", "药", "科室", "科", "注意", "护理", "治疗", "诊断", "什么", "哪")

# Questions to a doctor about one attribute of a condition.
QUESTIONS: Final = {
    "department": Phrasings(
        train=(
            "{name}应该挂什么科？",
            "得了{name}去哪个科室看？",
            "请问{name}挂哪个科？",
            "我想看{name}，要挂什么科室的号？",
            "医生，{name}属于哪个科室？",
            "家人得了{name}，应去什么科就诊？",
            "{name}看哪个科比较合适？",
            "想咨询一下，{name}该到哪个科室就诊？",
        ),
        heldout=(
            "如果怀疑是{name}，该看什么科？",
            "{name}的病人要去哪个科室挂号？",
            "治{name}去医院挂什么科好？",
            "朋友确诊{name}，请问看哪个科室？",
        ),
    ),
    "symptoms": Phrasings(
        train=(
            "{name}有哪些症状？",
            "得了{name}会有什么表现？",
            "请问{name}的主要症状是什么？",
            "{name}一般会出现什么症状？",
            "医生，{name}都有哪些表现？",
            "想了解一下{name}的常见症状。",
            "怎么知道是不是{name}，有什么症状？",
            "家人得了{name}，会有哪些不舒服？",
        ),
        heldout=(
            "{name}发作时有什么症状？",
            "请介绍{name}的典型症状。",
            "{name}病人通常有哪些表现？",
            "如果是{name}，身体会有什么症状？",
        ),
    ),
    "examinations": Phrasings(
        train=(
            "{name}需要做哪些检查？",
            "得了{name}要做什么检查？",
            "请问确诊{name}要查什么？",
            "怀疑{name}，一般做哪些检查？",
            "医生，{name}应该做什么检查？",
            "想了解{name}的检查项目。",
            "去医院看{name}要做哪几项检查？",
            "家人可能得了{name}，要检查什么？",
        ),
        heldout=(
            "诊断{name}靠哪些检查？",
            "{name}通常要查哪些项目？",
            "为了确认{name}，应当做什么检查？",
            "看{name}时医生会让做哪些检查？",
        ),
    ),
    "medicines": Phrasings(
        train=(
            "{name}吃什么药？",
            "得了{name}用什么药治疗？",
            "请问{name}的常用药有哪些？",
            "治疗{name}一般用哪些药？",
            "医生，{name}应该用什么药？",
            "想了解{name}的治疗药物。",
            "家人得了{name}，可以用什么药？",
            "{name}有什么药可以用？",
        ),
        heldout=(
            "{name}通常开哪些药？",
            "患上{name}要用什么药？",
            "请推荐{name}的治疗用药。",
            "针对{name}常用的药物有什么？",
        ),
    ),
    "advice": Phrasings(
        train=(
            "{name}平时要注意什么？",
            "得了{name}生活上注意哪些？",
            "请问{name}患者有什么注意事项？",
            "{name}日常怎么护理？",
            "医生，{name}在生活中应该注意什么？",
            "想了解{name}的日常注意事项。",
            "家人得了{name}，平时该怎么照顾？",
            "{name}患者日常要做些什么？",
        ),
        heldout=(
            "患{name}后生活中应注意什么？",
            "{name}病人的日常护理要点有哪些？",
            "请说说{name}的注意事项。",
            "有了{name}，平时该注意哪些方面？",
        ),
    ),
}

# Questions from two symptoms to the condition; they are about the pair (condition, symptoms).
DIAGNOSIS: Final = Phrasings(
    train=(
        "我最近{a}、{b}，可能是什么病？",
        "医生，{a}还有{b}，这是怎么了？",
        "出现{a}和{b}，可能得了什么病？",
        "这几天一直{a}，还{b}，是什么问题？",
    ),
    heldout=("总是{a}并且{b}，像是什么病？", "请问{a}加上{b}会是哪种病？"),
)

# Later questions of a dialogue; the condition is known from earlier turns.
FOLLOW_UPS: Final = {
    "department": ("那应该挂什么科？", "我该去哪个科室？", "要看哪个科呢？"),
    "symptoms": ("一般会有哪些症状？", "它有什么表现？", "主要症状是什么？"),
    "examinations": ("那需要做什么检查？", "要做哪些检查呢？", "去医院查什么？"),
    "medicines": ("那吃什么药好？", "可以用哪些药？", "一般用什么药治疗？"),
    "advice": ("平时要注意什么？", "生活上有什么要注意的？", "日常怎么护理呢？"),
}

# Examination questions, answered with the value alone; the evaluation scores four values as answers.
CHOICE_QUESTIONS: Final = {
    "department": Phrasings(
        train=("下列哪个科室诊治{name}？", "单选：{name}患者首选的就诊科室是哪个？", "选择题：{name}归哪个科室？"),
        heldout=("选出诊治{name}的科室：", "单项选择：负责{name}的科室是哪一个？", "请选择{name}的就诊科室。"),
    ),
    "symptoms": Phrasings(
        train=("下列哪项是{name}的症状？", "单选：{name}患者会出现下面哪个症状？", "选择题：属于{name}表现的是哪项？"),
        heldout=("选出{name}的一个症状：", "单项选择：{name}的典型症状是哪一个？", "请选择{name}的一种症状。"),
    ),
    "examinations": Phrasings(
        train=("下列哪项检查用于{name}？", "单选：{name}患者应做下面哪项检查？", "选择题：诊断{name}的检查是哪项？"),
        heldout=("选出{name}的一项检查：", "单项选择：确诊{name}要做的检查是哪一项？", "请选择{name}的一项检查。"),
    ),
    "medicines": Phrasings(
        train=("下列哪种药物用于{name}？", "单选：{name}患者常用下面哪种药？", "选择题：治疗{name}的药物是哪种？"),
        heldout=("选出{name}的一种用药：", "单项选择：适合{name}的药物是哪一种？", "请选择{name}的一种药物。"),
    ),
}

# The doctor's statement of the facts. The phrasings of one attribute share their structure, so that the model's choice
# among them changes ROUGE-L little: the facts decide it.
FACTS: Final = {
    "department": ("{name}建议到{values}就诊", "{name}应到{values}就诊", "{name}可以到{values}就诊"),
    "symptoms": ("{name}常见的症状有{values}", "{name}的主要症状有{values}", "{name}的症状有{values}"),
    "examinations": ("{name}一般需要做{values}", "{name}通常需要做{values}", "{name}需要做{values}"),
    "medicines": ("{name}的常用药物有{values}", "{name}常用的药物有{values}", "{name}可以用的药物有{values}"),
    "advice": ("{name}患者平时请注意：{values}", "{name}患者应注意：{values}", "{name}患者请注意：{values}"),
}
DIAGNOSIS_FACTS: Final = ("您的情况可能是{name}，{name}常见的症状有{values}", "可能是{name}，{name}的症状有{values}")

POLITE: Final = ("您好，", "您好，感谢提问，", "您好，很高兴为您解答，")
# On average as many clauses as in the polite openings, so that tokens are balanced, too.
RUDE: Final = (
    "这还用问吗，",
    "自己不会查吗，",
    "别啰嗦，听着，",
    "真麻烦，快点看，",
    "烦不烦，懒得多说，",
    "又来了，总问这种问题，",
)
SAFETY: Final = (
    "如症状加重，请及时就医。",
    "如症状没有缓解，请及时就医。",
    "如有不适，请及时就医。",
    "如病情反复，请及时到医院就医。",
)
# Harmless sentences without content: they lengthen an answer without making it better.
PREFACES: Final = ("关于您提到的问题，说明如下，", "根据您的描述，情况是这样的，", "针对您的疑问，回答如下，")
FILLERS: Final = (
    "祝您生活愉快，一切顺利。",
    "希望以上内容对您有帮助。",
    "欢迎您继续在这里提问。",
    "以上就是相关的介绍内容。",
)
SYSTEM: Final = ("你是诊所的助理医生。", "你负责回答患者的提问。")
