"""The words of the three questions in the languages that we answer in: the same in a notice and on the page behind its link."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from schemas.feedback import SCALES, SurveyKind

QUESTIONS: Final[Mapping[str, Mapping[SurveyKind, str]]] = MappingProxyType(
    {
        "en": {
            "csat": "How satisfied are you with the help you got?",
            "ces": "How easy did we make it to get your question answered?",
            "nps": "How likely are you to recommend us to a friend?",
        },
        "tr": {
            "csat": "Aldığınız destekten ne kadar memnunsunuz?",
            "ces": "Sorunuza yanıt almanızı ne kadar kolaylaştırdık?",
            "nps": "Bizi bir arkadaşınıza önerme olasılığınız nedir?",
        },
        "ru": {
            "csat": "Насколько вы довольны полученной помощью?",
            "ces": "Насколько легко было получить ответ на ваш вопрос?",
            "nps": "Насколько вероятно, что вы порекомендуете нас друзьям?",
        },
    }
)

ENDS: Final[Mapping[str, Mapping[SurveyKind, tuple[str, str]]]] = MappingProxyType(
    {
        "en": {
            "csat": ("very dissatisfied", "very satisfied"),
            "ces": ("very hard", "very easy"),
            "nps": ("not at all likely", "very likely"),
        },
        "tr": {
            "csat": ("hiç memnun değilim", "çok memnunum"),
            "ces": ("çok zor", "çok kolay"),
            "nps": ("hiç olası değil", "çok olası"),
        },
        "ru": {
            "csat": ("совсем плохо", "очень хорошо"),
            "ces": ("очень трудно", "очень легко"),
            "nps": ("совсем маловероятно", "очень вероятно"),
        },
    }
)
"""What the least and the most of a scale mean; the same order in every language, so that a 5 is a 5."""


def scores(kind: SurveyKind) -> tuple[int, ...]:
    """Return the scores of a kind, the least first."""
    scale = SCALES[kind]
    return tuple(range(scale.least, scale.most + 1))


def label(kind: SurveyKind, score: int, language: str) -> str:
    """Return what a choice is called: its number, with what it means at the two ends."""
    least, most = ENDS.get(language, ENDS["en"])[kind]
    scale = SCALES[kind]
    if score == scale.least:
        return f"{score} – {least}"
    return f"{score} – {most}" if score == scale.most else str(score)
