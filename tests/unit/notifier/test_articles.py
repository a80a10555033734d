"""Articles beside the acknowledgement: what is asked, what is found sure enough, and what a floor is worth."""

import pytest

from services.notifier.adapters.guides import GUIDES
from services.notifier.core.articles import (
    NO_ARTICLES,
    ArticleMistake,
    ArticlesFile,
    Candidate,
    GuideFile,
    Judged,
    build_articles,
    choose,
    folded,
    lowest_floor,
    parse,
    question,
    score,
    thresholds,
    weight,
)

HEAD = "---\ntitle: Where is my order?\nurl: https://help.example/order\nkeywords: parcel\n---\n"
ASKED = {"order": 1.0, "late": 1.0}
SOURCES = {"en/order.md": HEAD + "Words."}
KINDS = {name: guide.settings for name, guide in GUIDES.items()}


def candidate(name: str, title: set[str], text: set[str]) -> Candidate:
    return Candidate(
        name, name.title(), f"https://help.example/{name}", "", frozenset(title), frozenset(text)
    )


class TestAnArticle:
    def test_is_read_with_its_first_paragraph_as_the_summary_and_without_marks(self) -> None:
        article = parse(
            "order", "en", HEAD + "Every order has a [link](https://x.example/a).\n\n- One\n- Two\n"
        )

        assert article.title == "Where is my order?"
        assert article.summary == "Every order has a link."
        assert article.text == "Every order has a link.\nOne Two"
        assert article.keywords == "parcel"

    @pytest.mark.parametrize(
        ("source", "field"),
        [
            ("No head at all", "head"),
            ("---\ntitle: A\nurl: https://help.example/a\nauthor: me\n---\nWords", "head"),
            ("---\nurl: https://help.example/a\n---\nWords", "title"),
            ("---\ntitle: A\nurl: http://help.example/a\n---\nWords", "url"),
            ("---\ntitle: A\nurl: javascript:alert(1)\n---\nWords", "url"),
            (HEAD + "\n \n", "text"),
        ],
    )
    def test_that_cannot_be_shown_is_refused_with_the_field(self, source: str, field: str) -> None:
        with pytest.raises(ArticleMistake) as refused:
            parse("order", "en", source)

        assert refused.value.field == field

    def test_loses_html_and_lines_that_could_forge_others(self) -> None:
        article = parse("order", "en", HEAD + "Say <script>alert(1)</script> \u202eno\x00 more.")

        assert article.text == "Say alert(1) no more."


class TestWhatIsAsked:
    def test_leaves_out_what_is_the_customers_own(self) -> None:
        asked = question(
            "Order SB-10023", "Where is 1001-22? Write to ada@example.com or https://ada.example/me"
        )

        assert asked == "Order Where is ? Write to or"

    def test_is_the_beginning_of_a_long_message(self) -> None:
        assert len(question("", "lamp " * 500)) <= 300

    def test_is_nothing_where_no_word_is_left(self) -> None:
        assert question("12345", "ada@example.com 99.50") == ""

    def test_is_lowered_as_its_language_has_it(self) -> None:
        assert folded("İADE ISI", "tr") == "iade ısı"
        assert folded("Счёт", "ru") == "счет"


class TestAScore:
    def test_is_the_share_of_the_questions_weight_that_the_article_knows(self) -> None:
        asked = {"order": 1.0, "late": 3.0}

        assert score(asked, candidate("a", {"order"}, {"late"})) == pytest.approx((1 + 3 * 0.7) / 4)

    def test_counts_a_word_for_more_that_fewer_articles_have(self) -> None:
        assert weight(0, 10) > weight(1, 10) > weight(9, 10) > 0

    def test_of_nothing_is_nothing(self) -> None:
        assert score({}, candidate("a", {"order"}, set())) == 0


class TestWhatIsNamed:
    def test_is_sure_enough_and_the_surest_comes_first(self) -> None:
        both = candidate("both", {"order", "late"}, set())
        one = candidate("one", {"order"}, set())
        none = candidate("none", {"desk"}, set())

        named = choose(ASKED, [none, one, both], floor=0.5)

        assert [article.title for article in named] == ["Both", "One"]
        assert choose(ASKED, [one], floor=0.51) == ()

    def test_is_never_the_same_page_twice_and_never_more_than_a_few(self) -> None:
        same = [candidate("both", {"order", "late"}, set())] * 2
        many = [candidate(f"n{n}", {"order", "late"}, set()) for n in range(9)]

        assert len(choose(ASKED, same, floor=0.1)) == 1
        assert len(choose(ASKED, many, floor=0.1)) == 3


class TestAFloor:
    def test_tells_how_many_get_an_article_and_for_how_many_it_is_right(self) -> None:
        judged = [Judged(0.9, True), Judged(0.6, True), Judged(0.6, False), Judged(0.2, False)]

        middle = thresholds(judged)[1]

        assert (middle.floor, middle.named, middle.right) == (0.6, 3, 2)
        assert middle.precision == pytest.approx(2 / 3)
        assert middle.coverage == pytest.approx(3 / 4)

    def test_counts_every_article_that_would_be_named_and_each_question_once(self) -> None:
        """Two questions: the second article of the first one is named too, and a question has one right article."""
        judged = [Judged(0.9, True), Judged(0.7, False, place=1), Judged(0.3, True)]

        low, middle, high = thresholds(judged)

        assert (low.named, low.right, low.helped, low.asked) == (3, 2, 2, 2)
        assert (middle.named, middle.right, middle.coverage) == (2, 1, 0.5)
        assert (high.named, high.right, high.coverage) == (1, 1, 0.5)

    def test_is_not_proved_by_a_few_questions(self) -> None:
        assert lowest_floor([Judged(0.9, True)] * 10, sure=0.8) is None
        assert lowest_floor([Judged(0.9, True)] * 20, sure=0.8) is not None

    def test_is_the_lowest_that_is_sure_enough(self) -> None:
        judged = [Judged(0.9, True)] * 30 + [Judged(0.4, True)] * 10 + [Judged(0.2, False)] * 30

        best = lowest_floor(judged, sure=0.8)

        assert best is not None
        assert best.floor == 0.4

    def test_interval_is_wilsons(self) -> None:
        # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 at 95 %: from 0.2553.
        judged = [Judged(0.9, True)] * 81 + [Judged(0.9, False)] * 182
        assert thresholds(judged)[0].sure == pytest.approx(0.2553, abs=5e-5)
        assert thresholds([]) == ()


class TestThePolicy:
    def build(self, **file: object) -> object:
        return build_articles(ArticlesFile.model_validate(file), SOURCES, ("en", "tr", "ru"), KINDS)

    def test_has_no_articles_unless_somebody_says_where_they_are(self) -> None:
        assert self.build() == NO_ARTICLES

    def test_asks_in_no_language_without_a_floor(self) -> None:
        policy = build_articles(
            ArticlesFile(source="folder", floor={"en": 0.5}), SOURCES, ("en", "tr"), KINDS
        )

        assert policy.is_asked("en")
        assert not policy.is_asked("tr")

    @pytest.mark.parametrize(
        ("file", "where"),
        [
            ({"source": "library"}, "articles.source"),
            ({"floor": {"de": 0.5}}, "articles.floor.de"),
            ({"guides": {"help": {"vendor": "wiki"}}}, "articles.guides.help.vendor"),
            (
                {"guides": {"help": {"vendor": "helpscout_docs", "key": "secret", "sites": {}}}},
                "articles.guides.help.key",
            ),
        ],
    )
    def test_refuses_what_cannot_work_with_its_place(
        self, file: dict[str, object], where: str
    ) -> None:
        with pytest.raises(ArticleMistake) as refused:
            self.build(**file)

        assert refused.value.field == where
        assert "secret" not in str(refused.value)

    def test_names_the_article_that_cannot_be_used(self) -> None:
        with pytest.raises(ArticleMistake, match=r"articles/en/broken\.md: head"):
            build_articles(ArticlesFile(source="folder"), {"en/broken.md": "Words"}, ("en",), KINDS)

    def test_takes_each_kind_of_help_centre_by_its_example(self) -> None:
        guides = {
            name: GuideFile.model_validate({"vendor": name, **guide.settings.EXAMPLE})
            for name, guide in GUIDES.items()
        }

        for name in GUIDES:
            policy = build_articles(
                ArticlesFile(source=name, guides=guides, floor={"en": 0.5}), {}, ("en",), KINDS
            )
            assert policy.vendor == name
