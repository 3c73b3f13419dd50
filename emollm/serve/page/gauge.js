// A number in its range on a half-circle gauge, with its standard deviation as a band.

import { el, number, svg } from "./dom.js";

const [WIDTH, HEIGHT, RADIUS, MIDDLE] = [240, 132, 98, 120];

/** The gauge of a regression: needle at the value, band of one standard deviation either way. */
export function gauge(task, answer) {
  const share = (value) => Math.min(1, Math.max(0, (value - task.low) / (task.high - task.low)));
  const said = `${number(answer.value)}${answer.std === null ? "" : ` ± ${number(answer.std)}`}`;
  const label = `${task.title} ${said}, on a scale from ${task.low} to ${task.high}`;
  const [tipX, tipY] = point(share(answer.value), RADIUS + 12);
  const [footX, footY] = point(share(answer.value), RADIUS - 24);
  // The colour scale is drawn in twenty-four pieces, since a gradient cannot follow an arc.
  const scale = Array.from({ length: 24 }, (_, i) =>
    svg("path", { d: arc(i / 24, (i + 1.04) / 24), class: "scale", "--share": (i / 23).toFixed(3) }));
  const band = answer.std === null ? null : svg("path", {
    d: arc(share(answer.value - answer.std), share(answer.value + answer.std), RADIUS - 16), class: "band",
  });
  return el("div", { class: "gauge" }, svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    ...scale, band,
    svg("line", { x1: footX, y1: footY, x2: tipX, y2: tipY, class: "needle" }),
    svg("text", { x: MIDDLE, y: 104, class: "value" }, number(answer.value)),
    answer.std === null ? null : svg("text", { x: MIDDLE, y: 123, class: "soft" }, `± ${number(answer.std)}`),
    svg("text", { x: MIDDLE - RADIUS, y: 131, class: "soft" }, String(task.low)),
    svg("text", { x: MIDDLE + RADIUS, y: 131, class: "soft" }, String(task.high)),
  ));
}

function point(share, radius) {
  const angle = Math.PI * (1 - share);
  return [MIDDLE + radius * Math.cos(angle), 116 - radius * Math.sin(angle)].map((at) => at.toFixed(2));
}

function arc(from, to, radius = RADIUS) {
  return `M ${point(from, radius).join(" ")} A ${radius} ${radius} 0 0 1 ${point(Math.min(1, to), radius).join(" ")}`;
}
