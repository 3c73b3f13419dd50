// Requests to the endpoint.

const KEY = "emollm-key";
const MAX_TEXTS = 2000;
const MAX_BYTES = 1_000_000;

/** An error with a message for the user; `status` 0: the endpoint could not be reached. */
export class ApiError extends Error {
  constructor(status, message, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export const setKey = (key) => sessionStorage.setItem(KEY, key);

/** The parsed answer to a GET; throws ApiError. */
export async function get(path) {
  return (await send(path, {})).json();
}

/** Results of texts in order, as they come; `beside` is the context and target of them all. Throws ApiError. */
export async function* annotate(texts, tasks, extras, signal, beside = {}) {
  for (const part of parts(texts)) {
    const each = (value) => (value ? part.map(() => whole(value)) : undefined);
    const body = JSON.stringify({
      texts: part.map(whole), tasks, ...extras, contexts: each(beside.context), targets: each(beside.target),
    });
    const headers = { "content-type": "application/json" };
    yield* results(await send("v1/annotate/stream", { method: "POST", body, headers, signal }));
  }
}

// A lone surrogate, which a cut-off emoji leaves, cannot be sent.
const whole = (text) => (text.toWellFormed ? text.toWellFormed() : text);

// As many texts as one request may hold.
function* parts(texts) {
  let part = [];
  let bytes = 0;
  for (const text of texts) {
    const size = text.length * 3;
    if (part.length && (part.length === MAX_TEXTS || bytes + size > MAX_BYTES)) {
      yield part;
      [part, bytes] = [[], 0];
    }
    part.push(text);
    bytes += size;
  }
  if (part.length) yield part;
}

async function* results(response) {
  for await (const line of lines(response.body)) {
    const said = JSON.parse(line);
    if (said.error) throw new ApiError(500, said.error.message);
    if (said.done !== undefined) return;
    yield said;
  }
  throw new ApiError(0, "the answer broke off");
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const found = (rest + value).split("\n");
    rest = found.pop();
    yield* found.filter(Boolean);
  }
  if (rest) yield rest;
}

async function send(path, options) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The endpoint does not answer. Is it running?");
  }
  if (response.ok) return response;
  throw new ApiError(response.status, await reason(response), Number(response.headers.get("retry-after") ?? 0));
}

async function reason(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The endpoint answered ${response.status}.`;
  }
}
