// One service: its record, what can be done with it, and what has happened to it.

import { ask, service_path } from "./api.js";
import { deregister, drain, undrain } from "./dialogs.js";
import { el, say } from "./dom.js";
import { address, clock, link, span } from "./format.js";
import { STATE_NAMES } from "./summary.js";

/** What is shown in places of its own, and not among the other fields. */
const KNOWN = new Set(["id", "name", "host", "port", "type", "tags", "metadata", "ttl", "generation", "last_heartbeat", "health", "drain", "owner_key"]);
const REFRESH_MS = 4000;

const WHAT = {
  registered: "Registered",
  replaced: "Registered again",
  updated: "Metadata changed",
  drained: "Drained",
  undrained: "Undrained",
  deregistered: "Deregistered",
};

function value_of(value) {
  if (typeof value === "object" && value !== null) return el("pre", {}, JSON.stringify(value, null, 1));
  const href = link(value);
  if (href) return el("a", { href, rel: "noopener noreferrer", target: "_blank" }, value);
  return el("span", {}, typeof value === "string" ? value : JSON.stringify(value));
}

function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return el("dl", { class: "facts-list" }, rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value instanceof Node ? value : String(value))]));
}

function told(entry) {
  const by = entry.by ? [entry.by.name, entry.by.token, entry.by.certificate, entry.by.key, entry.by.address].filter(Boolean).join(", ") : null;
  let [title, more] = [WHAT[entry.what] ?? entry.what, []];
  if (entry.what === "expired") {
    title = "Expired";
    more.push(entry.seconds === undefined ? "no heartbeat within its ttl" : `${span(entry.seconds)} after its last heartbeat`);
  } else if (entry.what === "refused") {
    title = `Refused to ${entry.action}`;
    more.push(entry.message ?? entry.code);
    if (entry.existing_service_id) more.push(`in the way: ${entry.existing_service_id}`);
    if (entry.count > 1) more.push(`${entry.count} times, last ${clock(entry.last ?? entry.timestamp)}`);
  } else if (!by && (entry.what === "undrained" || entry.what === "drained")) {
    more.push("its time was over");
  }
  if (by) more.push(`by ${by}`);
  return el("li", { class: entry.what }, el("i", { class: "dot" }), el("b", {}, title), el("time", {}, clock(entry.timestamp)), more.length ? el("p", {}, more.join(" \u00b7 ")) : null);
}

export class Detail {
  #root;
  #now;
  #on_close;
  #on_search;
  #entry = null;
  #id = null;
  #age = el("span");
  #history = el("ol", { class: "history" });
  #meter = el("i");

  constructor(root, { now, on_close, on_search }) {
    this.#root = root;
    this.#now = now;
    this.#on_close = on_close;
    this.#on_search = on_search;
    setInterval(() => this.#id !== null && !document.hidden && this.#show_history(), REFRESH_MS);
  }

  get id() {
    return this.#id;
  }

  /** Shows a service; `entry` without a state is one that is gone. */
  open(id, entry, has_focus = false) {
    const is_another = id !== this.#id;
    this.#id = id;
    this.#root.hidden = false;
    document.body.classList.add("with-detail");
    if (is_another) this.#history.replaceChildren();
    this.update(entry, true);
    this.#show_history();
    if (is_another) this.#root.scrollTop = 0;
    if (has_focus) this.#root.querySelector(".close").focus({ preventScroll: true });
  }

  close() {
    if (this.#id === null) return;
    this.#id = null;
    this.#entry = null;
    this.#root.hidden = true;
    document.body.classList.remove("with-detail");
    this.#on_close();
  }

  /** Shows the service as it is now. */
  update(entry, is_forced = false) {
    const is_same = this.#entry && entry && this.#entry.record === entry.record && this.#shown_state === entry.state;
    if (is_forced || !is_same) this.#build(entry);
    this.tick();
  }

  #shown_state = null;

  #build(entry) {
    // Where the keyboard was, it stays.
    const focused = this.#root.contains(document.activeElement) ? document.activeElement.dataset.act : null;
    this.#entry = entry;
    this.#shown_state = entry?.state ?? null;
    const state = entry?.state ?? "gone";
    const record = entry?.record ?? {};
    const name = record.name || this.#id;
    const close = el("button", { type: "button", class: "icon close", "data-act": "close", "aria-label": "Close", title: "Close (Esc)", onclick: () => this.close() }, "\u00d7");
    const act = (name, text, kind, work) => el("button", { type: "button", class: kind, "data-act": name, onclick: work }, text);
    const acts = entry?.state
      ? el(
          "div",
          { class: "acts" },
          record.drain ? act("toggle", "Undrain", "plain", () => undrain(entry)) : act("toggle", "Drain\u2026", "plain", () => drain(entry)),
          act("deregister", "Deregister\u2026", "plain grave-text", () => deregister(entry)),
        )
      : null;
    const { drain: drained } = record;
    const beat = el("span", { class: "beat" }, this.#age, el("span", { class: "meter", "aria-hidden": "true" }, this.#meter));
    const tags = Array.isArray(record.tags) ? record.tags : [];
    const others = Object.entries(record).filter(([field]) => !KNOWN.has(field));
    const metadata = Object.entries(record.metadata ?? {}).filter(([key]) => key !== "type");
    this.#root.replaceChildren(
      el(
        "header",
        {},
        el("div", { class: "title" }, el("h2", {}, name), close),
        el("p", { class: "id" }, this.#id),
        el("p", {}, el("span", { class: `badge ${state}` }, el("i", { class: "dot" }), STATE_NAMES[state] ?? "Not registered any more")),
        acts,
      ),
      facts([
        ["Address", record.host === undefined ? null : el("code", {}, address(record.host, record.port))],
        ["Type", entry?.type ?? record.type],
        ["Last heartbeat", entry?.state ? beat : record.last_heartbeat ? clock(record.last_heartbeat) : null],
        ["Drained", drained ? `since ${clock(drained.since)}${drained.until ? `, until ${clock(drained.until)}` : ""}` : null],
        ["Reason", drained?.reason],
        ["Owner", record.owner_key],
        ["Generation", record.generation],
      ]),
      tags.length ? el("section", {}, el("h3", {}, "Tags"), el("div", { class: "chips" }, tags.map((tag) => el("button", { type: "button", class: "chip", title: "Search for this tag", onclick: () => this.#on_search(`tag:${tag}`) }, String(tag))))) : "",
      metadata.length ? el("section", {}, el("h3", {}, "Metadata"), facts(metadata.map(([key, value]) => [key, value_of(value)]))) : "",
      others.length ? el("section", {}, el("h3", {}, "Other fields"), facts(others.map(([key, value]) => [key, value_of(value)]))) : "",
      el("section", {}, el("h3", {}, "History"), this.#history),
    );
    if (focused) (this.#root.querySelector(`[data-act="${focused}"]`) ?? this.#root.querySelector(".close")).focus({ preventScroll: true });
  }

  /** What moves with the time. */
  tick() {
    const record = this.#entry?.record;
    if (!record || !this.#entry.state) return;
    const age = Math.max(0, this.#now() - record.last_heartbeat);
    say(this.#age, `${span(age)} ago, of ${span(record.ttl)}`);
    this.#meter.style.width = `${Math.min(100, (100 * age) / record.ttl)}%`;
    this.#meter.className = age > record.ttl ? "critical" : "";
  }

  async #show_history() {
    const id = this.#id;
    let entries;
    try {
      ({ history: entries } = await ask("GET", `${service_path(id)}/history`, {}));
    } catch (error) {
      entries = error;
    }
    if (id !== this.#id) return;
    if (entries instanceof Error) {
      if (!this.#history.children.length) this.#history.replaceChildren(el("li", { class: "none" }, `Not known now: ${entries.message}`));
      return;
    }
    const items = entries.map(told).reverse();
    this.#history.replaceChildren(...(items.length ? items : [el("li", { class: "none" }, "Nothing since the registry was started.")]));
  }
}
