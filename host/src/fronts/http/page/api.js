// Requests to the registry.

const TOKEN = "registry.token";

/** The registry has answered that it will not. */
export class Refused extends Error {
  constructor(status, reply) {
    super(reply.message ? `${reply.error}: ${reply.message}` : (reply.error ?? `HTTP status ${status}`));
    this.status = status;
    this.code = reply.code ?? "";
    this.reply = reply;
  }

  /** Whether another token may help. */
  get asks_for_token() {
    return this.status === 401 || this.status === 403;
  }
}

export function token() {
  return sessionStorage.getItem(TOKEN) ?? "";
}

/** Kept for this tab alone, until it is closed. */
export function set_token(text) {
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
}

export function headers(more = {}) {
  const known = token();
  return known ? { Authorization: `Bearer ${known}`, ...more } : more;
}

export function url(path, query = {}) {
  const said = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  return said.length ? `${path}?${new URLSearchParams(said)}` : path;
}

/** What a response says that is no success. */
export async function refusal(response) {
  const text = await response.text();
  try {
    return new Refused(response.status, JSON.parse(text));
  } catch {
    return new Refused(response.status, { error: `HTTP status ${response.status}` });
  }
}

/**
 * Asks for something; the reply's JSON. Throws `Refused`, or what `fetch` throws if there is no answer within `seconds`.
 * A reply that is no JSON is taken for none: something that is not the registry has answered.
 */
export async function ask(method, path, { query, body, seconds = 10, signal, any_status = false } = {}) {
  const signals = [AbortSignal.timeout(seconds * 1000), ...(signal ? [signal] : [])];
  const asked = {
    method,
    headers: headers(method === "PUT" || method === "POST" ? { "Content-Type": "application/json" } : {}),
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.any(signals),
    cache: "no-store",
  };
  const response = await fetch(url(path, query), asked);
  if (!response.ok && !any_status) throw await refusal(response);
  return response.json();
}

export const service_path = (id) => `/v1/services/${encodeURIComponent(id)}`;
