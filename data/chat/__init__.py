"""The chat format of a checkpoint: its own chat template, the tokens to train on, the tokens that end a response.

The tokenizer's `chat_template` is the format. Token ids always equal those of `tokenizer.apply_chat_template`. The
assistant's tokens and the tokens that end a turn are derived from rendered chats and verified.
"""

from data.chat.ends import chat_ends, without_end
from data.chat.format import ChatFormat, chat_format, encode_chat, encode_prompt
from data.chat.messages import Message, check_messages
from data.chat.settings import apply_settings
from data.chat.templates import BOT, CHAT_TEMPLATE, HUMAN, RESERVED

__all__ = [
    "BOT",
    "CHAT_TEMPLATE",
    "HUMAN",
    "RESERVED",
    "ChatFormat",
    "Message",
    "apply_settings",
    "chat_ends",
    "chat_format",
    "check_messages",
    "encode_chat",
    "encode_prompt",
    "without_end",
]
