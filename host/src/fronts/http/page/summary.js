// The cards above the list: how many there are, how they are, what changes, and how the registry is.

import { el, mark, say } from "./dom.js";
import { clock, count, number } from "./format.js";
import { Bars, Line } from "./plots.js";
import { STATES } from "./services.js";

export const STATE_NAMES = { passing: "Passing", drained: "Drained", critical: "Critical" };

/** Requests a second, in words. */
const rate = (value) => `${value < 10 ? value.toFixed(1) : number(Math.round(value))} requests/s`;

function card(title, ...content) {
  const value = el("strong", { class: "value" }, "\u2013");
  const note = el("span", { class: "note" });
  return { node: el("div", { class: "card" }, el("h2", {}, title), el("div", { class: "figure" }, value, note), ...content), value, note };
}

export class Summary {
  #line = new Line("Services", number);
  #rates = new Line("Requests a second", rate);
  #bars = new Bars();
  #total = card("Services", this.#line.node);
  #parts = Object.fromEntries(STATES.map((state) => [state, el("i", { class: state })]));
  #numbers = Object.fromEntries(STATES.map((state) => [state, el("b")]));
  #health = card(
    "Health",
    el("div", { class: "split", "aria-hidden": "true" }, Object.values(this.#parts)),
    el("ul", { class: "legend" }, STATES.map((state) => el("li", { class: state }, el("i", { class: "dot" }), this.#numbers[state], ` ${state}`))),
  );
  #changes = card("Changes", this.#bars.node);
  #clients = card("Clients", this.#rates.node);
  #storage = card("Storage", el("p", { class: "facts" }));

  constructor(root) {
    root.append(...[this.#total, this.#health, this.#changes, this.#clients, this.#storage].map((card) => card.node));
    this.#clients.node.hidden = true;
    this.#health.node.classList.add("health");
    this.#storage.node.classList.add("storage");
  }

  show_services(services, types, is_listed) {
    say(this.#total.value, is_listed ? number(services.size) : "\u2013");
    say(this.#total.note, is_listed ? `of ${count(types, "type")}` : "");
    const { counts } = services;
    const share = services.size ? (100 * counts.passing) / services.size : 0;
    // Not 100 while a single one is not.
    const shown = share === 100 ? "100" : (Math.floor(share * 10) / 10).toFixed(share >= 99 ? 1 : 0);
    say(this.#health.value, services.size ? `${shown}%` : "\u2013");
    say(this.#health.note, services.size ? "passing" : "");
    for (const state of STATES) {
      this.#parts[state].style.flexGrow = String(counts[state]);
      this.#parts[state].hidden = counts[state] === 0;
      say(this.#numbers[state], number(counts[state]));
    }
  }

  show_hour(hour) {
    this.#line.show(hour.map(({ minute, size }) => ({ minute, value: size })));
    this.#bars.show(hour);
    const last = hour.filter(({ changes }) => changes);
    const sum = last.reduce((sum, { changes }) => sum + changes.came + changes.went, 0);
    say(this.#changes.value, last.length ? number(sum) : "\u2013");
    say(this.#changes.note, !last.length ? "" : last.length >= 60 ? "in the last hour" : `in ${count(last.length, "minute")}`);
  }

  /** How clients use it, if that is known. */
  show_load(load, hour) {
    const { node, value, note } = this.#clients;
    node.hidden = load.connections === null;
    node.parentNode.classList.toggle("with-clients", !node.hidden);
    if (node.hidden) return;
    say(value, number(load.connections));
    say(note, load.rate === null ? "connected" : rate(load.rate));
    this.#rates.show(hour.map(({ minute }) => ({ minute, value: load.rate_in(minute) })));
  }

  show_storage(health, { position, commit }) {
    const { value, note, node } = this.#storage;
    const backend = health?.backend ?? {};
    const state = backend.state ?? "unknown";
    mark(node, "data-state", state);
    say(value, backend.plugin ?? "\u2013");
    say(note, { ok: "in order", failing: "failing", stalled: "stalled", unknown: "" }[state] ?? state);
    const wrong = [backend.since && `since ${clock(backend.since)}`, backend.error].filter(Boolean).join(": ");
    const well = [position && `Revision ${number(position.revision)}`, commit && `${(commit * 1000).toFixed(1)} ms a commit`];
    say(node.querySelector(".facts"), wrong || well.filter(Boolean).join(" \u00b7 "));
  }
}

/** What is told above everything while it lasts. */
export function banners(root, { state, since, as_of, health }) {
  const told = [];
  if (state === "lost") {
    told.push(["bad", `The connection to the registry was lost at ${clock(since)}.${as_of ? ` What you see is as of ${clock(as_of)}.` : ""}`]);
  } else if (state === "starting") {
    told.push(["warn", "The registry is starting, and has not loaded its services yet."]);
  }
  const { backend, mass_expiry: mass, silence, keys } = health ?? {};
  if (backend?.state === "failing") told.push(["bad", "The storage fails: changes are refused, reads go on."]);
  if (backend?.state === "stalled") told.push(["bad", "The storage does not answer: changes wait, reads go on."]);
  if (mass) told.push(["warn", `Mass expiry since ${clock(mass.since)}: ${count(mass.critical, "service")} ran out together and are held.`]);
  if (silence) told.push(["warn", `No heartbeat of anybody since ${clock(silence.since)}: the registry may have been cut off, and removes nobody.`]);
  if (keys?.state === "failing") told.push(["warn", `${count(keys.bad_files ?? 0, "file")} among the authorized keys cannot be used.`]);
  while (root.children.length > told.length) root.lastChild.remove();
  told.forEach(([kind, text], place) => {
    const banner = root.children[place] ?? root.appendChild(el("p"));
    mark(banner, "class", `banner ${kind}`);
    say(banner, text);
  });
}
