// What clients cost, from what the registry tells Prometheus: connections, and requests a second. A registry that has no
// `/metrics`, or shows them to others alone, is shown without.

import { headers } from "./api.js";

const INTERVAL_MS = 5000;
const NEXT_TRY_MS = 60_000;

/** The sum of all samples of a name, in Prometheus' text format; null if there is none. */
export function sum_of(text, name) {
  let sum = null;
  for (const line of text.split("\n")) {
    if (!line.startsWith(name) || (line[name.length] !== "{" && line[name.length] !== " ")) continue;
    // A label may have spaces; what stands last is the value, without a time.
    const value = Number(line.slice(line.lastIndexOf(" ") + 1));
    if (Number.isFinite(value)) sum = (sum ?? 0) + value;
  }
  return sum;
}

export class Load {
  connections = null;
  /** Requests a second, lately. */
  rate = null;
  /** How long the storage took for a group of changes, lately, in seconds. */
  commit = null;
  #before = null;
  #minutes = new Map();

  async follow_for_ever(on_news) {
    for (;;) {
      let ms = INTERVAL_MS;
      if (!document.hidden) {
        try {
          const response = await fetch("/metrics", { headers: headers(), cache: "no-store", signal: AbortSignal.timeout(4000) });
          if (!response.ok) throw new Error(`HTTP status ${response.status}`);
          this.#take(await response.text());
        } catch {
          [this.connections, this.rate, this.#before] = [null, null, null];
          ms = NEXT_TRY_MS;
        }
        on_news();
      }
      await new Promise((done) => setTimeout(done, ms));
    }
  }

  #take(text) {
    const at = performance.now() / 1000;
    this.connections = sum_of(text, "registry_connections");
    const requests = sum_of(text, "registry_requests_total");
    const [seconds, commits] = ["_sum", "_count"].map((part) => sum_of(text, `registry_storage_commit_seconds${part}`));
    const now = { at, requests, seconds, commits };
    const before = this.#before;
    this.#before = now;
    // Counters begin anew with the registry.
    if (!before || requests === null || requests < before.requests) return;
    const took = at - before.at;
    this.rate = (requests - before.requests) / took;
    if (commits > before.commits) this.commit = (seconds - before.seconds) / (commits - before.commits);
    const minute = Math.floor(Date.now() / 60_000);
    const tally = this.#minutes.get(minute) ?? { requests: 0, seconds: 0 };
    tally.requests += requests - before.requests;
    tally.seconds += took;
    this.#minutes.set(minute, tally);
  }

  /** The rate of a minute; null if it is not known. */
  rate_in(minute) {
    for (const kept of this.#minutes.keys()) if (kept < minute - 120) this.#minutes.delete(kept);
    const tally = this.#minutes.get(minute);
    return tally ? tally.requests / tally.seconds : null;
  }
}
