// The chat page: sends every message to one or two models and streams their answers beside each other.

import { Answer } from "./answer.js";
import { ApiError, listModels } from "./api.js";
import { Conversation } from "./conversation.js";
import { errorNote } from "./error.js";
import { apiKey, current, prepareSettings, setApiKey } from "./settings.js";
import { label, shortcut, showLanguage, switchLanguage } from "./text.js";

const $ = (id) => document.getElementById(id);
const choices = new Map([["A", $("model-a")], ["B", $("model-b")]]); // column -> the select of its model
const conversation = new Conversation($("turns"));
const running = new Set(); // answers that are still streaming

function columns() {
  return $("compare").ariaPressed === "true" ? ["A", "B"] : ["A"];
}

// Asking

function send() {
  const prompt = $("message").value.trim();
  if (prompt === "") return;
  if (running.size > 0) {
    announce("say_busy");
    return;
  }
  if (choices.get("A").value === "") {
    loadModels(); // says why there is none
    return;
  }
  $("message").value = "";
  $("welcome").hidden = true;
  $("said").replaceChildren();
  announce("say_answering");
  conversation.add(prompt, columns().length);
  follow();
  for (const column of columns()) ask(column);
  $("message").focus();
}

/** Ask the model of `column` for its answer in the last turn, again if it had one. */
async function ask(column) {
  const answer = new Answer(column, choices.get(column).value, () => {
    ask(column);
    $("message").focus(); // the button that was pressed is gone
  });
  conversation.last.put(answer);
  running.add(answer);
  showBusy();
  const settings = current();
  await answer.stream(conversation.messages(column, settings.system), settings, apiKey());
  if (!running.delete(answer)) return; // its conversation was left
  showBusy();
  announceEnd(answer);
  if (answer.error?.status === 401) askForKey();
}

function stop() {
  for (const answer of running) answer.stop();
  $("message").focus();
}

function startAnew() {
  stop();
  running.clear();
  conversation.clear();
  following = false;
  $("welcome").hidden = false;
  $("said").replaceChildren();
  announce("say_new");
  showBusy();
}

function showBusy() {
  const busy = running.size > 0;
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("conversation").ariaBusy = String(busy);
}

// What a screen reader hears: whole answers when they have ended, not every piece as it comes

function announce(key, values) {
  $("said").append(label(document.createElement("p"), key, values));
}

function announceEnd({ state, model, text }) {
  if (state === "failed") return; // its error is an alert
  const key = state === "length" || state === "stopped" ? `say_${state}` : "say_done";
  announce(key, { model, text });
}

// Models and the key

/** Fetch the list of models; false if that failed, which the page then says. */
async function loadModels() {
  $("notice").replaceChildren();
  try {
    const names = await listModels(apiKey());
    if (names.length === 0) throw new ApiError("no_models");
    offer(names);
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error; // a mistake of this page, for the console
    if (error.status === 401) askForKey();
    else $("notice").append(errorNote(error, loadModels));
    return false;
  }
}

/** Let every column choose among `names`; a choice made before stays, and the second column starts with the second. */
function offer(names) {
  for (const [column, select] of choices) {
    const chosen = select.value;
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    select.disabled = false;
    if (names.includes(chosen)) select.value = chosen;
    else if (column === "B") select.selectedIndex = Math.min(1, names.length - 1);
  }
}

function askForKey(title = apiKey() ? "key_refused" : "key_ask") {
  label($("key-title"), title);
  $("key-form").hidden = false;
  $("api-key").value = "";
  $("api-key").focus();
}

function leaveKey() {
  $("key-form").hidden = true;
  $("message").focus();
}

async function useKey() {
  setApiKey($("api-key").value.trim());
  if (!(await loadModels())) return;
  leaveKey();
  for (const { column, error } of conversation.last?.answers.values() ?? []) {
    if (error?.status === 401) ask(column);
  }
}

// Following the answers down, until the reader scrolls up

const view = document.documentElement;
let following = false;
let top = 0; // where the last scroll led

function follow() {
  following = true;
  view.scrollTop = view.scrollHeight;
  top = view.scrollTop;
}

document.addEventListener("scroll", () => {
  // An answer may have grown since the page scrolled itself: being above the end means nothing, going up does.
  const atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 40;
  following = atEnd || (following && view.scrollTop >= top);
  top = view.scrollTop;
});
new ResizeObserver(() => following && follow()).observe($("turns"));

// Keys and buttons

$("message").addEventListener("keydown", (event) => {
  // While an input method composes, Enter takes its candidate. Safari says so by the key code alone.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.isComposing || $("settings").open) return;
  if (event.key === "Escape" && running.size > 0) stop();
  if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey) {
    event.preventDefault();
    startAnew();
  }
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey();
});
$("leave-key").addEventListener("click", leaveKey);
$("stop").addEventListener("click", stop);
$("new").addEventListener("click", startAnew);
$("language").addEventListener("click", switchLanguage);
$("compare").addEventListener("click", () => {
  $("compare").ariaPressed = String(columns().length === 1);
  document.body.dataset.columns = columns().length;
});
for (const example of document.querySelectorAll("#examples button")) {
  example.addEventListener("click", () => {
    $("message").value = example.textContent;
    $("message").focus();
  });
}

$("new-key").textContent = shortcut("K");
showLanguage();
prepareSettings(() => askForKey("key_change"));
showBusy();
loadModels();
if (!matchMedia("(pointer: coarse)").matches) $("message").focus(); // on a phone it would open the keyboard
