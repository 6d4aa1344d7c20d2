// Every word that the page says, in both languages, and how words get into elements.
//
// An element names its text by key: data-text (its content), data-label (aria-label), data-placeholder, data-title.
// Changing the language writes all of them again, so nothing else needs to know that there are two.

export const TEXT = {
  en: {
    title: "ChiMed-RLHF chat",
    skip: "Skip to the message",
    other_language: "中文",
    new: "New",
    new_hint: "New conversation ({keys})",
    compare: "Compare",
    compare_hint: "Send every message to two models, side by side",
    model_a: "Model A",
    model_b: "Model B",
    no_models: "no models",
    conversation: "Conversation",
    welcome: "Ask the model",
    welcome_detail:
      "A conversation stays in this tab and is gone when you close it. Compare sends every message to two models at once.",
    examples: "Questions to begin with",
    you: "You",
    answer_of: "Response of {model}",
    message: "Message",
    message_placeholder: "Ask a question",
    send: "Send",
    stop: "Stop",
    keys_send: "send",
    keys_line: "new line",
    keys_stop: "stop",
    note: "For research only, not medical advice.",
    settings: "Settings",
    settings_summary: "Temperature {temperature}, ≤ {max_tokens} tokens",
    settings_system: "with system prompt",
    settings_hint: "Used from the next message on, for both models.",
    temperature: "Temperature",
    temperature_hint: "0 always takes the likeliest token; up to 2.",
    max_tokens: "Maximum tokens",
    max_tokens_hint: "A response is truncated there. Prompt and response together have to fit the model's context.",
    system: "System prompt",
    system_hint: "Put before every conversation; empty for none.",
    key: "API key",
    key_set: "A key is set for this tab.",
    key_unset: "No key is set.",
    key_change: "Change key",
    key_ask: "This endpoint asks for an API key",
    key_refused: "The endpoint does not accept this API key",
    key_hint: "Kept in this tab only, until it is closed. Leave it empty to forget the key.",
    key_use: "Use key",
    cancel: "Cancel",
    done: "Done",
    waiting: "Waiting for the first token",
    fact_first: "first token {seconds:2} s",
    fact_tokens: "{tokens} tokens",
    fact_rate: "{rate:1} tokens/s",
    fact_first_hint: "From sending the message to the first text of the response",
    fact_rate_hint: "Tokens after the first, divided by the time from the first text to the last",
    finish_stop: "complete",
    finish_length: "Truncated at {max_tokens} tokens",
    finish_other: "ended: {reason}",
    finish_stopped: "stopped",
    finish_failed: "incomplete",
    retry: "Retry",
    retry_after: "The endpoint asks to wait {seconds} s.",
    request_id: "Request {id}",
    error_400: "The request was refused",
    error_401: "The API key was not accepted",
    error_404: "The model is not there",
    error_413: "The message is too large",
    error_429: "Too many requests",
    error_503: "The endpoint is busy",
    error_other: "The endpoint failed (status {status})",
    error_server: "The response stopped because of an error",
    error_unreachable: "The endpoint cannot be reached",
    error_unreadable: "The endpoint sent a response that this page cannot read",
    error_broken: "The connection broke before the response was complete",
    error_no_models: "The endpoint serves no model",
    say_busy: "Still responding. Press Escape to stop.",
    say_answering: "Responding",
    say_done: "{model}: {text}",
    say_length: "{model}, truncated: {text}",
    say_stopped: "{model}: stopped",
    say_new: "New conversation",
  },
  zh: {
    title: "ChiMed-RLHF 对话",
    skip: "跳到输入框",
    other_language: "English",
    new: "新对话",
    new_hint: "新对话（{keys}）",
    compare: "对比",
    compare_hint: "每条消息同时发给两个模型，并排显示",
    model_a: "模型 A",
    model_b: "模型 B",
    no_models: "没有模型",
    conversation: "对话内容",
    welcome: "向模型提问",
    welcome_detail: "对话只保留在这个标签页，关闭后即消失。打开“对比”，每条消息会同时发给两个模型。",
    examples: "可以从这些问题开始",
    you: "提问",
    answer_of: "{model} 的回答",
    message: "消息",
    message_placeholder: "请输入问题",
    send: "发送",
    stop: "停止",
    keys_send: "发送",
    keys_line: "换行",
    keys_stop: "停止",
    note: "仅供研究，不构成医疗建议。",
    settings: "设置",
    settings_summary: "温度 {temperature}，≤ {max_tokens} token",
    settings_system: "有系统提示词",
    settings_hint: "从下一条消息起生效，对两个模型相同。",
    temperature: "温度",
    temperature_hint: "取 0 时总选最可能的 token；上限 2。",
    max_tokens: "最大 token 数",
    max_tokens_hint: "回答到此截断。提示与回答合计不能超过模型的上下文长度。",
    system: "系统提示词",
    system_hint: "放在每次对话之前；留空则不使用。",
    key: "API 密钥",
    key_set: "此标签页已设置密钥。",
    key_unset: "尚未设置密钥。",
    key_change: "更换密钥",
    key_ask: "此服务需要 API 密钥",
    key_refused: "此服务不接受该 API 密钥",
    key_hint: "只保存在这个标签页，关闭后即清除。留空则忘记密钥。",
    key_use: "使用密钥",
    cancel: "取消",
    done: "完成",
    waiting: "等待第一个 token",
    fact_first: "首 token {seconds:2} 秒",
    fact_tokens: "{tokens} 个 token",
    fact_rate: "{rate:1} token/秒",
    fact_first_hint: "从发送消息到出现第一段文字的时间",
    fact_rate_hint: "首个之后的 token 数，除以从第一段文字到最后一段文字的时间",
    finish_stop: "已完成",
    finish_length: "已在 {max_tokens} 个 token 处截断",
    finish_other: "结束：{reason}",
    finish_stopped: "已停止",
    finish_failed: "未完成",
    retry: "重试",
    retry_after: "服务要求等待 {seconds} 秒。",
    request_id: "请求编号 {id}",
    error_400: "请求被拒绝",
    error_401: "API 密钥未被接受",
    error_404: "找不到该模型",
    error_413: "消息过大",
    error_429: "请求过于频繁",
    error_503: "服务繁忙",
    error_other: "服务出错（状态码 {status}）",
    error_server: "回答因错误而中断",
    error_unreachable: "无法连接到服务",
    error_unreadable: "服务返回了本页面无法读取的内容",
    error_broken: "回答完成之前连接中断",
    error_no_models: "服务没有提供任何模型",
    say_busy: "仍在回答，按 Esc 停止。",
    say_answering: "正在回答",
    say_done: "{model}：{text}",
    say_length: "{model}，已截断：{text}",
    say_stopped: "{model}：已停止",
    say_new: "新对话",
  },
};

const STORED = "chimed-language";
const TAGS = { en: "en", zh: "zh-CN" };
const values = new WeakMap(); // element -> what its text has in place of {name}

let language = localStorage.getItem(STORED) ?? (navigator.language.startsWith("zh") ? "zh" : "en");
if (!(language in TEXT)) language = "en";

/** The text of `key`; `{name}` becomes a value, `{name:2}` a number with two decimals. */
export function text(key, given = {}, into = language) {
  const template = TEXT[into][key];
  if (template === undefined) throw new Error(`text.js has no ${into} text named ${key}`);
  return template.replace(/\{(\w+)(?::(\d))?\}/g, (_, name, digits) => {
    const value = given[name];
    if (typeof value !== "number") return value;
    const decimals = digits === undefined ? {} : { minimumFractionDigits: digits, maximumFractionDigits: digits };
    return value.toLocaleString(TAGS[into], decimals);
  });
}

/** Give `element` the text of `key` as its content, now and after every change of language. */
export function label(element, key, given = {}) {
  element.dataset.text = key;
  values.set(element, given);
  write(element);
  return element;
}

/** Write the texts of everything below `root`; needed once for what comes out of a template. */
export function relabel(root) {
  for (const element of root.querySelectorAll("[data-text], [data-label], [data-placeholder], [data-title]")) write(element);
  return root;
}

function write(element) {
  const given = values.get(element) ?? { keys: shortcut("K") }; // the one value that markup by itself can have
  const { text: content, label, placeholder, title, language: fixed = language } = element.dataset;
  if (content) element.textContent = text(content, given, fixed);
  if (label) element.setAttribute("aria-label", text(label, given, fixed));
  if (placeholder) element.placeholder = text(placeholder, given, fixed);
  if (title) element.title = text(title, given, fixed);
}

/** Write the whole page in the language it is in. */
export function showLanguage() {
  document.documentElement.lang = TAGS[language];
  document.title = text("title");
  relabel(document);
}

export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem(STORED, language);
  showLanguage();
}

/** A text's own language, so that fonts and screen readers treat it as what it is, whatever the page speaks. */
export function languageOf(written) {
  return /\p{Script=Han}/u.test(written) ? TAGS.zh : TAGS.en;
}

export function shortcut(key) {
  return /Mac|iPhone|iPad/.test(navigator.userAgent) ? `⌘${key}` : `Ctrl+${key}`;
}
