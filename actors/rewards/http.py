"""Rewards from an HTTP endpoint: posts samples in batches, several concurrently, and retries transient failures."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from dataclasses import dataclass

import httpx

from actors.http_retry import RequestFailed, RetryPolicy
from actors.rewards.bodies import CONVERSATIONS, SAMPLES
from actors.rewards.config import HttpRewardConfig
from actors.rewards.sample import RewardFunctionError, Sample, beginning, checked, describe, label_of
from configs.errors import ConfigError

_RETRIED = (429, *range(500, 1000))  # HTTP statuses that are retried
BODY_CHARACTERS = 200  # characters of a response's body that a message quotes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Batch:
    """One request: its name in messages, its samples, and its body."""

    where: str
    samples: list[Sample]
    body: bytes


class RemoteReward:
    """An HTTP endpoint that scores samples, with the bodies of actors/rewards/bodies.py."""

    def __init__(self, name: str, config: HttpRewardConfig) -> None:
        """Reads the API key; sends no request yet.

        Args:
            name: the reward's name.
            config: URL, limits, and retries.

        Raises:
            ConfigError: the environment variable of the key is not set, or its value cannot be sent in a header.
        """
        self.name = name
        self._config = config
        self._retry = RetryPolicy(config.retries + 1, _RETRIED)
        self._url = httpx.URL(config.url)
        # Messages omit the query, which may contain a token.
        self._label = f"{label_of(name)}: {self._url.copy_with(query=None, fragment=None)}"
        self._form = CONVERSATIONS if config.takes_conversations else SAMPLES
        self._key = _read_key(label_of(name), config.api_key_variable)
        # Without TLS there is no certificate to verify, and loading the trusted ones takes 0.2 s.
        self._verify = httpx.create_ssl_context() if self._url.scheme == "https" else False

    def score(self, samples: list[Sample]) -> list[float]:
        """Returns one finite number per sample, in order. Call it in a thread without a running event loop.

        Raises:
            RewardFunctionError: all attempts of a batch failed, or its response does not have one finite number per
                sample.
        """
        return asyncio.run(self._score(self._cut(samples)))

    def _cut(self, samples: list[Sample]) -> list[_Batch]:
        size = self._config.batch_size
        parts = [samples[start : start + size] for start in range(0, len(samples), size)]
        batches = []
        for number, part in enumerate(parts, start=1):
            where = f"{self._label}, batch {number} of {len(parts)}"
            batches.append(_Batch(where, part, self._form.encode(where, part)))
        return batches

    async def _score(self, batches: list[_Batch]) -> list[float]:
        slots = asyncio.Semaphore(self._config.concurrent)
        # No compression, so that the size limit on received bytes also limits memory.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"

        async def rewards(batch: _Batch) -> list[float]:
            async with slots:  # held between retries too, so that an overloaded endpoint gets fewer requests
                return self._read(batch, await self._answer(client, batch))

        async with httpx.AsyncClient(headers=headers, verify=self._verify, timeout=None) as client:  # noqa: S113 - asyncio.timeout limits the whole exchange
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(rewards(batch)) for batch in batches]
            except ExceptionGroup as failures:
                first = failures.exceptions[0]
                raise first from first.__cause__
        return [reward for task in tasks for reward in task.result()]

    async def _answer(self, client: httpx.AsyncClient, batch: _Batch) -> httpx.Response:
        """Returns the first 2xx response in `retries` + 1 attempts. Raises RewardFunctionError if there is none."""
        tried = 1
        while True:
            try:
                return await self._post(client, batch)
            except RequestFailed as failed:
                wait_s = self._retry.wait_s(failed, tried)
                if wait_s is None:
                    raise RewardFunctionError(f"{batch.where}, try {tried}: {failed}") from failed.__cause__
                logger.warning("%s: %s; trying again in %.1f s", batch.where, failed, wait_s)
            await asyncio.sleep(wait_s)
            tried += 1

    async def _post(self, client: httpx.AsyncClient, batch: _Batch) -> httpx.Response:
        try:
            async with asyncio.timeout(
                self._config.timeout_s
            ):  # limits the whole exchange; httpx's timeouts apply to each chunk
                async with client.stream("POST", self._url, content=batch.body) as stream:
                    response = await self._whole(stream)
        except TimeoutError as error:
            raise RequestFailed(f"no response within timeout_s {self._config.timeout_s:g}", again=True) from error
        except httpx.RequestError as error:
            again = isinstance(error, httpx.TransportError)
            raise RequestFailed(f"no response: {type(error).__name__}: {error}", again=again) from error
        if response.is_success:
            return response
        raise self._retry.failed(
            response, f"status {response.status_code}{self._hint(response, batch)}: {self._beginning(response)}"
        )

    async def _whole(self, stream: httpx.Response) -> httpx.Response:
        """Reads the response's body, up to the size limit. Raises RequestFailed if it is larger or compressed."""
        if stream.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise RequestFailed("the response is compressed, which the request did not accept", again=False)
        body, most = bytearray(), self._config.max_response_bytes
        async for part in stream.aiter_raw():
            body += part
            if len(body) > most:
                raise RequestFailed(f"the response is larger than max_response_bytes {most}", again=False)
        headers = {name: value for name, value in stream.headers.items() if name.lower() != "transfer-encoding"}
        return httpx.Response(stream.status_code, headers=headers, content=bytes(body), request=stream.request)

    def _read(self, batch: _Batch, response: httpx.Response) -> list[float]:
        where = f"{batch.where}: status {response.status_code}"
        try:
            reply = json.loads(response.content)
        except (ValueError, RecursionError) as error:
            raise RewardFunctionError(f"{where}: the response is not JSON: {self._beginning(response)}") from error
        try:
            rewards = self._form.read(reply)
        except (LookupError, TypeError) as error:
            raise RewardFunctionError(
                f"{where}: the response is not {self._form.answer}: {self._beginning(response)}"
            ) from error
        return checked(where, batch.samples, rewards)

    def _hint(self, response: httpx.Response, batch: _Batch) -> str:
        """Returns details of an error response, if any: a redirect's target, or the sample that `serve` rejected."""
        if response.has_redirect_location:
            return f", to {response.headers['Location']}, which the url must name itself"
        refused = re.search(r'"conversations\.(\d{1,9})\b', response.text)
        if refused and int(refused[1]) < len(batch.samples):
            return f" for {describe(batch.samples[int(refused[1]) :][:1])}"
        return ""

    def _beginning(self, response: httpx.Response) -> str:
        text = response.text.replace(self._key, "KEY") if self._key else response.text
        return beginning(text, BODY_CHARACTERS)


def _read_key(label: str, variable: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"{label}: api_key_variable: the environment variable {variable} is not set; export the key")
    if not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(f"{label}: api_key_variable: {variable} holds other than printable ASCII characters")
    return key
