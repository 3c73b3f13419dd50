// One post's affect as a picture: bars, gauges, steps and chips. All numbers are shown as text too.

import { colour } from "./colours.js";
import { el, number, percent } from "./dom.js";
import { gauge } from "./gauge.js";
import { wordsPanel } from "./words.js";

/** The picture of one result; `tasks` as GET /v1/tasks gives them. */
export function picture(text, result, tasks) {
  const answers = new Map(result.answers.map((answer) => [key(answer.task, answer.emotion), answer]));
  const asked = tasks.filter((task) => result.answers.some((answer) => answer.task === task.name));
  const error = result.answers.find((answer) => answer.error);
  const doubtful = [...new Set(result.answers.filter((answer) => answer.valid_mass !== null && answer.valid_mass < 0.5
    && !answer.way?.startsWith("entailment"))
    .map((answer) => answer.task))];
  return el("article", { class: "picture" },
    el("blockquote", { class: text.trim() ? "" : "empty" }, text.trim() ? text : "(no text)"),
    result.truncated ? el("p", { class: "flag" }, "Too long for the model: only the beginning was read.") : null,
    result.not_english ? el("p", { class: "flag" }, "This seems not to be English: the bundled models learnt nothing else.") : null,
    error ? el("p", { class: "flag" }, explain(error.error)) : null,
    doubtful.length ? el("p", { class: "flag" },
      `Without constraints the model would seldom give a valid answer to ${doubtful.join(", ")}: do not trust it there.`) : null,
    ...result.notes.map((note) => el("p", { class: "flag" }, NOTES[note] ?? note)),
    el("div", { class: "panels" }, ...panels(asked, answers), wordsPanel(text, result)),
  );
}

const NOTES = {
  context_cut: "The context is too long: only what is nearest to the post was read.",
  target_cut: "The target is too long: only its beginning was read.",
  target_not_in_text: "The post does not name the target.",
  context_not_read: "This model was not trained to read a context: some answers are without it.",
  target_not_read: "This model was not trained to read a target: some answers are without it.",
};

export function explain(error) {
  return {
    empty_text: "There is no text to read.",
    invalid_answer: "The model gave no valid answer.",
    labels_alike: "Two of the labels are the same to the model.",
    way_unavailable: "This endpoint cannot load the model that such labels need.",
  }[error]
    ?? "The model could not read this post.";
}

const key = (task, emotion) => `${task}\t${emotion ?? ""}`;

// An ordinal task that asks the same as a regression ("Valence class" and "Valence") is drawn with it. The bars of
// emotions come first: a gauge fits beside them.
function panels(tasks, answers) {
  const drawn = new Set();
  const bars = tasks.filter((task) => task.emotions.length);
  return [...bars, ...tasks.filter((task) => !task.emotions.length)].flatMap((task) => {
    if (drawn.has(task)) return [];
    const partner = task.kind !== "regression" ? null : tasks.find((other) =>
      other.kind === "ordinal" && other.title.startsWith(task.title) &&
      other.emotions.join() === task.emotions.join());
    if (partner) drawn.add(partner);
    const before = task.kind === "ordinal" && tasks.some((other) =>
      other.kind === "regression" && task.title.startsWith(other.title) &&
      other.emotions.join() === task.emotions.join());
    return before ? [] : [panel(task, partner, answers)];
  });
}

function panel(task, partner, answers) {
  const answer = (of, emotion = null) => answers.get(key(of.name, emotion));
  const title = el("h3", {}, task.title);
  const usable = (one) => one && one.value !== null;
  if (task.emotions.length) {
    const rows = task.emotions.map((emotion) => row(task, partner, emotion, (of) => answer(of, emotion)));
    return el("section", { class: "panel bars" }, title, hint(task), el("ul", {}, ...rows));
  }
  const one = answer(task);
  if (!usable(one)) return el("section", { class: "panel" }, title, el("p", { class: "hint" }, "no answer"));
  switch (task.kind) {
    case "regression":
      return el("section", { class: "panel" }, title, gauge(task, one),
        partner && usable(answer(partner)) ? steps(partner, answer(partner)) : null);
    case "ordinal":
      return el("section", { class: "panel" }, title, steps(task, one));
    default:
      return el("section", { class: "panel wide" }, title, chips(task, one),
        one.way ? el("p", { class: "hint" }, `The model does not know these labels: ${one.way}.`) : null);
  }
}

function hint(task) {
  if (task.kind !== "regression") return null;
  return el("p", { class: "hint" }, `${task.low} to ${task.high}; the band is one standard deviation either way`);
}

// One emotion: its bar, its number, its class.
function row(task, partner, emotion, answer) {
  const one = answer(task);
  const cls = partner ? answer(partner) : null;
  const parts = [el("span", { class: "name" }, emotion)];
  if (!one || one.value === null) parts.push(el("span", { class: "hint" }, "no answer"));
  else if (task.kind === "regression") {
    const at = (value) => `${(Math.min(1, Math.max(0, (value - task.low) / (task.high - task.low))) * 100).toFixed(2)}%`;
    const spread = one.std === null ? null : el("i", {
      class: "spread", "--from": at(one.value - one.std), "--to": at(one.value + one.std),
    });
    parts.push(
      el("span", { class: "track", "aria-hidden": "true" }, el("i", { class: "fill", "--to": at(one.value) }), spread),
      el("span", { class: "number" }, number(one.value),
        one.std === null ? null : el("small", {}, ` ± ${number(one.std)}`)),
    );
    if (cls && cls.value !== null) parts.push(el("span", { class: "class" }, sentence(partner, cls, emotion)));
  } else parts.push(strip(task, one), el("span", { class: "class" }, sentence(task, one, emotion)));
  return el("li", { "--colour": colour(emotion) }, ...parts);
}

// A class in words: "moderate amount of joy, 71%".
function sentence(task, answer, emotion) {
  const found = task.classes.find((one) => one.value === answer.value);
  const words = found ? found.phrase.replaceAll("{emotion}", emotion ?? "").replace(/ can be inferred$/, "") : "";
  const sure = answer.confidence === null ? "" : `, ${percent(answer.confidence)} sure`;
  return `${words || answer.value}${sure}`;
}

// The probability of each class as a column, with the chosen class in words below.
function steps(task, answer) {
  return el("div", { class: "steps" }, strip(task, answer),
    el("p", { class: "class" }, sentence(task, answer, answer.emotion)));
}

function strip(task, answer) {
  const most = Math.max(...Object.values(answer.probabilities), 1e-9);
  const columns = task.classes.map((one) => {
    const share = answer.probabilities[one.value] ?? (one.value === answer.value ? most : 0);
    const height = `${Math.max(3, (share / most) * 100).toFixed(1)}%`;
    return el("span", { class: one.value === answer.value ? "step chosen" : "step", title: percent(share) },
      el("i", { "--to": height }), el("b", {}, number(one.value, 0)));
  });
  return el("div", { class: "strip", "aria-hidden": "true" }, ...columns);
}

// The chosen labels first; the others by their probability.
function chips(task, answer) {
  const chosen = [answer.value].flat();
  const share = (label) => answer.probabilities[label] ?? null;
  const order = [...task.labels].sort((a, b) =>
    chosen.includes(b) - chosen.includes(a) || (share(b) ?? 0) - (share(a) ?? 0));
  const chip = (label) => {
    const isChosen = chosen.includes(label);
    return el("li", { class: isChosen ? "chip chosen" : "chip", "--colour": colour(label), "--share": share(label) ?? 0 },
      label, " ", el("small", {}, percent(share(label))),
      isChosen ? null : el("span", { class: "unseen" }, " (not chosen)"));
  };
  const none = chosen.length ? null : el("li", { class: "chip chosen none" }, task.no_label ?? "none");
  const sure = answer.confidence === null ? null
    : el("p", { class: "hint" }, `${percent(answer.confidence)} confidence in exactly ${chosen.length > 1 ? "these" : "this"}`);
  return el("div", {}, el("ul", { class: "chips" }, none, ...order.map(chip)), sure);
}
