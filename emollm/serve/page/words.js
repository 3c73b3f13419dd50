// The words with the largest effects on an answer, and the second answer: one question at a time, chosen from a list.

import { el, number } from "./dom.js";

/** A panel for one result, or null where nothing was asked for beside the answers. */
export function wordsPanel(text, result) {
  const asked = result.answers.flatMap((answer) => views(answer));
  if (!asked.length) return null;
  const place = el("div", { "aria-live": "polite" });
  const choose = (i) => place.replaceChildren(...shown(text, asked[i]));
  const list = el("select", { id: "words-of", change: (event) => choose(Number(event.target.value)) },
    ...asked.map((one, i) => el("option", { value: i }, one.name)));
  choose(0);
  return el("section", { class: "panel wide words" }, el("h3", {}, "Which words moved it"),
    el("label", {}, "for ", list), place,
    el("p", { class: "hint" }, "What the answer changes by when a word is left out. It explains the model, not the writer."));
}

// One view per question, of a label set one per label.
function views(answer) {
  const beside = answer.beside;
  if (!beside?.words) return [];
  const name = [answer.task, answer.emotion].filter(Boolean).join(" ");
  const abouts = [...new Set(beside.words.map((word) => word.about))];
  return abouts.map((about) => ({
    name: about ? `${name}: ${about}` : name,
    words: beside.words.filter((word) => word.about === about),
    second: beside.second,
  }));
}

function shown(text, { words, second }) {
  const most = Math.max(...words.map((word) => Math.abs(word.effect)), 1e-9);
  const characters = Array.from(text); // the endpoint counts characters, JavaScript halves of them
  const parts = [];
  let at = 0;
  for (const word of [...words].sort((a, b) => a.start - b.start)) {
    parts.push(characters.slice(at, word.start).join(""));
    parts.push(el("mark", { class: word.effect < 0 ? "down" : "up", "--share": Math.abs(word.effect) / most }, word.word));
    at = word.end;
  }
  parts.push(characters.slice(at).join(""));
  const told = words.map((word) => `${word.word} ${word.effect < 0 ? "" : "+"}${number(word.effect, 2)}`).join(", ");
  return [el("p", { class: "highlighted" }, ...parts),
    el("p", { class: "hint" }, `from ${number(words[0].base)}: ${told}`),
    second === undefined ? null : el("p", { class: "hint" }, `second answer: ${[second].flat().join(", ") || "none"}`),
  ].filter(Boolean);
}
