// Elements. What comes from outside becomes text here, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element; strings among its children become text. */
export function el(name, properties = {}, ...children) {
  return fill(document.createElement(name), properties, children);
}

/** An SVG element. */
export function svg(name, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

/** Sets the text of a node, if it is another one: an equal text would still cost a layout. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute, if it has another value; null removes it. */
export function mark(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

export function byId(id) {
  return document.getElementById(id);
}

/** Calls `work` once before the next frame, however often it is asked for. */
export function once_a_frame(work) {
  let is_asked = false;
  return () => {
    if (is_asked) return;
    is_asked = true;
    // A page that nobody sees gets no frames, and must not fall behind.
    const next = document.hidden ? (run) => setTimeout(run, 500) : requestAnimationFrame;
    next(() => {
      is_asked = false;
      work();
    });
  };
}
