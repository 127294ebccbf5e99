// What has happened: the last changes, and how many there were in each minute of the last hour.

export const MINUTES = 60;
const CHANGES_MAX = 1000;
const KEYS_MAX = 20_000;
const WORDS = { register: "Registered", deregister: "Deregistered", expire: "Expired" };

const key_of = ({ epoch, revision }) => `${epoch}:${revision}`;

export class Activity {
  /** The newest first. */
  changes = [];
  /** From when on all changes are known, in seconds since 1970. */
  since = null;
  #keys = new Set();
  #minutes = new Map();
  #sizes = new Map();

  /** A change that has just come. `before` is the record as it was. */
  add(change, before) {
    if (this.#is_known(change)) return;
    this.changes.unshift(this.#read(change, before));
    if (this.changes.length > CHANGES_MAX) this.changes.length = CHANGES_MAX;
    this.#tally(change);
  }

  /** Changes from before the list was asked for, the oldest first. */
  add_earlier(changes, since, size) {
    if (since === 0) this.#add_sizes(changes, size);
    const earlier = changes.filter((change) => !this.#is_known(change));
    earlier.forEach((change) => this.#tally(change));
    const all = [...this.changes, ...earlier.map((change) => this.#read(change)).reverse()];
    this.changes = all.sort((a, b) => b.at - a.at).slice(0, CHANGES_MAX);
    this.since ??= since;
  }

  /** How many services there were before, if all changes since the beginning are known; `size` is how many there are now. */
  #add_sizes(changes, size) {
    const there = new Set();
    const sums = changes.map(({ type, data }) => {
      if (type === "register") there.add(data.service_id);
      else there.delete(data.service_id);
      return there.size;
    });
    // What a restored backup has brought came without a change.
    const others = size - there.size;
    changes.forEach(({ timestamp }, place) => this.note_size(timestamp, Math.max(0, sums[place] + others)));
  }

  /** Whether it has been told already: after a break the registry is asked for what was before, too. */
  #is_known(change) {
    const key = key_of(change);
    if (this.#keys.has(key)) return true;
    if (this.#keys.size >= KEYS_MAX) this.#keys.delete(this.#keys.values().next().value);
    this.#keys.add(key);
    return false;
  }

  #read(change, before) {
    const record = change.data?.service_info ?? {};
    const id = String(change.data?.service_id ?? "");
    const what = this.#what(change, record, before);
    return { id, key: key_of(change), at: change.timestamp, type: change.type, what, record };
  }

  /** A registration has a generation of its own, which begins with its time: what is later changes something about it. */
  #what(change, record, before) {
    if (change.type === "register" && record.drain && Math.abs(record.drain.since - change.timestamp) < 2) return "Drained";
    if (change.type !== "register" || change.timestamp - record.generation / 1000 <= 2) return WORDS[change.type] ?? change.type;
    return before?.drain && !record.drain ? "Undrained" : "Updated";
  }

  #tally(change) {
    const minute = Math.floor(change.timestamp / 60);
    const tally = this.#minutes.get(minute) ?? { came: 0, went: 0 };
    if (change.type === "register") tally.came += 1;
    else tally.went += 1;
    this.#minutes.set(minute, tally);
  }

  /** How many services there are now, for the plot of the hour. */
  note_size(now, size) {
    this.#sizes.set(Math.floor(now / 60), size);
  }

  /** The last hour, minute by minute, the oldest first. What is not known is null. */
  hour(now) {
    const last = Math.floor(now / 60);
    const is_over = (minute) => minute <= last - MINUTES;
    for (const minute of this.#minutes.keys()) if (is_over(minute)) this.#minutes.delete(minute);
    const before = [...this.#sizes.keys()].filter(is_over).sort((a, b) => a - b);
    // The last one says how many there were when the hour began.
    let size = before.length ? this.#sizes.get(before.at(-1)) : null;
    before.slice(0, -1).forEach((minute) => this.#sizes.delete(minute));
    const minutes = Array.from({ length: MINUTES }, (_, place) => last - MINUTES + 1 + place);
    return minutes.map((minute) => {
      size = this.#sizes.get(minute) ?? size;
      const is_known = this.since !== null && (minute + 1) * 60 > this.since;
      return { minute, size, changes: is_known ? (this.#minutes.get(minute) ?? { came: 0, went: 0 }) : null };
    });
  }
}
