"""A model behind an OpenAI-compatible endpoint: concurrent chat completions, retried after transient errors."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx

from actors.http_retry import RequestFailed, RetryPolicy
from configs.errors import ConfigError, RunError
from evals.models.respondent import Chat, Reply
from evals.result_cache import ResultCache

KEY_VARIABLE = "CHIMED_ENDPOINT_KEY"
CONCURRENT = 8
TIMEOUT_S = 300.0
TOP = 20
"""Number of most likely first tokens to request: the API's maximum."""

_RETRY = RetryPolicy(tries=4, statuses=(408, 425, 429, 500, 502, 503, 504))
_SHOWN = 200  # characters of a reply that error messages quote

Kept = TypeVar("Kept")


class EndpointRespondent:
    """A respondent that sends greedy requests to `URL/chat/completions`.

    Completed chunks remain in the result cache if the endpoint fails.
    """

    def __init__(self, url: str, model: str | None, result_cache: ResultCache) -> None:
        """Requests the endpoint's list of models and selects one.

        Args:
            url: the URL up to and including `/v1`. An API key, if needed, is read from `CHIMED_ENDPOINT_KEY`.
            model: the model's name at the endpoint; None selects the only one.
            result_cache: cache of the responses.

        Raises:
            ConfigError: the endpoint does not return its models, does not have this model, or has several and none is
                named.
        """
        key = os.environ.get(KEY_VARIABLE)
        self._url, self._result_cache = url.rstrip("/"), result_cache
        self._client = httpx.Client(timeout=TIMEOUT_S, headers={"Authorization": f"Bearer {key}"} if key else None)
        self.name = self._choose(model)
        self._answered = 0

    def fits(self, chat: Chat, more: int) -> bool:
        """Returns True, because only the endpoint knows its context length; it rejects chats that are too long."""
        return True

    def answer(self, chats: Sequence[Chat], max_tokens: int, label: str) -> list[Reply]:
        """See `Respondent`."""
        kept = self._through(["answer", max_tokens], chats, lambda chat: self._written(chat, max_tokens), label)
        return [Reply(*reply) for reply in kept]

    def option_logprobs(self, chats: Sequence[Chat], options: Sequence[Sequence[str]], label: str) -> list[list[float]]:
        """See `Respondent`; uses the log-probabilities of the `TOP` most likely first tokens.

        An option that is not among them gets the lowest of their log-probabilities, an upper bound of its actual one.
        If no option is among them, the chat's list is empty.
        """
        firsts = self._through(["option_logprobs"], chats, self._first_tokens, label)
        return [_weights(first, own) for first, own in zip(firsts, options, strict=True)]

    def _through(self, what: list[Any], chats: Sequence[Chat], ask: Callable[[Chat], Kept], label: str) -> list[Kept]:
        self._answered, total = 0, len(chats)

        def ask_all(chunk: Sequence[Chat]) -> list[Kept]:
            with ThreadPoolExecutor(CONCURRENT) as pool:
                try:
                    answers = list(pool.map(ask, chunk))
                except RunError as error:
                    pool.shutdown(cancel_futures=True)
                    raise RunError(
                        f"{label}: {error}; {self._answered} of {total} responses are saved: "
                        "run the same command again to continue from there"
                    ) from error
            self._answered += len(chunk)
            return answers

        asked = [list(chat) for chat in chats]
        return self._result_cache.through([self._url, self.name, *what], asked, ask_all, size=4 * CONCURRENT)

    def _written(self, chat: Chat, max_tokens: int) -> tuple[str, bool, str]:
        body = self._post(chat, max_tokens=max_tokens)
        if isinstance(body, str):
            return "", True, body
        choice = self._choice(body)
        text = choice["message"].get("content") or ""
        # The text may contain half a surrogate pair if the length limit splits an emoji; UTF-8 cannot encode that.
        whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        return whole, choice.get("finish_reason") != "length", ""

    def _first_tokens(self, chat: Chat) -> list[tuple[str, float]]:
        body = self._post(chat, max_tokens=1, logprobs=True, top_logprobs=TOP)
        if isinstance(body, str):
            return []
        positions = (self._choice(body).get("logprobs") or {}).get("content")
        if not positions:
            raise ConfigError(f"{self._url}: returns no log-probabilities; evaluate with --methods generation")
        return [(each["token"], each["logprob"]) for each in positions[0].get("top_logprobs", [])]

    def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            choice: dict[str, Any] = body["choices"][0]
        except (KeyError, IndexError, TypeError) as error:
            raise RunError(f"{self._url}: the response has no choices: {str(body)[:_SHOWN]}") from error
        return choice

    def _post(self, chat: Chat, **settings: Any) -> dict[str, Any] | str:
        """Returns the body of the endpoint's reply, or the error text if the endpoint rejects this chat.

        Raises:
            RunError: no attempt returned a usable reply.
        """
        request = {"model": self.name, "messages": list(chat), "temperature": 0.0, "seed": 0, **settings}
        tried = 1
        while True:
            try:
                return self._post_once(request)
            except RequestFailed as failed:
                wait_s = _RETRY.wait_s(failed, tried)
                if wait_s is None:
                    raise RunError(f"{self._url}: no response after {tried} attempts ({failed})") from failed.__cause__
            time.sleep(wait_s)
            tried += 1

    def _post_once(self, request: dict[str, Any]) -> dict[str, Any] | str:
        """Returns the result of a single attempt of `_post`.

        Raises:
            RequestFailed: the attempt returned no usable reply.
        """
        try:
            answer = self._client.post(f"{self._url}/chat/completions", json=request)
        except httpx.HTTPError as error:
            raise RequestFailed(f"{type(error).__name__}: {error}", again=True) from error
        if answer.status_code in (400, 413, 422):
            return f"the endpoint rejected the request ({answer.status_code}): {answer.text[:_SHOWN]}"
        if not answer.is_success:
            raise _RETRY.failed(answer, f"status {answer.status_code}: {answer.text[:_SHOWN]}")
        try:
            body: dict[str, Any] = answer.json()
        except ValueError as error:
            raise RequestFailed(f"not JSON: {answer.text[:_SHOWN]}", again=True) from error
        return body

    def _choose(self, model: str | None) -> str:
        try:
            answer = self._client.get(f"{self._url}/models")
            answer.raise_for_status()
            names = [each["id"] for each in answer.json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"--endpoint {self._url}: {self._url}/models lists no models ({error}); give the URL up to /v1, "
                f"and set {KEY_VARIABLE} if it requires a key"
            ) from error
        wanted = str(names[0]) if model is None and len(names) == 1 else model
        if wanted is None or wanted not in names:
            asked = f"there is no model '{model}'" if model else "there are several models"
            raise ConfigError(f"--endpoint {self._url}: {asked}; choose with --endpoint-model from {', '.join(names)}")
        return wanted


def _weights(first: Sequence[tuple[str, float]], options: Sequence[str]) -> list[float]:
    by_option: dict[str, float] = {}
    for token, value in first:
        by_option.setdefault(token.strip(), value)
    if not any(option in by_option for option in options):
        return []
    least = min(value for _, value in first)
    return [by_option.get(option, least) for option in options]
