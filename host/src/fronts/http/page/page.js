// The page: puts its parts together, and says what is shown.

import { Activity } from "./activity.js";
import { Detail } from "./detail.js";
import { ask_for_token, deregister, drain, undrain } from "./dialogs.js";
import { byId, el, mark, once_a_frame, say } from "./dom.js";
import { address, clock, count, number, span } from "./format.js";
import { List } from "./list.js";
import { Load } from "./load.js";
import { Services, STATES } from "./services.js";
import { banners, STATE_NAMES, Summary } from "./summary.js";
import { Sync } from "./sync.js";

const services = new Services();
const activity = new Activity();
const load = new Load();
const wanted = { search: "", type: null, state: null, sort: "name", is_down: false };
/** The connection, since when it is so, and when the registry was heard of last, in seconds since 1970. */
const link = { state: "connecting", since: Date.now() / 1000, as_of: null, error: null, health: null, loading: 0, is_listed: false };
let view = "services";
/** How much the registry's clock is ahead of this one's, in seconds. */
let ahead = 0;
/** Whether another choice of services is to be shown, and from when on: choosing may take a tenth of the time. */
let is_stale = true;
let choose_at = 0;
/** The registry's time; while it does not answer, that of its last word: what is known gets no older by that. */
const now = () => (link.state === "lost" && link.as_of ? link.as_of : Date.now() / 1000) + ahead;

const summary = new Summary(byId("summary"));
const search = byId("search");
const detail = new Detail(byId("detail"), {
  now,
  on_close: () => {
    history.replaceState(null, "", location.pathname);
    focus_list();
  },
  on_search: (text) => {
    show_view("services");
    search.value = text;
    search_for(text);
  },
});

function cell(kind) {
  return el("span", { class: `cell ${kind}`, role: "gridcell" });
}

function service_row() {
  const dot = el("i", { class: "dot" });
  const [name, id] = [el("b"), el("small")];
  const [who, type, where, tags, state, beat] = ["who", "type", "where", "tags", "state", "beat"].map(cell);
  const word = el("span");
  who.append(el("span", { class: "lines" }, name, id));
  state.append(dot, word);
  const node = el("div", { class: "row service", role: "row" }, who, type, where, tags, state, beat);
  return {
    node,
    show(entry) {
      say(name, entry.name);
      say(id, entry.id);
      say(type, entry.type);
      say(where, address(entry.record.host, entry.record.port));
      say(tags, entry.tags.filter((tag) => tag !== entry.type).join(", "));
      say(word, STATE_NAMES[entry.state]);
      say(beat, span(now() - entry.record.last_heartbeat));
      mark(node, "data-state", entry.state);
    },
  };
}

function change_row() {
  const dot = el("i", { class: "dot" });
  const [name, id] = [el("b"), el("small")];
  const [when, what, who, type, where] = ["when", "what", "who", "type", "where"].map(cell);
  const word = el("span");
  what.append(dot, word);
  who.append(el("span", { class: "lines" }, name, id));
  const node = el("div", { class: "row change", role: "row" }, what, who, type, where, when);
  return {
    node,
    show({ id: of, at, type: kind, what: text, record }) {
      say(when, clock(at));
      say(word, text);
      say(name, String(record.name ?? of));
      say(id, of);
      say(type, String(record.type ?? ""));
      say(where, record.host === undefined ? "" : address(record.host, record.port));
      mark(node, "data-change", text === "Drained" ? "drain" : kind);
    },
  };
}

/** Opens a service, also one that is no more, if a change has told of it. */
function open(id, has_focus = false) {
  const gone = activity.changes.find((change) => change.id === id);
  detail.open(id, services.get(id) ?? (gone && { id, name: String(gone.record.name ?? ""), record: gone.record }), has_focus);
  history.replaceState(null, "", `#/${encodeURIComponent(id)}`);
}

// Who moves through the list with a service open sees the others as they pass.
const follow = ({ id }) => detail.id !== null && detail.id !== id && open(id);
const list = new List(byId("services"), { make: service_row, on_open: ({ id }) => open(id, true), on_move: follow });
const changes = new List(byId("activity"), { make: change_row, on_open: ({ id }) => open(id, true), on_move: follow });

const COLUMNS = [["name", "Service", "who"], ["type", "Type", "type"], ["address", "Address", "where"], [null, "Tags", "tags"], ["state", "State", "state"], ["beat", "Heartbeat", "beat"]];
const heads = COLUMNS.map(([sort, title, kind]) => {
  const by = () => {
    wanted.is_down = wanted.sort === sort && !wanted.is_down;
    wanted.sort = sort;
    refilter();
  };
  const button = sort ? el("button", { type: "button", onclick: by }, title) : title;
  const node = el("span", { class: `cell ${kind}`, role: "columnheader" }, button);
  byId("head").append(node);
  return { node, sort };
});

const states = Object.fromEntries(
  [null, ...STATES].map((state) => {
    const number_of = el("b");
    const pick = () => {
      wanted.state = state;
      refilter();
    };
    const dot = state && el("i", { class: "dot" });
    const button = el("button", { type: "button", class: state ?? "all", onclick: pick }, dot, el("span", {}, state ? STATE_NAMES[state] : "All"), " ", number_of);
    byId("states").append(button);
    return [state ?? "all", { button, number_of }];
  }),
);

const types = new Map();

function show_types() {
  const all = services.types();
  const root = byId("types");
  const rows = [[null, { total: services.size, ...services.counts }], ...all];
  const known = new Set(rows.map(([type]) => type));
  if (wanted.type !== null && !known.has(wanted.type)) rows.push([wanted.type, { total: 0, passing: 0, drained: 0, critical: 0 }]);
  rows.forEach(([type, counts], place) => {
    let row = types.get(type);
    if (!row) {
      const [total, drained, critical] = [el("b"), el("small", { class: "drained" }), el("small", { class: "critical" })];
      const pick = () => {
        wanted.type = type === wanted.type ? null : type;
        refilter();
      };
      const node = el("button", { type: "button", onclick: pick }, el("span", { class: "name" }, type ?? "All types"), drained, critical, total);
      row = { node, total, drained, critical };
      types.set(type, row);
    }
    say(row.total, number(counts.total));
    say(row.drained, counts.drained ? number(counts.drained) : "");
    say(row.critical, counts.critical ? number(counts.critical) : "");
    mark(row.node, "aria-label", `${type ?? "All types"}: ${STATES.map((state) => `${counts[state]} ${state}`).join(", ")}`);
    mark(row.node, "aria-pressed", type === wanted.type);
    if (root.children[place] !== row.node) root.insertBefore(row.node, root.children[place] ?? null);
  });
  while (root.children.length > rows.length) root.lastChild.remove();
  for (const type of [...types.keys()]) if (type !== wanted.type && !known.has(type)) types.delete(type);
  return all.length;
}

function show_empty(shown) {
  const empty = byId("empty");
  const is_refused = link.state === "refused";
  empty.hidden = shown > 0 && !is_refused;
  byId("services").classList.toggle("without-rows", !empty.hidden);
  if (empty.hidden) return;
  const is_filtered = wanted.search || wanted.type !== null || wanted.state !== null;
  let [title, more, act] = ["Nothing is registered", "Services appear here as soon as they register.", null];
  if (is_refused) {
    title = link.error.status === 403 ? "You may not look at this" : "Who are you?";
    const without = "This registry answers those who show a token, as the command \u201cregistry token\u201d makes them.";
    [more, act] = [link.error.status === 401 ? without : link.error.message, ["Give a token\u2026", give_token]];
  } else if (view === "activity") [title, more] = ["Nothing has happened", "Changes appear here as they come."];
  else if (!link.is_listed && link.state === "lost") [title, more] = ["The registry does not answer", "The page goes on trying."];
  else if (!link.is_listed) [title, more] = ["Loading", link.loading ? count(link.loading, "service") : ""];
  else if (is_filtered && services.size) [title, more, act] = ["No service is like that", `${count(services.size, "service")} in all.`, ["Show all", clear_filters]];
  const text = `${title}\n${more}`;
  if (empty.dataset.text === text) return;
  empty.dataset.text = text;
  const button = act && el("button", { type: "button", class: "main", onclick: act[1] }, act[0]);
  empty.replaceChildren(el("h2", {}, title), el("p", {}, more), button ?? "");
}

/** Everything that follows from what is known. */
const show = once_a_frame(() => {
  const number_of_types = show_types();
  summary.show_services(services, number_of_types, link.is_listed);
  for (const [state, { button, number_of }] of Object.entries(states)) {
    say(number_of, number(state === "all" ? services.size : services.counts[state]));
    mark(button, "aria-pressed", (wanted.state ?? "all") === state);
  }
  for (const { node, sort } of heads) {
    mark(node, "aria-sort", sort === wanted.sort ? (wanted.is_down ? "descending" : "ascending") : null);
  }
  const begin = performance.now();
  if (is_stale && begin >= choose_at) {
    is_stale = false;
    list.items = services.chosen(wanted);
    choose_at = performance.now() + 9 * (performance.now() - begin);
  } else {
    list.draw();
    if (is_stale) setTimeout(show, choose_at - begin);
  }
  if (view === "activity") changes.items = shown_changes();
  const shown = view === "services" ? list.items.length : changes.items.length;
  say(byId("shown"), view === "services" ? `${number(shown)} of ${count(services.size, "service")}` : count(shown, "change"));
  // Who searches is told what that comes to, but not of each change.
  mark(byId("shown"), "aria-live", document.activeElement === search ? "polite" : "off");
  show_empty(shown);
  if (detail.id !== null && services.get(detail.id)) detail.update(services.get(detail.id));
});

function shown_changes() {
  const text = wanted.search.trim().toLowerCase();
  const is_wanted = ({ id, what, record }) => `${id}\n${record.name}\n${record.type}\n${what}`.toLowerCase().includes(text);
  return activity.changes.filter((change) => (wanted.type === null || change.record.type === wanted.type) && is_wanted(change));
}

/** Somebody wants to see others, at once. */
function refilter() {
  choose_at = 0;
  changed();
}

function changed() {
  is_stale = true;
  show();
}

function search_for(text) {
  wanted.search = text;
  byId("services").scrollTop = 0;
  byId("activity").scrollTop = 0;
  refilter();
}

function clear_filters() {
  search.value = "";
  Object.assign(wanted, { type: null, state: null });
  search_for("");
  focus_list();
}

function focus_list() {
  // A list without rows is not shown, and gets its rows with the next frame.
  byId("services").classList.remove("without-rows");
  (view === "services" ? list : changes).focus();
}

function show_view(name) {
  view = name;
  for (const tab of ["services", "activity"]) {
    mark(byId(`tab-${tab}`), "aria-selected", tab === name);
    mark(byId(`tab-${tab}`), "tabindex", tab === name ? 0 : -1);
    byId(tab).hidden = tab !== name;
  }
  byId("states").hidden = name !== "services";
  refilter();
}

const CONNECTION = { connecting: "Connecting", live: "Live", polling: "Live, by polling", refused: "Not allowed", starting: "Starting" };

/** What moves with the time. */
function tick() {
  if (link.is_listed) activity.note_size(now(), services.size);
  const hour = activity.hour(now());
  summary.show_hour(hour);
  summary.show_load(load, hour);
  summary.show_storage(link.health, { position: sync.position, commit: load.commit });
  detail.tick();
  mark(byId("connection"), "data-state", link.state);
  const lost = `Lost ${span(Date.now() / 1000 - link.since)} ago`;
  say(byId("connection").lastChild, link.state === "lost" ? lost : CONNECTION[link.state]);
  document.body.classList.toggle("old", link.state === "lost");
  banners(byId("banners"), link);
  if (!document.hidden) show();
}

async function give_token() {
  if (await ask_for_token()) sync.again();
}

const sync = new Sync({
  loading: (loaded) => {
    link.loading = loaded;
    show();
  },
  listed: (records) => {
    services.replace(records);
    link.is_listed = true;
    refilter();
    if (detail.id === null && location.hash.startsWith("#/")) open(decodeURIComponent(location.hash.slice(2)));
  },
  earlier: (known, since) => {
    activity.add_earlier(known, since, services.size);
    tick();
  },
  change: (change) => {
    const { service_id: id, service_info: record } = change.data;
    const before = services.get(id);
    activity.add(change, before?.record);
    if (change.type === "register") services.put(record);
    else services.remove(id);
    if (detail.id === id) detail.open(id, services.get(id) ?? { id, name: String(record.name ?? ""), record });
    changed();
  },
  beats: (records) => {
    records.forEach((moving) => services.beat(moving));
    if (wanted.state !== null || wanted.sort === "state" || wanted.sort === "beat") is_stale = true;
    show();
  },
  state: (state, error) => {
    if (state !== link.state) link.since = Date.now() / 1000;
    Object.assign(link, { state, error });
    tick();
  },
  heard: () => (link.as_of = Date.now() / 1000),
  health: (reply) => {
    link.health = reply ?? link.health;
    if (reply?.timestamp && link.state !== "lost" && Math.abs(reply.timestamp + 0.5 - now()) > 1.5) ahead = reply.timestamp + 0.5 - Date.now() / 1000;
  },
});

search.addEventListener("input", () => search_for(search.value));
search.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "Enter") focus_list();
  else return;
  event.preventDefault();
});
for (const [tab, other] of [["services", "activity"], ["activity", "services"]]) {
  byId(`tab-${tab}`).addEventListener("click", () => show_view(tab));
  byId(`tab-${tab}`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    show_view(other);
    byId(`tab-${other}`).focus();
  });
}
byId("services").addEventListener("keydown", (event) => {
  const entry = event.target.id === "services" && list.active !== null ? services.get(list.active) : null;
  if (!entry || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "d") entry.record.drain ? undrain(entry) : drain(entry);
  else if (event.key === "Delete") deregister(entry);
  else return;
  event.preventDefault();
});
document.addEventListener("keydown", (event) => {
  const is_typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || document.querySelector("dialog[open]");
  if (event.key === "/" && !is_typing) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
    if (event.target === search) {
      search.value = "";
      search_for("");
      focus_list();
    } else detail.close();
  }
});
byId("token").addEventListener("click", give_token);
byId("theme").addEventListener("click", () => {
  const is_dark = getComputedStyle(document.documentElement).getPropertyValue("--is-dark").trim() === "1";
  const theme = is_dark ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("registry.theme", theme);
});
setInterval(tick, 1000);
tick();
sync.start();
load.follow_for_ever(tick);
