// The model's card, in words.

import { el } from "./dom.js";

/** The responses of GET /v1/model and GET /v1/tasks as an element. */
export function modelCard(model, tasks) {
  const { training } = model.card;
  const rows = Object.entries(training.data ?? {}).map(([split, n]) => `${n.toLocaleString("en")} ${split}`);
  const facts = {
    name: lastPart(model.name),
    base: lastPart(model.base),
    licence: model.licence,
    kind: { lora: "LoRA on the base", heads: "heads on the base" }[model.adapter] ?? "full weights",
    "trained on": rows.length ? `rows: ${rows.join(", ")}` : "nothing; its answers are noise",
    engine: `${model.engine}, ${model.precision}`,
    "longest post": `${model.max_post_tokens} tokens; longer posts are truncated`,
    "base weights": model.base_fingerprint,
    "model digest": model.digest,
  };
  const metrics = Object.entries(model.metrics).filter(([, value]) => typeof value === "number");
  return el("div", { class: "panels" },
    el("section", { class: "panel" }, el("h3", {}, "Where it comes from"), list(facts)),
    el("section", { class: "panel" }, el("h3", {}, "What it reads"),
      list(Object.fromEntries(tasks.map((task) => [task.name, `${task.title}: ${scale(task)}${task.origin ? `; ${task.origin}` : ""}`])))),
    metrics.length ? el("section", { class: "panel" }, el("h3", {}, "Metrics from training"),
      list(Object.fromEntries(metrics.map(([name, value]) => [name.replaceAll("_", " "), round(value)])))) : null,
    el("p", { class: "hint wide" }, "Answers are a model's estimates of what a text conveys, not facts about whoever wrote it."),
  );
}

const lastPart = (path) => path.split("/").filter(Boolean).pop() ?? path;

const round = (value) => (Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(3));

const list = (facts) =>
  el("dl", {}, ...Object.entries(facts).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

function scale(task) {
  const each = task.emotions.length ? `, for ${task.emotions.join(", ")}` : "";
  switch (task.kind) {
    case "regression":
      return `${task.low} to ${task.high}${each}`;
    case "ordinal":
      return `classes ${task.classes[0].value} to ${task.classes.at(-1).value}${each}`;
    case "single-label":
      return `one of ${task.labels.join(", ")}`;
    default:
      return `any of ${task.labels.join(", ")}`;
  }
}
