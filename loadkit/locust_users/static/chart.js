// The split over time: one column a period, stacked from the bottom up as genuine reuse
// (continuation, shared), then replay, then miss. So the upper edge of replay is the hit rate, and
// what replay adds to the genuine part is seen at once.

import { PARTS, clock, count, html, percent, svg } from "./dom.js";

const MAX_COLUMNS = 60;
const MARGIN = { left: 46, right: 12, top: 10, bottom: 26 };
const SHARE_HEIGHT = 236;
const VOLUME_HEIGHT = 46;
const GAP = 26;
const HEIGHT = MARGIN.top + SHARE_HEIGHT + GAP + VOLUME_HEIGHT + MARGIN.bottom;
const PERIODS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400];

// Series of `loadkit.live/1` -> columns {at, width, tokens, continuation, ...}, fewer and wider.
// Every column has tokens.
export function columnsOf(series) {
  if (!series.at_s.length) return [];
  const end = series.at_s[series.at_s.length - 1] + series.width_s;
  const width = series.width_s * Math.max(1, Math.ceil(end / series.width_s / MAX_COLUMNS));
  const columns = new Map();
  series.at_s.forEach((at, i) => {
    const start = Math.floor(at / width) * width;
    const column = columns.get(start) ?? { at: start, width, tokens: 0 };
    for (const { key } of PARTS) {
      column[key] = (column[key] ?? 0) + series[key][i];
      column.tokens += series[key][i];
    }
    columns.set(start, column);
  });
  return [...columns.values()].filter((column) => column.tokens > 0);
}

export function hitRateOf(column) {
  return 1 - column.miss / column.tokens;
}

export function drawChart(view, pixels) {
  const columns = columnsOf(view.series);
  const last = columns[columns.length - 1];
  const frame = frameOf(pixels, last ? last.at + last.width : 10);
  const picture = svg("svg", {
    class: "lk-chart",
    viewBox: `0 0 ${pixels} ${HEIGHT}`,
    height: HEIGHT,
    role: "img",
    "aria-label": spoken(view, columns),
  });
  picture.append(hatching(), ...grid(frame));
  for (const column of columns) picture.append(stack(column, frame));
  picture.append(...expected(view.expected_hit_rate, frame), soFar(columns, frame));
  picture.append(...volume(columns, frame));
  if (!columns.length) picture.append(waiting(view, frame));
  return picture;
}

function frameOf(pixels, end) {
  const width = pixels - MARGIN.left - MARGIN.right;
  return {
    end,
    pixels,
    x: (at) => MARGIN.left + (width * at) / end,
    y: (share) => MARGIN.top + SHARE_HEIGHT * (1 - share),
    floor: MARGIN.top + SHARE_HEIGHT + GAP + VOLUME_HEIGHT,
  };
}

function waiting(view, frame) {
  const text = view.requests
    ? "No cached tokens reported yet."
    : "Waiting for the first request to finish.";
  const middle = { x: frame.pixels / 2, y: frame.y(0.62), "text-anchor": "middle" };
  return svg("text", { class: "lk-waiting", ...middle }, text);
}

function spoken(view, columns) {
  if (!columns.length) return "Split of prompt tokens over time. Nothing measured yet.";
  return (
    `Split of prompt tokens over ${clock(columns.at(-1).at + columns.at(-1).width)}. ` +
    `Hit rate so far ${percent(view.hit_rate)}, organic hit rate ` +
    `${percent(view.organic_hit_rate)}. The same numbers are in the tables.`
  );
}

// Replay is hatched as well as red: not told by its colour alone.
function hatching() {
  const tile = { width: 7, height: 7, patternUnits: "userSpaceOnUse" };
  const pattern = svg(
    "pattern",
    { id: "lk-hatch", ...tile, patternTransform: "rotate(45)" },
    svg("rect", { width: 7, height: 7, class: "lk-fill-replay" }),
    svg("rect", { width: 2, height: 7, class: "lk-hatch-line" }),
  );
  return svg("defs", {}, pattern);
}

function across(frame, y, name) {
  return svg("line", { class: name, x1: MARGIN.left, x2: frame.pixels - MARGIN.right, y1: y, y2: y });
}

function label(x, y, anchor, text) {
  return svg("text", { class: "lk-tick", x, y, "text-anchor": anchor }, text);
}

function grid(frame) {
  const right = frame.pixels - MARGIN.right;
  const lines = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    across(frame, frame.y(share), "lk-grid"),
    label(MARGIN.left - 8, frame.y(share) + 4, "end", `${100 * share}%`),
  ]);
  const most = Math.max(2, Math.floor(frame.pixels / 90));
  const step = PERIODS_S.find((period) => frame.end / period <= most) ?? 7 * 86400;
  for (let at = 0; at <= frame.end; at += step) {
    const anchor = frame.x(at) > right - 14 ? "end" : "middle";
    lines.push(label(frame.x(at), frame.floor + 17, anchor, clock(at)));
  }
  return lines;
}

function stack(column, frame) {
  const group = svg("g", {}, svg("title", {}, describe(column)));
  let below = 0;
  for (const { key } of PARTS) {
    const share = column[key] / column.tokens;
    if (share > 0) group.append(block(column, frame, key, below, share));
    below += share;
  }
  return group;
}

function block(column, frame, key, below, share) {
  const [left, right] = [frame.x(column.at), frame.x(column.at + column.width)];
  return svg("rect", {
    class: `lk-part-${key}`,
    x: left,
    y: frame.y(below + share),
    width: Math.max(0.5, right - left),
    height: SHARE_HEIGHT * share,
  });
}

export function describe(column) {
  const period = `${clock(column.at)} to ${clock(column.at + column.width)}`;
  const parts = PARTS.map((part) => `${part.label} ${percent(column[part.key] / column.tokens)}`);
  return `${period}: ${parts.join(", ")} of ${count(column.tokens)} prompt tokens`;
}

function expected(range, frame) {
  if (!range) return [];
  const [left, right] = [MARGIN.left, frame.pixels - MARGIN.right];
  const line = (rate, name) => across(frame, frame.y(rate), name);
  return [
    svg("rect", {
      class: "lk-band",
      x: left,
      y: frame.y(range.high),
      width: right - left,
      height: Math.max(1, frame.y(range.low) - frame.y(range.high)),
    }),
    line(range.low, "lk-band-edge"),
    line(range.high, "lk-band-edge"),
    line(range.estimate, "lk-band-middle"),
  ];
}

// Token-weighted hit rate from the start to the end of each column.
function soFar(columns, frame) {
  let [hits, tokens] = [0, 0];
  const points = columns.map((column) => {
    hits += column.tokens - column.miss;
    tokens += column.tokens;
    return `${frame.x(column.at + column.width)},${frame.y(hits / tokens)}`;
  });
  return svg("g", {}, ...["lk-sofar-halo", "lk-sofar"].map((name) =>
    svg("polyline", { class: name, points: points.join(" ") })));
}

function volume(columns, frame) {
  const most = Math.max(1, ...columns.map((column) => column.tokens));
  const bars = columns.map((column) => {
    const [x, right] = [frame.x(column.at), frame.x(column.at + column.width)];
    const height = (VOLUME_HEIGHT * column.tokens) / most;
    const width = Math.max(0.5, right - x - 0.7);
    return svg("rect", { class: "lk-volume", x, y: frame.floor - height, width, height });
  });
  const scale = columns.length ? ` (most: ${count(Math.round(most / columns[0].width))})` : "";
  const y = frame.floor - VOLUME_HEIGHT - 8;
  const title = label(MARGIN.left, y, "start", `Prompt tokens a second${scale}`);
  return [...bars, across(frame, frame.floor, "lk-axis"), title];
}

export function seriesTable(series) {
  const head = ["Time", ...PARTS.map((part) => part.label), "Hit rate", "Prompt tokens"];
  const rows = columnsOf(series).map((column) =>
    html("tr", {},
      html("th", { scope: "row" }, clock(column.at)),
      ...PARTS.map(({ key }) => html("td", {}, percent(column[key] / column.tokens))),
      html("td", {}, percent(hitRateOf(column))),
      html("td", {}, count(column.tokens))));
  return html("table", {},
    html("thead", {}, html("tr", {}, ...head.map((text) => html("th", { scope: "col" }, text)))),
    html("tbody", {}, ...rows));
}
