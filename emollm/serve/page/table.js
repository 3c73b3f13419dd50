// Many posts as a table: sorted by a click on a heading, a hundred rows at a time, and as CSV.

import { toCsv } from "./csv.js";
import { byId, el, number } from "./dom.js";
import { explain } from "./picture.js";

const ROWS = 100;

/** Columns of a table: one per question, in the order of the answers. */
function questions(results) {
  return results[0].answers.map(({ task, emotion }, at) => ({ task, emotion, at }));
}

export class Table {
  /** `choose` is called with the number of the post that was clicked. */
  constructor(choose) {
    this.choose = choose;
    this.sorted = { at: null, down: false };
    this.page = 0;
    byId("before").addEventListener("click", () => this.turn(-1));
    byId("after").addEventListener("click", () => this.turn(1));
  }

  show(posts, results, tasks) {
    Object.assign(this, { posts, results, tasks, page: 0, chosen: 0, columns: questions(results) });
    this.sorted = { at: null, down: false };
    this.order = results.map((_, i) => i);
    this.draw();
  }

  turn(by) {
    this.page += by;
    this.draw();
  }

  sort(at) {
    this.sorted = { at, down: this.sorted.at === at && !this.sorted.down };
    const value = (i) => (at === -1 ? this.posts[i] : sortable(this.results[i].answers[at].value));
    const sign = this.sorted.down ? -1 : 1;
    this.order.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === y) return a - b;
      if (x === null || y === null) return x === null ? 1 : -1; // missing answers come last in both directions
      return (typeof x === "number" ? x - y : x.localeCompare(y)) * sign;
    });
    this.page = 0;
    this.draw();
    const headings = byId("table").querySelectorAll("th button");
    headings[at + 1].focus();
  }

  draw() {
    const pages = Math.ceil(this.order.length / ROWS);
    const shown = this.order.slice(this.page * ROWS, (this.page + 1) * ROWS);
    const head = el("tr", {}, this.heading("post", -1),
      ...this.columns.map(({ task, emotion, at }) => this.heading(emotion ?? task, at, emotion ? task : null)));
    byId("table").replaceChildren(el("caption", { class: "unseen" }, "Choose a post to see its picture"),
      el("thead", {}, head), el("tbody", {}, ...shown.map((i) => this.row(i))));
    byId("pages").hidden = pages < 2;
    byId("page-line").textContent = `page ${this.page + 1} of ${pages}`;
    byId("before").disabled = this.page === 0;
    byId("after").disabled = this.page === pages - 1;
  }

  heading(name, at, of = null) {
    const mine = this.sorted.at === at;
    const order = mine ? (this.sorted.down ? "descending" : "ascending") : "none";
    return el("th", { scope: "col", "aria-sort": order },
      el("button", { type: "button", click: () => this.sort(at) },
        of ? el("span", { class: "of" }, `${of} `) : null, name,
        el("span", { class: "order", "aria-hidden": "true" }, mine ? (this.sorted.down ? "▼" : "▲") : "")));
  }

  row(i) {
    const text = this.posts[i];
    const button = el("button", { type: "button", class: "post", click: () => this.pick(i) },
      text.trim() ? text.slice(0, 200) : "(no text)");
    return el("tr", { class: i === this.chosen ? "chosen" : "", "data-post": i },
      el("th", { scope: "row" }, button), ...this.results[i].answers.map((answer) => this.cell(answer)));
  }

  pick(i) {
    this.chosen = i;
    for (const row of byId("table").tBodies[0].rows) {
      row.classList.toggle("chosen", row.dataset.post === String(i));
    }
    this.choose(i);
  }

  cell(answer) {
    if (answer.value === null) return el("td", { class: "none", title: explain(answer.error) }, "–");
    const task = this.tasks.find((one) => one.name === answer.task);
    if (task.kind === "regression") {
      const share = (answer.value - task.low) / (task.high - task.low);
      return el("td", { class: "n", "--to": `${(share * 100).toFixed(1)}%` }, number(answer.value));
    }
    if (task.kind === "ordinal") return el("td", { class: "n plain" }, number(answer.value, 0));
    return el("td", {}, [answer.value].flat().join(", ") || (task.no_label ?? "none"));
  }

  /** All posts and answers; `extra` are a file's own columns, names first. */
  csv(extra) {
    const [names, ...rows] = extra;
    const heads = this.columns.flatMap(({ task, emotion, at }) => {
      const name = [task, emotion].filter(Boolean).join("_").replace(/[^\p{L}\p{N}]/gu, "_").toLowerCase();
      return this.isNumber(at) ? [name, `${name}_std`, `${name}_confidence`] : [name, `${name}_confidence`];
    });
    const lines = this.results.map((result, i) => [...rows[i], ...result.answers.flatMap((answer, at) => {
      const value = Array.isArray(answer.value) ? answer.value.join(", ") : answer.value;
      return this.isNumber(at) ? [value, answer.std, answer.confidence] : [value, answer.confidence];
    }), result.truncated, result.answers.find((answer) => answer.error)?.error ?? "", result.not_english]);
    return toCsv([[...names, ...heads, "truncated", "error", "not_english"], ...lines]);
  }

  isNumber(at) {
    return this.tasks.find((task) => task.name === this.columns[at].task).kind === "regression";
  }
}

// A label set sorts by its words.
const sortable = (value) => (Array.isArray(value) ? value.join(", ") : value);
