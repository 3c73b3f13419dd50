// A colour for each emotion. The meaning is always given in text too.

const KNOWN = {
  anger: "red", annoyance: "red", disgust: "olive", fear: "violet", nervousness: "violet", joy: "amber",
  amusement: "amber", excitement: "amber", sadness: "blue", grief: "blue", love: "pink", caring: "pink",
  optimism: "orange", pessimism: "slate", anticipation: "teal", surprise: "cyan", trust: "green", gratitude: "green",
};
const OTHERS = ["teal", "orange", "blue", "pink", "green", "violet", "cyan", "red", "amber", "olive"];

/** A CSS value; an unknown label gets one of ten colours by its letters, always the same. */
export function colour(label) {
  const name = label.toLowerCase();
  const letters = [...name].reduce((sum, c) => (sum * 31 + c.codePointAt(0)) % 9973, 0);
  return `var(--${KNOWN[name] ?? OTHERS[letters % OTHERS.length]})`;
}
