// A conversation: turns of one prompt and one answer a column, and what of it is sent to each column's model.

import { languageOf, relabel } from "./text.js";

export class Conversation {
  #turns = [];
  #list;

  /** `list` is the element that the turns go into. */
  constructor(list) {
    this.#list = list;
  }

  /** The newest turn, undefined before the first. */
  get last() {
    return this.#turns.at(-1);
  }

  add(prompt, columns) {
    const turn = new Turn(prompt, columns);
    this.#turns.push(turn);
    this.#list.append(turn.element);
  }

  clear() {
    this.#turns = [];
    this.#list.replaceChildren();
  }

  /**
   * The messages for one column's answer in the last turn: all turns before it, then its prompt.
   *
   * A turn without any answer is left out, because roles have to alternate. A column that joined later takes over what
   * the first column had answered until then, so that both go on from the same conversation.
   */
  messages(column, system) {
    const messages = system ? [{ role: "system", content: system }] : [];
    for (const turn of this.#turns.slice(0, -1)) {
      const answer = turn.answers.get(column) ?? turn.answers.get("A");
      if (!answer.text) continue;
      messages.push({ role: "user", content: turn.prompt }, { role: "assistant", content: answer.text });
    }
    messages.push({ role: "user", content: this.last.prompt });
    return messages;
  }
}

class Turn {
  answers = new Map(); // column, "A" or "B" -> Answer
  #row;

  constructor(prompt, columns) {
    this.prompt = prompt;
    this.element = relabel(document.getElementById("turn-template").content.cloneNode(true)).firstElementChild;
    this.element.dataset.columns = columns;
    this.#row = this.element.querySelector(".answers");
    const written = this.element.querySelector(".prompt");
    written.textContent = prompt;
    written.lang = languageOf(prompt);
  }

  /** Show `answer` in its column, in the place of the one that was there. */
  put(answer) {
    const before = this.answers.get(answer.column);
    if (before) before.element.replaceWith(answer.element);
    else this.#row.append(answer.element);
    this.answers.set(answer.column, answer);
  }
}
