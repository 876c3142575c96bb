// Tables under `data-tables` can be sorted by their columns and taken away as Markdown or CSV; without JavaScript they are plain tables.
const cellText = (cell) => cell.innerText.replace(/\s+/g, " ").trim();
// A cell sorts by the number at its beginning, else by its text; the interval behind a number does not count, and dashes come last.
const sortKey = (cell) => {
  const text = cellText(cell);
  const number = /^[<>+\-]?\d[\d,]*(\.\d+)?/.exec(text);
  if (text === "" || text === "–") return [2, 0, ""];
  return number ? [0, Number(number[0].replace(/[<>,+]/g, "")), text] : [1, 0, text.toLowerCase()];
};
const compareKeys = (one, other) => one[0] - other[0] || one[1] - other[1] || one[2].localeCompare(other[2]);
function sortTable(table, column, descending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, key: sortKey(row.cells[column]) }));
  // Missing values stay last in both directions.
  rows.sort((one, other) => (one.key[0] === 2 || other.key[0] === 2 || !descending ? 1 : -1) * compareKeys(one.key, other.key));
  body.append(...rows.map(({ row }) => row));
  for (const [at, head] of [...table.tHead.rows[0].cells].entries()) {
    if (at === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}
function makeSortable(table) {
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sortTable(table, column, head.getAttribute("aria-sort") === "ascending"));
  }
}
const linesOf = (table) => [table.tHead.rows[0], ...table.tBodies[0].rows].map((row) => [...row.cells].map(cellText));
const asMarkdown = (table) => {
  const [head, ...rows] = linesOf(table).map((cells) => `| ${cells.map((text) => text.replace(/[\\|]/g, "\\$&")).join(" | ")} |`);
  const rule = `|${" --- |".repeat(table.tHead.rows[0].cells.length)}`;
  return [head, rule, ...rows, ""].join("\n");
};
// Text that a spreadsheet would run as a formula gets an apostrophe; numbers, alone or with an interval, keep their sign.
const csvField = (text) => {
  const safe = /^[=@\t\r]|^[+\-](?![\d.,\s%\[\]–\-]*$)/.test(text) ? `'${text}` : text;
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
const asCsv = (table) => linesOf(table).map((cells) => cells.map(csvField).join(",")).join("\n") + "\n";
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // A page from disk may not be allowed the clipboard: the old way needs a text that is selected.
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
for (const table of document.querySelectorAll("[data-tables] table")) {
  if (!table.tHead || table.tHead.rows.length !== 1 || table.tBodies.length !== 1 || table.querySelector("tbody [rowspan], tbody [colspan]")) continue;
  makeSortable(table);
  const name = table.caption ? cellText(table.caption) : "table";
  const copy = tool("Copy Markdown", `Copy as Markdown: ${name}`, async () => {
    await copyText(asMarkdown(table));
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy Markdown"), 2000);
  });
  toolsAfter(table, copy, tool("Save CSV", `Save as CSV: ${name}`, () => saveFile(asCsv(table), "text/csv", `${fileStem(name)}.csv`)));
}
