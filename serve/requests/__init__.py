"""The bodies that the endpoint takes."""

from serve.requests.chat import ChatRequest
from serve.requests.others import CompletionRequest, DetokenizeRequest, ScoreRequest, TokenizeRequest

__all__ = ["ChatRequest", "CompletionRequest", "DetokenizeRequest", "ScoreRequest", "TokenizeRequest"]
