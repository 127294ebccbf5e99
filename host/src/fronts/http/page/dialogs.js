// What asks before something is done, and what says how it went.

import { el } from "./dom.js";
import { ask, service_path, set_token, token } from "./api.js";

/** Says something for a few seconds. */
export function toast(text, kind = "") {
  const node = el("p", { class: `toast ${kind}` }, text);
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), kind === "bad" ? 9000 : 4500);
}

/**
 * Asks for a decision. `act` does it; if it throws, the dialog says why and stays. The promise has whether it was done.
 */
function decide({ title, about, fields = [], verb, is_grave = false, act }) {
  return new Promise((decided) => {
    const problem = el("p", { class: "problem", role: "alert" });
    const cancel = el("button", { type: "button", class: "plain", onclick: () => dialog.close() }, "Cancel");
    const go = el("button", { type: "submit", class: is_grave ? "grave" : "main" }, verb);
    let is_done = false;
    const submit = async (event) => {
      event.preventDefault();
      go.disabled = true;
      problem.textContent = "";
      try {
        await act();
        is_done = true;
        dialog.close();
      } catch (error) {
        problem.textContent = error.message;
        go.disabled = false;
        go.focus();
      }
    };
    const form = el("form", { onsubmit: submit }, el("h2", { id: "dialog-title" }, title), about, fields, problem, el("div", { class: "choices" }, cancel, go));
    const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, form);
    const before = document.activeElement;
    dialog.addEventListener("close", () => {
      dialog.remove();
      // What has been done may have changed the button that asked for it.
      const same = () => document.querySelector(`#detail [data-act="${before?.dataset.act}"]`) ?? document.querySelector("#detail .close");
      (before?.isConnected ? before : same())?.focus({ preventScroll: true });
      decided(is_done);
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    document.body.append(dialog);
    dialog.showModal();
    // Nothing is removed by one key too many.
    (fields.length ? form.querySelector("input, select") : is_grave ? cancel : go).focus();
  });
}

const named = ({ name, id }) => [el("b", {}, name || id), name && name !== id ? el("span", { class: "quiet" }, ` ${id}`) : null];

/** Only the registration that was looked at: not one that has taken its place meanwhile. */
const of_generation = ({ record }) => ({ generation: record.generation });

export function drain(entry) {
  const times = [["", "Until it is undrained"], ["600", "10 minutes"], ["3600", "1 hour"], ["28800", "8 hours"], ["86400", "1 day"]];
  const length = el("select", { id: "drain-for" }, times.map(([value, text]) => el("option", { value }, text)));
  const reason = el("input", { id: "drain-reason", type: "text", maxlength: 500, autocomplete: "off", placeholder: "Everybody can read it" });
  return decide({
    title: "Drain this service?",
    about: el("p", {}, ...named(entry), " stays registered and listed, but is not discovered any more."),
    fields: [el("label", { for: "drain-for" }, "For how long"), length, el("label", { for: "drain-reason" }, "Reason"), reason],
    verb: "Drain",
    act: async () => {
      const body = {};
      if (length.value) body.seconds = Number(length.value);
      if (reason.value.trim()) body.reason = reason.value.trim();
      await ask("PUT", `${service_path(entry.id)}/drain`, { query: of_generation(entry), body });
      toast(`Drained ${entry.name || entry.id}`);
    },
  });
}

export async function undrain(entry) {
  try {
    await ask("DELETE", `${service_path(entry.id)}/drain`, { query: of_generation(entry) });
    toast(`${entry.name || entry.id} is discovered again`);
  } catch (error) {
    toast(error.message, "bad");
  }
}

export function deregister(entry) {
  return decide({
    title: "Deregister this service?",
    about: el("p", {}, ...named(entry), " is removed. If it is still there, it is told so with its next heartbeat, and must not come back by itself."),
    verb: "Deregister",
    is_grave: true,
    act: async () => {
      await ask("DELETE", service_path(entry.id), { query: of_generation(entry) });
      toast(`Deregistered ${entry.name || entry.id}`);
    },
  });
}

/** Asks for a token, and tries it. */
export function ask_for_token(why) {
  const field = el("input", { id: "token-text", type: "password", autocomplete: "off", value: token(), spellcheck: "false" });
  return decide({
    title: "Access token",
    about: el("p", {}, why ?? "A token says who you are, as the command \u201cregistry token\u201d makes them. It is kept for this tab until you close it; leave the field empty to go without."),
    fields: [el("label", { for: "token-text" }, "Token"), field],
    verb: "Use",
    act: async () => {
      const before = token();
      set_token(field.value.trim());
      try {
        await ask("GET", "/v1/types", { query: { limit: 1 } });
      } catch (error) {
        if (field.value.trim()) set_token(before);
        if (field.value.trim()) throw error;
      }
    },
  });
}
