// Keeps what the page shows the same as what the registry has: lists, then follows the changes from that list's revision
// on, and begins again where it was if the connection is lost.

import { ask, headers, refusal, Refused, url } from "./api.js";

/** A stream says something every 15 s. After so many seconds of nothing it is taken for dead. */
const SILENCE_MAX = 40;
const RETRY_MS = [300, 700, 1500, 3000];
const HEALTH_MS = 3000;
/** For how long long polls stand for a stream that does not get through. */
const POLL_MS = 300_000;
/** How many changes from before are asked for. */
const EARLIER_MAX = 3000;
const HOUR = 3600;
/** After so long a tab that nobody looks at gives its connection back: browsers have six for all tabs together. */
const HIDDEN_MS = 60_000;
/** Who may not look is not let in by asking often, and each time is in the registry's log. */
const REFUSED_MS = 30_000;

/** The changes since cannot be had: list again. */
class Compacted extends Error {}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/**
 * `told` is what is to be told: `loading(count)`, `listed(records, epoch)`, `change(change)`, `beats(records)`,
 * `earlier(changes, since)`, `state(name, detail)`, `heard()`, `health(reply)`.
 */
export class Sync {
  #told;
  #position = null;
  #abort = new AbortController();
  #poll_until = 0;
  #failures = 0;
  #state = "connecting";
  #wake = () => {};
  #is_away = false;
  #come_back = () => {};

  constructor(told) {
    this.#told = told;
  }

  /** Up to where everything is known: epoch and revision. */
  get position() {
    return this.#position;
  }

  start() {
    this.#leave_while_hidden();
    this.#follow_for_ever();
    this.#health_for_ever();
    this.#beats_for_ever();
  }

  /** Begins at once with another try; with another list, since another token may be shown another one. */
  again() {
    this.#position = null;
    this.#abort.abort();
    this.#wake();
  }

  #leave_while_hidden() {
    let timer;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(timer);
      if (document.hidden) {
        timer = setTimeout(() => {
          this.#is_away = true;
          this.#abort.abort();
        }, HIDDEN_MS);
      } else {
        this.#is_away = false;
        this.#come_back();
      }
    });
  }

  #say(state, detail) {
    this.#state = state;
    this.#told.state(state, detail);
  }

  async #follow_for_ever() {
    for (;;) {
      if (this.#is_away) await new Promise((back) => (this.#come_back = back));
      this.#abort = new AbortController();
      try {
        if (this.#position === null) await this.#list();
        await (Date.now() < this.#poll_until ? this.#poll() : this.#stream());
      } catch (error) {
        if (error instanceof Compacted) this.#position = null;
        else await this.#wait_after(error);
      }
    }
  }

  async #wait_after(error) {
    if (this.#abort.signal.aborted) return;
    const is_answer = error instanceof Refused;
    if (is_answer && error.code === "compacted") {
      this.#position = null;
      return;
    }
    if (is_answer && error.asks_for_token) this.#say("refused", error);
    else if (is_answer && error.code === "starting") this.#say("starting", error);
    else this.#say("lost", error);
    const ms = this.#state === "refused" ? REFUSED_MS : RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)];
    this.#failures += 1;
    // Not all pages at once, and at once if somebody has given a token.
    const woken = new Promise((wake) => (this.#wake = wake));
    await Promise.race([pause(ms * (0.8 + 0.4 * Math.random())), woken]);
  }

  #heard() {
    this.#failures = 0;
    this.#told.heard();
  }

  async #list() {
    const records = [];
    let cursor;
    let position = null;
    do {
      const query = { limit: 10000, cursor };
      const page = await ask("GET", "/v1/services", { query, signal: this.#abort.signal });
      position ??= { epoch: page.epoch, revision: page.revision };
      for (const record of page.services) records.push(record);
      ({ cursor } = page);
      this.#told.loading(records.length);
    } while (cursor);
    // A service that was registered anew meanwhile may be on two pages; the later one counts.
    this.#told.listed(records, position.epoch);
    this.#position = position;
    this.#heard();
    this.#earlier(position).catch(() => {});
  }

  /** What has happened before, as far as the registry remembers it: a bounded part of the last hour. */
  async #earlier({ epoch, revision }) {
    const oldest = Date.now() / 1000 - HOUR;
    let end = revision;
    let known = [];
    let since = Date.now() / 1000;
    while (end > 0 && known.length < EARLIER_MAX && since > oldest) {
      const after = Math.max(0, end - 1000);
      let part;
      try {
        part = await this.#changes(epoch, after, end);
      } catch (error) {
        if (error instanceof Refused && error.code === "compacted") break;
        throw error;
      }
      known = [...part, ...known];
      since = after === 0 ? 0 : (part[0]?.timestamp ?? since);
      end = after;
    }
    this.#told.earlier(known, end === 0 ? 0 : since, epoch);
  }

  async #changes(epoch, after, end) {
    const found = [];
    while (after < end) {
      const reply = await ask("GET", "/v1/watch", { query: { epoch, after } });
      found.push(...reply.changes.filter((change) => change.revision <= end));
      if (reply.revision <= after) break;
      after = reply.revision;
    }
    return found;
  }

  #take(change) {
    this.#told.change(change);
    this.#position = { epoch: change.epoch, revision: change.revision };
  }

  #query() {
    return { epoch: this.#position.epoch, after: this.#position.revision };
  }

  /** Server-sent events, by `fetch` and not by `EventSource`, which can show no token. */
  async #stream() {
    const cut = new AbortController();
    const signal = AbortSignal.any([cut.signal, this.#abort.signal]);
    let heard_at = Date.now();
    const watchdog = setInterval(() => Date.now() - heard_at > SILENCE_MAX * 1000 && cut.abort(), 1000);
    try {
      const asked = { headers: headers({ Accept: "text/event-stream" }), signal, cache: "no-store" };
      const response = await fetch(url("/v1/watch", this.#query()), asked);
      if (!response.ok) throw await refusal(response);
      if (!response.headers.get("Content-Type")?.startsWith("text/event-stream") || !response.body) {
        this.#poll_until = Date.now() + POLL_MS;
        return;
      }
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) throw new Error("the registry has ended the connection");
        heard_at = Date.now();
        if (this.#state !== "live") this.#say("live");
        this.#heard();
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        blocks.forEach((block) => this.#event(block));
      }
    } catch (error) {
      // Something on the way keeps the stream for itself.
      if (cut.signal.aborted && this.#state !== "live") this.#poll_until = Date.now() + POLL_MS;
      throw error;
    } finally {
      clearInterval(watchdog);
    }
  }

  #event(block) {
    let [kind, id, data] = ["", "", ""];
    for (const line of block.split("\n")) {
      if (line.startsWith("event: ")) kind = line.slice(7);
      else if (line.startsWith("id: ")) id = line.slice(4);
      else if (line.startsWith("data: ")) data += line.slice(6);
    }
    if (kind === "compacted") throw new Compacted();
    if (data) this.#take(JSON.parse(data));
    const [, epoch, revision] = /^(.*):(\d+)$/.exec(id) ?? [];
    if (revision) this.#position = { epoch, revision: Number(revision) };
  }

  async #poll() {
    const query = { ...this.#query(), wait: 20 };
    if (this.#state !== "polling") this.#say("polling");
    const reply = await ask("GET", "/v1/watch", { query, seconds: SILENCE_MAX, signal: this.#abort.signal });
    reply.changes.forEach((change) => this.#take(change));
    this.#position = { epoch: reply.epoch, revision: reply.revision };
    this.#heard();
  }

  /** How the registry is. It says so to everybody. */
  async #health_for_ever() {
    for (;;) {
      if (!document.hidden) {
        try {
          this.#told.health(await ask("GET", "/health", { any_status: true, seconds: 4 }));
        } catch {
          this.#told.health(null);
        }
      }
      await pause(HEALTH_MS);
    }
  }

  /**
   * Heartbeats are no changes, so they are asked for: page by page, all within a few seconds, as long as somebody looks.
   */
  async #beats_for_ever() {
    let cursor;
    let [pages, pages_before] = [0, 1];
    for (;;) {
      const is_followed = this.#state === "live" || this.#state === "polling";
      if (is_followed && !document.hidden) {
        try {
          const query = { limit: 10000, fields: "last_heartbeat,health", cursor };
          const page = await ask("GET", "/v1/services", { query });
          this.#told.beats(page.services);
          ({ cursor } = page);
          pages += 1;
          if (!cursor) [pages_before, pages] = [pages, 0];
        } catch {
          cursor = undefined;
        }
      }
      await pause(Math.max(150, Math.min(2000, 4000 / pages_before)));
    }
  }
}
