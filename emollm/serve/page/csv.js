// CSV in and out.

/** Rows of cells. Quotes, line breaks in quotes, and commas, semicolons or tabs between cells. */
export function parseCsv(text) {
  text = text.replace(/^\uFEFF/, "");
  const comma = separator(text);
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') cell += text[++i];
      else quoted = false;
    } else if (c === '"' && cell === "") quoted = true;
    else if (c === comma) [row, cell] = [[...row, cell], ""];
    else if (c === "\n" || c === "\r") {
      if (c === "\r" && text[i + 1] === "\n") i++;
      rows.push([...row, cell]);
      [row, cell] = [[], ""];
    } else cell += c;
  }
  if (cell !== "" || row.length) rows.push([...row, cell]);
  return rows.filter((cells) => cells.some((one) => one.trim() !== ""));
}

// The most likely delimiter of comma, semicolon and tab: the most frequent one in the first line.
function separator(text) {
  const first = text.split(/[\r\n]/, 1)[0];
  const count = (c) => first.split(c).length;
  return [",", ";", "\t"].reduce((best, c) => (count(c) > count(best) ? c : best));
}

const NAMES = ["text", "post", "tweet", "content", "message", "body", "comment", "review"];

/** The names of the columns, the rows below, and the column that most likely has the posts. */
export function asTable(rows) {
  // Not Math.max(...): a hundred thousand arguments overflow the stack.
  const width = rows.reduce((most, row) => Math.max(most, row.length), 0);
  const first = rows[0].map((cell) => cell.trim());
  const known = first.findIndex((cell) => NAMES.includes(cell.toLowerCase()));
  const isHeader = known >= 0 || (rows.length > 1 && width > 1 && first.every((cell) => cell && cell.length < 40));
  const columns = Array.from({ length: width }, (_, i) => (isHeader && first[i]) || `column ${i + 1}`);
  const body = isHeader ? rows.slice(1) : rows;
  const length = (i) => body.slice(0, 50).reduce((sum, row) => sum + (row[i] ?? "").length, 0);
  const longest = columns.reduce((best, _, i) => (length(i) > length(best) ? i : best), 0);
  return { columns, rows: body, column: known >= 0 ? known : longest };
}

/** Rows as CSV. A number stays one; text that a spreadsheet would run as a formula gets a leading apostrophe. */
export function toCsv(rows) {
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const safe = /^\s*[=+\-@\t\r\uFF1D\uFF0B\uFF0D\uFF20]/.test(value) ? `'${value}` : value;
  return `"${safe.replaceAll('"', '""')}"`;
}
