// An error as the page shows it: what happened, the endpoint's own words, the request's id, a button to try again.

import { TEXT, label, relabel } from "./text.js";

/** An element for an ApiError; `retry` is called when its button is pressed. */
export function errorNote(error, retry) {
  const note = relabel(document.getElementById("error-template").content.cloneNode(true)).firstElementChild;
  const part = (name) => note.querySelector(`.${name}`);
  const named = `error_${error.kind === "http" ? error.status : error.kind}`;
  label(part("headline"), named in TEXT.en ? named : "error_other", { status: error.status });
  part("message").textContent = error.message;
  if (error.retryAfter) label(part("wait"), "retry_after", { seconds: error.retryAfter });
  if (error.requestId) label(part("request"), "request_id", { id: error.requestId });
  part("retry").addEventListener("click", retry);
  return note;
}
