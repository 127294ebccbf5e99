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

/** How many services there were, since the page was opened. */
export class Line {
  #frame = frame("Services");
  #hour = [];
  #area = svg("path", { class: "area" });
  #line = svg("path", { class: "line", "vector-effect": "non-scaling-stroke" });

  constructor() {
    this.#frame.picture.append(this.#area, this.#line);
    point(this.#frame, (place) => {
      const at = this.#hour[place];
      return at && at.size !== null ? `${short_clock(at.minute * 60)}  ${number(at.size)}` : null;
    });
  }

  get node() {
    return this.#frame.node;
  }

  show(hour) {
    this.#hour = hour;
    const known = hour.map(({ size }, place) => ({ size, place })).filter(({ size }) => size !== null);
    if (!known.length) return;
    const sizes = known.map(({ size }) => size);
    const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
    const room = Math.max(most - least, Math.ceil(most * 0.1), 1);
    const bottom = Math.max(0, (least + most - room) / 2);
    const y = (size) => (HEIGHT - 4 - ((size - bottom) / room) * (HEIGHT - 10)).toFixed(2);
    const points = known.flatMap(({ size, place }) => [`${place * STEP},${y(size)}`, `${(place + 1) * STEP},${y(size)}`]);
    const path = `M${points.join("L")}`;
    mark(this.#line, "d", path);
    mark(this.#area, "d", `${path}L${WIDTH},${HEIGHT}L${known[0].place * STEP},${HEIGHT}Z`);
    mark(this.#frame.picture, "aria-label", `Services since the page was opened: ${number(least)} to ${number(most)}`);
  }
}
