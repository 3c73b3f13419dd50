// The page: posts in, pictures out.

import { annotate, ApiError, get, setKey } from "./api.js";
import { modelCard } from "./card.js";
import { byId, el } from "./dom.js";
import { asTable, parseCsv } from "./csv.js";
import { picture } from "./picture.js";
import { Table } from "./table.js";

const PROFILE = ["EI-reg", "EI-oc", "V-reg", "V-oc", "E-c"];
// Intensities for any post: used instead of EI-reg, which says little about an emotion that is absent.
const ANY_POST = "Intensity";
const TRIES = 4;

let tasks = [];
let known = []; // the model's tasks, and the one of the page's own labels
let file = null; // { name, columns, rows, column }
let asked = { posts: [], results: [], extra: [["post"]] };
let running = null; // an AbortController while posts are read
const table = new Table(show);

start();

async function start() {
  byId("ask").addEventListener("submit", (event) => { event.preventDefault(); read(); });
  byId("posts").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); read(); }
  });
  byId("stop").addEventListener("click", () => running?.abort());
  byId("file").addEventListener("change", (event) => take(event.target.files[0]));
  byId("file-remove").addEventListener("click", removeFile);
  byId("column").addEventListener("change", (event) => { file.column = Number(event.target.value); });
  byId("download").addEventListener("click", download);
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey(byId("key").value.trim());
    byId("key").value = "";
    load();
  });
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      byId("ask").classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("dragleave", () => byId("ask").classList.remove("over"));
  await load();
}

// Load the card and the tasks. If the model is not loaded yet, try again.
async function load() {
  problem(null);
  say("");
  try {
    const model = await get("v1/model");
    tasks = await get("v1/tasks");
    byId("key-form").hidden = true;
    byId("model-line").textContent = `${model.name.split("/").filter(Boolean).pop()}, on ${model.base.split("/").pop()}`;
    byId("card").replaceChildren(modelCard(model, tasks));
    offer();
  } catch (error) {
    byId("card").replaceChildren(el("p", { class: "hint" }, "not available"));
    if (error.status === 503) {
      say("the model is not ready; trying again");
      setTimeout(load, 1000 * (error.retryAfter || 3));
    } else fail(error);
  }
}

function offer() {
  const known = tasks.map((task) => task.name);
  const usual = (known.includes(ANY_POST) ? [ANY_POST, ...PROFILE.slice(2)] : PROFILE).filter((name) => known.includes(name));
  const on = usual.length ? usual : known;
  byId("tasks").replaceChildren(el("legend", {}, "What to read"), ...tasks.map((task) =>
    el("label", { class: "task", title: task.source },
      el("input", { type: "checkbox", name: "task", value: task.name, checked: on.includes(task.name) }), task.title)));
}

async function take(chosen) {
  if (!chosen) return;
  problem(null);
  try {
    const rows = /\.txt$/i.test(chosen.name)
      ? [["post"], ...(await decoded(chosen)).split(/\r?\n/).filter((line) => line.trim()).map((line) => [line])]
      : parseCsv(await decoded(chosen));
    if (rows.length < 1) throw new Error("it has no rows");
    file = { name: chosen.name, ...asTable(rows) };
    if (!file.rows.length) throw new Error("it has a header and no posts");
  } catch (error) {
    removeFile();
    problem(`${chosen.name} cannot be read: ${error.message}.`);
    return;
  }
  byId("file-name").textContent = `${file.name}, ${counted(file.rows.length)}`;
  byId("column").replaceChildren(...file.columns.map((name, i) =>
    el("option", { value: i, selected: i === file.column }, name)));
  byId("column-label").hidden = file.columns.length < 2;
  byId("file-line").hidden = false;
  byId("posts").disabled = true;
}

async function decoded(chosen) {
  const bytes = await chosen.arrayBuffer();
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    // The encoding of Excel on Windows. Any byte is valid in it, so binary files must be detected.
    const text = new TextDecoder("windows-1252").decode(bytes);
    if (text.includes("\0")) throw new Error("it is not a text file");
    return text;
  }
}

function removeFile() {
  file = null;
  byId("file").value = "";
  byId("file-line").hidden = true;
  byId("posts").disabled = false;
}

const counted = (n) => `${n.toLocaleString("en")} ${n === 1 ? "post" : "posts"}`;

function gather() {
  if (file) {
    return { posts: file.rows.map((row) => row[file.column] ?? ""), extra: [file.columns, ...file.rows.map((row) =>
      file.columns.map((_, i) => row[i] ?? ""))] };
  }
  const posts = byId("posts").value.split("\n").map((line) => line.trim()).filter(Boolean);
  return { posts, extra: [["post"], ...posts.map((post) => [post])] };
}

// What is asked for beside the answers.
const extras = () => ({ explain: byId("explain").checked, second: byId("explain").checked });

async function read() {
  if (running) return;
  const { posts, extra } = gather();
  const own = ownTask();
  const names = [...document.querySelectorAll("input[name=task]:checked")].map((box) => box.value);
  const beside = { context: byId("context").value.trim(), target: byId("target").value.trim() };
  problem(null);
  if (!tasks.length) { await load(); if (!tasks.length) return; return read(); }
  if (!posts.length) { problem("Write a post, or choose a file."); byId("posts").focus(); return; }
  if (!names.length && !own) { problem("Choose at least one thing to read."); return; }
  running = new AbortController();
  busy(true, posts.length);
  const results = [];
  try {
    await again(async () => {
      for await (const result of annotate(posts.slice(results.length),
        own ? [...names, { name: own.name, labels: own.labels }] : names, extras(), running.signal, beside)) {
        results.push(result);
        advance(results.length, posts.length);
      }
    });
  } catch (error) {
    fail(error);
  }
  busy(false);
  running = null;
  known = own ? [...tasks, own] : tasks;
  if (results.length) showAll(posts.slice(0, results.length), results, extra);
  const missing = posts.length - results.length;
  say(missing ? `${counted(results.length)} read, ${missing} not` : `${counted(posts.length)} read`);
}

// The labels that were typed, as a task like those that the endpoint lists; null where there are none.
function ownTask() {
  const labels = byId("own-labels").value.split(",").map((label) => label.trim()).filter(Boolean);
  return labels.length ? { name: "your-labels", title: "Your labels", kind: "single-label", labels, classes: [],
    emotions: [], low: null, high: null, no_label: null, source: "" } : null;
}

// If the queue is full, the response says when to try again: wait and retry a few times.
async function again(work) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (error.status !== 429 || attempt === TRIES) throw error;
      const seconds = Math.min(30, error.retryAfter || 1);
      say(`the queue is full; trying again in ${seconds} s`);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
}

function showAll(posts, results, extra) {
  asked = { posts, results, extra };
  byId("results").hidden = false;
  byId("results-title").textContent = counted(posts.length);
  byId("many").hidden = posts.length < 2;
  if (posts.length > 1) table.show(posts, results, known);
  show(0);
  byId("results-title").focus({ preventScroll: true });
  byId("results").scrollIntoView({ block: "nearest" });
}

function show(i) {
  byId("picture").replaceChildren(picture(asked.posts[i], asked.results[i], known));
}

function download() {
  // The byte order mark tells Excel that the file is UTF-8.
  const blob = new Blob(["\uFEFF", table.csv(asked.extra.slice(0, asked.results.length + 1))], { type: "text/csv" });
  const link = el("a", { href: URL.createObjectURL(blob), download: "affect.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function busy(on, total = 1) {
  byId("go").disabled = on;
  byId("stop").hidden = !on;
  byId("progress").hidden = !on;
  byId("progress").max = total;
  byId("progress").removeAttribute("value"); // indeterminate until the first result arrives
  if (on) say(`reading ${counted(total)}`);
}

function advance(done, total) {
  byId("progress").value = done;
  // Screen readers announce every tenth of the posts, not each post.
  if (done % Math.ceil(total / 10) === 0) say(`${done.toLocaleString("en")} of ${counted(total)}`);
}

function say(text) {
  byId("status").textContent = text;
}

function fail(error) {
  if (error.name === "AbortError") return;
  if (error instanceof ApiError && error.status === 401) {
    byId("key-form").hidden = false;
    byId("key").focus();
    if (sessionStorage.length) problem(error.message);
    return;
  }
  problem(error instanceof ApiError ? error.message : "An error in the page; see the browser's console.");
  if (!(error instanceof ApiError)) console.error(error);
}

function problem(text) {
  byId("error").hidden = text === null;
  byId("error").textContent = text ?? "";
}
