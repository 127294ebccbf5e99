// What is registered, as far as the page knows: the services, how many there are of each kind, and which of them are
// wanted.

export const STATES = ["passing", "drained", "critical"];
export const NO_TYPE = "\u2014";

/** By which texts are sorted: numbers in them by their value. */
const place_of = (text) => text.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, "0"));

function state_of(record) {
  if (record.health !== "passing") return "critical";
  return record.drain ? "drained" : "passing";
}

/** A service as the page holds it: its record, and what is made of it once. */
function entry_of(record) {
  const tags = Array.isArray(record.tags) ? record.tags.map(String) : [];
  const own = typeof record.type === "string" && record.type ? record.type : null;
  const type = own ?? (typeof record.metadata?.type === "string" ? record.metadata.type : null) ?? tags[0] ?? NO_TYPE;
  const name = String(record.name ?? "");
  const metadata = JSON.stringify(record.metadata ?? {});
  const text = [record.id, name, type, ...tags, `${record.host}:${record.port}`, metadata].join("\n").toLowerCase();
  return { id: String(record.id), name, type, tags, record, text, state: state_of(record), place: place_of(name) };
}

/** Says of a text which services it looks for: all of its words, and `type:` and `tag:` exactly. */
function wanted_by(search) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const tests = words.map((word) => {
    const [, kind, value] = /^(type|tag):(.+)$/.exec(word) ?? [];
    if (kind === "type") return (entry) => entry.type.toLowerCase() === value;
    if (kind === "tag") return (entry) => entry.tags.some((tag) => tag.toLowerCase() === value);
    return (entry) => entry.text.includes(word);
  });
  return (entry) => tests.every((test) => test(entry));
}

const RANK = { critical: 0, drained: 1, passing: 2 };
const by_text = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const ORDERS = {
  name: (a, b) => by_text(a.place, b.place),
  type: (a, b) => by_text(a.type, b.type),
  address: (a, b) => by_text(a.record.host, b.record.host) || a.record.port - b.record.port,
  state: (a, b) => RANK[a.state] - RANK[b.state],
  beat: (a, b) => b.record.last_heartbeat - a.record.last_heartbeat,
};

export class Services {
  #all = new Map();
  #counts = { passing: 0, drained: 0, critical: 0 };
  #types = new Map();

  get size() {
    return this.#all.size;
  }

  get counts() {
    return this.#counts;
  }

  get(id) {
    return this.#all.get(id);
  }

  put(record) {
    const entry = entry_of(record);
    const before = this.#all.get(entry.id);
    if (before) this.#count(before, -1);
    this.#count(entry, 1);
    this.#all.set(entry.id, entry);
  }

  remove(id) {
    const before = this.#all.get(id);
    if (before) this.#count(before, -1);
    this.#all.delete(id);
  }

  /** All services, in place of those that are known. */
  replace(records) {
    this.#all.clear();
    this.#types.clear();
    for (const state of STATES) this.#counts[state] = 0;
    records.forEach((record) => this.put(record));
  }

  /** What moves with heartbeats, of services that are known. */
  beat(moving) {
    const before = this.#all.get(moving.id);
    if (!before) return;
    before.record.last_heartbeat = Math.max(before.record.last_heartbeat, moving.last_heartbeat);
    before.record.health = moving.health;
    const state = state_of(before.record);
    if (state !== before.state) {
      this.#count(before, -1);
      before.state = state;
      this.#count(before, 1);
    }
  }

  #count(entry, by) {
    this.#counts[entry.state] += by;
    const of_type = this.#types.get(entry.type) ?? { total: 0, passing: 0, drained: 0, critical: 0 };
    of_type.total += by;
    of_type[entry.state] += by;
    if (of_type.total > 0) this.#types.set(entry.type, of_type);
    else this.#types.delete(entry.type);
  }

  /** The types and how many there are of each, in the order of their names. */
  types() {
    return [...this.#types].sort(([a], [b]) => by_text(a.toLowerCase(), b.toLowerCase()));
  }

  /** The services that pass all filters, in order; `null` and "" ask for nothing. */
  chosen({ search, type, state, sort, is_down }) {
    const is_wanted = search.trim() ? wanted_by(search) : null;
    const found = [];
    for (const entry of this.#all.values()) {
      if (type !== null && entry.type !== type) continue;
      if (state !== null && entry.state !== state) continue;
      if (is_wanted && !is_wanted(entry)) continue;
      found.push(entry);
    }
    const order = ORDERS[sort];
    const sign = is_down ? -1 : 1;
    return found.sort((a, b) => sign * order(a, b) || by_text(a.place, b.place) || by_text(a.id, b.id));
  }
}
