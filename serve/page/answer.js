// One model's answer to one prompt: it streams in, is timed, and says how it ended.

import { ApiError, streamChat } from "./api.js";
import { errorNote } from "./error.js";
import { TEXT, label, languageOf, relabel } from "./text.js";

export class Answer {
  text = "";
  error = null; // the ApiError that ended it
  #abort = new AbortController();
  #written;
  #facts;

  /** `column` is "A" or "B"; `retry` asks the same again, in this answer's place. */
  constructor(column, model, retry) {
    Object.assign(this, { column, model, retry });
    this.element = relabel(document.getElementById("answer-template").content.cloneNode(true)).firstElementChild;
    this.element.dataset.column = column;
    this.element.querySelector(".mark").textContent = column;
    label(this.element.querySelector(".sr"), "answer_of", { model });
    this.element.querySelector(".name").textContent = model;
    this.#written = this.element.querySelector(".text").appendChild(document.createTextNode(""));
    this.#facts = this.element.querySelector(".facts");
    this.#state = "waiting";
    this.#fact("waiting");
  }

  /** "waiting", "streaming", then one of "stop", "length", "other", "stopped", "failed". */
  get state() {
    return this.element.dataset.state;
  }

  set #state(state) {
    this.element.dataset.state = state;
  }

  stop() {
    this.#abort.abort();
  }

  /** Fill in the answer to `messages`; settles when it has ended, however it ended. */
  async stream(messages, settings, key) {
    const { temperature, max_tokens } = settings;
    const chat = { model: this.model, messages, temperature, max_tokens };
    const time = { asked: performance.now(), first: null, last: null };
    let finish = null;
    let usage = null;
    try {
      for await (const chunk of streamChat(chat, { key, signal: this.#abort.signal })) {
        if (chunk.text) this.#write(chunk.text, time);
        finish = chunk.finish ?? finish;
        usage = chunk.usage ?? usage;
      }
      this.#ended(finish, max_tokens);
      this.#count(usage, time);
    } catch (error) {
      this.#broken(error);
    }
  }

  #write(more, time) {
    time.last = performance.now();
    if (time.first === null) {
      time.first = time.last;
      this.#state = "streaming";
      this.#facts.replaceChildren();
      this.#fact("fact_first", { seconds: (time.first - time.asked) / 1000 });
    }
    this.text += more;
    this.#written.appendData(more);
    this.#written.parentElement.lang = languageOf(this.text);
  }

  /** How it ended comes first among the facts: an answer that was cut off must not look like a whole one. */
  #ended(finish, max_tokens) {
    if (this.text === "") this.#facts.replaceChildren();
    this.#state = finish === "stop" || finish === "length" ? finish : "other";
    this.#finish(`finish_${this.state}`, { max_tokens, reason: finish });
  }

  #count(usage, time) {
    if (usage === null) return;
    const tokens = usage.completion_tokens;
    this.#fact("fact_tokens", { tokens });
    if (tokens > 1 && time.last > time.first) {
      this.#fact("fact_rate", { rate: ((tokens - 1) * 1000) / (time.last - time.first) });
    }
  }

  #broken(error) {
    if (this.text === "") this.#facts.replaceChildren();
    if (this.#abort.signal.aborted) {
      this.#state = "stopped";
      this.#finish("finish_stopped");
      return;
    }
    if (!(error instanceof ApiError)) throw error; // a mistake of this page, for the console
    this.error = error;
    this.#state = "failed";
    if (this.text) this.#finish("finish_failed");
    this.#facts.before(errorNote(error, this.retry));
  }

  #finish(key, given) {
    const fact = label(document.createElement("span"), key, given);
    fact.className = "finish";
    this.#facts.prepend(fact);
  }

  #fact(key, given) {
    const fact = document.createElement("span");
    if (`${key}_hint` in TEXT.en) fact.dataset.title = `${key}_hint`;
    this.#facts.append(label(fact, key, given));
  }
}
