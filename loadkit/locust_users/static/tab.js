// The loadkit tab. Locust's interface makes an empty panel for it; this script draws there while
// the tab is selected and asks for numbers only then. Data is only ever set as text.

import { drawChart, seriesTable } from "./chart.js";
import { PARTS, count, html, milliseconds, percent } from "./dom.js";

const PERIOD_MS = 1000;
const SOURCES = {
  server: "Split by the server",
  estimated: "Split estimated, from the server's cached-token counts and what each load worker sent",
  mixed: "Split partly by the server, partly estimated",
};

let root = null;
let shown = null; // the last answer, as text: nothing is drawn twice

function panel() {
  const tab = document.querySelector('[role="tab"][aria-selected="true"]');
  if (!tab || tab.textContent.trim() !== "loadkit") return null;
  return tab.closest(".MuiContainer-root");
}

function mount() {
  const place = panel();
  if (!place) {
    root?.remove();
    root = null;
    return;
  }
  if (root?.parentNode === place) return;
  root?.remove();
  const attributes = { id: "loadkit-tab", class: "lk", "aria-label": "loadkit: live hit rate" };
  root = html("section", attributes, ...sections());
  shown = null;
  place.append(root);
  theme();
  poll();
}

// Locust keeps its theme to itself; the page's background tells it.
function theme() {
  const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
  const dark = 0.299 * r + 0.587 * g + 0.114 * b < 128;
  if (root) root.dataset.theme = dark ? "dark" : "light";
}

async function poll() {
  if (!root || document.hidden) return;
  try {
    const answer = await fetch("./loadkit/live", { cache: "no-store", redirect: "manual" });
    if (answer.type === "opaqueredirect") throw new Error("signed out");
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const text = await answer.text();
    if (root && text !== shown) render(JSON.parse(text));
    shown = text;
  } catch (error) {
    shown = null;
    if (root) note(`No live numbers: ${error.message}. Reload the page if this stays.`);
  }
}

function note(text) {
  const old = root.querySelector(".lk-lost");
  const now = html("p", { class: "lk-lost", role: "status" }, text);
  if (old) old.textContent = text;
  else root.prepend(now);
}

// Sections stay; only what changed is replaced, so that focus, selection and scroll stay too.
const SECTIONS = ["warnings", "cards", "bar", "figure", "side"];

function sections() {
  const empty = SECTIONS.map((name) => [name, html("div", { class: `lk-${name}` })]);
  const made = Object.fromEntries(empty);
  made.warnings.setAttribute("aria-live", "polite");
  const details = html("details", { class: "lk-periods" },
    html("summary", {}, "Numbers behind the chart"), html("div", { class: "lk-table" }));
  details.addEventListener("toggle", redraw);
  const columns = html("div", { class: "lk-columns" }, made.figure, made.side);
  return [made.warnings, made.cards, made.bar, columns, details];
}

function swap(name, ...nodes) {
  const place = root.querySelector(`.lk-${name}`);
  const old = [...place.childNodes];
  if (old.length === nodes.length && old.every((node, i) => node.isEqualNode(nodes[i]))) return;
  place.replaceChildren(...nodes);
}

function render(view) {
  root.querySelector(".lk-lost")?.remove();
  swap("warnings", ...warnings(view));
  swap("cards", ...headlines(view));
  swap("bar", ...bar(view));
  const width = contentWidth(root.querySelector(".lk-figure"));
  swap("figure", caption(view), drawChart(view, Math.max(240, width)));
  swap("side", causes(view), outcomes(view));
  if (root.querySelector(".lk-periods").open) swap("table", seriesTable(view.series));
  root.dataset.requests = view.requests;
}

function contentWidth(node) {
  const style = getComputedStyle(node);
  const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
  return Math.floor(node.clientWidth - padding);
}

function warnings(view) {
  return view.warnings.map(({ code, message }) =>
    html("p", { class: "lk-warning", "data-code": code },
      html("span", { class: "lk-sign", "aria-hidden": "true" }, "!"), html("span", {}, message)));
}

function headlines(view) {
  const measured = `token-weighted, of ${count(view.prompt_tokens)} prompt tokens`;
  const organic = "continuation + shared, of requests that are no replay";
  const source = SOURCES[view.split_source] ?? "No cached tokens reported yet";
  return [
    card("hit-rate", "Hit rate so far", percent(view.hit_rate), measured),
    card("organic", "Organic hit rate", percent(view.organic_hit_rate), organic),
    ...expectation(view.expected_hit_rate),
    card("requests", "Requests", count(view.requests), source),
  ];
}

function expectation(range) {
  if (!range) return [];
  const isExact = range.low === range.high;
  const interval = isExact ? "counted exactly" : `from ${percent(range.low)} to ${percent(range.high)}`;
  return [card("expected", "Expected in production", percent(range.estimate), interval)];
}

function card(name, title, value, hint) {
  return html("div", { class: `lk-card lk-card-${name}` },
    html("div", { class: "lk-card-title" }, title),
    html("div", { class: "lk-card-value", "data-value": name }, value),
    html("div", { class: "lk-hint" }, hint));
}

// Whether a piece of the bar is wide enough for a text of this length, generously.
function fits(text, share) {
  return text === "" || share * root.clientWidth > 8 * text.length + 24;
}

// The table has the same numbers for screen readers.
function bar(view) {
  return PARTS.filter(({ key }) => view.totals[key] > 0).map(({ key, label }) => {
    const share = view.totals[key] / view.prompt_tokens;
    const title = `${label} ${percent(share)}`;
    const words = [title, percent(share), ""].find((text) => fits(text, share));
    const names = `lk-piece lk-back-${key}`;
    const piece = html("div", { class: names, title, "aria-hidden": "true" });
    piece.style.flexGrow = share;
    piece.append(...(words ? [words] : [])); // an empty text node would not be :empty
    return piece;
  });
}

function caption(view) {
  const key = [html("span", {}, html("i", { class: "lk-key-line" }), "hit rate so far")];
  if (view.expected_hit_rate) {
    key.push(html("span", {}, html("i", { class: "lk-key-band" }), "expected in production"));
  }
  return html("div", { class: "lk-caption" },
    html("b", {}, "Where prompt tokens came from, over time"),
    html("span", { class: "lk-key" }, ...key));
}

function causes(view) {
  const latency = Object.fromEntries(view.ttft.map((row) => [row.cause, row]));
  const rows = PARTS.map(({ key, label, hint }) =>
    causeRow(key, label, hint, view.totals[key], view.prompt_tokens, latency[key]));
  if (view.totals.not_reported || view.not_reported_requests || latency.not_reported) {
    const tokens = view.totals.not_reported;
    rows.push(causeRow("not_reported", "Not reported", "in no rate", tokens, null, latency.not_reported));
  }
  const head = ["Cause", "Tokens", "Share", "TTFT p50", "TTFT p99"];
  return html("div", { class: "lk-box" }, html("table", { class: "lk-causes" },
    html("caption", {}, "Prompt tokens by cause. TTFT: send to first token, of the requests whose " +
      "prompt is mostly of that cause."),
    html("thead", {}, html("tr", {}, ...head.map((text) => html("th", { scope: "col" }, text)))),
    html("tbody", {}, ...rows)));
}

function causeRow(key, label, hint, tokens, whole, latency) {
  return html("tr", { "data-cause": key },
    html("th", { scope: "row", title: hint }, html("i", { class: `lk-dot lk-back-${key}` }), label),
    html("td", {}, count(tokens)),
    html("td", {}, percent(whole ? tokens / whole : null)),
    html("td", {}, milliseconds(latency?.p50_s)),
    html("td", { title: `of ${count(latency?.requests ?? 0)} requests` }, milliseconds(latency?.p99_s)));
}

function outcomes(view) {
  const late = view.schedule_delay;
  const entries = [
    ...view.outcomes.map(({ outcome, requests }) => [outcome.replaceAll("_", " "), count(requests)]),
    ["schedule delay p50", milliseconds(late.p50_s)],
    ["schedule delay p99", milliseconds(late.p99_s)],
  ];
  const rows = entries.map(([name, value]) =>
    html("tr", {}, html("th", { scope: "row" }, name), html("td", {}, value)));
  return html("div", { class: "lk-box" }, html("table", { class: "lk-outcomes" },
    html("caption", {}, "Outcomes, and how late requests left."), html("tbody", {}, ...rows)));
}

function redraw() {
  if (root && shown) render(JSON.parse(shown));
}

new MutationObserver(mount).observe(document.getElementById("root"), {
  childList: true, subtree: true, attributes: true, attributeFilter: ["aria-selected"],
});
new MutationObserver(theme).observe(document.head, { childList: true });
window.addEventListener("resize", redraw);
setInterval(() => { theme(); poll(); }, PERIOD_MS);
mount();
