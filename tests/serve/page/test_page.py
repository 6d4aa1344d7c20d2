"""The chat page in headless Chromium, against a stub of the endpoint that each test answers by hand."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow
SHIFT, CONTROL = 8, 2


def messages(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]


def test_history_and_settings_are_sent(open_page, stub):
    page = open_page()
    page.click("#open-settings")
    page.until("document.getElementById('settings').open")
    page.evaluate("document.getElementById('max-tokens').value = 64, document.getElementById('system').focus()")
    page.write("你是医生。")
    page.click("#settings .primary")
    page.until("document.querySelector('.summary').textContent === 'Temperature 0.7, ≤ 64 tokens'")
    for prompt, answer in (("头痛", "多休息。"), ("然后呢", "按时服药。")):
        page.ask(prompt)
        call = stub.call()
        call.say(answer)
        call.finish("length", tokens=64)
        page.wait_for_end()
    assert call.body == {
        "model": "sft",
        "messages": [{"role": "system", "content": "你是医生。"}, *messages("头痛", "多休息。", "然后呢")],
        "temperature": 0.7,
        "max_tokens": 64,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert page.texts(".finish") == ["Truncated at 64 tokens"] * 2
    assert page.text(".system") == "with system prompt"


def test_settings_that_cannot_be_sent_are_not_taken(open_page, stub):
    page = open_page()
    page.click("#open-settings")
    page.evaluate("document.getElementById('temperature').value = '-1'")
    page.click("#settings .primary")
    assert page.evaluate("document.getElementById('settings').open")
    page.press("Escape")
    page.until("document.getElementById('temperature').value === '0.7'")
    page.ask("头痛")
    assert stub.call().body["temperature"] == 0.7


def test_enter_sends_except_with_shift_and_while_composing(open_page, stub):
    page = open_page()
    assert page.evaluate("document.activeElement.id") == "message"
    page.press("Enter")  # nothing written yet
    page.compose("tou")
    page.press("Enter", types=False)  # the input method takes it
    page.write("头痛")  # replaces what was being composed
    page.press("Enter", SHIFT)
    page.write("三天")
    assert page.evaluate("document.getElementById('message').value") == "头痛\n三天"
    assert stub.idle()
    page.press("Enter")
    call = stub.call()
    assert call.body["messages"] == messages("头痛\n三天")
    page.write("还有")
    page.press("Enter")  # the answer is still coming
    page.until("document.getElementById('said').textContent.includes('Still responding')")
    call.finish()
    page.wait_for_end()
    assert stub.idle()
    assert page.evaluate("document.getElementById('message').value") == "还有"


def test_a_key_code_of_the_input_method_does_not_send(open_page, stub):
    page = open_page()
    page.write("头痛")
    page.evaluate(
        "document.getElementById('message').dispatchEvent("
        "new KeyboardEvent('keydown', { key: 'Enter', keyCode: 229, bubbles: true, cancelable: true }))"
    )
    assert page.evaluate("document.getElementById('message').value") == "头痛"
    assert stub.idle()


def test_a_new_conversation_forgets_the_old(open_page, stub):
    page = open_page()
    page.ask("头痛")
    call = stub.call()
    page.press("k", CONTROL)
    assert call.was_aborted()
    assert page.texts(".turn") == []
    assert page.evaluate("document.activeElement.id") == "message"
    page.ask("发热")
    assert stub.call().body["messages"] == messages("发热")


def test_two_columns_ask_two_models_at_once(open_page, stub):
    page = open_page()
    page.ask("头痛")
    call = stub.call()
    call.say("多休息。")
    call.finish()
    page.wait_for_end()
    page.click("#compare")
    page.ask("发热")
    calls = stub.calls(2)
    assert calls["sft"].body["messages"] == messages("头痛", "多休息。", "发热")
    assert calls["ppo"].body["messages"] == messages("头痛", "多休息。", "发热")
    calls["ppo"].say("多喝水。")
    page.wait_for_text("多喝水。", column="B")
    calls["sft"].say("量体温。")
    page.wait_for_text("量体温。")
    for call in calls.values():
        call.finish()
    page.wait_for_end()
    left, right = page.evaluate(
        "[...document.querySelectorAll('.turn:last-child .answer')].map((e) => e.getBoundingClientRect().toJSON())"
    )
    assert left["right"] < right["left"]
    assert left["top"] == right["top"]
    page.ask("还有")
    histories = {model: call.body["messages"][3]["content"] for model, call in stub.calls(2).items()}
    assert histories == {"sft": "量体温。", "ppo": "多喝水。"}


def test_a_key_is_asked_for_and_sent(open_page, stub):
    stub.key = "secret"
    page = open_page()
    assert page.evaluate("document.activeElement.id") == "api-key"
    page.write("wrong")
    page.press("Enter")
    page.until("document.getElementById('key-title').textContent.includes('does not accept')")
    page.write("secret")
    page.press("Enter")
    page.until("document.activeElement.id === 'message'")
    stub.key = "changed"
    page.ask("头痛")
    page.until("document.activeElement.id === 'api-key'")
    assert page.text(".answer .error .message") == "a valid API key is needed"
    page.write("changed")
    page.press("Enter")
    call = stub.call()
    assert call.authorization == "Bearer changed"
    call.say("多休息。")
    page.wait_for_text("多休息。")
    assert page.texts(".error") == []
    assert page.evaluate("[Object.values(sessionStorage), Object.values(localStorage), document.cookie]") == [
        ["changed"],
        [],
        "",
    ]


def test_models_that_are_not_there_can_be_asked_for_again(open_page, stub):
    stub.models = []
    page = open_page()
    assert page.text("#notice .headline") == "The endpoint serves no model"
    stub.models = ["ppo"]
    page.click("#notice .retry")
    page.until("document.getElementById('model-a').value === 'ppo'")
    assert page.texts("#notice .error") == []


def test_two_languages(open_page, stub):
    page = open_page(language="zh-CN")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.text("#send") == "发送"
    page.ask("头痛")
    stub.call().finish("length")
    page.wait_for_end()
    assert page.text(".finish") == "已在 512 个 token 处截断"
    page.click("#language")
    assert (page.text("#send"), page.text(".finish")) == ("Send", "Truncated at 512 tokens")
    assert page.evaluate("[document.documentElement.lang, document.title]") == ["en", "ChiMed-RLHF chat"]
    assert page.text(".note") == "仅供研究，不构成医疗建议。 For research only, not medical advice."
    used = page.evaluate(
        "import('/page/text.js').then(({ TEXT }) => [TEXT.en, TEXT.zh].map((table) => Object.keys(table).sort()))"
    )
    assert used[0] == used[1]


def test_light_and_dark(open_page):
    grounds = [
        open_page(scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert grounds == ["rgb(250, 250, 248)", "rgb(19, 22, 23)"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_text_is_readable(open_page, stub, scheme, width):
    page = open_page(width=width, scheme=scheme)
    page.ask("头痛怎么办？")
    call = stub.call()
    call.say("多休息。")
    call.finish("length")
    page.until("document.querySelector('[data-state=length]') !== null")
    assert page.faint() == []
    assert page.overflow() == 0


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
def test_nothing_is_wider_than_a_small_phone(open_page, stub, language):
    stub.models = ["runs/quickstart/a-rather-long-name-of-a-checkpoint/model", "ppo"]
    stub.refuse(400, "x" * 300)
    page = open_page(width=360, height=640, language=language)
    page.click("#compare")
    page.ask("y" * 300)
    call = stub.call()
    call.say("z" * 300)
    call.finish("length")
    page.wait_for_end()
    wide = "[...document.querySelectorAll('html, main')].map((e) => e.scrollWidth - e.clientWidth)"
    assert page.evaluate(wide) == [0, 0]
    page.click("#open-settings")
    assert (
        page.evaluate(
            "(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth)(document.querySelector('#settings'))"
        )
        == 0
    )


def test_the_keyboard_reaches_everything(open_page):
    page = open_page()
    page.evaluate("document.querySelector('.skip').focus()")
    reached = []
    for _ in range(10):
        page.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    examples = [""] * 3
    assert reached == [
        *("compare", "new", "language", "model-a"),
        *examples,
        *("message", "open-settings", "send"),
    ]
    page.evaluate("document.querySelector('.skip').focus()")
    page.click(".skip")  # it comes into view, over everything, when it has the focus
    page.evaluate("document.querySelector('.skip').focus()")
    page.press("Enter")
    assert page.evaluate("document.activeElement.id") == "message"
