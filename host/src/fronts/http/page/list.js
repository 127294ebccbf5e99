// A list of which only the rows that are in sight are in the page, however long it is.

import { el, mark, once_a_frame } from "./dom.js";

const BEYOND = 8;

export class List {
  #root;
  #sizer;
  #make;
  #on_move;
  #on_open;
  #items = [];
  #rows = [];
  #active = null;
  #row_height = 44;
  #head_height = 0;
  #draw = once_a_frame(() => this.draw());

  /**
   * `root` scrolls and may have a head that sticks. `make` gives `{ node, show(item) }`. Items have a `key`, or an `id`,
   * of their own.
   */
  constructor(root, { make, on_open, on_move = () => {} }) {
    this.#root = root;
    this.#make = make;
    this.#on_open = on_open;
    this.#on_move = on_move;
    this.#sizer = el("div", { class: "sizer", role: "rowgroup" });
    root.append(this.#sizer);
    root.addEventListener("scroll", this.#draw, { passive: true });
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("focus", () => this.#active ?? this.#move_to(this.#first_in_sight()));
    new ResizeObserver(() => {
      this.#measure();
      this.#draw();
    }).observe(root);
    this.#measure();
  }

  get items() {
    return this.#items;
  }

  set items(items) {
    this.#items = items;
    mark(this.#root, "aria-rowcount", items.length);
    this.#sizer.style.height = `${items.length * this.#row_height}px`;
    this.#draw();
  }

  /** The key of the row that the keyboard is at. */
  get active() {
    return this.#active;
  }

  set active(key) {
    this.#active = key;
    this.#draw();
  }

  focus() {
    this.#root.focus({ preventScroll: true });
  }

  #measure() {
    const height = parseFloat(getComputedStyle(this.#root).getPropertyValue("--row")) || 44;
    if (height !== this.#row_height) this.#rows.forEach((row) => (row.place = -1));
    this.#row_height = height;
    this.#head_height = this.#sizer.offsetTop;
    this.#sizer.style.height = `${this.#items.length * this.#row_height}px`;
  }

  #key_of(item) {
    return item.key ?? item.id;
  }

  #place_of_active() {
    return this.#active === null ? -1 : this.#items.findIndex((item) => this.#key_of(item) === this.#active);
  }

  #first_in_sight() {
    return Math.min(this.#items.length - 1, Math.ceil(this.#root.scrollTop / this.#row_height));
  }

  #move_to(place) {
    const item = this.#items[Math.max(0, Math.min(this.#items.length - 1, place))];
    if (!item) return;
    this.#active = this.#key_of(item);
    const top = this.#items.indexOf(item) * this.#row_height;
    const room = this.#root.clientHeight - this.#head_height;
    if (top < this.#root.scrollTop) this.#root.scrollTop = top;
    else if (top + this.#row_height > this.#root.scrollTop + room) this.#root.scrollTop = top + this.#row_height - room;
    this.#on_move(item);
    this.#draw();
  }

  #key(event) {
    if (event.target !== this.#root || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor((this.#root.clientHeight - this.#head_height) / this.#row_height) - 1);
    const place = this.#place_of_active();
    const steps = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1, PageDown: page, PageUp: -page };
    if (event.key in steps) this.#move_to(place === -1 ? this.#first_in_sight() : place + steps[event.key]);
    else if (event.key === "Home") this.#move_to(0);
    else if (event.key === "End") this.#move_to(this.#items.length - 1);
    else if (event.key === "Enter" && place !== -1) this.#on_open(this.#items[place]);
    else return;
    event.preventDefault();
  }

  #row(place) {
    if (!this.#rows[place]) {
      const row = this.#make();
      row.node.id = `${this.#root.id}-${place}`;
      row.node.addEventListener("click", () => {
        if (!row.item) return;
        this.#active = this.#key_of(row.item);
        this.#on_open(row.item);
        this.#draw();
      });
      this.#rows[place] = row;
      this.#sizer.append(row.node);
    }
    return this.#rows[place];
  }

  /** Shows what is in sight, as it is now. */
  draw() {
    const height = this.#row_height;
    const first = Math.max(0, Math.floor(this.#root.scrollTop / height) - BEYOND);
    const in_sight = Math.ceil(this.#root.clientHeight / height) + 2 * BEYOND;
    const last = Math.min(this.#items.length, first + in_sight);
    let active_row = null;
    // A row keeps its node while it is in sight: each place of the list has one of the nodes in turn.
    for (let place = first; place < last; place += 1) {
      const row = this.#row(place % in_sight);
      const item = this.#items[place];
      const is_active = this.#key_of(item) === this.#active;
      if (is_active) active_row = row.node;
      row.item = item;
      row.node.hidden = false;
      if (row.place !== place) {
        row.place = place;
        row.node.style.transform = `translateY(${place * height}px)`;
        mark(row.node, "aria-rowindex", place + 1);
      }
      row.node.classList.toggle("active", is_active);
      mark(row.node, "aria-selected", is_active);
      row.show(item);
    }
    const used = new Set();
    for (let place = first; place < last; place += 1) used.add(place % in_sight);
    this.#rows.forEach((row, at) => {
      if (used.has(at)) return;
      row.node.hidden = true;
      row.item = null;
      row.place = -1;
    });
    mark(this.#root, "aria-activedescendant", active_row ? active_row.id : null);
  }
}
