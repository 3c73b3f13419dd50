// Building elements. Data is always inserted as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; a string child is text. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** 0.618 as "62%"; small non-zero shares as "<1%". */
export function percent(share) {
  if (share === null || share === undefined) return "";
  if (share > 0 && share < 0.005) return "<1%";
  return `${Math.round(share * 100)}%`;
}

/** A number to two places, with a real minus sign. */
export const number = (value, places = 2) => value.toFixed(places).replace("-", "\u2212");
