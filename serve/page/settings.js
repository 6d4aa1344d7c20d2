// What the reader sets: temperature, the longest answer, a system prompt, and the endpoint's key.

import { label } from "./text.js";

const STORED_KEY = "chimed-api-key";
const dialog = document.getElementById("settings");
const form = dialog.querySelector("form");
const button = document.getElementById("open-settings");

let settings = read();

/** { temperature, max_tokens, system } as last accepted; `system` is "" for none. */
export function current() {
  return settings;
}

/** The API key, "" for none. It lives in this tab's session and nowhere else. */
export function apiKey() {
  return sessionStorage.getItem(STORED_KEY) ?? "";
}

export function setApiKey(key) {
  if (key) sessionStorage.setItem(STORED_KEY, key);
  else sessionStorage.removeItem(STORED_KEY);
}

/** Let the button open the dialog; `changeKey` is called when the reader wants to enter another key there. */
export function prepareSettings(changeKey) {
  button.addEventListener("click", () => {
    label(document.getElementById("key-state"), apiKey() ? "key_set" : "key_unset");
    dialog.showModal();
  });
  document.getElementById("change-key").addEventListener("click", () => {
    dialog.close();
    changeKey();
  });
  dialog.addEventListener("close", () => {
    if (form.checkValidity()) settings = read();
    else restore(); // left by Escape with a value that cannot be sent
    summarise();
  });
  summarise();
}

function read() {
  const { temperature, max_tokens, system } = form.elements;
  return { temperature: temperature.valueAsNumber, max_tokens: max_tokens.valueAsNumber, system: system.value.trim() };
}

function restore() {
  for (const [name, value] of Object.entries(settings)) form.elements[name].value = value;
}

function summarise() {
  label(button.querySelector(".summary"), "settings_summary", settings);
  button.querySelector(".system").hidden = !settings.system;
}
