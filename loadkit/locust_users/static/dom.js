// Small helpers: build nodes without ever parsing HTML, and format numbers.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children); // strings become text nodes
  return node;
}

export function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// Unknown is a dash, never 0.
const or = (format) => (value) => (value === null || value === undefined ? "–" : format(value));

export const percent = or((rate) => `${(100 * rate).toFixed(1)}%`);
export const count = or((number) => number.toLocaleString("en-US"));
export const milliseconds = or((seconds) => {
  const ms = 1000 * seconds;
  return `${ms.toLocaleString("en-US", { maximumFractionDigits: ms < 10 ? 2 : ms < 100 ? 1 : 0 })} ms`;
});

export function clock(seconds) {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

export const PARTS = [
  { key: "continuation", label: "Continuation", hint: "a session's own earlier turns" },
  { key: "shared", label: "Shared", hint: "other sessions' prefixes: system prompt, tools" },
  { key: "replay", label: "Replay", hint: "the identical prompt was sent before" },
  { key: "miss", label: "Miss", hint: "computed anew" },
];
