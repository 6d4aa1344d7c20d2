// The OpenAI-compatible endpoint that this page comes from: its models, and chat answers as a stream.

/**
 * Why the endpoint gave no answer, or only a part of one.
 *
 * kind: "http" (a status of 400 or more), "server" (an error inside the stream), "unreachable" (no response at all),
 * "unreadable" (a response that is not the API's), "broken" (the stream ended early).
 */
export class ApiError extends Error {
  constructor(kind, { status = null, message = "", requestId = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { kind, status, requestId, retryAfter });
  }
}

/** The names of the models that answer chats. Throws ApiError. */
export async function listModels(key) {
  const response = await request("v1/models", { key });
  const { data } = await json(response);
  if (!Array.isArray(data)) throw new ApiError("unreadable", { requestId: idOf(response) });
  return data.filter((model) => model.task !== "score").map((model) => model.id);
}

/**
 * Ask for a chat answer; yields { text, finish, usage } for every chunk: new text, or "", and the reason it ended and
 * the token counts once they are known, else null. Throws ApiError, or what `signal` aborts with.
 */
export async function* streamChat(chat, { key, signal }) {
  const body = { ...chat, stream: true, stream_options: { include_usage: true } };
  const response = await request("v1/chat/completions", { key, signal, body });
  const requestId = idOf(response);
  let finished = false;
  for await (const data of serverSentEvents(response, signal)) {
    if (data === "[DONE]" && finished) return;
    if (data === "[DONE]") break;
    const chunk = parsed(data, requestId);
    if (chunk.error) throw new ApiError("server", { message: chunk.error.message, requestId });
    const choice = chunk.choices?.[0]; // none in the chunk that carries the usage
    const finish = choice?.finish_reason ?? null;
    finished ||= finish !== null;
    yield { text: choice?.delta?.content ?? "", finish, usage: chunk.usage ?? null };
  }
  throw new ApiError("broken", { requestId });
}

async function request(path, { key, signal, body }) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const options = { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body), cache: "no-store" };
  let response;
  try {
    // Relative to the page, so that the endpoint may live below any path.
    response = await fetch(new URL(path, document.baseURI), options);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("unreachable", { message: error.message });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** The error in OpenAI's shape that a response carries; a proxy's page of HTML says no more than its status. */
async function refusal(response) {
  const said = await response.json().catch(() => null);
  return new ApiError("http", {
    status: response.status,
    message: said?.error?.message ?? "",
    requestId: idOf(response),
    retryAfter: Number(response.headers.get("retry-after")) || null,
  });
}

/** The `data` of every event of a response's body, in order. */
async function* serverSentEvents(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = ""; // of a line whose end has not come yet
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
        if (line.startsWith("data:")) {
          data.push(line.slice(5).replace(/^ /, ""));
        } else if (line === "" && data.length > 0) {
          yield data.join("\n");
          data = [];
        } // other fields, and comments that keep the connection alive, carry nothing for us
      }
    }
  } catch (error) {
    if (signal.aborted) throw error;
    throw new ApiError("broken", { message: error.message, requestId: idOf(response) });
  } finally {
    await reader.cancel().catch(() => {}); // a stream that failed cannot be cancelled any more
  }
}

async function json(response) {
  return parsed(await response.text(), idOf(response));
}

function parsed(written, requestId) {
  let value;
  try {
    value = JSON.parse(written);
  } catch {
    value = null;
  }
  if (value === null || typeof value !== "object") throw new ApiError("unreadable", { requestId });
  return value;
}

function idOf(response) {
  return response.headers.get("x-request-id");
}
