"""How a customer is greeted: what of a name can be said aloud, in the form that the language asks for.

A name comes as somebody typed it: "LOVELACE, ADA", "Иванова Анна Сергеевна", "Mehmet Bey", "info", "Lantern GmbH". Nothing is
guessed: a title is used only where the name itself has it, and where no name is left a greeting without one is warm enough.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from services.notifier.core.text import greeting_name


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_COMPANY: Final = _words(
    "gmbh ag kg ug mbh ltd limited llc llp inc corp corporation company co plc sarl sas sa srl spa bv nv oy ab as aps pty pte",
    "aş şti ltdşti san tic sanayi ticaret holding grup şirketi mağazası",
    "ооо оао зао пао ао нко тоо холдинг компания магазин организация фирма",
    "shop store team support service services sales office info admin administrator billing helpdesk kitchen studio hotel",
    "group bank agency restaurant cafe systems solutions technologies",
    "destek ekibi bilgi satış muhasebe yönetim müdürlüğü служба отдел поддержка бухгалтерия администратор",
    "user guest visitor customer anonymous unknown none null test noname client member subscriber",
    "müşteri misafir ziyaretçi kullanıcı anonim клиент гость посетитель пользователь аноним покупатель",
)
"""Words that no person is called: forms of companies, departments, and what forms put where nobody gave a name."""

_SLOGAN: Final = _words(
    "buy free click here win winner won cash money casino bitcoin crypto viagra porn sex loan offer cheap discount sale",
    "urgent prize gift bonus http https www com net org dot now today hack hacked account verify password",
    "ücretsiz bedava kazandınız kazan tıkla tıklayın hemen hediye indirim bahis para",
    "бесплатно купить купи выиграли выигрыш приз казино деньги кредит скидка жми нажмите срочно подарок",
)
"""Words of those who put an advertisement where a name belongs, to have us mail it to strangers."""

_TITLES: Final[dict[str, str]] = {
    "mr": "Mr", "mister": "Mr", "mrs": "Mrs", "ms": "Ms", "miss": "Miss", "mx": "Mx",
    "dr": "Dr", "prof": "Professor", "professor": "Professor",
    "bay": "Bay", "bayan": "Bayan", "sn": "", "sayın": "", "sayin": "",
    "г-н": "господин", "г-жа": "госпожа", "господин": "господин", "госпожа": "госпожа",
    "herr": "", "frau": "", "ип": "",
}  # fmt: skip
"""Titles before a name, and how they are written; an empty one says nothing of how to address somebody."""

_TURKISH: Final[dict[str, str]] = {
    "bey": "Bey", "beyefendi": "Bey", "hanım": "Hanım", "hanim": "Hanım", "hanımefendi": "Hanım",
    "hanimefendi": "Hanım", "hn": "Hanım", "hoca": "Hoca", "hocam": "Hoca",
}  # fmt: skip
"""Turkish honorifics, which follow the first name."""

_AS_TURKISH: Final = {"Mr": "Bey", "Bay": "Bey", "Mrs": "Hanım", "Ms": "Hanım", "Miss": "Hanım"} | {
    "Bayan": "Hanım",
    "господин": "Bey",
    "госпожа": "Hanım",
}
_PATRONYMIC: Final = re.compile(
    r".{2,}(?:ович|евич|ёвич|овна|евна|ёвна|инична)|(?:ильич|лукич|кузьмич|фомич|никитич|саввич|ильинична)",
    re.IGNORECASE,
)
_FAMILY: Final = re.compile(
    r".{3,}(?:ов|ова|ев|ева|ёв|ёва|ский|ская|цкий|цкая|енко|ых)", re.IGNORECASE
)
_COMPOUND: Final = frozenset({"abd", "abdul", "abdel", "abdur", "abu", "bin", "ibn", "el", "al"})
"""First words that are no name without the next one."""

_GIVEN: Final = _words(
    "александр саша шура алексей леша алеша анатолий толя андрей антон аркадий арсений артем артемий артур богдан борис боря",
    "вадим валентин валерий валера василий вася виктор витя виталий влад владимир вова володя владислав всеволод вячеслав слава",
    "геннадий гена георгий герман глеб григорий гриша давид даниил данила данил даня демьян денис дима дмитрий митя евгений женя",
    "егор ефим захар иван ваня игнат игорь илья ильяс иннокентий иосиф кирилл клим константин костя лев лева леонид леня лука",
    "макар максим макс марат марк матвей мирон мирослав михаил миша никита николай коля олег остап павел паша петр петя платон",
    "прохор радик рамиль ренат ринат родион роман рома ростислав руслан савва савелий святослав семен сергей сережа станислав стас",
    "степан степа тарас тимофей тимур тихон федор федя филипп эдуард эмиль эрик юлиан юрий юра яков яша ян ярослав",
    "авдотья агата аглая аида аксинья алевтина александра алена алеся алина алиса алла альбина анастасия настя ангелина анжела",
    "анжелика анна аня ася антонина тоня анфиса арина валентина валерия лера варвара варя василиса вера вероника виктория вика",
    "виолетта галина галя дарья даша диана дина евгения ева евдокия екатерина катя елена лена елизавета лиза жанна зинаида зина",
    "злата зоя инга инесса инна ира ирина карина каролина кира клавдия кристина ксения ксюша лада лариса лидия лида лилия лина",
    "любовь люба людмила люда люся майя маргарита рита марина мария маша марта марфа милана мира надежда надя наталья наталия",
    "наташа нелли ника нина оксана олеся ольга оля полина прасковья раиса рая регина римма роза розалия руслана сабина светлана",
    "света серафима снежана соня софия софья стефания таисия тамара татьяна таня ульяна фаина христина эвелина элеонора элина",
    "эльвира эльмира эмилия эмма юлия юля юлиана яна ярослава",
    "азамат айгуль айдар айнур айрат алия алмаз амина амир арман асель асхат аружан булат гузель гульнара дамир данияр динара жанар",
    "заур ильдар ильнур ирек камиль лейла ляйсан магомед мадина малика мурат наиль нурлан рафаэль рашид резеда рустам сауле султан",
    "тахир фарид фатима эльдар эмин алим руфат зарина зухра",
    "андрій дмитро євген ігор ілля іван микола михайло олександр олексій олена ольга павло петро сергій тетяна юлія юрій ярина оксана",
)
"""Given names, full and short, with е for ё: the ones that whoever writes in Russian is mostly called by.

Which of two words is the given name no ending tells for sure (Илья Кузьмин, Кузьмин Илья), and to be greeted by the family
name alone is rude in Russian. So a word is said aloud only if it is known; a list that lacks a name costs a greeting by name.
"""

_NOT_FAMILY: Final = frozenset({"яков", "залевский"})
_TURKISH_LETTERS: Final = frozenset("ğĞşŞıİ")
_APOSTROPHES: Final = "'’ʼ"


@dataclass(frozen=True, slots=True)
class Name:
    """A person's name, taken apart. Each part may be empty; `title` stands before a family name, `honorific` after a given one."""

    given: str = ""
    patronymic: str = ""
    family: str = ""
    title: str = ""
    honorific: str = ""

    def __bool__(self) -> bool:
        return bool(self.given or (self.title and self.family))


def salutation(name: str, language: str) -> str:
    """Return the opening line for somebody who calls themselves `name` (as typed), in `language`; never without an opening."""
    called = address(name, language)
    if language == "ru":
        return f"Здравствуйте, {called}!" if called else "Здравствуйте!"
    opening = "Merhaba" if language == "tr" else "Hello"
    return f"{opening} {called}," if called else f"{opening},"


def address(name: str, language: str) -> str:
    """Return the name to address somebody by, in `language`, or an empty string where there is none.

    English and others: "Ada", "Mr Smith". Turkish: "Ada Hanım" where the name says so, else "Ada". Russian: the first name with
    the patronymic where it is known, "Анна Сергеевна"; both are nominative, which is the form of address.
    """
    parts = parse(name, language)
    if not parts:
        return ""
    if language == "ru" and parts.patronymic:
        return f"{parts.given} {parts.patronymic}"
    honorific = parts.honorific or (_AS_TURKISH.get(parts.title, "") if language == "tr" else "")
    if honorific and parts.given:
        return f"{parts.given} {honorific}"
    if parts.title and parts.family and _is_title_of(parts.title, language):
        return f"{parts.title} {parts.family}"
    return parts.given


def parse(name: str, language: str = "en") -> Name:
    """Take a name apart; an empty `Name` where it is none that one could say aloud.

    Emoji and signs are dropped, shouted and whispered names are written as names are, "Lovelace, Ada" is turned round, and
    companies, departments, slogans and links are no names.
    """
    line = greeting_name(_letters_only(name))
    words = [word for word in line.split() if any(char.isalpha() for char in word)]
    bare = {_key(word) for word in words}
    if not words or bare & _COMPANY or len(bare & _SLOGAN) > 0:
        return Name()
    title = ""
    while words and _key(words[0]) in _TITLES and len(words) > 1:
        title = title or _TITLES[_key(words[0])]
        del words[0]
    honorific = ""
    if len(words) > 1:
        at = next((n for n, word in enumerate(words[1:], 1) if _key(word) in _TURKISH), None)
        if at is not None:
            honorific = _TURKISH[_key(words[at])]
            del words[at]
    words = [_written(word, language) for word in words]
    if title in {"Bay", "Bayan"} and len(words) == 1:
        return Name(given=words[0], title=title)
    return _russian(words, title) if _is_cyrillic(words) else _western(words, title, honorific)


def _western(words: list[str], title: str, honorific: str) -> Name:
    family = words[-1] if len(words) > 1 or title else ""
    if len(words) == 1:
        return Name(
            given="" if title else words[0], family=family, title=title, honorific=honorific
        )
    if not words[0].isascii() and _is_unspaced(words[0]):
        return Name(given=" ".join(words))
    if _is_initial(words[0]):
        # An initial alone is how nobody is called: "J. R. Smith" is said whole.
        full = next((word for word in words[1:-1] if not _is_initial(word)), "")
        return Name(full or " ".join(words), "", family, title, honorific)
    given = f"{words[0]} {words[1]}" if _key(words[0]) in _COMPOUND else words[0]
    return Name(given, "", family, title, honorific)


def _russian(words: list[str], title: str) -> Name:
    """Russian names come in either order; a patronymic, a given name that is known or a family name's ending tells them apart."""
    at = next((n for n, word in enumerate(words) if n and _PATRONYMIC.fullmatch(word)), None)
    if at is not None:
        given = words[at - 1]
        rest = [word for n, word in enumerate(words) if n not in {at - 1, at}]
        if _is_initial(given):
            return Name()
        return Name(given, words[at], rest[0] if rest else "", title)
    if len(words) == 1:
        if _is_given(words[0]) and not title:
            return Name(words[0])
        # By a family name somebody is greeted with a title, and never without one.
        return Name("", "", words[0], title) if title else Name()
    first, second = words[0], words[1]
    if not _is_given(first) and not _is_initial(second):
        if _is_given(second) or (_is_family(first) and not _is_family(second)):
            return Name(second, "", first, title)
        if not title and not _is_initial(first) and not _is_family(second):
            return Name()
    whole = [word for word in words if not _is_initial(word)]
    if len(whole) == 1 and len(words) > 1:
        # "Иванова А. С.": what is whole is the family name, and nobody is greeted by that alone.
        return Name("", "", whole[0], title)
    return Name(first, "", second, title)


def _is_family(word: str) -> bool:
    return len(word) > 4 and _FAMILY.fullmatch(word) is not None and _key(word) not in _NOT_FAMILY


def _is_given(word: str) -> bool:
    """Whether a Russian word is known as a given name; of a double one (Анна-Мария) the first half tells."""
    return _key(word).replace("ё", "е").partition("-")[0] in _GIVEN


def _is_title_of(title: str, language: str) -> bool:
    """Whether `title` is one of the language's; a Russian reader is no Mister, an English one no господин."""
    is_russian = title in {"господин", "госпожа"}
    return is_russian == (language == "ru") and title not in {"Bay", "Bayan"} and language != "tr"


def _letters_only(name: str) -> str:
    """Return `name` without emoji and other signs, composed: one letter is one character."""
    composed = unicodedata.normalize("NFC", name[:400])
    kept = (
        " " if unicodedata.category(char) in {"So", "Sk", "Sm"} or char in "\ufe0f\u200d" else char
        for char in composed
    )
    return "".join(kept)


def _key(word: str) -> str:
    """Return a word as it is compared: in lower case, without full stops."""
    return word.replace("İ", "i").lower().replace(".", "").strip("'’-")


def _is_initial(word: str) -> bool:
    """Whether a word is one letter, or letters with full stops: "A.", "J.R.R."."""
    return len(word.replace(".", "")) == 1 or re.fullmatch(r"(?:\w\.)+\w?", word) is not None


def _is_cyrillic(words: list[str]) -> bool:
    return bool(words) and all("CYRILLIC" in unicodedata.name(word[0], "") for word in words)


def _is_unspaced(word: str) -> bool:
    """Whether a word is of a script whose names are not taken apart: Han, kana, hangul."""
    names = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "HANGUL")
    return any(unicodedata.name(word[0], "").startswith(script) for script in names)


def _written(word: str, language: str) -> str:
    """Return a shouted or whispered word as names are written: "ADA" → "Ada", "İREM" → "İrem", "jean-luc" → "Jean-Luc"."""
    if _is_initial(word):
        return word.upper()
    letters = [char for char in word if char.isalpha()]
    is_loud = len(letters) > 1 and all(not char.islower() for char in letters)
    is_quiet = all(not char.isupper() for char in letters)
    if not (is_loud or is_quiet):
        return word
    is_turkish = language == "tr" or bool(_TURKISH_LETTERS & set(word))
    pieces = re.split(rf"([-{_APOSTROPHES}])", word)
    return "".join(_capital(piece, is_turkish) for piece in pieces)


def _capital(piece: str, is_turkish: bool) -> str:
    if not piece:
        return piece
    if not is_turkish:
        return piece[0].upper() + piece[1:].lower()
    first, rest = piece[0], piece[1:]
    upper = "İ" if first == "i" else first.upper()
    return upper + rest.replace("I", "ı").replace("İ", "i").lower()
