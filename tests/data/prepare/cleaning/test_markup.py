"""HTML goes, values and comparisons stay."""

from __future__ import annotations

import html
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.prepare.cleaning.markup import strip_html


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("10.5×10<sup>9</sup>/L", "10.5×10⁹/L"),
        ("10<SUP>−6</SUP>、10<sup>&minus;6</sup>", "10⁻⁶、10⁻⁶"),
        ("CO<sub>2</sub>、Ca<sup>2+</sup>", "CO₂、Ca²⁺"),
        ("e<sup>kt/2</sup>，A<sub>甲</sub>", "e^(kt/2)，A_(甲)"),
        ("x<sup>2<sup>3</sup></sup>，x<sup>n<sub>1</sub></sup>", "x^(2³)，x^(n₁)"),
        ("疗效肯定<sup>[1-3]</sup>，某药<sup>®</sup>", "疗效肯定[1-3]，某药®"),
        ("10<sup><b>9</b></sup>，<jats:sup>13</jats:sup>C", "10⁹，¹³C"),
        ("10<sup>9，没有结束", "10<sup>9，没有结束"),
        ("<tr><td>10</td><td>20</td></tr><tr><td>3</td></tr>", "10 20\n3\n"),
        ("一<p>二<br/>三<li class=x>四", "一\n二\n三\n四"),
        ('<a href="x?a>b">甲</a><script>if (a<b) 乙</script><!-- <b> 丙 -->丁', "甲丁"),
        ("P&lt0.05，a&amp;lt;b，&#8804;5，&foo;", "P<0.05，a&lt;b，≤5，&foo;"),
        ("<section>甲<article>乙</article></section><code>x<y</code>", "甲\n乙\nx<y"),
        ('<input type="text" value="1">甲<svg><path d="M0"/></svg><iframe src="x"></iframe><mark>乙</mark>', "甲乙"),
        ('<w:r><w:sz w:val="24"/><w:t>甲</w:t></w:r><?xml version="1.0"?><![CDATA[乙<5]]>', "甲乙<5"),
        ("<math><msup><mn>10</mn><mn>9</mn></msup></math>/L", "10⁹/L"),
        (
            '<mml:math xmlns:mml="x"><mml:mfrac><mml:mi>a</mml:mi><mml:mrow><mml:mi>b</mml:mi><mml:mo>+</mml:mo>'
            "<mml:mn>1</mml:mn></mml:mrow></mml:mfrac><mml:mo>&le;</mml:mo><mml:msub><mml:mi>x</mml:mi><mml:mn>1</mml:mn>"
            "</mml:msub></mml:math>",
            "a/(b+1)≤x₁",
        ),
        (
            "<math><msqrt><mi>x</mi></msqrt><mo>&lt;</mo><msubsup><mi>y</mi><mn>1</mn><mn>2</mn></msubsup></math>",
            "√x<y₁²",
        ),
        ("<math><mi>x</math>", "<math><mi>x</math>"),
    ],
)
def test_values_survive(before, after):
    assert strip_html(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "若检验值A<B 且检验值C>D，则停药；若血钾P<U 而血钠I>B",
        "分流率a<b 时收缩压>140，A<B>C，x<hr>y，a<b and c>d，a<b/c>d",
        "P<0.05，x<y，5<x<10，体温<38℃",
        "<think>想</think>，<目录>，<篇名>，a<!-- b，x<style>y",
        "A<B C=5>D",
        "比值a<b:c>d，x<q>y，若a<time>b，r<s:t>u",
    ],
)
def test_comparisons_are_no_tags(text):
    assert strip_html(text) == text


WORDS = st.text(st.sampled_from("头痛0123456789.%×/-+=≤≥<> ℃μmgLABPUIabpiu，。且"), max_size=12)
TAGS = st.sampled_from(["b", "i", "span", "p", "div", "strong", "em", "td", "li", "font"])
ATTRIBUTES = st.sampled_from(["", ' class="a"', " align=left", " nowrap", " title='x y'"])


@settings(deadline=None, database=None, derandomize=True)
@given(WORDS)
def test_text_without_tags_is_left_as_it_is(text):
    """No attribute, no end tag: every `<` is a comparison, unless it is a whole tag with a neighbor that is no value."""
    kept = strip_html(text)
    if "><" not in text.replace(" ", "") and not any(f"<{name}>" in text.lower() for name in "p"):
        assert [one for one in kept if one in "<>"] == [one for one in text if one in "<>"]
        assert kept == text


@settings(deadline=None, database=None, derandomize=True)
@given(st.lists(st.tuples(TAGS, ATTRIBUTES, st.text(st.sampled_from("头痛0123456789.%×/≤℃mg，<>& "), max_size=9))))
def test_all_that_is_no_tag_survives(elements):
    """Escaped text between tags comes out as a browser would show it, blanks and line ends aside."""
    page = "".join(f"<{name}{more}>{html.escape(text)}</{name}>" for name, more, text in elements)
    seen = "".join(text for _, _, text in elements)
    assert "".join(strip_html(page).split()) == "".join(seen.split())


@settings(deadline=None, database=None, derandomize=True)
@given(st.integers(-99, 99), st.integers(1, 999), st.sampled_from(["sup", "SUP", "jats:sup"]))
def test_numbers_keep_their_exponents(exponent, number, tag):
    plain = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
    base, after = strip_html(f"{number}×10<{tag}>{exponent}</{tag}>/L").split("×10")
    assert (int(base), int(after.removesuffix("/L").translate(plain))) == (number, exponent)


SCRAPS = st.sampled_from(["<", ">", "/", "b", "sup", "sub", "script", "!--", "-->", " ", "=", '"', "&", "甲", "1"])


@settings(deadline=None, database=None, derandomize=True)
@given(st.lists(SCRAPS, max_size=40).map("".join))
def test_no_input_fails_or_loses_a_word(text):
    assert strip_html(text).count("甲") <= text.count("甲")


@pytest.mark.parametrize(
    "text", ["<a ", "<!--", "</b", "<b>", "<sup>", "<a x='", "<td x=1>", "<script>", "<sup>1</sub>", "&"]
)
def test_time_grows_with_the_length_only(text):
    begun = time.process_time()
    strip_html(text * 20_000)
    assert time.process_time() - begun < 10
