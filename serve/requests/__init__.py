"""The request bodies of the endpoint."""

from serve.requests.chat import ChatRequest
from serve.requests.messages import CountTokensRequest, MessagesRequest
from serve.requests.others import CompletionRequest, DetokenizeRequest, ScoreRequest, TokenizeRequest
from serve.requests.responses import ResponsesRequest

__all__ = [
    "ChatRequest",
    "CompletionRequest",
    "CountTokensRequest",
    "DetokenizeRequest",
    "MessagesRequest",
    "ResponsesRequest",
    "ScoreRequest",
    "TokenizeRequest",
]
