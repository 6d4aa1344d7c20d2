"""One answer in headless Chromium: it streams, can be stopped, says how it ended and what went wrong."""

from __future__ import annotations

import json
import re

import pytest

pytestmark = pytest.mark.slow


def test_an_answer_appears_as_it_streams(open_page, stub):
    page = open_page()
    page.ask("头痛怎么办")
    call = stub.call()
    assert page.text(".facts") == "Waiting for the first token"
    call.say("多")
    page.wait_for_text("多")
    call.say("休息。")
    page.wait_for_text("多休息。")
    assert page.evaluate("document.querySelector('.text').lang") == "zh-CN"
    assert page.evaluate("document.querySelector('.answer').dataset.state") == "streaming"
    call.finish("stop", tokens=3)
    page.wait_for_end()
    end, first, tokens, rate = page.texts(".facts span")
    assert (end, tokens) == ("complete", "3 tokens")
    assert re.fullmatch(r"first token \d+\.\d\d s", first)
    assert re.fullmatch(r"[\d,]+\.\d tokens/s", rate)


def test_characters_and_events_cut_in_two_arrive_whole(open_page, stub):
    page = open_page()
    page.ask("头痛")
    call = stub.call()
    event = ": alive\r\n\r\ndata: " + json.dumps({"choices": [{"delta": {"content": "药"}}]}, ensure_ascii=False)
    raw = event.encode() + b"\r\n\r\n"
    cut = raw.index("药".encode()) + 1
    for piece in (raw[:cut], raw[cut:-1], raw[-1:] + b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'):
        call.pieces.put(piece)
        page.command("Runtime.evaluate", expression="new Promise((go) => setTimeout(go, 50))", awaitPromise=True)
    page.wait_for_text("药")
    call.finish()
    page.wait_for_end()
    assert page.text(".text") == "药"


def test_escape_stops_and_what_was_said_stays(open_page, stub):
    page = open_page()
    page.ask("头痛")
    call = stub.call()
    call.say("多休")
    page.wait_for_text("多休")
    page.click("#open-settings")
    page.press("Escape")  # closes the settings, no more
    page.until("!document.getElementById('settings').open")
    call.say("息")
    page.wait_for_text("多休息")
    page.press("Escape")
    assert call.was_aborted()
    page.wait_for_end()
    assert page.texts(".finish") == ["stopped"]
    page.ask("继续")
    assert [message["content"] for message in stub.call().body["messages"]] == ["头痛", "多休息", "继续"]


def test_an_error_says_why_and_can_be_tried_again(open_page, stub):
    stub.refuse(429, "60 requests a minute are allowed", Retry_After="7")
    page = open_page()
    page.ask("头痛")
    page.until("document.querySelector('.error')")
    parts = [page.text(f".error .{part}") for part in ("headline", "message", "wait", "request")]
    assert parts == [
        "Too many requests",
        "60 requests a minute are allowed",
        "The endpoint asks to wait 7 s.",
        "Request req-429",
    ]
    page.click(".retry")
    call = stub.call()
    assert call.body["messages"] == [{"role": "user", "content": "头痛"}]
    call.say("多休息。")
    call.finish()
    page.wait_for_end()
    assert page.texts(".error") == []
    assert page.evaluate("document.activeElement.id") == "message"


@pytest.mark.parametrize(
    ("last", "headline"),
    [
        (
            b'data: {"error": {"message": "replica died"}}\n\n',
            "The response stopped because of an error\n\nreplica died",
        ),
        (b"data: [DONE]\n\n", "The connection broke before the response was complete"),
        (b"", "The connection broke before the response was complete"),
        (b"data: <html>\n\n", "The endpoint sent a response that this page cannot read"),
    ],
    ids=["error", "no reason", "cut", "not json"],
)
def test_an_answer_that_breaks_off_is_marked(open_page, stub, last, headline):
    page = open_page()
    page.ask("头痛")
    call = stub.call()
    call.say("多休")
    page.wait_for_text("多休")
    call.pieces.put(last)
    call.pieces.put(None)
    page.wait_for_end()
    assert page.texts(".finish") == ["incomplete"]
    assert page.text(".error").startswith(headline)
    assert page.text(".error .request") == "Request req-200"


def test_markup_is_shown_as_text(open_page, stub):
    page = open_page()
    markup = "<img src=x onerror=alert(1)><b>多休息</b>"
    page.ask(markup)
    call = stub.call()
    call.say(markup)
    call.finish()
    page.wait_for_end()
    assert (page.text(".prompt"), page.text(".text")) == (markup, markup)


def test_a_turn_without_an_answer_is_not_sent_again(open_page, stub):
    stub.refuse(400, "4,097 tokens, and 4,096 fit")
    page = open_page()
    page.ask("头痛")
    page.until("document.querySelector('.error')")
    page.ask("发热")
    assert stub.call().body["messages"] == [{"role": "user", "content": "发热"}]
    assert page.evaluate("document.querySelector('.retry').checkVisibility()") is False


def test_an_endpoint_that_is_gone_is_named_so(open_page, stub):
    page = open_page()
    page.command("Network.enable")
    page.command("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
    stub.provoked.add("net::ERR_INTERNET_DISCONNECTED")
    page.ask("头痛")
    page.until("document.querySelector('.error')")
    assert page.text(".headline") == "The endpoint cannot be reached"


def test_the_page_follows_an_answer_until_the_reader_goes_up(open_page, stub):
    page = open_page()
    page.ask("头痛")
    call = stub.call()
    at_end = "Math.abs(document.documentElement.scrollHeight - innerHeight - scrollY) < 2"
    text = "多休息。\n" * 50
    call.say(text)
    page.wait_for_text(text)
    page.until(f"scrollY > 200 && {at_end}")
    page.evaluate("scrollBy(0, -300)")
    page.until("new Promise((go) => requestAnimationFrame(() => go(true)))")
    above = page.evaluate("scrollY")
    call.say(text)
    page.wait_for_text(text * 2)
    page.until("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => go(true))))")
    assert page.evaluate("scrollY") == above
    call.finish()
    page.wait_for_end()
    page.ask("发热")
    page.until(at_end)
