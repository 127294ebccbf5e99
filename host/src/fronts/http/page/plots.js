// Small plots of the last hour.

import { el, mark, say, svg } from "./dom.js";
import { number, short_clock } from "./format.js";
import { MINUTES } from "./activity.js";

const [WIDTH, HEIGHT] = [240, 40];
const STEP = WIDTH / MINUTES;

function frame(label) {
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "plot", role: "img" });
  const tip = el("div", { class: "tip", "aria-hidden": "true" });
  tip.hidden = true;
  const node = el("div", { class: "plot-box" }, picture, tip);
  mark(picture, "aria-label", label);
  return { node, picture, tip };
}

/** Says what the minute under the pointer has. */
function point({ node, tip }, text_of) {
  node.addEventListener("pointermove", (event) => {
    const box = node.getBoundingClientRect();
    const place = Math.max(0, Math.min(MINUTES - 1, Math.floor(((event.clientX - box.left) / box.width) * MINUTES)));
    const text = text_of(place);
    tip.hidden = !text;
    say(tip, text ?? "");
    tip.classList.toggle("left", place > MINUTES / 2);
    tip.style.setProperty("--x", `${(100 * (place + 0.5)) / MINUTES}%`);
  });
  node.addEventListener("pointerleave", () => (tip.hidden = true));
}

/** Changes per minute: what came above, in one bar with what went. */
export class Bars {
  #frame = frame("Changes per minute");
  #hour = [];
  #bars = Array.from({ length: MINUTES }, (_, place) => {
    const at = { x: place * STEP + 0.5, width: STEP - 1, rx: 0.8 };
    const [came, went] = [svg("rect", { ...at, class: "came" }), svg("rect", { ...at, class: "went" })];
    this.#frame.picture.append(came, went);
    return { came, went };
  });

  constructor() {
    point(this.#frame, (place) => {
      const at = this.#hour[place];
      if (!at?.changes) return at ? `${short_clock(at.minute * 60)}  not known` : null;
      return `${short_clock(at.minute * 60)}  ${number(at.changes.came)} in, ${number(at.changes.went)} out`;
    });
  }

  get node() {
    return this.#frame.node;
  }

  show(hour) {
    this.#hour = hour;
    const sums = hour.map(({ changes }) => (changes ? changes.came + changes.went : 0));
    const most = Math.max(4, ...sums);
    hour.forEach(({ changes }, place) => {
      const { came, went } = this.#bars[place];
      const high = (part) => (part ? Math.max(1.5, (part / most) * (HEIGHT - 2)) : 0);
      const [up, down] = changes ? [high(changes.came), high(changes.went)] : [0, 0];
      // A minute without a change has a line on the ground; one that is not known has nothing.
      const ground = changes && !up && !down ? 1 : up;
      mark(came, "y", HEIGHT - ground);
      mark(came, "height", ground);
      mark(came, "class", changes && !up && !down ? "none" : "came");
      mark(went, "y", HEIGHT - up - down - (up && down ? 0.5 : 0));
      mark(went, "height", down);
    });
    mark(this.#frame.picture, "aria-label", `Changes per minute in the last hour, at most ${number(Math.max(0, ...sums))}`);
  }
}

/** How a number went, from when on it is known. */
export class Line {
  #frame;
  #title;
  #text_of;
  #points = [];
  #area = svg("path", { class: "area" });
  #line = svg("path", { class: "line", "vector-effect": "non-scaling-stroke" });

  constructor(title, text_of) {
    this.#frame = frame(title);
    this.#title = title;
    this.#text_of = text_of;
    this.#frame.picture.append(this.#area, this.#line);
    point(this.#frame, (place) => {
      const at = this.#points[Math.floor((place / MINUTES) * this.#points.length)];
      return at ? `${short_clock(at.minute * 60)}  ${this.#text_of(at.value)}` : null;
    });
  }

  get node() {
    return this.#frame.node;
  }

  /** `points` have a `minute` and a `value`, null where it is not known. */
  show(points) {
    const first = points.findIndex(({ value }) => value !== null);
    if (first === -1) return;
    this.#points = points.slice(first).filter(({ value }) => value !== null);
    const values = this.#points.map(({ value }) => value);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const room = Math.max(most - least, most * 0.1, 1e-9);
    const bottom = Math.max(0, (least + most - room) / 2);
    const y = (value) => (HEIGHT - 5 - ((value - bottom) / room) * (HEIGHT - 9)).toFixed(2);
    const x = (place) => ((WIDTH * place) / Math.max(1, values.length - 1)).toFixed(2);
    const path = [...values.map((value, place) => `${x(place)},${y(value)}`), `${WIDTH},${y(values.at(-1))}`].join("L");
    mark(this.#line, "d", `M${path}`);
    mark(this.#area, "d", `M${path}L${WIDTH},${HEIGHT}L0,${HEIGHT}Z`);
    const from = short_clock(this.#points[0].minute * 60);
    mark(this.#frame.picture, "aria-label", `${this.#title} since ${from}: ${this.#text_of(least)} to ${this.#text_of(most)}`);
  }
}
